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

__all__ = ["ABOUT_LABELS", "excluded_fingerprint", "leave_out", "read_excluded", "without"]

COLUMN, FINDING = "file", "finding"
ABOUT_LABELS = ("suspected label", "two labels")  # findings of a check that a decision on the label settles
LONGEST = 1000  # letters of a name that others are compared with

Array = np.ndarray[Any, Any]


def read_excluded(path: str | Path) -> list[str]:
    """Read names of images: the column ``file`` of a table, whatever other columns there are, or a text file's lines.

    Raises:
        ConfigError: the file cannot be read, lists nothing, or is a CSV without the column.
    """
    return [name for name, _ in _read(path)]


def _read(path: str | Path) -> list[tuple[str, str]]:
    """Read names of images, each with the finding that it is listed for; empty where none is said."""
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
            lines = _lines(read_table(data, what, lines=is_json_lines(file), errors="surrogateescape"))
        else:
            text = decode_text(data, what, "surrogateescape")  # a name of a file need not be UTF-8
            lines = [(name, "") for name in re.split("\r\n|\n|\r", text)]
    except DataError as error:
        raise ConfigError(str(error)) from error
    lines = [line for line in lines if line[0].strip()]
    if not lines:
        raise ConfigError(f"{what} has no effect: it lists no images; leave the option out.")
    return lines


def _lines(table: Table) -> list[tuple[str, str]]:
    column = choose(table, ((COLUMN,), *PATHS))
    if column is None:
        columns = ", ".join(table.columns)[:200]
        raise ConfigError(
            f"{table.what} has no column {COLUMN!r} (found: {columns or 'nothing'}); its first line must name it."
        )
    finding = choose(table, ((FINDING,),))
    columns_of = {COLUMN: column} | ({} if finding is None else {FINDING: finding})
    return [(row[COLUMN] or "", (row.get(FINDING) or "").strip()) for _, row in table.records(columns_of)]


def leave_out(images: CachedImages, splits: Splits, path: str | Path) -> Splits:
    """Return the same splits without the images of a list; where images are that stay is not changed.

    What somebody has decided on a label (``correcting``) goes before a list that a check made for that label's sake.

    Args:
        images: the set.
        splits: as they were cut of the whole set.
        path: of the list; its names are the set's own, as findings and predictions have them.
    Raises:
        ConfigError: a name is of no image of the set, or no image of train and validation is listed.
        DataError: nothing would be left of a class to train on, or nothing to validate on.
    """
    listed = _read(path)
    rows = _rows(images, [name for name, _ in listed], path)
    settled = _settled(images, listed, path)
    learned = np.union1d(splits.train, splits.validation)
    gone = np.intersect1d(np.setdiff1d(rows, settled), learned)
    staying = np.intersect1d(rows, splits.test)
    if not len(gone) and (images.corrected is None or not len(np.intersect1d(rows, images.corrected.decided))):
        raise ConfigError(
            f"--data.exclude {path} has no effect: none of its {len(rows):,} images is trained or validated on"
            f" ({len(staying):,} are test images, which stay); leave the option out."
        )
    left = without(images, splits, gone, f"--data.exclude {path}")
    counts = [len(np.intersect1d(gone, part)) for part in (splits.train, splits.validation)]
    notes = [*left.notes, f"left out as listed: {counts[0]:,} of train, {counts[1]:,} of validation"]
    if len(settled):
        notes.append(f"{len(settled):,} images are listed for labels that were decided since: the decision holds")
    if len(staying):
        notes.append(f"{len(staying):,} listed test images stay: what is measured must not depend on a list")
    return replace(left, notes=notes, excluded=gone)


def _settled(images: CachedImages, listed: list[tuple[str, str]], path: str | Path) -> Array:
    """Return the rows that are listed for their labels alone, on which somebody has decided since."""
    if images.corrected is None:
        return np.array([], np.int64)
    doubted = {name for name, finding in listed if finding in ABOUT_LABELS}
    doubted -= {name for name, finding in listed if finding not in ABOUT_LABELS}
    return np.intersect1d(_rows(images, sorted(doubted), path), images.corrected.decided)


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
