"""Pairs of classes that answers out of fold cannot tell apart. N images, K classes. No torch, no image.

A class with few images, or a head that is merely weak, is no proof that two classes are one. So a pair is named only
where the answers are shown to be hardly better than tossing a coin: the upper end of an interval is asked for, which
is wide where images are few, and wider the more pairs there are.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

__all__ = ["ConfusedPair", "confused_pairs"]

COIN = 0.7  # area under the curve of one class against the other; 0.5 is a coin, and at 0.7 two of three are right
CANDIDATE = 0.4  # sum of both error rates between two classes; 1 where answers do not depend on the class
RISK = 0.05  # that any pair is named whose area is larger
LEAST = 10  # images of either class

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes that cannot be told apart."""

    one: int
    other: int
    """Indices of the classes."""
    images: int
    """Of both."""
    area: float
    """Probability that of an image of each, the answers rank the two rightly; 0.5 is a coin."""
    at_most: float
    """Upper end of its interval, which holds for all pairs of the set together at 95 %."""
    accuracy: float
    merged: float
    """Accuracy over the set now, and if the two were one class."""


def confused_pairs(probabilities_NK: Array, labels_N: Array) -> list[ConfusedPair]:
    """Find the pairs of classes whose labels the answers cannot tell apart, the least apart first; no class twice.

    Args:
        probabilities_NK: of heads that did not see the image.
        labels_N: class indices.
    Source:
        The interval: Hanley and McNeil, "The Meaning and Use of the Area under a Receiver Operating Characteristic
        (ROC) Curve", Radiology 1982, at the area that is asked about; Bonferroni over all pairs.
    """
    classes = probabilities_NK.shape[1]
    counts_K = np.bincount(labels_N, minlength=classes)
    answers_N = probabilities_NK.argmax(axis=1)
    confusion_KK = np.zeros((classes, classes))
    np.add.at(confusion_KK, (labels_N, answers_N), 1)
    kept = int((counts_K >= LEAST).sum())
    if kept < 2:
        return []
    errors = NormalDist().inv_cdf(1 - RISK / (kept * (kept - 1) / 2))  # of one side
    right = float((answers_N == labels_N).mean())
    pairs = []
    for one, other in _candidates(confusion_KK, counts_K):
        area = _area(probabilities_NK, labels_N, one, other)
        at_most = area + errors * _deviation(COIN, int(counts_K[one]), int(counts_K[other]))
        if at_most < COIN:
            both = (labels_N == one) | (labels_N == other)
            answered = (answers_N == one) | (answers_N == other)
            merged = right + float((both & answered & (answers_N != labels_N)).mean())
            pairs.append(ConfusedPair(one, other, int(both.sum()), area, at_most, right, merged))
    named: set[int] = set()
    chosen = []
    for pair in sorted(pairs, key=lambda item: item.at_most):
        if named.isdisjoint((pair.one, pair.other)):
            named |= {pair.one, pair.other}
            chosen.append(pair)
    return chosen


def _candidates(confusion_KK: Array, counts_K: Array) -> list[tuple[int, int]]:
    """List the pairs whose classes are answered as one another so often that more is worth computing."""
    own_K = confusion_KK.diagonal()
    with np.errstate(invalid="ignore", divide="ignore"):
        swapped_KK = confusion_KK / (confusion_KK + own_K[:, None])  # of the answers that name one of the two
    enough_K = counts_K >= LEAST
    close_KK = (np.nan_to_num(swapped_KK + swapped_KK.T) >= CANDIDATE) & enough_K & enough_K[:, None]
    return [(one, other) for one, other in np.argwhere(np.triu(close_KK, 1)).tolist()]


def _area(probabilities_NK: Array, labels_N: Array, one: int, other: int) -> float:
    """Compute the area under the ROC curve of one class against the other, by ranks; ties count half."""
    odds = [
        np.log(np.maximum(probabilities_NK[labels_N == label, one], 1e-30))
        - np.log(np.maximum(probabilities_NK[labels_N == label, other], 1e-30))
        for label in (one, other)
    ]
    below = np.sort(odds[1])
    ranks = np.searchsorted(below, odds[0], "left") + np.searchsorted(below, odds[0], "right")
    return float(ranks.mean() / 2 / len(below))


def _deviation(area: float, positives: int, negatives: int) -> float:
    """Compute the standard deviation of an area, by Hanley and McNeil."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (first - area**2) + (negatives - 1) * (second - area**2)
    return float((variance / (positives * negatives)) ** 0.5)
