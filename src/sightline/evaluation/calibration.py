"""Calibration: the temperature and the thresholds of a classifier, from images that it did not learn from.

N images, V views, K classes. All of it is written to ``model.json`` and travels with the weights.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from sightline.evaluation.adaptive import choose_threshold, decided_outputs
from sightline.inference.classifier import Outputs
from sightline.inference.views import Views, combine
from sightline.measures.metrics import (
    calibration_error,
    classwise_calibration_error,
    cross_entropy,
    probabilities,
    reliability,
)
from sightline_runtime.conformal import COVERAGES, FREE_RANKS, PENALTY, class_scores, classes_within, threshold

__all__ = [
    "PriorShifts",
    "calibrate",
    "fit_temperature",
    "measure_sets",
    "prior_shifts",
    "temperature_interval",
]

SHOWN = (0.90, 0.95)  # coverages whose sets are measured
LOG_DEVIATION = 0.75  # of the prior of log T: before any image is seen T is within a factor of 4.4 of 1 with 95 %
GRID = 49  # temperatures that are tried first

Array = np.ndarray[Any, Any]


class PriorShifts(NamedTuple):
    """Logarithms to add to scaled logits, (K,), so that probabilities hold for other class frequencies."""

    own_K: Array
    """For the frequencies among the training images, which those of validation share."""
    answers_K: Array
    """For the frequencies that the answers assume."""


def prior_shifts(counts_K: Array, balanced: bool, prior: Literal["train", "equal"]) -> PriorShifts:
    """Compute how the frequencies of classes shift the answers of a network.

    Args:
        counts_K: training images of each class.
        balanced: whether it was trained as if all classes were equally frequent, by weights or by sampling.
        prior: the frequencies that its answers assume: those of the training images, or equal ones.
    Source:
        Saerens et al., "Adjusting the Outputs of a Classifier to New a Priori Probabilities", Neural Computation 2002,
        eq. 2.4; Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021, section 4.
    """
    log_K = np.log(counts_K * len(counts_K) / counts_K.sum())
    nothing_K = np.zeros_like(log_K)
    own_K = log_K if balanced else nothing_K
    return PriorShifts(own_K, own_K if prior == "train" else own_K - log_K)


def calibrate(
    logits_VNK: Array,
    labels_N: Array,
    uniforms_N: Array,
    all_views: list[Views],
    shifts: PriorShifts | None = None,
) -> tuple[dict[Views, float], dict[str, Any]]:
    """Fit the temperature and the thresholds for each number of views.

    The sets are made from the same images as the temperature, one number that hardly depends on any of them.

    Args:
        logits_VNK: of images that nothing was learned from; all six views where the last views are adaptive.
        labels_N: their classes.
        uniforms_N: of ``image_uniforms``.
        all_views: the views that there are logits of; the last are those that the classifier is used with.
        shifts: by which class frequencies shift the scaled logits; None: not at all.
    Returns:
        The temperature by views, and the block ``trust`` of ``model.json``.
    """
    rows = np.arange(len(labels_N))
    temperatures: dict[Views, float] = {}
    limits: dict[str, dict[str, float | None]] = {}
    answers_K = shifts.answers_K if shifts is not None else np.zeros(1)
    chances_of: dict[Views, Array] = {}
    adaptive: dict[str, Any] = {}
    for views in all_views:
        if views == "adaptive":
            adaptive = choose_threshold(chances_of["one"], chances_of["six"], labels_N)
            temperatures[views] = temperatures["six"]
            decided = decided_outputs(Outputs(logits_VNK), temperatures, adaptive["threshold"], answers_K)
            logits = combine(decided.logits_VNK, views)
        else:
            logits = combine(logits_VNK, views)
            temperatures[views] = fit_temperature(logits, labels_N, shifts.own_K if shifts else 0.0)
            if shifts is not None:
                logits = logits + temperatures[views] * answers_K
        chances = chances_of[views] = probabilities(logits, temperatures[views])
        scores_NK = class_scores(chances, uniforms_N)
        limits[views] = {f"{coverage:g}": threshold(scores_NK[rows, labels_N], coverage) for coverage in COVERAGES}
    # from here on of the views that the classifier is used with, the last
    sets = measure_sets(scores_NK, labels_N, limits[views])
    trust: dict[str, Any] = {
        "n": len(labels_N),
        "views": views,
        "temperature_interval": list(temperature_interval(logits, labels_N, temperatures[views])),
        "reliability": reliability(chances, labels_N),
        "calibration_error": calibration_error(chances, labels_N),
        "classwise_calibration_error": classwise_calibration_error(chances, labels_N),
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
    if adaptive:
        trust["adaptive"] = adaptive
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


def fit_temperature(logits_NK: Array, labels_N: Array, shift_K: Array | float = 0.0) -> float:
    """Find the most probable temperature: of least cross-entropy, with a prior that holds it near 1.

    Where every image is answered rightly, cross-entropy falls for ever as the temperature goes to 0. The prior, a
    normal distribution of log T around 0, decides there; it weighs as one constant against a sum over the images.

    Args:
        logits_NK: of images that nothing was learned from.
        labels_N: their classes.
        shift_K: added to the scaled logits; see ``prior_shifts``.
    Source:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2, without a prior.
    """

    def misfit(log_temperature: float) -> float:
        return _misfit(logits_NK, labels_N, log_temperature, shift_K)

    grid = np.linspace(math.log(1e-3), math.log(1e3), GRID)  # the sum of two valleys may have two bottoms
    best, step = float(min(grid, key=misfit)), grid[1] - grid[0]
    low, high = best - step, best + step
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(30):  # shrinks the bracket by 2e6
        left, right = high - golden * (high - low), low + golden * (high - low)
        if misfit(left) < misfit(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def temperature_interval(logits_NK: Array, labels_N: Array, temperature: float) -> tuple[float, float]:
    """Compute the interval of 95 % around a fitted temperature: wide where the images say little.

    Source:
        Laplace's approximation: MacKay, "Information Theory, Inference, and Learning Algorithms", 2003, chapter 27.
    """
    at, near = math.log(temperature), 0.02
    below, here, above = (_misfit(logits_NK, labels_N, at + change) for change in (-near, 0, near))
    curvature = (below - 2 * here + above) / near**2
    half = 1.959964 * min(LOG_DEVIATION, curvature**-0.5 if curvature > 0 else math.inf)
    return math.exp(at - half), math.exp(at + half)


def _misfit(logits_NK: Array, labels_N: Array, log_temperature: float, shift_K: Array | float = 0.0) -> float:
    """Compute the negative logarithm of a temperature's posterior density, up to a constant."""
    temperature = math.exp(log_temperature)
    likelihood = len(labels_N) * cross_entropy(logits_NK + temperature * shift_K, labels_N, temperature)
    return likelihood + (log_temperature / LOG_DEVIATION) ** 2 / 2
