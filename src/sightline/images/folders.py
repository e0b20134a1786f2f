"""A folder of class folders, read in place. Nothing here loads torch."""

import os
from collections.abc import Iterator
from pathlib import Path

from sightline.errors import DataError
from sightline.images.formats import HEAD
from sightline.images.layout import Entry, Listing, lay_out
from sightline.images.sources import digest, read_files

__all__ = ["FolderSource"]


class FolderSource:
    """A folder of class folders, with or without ``train/``, ``val/`` and ``test/`` above them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().name
        self.location = str(path.resolve())

    def fingerprint(self) -> str:
        lines = []
        for name, folder in _walk(self.path):
            if not folder:
                status = os.stat(self.path / name)
                lines.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
        return digest(sorted(lines))

    def names(self) -> tuple[list[str], list[str]]:
        """Names of (files, folders) below the folder."""
        found = list(_walk(self.path))
        return sorted(name for name, folder in found if not folder), [name for name, folder in found if folder]

    def scan(self) -> Listing:
        return lay_out(*self.names(), self.location, begin=self.begin)

    def begin(self, name: str) -> bytes:
        """The first bytes of a file, by which its format is known; none where it cannot be read."""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(HEAD)
        except OSError:
            return b""

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        yield from read_files(self.path, entries)


def _walk(root: Path) -> Iterator[tuple[str, bool]]:
    """Names below a folder and whether each is a folder; links to folders are not followed, in no fixed order."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(root / prefix) as found:
                for item in found:
                    name = f"{prefix}/{item.name}" if prefix else item.name
                    if item.is_dir(follow_symlinks=False):
                        pending.append(name)
                        yield name, True
                    elif item.is_file():
                        yield name, False
        except PermissionError as error:
            raise DataError(
                f"folder {root / prefix} cannot be read ({error.strerror}); change its permissions."
            ) from error
