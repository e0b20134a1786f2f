"""What DATA names, and what a classifier is asked about: an embedded or published set, a folder, an archive or a manifest. Nothing here loads torch."""

import codecs
import contextlib
import glob
import itertools
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from sightline.config.checks import nearest, shown
from sightline.data.decoding.formats import WANTED
from sightline.data.sources.archive import ARCHIVE_SUFFIXES, TarSource, ZipSource
from sightline.data.sources.cifar_mnist import NAMED, NamedSource
from sightline.data.sources.csv_table import (
    LARGEST_FILE,
    PATHS,
    choose,
    decode_text,
    is_table,
    kind_of,
    read_regular,
    read_table,
)
from sightline.data.sources.embedded import EMBEDDED, GroceriesSource
from sightline.data.sources.folder import FolderSource
from sightline.data.sources.huggingface import PREFIX, HubSource
from sightline.data.sources.layout import Classes, Entry, LeftOut, image_names
from sightline.data.sources.listed_files import ADDRESS, FileFinder, refuse_odd
from sightline.data.sources.manifest import ManifestSource, table_rows
from sightline.data.sources.parquet import ParquetSource
from sightline.data.sources.source import ImageSource
from sightline.data.sources.split_names import is_split_name
from sightline.display.terminal import natural_key
from sightline.errors import ConfigError, DataError

__all__ = [
    "PlainFiles",
    "always_labelled",
    "find_like_run",
    "find_source",
    "names_images",
    "plain_files",
    "source_of_run",
]

LARGEST_LIST = 1 << 28  # bytes on standard input
HANDED_OVER = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # pipes that a shell opened: predict RUN <(convert ...)


def find_source(data: str | os.PathLike[str], classes: Classes | None = None) -> ImageSource:
    """Find out what DATA names, without reading or downloading it. A name is never a path: ``./mnist`` is.

    Args:
        data: a name, or the path of a folder, an archive or a manifest.
        classes: which folders are the classes, as ``--data.classes`` has it.
    Raises:
        ConfigError: classes are asked for by folder of what names its own.
        DataError: nothing is there, it is no image set, or a library to read it is not installed.
    """
    source = _named_source(data)
    if classes is not None:
        if not _has_folders(source):
            raise ConfigError(
                f"--data.classes {classes} has no effect: {source.name} names the class of each image, and folders have no say;"
                " leave the option out."
            )
        source.classes = classes
    return source


def source_of_run(model: Mapping[str, Any]) -> ImageSource:
    """The image set that a run was trained on, with the classes that it had, by its ``model.json``.

    Raises:
        DataError: it is not there any more.
    """
    noted = model["data"].get("classes")
    source = find_source(model["data"]["location"], noted)
    called_like_splits = any(is_split_name(name) for name in model["classes"])
    if called_like_splits and noted is None and _has_folders(source) and _classes_of(source) != set(model["classes"]):
        source.classes = "top"  # a run from before the name of a split was none of a class
    return source


def _has_folders(source: ImageSource) -> TypeGuard[FolderSource | ZipSource | TarSource]:
    """Whether it is the folders of a source that say which classes there are."""
    return isinstance(source, FolderSource | ZipSource | TarSource) and not isinstance(source, GroceriesSource)


def _classes_of(source: ImageSource) -> set[str]:
    """The classes of a source; none where it is refused."""
    try:
        return {entry.label for entry in source.scan().entries}
    except DataError:
        return set()


def find_like_run(data: str | os.PathLike[str], model: Mapping[str, Any]) -> ImageSource:
    """Another image set than that of a run, in which the same folders are the classes: those at the top, or at the bottom."""
    source = find_source(data)
    if _has_folders(source):
        source.classes = model["data"].get("classes")
    return source


def _named_source(data: str | os.PathLike[str]) -> ImageSource:
    text = os.fspath(data)
    path = Path(os.path.expanduser(text))  # unlike that of Path, leaves ~NOBODY as it is
    if text in EMBEDDED:
        return EMBEDDED[text]()
    if text in NAMED:
        return NamedSource(text)
    if text.startswith(PREFIX):
        return HubSource(text)
    if os.path.isdir(path):  # unlike those of Path, these take a name that is too long for no file
        return FolderSource(path)
    if not os.path.exists(path):
        _refuse_address(text)
        hint = nearest(text, [*EMBEDDED, *NAMED]) if "/" not in text else "check the spelling of the path."
        raise DataError(f"no image set at {text!r}: there is no such file or folder; {hint}")
    _refuse_special(path)
    if is_table(path):
        return ManifestSource(path)
    if path.name.lower().endswith(".parquet"):
        return ParquetSource(path)
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return _archive(path)
    raise DataError(
        f"{text!r} is no image set; wanted a folder of class folders, an archive ({', '.join(ARCHIVE_SUFFIXES)}),"
        " a manifest (.csv, .tsv, .jsonl, .parquet) with the columns path and label,"
        f" or a name: {', '.join([*EMBEDDED, *NAMED])}, hf:OWNER/NAME."
    )


