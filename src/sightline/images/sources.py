"""The kinds of image set on a disk: a folder, an archive or a manifest, read in place.

A source lists its files once (``scan``), hands out their bytes in its own order (``read``), and changes its
``fingerprint`` when any file changes. Archives are streamed, never unpacked to disk. Nothing here loads torch.
"""

import csv
import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sightline.errors import DataError
from sightline.images.layout import (
    SPLIT_NAMES,
    Entry,
    Listing,
    check_labels,
    lay_out,
)
from sightline.writing import plain_text

__all__ = [
    "ARCHIVE_SUFFIXES",
    "DownloadedSource",
    "FolderSource",
    "ImageSource",
    "ManifestSource",
    "TarSource",
    "ZipSource",
    "digest",
    "read_files",
]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")


class ImageSource(Protocol):
    """A set of image files. ``read`` yields (index into the entries, bytes or decoded pixels), each entry once."""

    name: str
    location: str

    def fingerprint(self) -> str: ...
    def scan(self) -> Listing: ...
    def read(self, entries: list[Entry]) -> Iterator[tuple[int, "bytes | np.ndarray[Any, Any] | OSError"]]: ...


@runtime_checkable
class DownloadedSource(Protocol):
    """A source that is not on this machine before it is first read."""

    def download(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Have the set's files on the disk; ``progress`` is called with (megabytes done, megabytes in all)."""


# ── the kinds of source ──────────────────────────────────────────────────────────────────────────────────────────────


class FolderSource:
    """A folder of class folders, with or without ``train/``, ``val/`` and ``test/`` above them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().name
        self.location = str(path.resolve())

    def fingerprint(self) -> str:
        lines = []
        for name, folder in _walk(self.path):
            if not folder:
                status = os.stat(self.path / name)
                lines.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
        return digest(sorted(lines))

    def names(self) -> tuple[list[str], list[str]]:
        """Names of (files, folders) below the folder."""
        found = list(_walk(self.path))
        return sorted(name for name, folder in found if not folder), [name for name, folder in found if folder]

    def scan(self) -> Listing:
        return lay_out(*self.names(), self.location)

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        yield from read_files(self.path, entries)


class ManifestSource:
    """A CSV file with the columns ``path`` and ``label``, and optionally ``split`` and ``group``.

    Paths are relative to the manifest and stay below its folder. A row may name a file again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().stem
        self.location = str(path.resolve())
        self.root = path.resolve().parent

    def fingerprint(self) -> str:
        lines = [hashlib.sha256(self.path.read_bytes()).hexdigest()]
        for name in sorted({entry.path for entry in self.scan().entries}):
            try:
                status = os.stat(self.root / name)
                lines.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
            except OSError:
                lines.append(f"{name}\0missing")
        return digest(lines)

    def scan(self) -> Listing:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                columns = reader.fieldnames or []
                missing = [column for column in ("path", "label") if column not in columns]
                if missing:
                    raise DataError(
                        f"manifest {self.path} has no column {' and no column '.join(map(repr, missing))}"
                        f" (found: {', '.join(columns) or 'nothing'}); its first line must name path,label[,split][,group]."
                    )
                entries = [self._entry(row, f"line {reader.line_num}") for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"manifest {self.path} is no UTF-8 CSV file ({error}); save it as one.") from error
        except OSError as error:
            raise DataError(
                f"manifest {self.path} cannot be read ({error.strerror}); change its permissions."
            ) from error
        check_labels([entry.label for entry in entries], self.location)
        return Listing(entries, Counter())

    def _entry(self, row: dict[str, str | None], place: str) -> Entry:
        path, label = (plain_text((row[name] or "").strip()) for name in ("path", "label"))  # as ours are written
        path = path.replace("\\", "/")
        split, group = (row.get("split") or "").strip(), (row.get("group") or "").strip()
        where = f"manifest {self.path}, {place}"
        if not path or not label:
            raise DataError(
                f"{where}: the {'label' if path else 'path'} is empty; fill it in or delete the {place.split()[0]}."
            )
        inside = os.path.normpath(self.root / path)
        if not inside.startswith(str(self.root) + os.sep):
            raise DataError(
                f"{where}: {path!r} lies outside the manifest's folder; move the manifest above its images."
            )
        if split and split.lower() not in SPLIT_NAMES:
            raise DataError(f"{where}: unknown split {split!r}; wanted train, val, test or nothing.")
        return Entry(
            os.path.relpath(inside, self.root).replace(os.sep, "/"),
            label,
            SPLIT_NAMES.get(split.lower()),
            group or None,
        )

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        yield from read_files(self.root, entries)


class _ArchiveSource:
    """What ``.zip`` and ``.tar`` share: known by the archive's own size and time, laid out like a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name[: -len(next(end for end in ARCHIVE_SUFFIXES if path.name.lower().endswith(end)))]
        self.location = str(path.resolve())

    def fingerprint(self) -> str:
        status = os.stat(self.path)
        return digest([f"{status.st_size}\0{status.st_mtime_ns}"])

    def _checked(self, name: str, *, link: bool) -> str:
        """A member's name, refused where unpacking it could write outside a folder."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":") or link:
            what = "is a link" if link else "points outside the archive"
            raise DataError(
                f"archive {self.path} is refused: its member {name!r} {what}; pack plain files below one folder."
            )
        return "/".join(part for part in parts if part != ".")

    def _broken(self, error: Exception) -> DataError:
        return DataError(f"archive {self.path} cannot be read ({error}); download or pack it again.")


class ZipSource(_ArchiveSource):
    """A folder packed as ``.zip``."""

    def names(self) -> tuple[list[str], list[str]]:
        """Names of (files, folders) in the archive, every member checked."""
        files: list[str] = []
        folders: list[str] = []
        try:
            with zipfile.ZipFile(self.path) as archive:
                for member in archive.infolist():
                    link = stat.S_ISLNK(member.external_attr >> 16)
                    (folders if member.is_dir() else files).append(self._checked(member.filename, link=link))
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, UnicodeDecodeError) as error:
            raise self._broken(error) from error
        return sorted(set(files)), folders

    def scan(self) -> Listing:
        return lay_out(*self.names(), self.location)

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        with zipfile.ZipFile(self.path) as archive:
            names = {self._checked(member.filename, link=False): member for member in archive.infolist()}
            for index, entry in enumerate(entries):
                try:
                    yield index, archive.read(names[entry.path])
                except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
                    yield index, OSError(f"cannot be unpacked: {error}")


