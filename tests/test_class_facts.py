"""What answers out of fold say of classes: which are one, which are two, what more images bring; and when nothing."""

import numpy as np
import pytest

from sightline.checks.class_facts import ClassFacts, between_others, class_facts, class_findings
from sightline.checks.confusion import _area, _deviation, confused_pairs
from sightline.checks.learning_curve import FLATTENS, _gain, learning_curve
from sightline.checks.problems import Finding
from sightline.checks.two_groups import two_groups


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def answers(
    random: np.random.Generator, labels: np.ndarray, classes: int, apart: float, same: tuple[int, ...] = ()
) -> np.ndarray:
    """Probabilities of heads that tell classes apart by so many standard deviations, but not those of ``same``."""
    targets = np.where(np.isin(labels, same), same[0] if same else 0, labels)
    logits = random.normal(size=(len(labels), classes))
    for label in range(classes):
        logits[:, label] += apart * (targets == (same[0] if label in same else label))
    return softmax(logits)


# ── two classes that are one ─────────────────────────────────────────────────────────────────────────────────────────


def test_two_classes_that_answers_cannot_tell_apart_are_named_with_what_merging_them_gains() -> None:
    labels = np.arange(1000) % 5
    (pair,) = confused_pairs(answers(np.random.default_rng(0), labels, 5, 6.0, same=(1, 3)), labels)
    assert (pair.one, pair.other, pair.images) == (1, 3, 400)
    assert abs(pair.area - 0.5) < 0.1 < 0.7 - pair.area
    assert pair.area < pair.at_most < 0.7
    assert pair.merged - pair.accuracy == pytest.approx(0.2, abs=0.03)  # half of two fifths of the answers


def test_few_images_invent_no_pair() -> None:
    named = 0
    for seed in range(100):
        labels = np.arange(12 * 8) % 8
        named += bool(confused_pairs(answers(np.random.default_rng(seed), labels, 8, 1.0), labels))
    assert named <= 5  # of 100 sets of 28 pairs, whose areas are about 0.76


def test_classes_that_are_merely_hard_are_no_pair() -> None:
    named = 0
    for seed in range(20):
        labels = np.arange(2000) % 4
        named += len(confused_pairs(answers(np.random.default_rng(seed), labels, 4, 1.0), labels))
    assert named == 0  # areas of about 0.76


def test_an_area_is_the_share_of_pairs_that_are_ranked_rightly() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.2, 0.8]])
    assert _area(probabilities, np.array([0, 0, 1, 1]), 0, 1) == (2 + 1.5) / 4
    assert _deviation(0.5, 50, 70) == pytest.approx(((50 + 70 + 1) / (12 * 50 * 70)) ** 0.5, rel=0.02)


def test_labels_between_two_classes_that_cannot_be_told_apart_are_no_suspects() -> None:
    labels = np.arange(1000) % 5
    pairs = confused_pairs(answers(np.random.default_rng(0), labels, 5, 6.0, same=(1, 3)), labels)
    between = [
        Finding("suspected label", "", row, label=label, suggested=other)
        for row, label, other in ((0, 1, 3), (1, 3, 1))
    ]
    others = [
        Finding("suspected label", "", 2, label=1, suggested=2),
        Finding("suspected label", "", 3, label=0, suggested=4),
    ]
    assert between_others([*between, *others], ClassFacts(pairs, [], None)) == others


# ── a class that is two ──────────────────────────────────────────────────────────────────────────────────────────────


