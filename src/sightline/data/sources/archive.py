"""A folder of images packed as an archive, which is streamed and never unpacked to disk. Nothing here loads torch.

An archive comes from a stranger: a few bytes of it can claim or unpack to more than any memory holds. So each member is
bounded in bytes and in how far it expands, and so are all of them together. ``tarfile``'s own filters guard an
unpacking to disk and mend what they find (a leading slash); here nothing is unpacked, and such a member is refused.
"""

import bz2
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from sightline.config.checks import shown
from sightline.data.sources.entries import Entry, LeftOut, is_hidden, is_image_name
from sightline.data.sources.source import FileTree, digest, size_and_time
from sightline.errors import DataError, SightlineError
from sightline_runtime.decoding.formats import HEAD

__all__ = ["ARCHIVE_SUFFIXES", "TarSource", "ZipSource"]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")
MEMBER_BYTES = 512 << 20  # of one member that is read; 100 megapixels without any compression are 300 MB
MEMBER_RATIO = 100  # unpacked bytes for each packed one of a member above FREE_BYTES; of photographs it is about 1
FREE_BYTES = 16 << 20
TOTAL_RATIO = 100  # the same of all members together, above TOTAL_FREE_BYTES
TOTAL_FREE_BYTES = 256 << 20
HEADER_BYTES = 1 << 20  # of the names and attributes of one member of a tar
REASON = 200  # letters of what a parser says, which may repeat the name of a member
EXTENDED = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
UTF8_NAME, ENCRYPTED = 0x800, 0x1  # flags of a member of a zip
METHODS = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 97: "WavPack", 98: "PPMd", 99: "AES"}
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
PIECE = 4096  # bytes: what LZMA makes of so few fits the memory
STREAMS = {b"\x1f\x8b": "r|gz", b"\xfd7zXZ": "r|xz", b"\x5d\x00\x00\x80": "r|xz"}
UNBOUNDED = {
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}  # tarfile unpacks a piece of these to any length at once


