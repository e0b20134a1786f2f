"""Adaptive views: one view of an image, and the other five only where the answer is unsure.

The probability below which it is unsure is chosen on validation. N images, V views, K classes.
"""

from typing import Any

import numpy as np

from sightline.inference.classifier import Outputs
from sightline.inference.views import decide, unsure
from sightline.measures.metrics import energies, probabilities
from sightline_runtime.views import VIEWS, combine

__all__ = ["GRID", "choose_threshold", "decided_outputs", "passes"]

GRID = (0.0, *(percent / 100 for percent in range(30, 95, 5)), 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)
"""Thresholds that are tried: 0 never asks again, 1 always."""

MARGIN = 0.01
"""By less than this accuracy and log-likelihood are lower than with six views, with a confidence of ``NORMAL``."""
NORMAL = 1.645
"""Standard errors above the mean: one-sided, 95 %."""

Array = np.ndarray[Any, Any]


def choose_threshold(one_NK: Array, six_NK: Array, labels_N: Array) -> dict[str, Any]:
    """Choose the lowest threshold at which adaptive views are no worse than six; every higher one must be so, too.

    No worse: accuracy is lower by no more than the standard error of the paired difference, and with a confidence of
    95 % it and the log-likelihood are lower by less than 0.01 (non-inferiority). Few images leave large errors, and so
    get a high threshold. (By the standard error alone the log-likelihood could not be judged: six views are surer of
    almost every image, by a hundred-thousandth.)

    Args:
        one_NK: calibrated probabilities of one view, of images that nothing was learned from.
        six_NK: those of six views.
        labels_N: their classes.
    Returns:
        The block ``trust.adaptive`` of ``model.json``: the threshold, and what it reaches on these images beside one
        and six views. A threshold of 1: there is none that saves anything.
    """
    rows = np.arange(len(labels_N))
    (right_one_N, log_one_N), (right_six_N, log_six_N) = (
        ((chances_NK.argmax(1) == labels_N).astype(float), np.log(np.maximum(chances_NK[rows, labels_N], 1e-12)))
        for chances_NK in (one_NK, six_NK)
    )
    chosen = GRID[-1]
    for threshold in reversed(GRID[:-1]):
        alone_N = ~unsure(one_NK, threshold)
        lost_N = np.where(alone_N, right_six_N - right_one_N, 0.0)
        less_N = np.where(alone_N, log_six_N - log_one_N, 0.0)
        if lost_N.mean() > _standard_error(lost_N) or max(_at_most(lost_N), _at_most(less_N)) >= MARGIN:
            break
        chosen = threshold
    asked_N = unsure(one_NK, chosen)
    right_N, log_N = np.where(asked_N, right_six_N, right_one_N), np.where(asked_N, log_six_N, log_one_N)
    return {
        "threshold": chosen,
        "n": len(labels_N),
        "passes": passes(asked_N),
        "accuracy": {"one": right_one_N.mean(), "six": right_six_N.mean(), "adaptive": right_N.mean()},
        "log_likelihood": {"one": log_one_N.mean(), "six": log_six_N.mean(), "adaptive": log_N.mean()},
    }


def passes(asked_N: Array) -> float:
    """Return how many views of an image were shown, on average."""
    return float(1 + (VIEWS["six"] - 1) * asked_N.mean())


def decided_outputs(
    outputs: Outputs, temperatures: dict[Any, float], threshold: float, shift_K: Array | float = 0.0
) -> Outputs:
    """Return the outputs of adaptive views from those of all six, as the classifier computes them.

    Args:
        outputs: of six views, without the shift of class frequencies.
        temperatures: by views.
        threshold: of ``choose_threshold``.
        shift_K: added to the scaled logits.
    """
    one_NK, six_NK = (
        combine(outputs.logits_VNK, views) + np.float32(temperatures[views]) * np.asarray(shift_K, np.float32)
        for views in ("one", "six")
    )
    asked_N = unsure(probabilities(one_NK, temperatures["one"]), threshold)
    decided_NK = decide(one_NK, six_NK, asked_N, temperatures["one"], temperatures["six"])
    return Outputs(
        np.stack([one_NK, decided_NK]),
        outputs.distances_N,
        outputs.energy_weight,
        np.where(asked_N, energies(six_NK), energies(one_NK)),
        asked_N,
    )


def _at_most(losses_N: Array) -> float:
    return float(losses_N.mean()) + NORMAL * _standard_error(losses_N)


def _standard_error(values_N: Array) -> float:
    return float(values_N.std(ddof=1) / np.sqrt(len(values_N))) if len(values_N) > 1 else 0.0
