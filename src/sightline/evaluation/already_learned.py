"""Images that a classifier is measured on although it has learned from them. N images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline.data.cache import CachedImages
from sightline.data.seen import trained_on
from sightline.measures.metrics import wilson_interval

__all__ = ["about_learned"]

Array = np.ndarray[Any, Any]


def about_learned(run: Path, images: CachedImages, rows: Array, right_N: Sequence[bool]) -> list[str]:
    """Say how many of the measured images a run has trained on, pixel for pixel, and how good it is on the others.

    Args:
        run: its folder; one that did not note its images is not spoken of, nor are weights without a folder.
        images: the set.
        rows: the images that were measured, (N,).
        right_N: whether each was answered right.
    """
    learned_N = trained_on(run, images, rows)
    if learned_N is None or not learned_N.any():
        return []
    count, others_n = int(learned_N.sum()), np.asarray(right_N, bool)[~learned_N]
    said = (
        f"{count:,} of these {len(rows):,} images are, pixel for pixel, among those that it was trained on, which"
        " flatters every figure"
    )
    if len(others_n) == 0:
        return [f"{said}; measure it on others."]
    low, high = wilson_interval(int(others_n.sum()), len(others_n))
    return [
        f"{said}: its accuracy on the other {len(others_n):,} is {others_n.mean():.4f} (95 % interval {low:.4f} to"
        f" {high:.4f})."
    ]
