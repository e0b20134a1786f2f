"""The accuracy by the labels that a set came with, beside the one by corrected labels. N images, V views, K classes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sightline.config.fitting import DataConfig
from sightline.data.cache import CachedImages
from sightline.data.correcting import correct, correct_rows
from sightline.data.sources.table_rows import canonical_label
from sightline.data.splits import Splits
from sightline.data.units import group_numbers
from sightline.errors import ConfigError, DataError
from sightline.measures.significance import measure_accuracy

__all__ = ["accuracy_as_labeled", "class_indices", "correct_as_trained", "correct_to_measure"]

Array = np.ndarray[Any, Any]


def accuracy_as_labeled(
    images: CachedImages, rows: Array, predicted_N: Array, known: list[str], predict: Callable[[Array], Array]
) -> dict[str, Any] | None:
    """Measure an accuracy by the labels that a set came with, of all images that it would have been measured on.

    Args:
        images: the set, whose labels may have been corrected.
        rows: the images that were measured, (N,).
        predicted_N: their predicted classes, as indices of ``known``.
        known: classes of the classifier.
        predict: returns the predicted classes of other rows, those that were left out on request.
    Returns:
        Accuracy, interval and n, with how many labels are others (``corrected``) and how many images were left out;
        None where both accuracies are the same by nature.
    """
    if images.corrected is None:
        return None
    given, out = images.as_labeled, images.corrected.left_out
    index_of, now = class_indices(known, given.classes), class_indices(known, images.classes)
    every = np.concatenate([rows, out])
    labels_M = np.array([index_of[given.classes[given.labels[row]]] for row in every], np.int64)
    corrected_N = np.array([now[images.classes[images.labels[row]]] for row in rows], np.int64)
    changed = int((corrected_N != labels_M[: len(rows)]).sum())
    if not changed and not len(out):
        return None
    predicted_M = np.concatenate([predicted_N, predict(out)]) if len(out) else predicted_N
    measured = measure_accuracy(predicted_M == labels_M, group_numbers(images, every))
    return {**measured, "corrected": changed, "left_out": len(out)}


def class_indices(known: list[str], names: list[str]) -> dict[str, int]:
    """Look up the index of each class of a set that a classifier knows, by its name, or by another spelling of it."""
    index_of = {name: index for index, name in enumerate(known)}
    spelled = {canonical_label(name): index for name, index in index_of.items()}
    if len(spelled) == len(index_of):
        index_of |= {name: spelled[canonical_label(name)] for name in names if canonical_label(name) in spelled}
    return index_of


def correct_as_trained(
    images: CachedImages, splits: Splits, data: DataConfig, noted: str | None
) -> tuple[CachedImages, Splits]:
    """Return a set and its splits with the test labels that a run was measured by.

    Args:
        images: the set.
        splits: of the run, as they were cut.
        data: of the recipe of the run.
        noted: the digest of what was corrected in test, of its ``model.json``.
    Raises:
        ConfigError: the corrections file cannot be read.
        DataError: it decides otherwise on test images than it did then.
    """
    if not data.correct_test:
        return images, splits
    images, splits = correct(images, splits, data)
    assert images.corrected is not None
    if images.corrected.facts["test"] != noted:
        raise DataError(
            f"{data.corrections} decides otherwise on test images than when the run was trained; measure by it as it is"
            f" now with --data.corrections {data.corrections}, or bring the earlier file back."
        )
    return images, splits


def correct_to_measure(
    images: CachedImages, rows: Array, path: str, known: list[str]
) -> tuple[CachedImages, Array, list[str]]:
    """Return a set with corrected labels, which of some rows are left to measure on, and notes.

    Args:
        images: the set.
        rows: to measure on, (N,).
        path: of the corrections file.
        known: classes of the classifier.
    Raises:
        ConfigError: the file cannot be read, is of another set, or changes none of these images.
        DataError: nothing would be left.
    """
    images, left, notes = correct_rows(images, rows, path, known=known)
    assert images.corrected is not None
    if not images.corrected.facts["labels"] and not images.corrected.facts["left_out"]:
        if not (kept := len(np.intersect1d(images.corrected.decided, rows))):
            raise ConfigError(
                f"--data.corrections {path} has no effect: it changes no label of the {len(rows):,} images that are"
                " measured; leave the option out."
            )
        notes = [*notes, f"the labels of all {kept:,} images that were decided on are kept"]
    if not len(left):
        raise DataError(f"--data.corrections {path} leaves no image of {images.name} to measure on.")
    return images, left, notes
