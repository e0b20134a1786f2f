"""Near duplicates: planted copies that are found, seconds and memory, with an embedding and by cells alone.

    python benchmarks/duplicates.py ../shared/data/cifar10-jpeg.tar.xz [RUN [VECTORS [TIMES]]]

Copies of PLANTED images of each kind of change are laid beside the whole set, and counted as found where they come into
one cluster with their original. The embedding is that of RUN, or of the backbone in the box where RUN is empty; VECTORS
is a file (.npy) that keeps those of the set. With TIMES the set is repeated so many times instead, each copy changed a
little: moved by up to 2 pixels, toned, half of them mirrored; their vectors are those of the originals with noise of a
tenth of their length. Pixels and vectors then lie on disk (in TMPDIR; 7 GB for ten times and 256 numbers). Decoding and embedding are not in the seconds.
"""

import io
import os
import platform
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sightline.checks.duplicates import Pairs, clusters_of, near_duplicates
from sightline.checks.embedding import embed
from sightline.data.batches import derived_seed
from sightline.data.cache import CachedImages, open_images
from sightline.data.sources.find_source import find_source
from sightline.inference.vectors import Vectors
from sightline.measures.metrics import wilson_interval

PLANTED = 200  # images of each kind of change
BLOCK = 8192  # images that are changed at a time

Array = np.ndarray[Any, Any]


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    data, run, vectors, times = (*sys.argv[1:], *("", "", "", "")[len(sys.argv) - 1 :])
    images = open_images(find_source(data))
    vectors_ND = _vectors(images, data, run, Path(vectors) if vectors else None)
    if times:
        _repeated(images, vectors_ND, int(times))
    else:
        _planted(images, run, vectors_ND)
    versions = f"Python {platform.python_version()}, numpy {version('numpy')}"
    print(f"{versions}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


def _vectors(images: CachedImages, data: str, run: str, path: Path | None) -> Array:
    if path is not None and path.exists():
        return np.load(path)
    embedding = embed(find_source(data), run or None)
    vectors_ND = np.zeros((len(images.paths), embedding.features_ND.shape[1]), np.float32)
    vectors_ND[embedding.rows] = embedding.features_ND
    if path is not None:
        np.save(path, vectors_ND)
    return vectors_ND


# ── planted copies ───────────────────────────────────────────────────────────────────────────────────────────────────


def _planted(images: CachedImages, run: str, vectors_ND: Array) -> None:
    random = np.random.default_rng(derived_seed(0, "planted duplicates"))
    total, places, copies = len(images.paths), [], []
    for change in CHANGES.values():
        drawn = np.sort(random.choice(images.readable, PLANTED, replace=False))
        places.append(drawn)
        copies += [change(np.asarray(images.pixels[row]), random) for row in drawn]
    pixels = np.concatenate([images.pixels, np.stack(copies)])
    with tempfile.TemporaryDirectory() as folder:
        for number, copy in enumerate(copies):  # two classes, since a set has them; in the order of their names
            path = Path(folder) / "set" / ("ab"[number % 2]) / f"{number:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(copy)).save(path)
        own = embed(find_source(path.parents[1]), run or None).features_ND
    order = sorted(range(len(copies)), key=lambda number: (number % 2, number))
    vectors = np.concatenate([vectors_ND, own[np.argsort(order)]])
    first = {images.hashes[row]: row for row in reversed(images.readable.tolist())}
    rows = np.r_[sorted(first.values()), np.arange(total, len(pixels))]
    kept = {row: first[images.hashes[row]] for row in images.readable.tolist()}
    for name, features in (("cells and embedding", vectors[rows]), ("cells alone", None)):
        pairs = _measured(name, pixels, rows, features)
        cluster = clusters_of(pairs.first_P, pairs.second_P, len(pixels))
        for number, kind in enumerate(CHANGES):
            start = total + number * PLANTED
            hits = sum(
                int(cluster[kept[row]] == cluster[start + place]) for place, row in enumerate(places[number].tolist())
            )
            low, high = wilson_interval(hits, PLANTED)
            print(f"  {kind}: {hits} of {PLANTED} = {hits / PLANTED:.3f} ({low:.3f} to {high:.3f})", flush=True)


def _window(pixels: Array, left: float, top: float, width: float, height: float) -> Array:
    """Cut out a window, in pixels, and scale it to the size of the image; beyond the image its border is repeated."""
    margin = len(pixels) // 2
    padded = Image.fromarray(np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    box = (left + margin, top + margin, left + width + margin, top + height + margin)
    return np.asarray(padded.resize(pixels.shape[1::-1], Image.Resampling.BICUBIC, box=box))


def _encoded(pixels: Array, random: np.random.Generator) -> Array:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=int(random.integers(30, 80)))
    return np.asarray(Image.open(file))


def _moved(pixels: Array, random: np.random.Generator) -> Array:
    height, width = pixels.shape[:2]
    return _window(pixels, random.uniform(-0.1, 0.1) * width, random.uniform(-0.1, 0.1) * height, width, height)


def _scaled(pixels: Array, random: np.random.Generator) -> Array:
    height, width = pixels.shape[:2]
    scale = np.exp(random.uniform(np.log(0.8), np.log(1.25)))
    return _window(pixels, (1 - scale) / 2 * width, (1 - scale) / 2 * height, scale * width, scale * height)


def _cropped(pixels: Array, random: np.random.Generator) -> Array:
    height, width = pixels.shape[:2]
    across, down = random.uniform(0.75, 0.95, 2)
    left, top = random.uniform(0, 1 - across) * width, random.uniform(0, 1 - down) * height
    return _window(pixels, left, top, across * width, down * height)


def _toned(pixels: Array, random: np.random.Generator) -> Array:
    gray = pixels.mean(axis=2, keepdims=True)
    values = gray + (pixels - gray) * random.uniform(0.3, 1.6)
    mean = values.mean()
    values = (values - mean) * random.uniform(0.6, 1.3) * random.uniform(0.9, 1.1, 3) + mean + random.uniform(-40, 40)
    return values.clip(0, 255).astype(np.uint8)


def _mirrored(pixels: Array, random: np.random.Generator) -> Array:
    return pixels[:, ::-1]


def _mixed(pixels: Array, random: np.random.Generator) -> Array:
    pixels = _toned(_cropped(pixels, random), random)
    return _encoded(pixels[:, ::-1] if random.random() < 0.5 else pixels, random)


CHANGES: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "JPEG, quality 30 to 80": _encoded,
    "moved by up to a tenth of each side": _moved,
    "scaled by 0.8 to 1.25": _scaled,
    "cropped to 0.75 to 0.95 of each side, anywhere": _cropped,
    "color, contrast and brightness": _toned,
    "mirrored": _mirrored,
    "cropped, toned, JPEG, half of them mirrored": _mixed,
}


