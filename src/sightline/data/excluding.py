"""Images that a list keeps out of training and validation. Nothing here loads torch.

Test is never touched: whoever could leave images out of it could leave out the hard ones.
"""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config.checks import nearest, shown
from sightline.data.cache import CachedImages
from sightline.data.sources.csv_table import (
    PATHS,
    Table,
    choose,
    decode_text,
    is_json_lines,
    is_table,
    read_table,
)
from sightline.data.sources.entries import composed
from sightline.data.splits import Splits
from sightline.errors import ConfigError, DataError
from sightline.runs.writing import plain_text
from sightline_runtime.files import read_regular

__all__ = ["excluded_fingerprint", "leave_out", "read_excluded", "without"]

COLUMN = "file"
LONGEST = 1000  # letters of a name that others are compared with

Array = np.ndarray[Any, Any]


def read_excluded(path: str | Path) -> list[str]:
    """Read names of images: the column ``file`` of a table, whatever other columns there are, or a text file's lines.

    Raises:
        ConfigError: the file cannot be read, lists nothing, or is a CSV without the column.
    """
    file = Path(path).expanduser()
    what = f"--data.exclude {path}"
    try:
        data = read_regular(file)
    except OSError as error:
        raise ConfigError(
            f"{what} cannot be read ({error.strerror or error}); wanted a CSV file with a column {COLUMN!r}, or a text"
            " file with a path a line."
        ) from error
    try:
        if is_table(file):
            names = _column(read_table(data, what, lines=is_json_lines(file), errors="surrogateescape"))
        else:
            names = re.split(
                "\r\n|\n|\r", decode_text(data, what, "surrogateescape")
            )  # a name of a file need not be UTF-8
    except DataError as error:
        raise ConfigError(str(error)) from error
    names = [name for name in names if name.strip()]
    if not names:
        raise ConfigError(f"{what} has no effect: it lists no images; leave the option out.")
    return names


def _column(table: Table) -> list[str]:
    column = choose(table, ((COLUMN,), *PATHS))
    if column is None:
        columns = ", ".join(table.columns)[:200]
        raise ConfigError(
            f"{table.what} has no column {COLUMN!r} (found: {columns or 'nothing'}); its first line must name it."
        )
    return [row[COLUMN] or "" for _, row in table.records({COLUMN: column})]


def leave_out(images: CachedImages, splits: Splits, path: str | Path) -> Splits:
    """Return the same splits without the images of a list; where images are that stay is not changed.

    Args:
        images: the set.
        splits: as they were cut of the whole set.
        path: of the list; its names are the set's own, as findings and predictions have them.
    Raises:
        ConfigError: a name is of no image of the set, or no image of train and validation is listed.
        DataError: nothing would be left of a class to train on, or nothing to validate on.
    """
    rows = _rows(images, read_excluded(path), path)
    learned = np.union1d(splits.train, splits.validation)
    gone = np.intersect1d(rows, learned)
    staying = np.intersect1d(rows, splits.test)
    if not len(gone):
        raise ConfigError(
            f"--data.exclude {path} has no effect: none of its {len(rows):,} images is trained or validated on"
            f" ({len(staying):,} are test images, which stay); leave the option out."
        )
    left = without(images, splits, gone, f"--data.exclude {path}")
    counts = [len(np.intersect1d(rows, part)) for part in (splits.train, splits.validation)]
    notes = [*left.notes, f"left out as listed: {counts[0]:,} of train, {counts[1]:,} of validation"]
    if len(staying):
        notes.append(f"{len(staying):,} listed test images stay: what is measured must not depend on a list")
    return replace(left, notes=notes, excluded=gone)


def without(images: CachedImages, splits: Splits, gone: Array, what: str) -> Splits:
    """Return splits without some of their images, none of which changes sides.

    Args:
        images: the set.
        splits: of it.
        gone: rows to take away.
        what: how messages name what says so.
    Raises:
        DataError: nothing would be left of a class to train on, or nothing to validate on.
    """
    parts = {name: getattr(splits, name) for name in ("train", "select", "calibrate", "test")}
    kept: dict[str, Any] = {name: np.setdiff1d(rows, gone) for name, rows in parts.items()}
    missing = set(range(len(images.classes))) - set(images.labels[kept["train"]].tolist())
    if missing:
        raise DataError(
            f"{what} leaves class {images.classes[min(missing)]!r} of {images.name} without a training image; list"
            " fewer, add images of the class, or take it out of the set."
        )
    for name in ("select", "calibrate"):
        if len(parts[name]) and not len(kept[name]):
            raise DataError(f"{what} leaves no image to validate on (to {name} by); list fewer.")
    if len(parts["test"]) and not len(kept["test"]):
        raise DataError(f"{what} leaves no test image; list fewer, or leave --data.correct-test out.")
    learned = {images.hashes[row] for name in ("train", "select", "calibrate") for row in kept[name]}
    shared = sum(images.hashes[row] in learned for row in kept["test"])
    return replace(splits, **kept, shared_with_test=shared)


def excluded_fingerprint(images: CachedImages, splits: Splits) -> str | None:
    """Return a text that changes when other images are left out; None where none are."""
    if not len(splits.excluded):
        return None
    lines = sorted(f"{images.hashes[row]} {images.paths[row]}" for row in splits.excluded)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _rows(images: CachedImages, names: list[str], path: str | Path) -> Array:
    """Return the rows of the images that are named, ascending; a manifest may name a file more than once."""
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(images.paths):
        rows_of.setdefault(name, []).append(row)
    rows: set[int] = set()
    for name in map(composed, names):
        stripped = name.strip()
        cell = plain_text(stripped)
        known = next((text for text in (name, stripped, cell, cell.replace("\\", "/")) if text in rows_of), None)
        if known is None:
            raise ConfigError(
                f"--data.exclude {path} lists {shown(name)}, which is no image of {images.name};"
                f" {nearest(name[:LONGEST], rows_of, images.paths[:3])}"
            )
        rows.update(rows_of[known])
    return np.array(sorted(rows), np.int64)
