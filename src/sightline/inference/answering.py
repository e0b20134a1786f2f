"""Features and predictions of many images in one pass, the features kept on disk. N images, D features, K classes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sightline.data.batches import Normalization
from sightline.data.cache import CachedImages
from sightline.data.sources.downloads import Progress
from sightline.inference.classifier import Classifier, Outputs
from sightline.inference.feature_store import FeatureStore
from sightline.inference.ood import compared_layer
from sightline.inference.vectors import Vectors
from sightline.inference.views import VIEWS, Views, combine
from sightline.measures.metrics import probabilities
from sightline_runtime.predictions import Prediction

__all__ = ["Answered", "answer_rows", "open_store"]

FORMATS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}

BLOCK = 8192  # images whose features are held at a time

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Answered:
    """Features and answers of a classifier on images."""

    features_ND: Vectors
    """What its head reads; unread."""
    probabilities_NK: Array
    """Calibrated, in the order of its classes, in float32."""
    unknown_N: Array
    """Whether an image is called none of the classes, bool; never of a classifier that cannot tell."""
    predict: Callable[[Array], list[Prediction]]
    """Returns predictions of some of the images, by their places, (n,)."""


def open_store(classifier: Classifier, images: CachedImages) -> FeatureStore:
    """Open the features that the head of a classifier reads, kept on disk, of a set that is decoded at its size."""
    reference = classifier.reference
    pretrained = reference is not None and compared_layer(classifier.network, True) == reference.layer
    normalization = Normalization(**classifier.model["normalization"])
    return FeatureStore(classifier.network, images, normalization, FORMATS[classifier.dtype], pretrained)


def answer_rows(
    classifier: Classifier, images: CachedImages, rows: Array, progress: Progress | None = None
) -> Answered:
    """Classify some rows of a set from one view, from features that are kept for the next time.

    Where only the head of a classifier has been trained anew, those of the round before are used.

    Args:
        classifier: from ``load``.
        images: decoded at its size.
        rows: which images, (N,).
        progress: called with (images done, images in all) of those whose features are computed.
    """
    store = open_store(classifier, images)
    features_ND, compared_ND = store.vectors(rows, progress)
    views: Views = "one" if "one" in classifier.model["temperatures"] else classifier.views

    def outputs(places_n: Array) -> Outputs:
        return _outputs(classifier, features_ND[places_n], compared_ND.part(places_n), views)

    def predict(places_n: Array) -> list[Prediction]:
        return classifier.read(outputs(places_n), views)

    probabilities_NK = np.empty((len(rows), len(classifier.classes)), np.float32)
    unknown_N = np.zeros(len(rows), bool)
    limit = None if classifier.trust is None else classifier.trust["unknown"]["thresholds"][views]
    for start in range(0, len(rows), BLOCK):
        places_n = np.arange(start, min(start + BLOCK, len(rows)))
        found = outputs(places_n)
        logits_nK = combine(found.logits_VNK, views)
        probabilities_NK[places_n] = probabilities(logits_nK, classifier.model["temperatures"][views])
        if limit is not None:
            unknown_N[places_n] = found.unknown_scores(views) > limit
    return Answered(features_ND, probabilities_NK, unknown_N, predict)


def _outputs(classifier: Classifier, features_nD: Array, compared_nD: Vectors, views: Views) -> Outputs:
    """Compute what the head of a classifier makes of features, as of one view."""
    reference = classifier.reference
    with torch.inference_mode():
        head: Any = classifier.network.head
        logits = head(torch.from_numpy(features_nD).to(classifier.device)).float().cpu().numpy()
    logits_nK = logits + classifier.prior_shift(views)
    logits_nK[~np.isfinite(logits_nK).all(axis=1)] = 0.0  # as a classifier answers where its arithmetic overflows
    outputs = Outputs(np.repeat(logits_nK[None], VIEWS[views], axis=0))
    if reference is None:
        return outputs
    distances_n = reference.distances(np.asarray(compared_nD))
    return replace(outputs, distances_N=distances_n, energy_weight=reference.energy_weight)
