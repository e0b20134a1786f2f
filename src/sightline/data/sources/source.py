"""What every kind of image set on a disk can do.

A source lists its files once (``scan``), hands out their bytes in its own order (``read``), and changes its
``fingerprint`` when any file changes. Nothing here loads torch.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sightline.data.sources.csv_table import read_regular
from sightline.data.sources.layout import Entry, LeftOut, Listing

__all__ = ["DownloadedSource", "ImageSource", "SharedSource", "digest", "read_files"]


class ImageSource(Protocol):
    """A set of image files. ``read`` yields (index into the entries, bytes or decoded pixels), each entry once."""

    name: str
    location: str
    least: int
    """Classes, at least, for ``scan`` to take the set: 2, and 1 where it is only measured."""

    def fingerprint(self) -> str: ...
    def scan(self) -> Listing: ...
    def read(self, entries: list[Entry]) -> Iterator[tuple[int, "bytes | np.ndarray[Any, Any] | OSError"]]: ...


@runtime_checkable
class DownloadedSource(Protocol):
    """A source that is not on this machine before it is first read."""

    def download(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Have the set's files on the disk; ``progress`` is called with (megabytes done, megabytes in all)."""


@runtime_checkable
class SharedSource(Protocol):
    """A source beside whose images other things come and go, which have no part in its fingerprint."""

    def beside(self) -> LeftOut:
        """What lies there now."""


def read_files(root: Path, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
    for index, entry in enumerate(entries):
        try:
            yield index, read_regular(root / entry.path)
        except OSError as error:
            yield index, error


def digest(lines: list[str]) -> str:
    """A fingerprint of lines of text."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