def always_labelled(text: str) -> bool:
    """Whether a text names an image set that has classes in any case: an embedded or published set, or a manifest."""
    named = text in EMBEDDED or text in NAMED or text.startswith(PREFIX)
    return named or text.lower().endswith(".parquet") or is_table(text)


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
    """The images of a file, a folder, an archive, a manifest or a pattern (``photos/*.jpg``), or those listed on standard input (``-``).

    Raises:
        DataError: nothing is there, no images are in it, or a manifest cannot be used.
    """
    if isinstance(what, PlainFiles):
        return what
    text = os.fspath(what)
    if text == "-":
        return _listed(_bounded(sys.stdin.buffer, LARGEST_LIST, "the list on standard input"))
    if not _exists(text):
        _refuse_address(text)
        if glob.has_magic(text):
            return _matching(text)
        raise DataError(f"no image, folder or archive at {shown(text)}; check the spelling of the path.")
    if os.path.isdir(text):
        return _images_of(FolderSource(Path(text)), text)
    if text.lower().endswith(ARCHIVE_SUFFIXES):
        _refuse_special(Path(text))
        return _images_of(_archive(Path(text)), text)
    if text.lower().endswith(".parquet") or is_table(text):
        source = find_source(os.path.abspath(text))
        assert isinstance(source, ManifestSource)
        return _numbered(source, source.files(), os.path.dirname(text), text)
    return _single([text])


def names_images(text: str) -> bool:
    """Whether a text names images, rather than a run that is not there."""
    return text == "-" or _exists(text) or glob.has_magic(text) or ADDRESS.match(text) is not None


def _exists(text: str) -> bool:
    try:
        return os.path.exists(text)
    except ValueError:  # a NUL
        return False


def _refuse_address(text: str) -> None:
    if ADDRESS.match(text):
        raise DataError(
            f"{shown(text)} is an address, and images are not fetched from there; download it, then name the file or folder."
        )


def _refuse_special(path: Path) -> None:
    """Refuse what would be waited for, or would never end."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise DataError(f"{shown(str(path))} is {kind_of(mode)}; wanted a folder, an archive or a manifest.")


def _archive(path: Path) -> ZipSource | TarSource:
    return ZipSource(path) if path.suffix.lower() == ".zip" else TarSource(path)


def _images_of(source: FolderSource | ZipSource | TarSource, text: str) -> PlainFiles:
    if isinstance(source, FolderSource):
        files, _, left = source.sorted_names()
    else:
        files, left = source.names()[0], LeftOut()
    names = sorted(image_names(files, left, source.begin), key=natural_key)  # as people look for them in a table
    entries = [Entry(name, "") for name in names]
    return _numbered(source, entries, text.rstrip("/"), text, left)


def _numbered(
    source: FolderSource | ZipSource | TarSource | ManifestSource,
    entries: list[Entry],
    folder: str,
    text: str,
    left: LeftOut | None = None,
) -> PlainFiles:
    """The entries of a source, under names below a folder."""
    if not entries:
        raise DataError(f"no images in {text!r}; wanted {WANTED} files.")
    names = [os.path.join(folder, entry.path) for entry in entries]
    return PlainFiles(
        names,
        lambda: ((names[index], data) for index, data in source.read(entries)),
        LeftOut() if left is None else left,
    )


def _single(paths: list[str]) -> PlainFiles:
    """Files by their own paths."""
    return PlainFiles(paths, lambda: ((path, _read(path)) for path in paths))


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
    """All that a pipe gives, unless it never ends."""
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
    """The files that match a pattern, and the images of the folders and archives that do."""
    parts = []
    for found in sorted(glob.glob(pattern, recursive=True)):
        if not os.path.isdir(found):
            parts.append(plain_files(found) if found.lower().endswith(ARCHIVE_SUFFIXES) else _single([found]))
        elif "**" not in pattern:  # which matches the files below it, too
            with contextlib.suppress(DataError):  # no images in it
                parts.append(plain_files(found))
    if not parts:
        raise DataError(f"no images match {shown(pattern)}; check the spelling of the pattern.")
    return _joined(parts)


def _listed(data: bytes) -> PlainFiles:
    """The files of a list: a path a line (or between NULs, as ``find -print0`` writes them), or a table with a header."""
    what = "the list on standard input"
    if b"\0" in data and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        lines = [os.fsdecode(part) for part in data.split(b"\0")]
    else:
        table = read_table(data, what, errors="surrogateescape") if data.strip() else None
        if table is not None and choose(table, PATHS) is not None and not _exists(table.first_line.splitlines()[0]):
            finder = FileFinder(Path.cwd(), what)
            return _single([finder.find(row.named(), row.where) for row in table_rows(table, labelled=False)])
        lines = decode_text(data, what, "surrogateescape").replace("\r\n", "\n").split("\n")
    parts: list[PlainFiles] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        refuse_odd(line, f"{what}, line {number}")
        parts.append(
            plain_files(line) if os.path.isdir(line) or line.lower().endswith(ARCHIVE_SUFFIXES) else _single([line])
        )
    if not parts:
        raise DataError(f"{what} is empty; wanted the path of an image a line.")
    return _joined(parts)
