"""Images of more than 8 bits a channel: which values are shown as black and white. Height H, width W, channels C.

A file of 16 bits seldom uses all of them: a camera or scanner of 12 bits writes 0 to 4,095. The range is measured, on
the training images of a set, and the same range is used for every image afterwards.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from sightline_runtime.decoding.preprocessing import Intensity

__all__ = ["Wide", "describe_range", "has_wide_colors", "joint_range", "whole_bits", "wide_values"]

LEVELS_16 = 65536
TAIL = 0.001  # of the pixels of an image at either end: dead and hot pixels do not decide its range
SPARED = 0.01  # of the images at either end: one odd file does not decide the range of a set
SAMPLED = 1_000_000  # values, at most, of which the extremes of floating-point images are taken
STRIP = 1 << 20  # values that are converted at a time, to bound the memory

Array = np.ndarray[Any, Any]
Range = tuple[float, float]


class Wide:
    """An image whose values are not yet shown in 8 bits: whole numbers or fractions, of one channel or three."""

    def __init__(self, image: Image.Image, low: Image.Image | None = None) -> None:
        """
        Args:
            image: the values, of a mode with more than 8 bits; or the upper bytes of colors, where ``low`` holds the
                lower ones. A fourth channel is the opacity.
            low: lower bytes.
        """
        self.image, self.low = image, low
        self.opacity = image.getchannel("A") if image.mode == "RGBA" else None
        short = image.mode.startswith("I;16") or low is not None
        if image.mode == "I":
            extrema: Any = image.getextrema()
            least, most = extrema
            short = least >= 0 and most < LEVELS_16
        self.kind: Any = np.dtype(np.uint16 if short else np.float32 if image.mode == "F" else np.int32)

    def strips(self) -> Iterator[tuple[slice, Array]]:
        """Yield some rows at a time, and their values, without the opacity."""
        width, height = self.image.size
        step = max(1, STRIP // width)
        for top in range(0, height, step):
            box = (0, top, width, min(top + step, height))
            values = np.asarray(self.image.crop(box))
            if self.low is not None:
                values = values[..., :3].astype(np.uint16) << 8 | np.asarray(self.low.crop(box))[..., :3]
            yield slice(box[1], box[3]), values.astype(self.kind)

    def extremes(self) -> Range:
        """Return the values that all but a thousandth of the pixels lie between; (0, 0) where no value is finite."""
        if self.kind == np.uint16:
            counts = np.zeros(LEVELS_16, np.int64)
            for _, values in self.strips():
                counts += np.bincount(values.ravel(), minlength=LEVELS_16)
            reached = np.cumsum(counts)
            tail = int(TAIL * reached[-1])
            low, high = np.searchsorted(reached, tail, "right"), np.searchsorted(reached, reached[-1] - tail)
            return float(low), float(high)
        each = max(1, self.image.width * self.image.height // SAMPLED)
        some = np.concatenate([values.ravel()[::each] for _, values in self.strips()])
        some = np.sort(some[np.isfinite(some)])
        if not len(some):
            return 0.0, 0.0
        tail = int(TAIL * len(some))
        return float(some[tail]), float(some[len(some) - 1 - tail])

    def shown(self, low: float, high: float) -> Image.Image:
        """Return the image in 8 bits, with low as 0 and high as 255, and its opacity."""
        image = Image.new("L" if self.low is None else "RGB", self.image.size)
        scale = 255 / (high - low) if high > low else 0.0
        table = _shown(np.arange(LEVELS_16), low, scale)
        for rows, values in self.strips():
            pixels = table[values] if self.kind == np.uint16 else _shown(values, low, scale)
            image.paste(Image.fromarray(pixels), (0, rows.start))
        if self.opacity is not None:
            image.putalpha(self.opacity)
        return image

    def hash(self) -> bytes:
        """Return sixteen bytes that two images share only if their values are the same."""
        digest = hashlib.sha256()
        for _, values in self.strips():
            digest.update(np.ascontiguousarray(values).data)
        if self.opacity is not None:
            digest.update(self.opacity.tobytes())
        width, height = self.image.size
        digest.update(f"{height}×{width} {self.kind} {len(self.image.getbands())}".encode())
        return digest.digest()[:16]


def _shown(values: Array, low: float, scale: float) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        levels = np.nan_to_num((values.astype(np.float64) - low) * scale, nan=0.0, posinf=255.0, neginf=0.0)
    return np.clip(levels + 0.5, 0, 255).astype(np.uint8)


def wide_values(image: Image.Image, again: Image.Image | None) -> Wide | None:
    """Return the values of an image whose channels have more than 8 bits; None of any other.

    Pillow keeps the upper bytes of colors only. The lower ones are had by reading the file again with its bytes
    swapped.

    Args:
        image: loaded.
        again: the same file opened once more, not loaded, for the lower bytes; None of an image that is no file.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Wide(image)
    if again is None or not _swap_bytes(again):
        return None
    gray = _raw_mode(again) == "RGBA"
    again.load()
    if gray:  # upper and lower bytes, and those of the opacity
        return Wide(image, Image.merge("RGB", (again.getchannel("G"),) * 3))
    return Wide(image, again)


