"""Bring images to the size that a classifier reads. Height H, width W.

There is no other resize of images anywhere: a training, its classifier and its exported file see the same pixels.
"""

from typing import Any

import numpy as np
from PIL import Image

from sightline_runtime.decoding.preprocessing import Fit

__all__ = ["resize"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def resize(pixels: Pixels | Image.Image, height: int, width: int, fit: Fit = "crop") -> Pixels:
    """Bring an RGB image to a size. (H, W, 3) → (height, width, 3).

    Args:
        pixels: an array, or a Pillow image.
        height, width: wanted.
        fit: ``crop`` scales so that the image just covers the size, and cuts the center out; ``squash`` scales both
            sides on their own; ``pad`` scales so that all of it fits in, on black.
    """
    if isinstance(pixels, Image.Image):
        image = pixels
        if image.size == (width, height):
            return np.asarray(image)
    else:
        if pixels.shape[:2] == (height, width):
            return pixels
        image = Image.fromarray(pixels)
    found_width, found_height = image.size
    if fit == "pad":
        scale = min(height / found_height, width / found_width)
        inner = max(1, round(found_width * scale)), max(1, round(found_height * scale))
        padded = Image.new("RGB", (width, height))
        padded.paste(
            image.resize(inner, Image.Resampling.BICUBIC, reducing_gap=3.0),
            ((width - inner[0]) // 2, (height - inner[1]) // 2),
        )
        return np.asarray(padded)
    box = (0.0, 0.0, float(found_width), float(found_height))
    if fit == "crop":
        scale = max(height / found_height, width / found_width)
        box_height, box_width = height / scale, width / scale
        # rounding may leave a box larger than the image by a last digit, which Pillow refuses
        top, left = max(0.0, (found_height - box_height) / 2), max(0.0, (found_width - box_width) / 2)
        box = (left, top, min(left + box_width, found_width), min(top + box_height, found_height))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0))
