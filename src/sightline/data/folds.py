"""Folds for cross-validation: what belongs together is dealt together. N images, U units, K classes."""

from typing import Any

import numpy as np

from sightline.data.cache import CachedImages
from sightline.data.units import joined, unit_numbers

__all__ = ["deal_folds"]

MOST_ALIKE = 50  # images of one picture that are dealt to one fold, of a set of up to 5,000

Array = np.ndarray[Any, Any]


def deal_folds(
    images: CachedImages, rows: Array, count: int, seed: int, alike: tuple[Array, Array] | None = None
) -> Array:
    """Deal images into folds for cross-validation, class by class as labeled, groups and identical pixels together.

    Args:
        images: the set.
        rows: the images to deal, (n,).
        count: folds.
        seed: which of the possible deals.
        alike: pairs of rows that show one picture, the most alike first, which are dealt together as well: as many as
            make up the share of a fold of their class, and ``MOST_ALIKE`` or a hundredth of the images at most.
    Returns:
        The fold of each image, (n,), from 0. Folds of a class differ by one unit at most; what is left over of a class
        goes on where the class before it ended, so that the folds are of about the same size.
    """
    given, units_N = images.as_labeled, unit_numbers(images, rows)
    labels_N, classes = given.labels[rows], len(given.classes)
    if alike is not None and len(rows):
        of_class_K = np.bincount(labels_N, minlength=classes)
        most_N = np.clip(of_class_K[labels_N] // count, 2, max(MOST_ALIKE, len(rows) // 100))
        unit_of = {images.hashes[row]: unit for row, unit in zip(rows.tolist(), units_N.tolist(), strict=True)}
        named = [[images.hashes[row] for row in side.tolist()] for side in alike]
        pairs = [(unit_of[one], unit_of[two]) for one, two in zip(*named, strict=True) if {one, two} <= unit_of.keys()]
        units_N = joined(units_N, pairs, most_N)
    class_U = _most_frequent(units_N, labels_N, classes)
    order, random, start = np.argsort(class_U, kind="stable"), np.random.default_rng(seed), 0
    for size in np.bincount(class_U).tolist():
        if size:
            order[start : start + size] = order[start + random.permutation(size)]
            start += size
    fold_U = np.empty(len(order), np.int64)
    fold_U[order] = np.arange(len(order)) % count
    folds_N: Array = fold_U[units_N]
    return folds_N


def _most_frequent(units_N: Array, labels_N: Array, classes: int) -> Array:
    """Return the label that most rows of each unit have, the least of several."""
    pairs, counts = np.unique(units_N * classes + labels_N, return_counts=True)
    order = np.lexsort((pairs % classes, -counts, pairs // classes))
    _, first = np.unique((pairs // classes)[order], return_index=True)
    labels_U: Array = (pairs % classes)[order][first]
    return labels_U