class _ArchiveSource(FileTree):
    """Base of ``.zip`` and ``.tar``: known by the archive's own size and time, laid out like a folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, path.name[: -len(next(end for end in ARCHIVE_SUFFIXES if path.name.lower().endswith(end)))]
        )
        self._beginnings: dict[str, bytes] = {}  # of the files whose names do not tell whether they are images

    def begin(self, name: str) -> bytes:
        """Return the first bytes of a file, by which its format is known; none before the names are listed."""
        return self._beginnings.get(name, b"")

    def _note_beginning(self, name: str, read: Callable[[], bytes]) -> None:
        if is_image_name(name) or is_hidden(name):
            return
        try:
            self._beginnings[name] = read()
        except Exception:  # whatever a damaged member makes the parsers raise
            self._beginnings[name] = b""

    def fingerprint(self) -> str:
        return digest([size_and_time(self.path), *([] if self.classes is None else [self.classes])])

    def _checked(self, name: str, *, folder: bool = False, link: bool = False, special: bool = False) -> str:
        """Return a member's name; refuse what could be unpacked outside a folder, or is more than a plain file."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        plain = "/".join(part for part in parts if part != ".")
        outside = ".." in parts or name.startswith(("/", "\\")) or name[1:2] == ":"
        for refused, what in (
            (link, "is a link"),
            (special, "is a device or a pipe"),
            ("\0" in name, "has a NUL in its name"),
            (outside, "points outside the archive"),
            (not plain and not folder, "has no name"),
        ):
            if refused:
                raise self._refused(name, f"{what}; pack plain files below one folder")
        return plain

    def _refused(self, name: str, what: str) -> DataError:
        return DataError(f"archive {self.path} is refused: its member {shown(name)} {what}.")

    def _broken(self, error: Exception) -> DataError:
        return DataError(f"archive {self.path} cannot be read ({_first_words(error)}); download or pack it again.")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Make one sentence of whatever a damaged archive makes the parsers raise, which is nearly anything."""
        try:
            yield
        except SightlineError:
            raise
        except Exception as error:
            raise self._broken(error) from error

    def _refuse_bomb(self, unpacked: int, packed: int) -> None:
        """Refuse an archive whose members, together, are more than any set of images expands to."""
        if unpacked > max(TOTAL_FREE_BYTES, TOTAL_RATIO * packed):
            raise DataError(
                f"archive {self.path} is refused: its {packed:,} bytes unpack to {unpacked:,} or more, over"
                f" {TOTAL_RATIO} times as many; if you trust it, unpack it and name the folder."
            )


class ZipSource(_ArchiveSource):
    """A folder packed as ``.zip``."""

    def list_files(self) -> tuple[list[str], list[str], LeftOut]:
        """Return the names of files and folders in the archive, every member checked."""
        files: list[str] = []
        folders: list[str] = []
        with self._readable(), zipfile.ZipFile(self.path) as archive:
            members = archive.infolist()
            self._refuse_bomb(sum(member.file_size for member in members), os.stat(self.path).st_size)
            for member in members:
                name = self._name(member)
                if name.endswith(("/", "\\")):
                    folders.append(self._checked(name, folder=True))
                    continue
                kind = stat.S_IFMT(member.external_attr >> 16)
                special = kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
                plain = self._checked(name, link=kind == stat.S_IFLNK, special=special)
                self._refuse_packing(member, name)
                files.append(plain)
                self._note_beginning(plain, partial(_beginning, archive, member))
        return sorted(set(files)), folders, LeftOut()

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        with self._readable(), zipfile.ZipFile(self.path) as archive:
            members = {self._checked(self._name(member), folder=True): member for member in archive.infolist()}
            for index, entry in enumerate(entries):
                yield index, _unpacked(archive, members.get(entry.path))

    def _name(self, member: zipfile.ZipInfo) -> str:
        """Return a member's name: also without the flag for UTF-8 that, if it can be (as macOS packs)."""
        name = member.orig_filename
        if not member.flag_bits & UTF8_NAME and not name.isascii():
            try:
                return name.encode("cp437").decode("utf-8")
            except ValueError:
                return name
        return name

    def _refuse_packing(self, member: zipfile.ZipInfo, name: str) -> None:
        if member.flag_bits & ENCRYPTED:
            raise self._refused(name, "is protected by a password; unpack it and name the folder, or pack it without")
        if member.compress_type not in READABLE:
            method = METHODS.get(member.compress_type, f"method {member.compress_type}")
            what = f"is packed by {method}, which cannot be read here"
            raise self._refused(name, f"{what}; unpack it and name the folder, or pack it again")


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo | None) -> bytes | OSError:
    """Return the bytes of a member of a zip, or why there are none."""
    if member is None:
        return OSError("it is not in the archive")
    refused = _too_much(member.file_size, member.compress_size)
    if refused is not None:
        return refused
    try:
        if member.compress_type == zipfile.ZIP_BZIP2:
            return _from_bzip2(archive, member)
        pieces = []
        with archive.open(member) as file:
            while piece := file.read(PIECE if member.compress_type == zipfile.ZIP_LZMA else FREE_BYTES):
                pieces.append(piece)
    except Exception as error:  # whatever a damaged member makes the parsers raise
        return OSError(f"cannot be unpacked: {_first_words(error)}")
    return b"".join(pieces)


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:REASON] or type(error).__name__


