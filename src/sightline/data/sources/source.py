"""Image sets on a disk: what every kind of them can do.

A source lists its files once (``scan``), hands out their bytes in its own order (``read``), and changes its
``fingerprint`` when any file changes. Nothing here loads torch.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sightline.data.sources.entries import Entry, LeftOut, Listing, lay_out
from sightline.data.sources.layout import Classes
from sightline.data.sources.metadata import labeled_by
from sightline_runtime.files import read_regular

__all__ = ["DownloadedSource", "FileTree", "ImageSource", "SharedSource", "digest", "read_files", "size_and_time"]


class ImageSource(Protocol):
    """A set of image files. ``read`` yields (index into the entries, bytes or decoded pixels), each entry once."""

    name: str
    location: str
    least: int = 2
    """Classes, at least, for ``scan`` to take the set: 2, and 1 where it is only measured."""
    merge: Sequence[str] | Mapping[str, str] = ()
    """Classes that become one when the set is opened, as ``merging.merged`` has them; ``scan`` lists what is there."""

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
        """Count what lies there now."""


class FileTree(ImageSource):
    """Base of a folder and of archives: classes are told by folders, or by tables of metadata beside the images."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.location = str(path.resolve())
        self.classes: Classes | None = None
        """Which folders are the classes; None: those at the top, but for splits."""

    def list_files(self) -> tuple[list[str], list[str], LeftOut]:
        """Return the names of files and folders, with forward slashes, and what is left out of them."""
        raise NotImplementedError

    def begin(self, name: str) -> bytes:
        """Return the first bytes of a file, by which its format is known; none where it cannot be read."""
        raise NotImplementedError

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        raise NotImplementedError

    def scan(self) -> Listing:
        """List the images and their classes."""
        files, folders, left = self.list_files()

        def by_folders() -> Listing:
            return lay_out(files, folders, self.location, self.least, classes=self.classes, begin=self.begin, left=left)

        return labeled_by(self, files, left.counts, by_folders)


def read_files(root: Path, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
    """Yield the index and the bytes of each file below a folder, or why it cannot be read."""
    for index, entry in enumerate(entries):
        try:
            yield index, read_regular(root / entry.path)
        except OSError as error:
            yield index, error


def size_and_time(path: Path) -> str:
    """Return what changes when a file does, or ``missing``."""
    try:
        status = os.stat(path)
    except OSError:
        return "missing"  # it has gone since it was listed
    return f"{status.st_size}\0{status.st_mtime_ns}"


def digest(lines: list[str]) -> str:
    """Return a fingerprint of lines of text."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
