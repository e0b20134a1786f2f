"""Fetch published files: whole, with the right checksum, or not at all. Nothing here knows what is in them.

A file arrives as ``NAME.partial`` and gets its name when its SHA-256 is right, so a kill or a broken connection leaves
nothing that is taken for whole; a second start goes on where the first stopped. A file that was put there by hand is
held to the same checksum.
"""

import hashlib
import http.client
import os
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from sightline.errors import DataError, StorageError
from sightline.machine.patience import within
from sightline.runs.writing import rename

__all__ = ["PATIENCE", "PublishedFile", "ask_for", "check_space", "fetch", "reachable"]

CONNECT_SECONDS = 5.0  # until a server has answered; looking its name up included
READ_SECONDS = 30.0  # without a single byte
PATIENCE = 1.0  # seconds that a host of weights may take to take a connection
_BLOCK = 1 << 18  # bytes read at once
_SPARE_BYTES = 64 << 20  # left free on the disk

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PublishedFile:
    """A file that others publish, and how to know it."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    urls: tuple[str, ...]
    """Where it is published, tried in this order."""


class _FetchError(Exception):
    """One address did not give the file; the message is the reason."""


def fetch(files: tuple[PublishedFile, ...], folder: Path, progress: Progress | None = None) -> None:
    """Have files in a folder, downloading those that are not there yet.

    Args:
        files: what is wanted.
        folder: where; made if need be. One process at a time downloads into it, the others wait.
        progress: called with (megabytes done, megabytes in all).
    Raises:
        DataError: no address gives a file, or the one that is there has the wrong checksum.
        StorageError: the disk has too little space.
        OSError: the folder cannot be written.
    """
    total = sum(file.size for file in files)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        missing = sum(file.size for file in files if not (folder / file.name).exists())
        begun = sum(part.stat().st_size for part in folder.glob("*.partial"))
        check_space(folder, missing - begun, f"the download of {folder.name}", "free space or set SIGHTLINE_CACHE")
        before = 0
        for file in files:

            def report(done: int, before: int = before) -> None:
                if progress:
                    progress((before + done) // 1_000_000, max(1, total // 1_000_000))

            _fetch(file, folder, report)
            before += file.size


def check_space(folder: Path, size: int, what: str, remedy: str) -> None:
    """Refuse to begin what the disk of a folder cannot hold.

    Raises:
        StorageError: fewer than ``size`` bytes (and a little) are free.
    """
    free = shutil.disk_usage(folder).free
    if size > 0 and size + _SPARE_BYTES > free:
        raise StorageError(f"{what} needs {size / 1e9:.2f} GB and {folder} has {free / 1e9:.2f} GB free; {remedy}.")


def reachable(url: str, seconds: float) -> bool:
    """Return whether the host of a URL, or the proxy on the way to it, takes a connection within some seconds."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    address = (parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))
    try:
        within(seconds, lambda: socket.create_connection(address, timeout=seconds).close())
    except OSError:
        return False
    return True


def ask_for(url: str, seconds: float) -> None:
    """Ask a host for a file without fetching it.

    Raises:
        OSError: it does not have it, or has not answered within some seconds.
    """
    request = urllib.request.Request(url, method="HEAD")
    within(seconds, lambda: urllib.request.urlopen(request, timeout=seconds).close())


def _fetch(file: PublishedFile, folder: Path, report: Callable[[int], None]) -> None:
    whole, partial = folder / file.name, folder / f"{file.name}.partial"
    if whole.exists():
        checksum = _sha256(whole)
        if checksum != file.sha256:
            raise DataError(
                f"{whole} is not the published file: its SHA-256 is {checksum[:16]}..., wanted {file.sha256[:16]}...;"
                " delete it and start again."
            )
        report(file.size)
        return
    reasons = []
    for url in file.urls:
        try:
            _receive(url, file, partial, report)
        except _FetchError as error:
            reasons.append(f"{urlsplit(url).netloc}: {error}")
        else:
            rename(partial, whole)
            return
    raise DataError(
        f"{folder.name} needs {file.name} ({file.size / 1e6:.1f} MB), which could not be downloaded"
        f" ({'; '.join(reasons)}); start again with a connection, or put the file {file.name} into {folder} by hand"
        f" (it is published at {file.urls[0]})."
    )


def _receive(url: str, file: PublishedFile, partial: Path, report: Callable[[int], None]) -> None:
    """Bring ``partial`` to its full size and check it; what had arrived before is kept where the server can go on."""
    begun = partial.stat().st_size if partial.exists() else 0
    if begun < file.size:
        with _ask(url, begun) as answer:
            goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT
            expected = file.size - (begun if goes_on else 0)
            length = answer.headers.get("Content-Length")
            if length is not None and int(length) != expected:
                raise _FetchError(f"offers {int(length):,} bytes instead of {expected:,}")
            with partial.open("ab" if goes_on else "wb") as out:
                while out.tell() <= file.size and (block := _read(answer)):
                    out.write(block)
                    report(out.tell())
                out.flush()
                os.fsync(out.fileno())
    size = partial.stat().st_size
    if size < file.size:
        raise _FetchError(f"broke off at {size:,} of {file.size:,} bytes, which are kept")
    checksum = _sha256(partial)
    if checksum != file.sha256:
        partial.unlink()
        raise _FetchError(f"sent another file: its SHA-256 is {checksum[:16]}..., wanted {file.sha256[:16]}...")


def _ask(url: str, begun: int) -> Any:
    """Open an address, from a byte on."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        return within(CONNECT_SECONDS, lambda: urllib.request.urlopen(request, timeout=READ_SECONDS))
    except urllib.error.HTTPError as error:
        raise _FetchError(f"answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _FetchError(getattr(error.reason, "strerror", None) or str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _FetchError(str(error) or type(error).__name__) from error


def _read(answer: Any) -> bytes:
    try:
        return bytes(answer.read(_BLOCK))
    except http.client.IncompleteRead as error:
        return error.partial
    except (OSError, http.client.HTTPException):
        return b""  # broken off: the size tells


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
