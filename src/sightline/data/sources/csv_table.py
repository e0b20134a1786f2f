"""Read a table of text as it comes: separator, encoding and byte-order mark are found out. Nothing here loads torch.

Separated values (comma, semicolon, tab, bar) in UTF-8, UTF-16 or UTF-32, and JSON lines. A row that does not fit its
header is refused with its line: a comma that was not quoted would move every cell behind it.
"""

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.config.checks import shown
from sightline.errors import DataError
from sightline_runtime.files import read_regular

__all__ = [
    "LABELS",
    "PATHS",
    "TABLE_SUFFIXES",
    "Table",
    "choose",
    "decode_text",
    "is_json_lines",
    "is_table",
    "read_manifest_file",
    "read_table",
]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
PATHS = (
    ("path",),
    ("file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_name", "img", "img_path"),
    ("image_id",),
    ("id",),
)
"""Names of the column of paths; those that come first win, and two of the same rank are refused."""
LABELS = (("label",), ("class", "target", "category", "class_name"))
"""Names of the column of labels."""
SEPARATORS = (",", ";", "\t", "|")
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LARGEST_TABLE = 1 << 30  # bytes


@dataclass(frozen=True)
class Table:
    """The header of a table, and its rows."""

    what: str
    """How messages name it."""
    columns: list[str]
    rows: Callable[[], Iterator[tuple[int, Sequence[Any]]]]
    """Yields (line, cells) of each row that is not blank; a row has as many cells as there are columns."""
    first_line: str = ""

    def records(self, chosen: Mapping[str, int]) -> Iterator[tuple[str, dict[str, str | None]]]:
        """Yield (place, {name: cell}) of each row, for some columns by their index.

        Raises:
            DataError: a row does not fit the header, or one of the cells is no text; its line is named.
        """
        for line, cells in self.rows():
            place = f"line {line}"
            yield place, {name: _text(cells[index], f"{self.what}, {place}") for name, index in chosen.items()}


def read_table(data: bytes, what: str, *, lines: bool = False, errors: str = "strict", whole: bool = False) -> Table:
    """Read a table.

    Args:
        data: the bytes of the file.
        what: how messages name it.
        lines: whether it is JSON lines, one object a line.
        errors: how bytes that are no UTF-8 are taken, as ``bytes.decode`` has it.
        whole: refuse rows of fewer cells than the header and a last line without an end: the file may be cut off.
    Raises:
        DataError: it is no text, or its header cannot be read.
    """
    text = decode_text(data, what, errors)
    if lines:
        rows = list(_objects(text, what))
        columns = list(dict.fromkeys(name for _, row in rows for name in row))
        return Table(
            what, columns, lambda: ((line, [row.get(name) for name in columns]) for line, row in rows), text[:200]
        )
    start = 0
    declared = re.match(r'[\s]*"?sep=(.)"?\r?\n', text, re.IGNORECASE)  # how Excel is told
    if declared:
        start, separator = declared.end(), declared[1]
    else:
        separator = _separator(text, what)
    before = text.count("\n", 0, start)

    def read() -> Iterator[tuple[int, list[str]]]:
        return _cells(text[start:], separator, before, what)

    header = next(read(), None)
    columns = [] if header is None else [cell.strip() for cell in header[1]]
    if whole and text and not text.endswith(("\n", "\r")):
        raise DataError(
            f"{what} has no end of line behind its last line, so it may be cut off; copy it again, or, if nothing is"
            " missing, end it with a line break."
        )
    return Table(what, columns, lambda: _fitting(read(), columns, separator, what, whole), text[start:].lstrip()[:200])


def choose(table: Table, ranks: Sequence[Sequence[str]]) -> int | None:
    """Find the column that goes by one of the usual names, in any case; None where none does.

    Args:
        table: whose columns.
        ranks: the names, those that win first.
    Raises:
        DataError: several columns could be meant.
    """
    for names in ranks:
        matches = [index for index, column in enumerate(table.columns) if _normal(column) in names]
        if len(matches) > 1:
            columns = " and ".join(shown(table.columns[index]) for index in matches)
            raise DataError(
                f"{table.what} has the columns {columns}, and only one can be meant; name that one {ranks[0][0]!r}, or"
                " delete the others."
            )
        if matches:
            return matches[0]
    return None


def is_json_lines(path: Path) -> bool:
    """Return whether a file's name says that it holds an object a line."""
    return path.suffix.lower() in (".jsonl", ".ndjson")


