"""Parquet files of images or of their paths, read a row group at a time at most. The only door to pyarrow.

A table has a column of labels, and either the images themselves (bytes, or structs with ``bytes`` and ``path``, as
Hugging Face stores them) or their paths. Whole numbers get the names that Hugging Face's ``ClassLabel`` gives them.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sightline.errors import DataError
from sightline.extras import require
from sightline.images.layout import Entry, Listing, check_labels
from sightline.images.manifests import ManifestSource
from sightline.images.sources import digest

__all__ = ["ImageTable", "ParquetSource"]

ROWS = 64  # images read at once
BUFFER = 1 << 20  # bytes of a column read ahead

Image = bytes | OSError


class ImageTable:
    """One Parquet file with labels, and perhaps with images."""

    def __init__(self, path: Path, location: str) -> None:
        """
        Args:
            path: the file.
            location: how messages name it.
        Raises:
            DataError: it is no Parquet file.
        """
        self.path, self.location = path, location
        with self._file() as file:
            schema = file.schema_arrow
        self.types: dict[str, Any] = dict(zip(schema.names, schema.types, strict=True))
        self._features = _features(schema.metadata or {})

    def column(self, what: str, *names: str) -> str:
        """The first of these columns that is there.

        Raises:
            DataError: none is; the sentence names the columns that are.
        """
        found = next((name for name in names if name in self.types), None)
        if found is None:
            raise DataError(
                f"{self.location} has no column of {what} ({' or '.join(map(repr, names))}; found:"
                f" {', '.join(self.types) or 'nothing'}); rename the column that is meant."
            )
        return found

    def texts(self, column: str) -> list[str | None]:
        """A column of words or whole numbers; None where it is empty, or -1 among named classes.

        Raises:
            DataError: it holds something else, or a number without a name.
        """
        import pyarrow.types as kinds

        kind = self.types[column]
        inner = kind.value_type if kinds.is_dictionary(kind) else kind
        whole = kinds.is_integer(inner)
        if not (whole or kinds.is_string(inner) or kinds.is_large_string(inner) or kinds.is_boolean(inner)):
            raise DataError(
                f"column {column!r} of {self.location} holds {kind}; wanted words or whole numbers: convert it."
            )
        names = self._features.get(column, {}).get("names") if whole else None
        texts: list[str | None] = []
        with self._file() as file:
            for batch in file.iter_batches(columns=[column]):
                for value in batch.column(0).to_pylist():
                    if names is None or value is None:
                        texts.append(None if value is None else str(value))
                    elif value == -1:  # how Hugging Face marks the images of a test whose labels are kept secret
                        texts.append(None)
                    elif 0 <= value < len(names):
                        texts.append(str(names[value]))
                    else:
                        raise DataError(
                            f"{self.location}, row {len(texts)}: {column} {value} has no name among the"
                            f" {len(names)} of its ClassLabel; mend the table."
                        )
        return texts

    def images(self, column: str, rows: Sequence[int]) -> Iterator[tuple[int, Image]]:
        """The images of some rows, as (row, bytes), in ascending order.

        Raises:
            DataError: the column holds no bytes.
        """
        import pyarrow.types as kinds

        kind = self.types[column]
        struct = kinds.is_struct(kind) and kind.get_field_index("bytes") >= 0
        inner = kind.field("bytes").type if struct else kind
        if not (kinds.is_binary(inner) or kinds.is_large_binary(inner)):
            raise DataError(
                f"column {column!r} of {self.location} holds {kind}; wanted the bytes of image files, or structs with"
                " bytes and path: write it anew."
            )
        wanted = set(rows)
        for start, array in self._batches(column, wanted):
            values = array.flatten()[kind.get_field_index("bytes")] if struct else array
            for row, value in enumerate(values, start):
                if row in wanted:
                    data = value.as_py()
                    yield row, data if data is not None else OSError(f"row {row} holds no bytes")

    def _batches(self, column: str, wanted: set[int]) -> Iterator[tuple[int, Any]]:
        """(first row, values) of one row group after another, without those groups of which no row is wanted."""
        row = 0
        with self._file() as file:
            for group in range(file.num_row_groups):
                end = row + file.metadata.row_group(group).num_rows
                if not wanted.isdisjoint(range(row, end)):
                    for batch in file.iter_batches(ROWS, [group], [column], use_threads=False):
                        yield row, batch.column(0)
                        row += batch.num_rows
                row = end

    @contextmanager
    def _file(self) -> Iterator[Any]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=BUFFER) as file:
                yield file
        except (pyarrow.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{self.location} cannot be read as a Parquet file ({reason}); download or write it again."
            ) from error


def _features(metadata: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """What Hugging Face says of each column: ``{"label": {"_type": "ClassLabel", "names": [...]}}``."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


class ParquetSource(ManifestSource):
    """A Parquet file with the columns ``label``, and ``path`` or ``image``, and optionally ``split`` and ``group``.

    With ``path`` it is a manifest like a CSV file, with the same rules; with ``image`` it holds the images itself.
    """

    def __init__(self, path: Path) -> None:
        require("pyarrow", "parquet", f"the Parquet file {path}")
        super().__init__(path)

    def fingerprint(self) -> str:
        if "image" not in self._table().types:
            return super().fingerprint()
        status = os.stat(self.path)
        return digest([f"{status.st_size}\0{status.st_mtime_ns}"])

    def scan(self) -> Listing:
        table = self._table()
        table.column("labels", "label")
        if table.column("images or of their paths", "image", "path") == "image" and "path" in table.types:
            raise DataError(f"{table.location} has the columns image and path; leave one of them out.")
        columns = {name: table.texts(name) for name in ("path", "label", "split", "group") if name in table.types}
        if "path" not in columns:
            columns["path"] = [f"{self.path.name}/{row:08d}" for row in range(len(columns["label"]))]
        entries = [
            self._entry(dict(zip(columns, values, strict=True)), f"row {row}")
            for row, values in enumerate(zip(*columns.values(), strict=True))
        ]
        check_labels([entry.label for entry in entries], self.location)
        return Listing(entries, Counter())

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, Image]]:
        table = self._table()
        if "image" not in table.types:
            yield from super().read(entries)
            return
        index_of = {int(entry.path.rpartition("/")[2]): index for index, entry in enumerate(entries)}
        for row, data in table.images("image", sorted(index_of)):
            yield index_of[row], data

    def _table(self) -> ImageTable:
        return ImageTable(self.path, f"manifest {self.path}")
