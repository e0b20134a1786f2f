"""Every image set is decoded once, in parallel, into a memory-mapped file. Images N, height H, width W.

A cache is known by where its set lies, the names, sizes and times of its files, and the size asked for. It is built
under another name and renamed when whole, behind a lock: a kill half-way leaves nothing that is taken for a cache,
and a second process waits instead of decoding again. It lies in the user's cache folder; ``SIGHTLINE_CACHE`` names
another.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from filelock import FileLock
from msgspec.structs import asdict

from sightline.data.building import EXTREMES, INDEX, LABELS, PIXELS, build, digest_of, sample_sizes
from sightline.data.columns import read_texts
from sightline.data.corrections import Corrected
from sightline.data.merging import merged
from sightline.data.sizing import DEFAULT_SIDE, median_size
from sightline.data.sources.downloads import Progress
from sightline.data.sources.folder import BESIDE
from sightline.data.sources.source import DownloadedSource, ImageSource, SharedSource
from sightline.errors import StorageError
from sightline.machine.folders import cache_folder
from sightline_runtime.decoding.decode import can_be_read_now
from sightline_runtime.decoding.preprocessing import DEFAULT, Preprocessing, preprocessing_of

__all__ = [
    "CachedImages",
    "built_once",
    "cached",
    "clear",
    "open_as_trained",
    "open_images",
    "survey",
]

FORMAT = 4  # rises when what is stored changes; older caches are then built anew
_OURS = re.compile(r"[\w-]*-[0-9a-f]{20}(\.lock|\.partial-\w+)?")  # names of what lies in the cache folder

_NOT_FILES = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

Array = np.ndarray[Any, Any]
Shape = tuple[int, int]


class _Index(msgspec.Struct):
    """The header of a cache: what it holds beside its columns."""

    name: str
    location: str
    classes: list[str]
    images: int
    size: Shape
    cached: Shape
    left_out: list[tuple[str, str]]
    tiny: list[str]
    ignored: dict[str, int]
    suffixes: dict[str, dict[str, int]]
    notes: list[str]
    digest: str
    generated: int = 0
    median: Shape | None = None


class _DamagedError(StorageError):
    """A cache folder does not hold what was written into it, or what would be today; it is built anew."""


@dataclass(frozen=True)
class CachedImages:
    """A decoded image set. Row i of every column belongs to image i, in the order of the paths."""

    name: str
    location: str
    folder: Path
    size: tuple[int, int]
    """Training size, (height, width) in pixels; ``pixels`` may be larger, to crop from."""
    classes: list[str]
    """Names in index order, which is their order as text."""
    paths: Sequence[str]
    labels: Array
    """Class indices, (N,); -1 where the image is unreadable."""
    splits: Sequence[str | None]
    groups: Sequence[str | None]
    hashes: Sequence[str]
    """Hash of the full-size pixels; empty where unreadable."""
    left_out: list[tuple[str, str]]
    """(path, reason) of every image that cannot be used."""
    tiny: list[str]
    """Paths of images that were enlarged more than four times."""
    ignored: dict[str, int]
    """Files that are no images of a class, by what they are."""
    pixels: Array = field(repr=False)
    """uint8, (N, H, W, 3), memory-mapped."""
    suffixes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Files that are no images of a class, by what they are and by their suffixes."""
    notes: list[str] = field(default_factory=list)
    """How the folders of the set were read, where another reading is possible."""
    generated: int = 0
    """How many of the last rows are made images that were laid beside the set (see ``joining``)."""
    median: tuple[int, int] | None = None
    """(height, width) of the median image as its file has it, in pixels; None where nobody measured it."""
    preprocessing: Preprocessing = DEFAULT
    """How the pixels were made of the files."""
    extremes: Array | None = None
    """Lowest and highest value of each image of more than 8 bits a channel, (N, 2), NaN of the others; None where there
    are only others."""
    merged: Mapping[str, str] = field(default_factory=dict)
    """Name of the class that images of a class became, of the classes that were merged (see ``merging``)."""
    unmerged: Array | None = None
    """Class indices, (N,), as they were before classes were merged; None where none were."""
    corrected: Corrected | None = None
    """What ``labels`` and ``classes`` were before decisions changed them; None where nothing was decided."""

    @property
    def readable(self) -> Array:
        """Return the rows that can be used, (n,)."""
        return np.flatnonzero(self.labels >= 0)

    @property
    def as_labeled(self) -> "CachedImages":
        """Return the set with the labels that it came with."""
        if self.corrected is None:
            return self
        return replace(self, classes=self.corrected.classes, labels=self.corrected.labels, corrected=None)

    @property
    def fingerprint(self) -> str:
        """Return a digest of the pixels and labels of the set, whatever its place, its name, what lies beside it and
        what corrections make of its labels.
        """
        return self.fingerprint_of(self.readable[self.readable < len(self.labels) - self.generated])

    def fingerprint_of(self, rows: Array) -> str:
        """Return a digest of the pixels and labels of some images."""
        given = self.as_labeled
        pairs = sorted(f"{self.hashes[row]} {given.classes[given.labels[row]]}" for row in rows)
        return hashlib.sha256("\n".join(pairs).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def open_images(
    source: ImageSource,
    size: int | None = None,
    progress: Progress | None = None,
    *,
    at_most: int = DEFAULT_SIDE,
    exactly: tuple[Shape, Shape] | None = None,
    preprocessing: Preprocessing = DEFAULT,
) -> CachedImages:
    """Open the cache of an image set, building it first where there is none.

    Args:
        source: the image set.
        size: side of the training images in pixels; None decides by the images.
        progress: called with (megabytes done, megabytes in all) while downloading, then with (images done, images in
            all) while decoding.
        at_most: side of the training images that their own size decides, in pixels.
        exactly: (training size, cached size), each (height, width), for a classifier that is there already.
        preprocessing: how images of other shapes and depths are shown.
    Raises:
        ConfigError: the source merges classes that the set does not have.
        DataError: the set cannot be used: nothing readable, or a class without readable images.
        StorageError: the disk is too full, or the cache folder cannot be written.
    """

    def opened(how: Preprocessing) -> CachedImages:
        sizes = exactly or size or (None if at_most == DEFAULT_SIDE else (None, at_most))
        key = _key(source, sizes if how == DEFAULT else (sizes, how))
        images = built_once(key, lambda folder: build(source, size, at_most, exactly, how, folder, progress))
        return merged(_with_beside(images, source), source.merge)

    images = opened(Preprocessing(preprocessing.fit))
    if images.extremes is None or images.preprocessing == preprocessing:
        return images
    return opened(preprocessing)  # which matters to images of more than 8 bits alone


def _with_beside(images: CachedImages, source: ImageSource) -> CachedImages:
    """Return the set with what lies beside its images today, which may have changed since the cache was built."""
    if not isinstance(source, SharedSource):
        return images
    now = source.beside()
    before = {reason: count for reason, count in images.ignored.items() if reason not in BESIDE}
    return replace(images, ignored={**now.counts, **before}, suffixes={**images.suffixes, **now.suffixes})


def survey(source: ImageSource, progress: Progress | None = None) -> tuple[int, tuple[int, int]]:
    """Count the images of a set, and tell their median (height, width) in pixels by a sample, without decoding it.

    A set that is downloaded is decoded all the same, since it may need its archive no more.
    """
    if isinstance(source, DownloadedSource):
        images = open_images(source, None, progress)
        return len(images.readable), images.size
    entries = source.scan().entries
    return len(entries), median_size(sample_sizes(source, sorted(entries, key=lambda entry: entry.name)))


def open_as_trained(
    source: ImageSource,
    size: int | None,
    exactly: tuple[Shape, Shape],
    progress: Progress | None = None,
    preprocessing: Preprocessing = DEFAULT,
) -> CachedImages:
    """Open an image set at the sizes at which a run was trained on it, from the cache of that training where it is
    there.

    A run remembers its sizes: how a size is decided where none was asked for may have changed since.

    Args:
        source: the image set.
        size: the side that the run's recipe asks for; None where the images decided.
        exactly: (training size, cached size) of the run, each (height, width).
        progress: as ``open_images`` has it.
        preprocessing: of the run.
    Raises:
        DataError, StorageError: as ``open_images`` raises them.
    """
    images = open_images(source, size, progress, preprocessing=preprocessing)
    if (images.size, images.pixels.shape[1:3]) == exactly:
        return images
    return open_images(source, None, progress, exactly=exactly, preprocessing=preprocessing)


def built_once(key: str, build: Callable[[Path], None]) -> CachedImages:
    """Open the cache of a key; where there is none, or a damaged one, one process builds it and the others wait.

    Args:
        key: its name in the cache folder.
        build: makes the folder that it is given.
    Raises:
        StorageError: the disk is too full, or the cache folder cannot be written.
    """
    root = cache_folder()
    folder = root / key
    try:
        return _open(folder)
    except _DamagedError:
        pass  # or there is none
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{key}.lock"):
            for leftover in root.glob(f"{key}.partial-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            try:
                return _open(folder)  # which another process built meanwhile
            except _DamagedError:
                _remove(folder)
                build(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"the disk of the cache folder {root} is full; free space or set SIGHTLINE_CACHE."
            ) from error
        raise StorageError(
            f"the cache folder {root} cannot be written ({error.strerror}); set SIGHTLINE_CACHE to one that can."
        ) from error
    return _open(folder)


def cached() -> list[dict[str, Any]]:
    """List what the cache folder holds: name, location, images, bytes and folder of each set."""
    rows = []
    for index in sorted(cache_folder().glob(f"*/{INDEX}")):
        if not _OURS.fullmatch(index.parent.name) or "." in index.parent.name:
            continue  # another's, or one that is being built
        size = sum(file.stat().st_size for file in index.parent.iterdir())
        try:
            header = json.loads(index.read_text("utf-8"))
            facts = {key: header[key] for key in ("name", "location", "images")}
        except (ValueError, KeyError, TypeError, OSError, RecursionError):
            facts = {"name": f"{index.parent.name[:-21]} (damaged)", "location": "?", "images": 0}
        rows.append(facts | {"bytes": size, "folder": str(index.parent)})
    return rows


def clear() -> int:
    """Delete every cache; returns the bytes freed. Image sets and the files of others are never touched.

    Raises:
        StorageError: some could not be deleted, as Windows deletes none that a program has open; the others are.
    """
    freed, kept = 0, []
    root = cache_folder()
    for path in root.glob("*"):
        if not _OURS.fullmatch(path.name):
            continue
        try:
            if path.is_dir():
                size = sum(file.stat().st_size for file in path.iterdir())
                _remove(path)
                freed += size
            elif path.suffix == ".lock":
                path.unlink(missing_ok=True)
        except PermissionError:
            kept.append(path.name)
    if kept:
        raise StorageError(
            f"{len(kept)} of what is in {root} cannot be deleted, {kept[0]} for one: another program has it open, or"
            f" its permissions forbid it. {freed / 1e6:,.0f} MB were freed; end the other program and try again."
        )
    return freed


def _remove(folder: Path) -> None:
    """Delete a cache folder; under its own name it is never half deleted."""
    if folder.is_file():
        folder.unlink()
    elif folder.exists() and "." not in folder.name:
        folder = folder.rename(f"{folder}.partial-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)


def _key(source: ImageSource, size: object) -> str:
    text = f"{FORMAT}\0{source.location}\0{source.fingerprint()}\0{size}"
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in source.name)[:40]
    return f"{safe}-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:20]}"


def _open(folder: Path) -> CachedImages:
    """Open a cache folder, all of it checked but for the values of its pixels.

    Raises:
        _DamagedError: there is none, or it does not hold what was written into it.
    """
    try:
        header = json.loads((folder / INDEX).read_text("utf-8"))
        index = msgspec.convert(header, _Index)
        if index.digest != digest_of(folder, header):
            raise _DamagedError(f"{folder}: the digest is another one")
        shape = (index.images, *index.cached, 3)
        if (folder / PIXELS).stat().st_size != math.prod(shape):
            raise _DamagedError(f"{folder}: {PIXELS} is cut off")
        if any(can_be_read_now(reason) for _, reason in index.left_out):
            raise _DamagedError(f"{folder}: what it leaves out can be read by now")
        paths, splits, groups, hashes = read_texts(folder, index.images)
        facts = asdict(index)
        for name in ("images", "cached", "digest"):
            del facts[name]
        return CachedImages(
            **facts,
            folder=folder,
            paths=paths,
            labels=np.load(folder / LABELS),
            splits=splits,
            groups=groups,
            hashes=hashes,
            pixels=np.memmap(folder / PIXELS, np.uint8, "c", shape=shape),  # torch warns of read-only arrays
            preprocessing=preprocessing_of(header),
            extremes=np.load(folder / EXTREMES) if (folder / EXTREMES).exists() else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError, *_NOT_FILES) as error:
        raise _DamagedError(f"{folder}: {error}") from error