def clouds(random: np.random.Generator, centers: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([random.normal(center, 1.0, (count, len(center))) for center in centers]).astype(np.float32)


def test_a_class_of_two_clouds_is_found_and_parted_and_others_are_not() -> None:
    random = np.random.default_rng(0)
    features = clouds(random, random.normal(0, 2.0, (6, 24)), 80)
    labels = np.repeat([0, 1, 2, 3, 4, 4], 80)
    (group,) = two_groups(features, labels, range(480))
    assert group.label == 4
    assert group.apart > 3.5
    second = set(group.second.tolist())
    assert second in (set(range(320, 400)), set(range(400, 480)))


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_classes_of_one_cloud_are_never_two(spread: float) -> None:
    for seed in range(3):
        random = np.random.default_rng(seed)
        features = clouds(random, random.normal(0, spread, (5, 24)), 100)
        features *= random.uniform(0.3, 3.0, 24).astype(np.float32)
        assert two_groups(features, np.repeat(np.arange(5), 100), range(500)) == []


def test_copies_small_classes_and_constant_features_make_no_groups() -> None:
    random = np.random.default_rng(1)
    features = clouds(random, random.normal(0, 3.0, (4, 8)), 15)
    assert two_groups(features, np.repeat([0, 0, 1, 1], 15), range(60)) == []  # 30 images each
    assert two_groups(np.zeros((200, 8), np.float32), np.arange(200) % 2, range(200)) == []


# ── more images ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_errors_that_halve_with_each_doubling_fall_once_more_by_less_since_curves_flatten() -> None:
    assert _gain(np.array([0.4, 0.2, 0.1])) == pytest.approx(0.05 * FLATTENS)
    assert _gain(np.array([0.1, 0.1, 0.1])) == pytest.approx(0)
    assert _gain(np.array([0.1, 0.2, 0.4])) == 0  # more images do no harm


def law(labels: np.ndarray, error: float, slope: float):
    """Heads whose errors follow a power law; the second class learns nothing where the law is steep."""

    def answer(places: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(len(places))
        share = error * (len(places) / len(labels)) ** slope
        wrong = random.random(len(places)) < np.where((labels[places] == 1) & (slope < -0.4), 0.5, share)
        return np.where(wrong, (labels[places] + 1) % 4, labels[places])

    return answer


def test_a_curve_tells_the_gain_by_twice_the_images_and_names_no_class_that_does_not_gain() -> None:
    labels = np.arange(4000) % 4
    curve = learning_curve(labels, law(labels, 0.1, -0.4))
    assert curve is not None
    assert list(curve.images) == [1000, 2000, 4000]
    assert curve.gain == pytest.approx(FLATTENS * 0.1 * (1 - 2**-0.4), abs=0.01)
    assert 0 <= curve.interval[0] < curve.gain < curve.interval[1] < 0.1
    curve = learning_curve(labels, law(labels, 0.1, -0.5))
    assert curve is not None
    assert curve.weakest == []  # the errors of the weakest stay as they are


def test_a_weak_class_that_gains_is_named_with_its_interval() -> None:
    labels = np.arange(4000) % 4

    def answer(places: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(len(places))
        share = 0.3 * (len(places) / 4000) ** -0.7
        wrong = random.random(len(places)) < np.where(labels[places] == 2, share, 0.02)
        return np.where(wrong, 0, labels[places])

    curve = learning_curve(labels, answer)
    assert curve is not None
    (weak,) = curve.weakest
    assert (weak.label, weak.images) == (2, 1000)
    assert weak.interval[0] < FLATTENS * 0.3 * (1 - 2**-0.7) < weak.interval[1]


def test_few_images_have_no_curve() -> None:
    for labels in (np.arange(60) % 2, np.arange(120) % 40, np.zeros(200, np.int64)):
        assert learning_curve(labels, lambda places: places) is None


# ── all of it ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_findings_name_pairs_and_every_image_of_a_smaller_group(in_memory) -> None:
    random = np.random.default_rng(0)
    features = clouds(random, random.normal(0, 2.0, (6, 24)), 80)
    labels = np.repeat([0, 1, 2, 3, 4, 4], 80)
    images = in_memory(labels.tolist())
    probabilities = answers(random, labels, 5, 6.0, same=(0, 1))
    facts = class_facts(images, features, probabilities, lambda places: labels[places])
    assert isinstance(facts, ClassFacts)
    confused, *groups = class_findings(images, facts)
    assert (confused.kind, confused.label, labels[confused.row], labels[confused.other]) == ("confused", 0, 0, 1)
    assert len(groups) == 80
    assert {item.kind for item in groups} == {"two groups"}
    assert {int(labels[row]) for item in groups for row in (item.row, item.other)} == {4}
