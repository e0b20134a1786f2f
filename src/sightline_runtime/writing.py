"""Files that a kill never leaves half written, and tables in which no spreadsheet finds a formula."""

import csv
import errno
import math
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

__all__ = [
    "finite",
    "is_broken_pipe",
    "is_stream",
    "plain_text",
    "rename",
    "safe_cell",
    "to_bytes",
    "write_rows",
    "write_whole",
]

BUSY = 5.0  # seconds to wait on Windows for a program that has a file open, such as a virus scanner
LINKS = 40  # links that point to one another, before they count as a cycle
_DESCRIPTOR = re.compile(r"/(?:proc/(\d+)|dev)/fd/(\d+)")
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would run


def write_whole(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file so that it appears under its name only when whole: beside, synced, renamed.

    A link stays one, and what it points to is written. A device or a pipe is written to, and never replaced.

    Args:
        path: of the file.
        content: all of it.
        sync: wait for the disk, so that the file outlives a power cut; without, only a kill.
    Raises:
        OSError: the disk is full or the folder cannot be written.
        RuntimeError: links in a cycle, before Python 3.13.
    """
    descriptor = _open_stream(path)
    if descriptor is None:
        _replace(path.resolve() if path.is_symlink() else path, content, sync)
    else:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)


def is_broken_pipe(error: OSError) -> bool:
    """Tell whether the reader of a pipe is gone, which Windows calls an invalid argument of no file."""
    if isinstance(error, BrokenPipeError):
        return True
    return sys.platform == "win32" and error.errno == errno.EINVAL and error.filename is None


def is_stream(path: Path) -> bool:
    """Tell whether a path is a device, a pipe, or what this process has open, such as ``/dev/stdout``."""
    if _own_descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _open_stream(path: Path) -> int | None:
    """Open a device or a pipe to write to it; None for a path of a file, there or not."""
    if not is_stream(path):
        return None
    own = _own_descriptor(path)
    if own is None:
        return os.open(path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0))
    for file in filter(None, (sys.stdout, sys.stderr)):
        file.flush()  # what was printed comes first
    return os.dup(own)  # opened anew it would write over what a file has from its beginning


def _own_descriptor(path: Path) -> int | None:
    """Return the number of the open file that a path, or a link, stands for: ``/dev/stdout``, ``/dev/fd/3``."""
    text = os.path.abspath(path)
    try:
        for _ in range(LINKS):
            folder, name = os.path.split(text)
            text = os.path.join(os.path.realpath(folder), name)
            match = _DESCRIPTOR.fullmatch(text)
            if match and match[1] in (None, str(os.getpid())):
                return int(match[2])
            text = os.path.normpath(os.path.join(os.path.dirname(text), os.readlink(text)))
    except (OSError, ValueError):  # no link
        pass
    return None


def _replace(path: Path, content: bytes, sync: bool) -> None:
    """Write beside a file and rename over it; the new file has the mode of the old one, or that of the umask."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.partial")  # a name may be as long as any can be
    try:
        with open(temporary, "xb") as file:
            if path.exists():
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        rename(temporary, path)
    except BaseException:  # after Ctrl-C, too
        temporary.unlink(missing_ok=True)
        raise


def rename(source: Path, target: Path) -> None:
    """Rename a file, over another one where there is one, or a folder to a name that is free.

    Windows refuses while any program has one of them open: it is asked again for some seconds.

    Raises:
        OSError: as ``os.replace`` raises it.
    """
    until = time.monotonic() + BUSY
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() >= until:
                raise
            time.sleep(BUSY / 100)


def finite(value: Any) -> Any:
    """Return the same plain values, with None for each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def to_bytes(text: str) -> bytes:
    """Return a text in UTF-8, with the original bytes of names that are not UTF-8; other lone surrogates as they
    are.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # JSON may hold them, as \\ud83d
        return text.encode("utf-8", "surrogatepass")


def write_rows(file: TextIO, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV to an open file; the cell of a number that is not finite is empty."""
    writer = csv.writer(file, lineterminator="\n")
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(header)
    for row in rows:
        cells = [safe_cell(cell) if isinstance(cell, str) else finite(cell) for cell in row]
        # returns are not quoted before Python 3.13, and readers of tables skip blanks before a cell without quotes
        quoted = any(isinstance(cell, str) and ("\r" in cell or cell[:1] == " ") for cell in cells)
        (quoting if quoted else writer).writerow(cells)


def safe_cell(text: str) -> str:
    """Return text that no spreadsheet runs: an apostrophe goes before a leading ``= + - @``, tab or return, and before
    apostrophes that lead such text already, so that ``plain_text`` tells the two apart.
    """
    return f"'{text}" if text.lstrip("'").startswith(FORMULAS) else text


def plain_text(cell: str) -> str:
    """Return the text that ``safe_cell`` was called with."""
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'").startswith(FORMULAS) else cell
