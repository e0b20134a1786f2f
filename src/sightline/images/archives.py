"""A folder of images packed as an archive, which is streamed and never unpacked to disk. Nothing here loads torch."""

import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from sightline.errors import DataError
from sightline.images.formats import HEAD
from sightline.images.layout import Entry, Listing, is_hidden, is_image_name, lay_out
from sightline.images.sources import digest

__all__ = ["ARCHIVE_SUFFIXES", "TarSource", "ZipSource"]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")


class _ArchiveSource:
    """What ``.zip`` and ``.tar`` share: known by the archive's own size and time, laid out like a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name[: -len(next(end for end in ARCHIVE_SUFFIXES if path.name.lower().endswith(end)))]
        self.location = str(path.resolve())
        self._beginnings: dict[str, bytes] = {}  # of the files whose names do not tell whether they are images

    def begin(self, name: str) -> bytes:
        """The first bytes of a file, by which its format is known; none before the names are listed."""
        return self._beginnings.get(name, b"")

    def _note_beginning(self, name: str, read: Callable[[], IO[bytes] | None]) -> None:
        if is_image_name(name) or is_hidden(name):
            return
        try:
            with read() or io.BytesIO() as file:
                self._beginnings[name] = file.read(HEAD)
        except Exception:  # whatever a damaged member makes the parsers raise
            self._beginnings[name] = b""

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
                    name = self._checked(member.filename, link=link)
                    (folders if member.is_dir() else files).append(name)
                    if not member.is_dir():
                        self._note_beginning(name, partial(archive.open, member))
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, UnicodeDecodeError) as error:
            raise self._broken(error) from error
        return sorted(set(files)), folders

    def scan(self) -> Listing:
        return lay_out(*self.names(), self.location, begin=self.begin)

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
        for archive, member in self._members():
            name = self._checked(member.name, link=member.issym() or member.islnk())
            if member.isdir():
                folders.append(name)
            elif member.isfile():
                files.append(name)
                self._note_beginning(name, partial(archive.extractfile, member))
        return list(dict.fromkeys(files)), folders

    def scan(self) -> Listing:
        return lay_out(*self.names(), self.location, begin=self.begin)

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