def has_wide_colors(image: Any) -> bool:
    """Return whether an opened file, not loaded, has 16 bits a color, of which Pillow would keep the upper ones."""
    return image.mode in ("RGB", "RGBA") and ";16" in _raw_mode(image)


def _raw_mode(image: Any) -> str:
    """Pillow's name for how the values lie in a file; empty where it has none."""
    arguments = image.tile[0][3] if getattr(image, "tile", None) else ""
    return arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""


def _swap_bytes(image: Any) -> bool:
    """Let an opened file of 16 bits a color be read with its lower bytes; whether it is one."""
    if image.mode not in ("RGB", "RGBA") or "transparency" in image.info:
        return False
    tiles = []
    for tile in getattr(image, "tile", ()):
        arguments = (tile[3],) if isinstance(tile[3], str) else tuple(tile[3])
        name, _, order = str(arguments[0]).partition(";16") if arguments else ("", "", "")
        if name not in ("RGB", "RGBA", "RGBX", "LA") or order not in ("B", "L", "N"):
            return False
        raw = "RGBA" if name == "LA" else f"{name};16{'L' if order == 'B' else 'B'}"
        swapped = (raw, *arguments[1:])
        tiles.append((*tile[:3], swapped[0] if isinstance(tile[3], str) else swapped))
    if tiles:
        image.tile = [type(old)(*new) for old, new in zip(image.tile, tiles, strict=True)]
    return bool(tiles)


def whole_bits(low: float, high: float) -> Range:
    """Widen a range that begins near zero to all values of so many bits, 8 at least; of fractions, to 0 and 1.

    Any other range is kept: values around 30,000 differ by little, and that little is what the image shows.
    """
    if low < 0 or high / 4 < low < high:
        return low, high
    if high <= 1:
        return (0.0, 1.0) if high > 0.5 else (low, high)
    if high >= 2**24:
        return low, high
    return 0.0, float(2 ** max(8, math.ceil(math.log2(high + 1))) - 1)


def joint_range(extremes_N2: Array) -> Range:
    """Return the range of some images, from the extremes of each, (N, 2)."""
    low = float(np.quantile(extremes_N2[:, 0], SPARED, method="lower"))
    high = float(np.quantile(extremes_N2[:, 1], 1 - SPARED, method="higher"))
    return whole_bits(low, high)


def describe_range(intensity: Intensity) -> str:
    """Return a range in words: ``0 to 4,095``."""
    if not isinstance(intensity, tuple):
        return "each file's own" if intensity == "own" else "0 to 65,535"
    return " to ".join(f"{value:,.0f}" if value == int(value) else f"{value:,.6g}" for value in intensity)
