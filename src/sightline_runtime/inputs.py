"""Images as a caller has them: paths, bytes, open files, Pillow images or arrays; each read as its file is.

Height H, width W, channels C.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image

from sightline_runtime.decoding.decode import (
    Decoded,
    UnreadableImageError,
    decode_image,
    pixel_hash,
    read_image,
    resize,
)
from sightline_runtime.decoding.formats import READ
from sightline_runtime.decoding.intensity import has_wide_colors
from sightline_runtime.decoding.preprocessing import DEFAULT, Preprocessing
from sightline_runtime.errors import DataError
from sightline_runtime.files import read_regular

__all__ = ["ImageLike", "as_list", "paths_of", "read_input", "try_decode", "try_read"]

Array = np.ndarray[Any, Any]
P = TypeVar("P")
ImageLike = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | Array

ADDRESSES = ("http://", "https://", "ftp://", "s3://", "gs://", "data:")
SHAPES = "(height, width) or (height, width, 1 to 4 channels)"
_PNG_COLORS = {1: 0, 2: 4, 3: 2, 4: 6}  # kinds of PNG by their channels: gray, gray and opacity, RGB, RGBA


def as_list(images: ImageLike | Iterable[ImageLike]) -> tuple[list[Any], bool]:
    """Return the images that a caller passed as a list, and whether it was one by itself.

    An array of two or three dimensions is one image, of four many; of paths, many.

    Raises:
        DataError: it is neither an image nor some.
    """
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image) or hasattr(images, "read"):
        return [images], True
    if isinstance(images, np.ndarray) or hasattr(images, "__array__"):
        array = np.asarray(images)
        of_others = array.ndim == 1 and array.dtype.kind in "OUS"  # paths, as pandas has them
        return (list(array), False) if of_others or array.ndim == 4 else ([array], True)
    if isinstance(images, Iterable):
        return list(images), False
    raise DataError(
        f"{type(images).__name__} is no image; wanted a path, bytes, an open file, a Pillow image or an array, or a"
        " list of these."
    )


def paths_of(images: str | os.PathLike[str] | Iterable[P]) -> list[str | os.PathLike[str] | P]:
    """List the paths that a caller gave: one by itself, or many."""
    return [images] if isinstance(images, str | os.PathLike) else list(images)


def read_input(image: ImageLike, size: tuple[int, int], preprocessing: Preprocessing) -> Array:
    """Read an image as its file would be, whatever way it comes: (height, width, 3) in uint8.

    Args:
        image: a path, the bytes of a file, a binary file (read from its beginning), a Pillow image, or an array.
        size: (height, width) to resize to.
        preprocessing: of the classifier.
    Raises:
        UnreadableImageError: it cannot be read.
        OSError: nor can its file.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(_bytes_at(os.fspath(image)), size, preprocessing).pixels
    if isinstance(image, bytes | bytearray | memoryview):
        return read_image(bytes(image), size, preprocessing).pixels
    if isinstance(image, Image.Image):
        return _read_pillow(image, size, preprocessing)
    if hasattr(image, "read"):
        return read_image(_bytes_of(image), size, preprocessing).pixels
    return _read_array(np.asarray(image), size, preprocessing)


def try_decode(
    data: bytes | Array | OSError, size: tuple[int, int], preprocessing: Preprocessing = DEFAULT
) -> Array | str:
    """Return the pixels of an image file at a size, (H, W, 3), or why it cannot be read; pixels are only resized."""
    read = try_read(data, size, preprocessing)
    return read if isinstance(read, str) else read.pixels


def try_read(
    data: bytes | Array | OSError,
    size: tuple[int, int],
    preprocessing: Preprocessing = DEFAULT,
    *,
    hashed: bool = False,
) -> Decoded | str:
    """Return an image file at a size, with the hash of all its pixels where that is wanted, or why it cannot be read.

    Pixels are only resized.
    """
    if isinstance(data, OSError):
        return data.strerror or str(data)
    try:
        if isinstance(data, bytes):
            return read_image(data, size, preprocessing, hashed=hashed)
        pixels = resize(data, *size, preprocessing.fit)
        return Decoded(pixels, pixel_hash(data) if hashed else b"", (data.shape[0], data.shape[1]))
    except UnreadableImageError as error:
        return str(error)


