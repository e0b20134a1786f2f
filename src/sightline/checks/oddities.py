"""Oddities of the files of a set and of the light in them: sizes, modes, blank and very dark images. N images.

The headers of files are read without decoding them. What is odd is said against the set itself: a kind of file that
makes up more than half of it is what the set is like, not an oddity.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.data.sources.entries import Entry
from sightline.data.sources.source import ImageSource
from sightline_runtime.decoding.decode import open_header
from sightline_runtime.decoding.intensity import describe_range

__all__ = ["Header", "Light", "light_of", "name_depths", "odd_files", "odd_light", "read_headers"]

FAR = 5.0  # robust standard deviations from the median; of a normal distribution one image in two million is as far
LEAST_SPREAD = 0.12  # of the logarithm of a side or of a shape: up to 1.8 times the median is never far
SMALLEST_SIDE = 16  # pixels; smaller images are enlarged, and say little
BLANK = 3.0  # levels of 255: the deviation over the pixels of an image below which it shows nothing
DARK, BRIGHT = 20.0, 235.0  # mean levels of 255
FAR_LIGHT, LEAST_LIGHT_SPREAD = 2.5, 8.0  # robust deviations from the median of the set, and levels of 255
CHUNK = 4096  # images whose pixels are held at a time

Array = np.ndarray[Any, Any]
_MODES = {
    "1": "two levels (mode 1)",
    "P": "a palette (mode P)",
    "CMYK": "inks instead of light (CMYK)",
    "I": "16 bits a channel",
    "F": "floating-point pixels",
    "LAB": "Lab colors",
    "HSV": "HSV colors",
    "YCbCr": "YCbCr colors",
}


@dataclass(frozen=True)
class Header:
    """The header of an image file, before its pixels."""

    width: int
    height: int
    mode: str
    """Pillow's name of how pixels are stored: RGB, L (gray), P (palette), CMYK, ..."""
    kind: str
    """JPEG, PNG, ...; empty for pixels that are no file."""
    transparent: bool = False
    animated: bool = False


def read_headers(
    source: ImageSource, entries: list[Entry], progress: Callable[[int, int], None] | None = None
) -> dict[int, Header]:
    """Read headers by the index of the entry, of files that are images; the source is read once, in its order."""
    headers: dict[int, Header] = {}
    for done, (index, data) in enumerate(source.read(entries), 1):
        header = _header(data)
        if header is not None:
            headers[index] = header
        if progress and done % 256 == 0:
            progress(done, len(entries))
    return headers


def _header(data: "bytes | Array | OSError") -> Header | None:
    if isinstance(data, OSError):
        return None
    if not isinstance(data, bytes):
        return Header(data.shape[1], data.shape[0], "RGB", "")
    try:
        with open_header(data) as image:
            transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
            animated = bool(getattr(image, "is_animated", False))
            return Header(*image.size, image.mode, image.format or "", transparent, animated)
    except Exception:  # Pillow's readers raise anything on broken files; decoding has said which are
        return None


def odd_files(headers: Mapping[int, Header]) -> dict[str, dict[int, str]]:
    """Find odd files: for each of ``mode``, ``size``, ``shape`` and ``tiny``, what is odd by the index of the file.

    Sizes and shapes are compared by their logarithms, so that twice and half are equally far.
    """
    if not headers:
        return {"mode": {}, "size": {}, "shape": {}, "tiny": {}}
    rows = np.array(list(headers))
    sides = np.array([(header.width, header.height) for header in headers.values()], np.float64)
    side = np.sqrt(sides.prod(axis=1))
    ratio = sides[:, 0] / sides[:, 1]
    tiny = sides.min(axis=1) < SMALLEST_SIDE
    common_side, common_ratio = (math.exp(np.median(np.log(values))) for values in (side, ratio))
    far_size = (_robust(np.log(side), LEAST_SPREAD) > FAR) & ~(tiny & (tiny.mean() <= 0.5))
    far_shape = _robust(np.log(ratio), LEAST_SPREAD) > FAR
    texts = {row: f"{header.width} × {header.height} px" for row, header in headers.items()}
    return {
        "mode": _odd_modes(headers),
        "size": {row: f"{texts[row]}; most have about {common_side:.0f} px a side" for row in rows[far_size].tolist()},
        "shape": {row: f"{texts[row]}; most are {_shape(common_ratio)}" for row in rows[far_shape].tolist()},
        "tiny": {row: texts[row] for row in rows[tiny].tolist()} if tiny.mean() <= 0.5 else {},
    }


