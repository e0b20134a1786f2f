"""The images that a run was trained and measured on, as lines of a manifest. Nothing here loads torch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config.fitting import DataConfig
from sightline.data.answers import Row
from sightline.data.cache import CachedImages, open_as_trained
from sightline.data.corrections import read_corrections
from sightline.data.seen import Kept, read_kept
from sightline.data.sources.downloads import Progress
from sightline.data.sources.find_source import source_of_run
from sightline.data.sources.folder import FolderSource
from sightline.data.sources.manifest import ManifestSource
from sightline.data.sources.source import DownloadedSource
from sightline.errors import ConfigError, DataError
from sightline.runs.folder import read_run_recipe
from sightline_runtime.decoding.preprocessing import preprocessing_of

__all__ = ["Before", "labeled_before"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Before:
    """Images that were labeled before."""

    numbers: Array = field(default_factory=lambda: np.array([], np.uint64))
    """Of every image that the run was trained, validated or tested on, as ``data.seen`` numbers them, sorted."""
    rows: list[Row] = field(default_factory=list)
    """Those images, each on the side where the run had it; none where they are no files on this machine."""
    images: CachedImages | None = None
    """The set of the run, at the size of the run; None where it is not on this machine."""
    trained: Array = field(default_factory=lambda: np.array([], np.int64))
    """Rows of it that the run was trained on."""
    notes: list[str] = field(default_factory=list)
    """What is missing here, and why."""


def labeled_before(run: str | os.PathLike[str], model: Mapping[str, Any], progress: Progress | None = None) -> Before:
    """Find the images of a run, with the split in which it had each.

    Args:
        run: a finished run, or its weights file, which does not tell its images.
        model: its ``model.json``.
        progress: called with (images done, images in all) where they must be decoded anew.
    Raises:
        DataError, StorageError: the images are there and cannot be read.
        RunError: ``seen.npz`` of the run is broken.
    """
    folder = Path(run)
    if folder.suffix == ".safetensors":
        return Before(notes=[f"{run} is a file of weights, which does not tell what it was trained on; name the run."])
    try:
        kept = read_kept(folder)
    except ConfigError:
        return Before(notes=[f"{run} does not tell its images: an earlier sightline made it, without seen.npz."])
    numbers = reduce(np.union1d, (kept.trained, kept.validated, kept.tested))
    alone = f"manifest.csv lists the answers alone, since the images of {run}"
    try:
        source = source_of_run(model)
    except DataError as error:
        return Before(numbers, notes=[f"{alone} are not where they were: {error}"])
    if isinstance(source, DownloadedSource):
        return Before(numbers, notes=[f"{alone} are a published set, {source.location}, which a manifest cannot list."])
    exactly, data = (tuple(model["size"]), tuple(model["resize"])), read_run_recipe(folder).data
    images = open_as_trained(source, data.size, exactly, progress, preprocessing_of(model))
    trained, *_ = kept.sides(images, images.readable)
    if not isinstance(source, FolderSource | ManifestSource):
        why = f"lie in {source.location}, and a manifest can only list files"
        if os.path.exists(source.location):
            why += ": unpack it, and train on the folder, to go on with all"
        why += "."
        return Before(numbers, [], images, trained, [f"{alone} {why}"])
    entries = sorted(source.scan().entries, key=lambda entry: entry.name)  # stable: the order of the rows
    root = Path(source.location) if isinstance(source, FolderSource) else source.root
    sides = _sides(images, kept)
    labels, notes = _labels(images, sides, data)
    rows = [
        Row(os.path.normpath(root / entry.path), labels[row], sides[row], entry.group or "")
        for row, entry in enumerate(entries)
        if row in sides
    ]
    unused = len(images.readable) - len(rows)
    if unused:
        were = "1 image was" if unused == 1 else f"{unused:,} images were"
        notes.append(f"{were} in {source.location} and not used by {run} (left out of it, or added since): not listed.")
    return Before(numbers, rows, images, trained, notes)


def _sides(images: CachedImages, kept: Kept) -> dict[int, str]:
    """Return the split of each row that the run has used, by its name in a manifest."""
    parts = kept.sides(images, images.readable)
    if not len(kept.tested) and not kept.tested_paths:  # cross-validated: nothing was set aside
        return {row: images.splits[row] or "" for part in parts for row in part.tolist()}
    return {row: name for name, part in zip(("train", "val", "test"), parts, strict=True) for row in part.tolist()}


def _labels(images: CachedImages, sides: Mapping[int, str], data: DataConfig) -> tuple[dict[int, str], list[str]]:
    """Return the class of each row that the run has used, as it was corrected for it, and what a user should know."""
    labels = {row: images.classes[images.labels[row]] for row in sides}
    if data.corrections is None:
        return labels, []
    try:
        decisions = read_corrections(data.corrections)
    except ConfigError as error:
        return labels, [f"Labels are listed as the images have them, without the run's corrections: {error}"]
    for row, label in labels.items():
        decision = decisions.get(images.hashes[row])
        may = sides[row] != "test" or data.correct_test
        if may and decision is not None and decision.before == label and decision.after is not None:
            labels[row] = decision.after
    return labels, []
