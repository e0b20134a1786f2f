"""From the bytes of one image file to RGB pixels. Height H, width W.

Every verb reads files through here: one list of formats, one limit of memory, one kind of error.
"""

import ctypes
import functools
import hashlib
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from sightline_runtime.decoding.formats import HEAD, WANTED, format_of, name_of_unread
from sightline_runtime.decoding.intensity import Range, Wide, has_wide_colors, whole_bits, wide_values
from sightline_runtime.decoding.limits import bounded, memory_for, most_pixels, refuse_bloated_exif
from sightline_runtime.decoding.preprocessing import DEFAULT, Preprocessing
from sightline_runtime.decoding.resizing import resize

__all__ = [
    "MAXIMUM_PIXELS",
    "WANTED",
    "Decoded",
    "TooManyPixelsError",
    "UnreadableImageError",
    "can_be_read_now",
    "decode",
    "decode_image",
    "in_parallel",
    "open_header",
    "pixel_hash",
    "read_image",
    "resize",
]

MAXIMUM_PIXELS = 100_000_000
NEEDS_HEIC = "a HEIC file, which needs the extra heic"
HEIC_COMMAND = "pip install '.[heic]'"  # in a checkout
NEEDS_AVIF = "an AVIF file, which this Pillow cannot read"
STRIP_PIXELS = 1 << 20  # that are converted or hashed at a time, to bound the memory

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Item = TypeVar("Item")
Result = TypeVar("Result")

_Turn = Image.Transpose
_TURNS = (
    *(_Turn.FLIP_LEFT_RIGHT, _Turn.ROTATE_180, _Turn.FLIP_TOP_BOTTOM),
    *(_Turn.TRANSPOSE, _Turn.ROTATE_270, _Turn.TRANSVERSE, _Turn.ROTATE_90),
)
"""What turns an image upright, of the orientations from 2 on."""


class UnreadableImageError(Exception):
    """One file cannot be used; the others can. The message is the reason, for the list of files left out."""


class TooManyPixelsError(UnreadableImageError):
    """An image is larger than is taken; nothing but its header was read."""


@dataclass(frozen=True)
class Decoded:
    """An image as its file shows it."""

    pixels: Pixels
    """(H, W, 3)."""
    hash: bytes
    """Sixteen bytes that two images share only if their pixels, at full size and in full depth, are the same; empty
    where none was asked for."""
    size: tuple[int, int]
    """(height, width) of the upright image in pixels, before it was resized."""
    extremes: Range | None = None
    """Lowest and highest value of an image of more than 8 bits a channel; None of any other."""


# ── decoding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def decode(data: bytes, maximum: int = MAXIMUM_PIXELS, preprocessing: Preprocessing = DEFAULT) -> Pixels:
    """Decode an image file to RGB, upright, at its full size.

    Gray becomes three equal channels, transparent pixels become white, of an animation the first frame is taken, and a
    camera's orientation is applied.

    Args:
        data: the bytes of the file.
        maximum: pixels, at most; known from the header, before anything is decoded.
        preprocessing: which values of more than 8 bits become black and white.
    Returns:
        Pixels, (H, W, 3).
    Raises:
        TooManyPixelsError: more than the maximum.
        UnreadableImageError: no image, broken, or truncated.
    """
    return read_image(data, None, preprocessing, maximum=maximum).pixels


def read_image(
    data: bytes,
    size: tuple[int, int] | None,
    preprocessing: Preprocessing = DEFAULT,
    *,
    maximum: int = MAXIMUM_PIXELS,
    hashed: bool = False,
) -> Decoded:
    """Decode an image file to RGB, upright, and resize it, in bounded memory; as ``decode`` has it.

    Args:
        data: the bytes of the file.
        size: (height, width) to resize to; None keeps the full size.
        preprocessing: how images of other shapes and depths are shown.
        maximum: pixels, at most.
        hashed: compute the hash.
    Raises:
        TooManyPixelsError: more than the maximum, or more than the memory for its format allows.
        UnreadableImageError: no image, broken, or truncated.
    """
    with _only_our_errors(maximum):
        image = open_header(data)
        _refuse_many_pixels(image, maximum)
        with memory_for(image.format, image.width * image.height):
            again = open_header(data) if has_wide_colors(image) else None
            image.load()
            return _decoded(image, again, size, preprocessing, hashed)


