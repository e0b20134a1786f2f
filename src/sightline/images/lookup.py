"""What DATA names: an embedded or published set, a folder, an archive or a manifest. Nothing here loads torch."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sightline.config.resolving import nearest
from sightline.errors import DataError
from sightline.images.archives import ARCHIVE_SUFFIXES, TarSource, ZipSource
from sightline.images.embedded import EMBEDDED
from sightline.images.folders import FolderSource
from sightline.images.formats import WANTED
from sightline.images.hub import PREFIX, HubSource
from sightline.images.layout import Entry, is_hidden, is_image_name
from sightline.images.manifests import ManifestSource
from sightline.images.named import NAMED, NamedSource
from sightline.images.sources import ImageSource, read_files
from sightline.images.tables import ParquetSource

__all__ = ["PlainFiles", "always_labelled", "find_source", "plain_files"]


def find_source(data: str | os.PathLike[str]) -> ImageSource:
    """Find out what DATA names, without reading or downloading it. A name is never a path: ``./mnist`` is.

    Raises:
        DataError: nothing is there, it is no image set, or a library to read it is not installed.
    """
    text = os.fspath(data)
    path = Path(text).expanduser()
    if text in EMBEDDED:
        return EMBEDDED[text]()
    if text in NAMED:
        return NamedSource(text)
    if text.startswith(PREFIX):
        return HubSource(text)
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        hint = nearest(text, [*EMBEDDED, *NAMED]) if "/" not in text else "check the spelling of the path."
        raise DataError(f"no image set at {text!r}: there is no such file or folder; {hint}")
    if path.name.lower().endswith(".csv"):
        return ManifestSource(path)
    if path.name.lower().endswith(".parquet"):
        return ParquetSource(path)
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return ZipSource(path) if path.suffix.lower() == ".zip" else TarSource(path)
    raise DataError(
        f"{text!r} is no image set; wanted a folder of class folders, an archive ({', '.join(ARCHIVE_SUFFIXES)}),"
        " a manifest (.csv, .parquet) with the columns path and label,"
        f" or a name: {', '.join([*EMBEDDED, *NAMED])}, hf:OWNER/NAME."
    )


def always_labelled(text: str) -> bool:
    """Whether a text names an image set that has classes in any case: an embedded or published set, or a manifest."""
    named = text in EMBEDDED or text in NAMED or text.startswith(PREFIX)
    return named or text.lower().endswith((".csv", ".parquet"))


@dataclass(frozen=True)
class PlainFiles:
    """Images without classes: what a classifier is asked about."""

    names: list[str]
    """As they are shown: the path that was given, and the name inside of it."""
    read: Callable[[], Iterator[tuple[str, bytes | OSError]]]
    """Yields (name, bytes) of each, in an order of its own."""


def plain_files(path: str | os.PathLike[str]) -> PlainFiles:
    """The images of a file, a folder or an archive.

    Raises:
        DataError: nothing is there, or no images are in it.
    """
    text = os.fspath(path)
    if not os.path.exists(text):
        raise DataError(f"no image, folder or archive at {text!r}; check the spelling of the path.")
    if not os.path.isdir(text) and not text.lower().endswith(ARCHIVE_SUFFIXES):
        entry = Entry(os.path.basename(text), "")
        folder = Path(text).parent
        return PlainFiles([text], lambda: ((text, data) for _, data in read_files(folder, [entry])))
    source = find_source(text)
    assert isinstance(source, FolderSource | ZipSource | TarSource)
    entries = [
        Entry(name, "") for name in source.names()[0] if not is_hidden(name) and is_image_name(name, source.begin)
    ]
    if not entries:
        raise DataError(f"no images in {text!r}; wanted {WANTED} files.")
    names = [f"{text.rstrip('/')}/{entry.path}" for entry in entries]
    return PlainFiles(names, lambda: ((names[index], data) for index, data in source.read(entries)))
