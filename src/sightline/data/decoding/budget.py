"""The memory that images may take while they are decoded, over all threads together. Nothing here loads Pillow."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["memory_for", "most_pixels"]

MEMORY = 1_000_000_000  # bytes that the images which are decoded at the same time may take together
BYTES_PER_PIXEL = {"WEBP": 16, "JPEG2000": 20, "AVIF": 16, "HEIF": 16}  # at the peak, as measured; of others:
USUAL_BYTES = 10
LARGE = 40_000_000  # bytes: of images that take less, threads do not keep much
UNCOUNTED = 1_000_000  # bytes: many images of so few at once are no matter

_freed = threading.Condition()
_taken, _kept = 0, 0  # bytes: of images that are being decoded; freed, and perhaps not yet given back


def most_pixels(kind: str | None) -> int:
    """The pixels of the largest image of a format, by Pillow's name, that the memory suffices for; None for no file."""
    return MEMORY // BYTES_PER_PIXEL.get(kind or "", USUAL_BYTES)


@contextmanager
def memory_for(kind: str | None, pixels: int) -> Iterator[None]:
    """Wait until there is room to decode an image beside those that are being decoded.

    Args:
        kind: Pillow's name of its format; None for no file.
        pixels: at most ``most_pixels``.
    """
    global _taken
    wanted = pixels * BYTES_PER_PIXEL.get(kind or "", USUAL_BYTES)
    if wanted < UNCOUNTED:
        yield
        return
    with _freed:
        _freed.wait_for(lambda: _taken + wanted <= MEMORY)
        _taken += wanted
    try:
        yield
    finally:
        with _freed:
            _taken -= wanted
            _freed.notify_all()
        if wanted >= LARGE:
            _give_back(wanted)


def _give_back(freed: int) -> None:
    """Let glibc give freed memory back to the system, once for as much as may be taken.

    Each thread keeps what it freed, as much as its largest image; of many threads that is more than all of them may take.
    """
    global _kept
    with _freed:
        _kept += freed
        if _kept < MEMORY:
            return
        _kept = 0
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # another system
        return
