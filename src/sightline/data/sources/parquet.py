"""Parquet files of images or of their paths, read a row group at a time at most. The only door to pyarrow.

A table has a column of labels, and either the images themselves (bytes, or structs with ``bytes`` and ``path``, as
Hugging Face stores them) or their paths. Whole numbers get the names that Hugging Face's ``ClassLabel`` gives them.
"""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sightline.data.sources.csv_table import LABELS, PATHS, Table, choose
from sightline.data.sources.entries import Entry, Listing
from sightline.data.sources.manifest import RULES, ManifestSource
from sightline.data.sources.source import digest, size_and_time
from sightline.data.sources.table_rows import Row, list_rows
from sightline.errors import DataError, SightlineError
from sightline.machine.extras import require

__all__ = ["ImageTable", "ParquetSource"]

ROWS = 64  # images read at once
BUFFER = 1 << 20  # bytes of a column read ahead
IMAGES = ("image", "img", "images", "picture", "photo")  # names of a column of the images themselves

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
            schema, self.rows = file.schema_arrow, int(file.metadata.num_rows)
        self.types: dict[str, Any] = dict(zip(schema.names, schema.types, strict=True))
        self._features = _features(schema.metadata or {})

    def column(self, what: str, *names: str) -> str:
        """Return the first of these columns that is there.

        Raises:
            DataError: none is; the sentence names the columns that are.
        """
        present = next((name for name in names if name in self.types), None)
        if present is None:
            raise DataError(
                f"{self.location} has no column of {what} ({' or '.join(map(repr, names))}; found:"
                f" {', '.join(self.types) or 'nothing'}); rename the column that is meant."
            )
        return present

    def is_text(self, column: str) -> bool:
        """Return whether a column holds words."""
        import pyarrow.types as kinds

        kind = self.types[column]
        inner = kind.value_type if kinds.is_dictionary(kind) else kind
        return bool(kinds.is_string(inner) or kinds.is_large_string(inner))

    def texts(self, column: str) -> list[str | None]:
        """Return a column of words or whole numbers; None where it is empty or NaN, or -1 among named classes.

        Raises:
            DataError: it holds something else, or a number without a name.
        """
        import pyarrow.types as kinds

        kind = self.types[column]
        inner = kind.value_type if kinds.is_dictionary(kind) else kind
        whole = kinds.is_integer(inner)
        if not (whole or self.is_text(column) or kinds.is_boolean(inner) or kinds.is_floating(inner)):
            raise DataError(
                f"column {column!r} of {self.location} holds {kind}; wanted words or whole numbers: convert it."
            )
        names = self._features.get(column, {}).get("names") if whole else None
        texts: list[str | None] = []
        with self._file() as file:
            for batch in file.iter_batches(columns=[column]):
                for value in batch.column(0).to_pylist():
                    if isinstance(value, float):
                        texts.append(self._whole(value, f"row {len(texts)}: {column}"))
                    elif names is None or value is None:
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

    def _whole(self, value: float, where: str) -> str | None:
        """Return a whole number that pandas made a fraction of because its column has gaps, which are NaN."""
        if math.isnan(value):
            return None
        if not value.is_integer():
            raise DataError(f"{self.location}, {where} {value:g} is no whole number; wanted words or whole numbers.")
        return str(int(value))

    def images(self, column: str, rows: Sequence[int]) -> Iterator[tuple[int, Image]]:
        """Yield the images of some rows, as (row, bytes), in ascending order.

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
        chosen = set(rows)
        for start, array in self._batches(column, chosen):
            values = array.flatten()[kind.get_field_index("bytes")] if struct else array
            for row, value in enumerate(values, start):
                if row in chosen:
                    data = value.as_py()
                    yield row, data if data is not None else OSError(f"row {row} holds no bytes")

    def _batches(self, column: str, chosen: set[int]) -> Iterator[tuple[int, Any]]:
        """Yield (first row, values) of one row group after another, without those groups of which no row is wanted."""
        row = 0
        with self._file() as file:
            for group in range(file.num_row_groups):
                end = row + file.metadata.row_group(group).num_rows
                if not chosen.isdisjoint(range(row, end)):
                    for batch in file.iter_batches(ROWS, [group], [column], use_threads=False):
                        yield row, batch.column(0)
                        row += batch.num_rows
                row = end

    @contextmanager
    def _file(self) -> Iterator[Any]:
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=BUFFER) as file:
                yield file
        except SightlineError:
            raise
        except Exception as error:  # pyarrow raises nearly anything on broken files
            reason = " ".join(str(error).split())
            raise DataError(
                f"{self.location} cannot be read as a Parquet file ({reason}); download or write it again."
            ) from error


def _features(metadata: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """Return what Hugging Face says of each column: ``{"label": {"_type": "ClassLabel", "names": [...]}}``."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


class ParquetSource(ManifestSource):
    """A Parquet file with a column of labels, and one of paths or of images, and optionally ``split`` and ``group``.

    With paths it is a manifest like a CSV file, with the same rules; else it holds the images itself.
    """

    def __init__(self, path: Path) -> None:
        require("pyarrow", "parquet", f"the Parquet file {path}")
        super().__init__(path)

    def fingerprint(self) -> str:
        if self._images(self._table()) is None:
            return super().fingerprint()
        return digest([RULES, size_and_time(self.path)])

    def scan(self) -> Listing:
        if self._images(self._table()) is None:
            return super().scan()
        return list_rows(self._rows(labeled=True), Row.named, self.location, self.least)

    def files(self) -> list[Entry]:
        if self._images(self._table()) is None:
            return super().files()
        return [Entry(row.named(), "") for row in self._rows(labeled=False)]

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, Image]]:
        table = self._table()
        images = self._images(table)
        if images is None:
            yield from super().read(entries)
            return
        index_of = {int(entry.path.rpartition("/")[2]): index for index, entry in enumerate(entries)}
        for row, data in table.images(images, sorted(index_of)):
            yield index_of[row], data

    def _table(self) -> ImageTable:
        return ImageTable(self.path, self.what)

    def _images(self, table: ImageTable) -> str | None:
        """Return the column that holds images, if one does."""
        column = next((name for name in table.types if name.lower() in IMAGES and not table.is_text(name)), None)
        if column is not None and "path" in table.types:
            raise DataError(f"{table.location} has the columns {column} and path; leave one of them out.")
        return column

    def _rows(self, *, labeled: bool) -> Iterator[Row]:
        table = self._table()
        header = Table(self.what, list(table.types), lambda: iter(()))
        columns = {name: choose(header, ((name,),)) for name in ("split", "group")}
        if labeled:
            columns["label"] = choose(header, LABELS)
            if columns["label"] is None:
                table.column("labels", *itertools.chain(*LABELS))
        images = self._images(table)
        if images is None:
            columns["path"] = choose(header, PATHS)
            if columns["path"] is None:
                table.column("images or of their paths", "image", "path")
        names = {name: header.columns[index] for name, index in columns.items() if index is not None}
        cells: dict[str, list[str | None]] = {name: table.texts(column) for name, column in names.items()}
        if images is not None:
            cells["path"] = [f"{self.path.name}/{row:08d}" for row in range(table.rows)]
        for row, values in enumerate(zip(*cells.values(), strict=True)):
            yield Row(self.what, f"row {row}", **dict(zip(cells, values, strict=True)))  # type: ignore[arg-type]
