"""Prediction sets: scores that a human can check, and the share that they promise."""

import numpy as np
import pytest

from sightline_runtime.conformal import PENALTY, class_scores, classes_within, image_uniforms, threshold


def test_the_score_of_a_class_is_what_goes_before_it_a_part_of_its_own_and_the_penalty_of_its_rank() -> None:
    scores = class_scores(np.array([[0.2, 0.7, 0.1]]), np.array([0.5]))
    assert scores == pytest.approx(np.array([[0.7 + 0.1 + PENALTY, 0.35, 0.9 + 0.05 + 2 * PENALTY]]))


def test_the_threshold_is_the_score_of_rank_n_plus_one_times_the_coverage() -> None:
    scores = np.array([0.9, 0.1, 0.5, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6])  # nine: ⌈10 · 0.8⌉ = 8
    assert threshold(scores, 0.8) == 0.8
    assert threshold(scores, 0.9) == 0.9


def test_of_too_few_images_every_class_is_within() -> None:
    assert threshold(np.array([0.1, 0.2, 0.3]), 0.9) is None  # ⌈4 · 0.9⌉ = 4 of three
    assert classes_within(np.zeros((2, 3)), None).all()


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("sharpness", [0.5, 3.0, 20.0])  # right in a third of all cases, in most, in nearly all
def test_so_many_true_classes_are_within_their_sets_however_good_the_classifier(
    coverage: float, sharpness: float
) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(40_000, 5))
    labels = np.array([random.choice(5, p=row) for row in softmax(sharpness * logits)])
    chances = softmax(sharpness * (logits + 0.3 * random.normal(size=logits.shape)))  # it is not calibrated
    scores = class_scores(chances, random.random(len(labels)))
    limit = threshold(scores[np.arange(20_000), labels[:20_000]], coverage)
    held = classes_within(scores[20_000:], limit)[np.arange(20_000), labels[20_000:]]
    error = np.sqrt(2 * coverage * (1 - coverage) / 20_000)  # of these images, and of those of the threshold
    assert abs(held.mean() - coverage) < 4 * error


def test_a_better_classifier_has_smaller_sets() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(5, size=2_000)
    sizes = []
    for strength in (1.0, 4.0):
        chances = softmax(strength * np.eye(5)[labels] + random.normal(size=(2_000, 5)))
        scores = class_scores(chances, random.random(2_000))
        limit = threshold(scores[np.arange(1_000), labels[:1_000]], 0.9)
        sizes.append(classes_within(scores[1_000:], limit).sum(axis=1).mean())
    assert sizes[1] < sizes[0] - 1


def test_the_same_image_always_has_the_same_number() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2_000, 4, 4, 3), np.uint8)
    numbers = image_uniforms(images)
    assert (numbers == image_uniforms(images[::-1])[::-1]).all()
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    assert abs(numbers.mean() - 0.5) < 0.03


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
