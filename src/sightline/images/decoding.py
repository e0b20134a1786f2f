"""From the bytes of one image file to RGB pixels. Height H, width W."""

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = [
    "FORMATS",
    "MAXIMUM_PIXELS",
    "TooManyPixelsError",
    "UnreadableImageError",
    "decode",
    "in_parallel",
    "pixel_hash",
    "resize",
]

MAXIMUM_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Of images from strangers: those that sets are made of. Pillow knows many more, and starts a program for one of them."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Item = TypeVar("Item")
Result = TypeVar("Result")


class UnreadableImageError(Exception):
    """One file cannot be used; the others can. The message is the reason, for the list of files left out."""


class TooManyPixelsError(UnreadableImageError):
    """An image is larger than is taken; nothing but its header was read."""


def decode(data: bytes, maximum: int = MAXIMUM_PIXELS, formats: tuple[str, ...] | None = None) -> Pixels:
    """Decode an image file to RGB, upright, at its full size.

    Grey becomes three equal channels, transparent pixels become white, 16 bits keep their upper eight, of an
    animation the first frame is taken, and a camera's orientation is applied.

    Args:
        data: the bytes of the file.
        maximum: pixels, at most; known from the header, before anything is decoded.
        formats: Pillow's names of those that are tried; None for all.
    Returns:
        Pixels, (H, W, 3).
    Raises:
        TooManyPixelsError: more than the maximum.
        UnreadableImageError: no image, broken, or truncated.
    """
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            image = Image.open(io.BytesIO(data), formats=formats)
        if image.width * image.height > maximum:
            raise TooManyPixelsError(f"more than {maximum / 1e6:g} megapixels ({image.width}×{image.height})")
        return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError as error:
        raise UnreadableImageError("no image in any known format") from error
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"more than {maximum / 1e6:g} megapixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError) as error:
        # Pillow's readers raise all of these on broken files
        raise UnreadableImageError(f"broken: {' '.join(str(error).split()) or type(error).__name__}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint16)
        image = Image.fromarray((wide >> 8).astype(np.uint8))
    elif image.mode == "I":
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 65535:
            raise UnreadableImageError("32-bit pixels; wanted 8 or 16 bits a channel")
        image = Image.fromarray((wide >> 8).astype(np.uint8))  # how Pillow opens some 16-bit PNG and TIFF files
    elif image.mode == "F":
        raise UnreadableImageError("floating-point pixels; wanted 8 or 16 bits a channel")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def pixel_hash(pixels: Pixels) -> bytes:
    """Sixteen bytes that two images share only if their pixels are the same."""
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data)  # fastest here: processors have instructions for it
    digest.update(f"{height}×{width}".encode())
    return digest.digest()[:16]


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scale so that the image just covers height × width, and cut the centre out. (H, W, 3) → (height, width, 3)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    found_height, found_width = pixels.shape[:2]
    scale = max(height / found_height, width / found_width)
    box_height, box_width = height / scale, width / scale
    # rounding may leave a box larger than the image by a last digit, which Pillow refuses
    top, left = max(0.0, (found_height - box_height) / 2), max(0.0, (found_width - box_width) / 2)
    image = Image.fromarray(pixels).resize(
        (width, height),
        Image.Resampling.BICUBIC,
        box=(left, top, min(left + box_width, found_width), min(top + box_height, found_height)),
        reducing_gap=3.0,
    )
    return np.asarray(image)


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
