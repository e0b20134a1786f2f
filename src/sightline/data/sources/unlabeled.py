"""Images without classes, to ask a classifier about: files, folders, archives, manifests, patterns, standard input.

Nothing here loads torch.
"""

import codecs
import contextlib
import glob
import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sightline.config.checks import shown
from sightline.data.sources.archive import ARCHIVE_SUFFIXES
from sightline.data.sources.csv_table import (
    PATHS,
    choose,
    decode_text,
    is_table,
    read_table,
)
from sightline.data.sources.entries import Entry, LeftOut, Listing, image_names
from sightline.data.sources.find_source import find_source, open_archive, refuse_address, refuse_special
from sightline.data.sources.folder import FolderSource
from sightline.data.sources.listed_files import ADDRESS, FileFinder, refuse_odd
from sightline.data.sources.manifest import ManifestSource
from sightline.data.sources.source import FileTree, ImageSource, digest, size_and_time
from sightline.data.sources.table_rows import table_rows
from sightline.display.terminal import natural_key
from sightline.errors import DataError
from sightline_runtime.decoding.formats import WANTED
from sightline_runtime.files import LARGEST_FILE, read_regular

__all__ = ["UNLABELED", "PlainFiles", "UnlabeledSet", "names_images", "plain_files"]

LARGEST_LIST = 1 << 28  # bytes on standard input
UNLABELED = "without a label"  # the class of images that have none
HANDED_OVER = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # pipes that a shell opened: predict RUN <(convert ...)


@dataclass(frozen=True)
class PlainFiles:
    """Images without classes: what a classifier is asked about."""

    names: list[str]
    """As they are shown: the path that was given, and the name inside of it."""
    read: Callable[[], Iterator[tuple[str, bytes | OSError]]]
    """Yields (name, bytes) of each, in an order of its own."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """Files beside them that are no images."""


def plain_files(what: str | os.PathLike[str] | PlainFiles) -> PlainFiles:
    """Return the images of a file, folder, archive, manifest or pattern, or those listed on standard input (``-``).

    Raises:
        DataError: nothing is there, no images are in it, or a manifest cannot be used.
    """
    if isinstance(what, PlainFiles):
        return what
    text = os.fspath(what)
    if text == "-":
        return _listed(_bounded(sys.stdin.buffer, LARGEST_LIST, "the list on standard input"))
    if not _exists(text):
        refuse_address(text)
        if glob.has_magic(text):
            return _matching(text)
        raise DataError(f"no image, folder or archive at {shown(text)}; check the spelling of the path.")
    if os.path.isdir(text):
        return _images_of(FolderSource(Path(text)), text)
    if text.lower().endswith(ARCHIVE_SUFFIXES):
        refuse_special(Path(text))
        return _images_of(open_archive(Path(text)), text)
    if text.lower().endswith(".parquet") or is_table(text):
        source = find_source(os.path.abspath(text))
        assert isinstance(source, ManifestSource)
        return _numbered(source, source.files(), os.path.dirname(text), text)
    return _single([text])


class UnlabeledSet(ImageSource):
    """The images of a folder, or those that a manifest lists, as a set of one class; what labels there are is not read.

    Each image is a file on the disk, so that a manifest can name it.
    """

    least = 1

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Args:
            path: of the folder, or of the manifest.
        Raises:
            DataError: nothing is there, or the images are no files of their own.
        """
        text = os.path.expanduser(os.fspath(path))
        if not _exists(text):
            refuse_address(text)
            raise DataError(f"no folder at {shown(text)}; check the spelling of the path.")
        if not os.path.isdir(text) and not is_table(text):
            packed = text.lower().endswith((*ARCHIVE_SUFFIXES, ".parquet"))
            raise DataError(
                f"{shown(text)} is {'an archive' if packed else 'a file'}, and a manifest cannot name images inside of"
                f" it; {'unpack it, and name the folder' if packed else 'name the folder that it lies in'}."
            )
        self._files = FolderSource(Path(text)) if os.path.isdir(text) else ManifestSource(Path(text))
        self.name, self.location = self._files.name, self._files.location
        self.root = Path(self.location) if isinstance(self._files, FolderSource) else self._files.root

    def fingerprint(self) -> str:
        if isinstance(self._files, FolderSource):
            return digest([UNLABELED, self._files.fingerprint()])
        names = sorted(entry.path for entry in self._files.files())  # that of a manifest wants labels
        return digest([UNLABELED, *(f"{name}\0{size_and_time(self.root / name)}" for name in names)])

    def scan(self) -> Listing:
        """List the images.

        Raises:
            DataError: there are none.
        """
        if isinstance(self._files, ManifestSource):
            return Listing([Entry(entry.path, UNLABELED) for entry in self._files.files()], Counter())
        files, _, left = self._files.list_files()
        names = image_names(files, left, self._files.begin)
        if not names:
            raise DataError(f"no images in {shown(self.location)}; wanted {WANTED} files.")
        return Listing([Entry(name, UNLABELED) for name in names], left.counts, left.suffixes)

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        yield from self._files.read(entries)


