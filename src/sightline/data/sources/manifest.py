"""A table that lists image files and their labels, read in place. Nothing here loads torch."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from sightline.data.sources.csv_table import read_manifest_file
from sightline.data.sources.entries import Entry, Listing
from sightline.data.sources.listed_files import FileFinder
from sightline.data.sources.source import ImageSource, digest, read_files, size_and_time
from sightline.data.sources.table_rows import Row, list_rows, table_rows

__all__ = ["RULES", "ManifestSource"]

RULES = "rows 2"  # changes when the same table gives other entries; caches of it are then built anew


class ManifestSource(ImageSource):
    """A table with a column of paths and one of labels, and optionally ``split`` and ``group``.

    Paths are relative to the table, or absolute. A row may name a file again, with the same label.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().stem
        self.location = str(path.resolve())
        self.root = path.resolve().parent
        self.what = f"manifest {path}"

    def fingerprint(self) -> str:
        names = sorted({entry.path for entry in self.scan().entries})  # refused where it is a pipe, say
        with self.path.open("rb") as file:
            lines = [RULES, hashlib.file_digest(file, "sha256").hexdigest()]
        return digest(lines + [f"{name}\0{size_and_time(self.root / name)}" for name in names])

    def scan(self) -> Listing:
        finder = FileFinder(self.root, self.what)
        listing = list_rows(self._rows(labeled=True), finder.find, self.location, self.least)
        finder.refuse_all_missing()
        return listing

    def files(self) -> list[Entry]:
        """Return the files of all rows, with labels or without, each once.

        Raises:
            DataError: there is no column of paths, or a row cannot be used.
        """
        finder = FileFinder(self.root, self.what)
        names = [finder.find(row) for row in self._rows(labeled=False)]
        finder.refuse_all_missing()
        return [Entry(name, "") for name in dict.fromkeys(names)]

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        yield from read_files(self.root, entries)

    def _rows(self, *, labeled: bool) -> Iterator[Row]:
        return table_rows(read_manifest_file(self.path, self.what), labeled=labeled)
