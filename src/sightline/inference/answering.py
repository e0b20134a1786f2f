"""Features and predictions of many images in one pass, the features kept on disk. N images, D features, K classes."""

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
from sightline.inference.views import VIEWS, Views
from sightline.measures.metrics import probabilities
from sightline_runtime.predictions import Prediction

__all__ = ["Answered", "answer_rows", "open_store"]

FORMATS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Answered:
    """Features and answers of a classifier on images."""

    features_ND: Array
    """What its head reads, in float32."""
    predictions: list[Prediction]
    probabilities_NK: Array
    """Calibrated, in the order of its classes."""


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
    reference, store = classifier.reference, open_store(classifier, images)
    features_ND = store.features(rows, progress)
    views: Views = "one" if "one" in classifier.model["temperatures"] else classifier.views
    with torch.inference_mode():
        head: Any = classifier.network.head
        logits_NK = head(features_ND.to(classifier.device)).float().cpu().numpy() + classifier.prior_shift(views)
    logits_NK[~np.isfinite(logits_NK).all(axis=1)] = 0.0  # as a classifier answers where its arithmetic overflows
    outputs = Outputs(np.repeat(logits_NK[None], VIEWS[views], axis=0))
    if reference is not None:
        distances_N = reference.distances(store.compared(rows).numpy())
        outputs = replace(outputs, distances_N=distances_N, energy_weight=reference.energy_weight)
    predictions = classifier.read(outputs, views)
    chances_NK = probabilities(logits_NK, classifier.model["temperatures"][views])
    return Answered(features_ND.numpy(), predictions, chances_NK)
