"""Split-conformal prediction: sets of classes that hold the true one with a chosen probability. N images, K classes.

A set is made of a score for each class, low where the class is likely. The threshold is a quantile of the true classes'
scores on images that the classifier did not learn from; on further images of the same kind as many true classes are
within their sets, whatever the classifier is like. A good one has small sets, and none is promised for a single image.

Source:
    RAPS: Angelopoulos et al., "Uncertainty Sets for Image Classifiers using Conformal Prediction", ICLR 2021, on APS:
    Romano et al., "Classification with Valid and Adaptive Coverage", NeurIPS 2020.
"""

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["COVERAGES", "FREE_RANKS", "PENALTY", "class_scores", "classes_within", "image_uniforms", "threshold"]

PENALTY = 0.1  # added to the score of a class for each rank beyond the free ones: it keeps sets small
FREE_RANKS = 1
COVERAGES = tuple(share / 100 for share in range(80, 100))
"""Those for which a run keeps thresholds."""

Array = np.ndarray[Any, Any]


def class_scores(probabilities_NK: Array, uniforms_N: Array) -> Array:
    """Compute the score of every class, (N, K), in float64: the probability before it, and the penalty of its rank.

    Of the class itself a random part of the probability counts: only so is the chosen share met, not surpassed. A set
    may then be empty, as it must be where a classifier is right more often than was chosen.

    Args:
        probabilities_NK: calibrated.
        uniforms_N: a number of [0, 1) for each image, such as ``image_uniforms``.
    """
    order_NK = np.argsort(-probabilities_NK, axis=1, kind="stable")
    ranked_NK = np.take_along_axis(probabilities_NK, order_NK, axis=1).astype(np.float64)
    before_NK = np.cumsum(ranked_NK, axis=1) - ranked_NK
    penalties_K = PENALTY * np.maximum(0, np.arange(1, ranked_NK.shape[1] + 1) - FREE_RANKS)
    scores_NK = np.empty_like(ranked_NK)
    np.put_along_axis(scores_NK, order_NK, before_NK + uniforms_N[:, None] * ranked_NK + penalties_K, axis=1)
    return scores_NK


def threshold(true_scores_N: Array, coverage: float) -> float | None:
    """Find the score up to which classes are within a set, from the scores of the true classes of N images.

    Args:
        true_scores_N: of images that nothing was learned from.
        coverage: share of true classes that shall be within their sets, in (0, 1).
    Returns:
        The ⌈(N + 1) · coverage⌉-th smallest score; None where there are too few images for one: every class is then
        within.
    """
    rank = math.ceil((len(true_scores_N) + 1) * coverage)
    return float(np.sort(true_scores_N)[rank - 1]) if rank <= len(true_scores_N) else None


def classes_within(scores_NK: Array, limit: float | None) -> Array:
    """Tell which classes are within the set of each image, bool, (N, K)."""
    within: Array = np.ones(scores_NK.shape, bool) if limit is None else scores_NK <= limit
    return within


def image_uniforms(images: Iterable[Array]) -> Array:
    """Draw a number of [0, 1) for each image, by a hash of its pixels: the same image always has the same set."""
    digests = (hashlib.sha256(image.tobytes()).digest() for image in images)
    return np.array([int.from_bytes(digest[:6], "big") / 2**48 for digest in digests])
