"""What more images would bring: answers out of fold of heads on parts of a set, whose errors fall as a power law.

N images, K classes. A head learns from a quarter, a half and all of the images; each part is cut into folds of its own,
and every image of it is answered by a head that did not see it. The images are drawn again and again for the interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Answer", "ClassGain", "LearningCurve", "learning_curve"]

SHARES = (4, 2, 1)  # parts that the set is cut into: quarters, halves, and the whole
DRAWS = 300  # bootstrap draws
LEAST, LEAST_OF_CLASS = 100, 20  # images, from which on a curve says anything: of the set, and of a class
FEWEST = 8  # images of each class in a quarter: with fewer, some folds have hardly one to learn from
WHOLE = 20_000  # images, from which on one quarter and one half are asked, and not all of them
WEAKEST = 3  # classes that are told of, at most
INTERVAL = (2.5, 97.5)  # percentiles
FLATTENS = 2 / 3  # of what the power law foretells: it was 0.61 on digits and 0.72 on CIFAR-10, docs/results/checks.md
WIDENED = 2.5  # the interval, which knows nothing of other images to learn from: chosen there, too
WEAKER = 0.1  # than the mean recall, at the least, for a class to be named
WORTH = 0.02  # recall that twice the images must bring at the least for that

Array = np.ndarray[Any, Any]
Answer = Callable[[Array], Array]
"""Classes answered out of fold, (n,), of the images at some places, (n,), by heads on these images alone."""


@dataclass(frozen=True)
class ClassGain:
    """Accuracy that as many images again would bring to a class."""

    label: int
    images: int
    recall: float
    gain: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class LearningCurve:
    """Accuracy by the number of images, and what twice as many would bring."""

    images: Sequence[int]
    accuracy: Sequence[float]
    """Of answers out of fold, of heads on so many images (of which four fifths are learned from)."""
    gain: float
    """Of accuracy, by twice the images of every class."""
    interval: tuple[float, float]
    """Of the gain, at 95 %."""
    weakest: Sequence[ClassGain]
    """Classes that are recognized worse than the others, and gain by more images; those are shown to."""


def learning_curve(labels_N: Array, answer: Answer, whole_N: Array | None = None) -> LearningCurve | None:
    """Measure how accuracy grows with the images, and extend it to twice as many.

    Args:
        labels_N: class indices, (N,).
        answer: asks heads.
        whole_N: classes answered by heads on all images, where that is known, (N,).
    Returns:
        None where there are too few images to tell.
    Source:
        Hestness et al., "Deep Learning Scaling is Predictable, Empirically", 2017: errors fall as a power of the number
        of images.
    """
    classes = int(labels_N.max()) + 1 if len(labels_N) else 0
    counts_K = np.bincount(labels_N, minlength=classes)
    there_K = counts_K > 0
    if len(labels_N) < LEAST or there_K.sum() < 2 or np.median(counts_K[there_K]) < FEWEST * SHARES[0]:
        return None
    part_N = _parts(labels_N)
    right_SN = np.full((len(SHARES), len(labels_N)), np.nan)  # of each share: whether the image was answered rightly
    for place, parts in enumerate(SHARES):
        for part in range(parts if len(labels_N) <= WHOLE else 1):
            rows = np.flatnonzero(part_N % parts == part)
            given = whole_N[rows] if parts == 1 and whole_N is not None else answer(rows)
            right_SN[place, rows] = given == labels_N[rows]
    gain, interval = _extended(right_SN, np.random.default_rng(0))
    return LearningCurve(
        [round(len(labels_N) / parts) for parts in SHARES],
        np.nanmean(right_SN, axis=1).tolist(),
        gain,
        interval,
        _weakest(right_SN, labels_N, counts_K),
    )


def _parts(labels_N: Array) -> Array:
    """Deal the images into four parts, (N,), class by class; halves are made of two quarters each."""
    random = np.random.default_rng(0)
    part_N = np.zeros(len(labels_N), np.int64)
    start = 0
    for label in np.unique(labels_N):
        order = random.permutation(np.flatnonzero(labels_N == label))
        part_N[order] = (start + np.arange(len(order))) % SHARES[0]
        start += len(order)
    return part_N


def _extended(right_SN: Array, random: np.random.Generator) -> tuple[float, tuple[float, float]]:
    """Extend the errors to twice the images: (what that gains, its interval by drawing the images again)."""
    gains = []
    count = right_SN.shape[1]
    for draw in range(DRAWS + 1):
        drawn = right_SN if draw == 0 else right_SN[:, random.integers(0, count, count)]
        known_S = (~np.isnan(drawn)).sum(1)
        errors_S = (known_S - np.nansum(drawn, axis=1) + 0.5) / (known_S + 1)
        gains.append(_gain(errors_S))
    low, high = np.percentile(gains[1:], INTERVAL).tolist()
    return gains[0], (max(0.0, gains[0] - WIDENED * (gains[0] - low)), gains[0] + WIDENED * (high - gains[0]))


def _gain(errors_S: Array) -> float:
    """Foretell by how much the error falls at twice the images: by less than the share that it fell by last."""
    return max(0.0, FLATTENS * float(errors_S[-1] * (1 - errors_S[-1] / errors_S[-2])))  # more images do no harm


def _weakest(right_SN: Array, labels_N: Array, counts_K: Array) -> list[ClassGain]:
    """Find the classes of the lowest recall whose gain is shown to be there."""
    recall_K = np.bincount(labels_N, np.nan_to_num(right_SN[-1]), len(counts_K)) / np.maximum(counts_K, 1)
    mean = float(recall_K[counts_K > 0].mean())
    found: list[ClassGain] = []
    for label in np.argsort(recall_K, kind="stable").tolist():
        if counts_K[label] < LEAST_OF_CLASS or recall_K[label] > mean - WEAKER or len(found) == WEAKEST:
            continue
        gain, interval = _extended(right_SN[:, labels_N == label], np.random.default_rng(label))
        if interval[0] > WORTH:
            found.append(ClassGain(label, int(counts_K[label]), float(recall_K[label]), gain, interval))
    return found
