"""A table that lists image files and their labels, read in place. Nothing here loads torch."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from sightline.data.sources.csv_table import LABELS, PATHS, Table, choose, read_manifest_file
from sightline.data.sources.layout import SPLIT_NAMES, Entry, Listing
from sightline.data.sources.listed_files import FileFinder
from sightline.data.sources.source import digest, read_files
from sightline.data.sources.table_rows import Row, list_rows
from sightline.errors import DataError

__all__ = ["ManifestSource", "table_rows"]

RULES = "rows 2"  # changes when the same table gives other entries; caches of it are then built anew
SPLIT_COLUMNS = ("subset", "partition", "set", "phase", "usage")
WANTED = "path,label[,split][,group] (or file, image, id; class, target, category)"


class ManifestSource:
    """A table with a column of paths and one of labels, and optionally ``split`` and ``group``.

    Paths are relative to the table, or absolute. A row may name a file again, with the same label.
    """

    least = 2

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
        for name in names:
            try:
                status = os.stat(self.root / name)
                lines.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
            except OSError:
                lines.append(f"{name}\0missing")
        return digest(lines)

    def scan(self) -> Listing:
        finder = FileFinder(self.root, self.what)
        listing = list_rows(
            self._rows(labelled=True),
            lambda row: finder.find(row.named(), row.where),
            self.location,
            self.least,
        )
        finder.refuse_all_missing()
        return listing

    def files(self) -> list[Entry]:
        """The files of all rows, with labels or without, each once.

        Raises:
            DataError: there is no column of paths, or a row cannot be used.
        """
        finder = FileFinder(self.root, self.what)
        names = [finder.find(row.named(), row.where) for row in self._rows(labelled=False)]
        finder.refuse_all_missing()
        return [Entry(name, "") for name in dict.fromkeys(names)]

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        yield from read_files(self.root, entries)

    def _rows(self, *, labelled: bool) -> Iterator[Row]:
        return table_rows(read_manifest_file(self.path, self.what), labelled=labelled)


def table_rows(table: Table, *, labelled: bool = True) -> Iterator[Row]:
    """The rows of a table, by the usual names of its columns.

    Args:
        table: with a header.
        labelled: whether there must be a column of labels.
    Raises:
        DataError: a column is missing, or several could be meant.
    """
    columns = {
        "path": choose(table, PATHS),
        "label": choose(table, LABELS) if labelled else None,
        "split": _split_column(table),
        "group": choose(table, (("group",),)),
    }
    missing = [name for name in ("path", "label") if columns[name] is None and (labelled or name == "path")]
    if missing:
        found = ", ".join(table.columns)
        raise DataError(
            f"{table.what} has no column {' and no column '.join(map(repr, missing))} (found:"
            f" {found[:200] + '...' if len(found) > 200 else found or 'nothing'}); its first line must name"
            f" {WANTED if labelled else 'path (or file, image, id)'}."
        )
    chosen = {name: index for name, index in columns.items() if index is not None}
    return (Row(table.what, place, **cells) for place, cells in table.records(chosen))  # type: ignore[arg-type]


def _split_column(table: Table) -> int | None:
    """The column ``split``, or one of a usual name that holds names of splits alone."""
    column = choose(table, (("split",),))
    if column is not None:
        return column
    for index, name in enumerate(table.columns):
        if name.strip().lower() in SPLIT_COLUMNS:
            cells = {(row["split"] or "").strip().lower() for _, row in table.records({"split": index})}
            if cells and cells <= set(SPLIT_NAMES):
                return index
    return None