def _bytes_at(path: str) -> bytes:
    if path.lower().startswith(ADDRESSES):
        raise UnreadableImageError("it is an address, and nothing is downloaded; save the image and name its file")
    if os.path.isdir(path):
        raise UnreadableImageError("it is a folder; name the images in it, or ask sightline.predict(run, [folder])")
    try:
        return read_regular(path)
    except OSError as error:
        if error.strerror is None:  # ours: a device, a pipe, a name that no file can have
            raise UnreadableImageError(str(error)) from error
        raise


def _bytes_of(file: Any) -> bytes:
    """Read all of an open file, and leave its position where it was."""
    seekable = hasattr(file, "seekable") and file.seekable()
    before = file.tell() if seekable else 0
    if seekable:
        file.seek(0)
    data = file.read()
    if seekable:
        file.seek(before)
    if not isinstance(data, bytes):
        raise UnreadableImageError(
            f"its read() gives {type(data).__name__}; open the file in binary, as open(path, 'rb')"
        )
    return data


# ── Pillow images ────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_pillow(image: Image.Image, size: tuple[int, int], preprocessing: Preprocessing) -> Array:
    loaded = not getattr(image, "tile", None)
    if image.format and not loaded and image.format not in READ:  # to load one of them may start another program
        raise UnreadableImageError(f"a Pillow image of the format {image.format}; load it yourself, or convert it")
    data = _wide_file(image, loaded)
    if data is not None:
        return read_image(data, size, preprocessing).pixels
    return decode_image(image, size, preprocessing)


def _wide_file(image: Any, loaded: bool) -> bytes | None:
    """Return the file of an image of 16 bits a color, of which Pillow holds the upper 8; None of others."""
    if image.mode not in ("RGB", "RGBA") or not image.format:
        return None
    if not loaded:
        return _bytes_of(image.fp) if has_wide_colors(image) else None
    path = getattr(image, "filename", "")
    if not path or not os.path.isfile(path):
        return None
    try:
        with Image.open(path, formats=(image.format,)) as again:
            same = has_wide_colors(again) and again.size == image.size and again.tobytes() == image.tobytes()
        return Path(path).read_bytes() if same else None  # not where the caller has changed it since
    except Exception:  # whatever the file has become: the image itself is there
        return None


# ── arrays ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_array(array: Array, size: tuple[int, int], preprocessing: Preprocessing) -> Array:
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] > 4):
        kind = f"an array of shape {array.shape}" if array.ndim else type(array.item()).__name__
        raise UnreadableImageError(f"{kind}; wanted {SHAPES}")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    gray = array if array.ndim == 2 else array[..., 0] if array.shape[2] == 1 else None
    if array.dtype == np.uint16:
        return read_image(_png_of(array), size, preprocessing).pixels
    if array.dtype == np.uint8 or (array.dtype in (np.bool_, np.int32, np.float32) and gray is not None):
        plain = np.ascontiguousarray(array if gray is None else gray)
        image = Image.fromarray(plain * np.uint8(255) if array.dtype == np.bool_ else plain)
        return decode_image(image, size, preprocessing)
    raise UnreadableImageError(
        f"an array of {array.dtype}; wanted uint8, 0 to 255, or uint16, or one channel of bool, int32 or float32"
    )


def _png_of(array: Array) -> bytes:
    """Encode an array of 16 bits a channel, which Pillow cannot hold in color, as PNG."""
    height, width = array.shape[:2]
    channels = 1 if array.ndim == 2 else array.shape[2]
    rows = np.zeros(
        (height, 1 + 2 * width * channels), np.uint8
    )  # before each row stands how it is filtered: not at all
    rows[:, 1:] = np.ascontiguousarray(array.astype(">u2")).view(np.uint8).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLORS[channels], 0, 0, 0)
    parts: Sequence[tuple[bytes, bytes]] = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(rows.tobytes(), 0)),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
