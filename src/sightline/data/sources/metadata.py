"""Tables of labels beside images, as Hugging Face has them: ``metadata.csv``, ``metadata.jsonl``. No torch here."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from sightline.config.checks import shown
from sightline.data.sources.csv_table import LABELS, PATHS, Table, choose, read_table
from sightline.data.sources.entries import Entry, Listing, is_hidden, is_image_name
from sightline.data.sources.listed_files import MemberFinder
from sightline.data.sources.split_names import SPLIT_NAMES, split_of_name
from sightline.data.sources.table_rows import Row, list_rows, table_rows
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
        tables = _Tables(source, names, files)
        if tables.label():
            return tables.listing(before)
        raise DataError(
            f"{str(error).removesuffix('.')} (nor has {tables.first} columns file_name and label)."
        ) from error
    try:
        tables = _Tables(source, names, files)
        if not tables.label() or not tables.name_any():
            return folders
        listing = tables.listing(before)
    except DataError:  # of whatever it is a table, the folders are classes
        return folders
    labels = {entry.path: entry.label for entry in folders.entries}
    other = next((entry for entry in listing.entries if labels.get(entry.path) != entry.label), None)
    if other is not None:
        raise DataError(
            f"{source.location} can be read in two ways: {shown(other.path)} is {shown(other.label)} by {names[0]}, and"
            f" {shown(labels.get(other.path) or 'no image of a class')} by its folder; name the table itself to train"
            " by it, or move it away."
        )
    return folders


class _Tables:
    """The tables of metadata of a set, and the files that their rows name."""

    def __init__(self, source: _Files, names: list[str], files: Sequence[str]) -> None:
        self.source, self.files = source, files
        self.tables: list[Table] = []
        self.finders: dict[str, MemberFinder] = {}
        self.first = f"{names[0]} of {source.location}"
        contents = dict(source.read([Entry(name, "") for name in names]))
        for index, name in enumerate(names):
            what, data = f"{name} of {source.location}", contents.get(index, OSError("it is listed and not there"))
            if isinstance(data, OSError):
                raise DataError(f"{what} cannot be read ({data.strerror or data}); mend it or delete it.")
            self.tables.append(read_table(data, what, lines=name.lower().endswith("l")))
            self.finders[what] = MemberFinder(files, name.rpartition("/")[0])

    def label(self) -> bool:
        """Return whether all have columns of file names and labels."""
        return all(choose(table, PATHS) is not None and choose(table, LABELS) is not None for table in self.tables)

    def rows(self) -> Iterator[Row]:
        """Return the rows of all tables."""
        return itertools.chain.from_iterable(map(table_rows, self.tables))

    def find(self, row: Row) -> str:
        """Return the file of a row."""
        return self.finders[row.what].find(row)

    def name_any(self) -> bool:
        """Return whether a row names a file that is there; a table of classes has an ``id`` and a ``label`` as well."""
        there = set(self.files)
        for row in self.rows():
            with contextlib.suppress(DataError):
                if self.find(row) in there:
                    return True
        return False

    def listing(self, left: Mapping[str, int]) -> Listing:
        """Return the listing by the tables."""
        listing = list_rows(self.rows(), self.find, self.source.location, self.source.least)
        listed = {entry.path for entry in listing.entries}
        if not listed & set(self.files):
            raise DataError(
                f"{self.first} names no file that is there (the first, {shown(listing.entries[0].path)}); write the"
                " names relative to the table."
            )
        images = [name for name in self.files if not is_hidden(name) and is_image_name(name, self.source.begin)]
        others = sum(name not in listed for name in images)
        ignored = Counter({**left, **listing.ignored, UNLISTED: others})
        entries = [replace(entry, split=entry.split or _split_of(entry.path)) for entry in listing.entries]
        return Listing(entries, +ignored, unlabeled=listing.ignored.total() + others)


def _split_of(path: str) -> str | None:
    """Return the split that a folder around an image names."""
    splits = (split_of_name(part) for part in path.split("/")[:-1])
    return next((split for split in splits if split in SPLIT_NAMES.values()), None)
