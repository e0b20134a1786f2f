"""Out-of-distribution images: how often a classifier calls an image none of its classes. N images, V views, D features.

An image is called so where its score lies above a threshold that some of the classifier's own images exceed; the score
is in ``inference.ood``, and was the energy of the logits in older runs.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from sightline.data.batches import derived_seed
from sightline.inference.classifier import Classifier, Outputs
from sightline.inference.ood import Reference
from sightline.inference.views import Views, combine, shown
from sightline.measures.metrics import energies

__all__ = ["left_out_distances", "measure_ood", "scrambled", "set_threshold", "unknown_share"]

OWN_UNKNOWN = 0.05  # share of a classifier's own images that it calls unknown
IMAGES = 256  # of each kind
PIECES = 4  # along each side of an image that is scrambled

Array = np.ndarray[Any, Any]


def set_threshold(
    reference: Reference,
    outputs: Outputs,
    all_views: list[Views],
    pretrained: bool,
    decided: Outputs | None = None,
) -> tuple[Reference, Outputs, dict[str, Any]]:
    """Weigh the energy, and set the threshold that a twentieth of a classifier's own images exceed.

    Args:
        reference: of the classifier, not weighed yet.
        outputs: for images of its own that the reference was not fitted to.
        all_views: views that the classifier is calibrated for; the last are those that it is used with.
        pretrained: the weights that the network started from knew other classes, and its energy knows little more.
        decided: the outputs of adaptive views, where they are the last.
    Returns:
        The reference and the outputs of the last views with the weight, and the block ``unknown`` of ``model.json``.
    """
    assert outputs.distances_N is not None
    used = all_views[-1]
    if not pretrained:
        reference = reference.weighed(outputs.distances_N, energies(combine(outputs.logits_VNK, shown(used))))
    weight = reference.energy_weight
    of_views = dict.fromkeys(all_views, replace(outputs, energy_weight=weight))
    if decided is not None:
        of_views[used] = replace(decided, energy_weight=weight)
    limits = {
        views: float(np.quantile(of_views[views].unknown_scores(views), 1 - OWN_UNKNOWN, method="higher"))
        for views in all_views
    }
    unknown = {
        "score": "mahalanobis",
        "layer": reference.layer,
        "share_of_own": OWN_UNKNOWN,
        "threshold": limits[used],
        "thresholds": limits,
        "rates": {},
    }
    return reference, of_views[used], unknown


def left_out_distances(layer: str, features_ND: Array, folds_N: Array) -> Array:
    """Compute the distance of each image, (N,), from a reference that is fitted to the other folds.

    Args:
        layer: of the reference.
        features_ND: of all images.
        folds_N: the fold of each.
    """
    distances_N = np.zeros(len(features_ND))
    for fold in np.unique(folds_N):
        out_N = folds_N == fold
        distances_N[out_N] = Reference.fit(layer, features_ND[~out_N]).distances(features_ND[out_N])
    return distances_N


def unknown_share(scores_N: Array, limit: float) -> float:
    """Return the share of images that are called none of the classes."""
    return float((scores_N > limit).mean())


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
        "own images in pieces": scrambled(pixels_NHWC[chosen], random),
    }
    views = classifier.views
    limit = classifier.model["trust"]["unknown"]["thresholds"][views]
    return {
        name: {
            "n": len(images),
            "rate": unknown_share(classifier.outputs(images, views).unknown_scores(views), limit),
        }
        for name, images in kinds.items()
    }


def scrambled(pixels_BHWC: Array, random: np.random.Generator) -> Array:
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
