"""Tables of labels beside images, as Hugging Face lays them: ``metadata.csv`` or ``metadata.jsonl`` in a folder. No torch here."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from sightline.config.checks import shown
from sightline.data.sources.csv_table import LABELS, PATHS, Table, choose, read_table
from sightline.data.sources.layout import Entry, Listing, is_hidden, is_image_name
from sightline.data.sources.listed_files import MemberFinder
from sightline.data.sources.split_names import SPLIT_NAMES, split_of_name
from sightline.data.sources.table_rows import list_rows, table_rows
from sightline.errors import DataError

__all__ = ["labeled_by"]

UNLISTED = "images that no row of the metadata labels"
NAMES = ("metadata.csv", "metadata.jsonl")


class _Files(Protocol):
    """A folder or an archive."""

    location: str
    least: int

    def begin(self, name: str) -> bytes: ...
    def read(self, entries: list[Entry]) -> Iterator[tuple[int, Any]]: ...


def labeled_by(
    source: _Files, files: Sequence[str], left: Mapping[str, int], arrange: Callable[[], Listing]
) -> Listing:
    """Make the listing of a folder or an archive: by the folders, or by the tables of metadata that lie in it.

    Args:
        source: that is listed.
        files: names of all its files.
        left: what the source has left out itself, counted by what it is.
        arrange: makes the listing by the folders alone.
    Raises:
        DataError: neither can be done, or both, with other classes.
    """
    names = [name for name in files if name.rpartition("/")[2].lower() in NAMES and not is_hidden(name)]
    if not names:
        return arrange()
    before = dict(left)
    try:
        folders = arrange()
    except DataError as error:
        tables = _read_tables(source, names)
        if _labels(tables):
            return _listing(source, files, tables, before)
        raise DataError(
            f"{str(error).removesuffix('.')} (nor has {tables[0].what} columns file_name and label)."
        ) from error
    try:
        tables = _read_tables(source, names)
        if not _labels(tables) or not _names_any(tables, names, files):
            return folders
        listing = _listing(source, files, tables, before)
    except DataError:  # of whatever it is a table, the folders are classes
        return folders
    labels = {entry.path: entry.label for entry in folders.entries}
    other = next((entry for entry in listing.entries if labels.get(entry.path) != entry.label), None)
    if other is not None:
        raise DataError(
            f"{source.location} can be read in two ways: {shown(other.path)} is {shown(other.label)} by {names[0]}, and"
            f" {shown(labels.get(other.path) or 'no image of a class')} by its folder; name the table itself to train by it,"
            " or move it away."
        )
    return folders


def _read_tables(source: _Files, names: list[str]) -> list[Table]:
    return [_read(source, name, data) for name, data in _contents(source, names)]


def _labels(tables: list[Table]) -> bool:
    """Whether all tables have columns of file names and labels."""
    return all(choose(table, PATHS) is not None and choose(table, LABELS) is not None for table in tables)


def _names_any(tables: list[Table], names: list[str], files: Sequence[str]) -> bool:
    """Whether a table names a file that is there; one of classes, say, has an ``id`` and a ``label`` as well."""
    there = set(files)
    for table, name in zip(tables, names, strict=True):
        finder = MemberFinder(files, name.rpartition("/")[0])
        for row in table_rows(table):
            with contextlib.suppress(DataError):
                if finder.find(row) in there:
                    return True
    return False


def _listing(source: _Files, files: Sequence[str], tables: list[Table], left: Mapping[str, int]) -> Listing:
    """The listing by tables of metadata."""
    finders = {
        table.what: MemberFinder(files, table.what.removesuffix(_of(source)).rpartition("/")[0]) for table in tables
    }
    listing = list_rows(
        (row for table in tables for row in table_rows(table)),
        lambda row: finders[row.what].find(row),
        source.location,
        source.least,
    )
    listed = {entry.path for entry in listing.entries}
    if not listed & set(files):
        first = listing.entries[0].path
        raise DataError(
            f"{tables[0].what} names no file that is there (the first, {shown(first)}); write the names relative to the table."
        )
    images = [name for name in files if not is_hidden(name) and is_image_name(name, source.begin)]
    others = sum(name not in listed for name in images)
    ignored = Counter({**left, **listing.ignored, UNLISTED: others})
    entries = [replace(entry, split=entry.split or _split_of(entry.path)) for entry in listing.entries]
    return Listing(entries, +ignored, unlabeled=listing.ignored.total() + others)


def _contents(source: _Files, names: list[str]) -> Iterator[tuple[str, bytes | OSError]]:
    found = dict(source.read([Entry(name, "") for name in names]))
    for index, name in enumerate(names):
        yield name, found.get(index, OSError("it is listed and not there"))


def _read(source: _Files, name: str, data: bytes | OSError) -> Table:
    what = name + _of(source)
    if isinstance(data, OSError):
        raise DataError(f"{what} cannot be read ({data.strerror or data}); mend it or delete it.")
    return read_table(data, what, lines=name.lower().endswith("l"))


def _split_of(path: str) -> str | None:
    """The split that a folder around an image names."""
    splits = (split_of_name(part) for part in path.split("/")[:-1])
    return next((split for split in splits if split in SPLIT_NAMES.values()), None)


def _of(source: _Files) -> str:
    return f" of {source.location}"
