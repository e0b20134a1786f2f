"""Find the image set that DATA names: embedded, published, a folder, an archive or a manifest. No torch here."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from sightline.config.checks import nearest, shown
from sightline.data.sources.archive import ARCHIVE_SUFFIXES, TarSource, ZipSource
from sightline.data.sources.cifar_mnist import NAMED, NamedSource
from sightline.data.sources.csv_table import is_table
from sightline.data.sources.embedded import EMBEDDED, GroceriesSource
from sightline.data.sources.folder import FolderSource
from sightline.data.sources.huggingface import PREFIX, HubSource
from sightline.data.sources.layout import Classes
from sightline.data.sources.listed_files import ADDRESS
from sightline.data.sources.manifest import ManifestSource
from sightline.data.sources.parquet import ParquetSource
from sightline.data.sources.source import FileTree, ImageSource
from sightline.data.sources.split_names import is_split_name
from sightline.errors import ConfigError, DataError
from sightline_runtime.files import kind_of

__all__ = [
    "always_labeled",
    "find_like_run",
    "find_source",
    "open_archive",
    "refuse_address",
    "refuse_special",
    "source_of_run",
]


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
                f"--data.classes {classes} has no effect: {source.name} names the class of each image, and folders have"
                " no say; leave the option out."
            )
        source.classes = classes
    return source


def source_of_run(model: Mapping[str, Any]) -> ImageSource:
    """Return the image set that a run was trained on, with the classes that it had, by its ``model.json``.

    Raises:
        DataError: it is not there any more, or the classifier does not say where it was.
    """
    noted = model["data"].get("classes")
    location = model["data"].get("location")
    if location is None:
        raise DataError(
            f"the classifier does not say where its image set {model['data']['name']} lies, as those from the hub do"
            " not; name the image set."
        )
    source = find_source(location, noted)
    source.merge = model["data"].get("merge", {})
    called_like_splits = any(is_split_name(name) for name in model["classes"])
    if called_like_splits and noted is None and _has_folders(source) and _classes_of(source) != set(model["classes"]):
        source.classes = "top"  # a run from before the name of a split was none of a class
    return source


def _has_folders(source: ImageSource) -> TypeGuard[FileTree]:
    """Return whether it is the folders of a source that say which classes there are."""
    return isinstance(source, FileTree) and not isinstance(source, GroceriesSource)


def _classes_of(source: ImageSource) -> set[str]:
    """Return the classes of a source; none where it is refused."""
    try:
        return {entry.label for entry in source.scan().entries}
    except DataError:
        return set()


def find_like_run(data: str | os.PathLike[str], model: Mapping[str, Any]) -> ImageSource:
    """Find another image set than that of a run, with the same folders as classes: at the top, or at the bottom; and
    with the same classes merged.
    """
    source = find_source(data)
    source.merge = model["data"].get("merge", {})
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
        refuse_address(text)
        hint = nearest(text, [*EMBEDDED, *NAMED]) if "/" not in text else "check the spelling of the path."
        raise DataError(f"no image set at {text!r}: there is no such file or folder; {hint}")
    refuse_special(path)
    if is_table(path):
        return ManifestSource(path)
    if path.name.lower().endswith(".parquet"):
        return ParquetSource(path)
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return open_archive(path)
    raise DataError(
        f"{text!r} is no image set; wanted a folder of class folders, an archive ({', '.join(ARCHIVE_SUFFIXES)}),"
        " a manifest (.csv, .tsv, .jsonl, .parquet) with the columns path and label,"
        f" or a name: {', '.join([*EMBEDDED, *NAMED])}, hf:OWNER/NAME."
    )


def always_labeled(text: str) -> bool:
    """Return whether a text names a set that has classes in any case: an embedded or published one, or a manifest."""
    named = text in EMBEDDED or text in NAMED or text.startswith(PREFIX)
    return named or text.lower().endswith(".parquet") or is_table(text)


def refuse_address(text: str) -> None:
    """Refuse the address of a file elsewhere: nothing is fetched."""
    if ADDRESS.match(text):
        raise DataError(
            f"{shown(text)} is an address, and images are not fetched from there; download it, then name the file or"
            " folder."
        )


def refuse_special(path: Path) -> None:
    """Refuse what would be waited for, or would never end."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise DataError(f"{shown(str(path))} is {kind_of(mode)}; wanted a folder, an archive or a manifest.")


def open_archive(path: Path) -> FileTree:
    """Return the source of an archive, by the end of its name."""
    return ZipSource(path) if path.suffix.lower() == ".zip" else TarSource(path)
