"""Fidelity: how near made images are to real ones, in the features of a classifier. N and M images, D features.

The distances are of the features that they are measured in: those of one's own classifier compare generators of one
image set by one classifier, and with nothing else. Those of the Inception network of the literature (``inception``)
compare with papers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.errors import DataError

__all__ = ["Fidelity", "fidelity_of", "frechet_distance", "nearest", "nearest_others", "precision_and_recall"]

Array = np.ndarray[Any, Any]
NEIGHBORS = 3  # Kynkäänniemi et al., 2019
AT_ONCE = 20_000_000  # distances that are held together: 160 MB


@dataclass(frozen=True)
class Fidelity:
    """Measures of how near made images are to real ones."""

    frechet: float
    """Distance of the two as normal distributions; 0 is the same."""
    precision: float
    """Share of the made images that lie among real ones: are they good?"""
    recall: float
    """Share of the real images that lie among made ones: are they as varied?"""
    made: int
    """Images."""
    real: int


def fidelity_of(made_MD: Array, real_ND: Array) -> Fidelity:
    """Compute all measures of made images against real ones, by their features.

    Raises:
        DataError: there are too few of either.
    """
    precision, recall = precision_and_recall(made_MD, real_ND)
    return Fidelity(frechet_distance(made_MD, real_ND), precision, recall, len(made_MD), len(real_ND))


def frechet_distance(made_MD: Array, real_ND: Array) -> float:
    """Compute the Fréchet distance of two sets of features, each taken for a normal distribution.

    It falls with the number of images, as covariances of few are too narrow: compare only what was measured with the
    same n.

    Args:
        made_MD, real_ND: features; two or more of each.
    Returns:
        |m₁ - m₂|² + trace(C₁ + C₂ - 2 √(C₁ C₂)), in squared units of the features.
    Raises:
        DataError: there are fewer.
    Source:
        Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS
        2017.
    """
    for features, which in ((made_MD, "made"), (real_ND, "real")):
        if len(features) < 2:
            raise DataError(f"a distance of {len(features)} {which} images; wanted 2 or more.")
    means, roots = [], []
    for features in (made_MD, real_ND):
        wide = features.astype(np.float64)
        means.append(wide.mean(0))
        roots.append(_root((wide - wide.mean(0)) / np.sqrt(len(wide) - 1)))  # C = rootᵀ root
    # √(C₁ C₂) has the eigenvalues of √(root₁ root₂ᵀ root₂ root₁ᵀ): the singular values of root₁ root₂ᵀ.
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    variances = sum(float(np.square(root).sum()) for root in roots)
    return float(max(0.0, np.square(means[0] - means[1]).sum() + variances - 2 * shared))


def _root(factor_ND: Array) -> Array:
    """Find a matrix of D rows at most with the same product of its transpose and itself."""
    root: Any = np.linalg.qr(factor_ND, mode="r") if len(factor_ND) > factor_ND.shape[1] else factor_ND
    return np.asarray(root)


def precision_and_recall(made_MD: Array, real_ND: Array, neighbors: int = NEIGHBORS) -> tuple[float, float]:
    """Compute the shares of the made images that lie among the real ones, and of the real ones that lie among the made.

    An image lies among others if it is nearer to one of them than that one's k-th nearest neighbor is among its own.

    Args:
        made_MD, real_ND: features; more than ``neighbors`` of each.
        neighbors: k.
    Raises:
        DataError: there are too few.
    Source:
        Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019.
    """
    for features, which in ((made_MD, "made"), (real_ND, "real")):
        if len(features) <= neighbors:
            raise DataError(f"precision and recall of {len(features)} {which} images; wanted {neighbors + 1} or more.")
    return _share_among(made_MD, real_ND, neighbors), _share_among(real_ND, made_MD, neighbors)


def _share_among(some_MD: Array, others_ND: Array, neighbors: int) -> float:
    radii_N = np.empty(len(others_ND))
    for part, squared in _squared_distances(others_ND, others_ND):
        radii_N[part] = np.partition(squared, neighbors, axis=1)[:, neighbors]  # itself comes first
    among = sum(int((squared <= radii_N).any(1).sum()) for _, squared in _squared_distances(some_MD, others_ND))
    return among / len(some_MD)


def nearest(some_MD: Array, others_ND: Array) -> tuple[Array, Array]:
    """Find the nearest of the others to each image: their rows, (M,), and distances, (M,)."""
    rows_M, distances_M = np.empty(len(some_MD), np.int64), np.empty(len(some_MD))
    for part, squared in _squared_distances(some_MD, others_ND):
        rows_M[part], distances_M[part] = squared.argmin(1), np.sqrt(squared.min(1))
    return rows_M, distances_M


def nearest_others(features_ND: Array, rows_M: Array) -> Array:
    """Compute the distance of each of some images, by its row, to the nearest of the others, (M,)."""
    distances_M = np.empty(len(rows_M))
    for part, squared in _squared_distances(features_ND[rows_M], features_ND):
        squared[np.arange(len(squared)), rows_M[part]] = np.inf
        distances_M[part] = np.sqrt(squared.min(1))
    return distances_M


def _squared_distances(some_MD: Array, others_ND: Array) -> Iterator[tuple[slice, Array]]:
    """Compute (m, N), in float64, never below zero, of so many of the first at a time as fit, with their places."""
    step = max(1, AT_ONCE // len(others_ND))
    for start in range(0, len(some_MD), step):
        part = slice(start, start + step)
        some, others = some_MD[part].astype(np.float64), others_ND.astype(np.float64)
        squared: Array = np.square(some).sum(1)[:, None] + np.square(others).sum(1) - 2 * some @ others.T
        yield part, np.maximum(squared, 0, out=squared)
