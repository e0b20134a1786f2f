"""Which unlabeled images to label next. N unlabeled images, M labeled ones, D features, K classes, R references."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sightline.inference.vectors import Vectors

__all__ = ["spread_out", "uncertainties"]

MOST = 8000  # images that are compared with each other; of more, so many are drawn
SEED = 0  # of that draw: the same images are chosen again
BLOCK = 1024  # images whose distances are held at a time

Array = np.ndarray[Any, Any]


def uncertainties(probabilities_NK: Array) -> Array:
    """Compute how unsure a classifier is of each image, (N,): 1 less the margin between its two most probable classes.

    Source:
        Roth and Small, "Margin-Based Active Learning for Structured Output Spaces", ECML 2006.
    """
    if probabilities_NK.shape[1] < 2:
        return np.zeros(len(probabilities_NK))
    two_N2 = np.partition(probabilities_NK, -2, axis=1)[:, -2:]
    unsure_N: Array = 1 - (two_N2[:, 1] - two_N2[:, 0]).astype(np.float64)
    return unsure_N


def spread_out(
    features_ND: Array | Vectors,
    probabilities_NK: Array,
    count: int,
    labeled_MD: Array | None = None,
    is_copy: Callable[[int, list[int]], bool] | None = None,
) -> tuple[list[int], int]:
    """Choose images that stand for many others of which the classifier is unsure, and that are unlike labeled ones.

    An image covers another by a kernel of their features, 1 for the same and near 0 far away; an image is covered as
    well as by the labeled or chosen image that covers it best. Each step takes the image that adds most to the mean
    coverage, weighted by how unsure the classifier is. While few images are labeled and it is unsure everywhere, that
    is typicality; when many are, the kernel has narrowed to the distance of the labeled ones, and it is uncertainty.

    Args:
        features_ND: what the last layer reads; those of ``MOST`` images are read.
        probabilities_NK: of the classes, calibrated.
        count: images to choose.
        labeled_MD: features of images that have a label; None where nobody knows them.
        is_copy: tells whether an image shows the same picture as one of the chosen ones; it is then passed over.
    Returns:
        The chosen places, in order, and how many copies were passed over.
    Source:
        Bae, Oliveira and Sutherland, "Uncertainty Herding: One Active Learning Method for All Label Budgets", ICLR
        2025, with a Gaussian kernel whose squared width is the median squared distance to the nearest labeled image.
    """
    if labeled_MD is not None and not len(labeled_MD):
        labeled_MD = None
    unsure_N = uncertainties(probabilities_NK)
    weights_N, places_N = unsure_N.astype(np.float32), np.arange(len(features_ND))
    if len(places_N) > MOST:  # drawn as often as they weigh, so that each of the drawn ones weighs the same
        share_N = (unsure_N + 1e-9) / (unsure_N + 1e-9).sum()
        drawn = np.random.default_rng(SEED).choice(len(places_N), MOST, replace=False, p=share_N)
        places_N, weights_N = np.sort(drawn), np.ones(MOST, np.float32)
    units_ND = _units(features_ND[places_N])
    nearest_N = _nearest(units_ND, labeled_MD)
    width = max(float(np.median(nearest_N)), 1e-6)
    covered_N = np.zeros(len(units_ND), np.float32) if labeled_MD is None else np.exp(-nearest_N / width)
    kernel_NN = np.empty((len(units_ND), len(units_ND)), np.float32)
    for start in range(0, len(units_ND), BLOCK):
        part = slice(start, start + BLOCK)
        kernel_NN[part] = np.exp(np.minimum(2 * units_ND[part] @ units_ND.T - 2, 0) / width)
    return _greedy(kernel_NN, covered_N, weights_N, count, places_N, is_copy)


def _greedy(
    kernel_NN: Array,
    covered_N: Array,
    weights_N: Array,
    count: int,
    places_N: Array,
    is_copy: Callable[[int, list[int]], bool] | None,
) -> tuple[list[int], int]:
    """Take the image that adds most to the coverage, again and again.

    What an image adds only falls while others are chosen, so a gain that was computed earlier and is still the largest
    after it has been computed anew is the largest of all.
    """
    gains_N = np.concatenate(
        [
            np.maximum(kernel_NN[start : start + BLOCK] - covered_N, 0) @ weights_N
            for start in range(0, len(kernel_NN), BLOCK)
        ]
    )
    current_N = np.zeros(len(gains_N), np.int64)  # how many were chosen when the gain was computed
    chosen: list[int] = []
    copies = 0
    while len(chosen) < count and np.isfinite(gains_N.max(initial=-np.inf)):
        index = int(gains_N.argmax())
        if current_N[index] < len(chosen):
            gains_N[index] = np.maximum(kernel_NN[index] - covered_N, 0) @ weights_N
            current_N[index] = len(chosen)
            continue
        gains_N[index] = -np.inf
        if is_copy is not None and chosen and is_copy(int(places_N[index]), chosen):
            copies += 1
            continue
        chosen.append(int(places_N[index]))
        covered_N = np.maximum(covered_N, kernel_NN[index])
    return chosen, copies


def _units(features_ND: Array) -> Array:
    """Return features of length 1, in float32."""
    units_ND: Array = features_ND / np.linalg.norm(features_ND, axis=1, keepdims=True).clip(1e-12)
    return units_ND.astype(np.float32)


def _nearest(units_ND: Array, labeled_MD: Array | None) -> Array:
    """Compute the squared distance of each image to the nearest labeled one, (N,).

    Where none is known, to the nearest of a hundredth of the images, so that there is a width.
    """
    some_ND = units_ND[:: max(1, min(100, len(units_ND) // 2))]
    others_MD = some_ND if labeled_MD is None else _units(labeled_MD)
    nearest_N: Array = np.full(len(units_ND), 4.0, np.float32)
    for start in range(0, len(others_MD), BLOCK):
        products_NM = units_ND @ others_MD[start : start + BLOCK].T
        nearest_N = np.minimum(nearest_N, 2 - 2 * products_NM.max(axis=1))
    return nearest_N.clip(0)
