"""From the names of files to classes and splits. Nothing here loads torch, or reads a file."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from sightline.errors import DataError
from sightline.images.formats import WANTED, format_of

__all__ = [
    "IMAGE_SUFFIXES",
    "OUTSIDE",
    "SPLIT_NAMES",
    "Entry",
    "Listing",
    "check_labels",
    "class_folder",
    "is_hidden",
    "is_image_name",
    "lay_out",
]

IMAGE_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in [
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "jif",
        "png",
        "apng",
        "webp",
        "bmp",
        "dib",
        "gif",
        "tif",
        "tiff",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "pfm",
        "jp2",
        "j2k",
        "jpf",
        "jpx",
        "jpc",
        "j2c",
        "avif",
        "avifs",
        "heic",
        "heif",
        "heics",
        "heifs",
        "hif",
    ]
)
"""Of files that are images without a look into them: whether they can be read is said of each when it is decoded."""
RAW_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in [
        "nef",
        "nrw",
        "cr2",
        "arw",
        "sr2",
        "srf",
        "dng",
        "orf",
        "rw2",
        "pef",
        "srw",
        "3fr",
        "erf",
        "kdc",
        "dcr",
        "mos",
        "iiq",
    ]
)
"""Of cameras' raw files. By their header many are TIFF files; what would be read of them is a thumbnail."""
OUTSIDE = "images outside the class folders"
UNSAFE = frozenset('/\\:*?"<>|%')  # in names of folders, on some system
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Entry:
    """One image file of a set."""

    path: str
    """Name inside the set, with forward slashes."""
    label: str
    split: str | None = None
    """``train``, ``val`` or ``test`` where the set says so."""
    group: str | None = None
    """What must stay on one side of every split: a person, a patient, a scene."""


@dataclass(frozen=True)
class Listing:
    """What a source holds, before any image is decoded."""

    entries: list[Entry]
    ignored: Counter[str]
    """Files that are no images of a class, counted by what they are."""


def lay_out(
    files: list[str], folders: list[str], location: str, *, begin: Callable[[str], bytes] | None = None
) -> Listing:
    """Find classes and splits in the names of files and folders.

    Args:
        files: names with forward slashes, in the source's order.
        folders: names of folders, so that an empty one is noticed.
        begin: reads the first bytes of a file; None where that cannot be done.
    Raises:
        DataError: no images, one class, a class without images, classes that differ only in case, mixed layouts.
    """
    ignored: Counter[str] = Counter()
    kept = []
    for name in files:
        if is_hidden(name):
            ignored["hidden files"] += 1
        elif not is_image_name(name, begin):
            ignored["other files"] += 1
        else:
            kept.append(tuple(name.split("/")))
    holding = {name.rpartition("/")[0] for name in files}  # an archive need not list its folders
    visible = [
        tuple(name.strip("/").split("/")) for name in {*folders, *holding} if name.strip("/") and not is_hidden(name)
    ]
    if not kept:
        raise DataError(
            f"no images in {location} ({sum(ignored.values())} other files); wanted folders named after the classes,"
            f" with {WANTED} files."
        )
    depth = _wrapper_depth(kept, visible)
    tops = {parts[depth] for parts in kept if len(parts) > depth + 1}
    splits = {top for top in tops if top.lower() in SPLIT_NAMES}
    if len({SPLIT_NAMES[top.lower()] for top in splits}) > 1 and splits != tops:
        others = ", ".join(sorted(tops - splits))
        raise DataError(
            f"{location} holds {', '.join(sorted(splits))} beside other folders of images ({others}); wanted either"
            " splits or classes: move the others away."
        )
    has_splits = bool(tops) and splits == tops
    entries = []
    level = depth + has_splits  # where the class's name stands
    for parts in kept:
        if len(parts) < level + 2:
            ignored[OUTSIDE] += 1
            continue
        split = SPLIT_NAMES[parts[depth].lower()] if has_splits else None
        entries.append(Entry("/".join(parts), parts[level], split))
    class_folders = {
        parts[level] for parts in visible if len(parts) > level and (not has_splits or parts[depth] in splits)
    }
    empty = sorted(class_folders - {entry.label for entry in entries})
    if empty:
        raise DataError(
            f"class folder {empty[0]!r} in {location} holds no images"
            f"{f' ({len(empty)} such folders)' if len(empty) > 1 else ''}; add some or delete the folder."
        )
    check_labels([entry.label for entry in entries], location)
    return Listing(entries, ignored)


def check_labels(labels: list[str], location: str) -> None:
    """Refuse labels that no classifier can be trained on."""
    classes = sorted(set(labels))
    if not classes:
        raise DataError(f"no labelled images in {location}; wanted at least two classes with images.")
    if len(classes) == 1:
        raise DataError(f"only one class, {classes[0]!r}, in {location}; a classifier needs at least two.")
    for folded, same in itertools.groupby(sorted(classes, key=str.casefold), key=str.casefold):
        twins = list(same)
        if len(twins) > 1:
            raise DataError(
                f"classes {twins[0]!r} and {twins[1]!r} in {location} differ only in case; name both {folded!r} or rename one."
            )


def class_folder(name: str) -> str:
    """The name of a folder for a class, which is read back as a class: its own wherever a file system takes that.

    Letters that some file system refuses, and what would be taken for hidden or for a split, are written as in an address:
    ``a/b`` is ``a%2Fb``, and ``train`` is ``%74rain``.
    """
    last = len(name) - 1
    odd = name.startswith(".") or name == "__MACOSX" or name.lower() in SPLIT_NAMES
    return "".join(
        quote(letter, safe="")
        if letter in UNSAFE or not letter.isprintable()
        else f"%{ord(letter):02X}"
        if (odd and place == 0) or (place == last and letter in ". ")
        else letter
        for place, letter in enumerate(name)
    )


def is_image_name(name: str, begin: Callable[[str], bytes] | None = None) -> bool:
    """Whether a file is an image: by a suffix that images usually have, or else by its first bytes.

    So no file of a usual set is read to list it, and no other name hides an image.

    Args:
        name: with forward slashes.
        begin: reads the first bytes of a file by its name; None where that cannot be done.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    return begin is not None and suffix not in RAW_SUFFIXES and bool(format_of(begin(name)))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is a system's own: ``.DS_Store``, ``__MACOSX/``, ``.git/``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _wrapper_depth(kept: list[tuple[str, ...]], folders: list[tuple[str, ...]]) -> int:
    """How many folders merely wrap the set, as in an archive of one folder."""
    depth = 0
    while True:
        tops = {parts[depth] for parts in kept if len(parts) > depth}
        siblings = {parts[depth] for parts in folders if len(parts) > depth}
        deep = all(len(parts) > depth + 2 for parts in kept)
        if len(tops | siblings) != 1 or not deep or next(iter(tops)).lower() in SPLIT_NAMES:
            return depth
        depth += 1
