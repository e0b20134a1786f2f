"""Classes whose images fall into two groups that lie apart, as two classes of the set do. N images, D features.

Every class has some direction in which it can be cut, and most have looks of several kinds. So the direction is found
on one half of a class and measured on the other half, the gap must be a clear one, and no smaller than between two
classes of the same set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.inference.vectors import Vectors

__all__ = ["TwoGroups", "two_groups"]

DIMENSIONS = 64  # principal components of the set that are looked at
APART = 3.5  # standard deviations of a group between the means of the two; two halves of a bell curve are 2.6 apart
AS_CLASSES = 0.75  # of the median of that between two classes of the set
SMALLER = 0.2  # of the class, that the smaller group has at least
LEAST = 40  # images of a class
MOST = 600  # of which that many are looked at
SAMPLED = 3000  # images of the set that give its principal components
PAIRS = 40  # of classes that are compared with
TRIES, SPLITS, STEPS = 4, 3, 30

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TwoGroups:
    """A class that falls into two groups."""

    label: int
    apart: float
    """Standard deviations between the means of the groups, on images by which the direction was not found."""
    usual: float
    """The median of that between two classes of the set."""
    second: Array
    """Places of the images of the smaller group."""


def two_groups(features_ND: Array | Vectors, labels_N: Array, among: Sequence[int]) -> list[TwoGroups]:
    """Find the classes that fall into two groups, the furthest apart first.

    Args:
        features_ND: of images; labels have not shaped them.
        labels_N: class indices.
        among: places of the images to look at: of copies one each, since copies are a group by themselves.
    Source:
        The measure: Ashman, Bird and Zepf, "Detecting Bimodality in Astronomical Datasets", AJ 1994, eq. 3.
    """
    places = np.asarray(among, np.int64)
    random = np.random.default_rng(0)
    counts_K = np.bincount(labels_N[places], minlength=int(labels_N.max()) + 1)
    enough = np.flatnonzero(counts_K >= LEAST // 2)
    if len(enough) < 2 or counts_K.max() < LEAST:
        return []
    components_NC = _components(features_ND, places, random)
    of_class = {
        label: random.permutation(np.flatnonzero(labels_N[places] == label))[:MOST] for label in enough.tolist()
    }
    suspects = []
    for label in np.flatnonzero(counts_K >= LEAST).tolist():
        apart, smaller = _apart(components_NC[of_class[label]], random)
        if apart >= APART and smaller >= SMALLER:
            suspects.append((label, apart))
    if not suspects:
        return []
    usual = _between_classes(components_NC, of_class, random)
    found = []
    for label, apart in suspects:
        if apart >= AS_CLASSES * usual:
            inside = np.flatnonzero(labels_N[places] == label)
            second = _second(components_NC[inside], random)
            found.append(TwoGroups(label, apart, usual, places[inside[second]]))
    return sorted(found, key=lambda item: -item.apart)


def _components(features_ND: Array | Vectors, places: Array, random: np.random.Generator) -> Array:
    """Project the images on the principal components of the set, (n, C), features at unit variance."""
    some_SD = features_ND[random.permutation(places)[:SAMPLED]].astype(np.float32)
    mean_D, scale_D = some_SD.mean(0), some_SD.std(0) + 1e-6
    axes_CD = np.linalg.svd((some_SD - mean_D) / scale_D, full_matrices=False)[2][:DIMENSIONS]
    blocks = [places[start : start + 4096] for start in range(0, len(places), 4096)]
    return np.concatenate([((features_ND[block] - mean_D) / scale_D) @ axes_CD.T for block in blocks])


def _between_classes(components_NC: Array, of_class: dict[int, Array], random: np.random.Generator) -> float:
    """Measure how far apart two classes of the set are when they are taken for one: the median over some pairs."""
    labels, distances = list(of_class), []
    for _ in range(PAIRS):
        one, other = random.choice(len(labels), 2, replace=False)
        parts = of_class[labels[one]], of_class[labels[other]]
        count = min(MOST // 2, *map(len, parts))
        distances.append(_apart(components_NC[np.concatenate([part[:count] for part in parts])], random)[0])
    return float(np.median(distances))


def _apart(points_nC: Array, random: np.random.Generator) -> tuple[float, float]:
    """Measure how far apart the two groups of some images are, on the half by which they were not found.

    Returns:
        (distance of the means in standard deviations, share of the smaller group), the median over several halvings.
    """
    measured = []
    for _ in range(SPLITS):
        order = random.permutation(len(points_nC))
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        for found, asked in (halves, halves[::-1]):
            centers = _two_means(points_nC[found], random)
            measured.append((0.0, 0.0) if centers is None else _mixture(points_nC[asked] @ (centers[1] - centers[0])))
    apart, smaller = np.median(measured, axis=0).tolist()
    return apart, smaller


def _two_means(points_nC: Array, random: np.random.Generator) -> Array | None:
    """Find two means, (2, C), the best of several tries; None where the points are all the same."""
    best, least = None, np.inf
    for _ in range(TRIES):
        centers = points_nC[random.choice(len(points_nC), 2, replace=False)]
        for _ in range(STEPS):
            nearer = _nearer_second(points_nC, centers)
            if nearer.all() or not nearer.any():
                break
            moved = np.stack([points_nC[~nearer].mean(0), points_nC[nearer].mean(0)])
            if np.allclose(moved, centers):
                break
            centers = moved
        error = float(((points_nC - centers[_nearer_second(points_nC, centers).astype(int)]) ** 2).sum())
        if error < least and not np.allclose(centers[0], centers[1]):
            best, least = centers, error
    return best


def _nearer_second(points_nC: Array, centers_2C: Array) -> Array:
    axis = centers_2C[1] - centers_2C[0]
    nearer: Array = points_nC @ axis > (centers_2C.sum(0) / 2) @ axis
    return nearer


def _mixture(values_n: Array) -> tuple[float, float]:
    """Fit two bell curves to numbers by expectation maximization: (distance in deviations, share of the smaller)."""
    spread = float(values_n.std()) + 1e-9
    means, deviations, shares = np.quantile(values_n, [0.25, 0.75]), np.full(2, spread / 2), np.full(2, 0.5)
    for _ in range(100):
        likely_n2 = shares * np.exp(-0.5 * ((values_n[:, None] - means) / deviations) ** 2) / deviations
        part_n2 = likely_n2 / np.maximum(likely_n2.sum(1, keepdims=True), 1e-300)
        weight = part_n2.sum(0) + 1e-9
        means = (part_n2 * values_n[:, None]).sum(0) / weight
        deviations = np.sqrt((part_n2 * (values_n[:, None] - means) ** 2).sum(0) / weight) + 0.02 * spread
        shares = weight / len(values_n)
    return float(abs(means[0] - means[1]) / np.sqrt((deviations**2).mean())), float(shares.min())


def _second(points_nC: Array, random: np.random.Generator) -> Array:
    """List the places of the smaller of the two groups of all images of a class."""
    centers = _two_means(points_nC, random)
    assert centers is not None  # its groups lie apart
    second = _nearer_second(points_nC, centers)
    return np.flatnonzero(second if 2 * second.sum() <= len(second) else ~second)
