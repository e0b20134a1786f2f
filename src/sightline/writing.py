"""Files that a kill never leaves half written, and tables in which no spreadsheet finds a formula."""

import csv
import errno
import io
import json
import math
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from sightline.errors import StorageError

__all__ = [
    "create_folder",
    "finite",
    "plain_text",
    "safe_cell",
    "storage_error",
    "to_json",
    "write_atomically",
    "write_csv",
    "write_json",
    "write_rows",
]

FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would run


def create_folder(folder: Path) -> None:
    """Make a folder, and those around it, unless it is there.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error


def write_atomically(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file so that it appears under its name only when whole: beside, synced, renamed.

    Args:
        path: of the file.
        content: all of it.
        sync: wait for the disk, so that the file outlives a power cut; without, only a kill.
    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with temporary.open("xb") as file:  # with the rights that the umask leaves, unlike those of tempfile
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(path.parent, error) from error
    finally:  # after Ctrl-C, too
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write plain values as indented JSON."""
    write_atomically(path, (to_json(value, indent=2) + "\n").encode())


def to_json(value: Any, indent: int | None = None) -> str:
    """Plain values as JSON that any reader takes: null for what is not finite, and no byte that is not UTF-8."""
    text = json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()  # a file name that is no UTF-8 becomes \udc80 to \udcff


def finite(value: Any) -> Any:
    """The same plain values, with None for each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table whose text cells a spreadsheet shows and never runs."""
    text = io.StringIO(newline="")
    write_rows(text, header, rows)
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))


def write_rows(file: TextIO, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV to an open file; the cell of a number that is not finite is empty."""
    writer = csv.writer(file, lineterminator="\n")
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(header)
    for row in rows:
        cells = [safe_cell(cell) if isinstance(cell, str) else finite(cell) for cell in row]
        returns = any(isinstance(cell, str) and "\r" in cell for cell in cells)  # not quoted before Python 3.13
        (quoting if returns else writer).writerow(cells)


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe goes before a leading ``= + - @``, tab or return."""
    return f"'{text}" if text[:1] in FORMULAS else text


def plain_text(cell: str) -> str:
    """What ``safe_cell`` was given."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in FORMULAS else cell


def storage_error(folder: Path, error: OSError) -> StorageError:
    """The sentence for a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"the disk of {folder} is full; free space, then run it again (a training goes on with --resume)."
        )
    return StorageError(
        f"{folder} cannot be written ({error.strerror or error}); choose another folder or mend its permissions."
    )
