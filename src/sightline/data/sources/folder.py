"""A folder of class folders, read in place. Nothing here loads torch."""

import errno
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from pathlib import Path

from sightline.data.sources.layout import OWN, Classes, Entry, LeftOut, Listing, lay_out, without_own_output
from sightline.data.sources.listing import LISTED
from sightline.data.sources.metadata import labelled_by
from sightline.data.sources.source import digest, read_files
from sightline.errors import DataError

__all__ = ["BESIDE", "CIRCLES", "DANGLING", "FolderSource"]

DANGLING = "links to nothing"
CIRCLES = "links back to a folder above"
TWICE = "links to a folder that is read already"
HIDDEN_LINKS = "hidden links to folders"
SPECIAL = "devices, pipes and sockets"
BESIDE = frozenset((DANGLING, CIRCLES, TWICE, HIDDEN_LINKS, SPECIAL, OWN))
"""Reasons to leave something out that has no part in the fingerprint of a folder."""
BEGINNING = 256  # bytes of a table that tell who wrote it, and of an image that tell its format


@dataclass
class _Found:
    """The files, folders and links below a folder."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    """Things that are neither, by what they are."""
    kept: tuple[list[str], list[str], LeftOut] | None = None
    """Files and folders without what sightline wrote, and what is left out; None before they were sorted."""


class FolderSource:
    """A folder of class folders, with or without ``train/``, ``val/`` and ``test/`` above them."""

    least = 2

    def __init__(self, path: Path, classes: Classes | None = None) -> None:
        self.path = path
        self.name = path.resolve().name
        self.location = str(path.resolve())
        self.classes = classes

    def fingerprint(self) -> str:
        lines = [] if self.classes is None else [f"classes {self.classes}"]
        for name in self.names()[0]:
            lines.append(f"{name}\0{_size_and_time(self.path / name)}")
        return digest(sorted(lines))

    def names(self) -> tuple[list[str], list[str]]:
        """Names of (files, folders) below the folder, without what sightline wrote; links are followed, each folder once."""
        return self.sorted_names()[:2]

    def sorted_names(self) -> tuple[list[str], list[str], LeftOut]:
        """The same, and what is left out of them."""
        found = self._found()
        if found.kept is None:
            left = LeftOut(Counter(found.left))
            files, folders = without_own_output(found.files, found.folders, left, self.begin)
            found.kept = sorted(files), list(folders), left
        files, folders, left = found.kept
        return files, folders, left.copy()

    def beside(self) -> LeftOut:
        """Count what has no part in the fingerprint: what sightline wrote, and links that are not followed."""
        return self.sorted_names()[2]

    def scan(self) -> Listing:
        files, folders, left = self.sorted_names()
        if {"recipe.yaml", "model.json"} <= set(self._found().files):
            raise DataError(
                f"{self.location} is a run of sightline, and no image set; name the folder of the images (a run's own:"
                f" sightline evaluate {shlex.quote(str(self.path))})."
            )
        return labelled_by(
            self,
            files,
            left.counts,
            lambda: lay_out(
                files, folders, self.location, self.least, classes=self.classes, begin=self.begin, left=left
            ),
        )

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        yield from read_files(self.path, entries)

    def _found(self) -> _Found:
        known: dict[str, _Found] | None = LISTED.get()
        if known is None:
            return _walk(self.path)
        if self.location not in known:
            known[self.location] = _walk(self.path)
        return known[self.location]

    def begin(self, name: str) -> bytes:
        """The first bytes of a file, by which its format is known; none where it cannot be read."""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(BEGINNING)
        except OSError:
            return b""


def _size_and_time(path: Path) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "missing"  # it has gone since the folder was listed
    return f"{status.st_size}\0{status.st_mtime_ns}"


Identity = tuple[int, int]  # device and number of a folder


def _walk(root: Path) -> _Found:
    """List all below a folder. Links to files are files; a link to a folder is followed unless that folder is read anyway."""
    found = _Found()
    try:
        status = os.stat(root)
    except OSError as error:
        raise _unreadable(root, error) from error
    read: set[Identity] = {(status.st_dev, status.st_ino)}
    links = _read_folder(root, "", found, read, linked=False)
    heapify(links)
    while (
        links
    ):  # by name, after all real folders: whichever way the disk lists them, a link never takes a folder's place
        name = heappop(links)
        try:
            status = os.stat(root / name)
        except OSError:
            found.left[DANGLING] += 1
            continue
        if _leads_up(root / name):
            found.left[CIRCLES] += 1
        elif (status.st_dev, status.st_ino) in read:
            found.left[TWICE] += 1
        else:
            read.add((status.st_dev, status.st_ino))
            found.folders.append(name)
            for more in _read_folder(root, name, found, read, linked=True):
                heappush(links, more)
    return found


def _leads_up(link: Path) -> bool:
    """Whether a link leads to a folder that it lies in."""
    real, within = os.path.realpath(link), os.path.realpath(link.parent)
    return within == real or within.startswith(real.rstrip(os.sep) + os.sep)


def _read_folder(root: Path, start: str, found: _Found, read: set[Identity], *, linked: bool) -> list[str]:
    """Add all below a folder to what was found, but for links to folders, whose names are returned.

    Args:
        linked: whether a link led here: a folder within may then have been read already.
    """
    links: list[str] = []
    pending = [start]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(root / prefix) as inside:
                for item in inside:
                    name = f"{prefix}/{item.name}" if prefix else item.name
                    if not item.is_dir(follow_symlinks=False):
                        _sort(item, name, found, links)
                        continue
                    status = item.stat(follow_symlinks=False)
                    if linked and (status.st_dev, status.st_ino) in read:
                        found.left[TWICE] += 1
                        continue
                    read.add((status.st_dev, status.st_ino))
                    found.folders.append(name)
                    pending.append(name)
        except OSError as error:
            raise _unreadable(root / prefix, error) from error
    return links


def _sort(item: "os.DirEntry[str]", name: str, found: _Found, links: list[str]) -> None:
    """Add what is no folder itself to the files, the links to folders, or what is left out."""
    try:
        if item.is_file():
            found.files.append(name)
        elif item.is_dir():
            if item.name.startswith("."):
                found.left[HIDDEN_LINKS] += 1
            else:
                links.append(name)
        else:
            found.left[DANGLING if item.is_symlink() else SPECIAL] += 1
    except OSError as error:
        found.left[CIRCLES if error.errno == errno.ELOOP else DANGLING] += 1


def _unreadable(folder: Path, error: OSError) -> DataError:
    what = "change its permissions" if isinstance(error, PermissionError) else "mend it, or move it away"
    return DataError(f"folder {folder} cannot be read ({error.strerror}); {what}.")
