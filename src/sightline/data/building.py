"""Decode an image set, in parallel, into a cache folder that appears only when whole. Images N, height H, width W."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.data.columns import ENDS, TEXTS, write_texts
from sightline.data.sizing import SMALL_SIDE, SMALLEST_SIDE, median_size, training_size
from sightline.data.sources.downloads import Progress
from sightline.data.sources.entries import Entry
from sightline.data.sources.source import DownloadedSource, ImageSource
from sightline.errors import DataError, StorageError
from sightline.runs.writing import rename
from sightline_runtime.decoding.decode import (
    WANTED,
    Decoded,
    UnreadableImageError,
    in_parallel,
    pixel_hash,
    read_image,
    resize,
)
from sightline_runtime.decoding.preprocessing import Preprocessing

__all__ = ["EXTREMES", "INDEX", "LABELS", "PIXELS", "build", "digest_of", "new_cache", "sample_sizes", "write_columns"]

SAMPLED = 64  # images, at least, whose sizes decide the training size
CHUNK = 64  # images between two reports of progress
PIXELS, LABELS, EXTREMES, INDEX = "pixels.u8", "labels.npy", "extremes.npy", "index.json"
_SPARE_BYTES = 64 << 20  # left free on the disk

Array = np.ndarray[Any, Any]
Shape = tuple[int, int]


@dataclass(frozen=True)
class _Row:
    """The outcome of decoding one image."""

    index: int
    """Of its entry."""
    hash: str = ""
    reason: str = ""
    """Why it is left out; empty where it is not."""
    enlarged: bool = False
    """More than four times."""
    extremes: tuple[float, float] | None = None


def build(
    source: ImageSource,
    size: int | None,
    at_most: int,
    exactly: tuple[Shape, Shape] | None,
    preprocessing: Preprocessing,
    folder: Path,
    progress: Progress | None,
) -> None:
    """Decode a set into a new cache folder; arguments as ``open_images`` has them."""
    if isinstance(source, DownloadedSource):
        source.download(progress)
    listing = source.scan()
    order = sorted(range(len(listing.entries)), key=lambda index: (listing.entries[index].name, index))
    row_of = {index: row for row, index in enumerate(order)}
    entries = [listing.entries[index] for index in order]  # in the order of the rows
    native = sample_sizes(source, entries)  # by path: the same sample however the set is packed
    trained, (height, width) = exactly or training_size(native, size, at_most, preprocessing.fit)

    def fill(partial: Path, pixels: Array) -> None:
        hashes, tiny, reasons = [""] * len(entries), [], {}
        extremes = np.full((len(entries), 2), np.nan)
        small = max(max(sides) for sides in native) <= SMALL_SIDE
        for outcome in _decode_all(source, listing.entries, pixels, row_of, small, preprocessing, progress):
            row = row_of[outcome.index]
            hashes[row] = outcome.hash
            if outcome.reason:
                reasons[row] = outcome.reason
            elif outcome.enlarged:
                tiny.append(entries[row].name)
            if outcome.extremes is not None:
                extremes[row] = outcome.extremes
        labels, index = _index(source, entries, reasons)
        index |= {
            "size": trained,
            "cached": [height, width],
            "median": list(median_size(native)),
            "tiny": sorted(tiny),
            "ignored": dict(listing.ignored),
            "suffixes": listing.suffixes,
            "notes": listing.notes,
            **preprocessing.kept(),
        }
        columns = ([getattr(entry, name) for entry in entries] for name in ("name", "split", "group"))
        write_columns(partial, labels, (*columns, hashes), index, extremes)

    new_cache(folder, source.name, (len(entries), height, width, 3), fill)


def new_cache(folder: Path, name: str, shape: tuple[int, ...], fill: Callable[[Path, Array], None]) -> None:
    """Make a cache folder that appears under its name only when whole.

    Args:
        folder: to make.
        name: of the set, for the sentence where there is no room.
        shape: of its pixels, (N, H, W, 3).
        fill: writes the columns to the folder, under another name, and fills the pixels. It keeps none of them:
            Windows renames no folder that has a file in it mapped into memory.
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
        fill(partial, pixels)
        pixels.flush()
        del pixels
        rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_columns(
    folder: Path,
    labels: Array,
    texts: Iterable[Sequence[str | None]],
    index: Mapping[str, Any],
    extremes: Array | None = None,
) -> None:
    """Write what a cache holds beside its pixels.

    Args:
        labels: class indices, (N,).
        texts: paths, splits, groups and hashes.
        index: the header.
        extremes: lowest and highest value of each image of more than 8 bits a channel, (N, 2), NaN of the others;
            nothing is written where there are only others.
    """
    np.save(folder / LABELS, labels)
    write_texts(folder, texts)
    if extremes is not None and np.isfinite(extremes).any():
        np.save(folder / EXTREMES, extremes)
    text = json.dumps({**index, "digest": digest_of(folder, index)}, ensure_ascii=True)
    (folder / INDEX).write_text(text, "utf-8")


