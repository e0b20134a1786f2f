"""Out-of-distribution images: how often a classifier calls an image none of its classes. N and B images, K classes.

An image is called so where the energy of its logits lies above a threshold, which ``calibration`` has fitted.
"""

from typing import Any

import numpy as np

from sightline.data.batches import derived_seed
from sightline.inference.classifier import Classifier
from sightline.inference.views import combine
from sightline.measures.metrics import energies

__all__ = ["measure_ood", "unknown_share"]

IMAGES = 256  # of each kind
PIECES = 4  # along each side of an image that is scrambled

Array = np.ndarray[Any, Any]


def unknown_share(logits_NK: Array, limit: float) -> float:
    """Return the share of images that are called none of the classes."""
    return float((energies(logits_NK) > limit).mean())


def measure_ood(classifier: Classifier, pixels_NHWC: Array, rows: Array) -> dict[str, dict[str, float]]:
    """Measure how often images of no class are called unknown: noise, plain colors, own images cut into pieces.

    They are easier to tell than photographs of something else; ``evaluate --unknown`` measures those.

    Args:
        classifier: with its thresholds.
        pixels_NHWC: images of its own at the cached size.
        rows: those that may be cut into pieces.
    Returns:
        Of each kind ``n`` images and the ``rate``, the share that is called unknown.
    """
    random = np.random.default_rng(
        derived_seed("strangers")
    )  # a new word would change what old runs can be compared with
    shape = (IMAGES, *pixels_NHWC.shape[1:])
    chosen = rows[random.permutation(len(rows))[:IMAGES]]
    kinds = {
        "noise": random.integers(0, 256, shape, np.uint8),
        "plain colours": np.broadcast_to(random.integers(0, 256, (IMAGES, 1, 1, 3), np.uint8), shape).copy(),
        "own images in pieces": _scrambled(pixels_NHWC[chosen], random),
    }
    views = classifier.views
    limit = classifier.model["trust"]["unknown"]["thresholds"][views]
    return {
        name: {"n": len(images), "rate": unknown_share(combine(classifier.view_logits(images, views), views), limit)}
        for name, images in kinds.items()
    }


def _scrambled(pixels_BHWC: Array, random: np.random.Generator) -> Array:
    """Deal the pieces of images, 4 × 4 of equal size, anew; a border that fills no piece stays."""
    scrambled = np.array(pixels_BHWC)
    height, width = (side // PIECES for side in scrambled.shape[1:3])
    places = [(row * height, column * width) for row in range(PIECES) for column in range(PIECES)]
    for image, original in zip(scrambled, pixels_BHWC, strict=True):
        for (top, left), other in zip(places, random.permutation(len(places)), strict=True):
            from_top, from_left = places[other]
            piece = original[from_top : from_top + height, from_left : from_left + width]
            image[top : top + height, left : left + width] = piece
    return scrambled
