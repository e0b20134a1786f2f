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
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from sightline.errors import DataError, StorageError
from sightline.images.columns import read_texts, write_texts
from sightline.images.decoding import UnreadableImageError, decode, in_parallel, pixel_hash, resize
from sightline.images.layout import Entry
from sightline.images.sources import DownloadedSource, ImageSource

__all__ = [
    "CachedImages",
    "built_once",
    "cache_folder",
    "cached",
    "clear",
    "new_cache",
    "open_as_trained",
    "open_images",
    "survey",
    "training_size",
    "write_columns",
]

FORMAT = 4  # rises when what is stored changes; older caches are then built anew
SMALL_SIDE = 64  # pixels; sets up to here keep their size
DEFAULT_SIDE = 128  # pixels; training size of larger images
MARGIN = 1.15  # larger images are cached this much larger than the training size, to crop from
SMALLEST_SIDE = 16  # pixels; smaller images are enlarged to this, which every network can read
SMALLEST_SQUARE = 32  # pixels; training size of larger images, at least
SAMPLED = 64  # images, at least, whose sizes decide the training size
CHUNK = 64  # images between two reports of progress
PIXELS = "pixels.u8"
_SPARE_BYTES = 64 << 20  # left free on the disk
_OURS = re.compile(r"[\w-]*-[0-9a-f]{20}(\.lock|\.partial-\w+)?")  # names of what lies in the cache folder

Progress = Callable[[int, int], None]
Array = np.ndarray[Any, Any]


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

    @property
    def readable(self) -> Array:
        """Rows that can be used, (n,)."""
        return np.flatnonzero(self.labels >= 0)

    @property
    def fingerprint(self) -> str:
        """Changes when the pixels or labels of the set change, not when it is moved or renamed, nor by what lies beside it."""
        return self.fingerprint_of(self.readable[self.readable < len(self.labels) - self.generated])

    def fingerprint_of(self, rows: Array) -> str:
        """Changes when the pixels or labels of some images change."""
        pairs = sorted(f"{self.hashes[row]} {self.classes[self.labels[row]]}" for row in rows)
        return hashlib.sha256("\n".join(pairs).encode("utf-8", "surrogateescape")).hexdigest()[:16]


Shape = tuple[int, int]


def open_images(
    source: ImageSource,
    size: int | None = None,
    progress: Progress | None = None,
    *,
    at_most: int = DEFAULT_SIDE,
    exactly: tuple[Shape, Shape] | None = None,
) -> CachedImages:
    """Open the cache of an image set, building it first where there is none.

    Args:
        source: the image set.
        size: side of the training images in pixels; None decides by the images.
        progress: called with (megabytes done, megabytes in all) while downloading, then with (images done, images in
            all) while decoding.
        at_most: side of the training images that their own size decides, in pixels.
        exactly: (training size, cached size), each (height, width), for a classifier that is there already.
    Raises:
        DataError: the set cannot be used: nothing readable, or a class without readable images.
        StorageError: the disk is too full, or the cache folder cannot be written.
    """
    key = _key(source, exactly or size or (None if at_most == DEFAULT_SIDE else (None, at_most)))
    return built_once(key, lambda folder: _build(source, size, at_most, exactly, folder, progress))


def survey(source: ImageSource, progress: Progress | None = None) -> tuple[int, tuple[int, int]]:
    """Count the images of a set, and tell their median (height, width) in pixels by a sample, without decoding it.

    A set that is downloaded is decoded all the same, since it may need its archive no more.
    """
    if isinstance(source, DownloadedSource):
        images = open_images(source, None, progress)
        return len(images.readable), images.size
    entries = source.scan().entries
    sizes = _sample_sizes(source, sorted(entries, key=lambda entry: entry.path))
    height, width = (round(statistics.median(side)) for side in zip(*sizes, strict=True))
    return len(entries), (height, width)


def open_as_trained(
    source: ImageSource,
    size: int | None,
    exactly: tuple[Shape, Shape],
    progress: Progress | None = None,
) -> CachedImages:
    """Open an image set at the sizes at which a run was trained on it, from the cache of that training where it is there.

    A run remembers its sizes: how a size is decided where none was asked for may have changed since.

    Args:
        source: the image set.
        size: the side that the run's recipe asks for; None where the images decided.
        exactly: (training size, cached size) of the run, each (height, width).
        progress: as ``open_images`` has it.
    Raises:
        DataError, StorageError: as ``open_images`` raises them.
    """
    images = open_images(source, size, progress)
    if (images.size, images.pixels.shape[1:3]) == exactly:
        return images
    return open_images(source, None, progress, exactly=exactly)


