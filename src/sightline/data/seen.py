"""The images that a run has trained on, validated on and tested on: ``seen.npz`` in its folder. N images.

A network that starts from an earlier run must not be tested on images that the run has learned from, and a set that has
grown may keep the splits of an earlier run. Images are known by their pixels, wherever they lie now. Nothing here loads
torch.
"""

import csv
import io
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.data.cache import CachedImages
from sightline.errors import ConfigError, RunError
from sightline.runs.hub import fetched
from sightline.runs.writing import plain_text, write_atomically

__all__ = [
    "SEEN",
    "Kept",
    "Seen",
    "about_learned",
    "learned_files",
    "number_of",
    "numbers_of",
    "read_kept",
    "read_own_kept",
    "read_seen",
    "trained_on",
    "trained_rows",
    "write_seen_file",
]

SEEN = "seen.npz"  # in a run folder
PREDICTIONS = "predictions.csv"
_NOTHING = np.array([], np.uint64)
_BROKEN = (EOFError, AttributeError, TypeError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)
_KEPT = ("kept_trained", "kept_validated", "kept_tested")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Seen:
    """Images that weights depend on, as the first 8 bytes of the hashes of their pixels: sorted uint64, (N,)."""

    trained: Array
    validated: Array
    """Not learned from, but looked at to choose or to calibrate."""


@dataclass(frozen=True)
class Kept:
    """The images of an earlier run by what they were for it, as in ``Seen``."""

    run: str
    trained: Array
    validated: Array
    tested: Array
    tested_paths: frozenset[str] = frozenset()
    """Test images of a run that noted only the names of their files."""

    def sides(self, images: CachedImages, rows: Array) -> tuple[Array, Array, Array]:
        """Return which rows were (trained on, validated on, tested on); what was several counts as the first."""
        numbers = np.array([number_of(images.hashes[row]) for row in rows.tolist()], np.uint64)
        named = np.array([images.paths[row] in self.tested_paths for row in rows.tolist()], bool)
        trained = np.isin(numbers, self.trained)
        validated = np.isin(numbers, self.validated) & ~trained
        tested = (np.isin(numbers, self.tested) | named) & ~trained & ~validated
        return rows[trained], rows[validated], rows[tested]


def read_seen(run: Path) -> Seen:
    """Read what a run that is a backbone has seen.

    Raises:
        RunError: it has not written that down, or the file is broken.
    """
    try:
        content = _read(run, "trained", "validated")
        return Seen(content["trained"], content["validated"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(
            f"{run} cannot be a backbone: it has no {SEEN}, which tells the images it was trained on, and an earlier"
            f" sightline made it; train it again: sightline train --config {run}/recipe.yaml --run ANOTHER."
        ) from error


def trained_on(run: Path, images: CachedImages, rows: Array) -> Array | None:
    """Tell which rows a run has trained on, pixel for pixel, bool; None of a run that did not note its images."""
    try:
        trained = _read(run, "trained")["trained"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    numbers = np.array([number_of(images.hashes[row]) for row in rows.tolist()], np.uint64)
    return np.isin(numbers, trained)


def learned_files(run: str | os.PathLike[str] | None, files: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Return which files a run has trained on, pixel for pixel; none of a run or a file that tells of no images.

    Args:
        run: its folder, or what else a classifier is loaded from.
        files: that it was asked about.
        hashes: of their pixels, in hexadecimal.
    """
    try:
        trained = _read(Path(run), "trained")["trained"] if run is not None else _NOTHING
    except (OSError, RunError):
        return []
    learned = np.isin(np.array([number_of(digest) for digest in hashes], np.uint64), trained)
    return [file for file, is_learned in zip(files, learned.tolist(), strict=True) if is_learned]


def about_learned(learned: Sequence[str], total: int) -> list[str]:
    """Return the sentence on images that a run was asked about and has learned from; none where there are none.

    Args:
        learned: their files.
        total: images that were asked about.
    """
    if not learned:
        return []
    which = "this very image" if total == 1 else f"{len(learned):,} of these {total:,} images, such as {learned[0]}"
    return [
        f"the run has learned from {which}: its answers to what it learned by heart are no evidence; to see what it"
        " would answer otherwise, train without (--data.exclude)."
    ]


def trained_rows(run: Path, images: CachedImages, rows: Array) -> Array:
    """Return which rows of its train split a run has trained on: not those that a list excluded.

    Of a run that did not note its images, all rows.
    """
    learned_N = trained_on(run, images, rows)
    return rows if learned_N is None else rows[learned_N]


def read_kept(run: str | os.PathLike[str]) -> Kept:
    """Read which images of an earlier run were on which side.

    Raises:
        ConfigError: there is no such run, or it has not written that down.
        RunError: the file is broken.
    """
    folder = fetched(run)
    try:
        content = _read(folder, "trained", "validated")
        tested = content.get("tested")
        paths = frozenset[str]() if tested is not None else _tested_paths(folder)
        return Kept(str(run), content["trained"], content["validated"], _NOTHING if tested is None else tested, paths)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"--data.keep-split {run}: there is no {SEEN} in it, which tells its images; name the folder of a run."
        ) from error


def read_own_kept(run: Path) -> Kept | None:
    """Return what a run has kept of an earlier one, as it noted it itself; None where it has kept nothing."""
    try:
        content = _read(run, *_KEPT)
        trained, validated, tested = (content[name] for name in _KEPT)
        return Kept(str(run), trained, validated, tested)
    except (OSError, RunError):
        return None


def write_seen_file(run: Path, content: dict[str, Array], kept: Kept | None) -> None:
    """Write ``seen.npz``: numbers by what their images were for the run, and what it has kept of an earlier one."""
    if kept is not None:
        content = content | dict(zip(_KEPT, (kept.trained, kept.validated, kept.tested), strict=True))
    file = io.BytesIO()
    np.savez(file, **content)  # type: ignore[arg-type]
    write_atomically(run / SEEN, file.getvalue())


def numbers_of(hashes: Iterable[str]) -> Array:
    """Return the first 8 bytes of hashes: sorted uint64, each once."""
    return np.unique(np.array([number_of(digest) for digest in hashes], np.uint64))


def number_of(digest: str) -> int:
    """Return the first 8 bytes of a hash."""
    return int(digest[:16], 16) if digest else 0  # hexadecimal: 8 bytes


def _read(run: Path, *names: str) -> dict[str, Array]:
    """Read the arrays of a run's ``seen.npz``, some of which must be there."""
    path = run / SEEN
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        for name, numbers in content.items():
            if numbers.dtype != np.uint64 or numbers.ndim != 1:
                raise ValueError(f"{name} holds {numbers.dtype} of shape {numbers.shape}, no hashes")
        if missing := set(names) - content.keys():
            raise ValueError(f"it has no {min(missing)}")
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (*_BROKEN, OSError, ValueError) as error:
        reason = str(error) or "it is no archive of arrays"
        raise RunError(f"{path} cannot be read ({reason}); copy the run again from where it was made.") from error
    return content


def _tested_paths(run: Path) -> frozenset[str]:
    """Return the files that a run was measured on; validation and train among them are told by their pixels."""
    try:
        with (run / PREDICTIONS).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return frozenset(plain_text(row["file"]) for row in csv.DictReader(file) if row.get("file"))
    except (OSError, csv.Error):
        return frozenset()
