"""Tables of labels beside images, as Hugging Face lays them: ``metadata.csv`` or ``metadata.jsonl`` in a folder. No torch here."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from sightline.errors import DataError
from sightline.images.delimited import LABELS, PATHS, Table, choose, read_table
from sightline.images.labelling import list_rows
from sightline.images.layout import SPLIT_NAMES, Entry, Listing, is_hidden, is_image_name
from sightline.images.locating import MemberFinder
from sightline.images.manifests import table_rows

__all__ = ["read_metadata"]

UNLISTED = "images that no row of the metadata labels"
NAMES = ("metadata.csv", "metadata.jsonl")


class _Files(Protocol):
    """A folder or an archive."""

    location: str
    least: int

    def begin(self, name: str) -> bytes: ...
    def read(self, entries: list[Entry]) -> Iterator[tuple[int, Any]]: ...


def read_metadata(source: _Files, files: list[str], left: Mapping[str, int] | None = None) -> Listing | None:
    """Make the listing of a folder or an archive by the tables of metadata that lie in it.

    Args:
        source: that is listed.
        files: names of all its files.
        left: what the source has left out itself, counted by what it is.
    Returns:
        None where there is no such table, or none that has a column of labels beside class folders.
    Raises:
        DataError: a table cannot be used, or names files outside the set.
    """
    names = [name for name in files if name.rpartition("/")[2].lower() in NAMES and not is_hidden(name)]
    if not names:
        return None
    images = [name for name in files if not is_hidden(name) and is_image_name(name, source.begin)]
    tables = [_read(source, name, data) for name, data in _contents(source, names)]
    for name, table in zip(names, tables, strict=True):
        missing = [kind for kind, ranks in (("file_name", PATHS), ("label", LABELS)) if choose(table, ranks) is None]
        if missing and all(image.rpartition("/")[0] == name.rpartition("/")[0] for image in images):
            raise DataError(
                f"{table.what} has no column {' and no column '.join(map(repr, missing))} (found:"
                f" {', '.join(table.columns)[:200] or 'nothing'}), and there are no class folders; name the column that is"
                " meant."
            )
        if missing:
            return None  # of captions beside class folders, say
    finders = {
        table.what: MemberFinder(files, name.rpartition("/")[0]) for name, table in zip(names, tables, strict=True)
    }
    listing = list_rows(
        (row for table in tables for row in table_rows(table)),
        lambda row: finders[row.what].find(row.named(), row.where),
        source.location,
        source.least,
    )
    listed = {entry.path for entry in listing.entries}
    others = sum(name not in listed for name in images)
    ignored = Counter({**(left or {}), **listing.ignored, UNLISTED: others})
    entries = [replace(entry, split=entry.split or _split_of(entry.path)) for entry in listing.entries]
    return Listing(entries, +ignored, unlabeled=listing.ignored.total() + others)


def _contents(source: _Files, names: list[str]) -> Iterator[tuple[str, bytes | OSError]]:
    found = dict(source.read([Entry(name, "") for name in names]))
    for index, name in enumerate(names):
        yield name, found.get(index, OSError("it is listed and not there"))


def _read(source: _Files, name: str, data: bytes | OSError) -> Table:
    what = f"{name} of {source.location}"
    if isinstance(data, OSError):
        raise DataError(f"{what} cannot be read ({data.strerror or data}); mend it or delete it.")
    return read_table(data, what, lines=name.lower().endswith("l"))


def _split_of(path: str) -> str | None:
    """The split that a folder around an image names."""
    return next((SPLIT_NAMES[part] for part in path.lower().split("/")[:-1] if part in SPLIT_NAMES), None)
