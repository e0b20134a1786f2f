"""How far a classifier can be trusted: what it knows of its own doubts, from images that it did not learn from.

N images, V views, K classes. All of it is written to ``model.json`` and travels with the weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sightline.data.batches import derived_seed
from sightline.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from sightline.inference.classifier import BATCH, Classifier
from sightline.inference.views import Views, combine
from sightline.measures.conformal import COVERAGES, FREE_RANKS, PENALTY, class_scores, classes_within, threshold
from sightline.measures.metrics import calibration_error, energies, fit_temperature, probabilities, reliability

__all__ = ["SHOWN", "calibrate", "measure_corruptions", "measure_sets", "measure_strangers", "unknown_share"]

SHOWN = (0.90, 0.95)  # coverages whose sets are measured
OWN_UNKNOWN = 0.05  # share of a classifier's own images that it calls unknown
MOST_CORRUPTED = 1000  # images: each is seen 26 times
STRANGERS = 256  # images of each kind
PIECES = 4  # along each side of an image that is scrambled

Array = np.ndarray[Any, Any]


# ── on logits ────────────────────────────────────────────────────────────────────────────────────────────────────────


def calibrate(
    logits_VNK: Array, labels_N: Array, uniforms_N: Array, all_views: list[Views]
) -> tuple[dict[Views, float], dict[str, Any]]:
    """Fit the temperature and the thresholds for each number of views.

    The sets are made from the same images as the temperature, one number that hardly depends on any of them.

    Args:
        logits_VNK: of images that nothing was learnt from.
        labels_N: their classes.
        uniforms_N: of ``image_uniforms``.
        all_views: the views that there are logits of; the last are those that the classifier is used with.
    Returns:
        The temperature by views, and the block ``trust`` of ``model.json``.
    """
    temperatures = {views: fit_temperature(combine(logits_VNK, views), labels_N) for views in all_views}
    limits: dict[str, dict[str, float | None]] = {}
    unknown = {}
    for views in all_views:
        logits = combine(logits_VNK, views)
        scores_NK = class_scores(probabilities(logits, temperatures[views]), uniforms_N)
        own = scores_NK[np.arange(len(labels_N)), labels_N]
        limits[views] = {f"{coverage:g}": threshold(own, coverage) for coverage in COVERAGES}
        unknown[views] = float(np.quantile(energies(logits), 1 - OWN_UNKNOWN, method="higher"))
    used = all_views[-1]
    logits = combine(logits_VNK, used)
    chances = probabilities(logits, temperatures[used])
    sets = measure_sets(class_scores(chances, uniforms_N), labels_N, limits[used])
    trust: dict[str, Any] = {
        "n": len(labels_N),
        "views": used,
        "reliability": reliability(chances, labels_N),
        "calibration_error": calibration_error(chances, labels_N),
        "calibration_error_unscaled": calibration_error(probabilities(logits), labels_N),
        "sets": {
            "score": "raps",
            "penalty": PENALTY,
            "free_ranks": FREE_RANKS,
            "coverages": {
                name: {"threshold": limits[used][name], "mean_size": found["mean_size"]} for name, found in sets.items()
            },
            "thresholds": limits,
        },
        "unknown": {
            "score": "energy",
            "share_of_own": OWN_UNKNOWN,
            "threshold": unknown[used],
            "thresholds": unknown,
            "rates": {},
        },
    }
    return temperatures, trust


def measure_sets(scores_NK: Array, labels_N: Array, limits: dict[str, float | None]) -> dict[str, dict[str, float]]:
    """The share of images whose set holds the true class, and the mean number of classes in a set, by coverage."""
    found = {}
    for coverage in SHOWN:
        within = classes_within(scores_NK, limits[f"{coverage:g}"])
        held = within[np.arange(len(labels_N)), labels_N]
        found[f"{coverage:g}"] = {
            "coverage": float(held.mean()),
            "mean_size": float(within.sum(axis=1).mean()),
            "empty": float((~within.any(axis=1)).mean()),
        }
    return found


def unknown_share(logits_NK: Array, limit: float) -> float:
    """Share of images that are called none of the classes."""
    return float((energies(logits_NK) > limit).mean())


# ── on images ────────────────────────────────────────────────────────────────────────────────────────────────────────


def measure_corruptions(
    classifier: Classifier,
    pixels_NHWC: Array,
    rows: Array,
    labels: Array,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Accuracy with one view on images that are spoilt in five ways at five severities.

    Args:
        classifier: the classifier.
        pixels_NHWC: images at the cached size.
        rows: which of them; a thousand, evenly spread over them, are enough.
        labels: classes of those, (B,).
        progress: called with (images done, images in all).
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_CORRUPTED)).round().astype(int))
    rows, labels = rows[chosen], labels[chosen]
    total = len(rows) * (1 + len(CORRUPTIONS) * len(SEVERITIES))
    done = 0

    def accuracy(kind: str | None, severity: int) -> float:
        nonlocal done
        random = torch.Generator().manual_seed(derived_seed("corruption", kind or "", severity))
        right = 0
        for start in range(0, len(rows), BATCH):
            pixels = np.ascontiguousarray(pixels_NHWC[rows[start : start + BATCH]])
            if kind is not None:
                on_device = torch.from_numpy(pixels).to(classifier.device)
                pixels = corrupt(on_device, kind, severity, random).cpu().numpy()
            answers = classifier.view_logits(pixels, "one")[0].argmax(1)
            right += int((answers == labels[start : start + BATCH]).sum())
            done += len(pixels)
            if progress:
                progress(done, total)
        return right / len(rows)

    return {
        "n": len(rows),
        "views": "one",
        "clean": accuracy(None, 0),
        "accuracy": {kind: [accuracy(kind, severity) for severity in SEVERITIES] for kind in CORRUPTIONS},
    }


def measure_strangers(classifier: Classifier, pixels_NHWC: Array, rows: Array) -> dict[str, dict[str, float]]:
    """How often images of no class at all are called unknown: noise, plain colours, and own images cut into pieces.

    They are easier to tell than photographs of something else; ``evaluate --unknown`` measures those.

    Args:
        classifier: with its thresholds.
        pixels_NHWC: images of its own at the cached size.
        rows: those that may be cut into pieces.
    """
    random = np.random.default_rng(derived_seed("strangers"))
    shape = (STRANGERS, *pixels_NHWC.shape[1:])
    chosen = rows[random.permutation(len(rows))[:STRANGERS]]
    strangers = {
        "noise": random.integers(0, 256, shape, np.uint8),
        "plain colours": np.broadcast_to(random.integers(0, 256, (STRANGERS, 1, 1, 3), np.uint8), shape).copy(),
        "own images in pieces": _scrambled(pixels_NHWC[chosen], random),
    }
    views = classifier.views
    limit = classifier.model["trust"]["unknown"]["thresholds"][views]
    return {
        name: {"n": len(images), "rate": unknown_share(combine(classifier.view_logits(images, views), views), limit)}
        for name, images in strangers.items()
    }


def _scrambled(pixels_BHWC: Array, random: np.random.Generator) -> Array:
    """Images whose pieces, 4 × 4 of equal size, are dealt anew; a border that fills no piece stays."""
    spoilt = np.array(pixels_BHWC)
    height, width = (side // PIECES for side in spoilt.shape[1:3])
    places = [(row * height, column * width) for row in range(PIECES) for column in range(PIECES)]
    for image, original in zip(spoilt, pixels_BHWC, strict=True):
        for (top, left), other in zip(places, random.permutation(len(places)), strict=True):
            from_top, from_left = places[other]
            image[top : top + height, left : left + width] = original[
                from_top : from_top + height, from_left : from_left + width
            ]
    return spoilt