# ── many times ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _repeated(images: CachedImages, vectors_ND: Array, times: int) -> None:
    random = np.random.default_rng(derived_seed(0, "repeated set"))
    total = len(images.paths)
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.memmap(Path(folder) / "pixels", np.uint8, "w+", shape=(times * total, *images.pixels.shape[1:]))
        vectors = np.memmap(Path(folder) / "vectors", np.float32, "w+", shape=(times * total, vectors_ND.shape[1]))
        pixels[:total], vectors[:total] = images.pixels, vectors_ND
        noise = 0.1 * np.linalg.norm(vectors_ND, axis=1, keepdims=True) / np.sqrt(vectors_ND.shape[1])
        for start in range(total, times * total, BLOCK):
            rows = np.arange(start, min(start + BLOCK, times * total)) % total
            pixels[start : start + len(rows)] = _varied(images.pixels[rows], random)
            step = noise[rows] * random.standard_normal((len(rows), vectors_ND.shape[1]), np.float32)
            vectors[start : start + len(rows)] = vectors_ND[rows] + step
        rows = np.concatenate([images.readable + copy * total for copy in range(times)])
        pairs = _measured(f"{times} times {total:,} images", pixels, rows, Vectors([vectors], rows))
        cluster = clusters_of(pairs.first_P, pairs.second_P, times * total).reshape(times, total)[:, images.readable]
    together = cluster[1:] == cluster[0]
    whole, count = int(together.all(axis=0).sum()), together.shape[1]
    low, high = wilson_interval(whole, count)
    print(f"  in one cluster with the original: {together.mean():.4f} of {together.size:,} copies")
    print(f"  all {times} in one cluster: {whole:,} of {count:,} = {whole / count:.4f} ({low:.4f} to {high:.4f})")


def _varied(pixels_NHWC: Array, random: np.random.Generator) -> Array:
    """Move images by up to 2 pixels, around the border, change brightness and contrast, and mirror half of them."""
    count, height, width = pixels_NHWC.shape[:3]
    down, across = random.integers(-2, 3, (2, count, 1))
    places_NW = (np.arange(width) + across) % width
    places_NW = np.where(random.random((count, 1)) < 0.5, places_NW[:, ::-1], places_NW)
    places_NH = (np.arange(height) + down) % height
    moved = pixels_NHWC[np.arange(count)[:, None, None], places_NH[:, :, None], places_NW[:, None]]
    gain, offset = random.uniform(0.8, 1.1, (count, 1, 1, 1)), random.uniform(-15, 15, (count, 1, 1, 1))
    return (moved * gain.astype(np.float32) + offset.astype(np.float32)).clip(0, 255).astype(np.uint8)


def _measured(name: str, pixels: Array, rows: Array, features: Array | Vectors | None) -> Pairs:
    """Find near duplicates, and print seconds and the most memory that the process itself held meanwhile."""
    held, done = [_held()], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            held.append(_held())

    watching = threading.Thread(target=watch)
    watching.start()
    start, used = time.perf_counter(), time.process_time()
    pairs = near_duplicates(pixels, rows, features)
    passed, used = time.perf_counter() - start, time.process_time() - used
    done.set()
    watching.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{name}: {len(rows):,} images, {len(pairs.score_P):,} pairs, {passed:.0f} s, {used:.0f} s of a processor,"
        f" {max(held) - held[0]:.2f} GB above the {held[0]:.2f} GB held before, {peak:.2f} GB with file pages",
        flush=True,
    )
    return pairs


def _held() -> float:
    """Memory that the process itself holds, in GB."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1e6


if __name__ == "__main__":
    main()
