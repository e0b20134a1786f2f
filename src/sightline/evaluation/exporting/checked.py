"""The images that an exported file is checked with: the run's own validation images, or those of another set."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.data.cache import CachedImages, open_as_trained, open_images
from sightline.data.correcting import correct
from sightline.data.excluding import leave_out
from sightline.data.seen import trained_on
from sightline.data.sources.downloads import Progress
from sightline.data.sources.find_source import find_like_run, source_of_run
from sightline.data.sources.source import ImageSource
from sightline.data.splits import Splits, split_as
from sightline.data.units import group_numbers
from sightline.errors import ConfigError, DataError
from sightline.evaluation.as_labeled import class_indices
from sightline.inference.classifier import Classifier
from sightline.runs.folder import read_run_recipe

__all__ = ["MOST", "Checked", "images_to_check"]

MOST = 2_000  # images that are measured on

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Checked:
    """Images of an opened set that a file is measured on, and others that its ranges are set by."""

    images: CachedImages
    source: ImageSource
    rows: Array
    """Those that are measured on, (N,)."""
    labels_N: Array
    """Class indices of the classifier."""
    others: Array
    """Rows of further images, which int8 is calibrated with; the same where there are none."""
    split: str
    """What ``rows`` are, such as validation."""
    learned: int | None
    """How many of them the classifier learned from; None where that is not known."""

    @property
    def groups(self) -> Array | None:
        """Number of the group of each measured image; None where the set has none."""
        return group_numbers(self.images, self.rows)

    def originals(self, count: int) -> Iterator[tuple[str, Any]]:
        """Yield path and content of the files of some measured images, or why one cannot be read."""
        wanted = {self.images.paths[row] for row in spread(self.rows, count)}
        entries = [entry for entry in self.source.scan().entries if entry.name in wanted]
        for index, data in self.source.read(entries):
            yield entries[index].name, data


def images_to_check(
    run: str | os.PathLike[str] | None,
    classifier: Classifier,
    data: str | os.PathLike[str] | None,
    progress: Progress | None = None,
) -> Checked:
    """Open the images that the file of a classifier is checked with.

    Args:
        run: folder of the run, its weights file, or None for the classifier in the box.
        classifier: of that run.
        data: another image set; None takes the run's own.
        progress: called with (images done, images in all).
    Raises:
        ConfigError: the run does not know its own images.
        DataError: they are not there any more, or the set has a class that the classifier does not know.
    """
    model = classifier.model
    folder = None if run is None or not Path(run).is_dir() else Path(run)
    if data is None and (folder is None or not model["data"].get("location")):
        raise ConfigError(
            "an exported file is checked with images, and weights alone do not say which; name labeled ones: --data"
            " SET."
        )
    source = _own_source(model, run) if data is None else find_like_run(data, model)
    if data is not None:
        source.least = 1
    exactly = (classifier.size, classifier.resize)
    if folder is None:
        images = open_images(source, None, progress, exactly=exactly, preprocessing=classifier.preprocessing)
    else:
        size = read_run_recipe(folder).data.size
        images = open_as_trained(source, size, exactly, progress, classifier.preprocessing)
    own = images.fingerprint == model["data"]["fingerprint"]
    if data is None and not own:
        raise DataError(
            f"the images in {images.location} are not those that {run} was trained on, so the exported file cannot be"
            " checked with them; bring them back, or name others: --data SET."
        )
    if own and folder is not None:
        images, splits = _splits(folder, model, images)
        rows, others = splits.validation, splits.train
        split = "validation" if len(rows) else "train"
    else:
        rows, others, split = _foreign(images)
    rows = spread(rows if len(rows) else others, MOST)
    labels_N, others = _labels(classifier, images, rows), others if len(others) else rows
    return Checked(images, source, rows, labels_N, others, split, _learned(folder, model, images, rows, split))


def _learned(run: Path | None, model: dict[str, Any], images: CachedImages, rows: Array, split: str) -> int | None:
    """Count the rows that a classifier learned from; None where that is not known."""
    learned_N = None if run is None else trained_on(run, images, rows)
    if learned_N is not None:
        return int(learned_N.sum())
    if images.fingerprint != model["data"]["fingerprint"]:
        return None
    counts: dict[str, int] = model["data"]["counts"]  # of weights alone, and of runs that did not note their images
    shares = {"train": 1.0, "all": counts["train"] / sum(counts.values())}
    return round(len(rows) * shares.get(split, 0.0))


def spread(rows: Array, most: int) -> Array:
    """Return at most so many of some rows, evenly spread."""
    if len(rows) <= most:
        return rows
    chosen: Array = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
    return chosen


def _own_source(model: dict[str, Any], run: str | os.PathLike[str] | None) -> ImageSource:
    try:
        return source_of_run(model)
    except DataError as error:
        raise DataError(
            f"the images of {run} are not at {model['data']['location']} any more, and the exported file is checked"
            " with them; name where they are, or other labeled images: --data SET."
        ) from error


def _splits(run: Path, model: dict[str, Any], images: CachedImages) -> tuple[CachedImages, Splits]:
    """Cut the splits of a run, with the labels that it learned from."""
    recipe = read_run_recipe(run)
    splits = split_as(recipe, images, model["data"].get("split_rule", 1), run)
    if recipe.data.corrections is not None:
        images, splits = correct(images, splits, recipe.data)
    if recipe.data.exclude is not None:
        splits = leave_out(images, splits, recipe.data.exclude)
    return images, splits


def _foreign(images: CachedImages) -> tuple[Array, Array, str]:
    """Return rows to measure on, others, and what the first are: the set's test split, or all of it."""
    rows = images.readable
    test = np.array([row for row in rows.tolist() if images.splits[row] == "test"], np.int64)
    return (test, np.setdiff1d(rows, test), "test") if len(test) else (rows, rows, "all")


def _labels(classifier: Classifier, images: CachedImages, rows: Array) -> Array:
    index_of = class_indices(classifier.classes, images.classes)
    names = [images.classes[label] for label in images.labels[rows]]
    for name in names:
        if name not in index_of:
            raise DataError(
                f"class {name!r} of {images.name} is unknown to the classifier, which knows"
                f" {', '.join(classifier.classes[:10])}{', ...' if len(classifier.classes) > 10 else ''}; rename the"
                " class folders."
            )
    return np.array([index_of[name] for name in names], np.int64)
