"""Find the files that a table names: relative, absolute, without suffix, with Windows separators. No torch here."""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from sightline.config.checks import shown
from sightline.data.sources.entries import composed, is_image_name
from sightline.data.sources.table_rows import Row
from sightline.errors import DataError
from sightline_runtime.files import kind_of

__all__ = ["ADDRESS", "FileFinder", "MemberFinder", "refuse_odd"]

ADDRESS = re.compile(r"(https?|ftp|s3|gs|file):|[a-z][a-z0-9+.-]+:/|data:[a-z]+/", re.IGNORECASE)
"""How an address begins; of two letters at least: ``C:/`` is a drive."""
DRIVE = re.compile(r"[A-Za-z]:/|//[^/]")


class FileFinder:
    """Finds the files of a table that the user named on the disk: anywhere, if they are files."""

    def __init__(self, root: Path, what: str) -> None:
        """
        Args:
            root: folder of the table, absolute.
            what: how messages name the table.
        """
        self.root, self.what = str(root), what
        self._inside = self.root.rstrip(os.sep) + os.sep
        self._folders: dict[str, _Names] = {}
        self._found = 0
        self._missing: tuple[str, str] | None = None

    def find(self, row: Row) -> str:
        """Return the name of a row's file, relative to the table's folder if below it; a missing one keeps its own.

        Raises:
            DataError: it is an address, a folder, a device or a pipe, or several files could be meant.
        """
        path, where = row.named(), row.where
        refuse_odd(path, where)
        if "\\" in path and not os.path.lexists(os.path.join(self.root, path)):
            path = path.replace("\\", "/")
        if os.name != "nt" and DRIVE.match(path) and not os.path.lexists(os.path.join(self.root, path)):
            raise DataError(
                f"{where}: {shown(path)} is a path of Windows, which is not on this machine; write it relative to the"
                " table."
            )
        full = os.path.normpath(os.path.join(self.root, path))
        try:
            mode = os.stat(full).st_mode
        except (OSError, ValueError):
            mode = 0
        if stat.S_ISREG(mode):
            self._found += 1
        else:
            full = self._alike(full, path, where, mode)
        if full.startswith(self._inside):
            return full[len(self._inside) :].replace(os.sep, "/")
        name = full if os.path.isabs(path) else os.path.relpath(full, self.root)
        return name.replace(os.sep, "/")

    def refuse_all_missing(self) -> None:
        """Refuse a table of which not one file is there.

        Raises:
            DataError: with the first of them, and where it was looked for.
        """
        if self._missing is not None and not self._found:
            where, full = self._missing
            raise DataError(
                f"{where}: there is no file {shown(full)}, nor any other that the table lists; write the paths relative"
                " to the table's folder, or absolute."
            )

    def _alike(self, full: str, path: str, where: str, mode: int) -> str:
        """Return the one file that is meant by a path that is none."""
        folder, name = os.path.split(full)
        if folder not in self._folders:
            self._folders[folder] = _Names(_files_of(folder))
        similar = self._folders[folder].alike(name, where)
        if similar is not None:
            self._found += 1
            return os.path.join(folder, similar)
        if mode:
            raise DataError(f"{where}: {shown(path)} is {kind_of(mode)}; wanted an image file.")
        self._missing = self._missing or (where, full)
        return full


class MemberFinder:
    """Finds the files of a table that lies within a folder of images or an archive: among its own files alone."""

    def __init__(self, files: Iterable[str], folder: str) -> None:
        """
        Args:
            files: names inside the set.
            folder: of the table, inside the set.
        """
        self._files, self._folder = set(files), folder
        self._folders: dict[str, _Names] = {}

    def find(self, row: Row) -> str:
        """Return the name of a row's file inside the set; one that is missing keeps its own.

        Raises:
            DataError: it lies outside, it is an address, or several files could be meant.
        """
        path, where = row.named(), row.where
        refuse_odd(path, where)
        name = path.replace("\\", "/")
        joined = os.path.normpath(f"{self._folder}/{name}" if self._folder else name).replace(os.sep, "/")
        if name.startswith("/") or re.match("[A-Za-z]:/", name) or joined.split("/")[0] == "..":
            raise DataError(
                f"{where}: {shown(path)} lies outside the set; only a table that is named itself may list files"
                " elsewhere."
            )
        if joined in self._files:
            return joined
        folder, _, last = joined.rpartition("/")
        if not self._folders:
            names: dict[str, list[str]] = {}
            for file in self._files:
                names.setdefault(file.rpartition("/")[0], []).append(file.rpartition("/")[2])
            self._folders = {within: _Names(there) for within, there in names.items()}
        similar = self._folders[folder].alike(last, where) if folder in self._folders else None
        return joined if similar is None else f"{folder}/{similar}".lstrip("/")


class _Names:
    """The names of a folder's files, to be found by their stem, in another case or composed otherwise."""

    def __init__(self, names: Iterable[str]) -> None:
        self._whole: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for name in names:
            self._whole.setdefault(_folded(name), []).append(name)
            self._stems.setdefault(_folded(PurePosixPath(name).stem), []).append(name)

    def alike(self, name: str, where: str) -> str | None:
        same = self._whole.get(_folded(name), [])
        if len(same) == 1:
            return same[0]
        if is_image_name(name):
            return None
        same = self._stems.get(_folded(name), [])
        same = [other for other in same if is_image_name(other)] or same
        if len(same) > 1:
            raise DataError(
                f"{where}: {shown(name)} may be {' or '.join(map(shown, sorted(same)[:3]))}; write the name in full."
            )
        return same[0] if same else None


def refuse_odd(path: str, where: str) -> None:
    """Refuse what is no path of a file at all."""
    if "\0" in path:
        raise DataError(f"{where}: {shown(path)} holds a NUL, which no path can; mend or delete the line.")
    if ADDRESS.match(path):
        raise DataError(f"{where}: {shown(path)} is an address; download the files, and list those.")


def _files_of(folder: str) -> Iterable[str]:
    try:
        with os.scandir(folder) as items:
            return [item.name for item in items if item.is_file()]
    except (OSError, ValueError):
        return []


def _folded(name: str) -> str:
    return composed(name).casefold()