class TarSource(_ArchiveSource):
    """A folder packed as ``.tar``, ``.tar.gz`` or ``.tar.xz``; read from front to back."""

    def names(self) -> tuple[list[str], list[str]]:
        """Names of (files, folders) in the archive, every member checked, in its order."""
        files: list[str] = []
        folders: list[str] = []
        for _, member in self._members():
            name = self._checked(member.name, link=member.issym() or member.islnk())
            if member.isdir():
                folders.append(name)
            elif member.isfile():
                files.append(name)
        return list(dict.fromkeys(files)), folders

    def scan(self) -> Listing:
        return lay_out(*self.names(), self.location)

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        index_of = {entry.path: index for index, entry in enumerate(entries)}
        for archive, member in self._members():
            index = index_of.pop(self._checked(member.name, link=False), None) if member.isfile() else None
            if index is not None:
                file = archive.extractfile(member)
                assert file is not None
                yield index, file.read()
                if not index_of:
                    return

    def _members(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        try:
            with tarfile.open(self.path, "r|*", tarinfo=_Header) as archive:
                for member in archive:
                    yield archive, member
                    archive.members = []  # type: ignore[attr-defined]  # tarfile remembers every member; a million of them would fill the memory
        except (tarfile.TarError, EOFError, OSError) as error:
            raise self._broken(error) from error


class _Header(tarfile.TarInfo):
    """A member's header. ``tarfile`` takes a broken or missing one for the end; here only the mark of the end ends."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(f"{error} before the mark of its end: broken or truncated") from error


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _walk(root: Path) -> Iterator[tuple[str, bool]]:
    """Names below a folder and whether each is a folder; links to folders are not followed, in no fixed order."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(root / prefix) as found:
                for item in found:
                    name = f"{prefix}/{item.name}" if prefix else item.name
                    if item.is_dir(follow_symlinks=False):
                        pending.append(name)
                        yield name, True
                    elif item.is_file():
                        yield name, False
        except PermissionError as error:
            raise DataError(
                f"folder {root / prefix} cannot be read ({error.strerror}); change its permissions."
            ) from error


def read_files(root: Path, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
    for index, entry in enumerate(entries):
        try:
            yield index, (root / entry.path).read_bytes()
        except OSError as error:
            yield index, error


def digest(lines: list[str]) -> str:
    """A fingerprint of lines of text."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
