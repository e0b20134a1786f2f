"""A normal distribution of features, and how far an image lies from it. N images, D features, R axes. No torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["FARTHEST", "Normal", "fit_normal"]

MOST_BYTES = 1_400_000  # of the axes, in half precision
MOST_AXES = 512
IMAGES_AN_AXIS = 4  # at least: the variance along an axis that few images span is too low for others
FARTHEST = 1e30  # also of features that are not finite
FAINTEST = 1e-6  # of the largest variance; lower ones are rounding

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Normal:
    """A normal distribution with variances of its own along its longest axes, and one for all other directions.

    Source:
        Tipping and Bishop, "Probabilistic Principal Component Analysis", 1999.
    """

    mean_D: Array
    axes_RD: Array
    """Orthonormal, of numbers that half precision has."""
    variances_R: Array
    rest: float
    """Variance along each direction at right angles to the axes."""

    def distances(self, features_ND: Array) -> Array:
        """Compute the squared Mahalanobis distance of each image, (N,), at most ``FARTHEST``."""
        with np.errstate(over="ignore", invalid="ignore"):
            centered_ND = features_ND - self.mean_D
            along_NR = centered_ND @ self.axes_RD.T
            across_N = ((centered_ND**2).sum(axis=1) - (along_NR**2).sum(axis=1)).clip(0)
            distances_N = (along_NR**2 / self.variances_R).sum(axis=1) + across_N / self.rest
        clipped_N: Array = np.nan_to_num(distances_N, nan=FARTHEST, posinf=FARTHEST).clip(None, FARTHEST)
        return clipped_N


def fit_normal(features_ND: Array) -> Normal:
    """Fit a normal distribution to the features of training images.

    Source:
        Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks",
        NeurIPS 2018, with one mean for all classes (Kamoi and Kobayashi, 2020).
    """
    count, width = features_ND.shape
    mean_D = features_ND.mean(axis=0, dtype=np.float64)
    centered_ND = features_ND - mean_D
    if count < width:
        values, vectors = np.linalg.eigh(centered_ND @ centered_ND.T)
        values = values.clip(values[-1] * FAINTEST, None)
        axes_RD = ((vectors / np.sqrt(np.maximum(values, np.finfo(float).tiny))).T @ centered_ND)[::-1]
    else:
        values, vectors = np.linalg.eigh(centered_ND.T @ centered_ND)
        axes_RD = vectors.T[::-1]
    most = max(1, min(MOST_AXES, width, count // IMAGES_AN_AXIS, MOST_BYTES // (2 * width)))
    axes_RD = axes_RD[:most].astype(np.float16).astype(np.float32)
    variances_R = ((centered_ND @ axes_RD.T) ** 2).sum(axis=0) / max(count - 1, 1)  # of the axes as they are kept
    total = float((centered_ND**2).sum()) / max(count - 1, 1)
    floor = max(float(variances_R.max()) * FAINTEST, float(np.finfo(np.float32).tiny))
    rest = (total - float(variances_R.sum())) / (width - most) if most < width else float(variances_R.max())
    return Normal(
        mean_D.astype(np.float32), axes_RD, np.maximum(variances_R, floor).astype(np.float32), max(rest, floor)
    )
