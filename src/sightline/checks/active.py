"""Which unlabeled images to label next, by what a classifier makes of them. N images, D features, K classes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sightline.checks.duplicates import FINE, FINE_MIRRORED, likeness

__all__ = ["copied", "spread_out"]

ALIKE = 0.9  # cosine of the features of two images, from which on their pixels are compared
SEED = 0  # of the draw: the same images are chosen again

Array = np.ndarray[Any, Any]


def spread_out(
    features_ND: Array, probabilities_NK: Array, count: int, is_copy: Callable[[int, list[int]], bool] | None = None
) -> tuple[list[int], int]:
    """Choose images of which the classifier is unsure, and which differ from each other.

    Of an image and the answer that is the most probable the gradient of the loss, in the weights of the last layer, is
    known without any label: its features, times probabilities minus one at the answer. It is long where the classifier
    is unsure, and points elsewhere where another class or another look is at stake. Images are drawn as k-means++ draws
    its centers: the first has the longest, each other with a probability as the square of its distance to the nearest
    one that was drawn, or to zero. Zero is our addition: of images of which the classifier is sure all gradients are
    near it, and without it one of them would be drawn for all.

    Args:
        features_ND: what the last layer reads.
        probabilities_NK: of the classes.
        count: images to choose.
        is_copy: tells whether an image shows the same picture as one of the chosen ones; it is then passed over.
    Returns:
        The chosen places, in order, and how many copies were passed over.
    Source:
        Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds", ICLR 2020, algorithm 1.
    """
    chosen: list[int] = []
    copies = 0
    for place in _drawn(features_ND, probabilities_NK):
        if is_copy is not None and chosen and is_copy(place, chosen):
            copies += 1
            continue
        chosen.append(place)
        if len(chosen) == count:
            break
    return chosen, copies


def _drawn(features_ND: Array, probabilities_NK: Array) -> Iterator[int]:
    """Draw all images, each once, in the order of k-means++ on their gradients."""
    random = np.random.default_rng(SEED)
    errors_NK = probabilities_NK.astype(np.float32)
    errors_NK[np.arange(len(errors_NK)), errors_NK.argmax(axis=1)] -= 1
    # a gradient is a product of two vectors: lengths and distances follow from theirs, and (N, D K) is never made
    lengths_N = np.square(features_ND).sum(axis=1) * np.square(errors_NK).sum(axis=1)
    nearest_N = lengths_N.astype(np.float64)  # the distance to zero
    left_N = np.ones(len(lengths_N), bool)
    place = int(lengths_N.argmax())
    for _ in range(len(lengths_N)):
        yield place
        left_N[place] = False
        products_N = (features_ND @ features_ND[place]) * (errors_NK @ errors_NK[place])
        distances_N = np.maximum(lengths_N + lengths_N[place] - 2 * products_N, 0)
        nearest_N = np.minimum(nearest_N, distances_N)
        nearest_N[~left_N] = 0
        total = nearest_N.sum()
        if total > 0:
            place = int(random.choice(len(nearest_N), p=nearest_N / total))
        elif left_N.any():  # copies of what was drawn
            place = int(left_N.argmax())


def copied(pixels_NHWC: Array, row: int, others: Array, features_MD: Array) -> bool:
    """Tell whether an image shows the same picture as one of some others.

    Args:
        pixels_NHWC: uint8; may be memory-mapped.
        row: the image.
        others: the others, (M - 1,).
        features_MD: of the image, then of the others; only pixels of images with like features are compared.
    """
    length_M = np.linalg.norm(features_MD, axis=1).clip(1e-12)
    cosines = features_MD[1:] @ features_MD[0] / (length_M[1:] * length_M[0])
    near = others[cosines >= ALIKE]
    if not len(near):
        return False
    first, second = np.full(len(near), row), near
    plain, mirrored = (likeness(pixels_NHWC, first, second, mirrored=way) for way in (False, True))
    return bool((plain >= FINE).any() or (mirrored >= FINE_MIRRORED).any())
