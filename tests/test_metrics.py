"""Measures by published examples, by hand and by law. N images, K classes."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from sightline.evaluation.calibration import fit_temperature, temperature_interval
from sightline.measures.metrics import (
    calibration_error,
    classwise_calibration_error,
    confusion_matrix,
    cross_entropy,
    per_class,
    probabilities,
    suspected_labels,
    top_k_accuracy,
    wilson_interval,
)

Array = np.ndarray[Any, Any]


def random_answers(n: int, classes: int, seed: int = 0) -> tuple[Array, Array]:
    """Logits and labels that were drawn with just the chances that the logits say."""
    generator = np.random.default_rng(seed)
    logits_NK = generator.normal(size=(n, classes)) * 2
    thresholds_N = generator.random(n)
    labels_N = (probabilities(logits_NK).cumsum(1) < thresholds_N[:, None]).sum(1).clip(0, classes - 1)
    return logits_NK, labels_N


# ── the interval ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 10, 0.0, 0.2775),  # z² / (n + z²) = 3.8415 / 13.8415
        (10, 10, 0.7225, 1.0),
    ],
)
def test_the_interval_is_the_published_one(right: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_the_wrong_answers_mirrors_that_of_the_right_ones() -> None:
    for right in range(38):
        low, high = wilson_interval(right, 37)
        assert wilson_interval(37 - right, 37) == pytest.approx((1 - high, 1 - low))
        assert 0 <= low <= right / 37 <= high <= 1


@pytest.mark.parametrize("truth", [0.5, 0.9, 0.96])
def test_the_interval_holds_the_true_accuracy_about_95_times_in_100(truth: float) -> None:
    right_R = np.random.default_rng(1).binomial(200, truth, size=4000)
    held = [low <= truth <= high for low, high in (wilson_interval(int(right), 200) for right in right_R)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


# ── right answers ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_true_class_counts_where_it_is_among_the_k_highest() -> None:
    logits_NK = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 3.0, 1.0], [1.0, 3.0, 2.0]])
    labels_N = np.array([0, 0, 0, 0])  # ranked first, third, second, third
    assert [top_k_accuracy(logits_NK, labels_N, k) for k in (1, 2, 3)] == [0.25, 0.5, 1.0]


def test_a_tie_counts_against_the_true_class() -> None:
    assert [top_k_accuracy(np.ones((1, 3)), np.array([0]), k) for k in (1, 2, 3)] == [0.0, 0.0, 1.0]
    assert top_k_accuracy(np.array([[2.0, 2.0, 1.0]]), np.array([0]), 1) == 0.0
    assert top_k_accuracy(np.array([[2.0, 1.0, 1.0]]), np.array([0]), 1) == 1.0


def test_logits_that_are_no_numbers_are_never_right() -> None:
    broken = np.full((2, 7), np.nan)
    assert top_k_accuracy(broken, np.array([0, 6]), 5) == 0.0


def test_rows_of_the_confusion_matrix_are_the_true_classes() -> None:
    predicted_N, labels_N = np.array([0, 1, 1, 2, 2, 2]), np.array([0, 0, 1, 2, 2, 1])
    confusion = confusion_matrix(predicted_N, labels_N, 4)
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
    assert confusion.sum(1).tolist() == np.bincount(labels_N, minlength=4).tolist()
    assert confusion.sum(0).tolist() == np.bincount(predicted_N, minlength=4).tolist()
    assert confusion.sum() == len(labels_N)


def test_precision_recall_and_f1_are_those_counted_by_hand() -> None:
    rows = per_class(np.array([[6, 2, 0], [4, 8, 0], [0, 0, 0]]))
    assert rows[0] == {"n": 8, "precision": 0.6, "recall": 0.75, "f1": pytest.approx(2 / 3)}  # 2 · 0.6 · 0.75 / 1.35
    assert rows[1] == {"n": 12, "precision": 0.8, "recall": pytest.approx(2 / 3), "f1": pytest.approx(8 / 11)}
    assert rows[2] == {"n": 0, "precision": None, "recall": None, "f1": None}


def test_a_class_never_predicted_has_no_precision_and_one_never_there_no_recall() -> None:
    never_predicted, never_there = per_class(np.array([[0, 3], [0, 0]]))
    assert never_predicted == {"n": 3, "precision": None, "recall": 0.0, "f1": 0.0}
    assert never_there == {"n": 0, "precision": 0.0, "recall": None, "f1": 0.0}


def test_recall_weighted_by_the_images_is_the_accuracy() -> None:
    logits_NK, labels_N = random_answers(500, 5)
    rows = per_class(confusion_matrix(logits_NK.argmax(1), labels_N, 5))
    right = sum(row["n"] * row["recall"] for row in rows)  # type: ignore[operator]
    assert right / 500 == pytest.approx(top_k_accuracy(logits_NK, labels_N, 1))


# ── probabilities ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_row_of_probabilities_sums_to_one_even_for_enormous_logits() -> None:
    logits_NK = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32) * 1e4
    for temperature in (0.05, 1.0, 20.0):
        shares_NK = probabilities(logits_NK, temperature)
        assert np.isfinite(shares_NK).all()
        assert shares_NK.sum(1) == pytest.approx(np.ones(50), abs=1e-12)
    assert probabilities(np.array([[1e4, -1e4]])).tolist() == [[1.0, 0.0]]


def test_probabilities_are_those_of_the_odds_and_do_not_mind_a_constant() -> None:
    logits_NK = np.log(np.array([[1.0, 2.0, 5.0]]))
    assert probabilities(logits_NK)[0] == pytest.approx([0.125, 0.25, 0.625])
    assert probabilities(logits_NK + 1e3)[0] == pytest.approx([0.125, 0.25, 0.625])
    assert probabilities(logits_NK, 2.0)[0] == pytest.approx(np.sqrt([1, 2, 5]) / np.sqrt([1, 2, 5]).sum())
    assert logits_NK[0, 0] == 0.0  # what was handed in is left alone


def test_cross_entropy_is_torchs() -> None:
    logits_NK, labels_N = random_answers(100, 6)
    for temperature in (0.5, 1.0, 3.0):
        theirs = torch.nn.functional.cross_entropy(torch.tensor(logits_NK) / temperature, torch.tensor(labels_N))
        assert cross_entropy(logits_NK, labels_N, temperature) == pytest.approx(float(theirs), abs=1e-12)
    assert cross_entropy(np.zeros((3, 4)), np.array([0, 1, 2])) == pytest.approx(math.log(4))
    assert cross_entropy(np.array([[1e4, 0.0]]), np.array([1])) == 1e4


# ── calibration ──────────────────────────────────────────────────────────────────────────────────────────────────────


def two_classes(confidences: list[float]) -> Array:
    """Class 0 with these chances."""
    return np.array([[confidence, 1 - confidence] for confidence in confidences])


def test_calibration_error_is_the_gap_of_each_bin_weighted_by_its_images() -> None:
    chances_NK = two_classes([0.9, 0.9, 0.62, 0.62, 0.62])
    labels_N = np.array([0, 1, 0, 0, 0])
    by_hand = 2 / 5 * abs(1 / 2 - 0.9) + 3 / 5 * abs(1 - 0.62)
    assert calibration_error(chances_NK, labels_N) == pytest.approx(by_hand)


def test_confidences_of_one_bin_share_their_gap_and_those_of_two_do_not() -> None:
    labels_N = np.array([0, 1])  # the first is right, the second is wrong
    together = calibration_error(two_classes([0.61, 0.66]), labels_N)  # both in (9/15, 10/15]
    assert together == pytest.approx(abs(1 - 0.61 - 0.66) / 2)
    apart = calibration_error(two_classes([0.61, 0.67]), labels_N)
    assert apart == pytest.approx((1 - 0.61 + 0.67) / 2)
    on_the_edge = calibration_error(two_classes([0.6, 0.61]), labels_N)  # 9/15 belongs to the bin below
    assert on_the_edge == pytest.approx((1 - 0.6 + 0.61) / 2)


def test_a_perfectly_calibrated_classifier_has_no_calibration_error() -> None:
    assert calibration_error(two_classes([1.0, 1.0]), np.array([0, 0])) == 0.0
    assert calibration_error(two_classes([0.75] * 4), np.array([0, 0, 1, 0])) == 0.0
    assert calibration_error(two_classes([1.0, 1.0]), np.array([1, 1])) == 1.0


def test_calibration_error_does_not_depend_on_the_order_of_images_or_classes() -> None:
    logits_NK, labels_N = random_answers(300, 5)
    chances_NK = probabilities(logits_NK)
    before = calibration_error(chances_NK, labels_N)
    images, classes = np.random.default_rng(1).permutation(300), np.array([3, 0, 4, 1, 2])
    assert calibration_error(chances_NK[images], labels_N[images]) == pytest.approx(before, abs=1e-12)
    assert calibration_error(chances_NK[:, classes], np.argsort(classes)[labels_N]) == pytest.approx(before, abs=1e-12)


def test_the_classwise_error_sees_a_class_that_is_called_likely_everywhere() -> None:
    chances_NK = np.array([[0.5, 0.3, 0.2]] * 10)
    labels_N = np.array([0] * 5 + [1] * 5)
    assert calibration_error(chances_NK, labels_N) == pytest.approx(0)
    # each class's probabilities lie in one bin: 0.5 and 0.5, 0.3 and 0.5, 0.2 and 0
    assert classwise_calibration_error(chances_NK, labels_N) == pytest.approx((0 + 0.2 + 0.2) / 3)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_spoilt_the_logits_is_found(temperature: float) -> None:
    logits_NK, labels_N = random_answers(20_000, 4)
    found = fit_temperature(logits_NK * temperature, labels_N)
    assert found == pytest.approx(temperature, rel=0.03)
    # but for the prior, which 20,000 images outweigh
    assert found == pytest.approx(temperature * fit_temperature(logits_NK, labels_N), rel=1e-3)
    assert calibration_error(probabilities(logits_NK * temperature, found), labels_N) < 0.02


def test_a_fitted_temperature_never_raises_the_loss() -> None:
    generator = np.random.default_rng(2)
    for n, classes, scale in ((1, 2, 1.0), (5, 3, 10.0), (50, 10, 100.0), (50, 10, 0.0), (200, 2, 0.01)):
        logits_NK, labels_N = generator.normal(size=(n, classes)) * scale, generator.integers(0, classes, n)
        found = fit_temperature(logits_NK, labels_N)
        assert 1 / 500 < found < 500
        assert cross_entropy(logits_NK, labels_N, found) <= cross_entropy(logits_NK, labels_N) + 1e-12


def test_a_temperature_lower_or_higher_than_the_fitted_one_is_worse() -> None:
    logits_NK, labels_N = random_answers(1_000, 4)
    found = fit_temperature(logits_NK, labels_N)
    best = cross_entropy(logits_NK, labels_N, found)
    assert best < min(cross_entropy(logits_NK, labels_N, found * factor) for factor in (0.9, 0.99, 1.01, 1.1))


@pytest.mark.parametrize("n", [1, 15, 60, 2_500])
def test_images_that_are_all_answered_rightly_do_not_drive_the_temperature_to_its_bound(n: int) -> None:
    labels_N = np.arange(n) % 10
    logits_NK = 4.0 * np.eye(10)[labels_N]
    found = fit_temperature(logits_NK, labels_N)
    assert 0.2 < found < 1
    others_N = (labels_N + 1) % 10  # an eleventh image may be answered wrongly
    assert cross_entropy(logits_NK, others_N, found) < 16
    low, high = temperature_interval(logits_NK, labels_N, found)
    assert low < found < high
    assert high > 1.5 * low  # it says that they leave it open


def test_images_that_are_all_answered_wrongly_do_not_either() -> None:
    labels_N = np.arange(15) % 10
    assert 1 < fit_temperature(4.0 * np.eye(10)[(labels_N + 1) % 10], labels_N) < 10


def test_the_interval_of_a_temperature_holds_the_true_one_in_nearly_all_draws() -> None:
    held = 0
    for seed in range(100):
        logits_NK, labels_N = random_answers(200, 4, seed)
        found = fit_temperature(logits_NK * 1.5, labels_N)
        low, high = temperature_interval(logits_NK * 1.5, labels_N, found)
        held += low <= 1.5 <= high
    assert held >= 88


def test_a_temperature_never_changes_an_answer() -> None:
    logits_NK, _ = random_answers(100, 4)
    for temperature in (0.05, 0.7, 20.0):
        assert (probabilities(logits_NK, temperature).argmax(1) == logits_NK.argmax(1)).all()


# ── suspected labels ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_label_is_suspect_where_another_class_is_as_sure_of_the_image_as_of_its_own() -> None:
    chances_NK = np.array(
        [
            [0.9, 0.1, 0.0],  # class 0 has 0.9 and 0.5 on its own images: 0.7 on average
            [0.5, 0.4, 0.1],
            [0.75, 0.2, 0.05],  # labelled 1, and 0 claims it
            [0.65, 0.3, 0.05],  # labelled 1: 0 is more probable, and does not claim it
            [0.1, 0.9, 0.0],
            [0.8, 0.15, 0.05],  # labelled 1, and 0 claims it more
        ]
    )
    labels_N = np.array([0, 0, 1, 1, 1, 1])
    assert suspected_labels(chances_NK, labels_N).tolist() == [5, 2]  # margins 0.15 - 0.8 and 0.2 - 0.75


def test_no_label_is_suspect_of_answers_that_are_all_right() -> None:
    assert suspected_labels(np.eye(3), np.arange(3)).tolist() == []
    assert suspected_labels(np.array([[0.6, 0.4], [0.4, 0.6]]), np.array([0, 1])).tolist() == []


def test_suspects_are_cleanlabs_in_its_order_but_for_those_that_no_class_claims_over_the_label() -> None:
    cleanlab = pytest.importorskip("cleanlab.filter")
    for seed, classes in ((0, 3), (1, 10)):
        logits_NK, labels_N = random_answers(3000, classes, seed)
        generator = np.random.default_rng(seed)
        changed = generator.choice(3000, 150, replace=False)
        labels_N[changed] = (labels_N[changed] + 1) % classes
        chances_NK = probabilities(2 * logits_NK)
        ours = suspected_labels(chances_NK, labels_N).tolist()
        theirs = cleanlab.find_label_issues(
            labels_N,
            chances_NK,
            filter_by="confident_learning",
            return_indices_ranked_by="normalized_margin",
            n_jobs=1,
        ).tolist()
        assert len(ours) > 100
        assert [row for row in theirs if row in set(ours)] == ours
        thresholds_K = np.array([chances_NK[labels_N == index, index].mean() for index in range(classes)])
        for row in set(theirs) - set(ours):  # cleanlab also takes a class that claims an image below its label
            claiming = chances_NK[row] >= thresholds_K
            claiming[labels_N[row]] = False
            assert not (claiming & (chances_NK[row] > chances_NK[row, labels_N[row]])).any()
        assert len(set(theirs) - set(ours)) < 0.1 * len(theirs)


@pytest.mark.parametrize(("seed", "classes", "count"), [(0, 3, 3000), (1, 10, 3000), (2, 5, 60), (3, 40, 800)])
def test_suspects_by_noise_rate_are_those_that_cleanlab_prunes(seed: int, classes: int, count: int) -> None:
    cleanlab = pytest.importorskip("cleanlab.filter")
    logits_NK, labels_N = random_answers(count, classes, seed)
    generator = np.random.default_rng(seed)
    changed = generator.choice(count, count // 20, replace=False)
    labels_N[changed] = (labels_N[changed] + 1) % classes
    chances_NK = probabilities(2 * logits_NK)
    ours = suspected_labels(chances_NK, labels_N, "noise rate").tolist()
    theirs = cleanlab.find_label_issues(
        labels_N,
        chances_NK,
        filter_by="prune_by_noise_rate",
        return_indices_ranked_by="normalized_margin",
        n_jobs=1,
    ).tolist()
    theirs = [row for row in theirs if chances_NK[row].argmax() != labels_N[row]]
    either, both = set(ours) | set(theirs), set(ours) & set(theirs)
    assert len(both) >= 0.97 * len(either) - 1  # cleanlab rounds the counts of a row so that their sum stays
    assert [row for row in ours if row in both] == [row for row in theirs if row in both]
