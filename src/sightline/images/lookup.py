"""What DATA names: an embedded or published set, a folder, an archive or a manifest. Nothing here loads torch."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sightline.config.checks import nearest
from sightline.errors import ConfigError, DataError
from sightline.images.archives import ARCHIVE_SUFFIXES, TarSource, ZipSource
from sightline.images.embedded import EMBEDDED, GroceriesSource
from sightline.images.folders import FolderSource
from sightline.images.hub import PREFIX, HubSource
from sightline.images.layout import IMAGE_SUFFIXES, Classes, Entry, LeftOut, image_names
from sightline.images.manifests import ManifestSource
from sightline.images.named import NAMED, NamedSource
from sightline.images.sources import ImageSource, read_files
from sightline.images.tables import ParquetSource

__all__ = ["PlainFiles", "always_labelled", "find_like_run", "find_source", "plain_files", "source_of_run"]


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
        if not isinstance(source, FolderSource | ZipSource | TarSource) or isinstance(source, GroceriesSource):
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
    return find_source(model["data"]["location"], model["data"].get("classes"))


def find_like_run(data: str | os.PathLike[str], model: Mapping[str, Any]) -> ImageSource:
    """Another image set than that of a run, in which the same folders are the classes: those at the top, or at the bottom."""
    source = find_source(data)
    if isinstance(source, FolderSource | ZipSource | TarSource) and not isinstance(source, GroceriesSource):
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
    left_out: LeftOut = field(default_factory=LeftOut)
    """Files beside them that are no images."""


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
    if isinstance(source, FolderSource):
        files, _, left = source.sorted_names()
    else:
        files, left = source.names()[0], LeftOut()
    entries = [Entry(name, "") for name in image_names(files, left)]
    if not entries:
        raise DataError(f"no images in {text!r}; wanted files ending in {', '.join(sorted(IMAGE_SUFFIXES))}.")
    names = [f"{text.rstrip('/')}/{entry.path}" for entry in entries]
    return PlainFiles(names, lambda: ((names[index], data) for index, data in source.read(entries)), left)
