"""Generated images laid beside a real set: they are trained on, and nothing else. Nothing here loads torch.

The real set is cut first, as if there were no others, so that no image of it moves; then the generated ones join train.
Its pixels and theirs are copied into a cache of their own, in which the real images keep their rows.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config.checks import nearest
from sightline.data.building import new_cache, write_columns
from sightline.data.cache import CachedImages, built_once, open_images
from sightline.data.correcting import with_corrected_labels
from sightline.data.sources.find_source import find_source
from sightline.data.sources.source import ImageSource
from sightline.data.splits import Splits
from sightline.errors import ConfigError, DataError

__all__ = ["find_generated", "generated_fingerprint", "join_train"]

AT_ONCE = 1024  # images that are copied together
KEPT_FACTS = (
    "name",
    "location",
    "classes",
    "size",
    "tiny",
    "ignored",
    "suffixes",
    "notes",
    "median",
)  # of the real set
PLACE = "generated"  # what paths of generated images begin with, so that none is that of a real one

Array = np.ndarray[Any, Any]


def find_generated(synthetic: str) -> ImageSource:
    """Find the generated images, without reading them.

    Raises:
        ConfigError: there is no such folder or archive.
    """
    path = Path(synthetic).expanduser()
    if not path.exists():
        raise ConfigError(
            f"--data.synthetic {synthetic}: there is no such folder; make one with `sightline generate RUN --out"
            " FOLDER`."
        )
    try:
        return find_source(path)
    except DataError as error:
        raise ConfigError(f"--data.synthetic: {error}") from error


def join_train(
    images: CachedImages, splits: Splits, synthetic: str, share: float | None, seed: int
) -> tuple[CachedImages, Splits]:
    """Lay generated images beside a set, in train alone.

    Args:
        images: the real set.
        splits: of it.
        synthetic: the generated set: a folder of class folders, as ``sightline generate`` writes it.
        share: of the training images that are generated afterwards; None for all that there are; 1 for nothing but
            these.
        seed: which of them are taken, where not all are: of each class the same share of what there is.
    Returns:
        The joined set, in which rows of the real one are what they were, and its splits.
    Raises:
        ConfigError: a class is not one of the set, or there are too few images for the share.
        DataError: the generated images cannot be read.
    """
    source = find_generated(synthetic)
    exactly = (images.size, (images.pixels.shape[1], images.pixels.shape[2]))
    generated = open_images(source, exactly=exactly, preprocessing=images.preprocessing)
    given = images.as_labeled
    for name in generated.classes:
        if name not in given.classes:
            raise ConfigError(
                f"--data.synthetic {synthetic} has a class {name!r} that {images.name} has not;"
                f" {nearest(name, given.classes)}"
            )
    alone = share == 1
    real = splits.train[:0] if alone else splits.train
    if alone and len(generated.classes) < len(images.classes):
        missing = next(name for name in images.classes if name not in generated.classes)
        raise ConfigError(
            f"--data.synthetic-share 1 trains on generated images alone, and {synthetic} has none of class {missing!r};"
            " generate every class."
        )
    rows = generated.readable if share is None or alone else _drawn(generated, len(real), synthetic, share, seed)
    notes = [*splits.notes, _note(generated, rows, len(real))]
    train = np.concatenate([real, rows + len(images.labels)])
    joined = with_corrected_labels(_joined(given, generated), images)
    return joined, replace(splits, train=train, notes=notes)


def generated_fingerprint(images: CachedImages, splits: Splits) -> str | None:
    """Return a text that changes when other generated images are trained on; None where there are none."""
    if not images.generated:
        return None
    return images.fingerprint_of(splits.train[splits.train >= len(images.labels) - images.generated])


def _note(generated: CachedImages, rows: Array, real: int) -> str:
    classes = len(np.unique(generated.labels[rows]))
    if not real:
        return f"train has {len(rows):,} generated images of {classes} classes, and no real ones"
    return (
        f"train also has {len(rows):,} generated images of {classes} class{'es' if classes > 1 else ''}"
        f" ({len(rows) / (len(rows) + real):.0%} of it)"
    )


def _drawn(generated: CachedImages, real: int, synthetic: str, share: float, seed: int) -> Array:
    """Return the rows that are trained on, ascending."""
    rows = generated.readable
    count = round(real * share / (1 - share))
    if not 1 <= count <= len(rows):
        most = len(rows) / (len(rows) + real)
        raise ConfigError(
            f"--data.synthetic-share {share:g} beside {real:,} training images takes {count:,} generated ones, and"
            f" {synthetic} has {len(rows):,}; generate more, or choose a share of at most {int(most * 1000) / 1000:g}."
        )
    places = np.empty(len(rows))
    for label in np.unique(generated.labels[rows]):
        of_class = np.flatnonzero(generated.labels[rows] == label)
        ranks = np.argsort([_rank(seed, generated, int(row)) for row in rows[of_class]])
        places[of_class[ranks]] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    return np.sort(rows[np.argsort(places, kind="stable")[:count]])


def _rank(seed: int, generated: CachedImages, row: int) -> bytes:
    text = f"{seed}/{generated.hashes[row]}/{generated.paths[row]}"  # by pixels first; of equal ones by name
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _joined(images: CachedImages, generated: CachedImages) -> CachedImages:
    """Both sets in one cache, the real one first."""
    count = len(images.labels) + len(generated.labels)

    def fill(partial: Path, pixels: Array) -> None:
        start = 0
        for part in (images, generated):
            for first in range(0, len(part.pixels), AT_ONCE):
                some = part.pixels[first : first + AT_ONCE]
                pixels[start : start + len(some)] = some
                start += len(some)
        classes = np.array([images.classes.index(label) for label in generated.classes], np.int64)
        labels = np.where(generated.labels < 0, -1, classes[generated.labels])
        columns = {name: [*getattr(images, name), *getattr(generated, name)] for name in ("splits", "groups", "hashes")}
        paths = [*images.paths, *(f"{PLACE}/{path}" for path in generated.paths)]
        index = {name: getattr(images, name) for name in KEPT_FACTS} | {
            "images": count,
            "left_out": [*images.left_out, *generated.left_out],
            "cached": images.pixels.shape[1:3],
            "generated": len(generated.labels),
            **images.preprocessing.kept(),
        }
        write_columns(partial, np.concatenate([images.labels, labels]), (paths, *columns.values()), index)

    def build(folder: Path) -> None:
        new_cache(folder, name, (count, *images.pixels.shape[1:]), fill)

    name = f"{images.name} and {generated.name}"
    key = f"{images.folder.name}\0{generated.folder.name}"
    if images.merged:
        key += f"\0{sorted(images.merged.items())}"
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:20]
    joined = built_once(f"{images.folder.name[:-21]}-and-{generated.folder.name[:-21]}-{digest}"[-120:], build)
    return replace(joined, merged=images.merged)