def digest_of(folder: Path, index: Mapping[str, Any]) -> str:
    """Return a digest of all that a cache holds beside its pixels, by which damage is noticed.

    Args:
        index: the header, with or without its own digest.
    """
    digest = hashlib.sha256()
    for name in (LABELS, TEXTS, ENDS, EXTREMES):
        path = folder / name
        digest.update(f"{name} {path.stat().st_size if path.exists() else -1}".encode())
        if path.exists():
            digest.update(path.read_bytes())
    header = {key: value for key, value in index.items() if key != "digest"}
    digest.update(json.dumps(header, sort_keys=True, ensure_ascii=True).encode())
    return digest.hexdigest()[:20]


def _reserve(path: Path, size: int) -> None:
    """Make a file of a size and claim its disk space: a map of a file that cannot grow would end in a bus error."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def _index(source: ImageSource, entries: list[Entry], reasons: dict[int, str]) -> tuple[Array, dict[str, Any]]:
    """Return class indices and header of a set; every class of the listing must have kept a readable image."""
    if len(reasons) == len(entries):
        first = min(reasons)
        raise DataError(
            f"none of the {len(entries)} images in {source.location} can be read (the first, {entries[first].path!r}:"
            f" {reasons[first]}); wanted {WANTED} files."
        )
    classes = sorted({entry.label for entry in entries})
    index_of = {name: index for index, name in enumerate(classes)}
    labels = [-1 if row in reasons else index_of[entry.label] for row, entry in enumerate(entries)]
    kept = set(labels)
    lost = [name for name in classes if index_of[name] not in kept]
    if lost:
        first = next(row for row, entry in enumerate(entries) if entry.label == lost[0])
        raise DataError(
            f"class {lost[0]!r} in {source.location} has no readable image (the first, {entries[first].path!r}:"
            f" {reasons[first]}); mend its files or delete the class."
        )
    return np.array(labels, np.int64), {
        "name": source.name,
        "location": source.location,
        "classes": classes,
        "images": len(entries),
        "left_out": [[entries[row].name, reason] for row, reason in sorted(reasons.items())],
    }


def sample_sizes(source: ImageSource, entries: list[Entry]) -> list[Shape]:
    """Measure (height, width) of SAMPLED to twice as many images spread evenly over the set."""
    sample = entries[:: max(1, len(entries) // SAMPLED)]
    sizes = []
    for _, data in source.read(sample):
        try:
            sizes.append(_read(data, None, Preprocessing(), hashed=False).size)
        except UnreadableImageError:
            continue
    return sizes or [(SMALLEST_SIDE, SMALLEST_SIDE)]  # broken ones only: the full pass will say so


def _decode_all(
    source: ImageSource,
    entries: list[Entry],
    pixels: Array,
    row_of: dict[int, int],
    tiny: bool,
    preprocessing: Preprocessing,
    progress: Progress | None,
) -> Iterator[_Row]:
    """Decode every image into its row."""

    def work(item: tuple[int, Any]) -> _Row:
        return _decode_one(*item, pixels, row_of[item[0]], preprocessing)

    seen: set[int] = set()
    for outcome in in_parallel(work, source.read(entries), tiny=tiny):
        seen.add(outcome.index)
        if progress and (len(seen) % CHUNK == 0 or len(seen) == len(entries)):
            progress(len(seen), len(entries))
        yield outcome
    for index in range(len(entries)):
        if index not in seen:
            yield _Row(index, reason="listed but not found when read")


def _decode_one(index: int, data: Any, pixels: Array, row: int, preprocessing: Preprocessing) -> _Row:
    height, width = pixels.shape[1:3]
    try:
        decoded = _read(data, (height, width), preprocessing, hashed=True)
    except UnreadableImageError as error:
        return _Row(index, reason=str(error))
    pixels[row] = decoded.pixels
    enlarged = min(decoded.size) * 4 < min(height, width)
    return _Row(index, decoded.hash.hex(), "", enlarged, decoded.extremes)


def _read(data: Any, size: Shape | None, preprocessing: Preprocessing, *, hashed: bool) -> Decoded:
    """Read an image that a source hands out: the bytes of a file, pixels, or why it cannot be read."""
    if isinstance(data, OSError):
        raise UnreadableImageError(data.strerror or str(data))
    if isinstance(data, bytes):
        return read_image(data, size, preprocessing, hashed=hashed)
    shown = data if size is None else resize(data, *size, preprocessing.fit)
    return Decoded(shown, pixel_hash(data) if hashed else b"", (data.shape[0], data.shape[1]))