def is_table(path: str | os.PathLike[str]) -> bool:
    """Return whether a file's name says that it is a table, or a ``.txt`` file has the header of one."""
    name = os.fspath(path).lower()
    if name.endswith(TABLE_SUFFIXES):
        return True
    if not name.endswith(".txt"):
        return False
    try:
        head = read_regular(path, LARGEST_TABLE)[:4096]
        table = read_table(head, name, errors="replace")
        return len(table.columns) > 1 and choose(table, PATHS) is not None and choose(table, LABELS) is not None
    except (OSError, DataError):
        return False


def _normal(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().casefold())


def decode_text(data: bytes, what: str, errors: str = "strict") -> str:
    """Decode text by its byte-order mark, or as UTF-16 or UTF-8 by its bytes.

    Raises:
        DataError: it is neither; the line is named.
    """
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), None)
    if encoding is None:
        head = data[:4096]
        odd, even = head[1::2].count(0), head[::2].count(0)
        encoding = "utf-8"
        if max(odd, even) > len(head) // 4:  # Latin letters in UTF-16: every other byte is 0
            encoding = "utf-16-le" if odd > even else "utf-16-be"
    try:
        return data.decode(encoding, errors if encoding.startswith("utf-8") else "strict")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{what} is no {encoding[:6].rstrip('-').upper()} CSV file (line {line} holds the byte"
            f" 0x{data[error.start]:02x}); save it as one, as `CSV UTF-8` in Excel."
        ) from error


def _separator(text: str, what: str) -> str:
    """Return the separator by which the header has the most names that are known, then the most cells."""
    known = {name for ranks in (PATHS, LABELS, (("split", "group"),)) for names in ranks for name in names}
    best, refused = (-1, -1, ""), None
    for separator in SEPARATORS:
        try:
            _, cells = next(_cells(text, separator, 0, what), (0, []))
        except DataError as error:
            refused = refused or error
            continue
        score = sum(_normal(cell) in known for cell in cells), len(cells)
        if score > best[:2]:
            best = (*score, separator)
    if not best[2]:
        assert refused is not None
        raise refused
    return best[2]


def _cells(text: str, separator: str, line: int, what: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of each row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    begun = line + 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield begun, row
            begun = line + reader.line_num + 1
    except csv.Error as error:
        reason = str(error)
        if "field limit" in reason:
            reason = f"a cell of more than {csv.field_size_limit():,} letters"
        elif "unexpected end of data" in reason:
            reason = "a quote that begins there does not end"
        raise DataError(f"{what}, line {begun}: no row of CSV ({reason}); mend or delete the line.") from error


def _fitting(
    rows: Iterator[tuple[int, list[str]]], columns: list[str], separator: str, what: str, whole: bool
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows behind the header, each filled up to its length unless only whole ones are taken."""
    next(rows, None)
    for line, cells in rows:
        if whole and len(cells) < len(columns):
            raise DataError(
                f"{what}, line {line}: {len(cells)} cells, and the first line names {len(columns)} columns; mend or"
                " delete the line."
            )
        extra = [cell for cell in cells[len(columns) :] if cell.strip()]
        if extra:
            name = {"\t": "tab"}.get(separator, repr(separator))
            raise DataError(
                f"{what}, line {line}: {len(cells)} cells, and the first line names {len(columns)} columns"
                f" ({shown(separator.join(cells))}); put cells that hold a {name} in quotes."
            )
        yield line, cells[: len(columns)] + [""] * (len(columns) - len(cells))


def _objects(text: str, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, object) of each line of JSON."""
    for line, part in enumerate(text.split("\n"), 1):
        if not part.strip():
            continue
        try:
            value = json.loads(part)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{what}, line {line}: no JSON ({error}); mend or delete the line.") from error
        if not isinstance(value, dict):
            raise DataError(f"{what}, line {line}: {shown(part.strip())} is no JSON object; wanted {{...}} a line.")
        yield line, value


def _text(value: Any, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    raise DataError(f"{where}: {shown(json.dumps(value))} is no text and no number; wanted one value a row.")


def read_manifest_file(path: Path, what: str, errors: str = "strict") -> Table:
    """Read a table from a file on the disk.

    Raises:
        DataError: it cannot be read, or is no table.
    """
    try:
        data = read_regular(path, LARGEST_TABLE)
    except OSError as error:
        raise DataError(f"{what} cannot be read ({error.strerror or error}); change its permissions.") from error
    return read_table(data, what, lines=is_json_lines(path), errors=errors)
