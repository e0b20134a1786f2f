"""Files that a kill never leaves half written, and tables in which no spreadsheet finds a formula."""

import errno
import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sightline.errors import StorageError
from sightline_runtime.writing import (
    finite,
    is_broken_pipe,
    is_stream,
    plain_text,
    rename,
    safe_cell,
    to_bytes,
    write_rows,
    write_whole,
)

__all__ = [
    "create_folder",
    "finite",
    "is_stream",
    "plain_text",
    "rename",
    "safe_cell",
    "storage_error",
    "to_bytes",
    "to_json",
    "write_atomically",
    "write_csv",
    "write_json",
    "write_rows",
]


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

    A link stays one, and what it points to is written. A device or a pipe is written to, and never replaced.

    Args:
        path: of the file.
        content: all of it.
        sync: wait for the disk, so that the file outlives a power cut; without, only a kill.
    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    try:
        write_whole(path, content, sync=sync)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a cycle, before Python 3.13
        if isinstance(error, OSError) and is_broken_pipe(error):
            raise  # the reader has seen enough
        raise storage_error(path.parent, error) from error


def write_json(path: Path, value: Any) -> None:
    """Write plain values as indented JSON."""
    write_atomically(path, (to_json(value, indent=2) + "\n").encode())


def to_json(value: Any, indent: int | None = None) -> str:
    """Return plain values as JSON that any reader takes: null for what is not finite, and only UTF-8."""
    text = json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()  # a file name that is no UTF-8 becomes \udc80 to \udcff


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table whose text cells a spreadsheet shows and never runs."""
    text = io.StringIO(newline="")
    write_rows(text, header, rows)
    write_atomically(path, to_bytes(text.getvalue()))


def storage_error(folder: Path, error: OSError | RuntimeError) -> StorageError:
    """Return the error of a write that failed, with its sentence."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"the disk of {folder} is full; free space, then run it again (a training goes on with --resume)."
        )
    reason = (isinstance(error, OSError) and error.strerror) or error
    if sys.platform == "win32" and isinstance(error, PermissionError):
        reason = f"{reason}, as where another program has a file in it open"
    return StorageError(f"{folder} cannot be written ({reason}); choose another folder or mend its permissions.")
