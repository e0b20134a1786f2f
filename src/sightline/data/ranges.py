"""The range of values of a set with more than 8 bits a channel, and notes on how its images are shown."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from sightline.data.cache import CachedImages, open_images
from sightline.data.sizing import warn_of_hidden
from sightline.data.sources.source import ImageSource
from sightline_runtime.decoding.intensity import describe_range, joint_range

__all__ = ["notes_on_reading", "with_range_of"]

Array = np.ndarray[Any, Any]


def with_range_of(
    source: ImageSource, images: CachedImages, rows: Array, progress: Callable[[int, int], None] | None = None
) -> CachedImages:
    """Open a set anew, with the range of values of some of its images shown as black to white.

    Args:
        source: the set.
        images: the set as it was opened to split it, each file shown by its own range; its rows stay what they are.
        rows: of the training images.
        progress: as ``open_images`` has it.
    Returns:
        The same where none of these images has more than 8 bits a channel.
    """
    if images.extremes is None or not np.isfinite(images.extremes[rows]).any():
        return images
    extremes = images.extremes[rows]
    measured = joint_range(extremes[np.isfinite(extremes[:, 0])])
    how = replace(images.preprocessing, intensity=measured)
    exactly = (images.size, (images.pixels.shape[1], images.pixels.shape[2]))
    return open_images(source, None, progress, exactly=exactly, preprocessing=how)


def notes_on_reading(images: CachedImages) -> list[str]:
    """Say what a network does not see of the images, and which values are shown as black and white; a sentence each."""
    notes = []
    if images.extremes is not None:
        count = int(np.isfinite(images.extremes[:, 0]).sum())
        intensity = images.preprocessing.intensity
        shown = "none of them in train; each is shown by its own range of values"
        if isinstance(intensity, tuple):
            shown = f"shown as black to white from {describe_range(intensity)}, the range of values of train"
        notes.append(f"{count:,} images have more than 8 bits a channel, {shown}")
    if images.median is not None:
        notes += warn_of_hidden(images.median, images.size, images.preprocessing.fit)
    return notes