def built_once(key: str, build: Callable[[Path], None]) -> CachedImages:
    """Open the cache of a key; where there is none, one process builds it and the others wait.

    Args:
        key: its name in the cache folder.
        build: makes the folder that it is given.
    Raises:
        StorageError: the disk is too full, or the cache folder cannot be written.
    """
    root = cache_folder()
    folder = root / key
    if not (folder / "index.json").exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f"{key}.lock"):
                for leftover in root.glob(f"{key}.partial-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                if not (folder / "index.json").exists():
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


def cache_folder() -> Path:
    """Where caches lie: ``SIGHTLINE_CACHE``, or ``sightline`` in the user's cache folder."""
    named = os.environ.get("SIGHTLINE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sightline"


def cached() -> list[dict[str, Any]]:
    """What the cache folder holds: name, location, images, bytes and folder of each set."""
    rows = []
    for index in sorted(cache_folder().glob("*/index.json")):
        if not _OURS.fullmatch(index.parent.name) or "." in index.parent.name:
            continue  # another's, or one that is being built
        header = json.loads(index.read_text("utf-8"))
        size = sum(file.stat().st_size for file in index.parent.iterdir())
        rows.append(
            {key: header[key] for key in ("name", "location")}
            | {"images": header["images"], "bytes": size, "folder": str(index.parent)}
        )
    return rows


def clear() -> int:
    """Delete every cache; returns the bytes freed. Image sets and the files of others are never touched."""
    freed = 0
    root = cache_folder()
    for path in root.glob("*"):
        if not _OURS.fullmatch(path.name):
            continue
        if path.is_dir():
            freed += sum(file.stat().st_size for file in path.iterdir())
            if "." not in path.name:  # no cache under its name may be half deleted
                path = path.rename(f"{path}.partial-{os.getpid()}")
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == ".lock":
            path.unlink(missing_ok=True)
    return freed


def training_size(
    sizes: list[tuple[int, int]], wanted: int | None, at_most: int = DEFAULT_SIDE
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Decide the size to train at and the size to cache.

    Args:
        sizes: (height, width) of a sample of the images, in pixels.
        wanted: side asked for; None decides by the medians.
        at_most: the largest side that is decided, in pixels.
    Returns:
        ((height, width) to train at, (height, width) to cache).
    """
    height, width = (round(statistics.median(side)) for side in zip(*sizes, strict=True))
    shorter = min(height, width)
    if max(height, width) <= SMALL_SIDE:
        if wanted is not None:
            height = width = wanted
        elif shorter < SMALLEST_SIDE:
            height, width = (min(SMALL_SIDE, round(side * SMALLEST_SIDE / shorter)) for side in (height, width))
        return (height, width), (height, width)
    side = wanted or max(SMALLEST_SQUARE, min(at_most, int(shorter / MARGIN) // 8 * 8))
    return (side, side), (round(side * MARGIN),) * 2


# ── building ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _key(source: ImageSource, size: object) -> str:
    text = f"{FORMAT}\0{source.location}\0{source.fingerprint()}\0{size}"
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in source.name)[:40]
    return f"{safe}-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:20]}"


def _build(
    source: ImageSource,
    size: int | None,
    at_most: int,
    exactly: tuple[Shape, Shape] | None,
    folder: Path,
    progress: Progress | None,
) -> None:
    if isinstance(source, DownloadedSource):
        source.download(progress)
    listing = source.scan()
    order = sorted(range(len(listing.entries)), key=lambda index: (listing.entries[index].path, index))
    row_of = {index: row for row, index in enumerate(order)}
    entries = [listing.entries[index] for index in order]  # in the order of the rows
    native = _sample_sizes(source, entries)  # by path: the same sample however the set is packed
    trained, (height, width) = exactly or training_size(native, size, at_most)
    with new_cache(folder, source.name, (len(entries), height, width, 3)) as (partial, pixels):
        hashes, tiny, reasons = [""] * len(entries), [], {}
        small = max(max(sides) for sides in native) <= SMALL_SIDE
        for number, digest, reason, enlarged in _decode_all(source, listing.entries, pixels, row_of, small, progress):
            row = row_of[number]
            hashes[row] = digest
            if reason:
                reasons[row] = reason
            elif enlarged:
                tiny.append(entries[row].path)
        labels, index = _index(source, entries, reasons)
        index |= {
            "size": trained,
            "cached": [height, width],
            "tiny": sorted(tiny),
            "ignored": dict(listing.ignored),
            "suffixes": listing.suffixes,
            "notes": listing.notes,
        }
        columns = ([getattr(entry, name) for entry in entries] for name in ("path", "split", "group"))
        write_columns(partial, labels, (*columns, hashes), index)


@contextmanager
def new_cache(folder: Path, name: str, shape: tuple[int, ...]) -> Iterator[tuple[Path, Array]]:
    """Make a cache folder that appears under its name only when whole.

    Args:
        folder: to make.
        name: of the set, for the sentence where there is no room.
        shape: of its pixels, (N, H, W, 3).
    Yields:
        The folder under another name, to write the columns to, and the pixels to fill.
    Raises:
        StorageError: the disk has no room for the pixels.
    """
    needed = math.prod(shape)
    free = shutil.disk_usage(folder.parent).free
    if needed + _SPARE_BYTES > free:
        raise StorageError(
            f"the cache of {name} needs {needed / 1e9:.1f} GB and {folder.parent} has {free / 1e9:.1f} GB free;"
            " free space, set SIGHTLINE_CACHE to another disk, or choose a smaller --data.size."
        )
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        _reserve(partial / PIXELS, needed)
        pixels = np.memmap(partial / PIXELS, np.uint8, "r+", shape=shape)
        yield partial, pixels
        pixels.flush()
        del pixels
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_columns(folder: Path, labels: Array, texts: Iterable[Sequence[str | None]], index: Mapping[str, Any]) -> None:
    """Write what a cache holds beside its pixels: class indices, (paths, splits, groups, hashes), and the header."""
    np.save(folder / "labels.npy", labels)
    write_texts(folder, texts)
    (folder / "index.json").write_text(json.dumps(index, ensure_ascii=True), "utf-8")


def _reserve(path: Path, size: int) -> None:
    """Make a file of a size and claim its disk space: a map of a file that cannot grow would end in a bus error."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def _index(source: ImageSource, entries: list[Entry], reasons: dict[int, str]) -> tuple[Array, dict[str, Any]]:
    """Class indices and header of a set, checked: every class of the listing must have kept a readable image."""
    if len(reasons) == len(entries):
        first = min(reasons)
        raise DataError(
            f"none of the {len(entries)} images in {source.location} can be read (the first, {entries[first].path!r}:"
            f" {reasons[first]}); wanted JPEG, PNG, WebP, BMP, GIF or TIFF files."
        )
    classes = sorted({entry.label for entry in entries})
    index_of = {name: index for index, name in enumerate(classes)}
    labels = [-1 if row in reasons else index_of[entry.label] for row, entry in enumerate(entries)]
    kept = set(labels)
    lost = [name for name in classes if index_of[name] not in kept]
    if lost:
        raise DataError(
            f"class {lost[0]!r} in {source.location} has no readable image; mend its files or delete the class."
        )
    return np.array(labels, np.int64), {
        "name": source.name,
        "location": source.location,
        "classes": classes,
        "images": len(entries),
        "left_out": [[entries[row].path, reason] for row, reason in sorted(reasons.items())],
    }


def _sample_sizes(source: ImageSource, entries: list[Entry]) -> list[tuple[int, int]]:
    """(height, width) of SAMPLED to twice as many images spread evenly over the set."""
    sample = entries[:: max(1, len(entries) // SAMPLED)]
    sizes = []
    for _, data in source.read(sample):
        try:
            sizes.append(_pixels(data).shape[:2])
        except UnreadableImageError:
            continue
    return sizes or [(SMALLEST_SIDE, SMALLEST_SIDE)]  # broken ones only: the full pass will say so


Decoded = tuple[int, str, str, bool]  # index of the entry, hash, reason left out, enlarged more than four times


def _decode_all(
    source: ImageSource,
    entries: list[Entry],
    pixels: Array,
    row_of: dict[int, int],
    tiny: bool,
    progress: Progress | None,
) -> Iterator[Decoded]:
    """Decode every image into its row."""

    def work(item: tuple[int, Any]) -> Decoded:
        return _decode_one(*item, pixels, row_of[item[0]])

    seen: set[int] = set()
    for decoded in in_parallel(work, source.read(entries), tiny=tiny):
        seen.add(decoded[0])
        if progress and (len(seen) % CHUNK == 0 or len(seen) == len(entries)):
            progress(len(seen), len(entries))
        yield decoded
    for index in range(len(entries)):
        if index not in seen:
            yield index, "", "listed but not found when read", False


def _decode_one(index: int, data: Any, pixels: Array, row: int) -> Decoded:
    try:
        found = _pixels(data)
    except UnreadableImageError as error:
        return index, "", str(error), False
    height, width = pixels.shape[1:3]
    pixels[row] = resize(found, height, width)
    enlarged = min(found.shape[:2]) * 4 < min(height, width)
    return index, pixel_hash(found).hex(), "", enlarged


def _pixels(data: Any) -> Array:
    if isinstance(data, OSError):
        raise UnreadableImageError(data.strerror or str(data))
    return decode(data) if isinstance(data, bytes) else data


def _open(folder: Path) -> CachedImages:
    index = json.loads((folder / "index.json").read_text("utf-8"))
    shape = (index["images"], *index["cached"], 3)
    paths, splits, groups, hashes = read_texts(folder, index["images"])
    return CachedImages(
        name=index["name"],
        location=index["location"],
        folder=folder,
        size=tuple(index["size"]),
        classes=index["classes"],
        paths=paths,
        labels=np.load(folder / "labels.npy"),
        splits=splits,
        groups=groups,
        hashes=hashes,
        left_out=[tuple(pair) for pair in index["left_out"]],
        tiny=index["tiny"],
        ignored=index["ignored"],
        pixels=np.memmap(folder / PIXELS, np.uint8, "c", shape=shape),  # torch warns of read-only arrays
        suffixes=index["suffixes"],
        notes=index["notes"],
        generated=index.get("generated", 0),
    )