def _beginning(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.compress_type == zipfile.ZIP_BZIP2:
        return _from_bzip2(archive, member, HEAD)
    with archive.open(member) as file:
        return file.read(HEAD)


def _from_bzip2(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int = MEMBER_BYTES) -> bytes:
    """Return the bytes of a member, and not one more than it claims.

    Of a few bytes bzip2 makes gigabytes at once, and so does zipfile.
    """
    assert archive.filename is not None
    with open(archive.filename, "rb") as file:
        file.seek(member.header_offset)
        name, extra = struct.unpack("<26xHH", file.read(30))
        file.seek(name + extra, os.SEEK_CUR)
        packed = file.read(min(member.compress_size, MEMBER_BYTES))
    data = bz2.BZ2Decompressor().decompress(packed, min(member.file_size, most))
    if most < MEMBER_BYTES:
        return data
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise zipfile.BadZipFile("its checksum is another")
    return data


def _too_much(unpacked: int, packed: int) -> OSError | None:
    """Return why a member is not read that is, or claims to be, more than an image."""
    if unpacked > MEMBER_BYTES:
        return OSError(f"unpacks to {unpacked:,} bytes, more than {MEMBER_BYTES:,}")
    if unpacked > max(FREE_BYTES, MEMBER_RATIO * packed):
        return OSError(f"unpacks from {packed:,} bytes to {unpacked:,}, over {MEMBER_RATIO} times as many")
    return None


def _holes(member: tarfile.TarInfo) -> list[tuple[int, int]] | None:
    """Return where a sparse file has bytes, as (offset, size): its length costs its archive nothing."""
    return getattr(member, "sparse", None)


def _first_bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read(HEAD) if file is not None else b""


class TarSource(_ArchiveSource):
    """A folder packed as ``.tar``, ``.tar.gz`` or ``.tar.xz``; read from front to back."""

    def list_files(self) -> tuple[list[str], list[str], LeftOut]:
        """Return the names of files and folders in the archive, every member checked, in its order."""
        files: list[str] = []
        folders: list[str] = []
        for archive, member in self._members():
            link, special = member.issym() or member.islnk(), member.isdev()
            name = self._checked(member.name, folder=member.isdir(), link=link, special=special)
            if member.isdir():
                folders.append(name)
            elif member.isfile():
                files.append(name)
                self._note_beginning(name, partial(_first_bytes, archive, member))
        return list(dict.fromkeys(files)), folders, LeftOut()

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        index_of = {entry.path: index for index, entry in enumerate(entries)}
        for archive, member in self._members():
            index = index_of.pop(self._checked(member.name, folder=True), None) if member.isfile() else None
            if index is not None:
                yield index, self._content(archive, member)
                if not index_of:
                    return

    def _content(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | OSError:
        holes = _holes(member)
        stored = sum(size for _, size in holes) if holes else member.size
        refused = _too_much(member.size, stored)
        if refused is not None:
            return refused
        with self._readable():
            file = archive.extractfile(member)
            assert file is not None
            return file.read()

    def _members(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        with self._readable(), self.path.open("rb") as file:
            unpacked, packed = 0, os.fstat(file.fileno()).st_size
            with tarfile.open(fileobj=_Ending(file), mode=self._mode(file), tarinfo=_Header) as archive:  # type: ignore[call-overload]
                for member in archive:
                    unpacked += tarfile.BLOCKSIZE + (0 if _holes(member) else member.size)
                    self._refuse_bomb(unpacked, packed)
                    yield archive, member
                    archive.members = []  # type: ignore[attr-defined]  # a million members would fill the memory

    def _mode(self, file: BinaryIO) -> Any:
        """Choose the mode in which ``tarfile`` unpacks a file, by its first bytes."""
        start = file.read(6)
        file.seek(0)
        for mark, name in UNBOUNDED.items():
            if start.startswith(mark):
                raise DataError(
                    f"archive {self.path} is packed by {name}; pack it as .tar.gz or .tar.xz, or name the folder."
                )
        return next((mode for mark, mode in STREAMS.items() if start.startswith(mark)), "r|")


class _Ending:
    """A file that ends: ``tarfile`` asks on and on for what a member claims to have beyond the end of the archive."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._over = file, 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._over = 0 if data else self._over + 1
        if self._over > 2:
            raise EOFError("it ends before its last member does")
        return data


class _Header(tarfile.TarInfo):
    """A member's header. ``tarfile`` takes a broken or missing one for the end; here only the mark of the end ends."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(f"{error} before the mark of its end: broken or truncated") from error
        if header.size < 0 or (header.type in EXTENDED and header.size > HEADER_BYTES):
            raise tarfile.ReadError(f"a header of {header.size:,} bytes: broken")
        return header
