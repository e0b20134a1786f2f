"""What lies below a folder: files, folders and links. Nothing here reads a file."""

import errno
import os
from collections import Counter
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

from sightline_runtime.errors import DataError

__all__ = ["CIRCLES", "DANGLING", "HIDDEN_LINKS", "SPECIAL", "TWICE", "FolderTree"]

DANGLING = "links to nothing"
CIRCLES = "links back to a folder above"
TWICE = "links to a folder that is read already"
HIDDEN_LINKS = "hidden links to folders"
SPECIAL = "devices, pipes and sockets"
JUNCTION = 0xA0000003  # tag of the links to folders that Windows makes without a privilege


class FolderTree:
    """The files, folders and links below a folder.

    Links to files are files; a link to a folder is followed unless that folder is read anyway.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[str] = []
        self.folders: list[str] = []
        self.left: Counter[str] = Counter()
        """Things that are neither, by what they are."""
        self.kept: Any = None
        """What whoever asked for the tree has made of it, for the next time."""
        try:
            self._read = {_identity(os.stat(root))}
        except OSError as error:
            raise _unreadable(root, error) from error
        links = self._list("", linked=False)
        heapify(links)
        while links:  # by name, after all real folders: however the disk lists them, no link takes a folder's place
            for more in self._follow(heappop(links)):
                heappush(links, more)

    def _follow(self, link: str) -> list[str]:
        """Add all below a link to a folder, unless it leads up or to what is read already; returns the links in it."""
        try:
            identity = _identity(os.stat(self.root / link))
        except OSError:
            self.left[DANGLING] += 1
            return []
        circles = _leads_up(self.root / link)
        if circles or identity in self._read:
            self.left[CIRCLES if circles else TWICE] += 1
            return []
        self._read.add(identity)
        self.folders.append(link)
        return self._list(link, linked=True)

    def _list(self, start: str, *, linked: bool) -> list[str]:
        """Add all below a folder, but for links to folders, whose names are returned.

        Args:
            linked: whether a link led here: a folder within may then have been read already.
        """
        links: list[str] = []
        pending = [start]
        while pending:
            prefix = pending.pop()
            try:
                with os.scandir(self.root / prefix) as items:
                    for item in items:
                        name = f"{prefix}/{item.name}" if prefix else item.name
                        status = _status_of_folder(item)
                        if status is None:
                            self._add(item, name, links)
                            continue
                        identity = _identity(status)
                        if linked and identity in self._read:
                            self.left[TWICE] += 1
                            continue
                        self._read.add(identity)
                        self.folders.append(name)
                        pending.append(name)
            except OSError as error:
                raise _unreadable(self.root / prefix, error) from error
        return links

    def _add(self, item: "os.DirEntry[str]", name: str, links: list[str]) -> None:
        """Add what is no folder itself to the files, the links to folders, or what is left out."""
        try:
            if item.is_file():
                self.files.append(name)
            elif not item.is_dir():
                self.left[DANGLING if item.is_symlink() else SPECIAL] += 1
            elif item.name.startswith("."):
                self.left[HIDDEN_LINKS] += 1
            else:
                links.append(name)
        except OSError as error:
            self.left[CIRCLES if error.errno == errno.ELOOP else DANGLING] += 1


def _status_of_folder(item: "os.DirEntry[str]") -> os.stat_result | None:
    """Return the status of a folder with its device and number; None where the item is another one, or a link.

    Windows lists neither the device nor the number, and takes a junction, which may lead up, for a folder.
    """
    if not item.is_dir(follow_symlinks=False):
        return None
    status = item.stat(follow_symlinks=False)
    if getattr(status, "st_reparse_tag", 0) == JUNCTION:
        return None
    return status if status.st_ino else os.lstat(item.path)


def _identity(status: os.stat_result) -> tuple[int, int]:
    """Return the device and the number of a folder."""
    return status.st_dev, status.st_ino


def _leads_up(link: Path) -> bool:
    """Return whether a link leads to a folder that it lies in."""
    real, within = os.path.realpath(link), os.path.realpath(link.parent)
    return within == real or within.startswith(real.rstrip(os.sep) + os.sep)


def _unreadable(folder: Path, error: OSError) -> DataError:
    what = "change its permissions" if isinstance(error, PermissionError) else "mend it, or move it away"
    return DataError(f"folder {folder} cannot be read ({error.strerror}); {what}.")
