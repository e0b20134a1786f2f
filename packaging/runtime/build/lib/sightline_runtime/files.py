"""Files of images: which they are, their order, and how one is read. Nothing here loads Pillow."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from sightline_runtime.decoding.formats import format_of

__all__ = ["LARGEST_FILE", "is_hidden", "is_image_name", "kind_of", "natural_key", "read_regular"]

LARGEST_FILE = 1 << 29  # bytes of one image file
FLAGS = (
    os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)  # opening a pipe would wait for its writer
IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c"),
        *(".avif", ".avifs", ".heic", ".heif", ".heics", ".heifs", ".hif"),
    )
)
"""Of files that are images without a look into them: whether they can be read is said of each when it is decoded."""
RAW_SUFFIXES = frozenset(
    (
        *(".nef", ".nrw", ".cr2", ".arw", ".sr2", ".srf", ".dng", ".orf", ".rw2", ".pef", ".srw", ".3fr", ".erf"),
        *(".kdc", ".dcr", ".mos", ".iiq"),
    )
)
"""Of cameras' raw files. By their header many are TIFF files; what would be read of them is a thumbnail."""
_DIGITS = re.compile("([0-9]{1,18})")


def read_regular(path: str | os.PathLike[str], most: int = LARGEST_FILE) -> bytes:
    """Read a file, and nothing that would never end: no device, no pipe, no file above a size.

    Args:
        path: of the file; a link is followed.
        most: bytes.
    Raises:
        OSError: it cannot be read, or is something else.
    """
    try:
        descriptor = os.open(path, FLAGS)
    except ValueError as error:  # a NUL in the path
        raise OSError(str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"it is {kind_of(status.st_mode)}; wanted a file")
        if status.st_size > most:
            raise OSError(f"it has {status.st_size:,} bytes, more than {most:,}")
        data = os.read(descriptor, status.st_size)
        while len(data) < status.st_size and (more := os.read(descriptor, status.st_size - len(data))):
            data += more
        return data
    finally:
        os.close(descriptor)


def kind_of(mode: int) -> str:
    """Name the kind of a file that is no plain one."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def is_image_name(name: str, begin: Callable[[str], bytes] | None = None) -> bool:
    """Return whether a file is an image: by a suffix that images usually have, or else by its first bytes.

    So no file of a usual set is read to list it, and no other name hides an image.

    Args:
        name: with forward slashes.
        begin: reads the first bytes of a file by its name; None where that cannot be done.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    return begin is not None and suffix not in RAW_SUFFIXES and bool(format_of(begin(name)))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is a system's own: ``.DS_Store``, ``__MACOSX/``, ``.git/``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def natural_key(name: str) -> tuple[list[Any], str]:
    """Return the key to sort names by for people: without regard to case, and numbers by their size."""
    parts = _DIGITS.split(name.casefold())  # words and numbers in turn
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
