"""A linear probe is logistic regression to the digit, and cross-validation is honest about few images."""

import numpy as np
import pytest
import torch

from sightline.inference import logistic_regression
from sightline.inference.logistic_regression import PENALTIES, Examples, choose_head, cross_validate, solve_head
from sightline.measures.metrics import wilson_interval
from sightline.measures.significance import corrected_interval, paired_interval


def blobs(count: int, width: int, classes: int = 3, spread: float = 1.0, seed: int = 0):
    """Features around one center a class, and the classes."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=random)
    return centres[labels] + spread * torch.randn(count, width, generator=random) + 5.0, labels


def dealt(labels):
    def deal(folds: int, seed: int):
        order = np.random.default_rng(seed).permutation(len(labels))
        return (np.argsort(order) % folds).astype(np.int64)

    return deal


@pytest.mark.parametrize("width", [4, 200], ids=["more images than features", "more features than images"])
def test_the_head_is_that_of_scikit_learn(width):
    from sklearn.linear_model import LogisticRegression

    features, labels = blobs(90, width)
    root = features.std(0, correction=0).sqrt()
    standardized = (features - features.mean(0)) / (root * root.mean())
    (head,) = solve_head(Examples(features, labels, 3), (0.01,))
    reference = LogisticRegression(C=1 / (0.01 * len(labels)), max_iter=2000, tol=1e-8).fit(standardized, labels)
    chances = torch.from_numpy(head.logits(features)).softmax(1).numpy()
    np.testing.assert_allclose(chances, reference.predict_proba(standardized), atol=2e-3)


def test_a_path_of_penalties_ends_where_each_penalty_alone_does():
    features, labels = blobs(60, 30)
    for head in solve_head(Examples(features, labels, 3)):
        (alone,) = solve_head(Examples(features, labels, 3), (head.penalty,))
        np.testing.assert_allclose(head.logits(features), alone.logits(features), atol=0.1)


def test_weights_of_two_count_as_an_image_twice():
    features, labels = blobs(40, 5)
    twice = torch.cat([torch.arange(40), torch.arange(10)])
    weights = torch.ones(40)
    weights[:10] = 2
    (weighted,) = solve_head(Examples(features, labels, 3, weights / weights.mean()), (0.1,))
    (doubled,) = solve_head(Examples(features[twice], labels[twice], 3), (0.1,))
    # the mean and deviation of the features differ a little, by which the penalty counts
    np.testing.assert_allclose(weighted.logits(features), doubled.logits(features), atol=0.15)


def test_a_class_without_an_image_and_a_feature_that_never_varies_do_no_harm():
    features, labels = blobs(30, 6)
    features[:, 2] = 1.0
    (head,) = solve_head(Examples(features, labels, 4), (0.01,))
    logits = head.logits(features)
    assert np.isfinite(logits).all()
    assert (logits.argmax(1) != 3).all()


def test_the_penalty_that_generalizes_is_chosen():
    features, labels = blobs(60, 300, spread=16.0)  # noise that only a strong penalty keeps out
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 300, generator=random)
    classes = torch.arange(3000) % 3
    fresh = torch.Generator().manual_seed(1)
    held_out = (centres[classes] + 16.0 * torch.randn(3000, 300, generator=fresh) + 5.0, classes)
    folds = dealt(labels)(5, 0)
    assert choose_head(Examples(features, labels, 3), folds, Examples(*held_out, 3)).penalty >= 0.1
    assert choose_head(Examples(features, labels, 3), folds).penalty >= 0.01


def test_cross_validation_of_noise_finds_chance_and_of_clear_classes_all():
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    noise = torch.randn(60, 40, generator=random)
    found = cross_validate(Examples(noise, labels, 3), dealt(labels), repeats=3)
    assert found.interval[0] < 1 / 3 < found.interval[1]
    assert found.accuracy < 0.6
    clear, labels = blobs(60, 40, spread=0.1)
    found = cross_validate(Examples(clear, labels, 3), dealt(labels), repeats=2)
    assert found.accuracy == 1.0
    assert found.interval == pytest.approx((wilson_interval(60, 60)[0], 1.0))  # not from 1 to 1


def test_no_image_measures_a_probe_that_was_fitted_to_it(monkeypatch):
    features, labels = blobs(30, 5)
    seen = []
    solve = logistic_regression.solve_head

    def noted(inside, *arguments, **named):
        seen.append({round(float(row.sum()), 4) for row in inside.features_ND})
        return solve(inside, *arguments, **named)

    monkeypatch.setattr(logistic_regression, "solve_head", noted)
    found = cross_validate(Examples(features, labels, 3), dealt(labels), 0.01, repeats=1, folds=5)
    assert all(len(inside) == 24 for inside in seen[:5])
    of_halves = seen[5:]
    assert len(of_halves) == logistic_regression.HALVINGS * 2 * 6  # five folds of each half, and the half itself
    assert {len(inside) for inside in of_halves} <= set(range(10, 17))
    assert found.logits_NK.shape == (30, 3)
    assert np.abs(found.logits_NK).sum(1).min() > 0  # every image was left out once


def test_the_penalty_of_a_fold_is_chosen_without_its_images(monkeypatch):
    features, labels = blobs(40, 5)
    counts = []
    choose = logistic_regression.choose_head
    monkeypatch.setattr(
        logistic_regression, "choose_head", lambda inside, *rest: (counts.append(len(inside)), choose(inside, *rest))[1]
    )
    cross_validate(Examples(features, labels, 3), dealt(labels), repeats=2, folds=4)
    assert counts == [30] * 4


def test_the_corrected_interval_is_wider_than_that_of_independent_folds():
    accuracies, sizes = [0.8, 0.9, 0.7, 0.8, 1.0] * 10, [10] * 50
    low, high = corrected_interval(accuracies, sizes, 50)
    deviation = np.std(accuracies, ddof=1)
    assert high - low > 2 * 1.96 * deviation / np.sqrt(50) * 2
    # Nadeau and Bengio: t(49) times the root of (1/50 + 10/40) times the variance
    assert high - 0.84 == pytest.approx(
        max(2.0096 * np.sqrt(0.27) * deviation, wilson_interval(42, 50)[1] - 0.84), 1e-3
    )


def test_the_interval_is_as_wide_as_halves_of_the_images_say():
    accuracies, sizes = [0.8, 0.9, 0.7, 0.8, 1.0] * 10, [20] * 50
    plain = corrected_interval(accuracies, sizes, 100)
    # halves whose estimates are right but for what 50 images leave open: their deviation is that of 50 answers
    open_ = np.sqrt(0.8 * 0.2 / 50)
    assert corrected_interval(accuracies, sizes, 100, [(0.8 + open_, 0.8), (0.8 - open_, 0.8)]) == plain
    # estimates that deviate by 0.3: half of that variance, and t(49); a fifth more images might have added a little
    wide = [(0.8 + 0.3, 0.8), (0.8 - 0.3, 0.8)]
    low, high = corrected_interval(accuracies, sizes, 100, wide)
    missing = 0.04 * 20 / 30
    assert low == pytest.approx(0.84 - 2.0096 * np.sqrt((0.3**2 - open_**2) / 2 + missing**2), 1e-3)
    assert high == 1
    # of 20 series of 5 images the other half leaves more open
    low, _ = corrected_interval(accuracies, sizes, 100, wide, units=20)
    assert low == pytest.approx(0.84 - 2.0096 * np.sqrt((0.3**2 - 0.8 * 0.2 / 10) / 2 + missing**2), 1e-3)
    # 30 images more than half have added 0.2: the 20 of a fold would have added two thirds of that at most
    low, _ = corrected_interval(accuracies, sizes, 100, [(0.64, 0.64), (0.64, 0.64)])
    assert low == pytest.approx(0.84 - 2.0096 * np.sqrt((0.2 * 20 / 30) ** 2 - 0.64 * 0.36 / 100), 1e-3)


def test_the_paired_interval_knows_which_answers_changed():
    before = np.array([True] * 80 + [False] * 20)
    better = before.copy()
    better[80:90] = True
    difference, low, high = paired_interval(better, before)
    assert difference == pytest.approx(0.1)
    assert 0 < low < 0.1 < high
    shuffled = np.roll(before, 50)  # as accurate, on other images
    assert paired_interval(shuffled, before)[0] == 0
    assert paired_interval(shuffled, before)[2] > 0.1
    assert paired_interval(before, before)[1] < 0 < paired_interval(before, before)[2]


def test_the_penalties_that_are_tried_fall():
    assert list(PENALTIES) == sorted(PENALTIES, reverse=True)