def decode_image(image: Image.Image, size: tuple[int, int] | None, preprocessing: Preprocessing = DEFAULT) -> Pixels:
    """Bring a Pillow image to RGB as its file would be: upright, on white, and resized.

    Args:
        image: of any mode.
        size: (height, width) to resize to; None keeps the full size.
        preprocessing: how images of other shapes and depths are shown.
    Raises:
        UnreadableImageError: its file cannot be decoded, or it has a mode that is not read.
    """
    with _only_our_errors(MAXIMUM_PIXELS):
        _refuse_many_pixels(image, MAXIMUM_PIXELS)
        with memory_for(image.format, image.width * image.height):
            image.load()
            return _decoded(image, None, size, preprocessing, False).pixels


def open_header(data: bytes) -> Image.Image:
    """Open an image file without decoding its pixels. What Pillow raises, and what it says of odd files, is its own.

    Raises:
        UnreadableImageError: empty, or in none of the formats that are read.
    """
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes)")
    _keep_quiet()
    kind = format_of(data[:HEAD])
    if not kind:
        name = name_of_unread(data[:HEAD])
        raise UnreadableImageError(f"no image in any known format{f', but {name}' if name else ''}")
    if kind == "HEIF" and not _heif_is_registered():
        raise UnreadableImageError(f"{NEEDS_HEIC}; run: {HEIC_COMMAND}")
    if kind == "AVIF" and not _avif_is_there():
        raise UnreadableImageError(f"{NEEDS_AVIF}; install Pillow 11.3 or later")
    if kind == "TIFF":
        _keep_libtiff_quiet()
    return Image.open(io.BytesIO(bounded(kind, data)), formats=(kind,))


def can_be_read_now(reason: str) -> bool:
    """Return whether what was missing to read a file, when it was left out for a reason, is installed by now."""
    if reason.startswith(NEEDS_HEIC):
        return _heif_is_registered()
    return reason.startswith(NEEDS_AVIF) and _avif_is_there()


@functools.cache
def _heif_is_registered() -> bool:
    """Register the decoder of HEIC at Pillow, where it is installed."""
    if importlib.util.find_spec("pi_heif") is None:
        return False
    import pi_heif

    pi_heif.register_heif_opener()
    return True


@functools.cache
def _avif_is_there() -> bool:
    from PIL import features

    return bool(features.check("avif")) if "avif" in features.modules else False


@functools.cache
def _keep_libtiff_quiet() -> None:
    """Let libtiff not write to the standard error what is odd about a file that it calls ``tempfile.tif``."""
    try:
        library = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined]  # and what it depends on
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)
    except (OSError, AttributeError):  # linked in another way
        return


def _keep_quiet() -> None:
    """Let Pillow not warn of odd files: its warnings do not name the file, and what matters is raised.

    Entering ``warnings.catch_warnings`` on several threads at once is not safe; a filter that stays is.
    """
    if _FILTER not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _FILTER = warnings.filters[0]
if logging.getLogger("PIL").level == logging.NOTSET:
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)


@contextmanager
def _only_our_errors(maximum: int) -> Iterator[None]:
    """Turn whatever a decoder raises into the one error: Pillow's raise anything on broken files."""
    try:
        yield
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError("broken: its header cannot be read") from error
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"more than {maximum / 1e6:g} megapixels") from error
    except MemoryError as error:
        raise UnreadableImageError("broken, or too large: decoding it asks for more memory than there is") from error
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise UnreadableImageError(f"broken: {text or type(error).__name__}") from error


def _refuse_many_pixels(image: Image.Image, maximum: int) -> None:
    pixels = image.width * image.height
    shape = f"({image.width}×{image.height})"
    if pixels > maximum:
        raise TooManyPixelsError(f"more than {maximum / 1e6:g} megapixels {shape}")
    most = most_pixels(image.format)
    if pixels > most:
        raise TooManyPixelsError(f"more than {most / 1e6:g} megapixels {shape}, the most of a {image.format} file")