def _odd_modes(headers: Mapping[int, Header]) -> dict[int, str]:
    texts = {row: _odd_mode(header) for row, header in headers.items()}
    common = {text for text, count in Counter(texts.values()).items() if count > len(headers) / 2}
    return {row: text for row, text in texts.items() if text and text not in common}


def name_depths(texts: Mapping[int, str], extremes_N2: Array | None) -> dict[int, str]:
    """Name what is odd about how files are stored, with the values of those of more than 8 bits a channel.

    Args:
        texts: by row, as ``odd_files`` has them.
        extremes_N2: lowest and highest value of each row; NaN of images of 8 bits, None where there are only such.
    """
    named = dict(texts)
    if extremes_N2 is None:
        return named
    deep = np.flatnonzero(np.isfinite(extremes_N2[:, 0])).tolist()
    for row in deep:
        if row in named or len(deep) <= len(extremes_N2) / 2:
            low, high = extremes_N2[row].tolist()
            values = describe_range((low, high))
            named[row] = f"{named.get(row, 'more than 8 bits a channel')}, values from {values}"
    return named


def _odd_mode(header: Header) -> str:
    """Name what is odd about how an image is stored; empty where nothing is."""
    parts = []
    if header.animated:
        parts.append("animated: the first frame is taken")
    if header.transparent:
        parts.append("transparent: shown on white")
    if header.mode.startswith("I;16"):
        parts.append("16 bits a channel")
    elif header.mode in _MODES:
        parts.append(_MODES[header.mode])
    return "; ".join(parts)


def _shape(ratio: float) -> str:
    if abs(math.log(ratio)) < 0.02:
        return "square"
    return f"{ratio:.2g} times as wide as high" if ratio > 1 else f"{1 / ratio:.2g} times as high as wide"


def _robust(values_N: Array, least: float) -> Array:
    """Compute distances from the median, (N,), in standard deviations as the median absolute deviation gives them.

    Args:
        least: the least that the standard deviation is taken for.
    """
    distance: Array = np.abs(values_N - np.median(values_N))
    return distance / max(1.4826 * float(np.median(distance)), least)  # of a normal distribution, 1 / 1.4826 = 0.6745


@dataclass(frozen=True)
class Light:
    """Mean and standard deviation over all pixels and channels of each image, (N,), in levels of 255."""

    mean_N: Array
    deviation_N: Array


def light_of(pixels_NHWC: Array, rows: Array) -> Light:
    """Measure the light of some images."""
    mean, deviation = np.empty(len(rows)), np.empty(len(rows))
    step = max(1, CHUNK * 3072 // max(1, pixels_NHWC[0].size)) if len(pixels_NHWC) else 1
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        levels = pixels_NHWC[rows[part]].reshape(len(rows[part]), -1).astype(np.float32)
        mean[part], deviation[part] = levels.mean(axis=1), levels.std(axis=1)
    return Light(mean, deviation)


def odd_light(light: Light) -> dict[str, dict[int, str]]:
    """Find odd light: for each of ``blank``, ``dark`` and ``bright``, what is odd by the place in ``light``."""
    if not len(light.mean_N):
        return {"blank": {}, "dark": {}, "bright": {}}
    blank = light.deviation_N < BLANK
    far = (_robust(light.mean_N, LEAST_LIGHT_SPREAD) > FAR_LIGHT) & ~blank
    dark, bright = far & (light.mean_N < DARK), far & (light.mean_N > BRIGHT)
    common = float(np.median(light.mean_N))

    def texts(which: Array, text: Callable[[int], str]) -> dict[int, str]:
        return {place: text(place) for place in np.flatnonzero(which).tolist()}

    def level(place: int) -> str:
        return f"mean level {light.mean_N[place]:.0f} of 255; the median of the set is {common:.0f}"

    one_color = texts(blank, lambda place: f"one color: levels deviate by {light.deviation_N[place]:.1f} of 255")
    return {"blank": one_color, "dark": texts(dark, level), "bright": texts(bright, level)}
