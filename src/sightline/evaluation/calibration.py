"""Calibration: the temperature and the thresholds of a classifier, from images that it did not learn from.

N images, V views, K classes. All of it is written to ``model.json`` and travels with the weights.
"""

import math
from typing import Any

import numpy as np

from sightline.inference.views import Views, combine
from sightline.measures.conformal import COVERAGES, FREE_RANKS, PENALTY, class_scores, classes_within, threshold
from sightline.measures.metrics import calibration_error, cross_entropy, probabilities, reliability

__all__ = ["calibrate", "fit_temperature", "measure_sets"]

SHOWN = (0.90, 0.95)  # coverages whose sets are measured

Array = np.ndarray[Any, Any]


def calibrate(
    logits_VNK: Array, labels_N: Array, uniforms_N: Array, all_views: list[Views]
) -> tuple[dict[Views, float], dict[str, Any]]:
    """Fit the temperature and the thresholds for each number of views.

    The sets are made from the same images as the temperature, one number that hardly depends on any of them.

    Args:
        logits_VNK: of images that nothing was learned from.
        labels_N: their classes.
        uniforms_N: of ``image_uniforms``.
        all_views: the views that there are logits of; the last are those that the classifier is used with.
    Returns:
        The temperature by views, and the block ``trust`` of ``model.json``.
    """
    rows = np.arange(len(labels_N))
    temperatures: dict[Views, float] = {}
    limits: dict[str, dict[str, float | None]] = {}
    for views in all_views:
        logits = combine(logits_VNK, views)
        temperatures[views] = fit_temperature(logits, labels_N)
        chances = probabilities(logits, temperatures[views])
        scores_NK = class_scores(chances, uniforms_N)
        limits[views] = {f"{coverage:g}": threshold(scores_NK[rows, labels_N], coverage) for coverage in COVERAGES}
    # from here on of the views that the classifier is used with, the last
    sets = measure_sets(scores_NK, labels_N, limits[views])
    trust: dict[str, Any] = {
        "n": len(labels_N),
        "views": views,
        "reliability": reliability(chances, labels_N),
        "calibration_error": calibration_error(chances, labels_N),
        "calibration_error_unscaled": calibration_error(probabilities(logits), labels_N),
        "sets": {
            "score": "raps",
            "penalty": PENALTY,
            "free_ranks": FREE_RANKS,
            "coverages": {
                name: {"threshold": limits[views][name], "mean_size": measured["mean_size"]}
                for name, measured in sets.items()
            },
            "thresholds": limits,
        },
    }
    return temperatures, trust


def measure_sets(scores_NK: Array, labels_N: Array, limits: dict[str, float | None]) -> dict[str, dict[str, float]]:
    """Measure the share of images whose set holds the true class, and the size of the sets, by coverage."""
    measured = {}
    for coverage in SHOWN:
        within = classes_within(scores_NK, limits[f"{coverage:g}"])
        measured[f"{coverage:g}"] = {
            "coverage": float(within[np.arange(len(labels_N)), labels_N].mean()),
            "mean_size": float(within.sum(axis=1).mean()),
            "empty": float((~within.any(axis=1)).mean()),
        }
    return measured


def fit_temperature(logits_NK: Array, labels_N: Array) -> float:
    """Find the temperature of least cross-entropy, by golden-section search of its logarithm between 1/20 and 20.

    Cross-entropy is convex in 1/T, so it has one valley.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
    """
    low, high = math.log(1 / 20), math.log(20)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(40):  # shrinks the bracket by 2e8
        left, right = high - golden * (high - low), low + golden * (high - low)
        if cross_entropy(logits_NK, labels_N, math.exp(left)) < cross_entropy(logits_NK, labels_N, math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)