# ── conversion ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _decoded(
    image: Image.Image,
    again: Image.Image | None,
    size: tuple[int, int] | None,
    preprocessing: Preprocessing,
    hashed: bool,
) -> Decoded:
    exif = image.info.get("exif")
    if isinstance(exif, bytes):
        refuse_bloated_exif(exif)
    turn = dict(enumerate(_TURNS, 2)).get(image.getexif().get(ExifTags.Base.Orientation, 1))
    digest, extremes = b"", None
    if preprocessing.intensity == "upper bits":
        image = _upper_bits(image)
    elif (wide := wide_values(image, again)) is not None:
        again = None
        extremes = wide.extremes()
        digest = wide.hash() if hashed else b""
        image = _in_eight_bits(wide, extremes, preprocessing)
        del wide
    rgb = _to_rgb(image)
    del image
    if turn is not None:
        rgb = rgb.transpose(turn)
        digest = hashlib.sha256(digest + bytes([turn])).digest()[:16] if digest else b""
    full = (rgb.height, rgb.width)
    if size is None or size == full:
        pixels = np.asarray(rgb)
        return Decoded(pixels, digest or (pixel_hash(pixels) if hashed else b""), full, extremes)
    if hashed and not digest:
        digest = _hash((strip.tobytes() for _, strip in _strips(rgb)), full)
    return Decoded(resize(rgb, *size, preprocessing.fit), digest, full, extremes)


def _upper_bits(image: Image.Image) -> Image.Image:
    """Show more than 8 bits as was done before their range was measured: the upper ones."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableImageError("32-bit pixels; wanted 8 or 16 bits a channel")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise UnreadableImageError("floating-point pixels; wanted 8 or 16 bits a channel")
    return image


def _in_eight_bits(wide: Wide, extremes: Range, preprocessing: Preprocessing) -> Image.Image:
    if isinstance(preprocessing.intensity, tuple):
        return wide.shown(*preprocessing.intensity)
    low, high = extremes
    return wide.shown(*whole_bits(min(low, 0.0), high))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
        return image.convert("RGB")
    rgb = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        colors = strip.convert("RGBA")
        white = Image.new("RGBA", colors.size, (255, 255, 255, 255))
        rgb.paste(Image.alpha_composite(white, colors).convert("RGB"), (0, top))
    return rgb


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield some rows of an image at a time, behind the number of the first, to bound the memory."""
    step = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        whole = step >= image.height
        yield top, image if whole else image.crop((0, top, image.width, min(top + step, image.height)))


def pixel_hash(pixels: Pixels) -> bytes:
    """Return sixteen bytes that two images share only if their pixels are the same."""
    return _hash([np.ascontiguousarray(pixels).data], pixels.shape[:2])


def _hash(parts: Iterable[bytes | memoryview], size: tuple[int, ...]) -> bytes:
    """Hash the pixels of an image that come in parts, and its (height, width)."""
    digest = hashlib.sha256()  # fastest here: processors have instructions for it
    for part in parts:
        digest.update(part)
    digest.update("×".join(map(str, size)).encode())
    return digest.digest()[:16]


# ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def in_parallel(
    work: Callable[[Item], Result], items: Iterable[Item], *, tiny: bool, workers: int | None = None
) -> Iterator[Result]:
    """Apply a function to items on several threads, a bounded number ahead; results come in the order of the items.

    Pillow frees the interpreter while it decodes and resizes a photo, so threads suffice. For tiny images the
    interpreter itself is the work, and one worker beside the reader is fastest (5,000 JPEG files of 32 px: 0.32 s on
    one thread, 0.45 s on two; one run).

    Args:
        tiny: whether the items are images of a few dozen pixels.
        workers: threads; None for one a core.
    """
    workers = 1 if tiny else workers or os.cpu_count() or 1
    source = iter(items)

    def do(chunk: list[Item]) -> list[Result]:
        return [work(item) for item in chunk]

    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[list[Result]]] = []
        try:
            while chunk := list(islice(source, 64 if tiny else 4)):
                waiting.append(pool.submit(do, chunk))
                if len(waiting) > 4 * workers:  # bounds the memory
                    yield from waiting.pop(0).result()
            while waiting:
                yield from waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