def names_images(text: str) -> bool:
    """Return whether a text names images, rather than a run that is not there."""
    return text == "-" or _exists(text) or glob.has_magic(text) or ADDRESS.match(text) is not None


def _exists(text: str) -> bool:
    try:
        return os.path.exists(text)
    except ValueError:  # a NUL
        return False


def _images_of(source: FileTree, text: str) -> PlainFiles:
    files, _, left = source.list_files()
    names = sorted(image_names(files, left, source.begin), key=natural_key)  # as people look for them in a table
    entries = [Entry(name, "") for name in names]
    return _numbered(source, entries, text.rstrip("/"), text, left)


def _numbered(
    source: FileTree | ManifestSource, entries: list[Entry], folder: str, text: str, left: LeftOut | None = None
) -> PlainFiles:
    """Return the entries of a source, under names below a folder."""
    if not entries:
        raise DataError(f"no images in {text!r}; wanted {WANTED} files.")
    names = [os.path.join(folder, entry.path) for entry in entries]
    return PlainFiles(names, lambda: ((names[index], data) for index, data in source.read(entries)), left or LeftOut())


def _single(paths: list[str]) -> PlainFiles:
    """Files by their own paths."""
    return PlainFiles(paths, lambda: ((path, _read(path)) for path in paths))


def _images_at(path: str) -> PlainFiles:
    """Return the images of a folder or an archive, or a file, whatever it is."""
    return plain_files(path) if os.path.isdir(path) or path.lower().endswith(ARCHIVE_SUFFIXES) else _single([path])


def _read(path: str) -> bytes | OSError:
    try:
        if path.startswith(HANDED_OVER):
            with open(path, "rb") as file:
                return _bounded(file, LARGEST_FILE, path)
        return read_regular(path)
    except OSError as error:
        return error
    except DataError as error:
        return OSError(str(error))


def _bounded(file: BinaryIO, most: int, what: str) -> bytes:
    """Return all that a pipe gives, unless it never ends."""
    pieces: list[bytes] = []
    held = 0
    while piece := file.read(1 << 20):
        pieces.append(piece)
        held += len(piece)
        if held > most:
            raise DataError(f"{what} has more than {most:,} bytes and no end; give it in parts.")
    return b"".join(pieces)


def _joined(parts: list[PlainFiles]) -> PlainFiles:
    names = [name for part in parts for name in part.names]
    left = LeftOut()
    for part in parts:
        left.add_all(part.left_out)
    return PlainFiles(names, lambda: itertools.chain.from_iterable(part.read() for part in parts), left)


def _matching(pattern: str) -> PlainFiles:
    """Return the files that match a pattern, and the images of the folders and archives that do."""
    parts = []
    for path in sorted(glob.glob(pattern, recursive=True)):
        if not os.path.isdir(path):
            parts.append(_images_at(path))
        elif "**" not in pattern:  # which matches the files below it, too
            with contextlib.suppress(DataError):  # no images in it
                parts.append(_images_at(path))
    if not parts:
        raise DataError(f"no images match {shown(pattern)}; check the spelling of the pattern.")
    return _joined(parts)


def _listed(data: bytes) -> PlainFiles:
    """Return the files of a list: a path a line (or between NULs, as by ``find -print0``), or a table with a header."""
    what = "the list on standard input"
    if b"\0" in data and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        lines = [os.fsdecode(part) for part in data.split(b"\0")]
    else:
        table = read_table(data, what, errors="surrogateescape") if data.strip() else None
        if table is not None and choose(table, PATHS) is not None and not _exists(table.first_line.splitlines()[0]):
            finder = FileFinder(Path.cwd(), what)
            return _single([finder.find(row) for row in table_rows(table, labeled=False)])
        lines = decode_text(data, what, "surrogateescape").replace("\r\n", "\n").split("\n")
    parts: list[PlainFiles] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        refuse_odd(line, f"{what}, line {number}")
        parts.append(_images_at(line))
    if not parts:
        raise DataError(f"{what} is empty; wanted the path of an image a line.")
    return _joined(parts)
