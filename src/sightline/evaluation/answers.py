"""Answers of a finished run, image by image: its ``predictions.csv`` read back. N images, K classes. No torch."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import RunError
from sightline.measures.metrics import confusion_matrix
from sightline.runs.folder import read_measures
from sightline.runs.writing import safe_cell

__all__ = ["Answers", "read_answers", "read_measures"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Answers:
    """The answers of a run to the images that it was measured on; row i of every column belongs to image i."""

    files: list[str]
    """As a table has them: see ``writing.safe_cell``."""
    labels_N: Array
    """Index of the true class."""
    predicted_N: Array
    """Index of the most probable class."""
    probabilities_NK: Array
    """Calibrated. Of the five most probable classes and of the true one; 0 for the others, each less than 1/6."""
    complete: bool
    """Whether the table has the probability of every true class; older ones do where it is among the five."""
    groups_N: Array | None = None
    """Number of the group of each image; None where the set has none."""

    @property
    def wrong(self) -> Array:
        """Rows of the wrong answers, the surest first, (n,)."""
        rows = np.flatnonzero(self.predicted_N != self.labels_N)
        return self.surest_first(rows)

    def surest_first(self, rows: Array) -> Array:
        """Sort rows by the probability of their most probable class."""
        ordered: Array = rows[np.argsort(-self.probabilities_NK[rows, self.predicted_N[rows]], kind="stable")]
        return ordered

    def likeliest(self, row: int, most: int) -> list[tuple[int, float]]:
        """List the most probable classes of an image, as (index, probability), highest first, without those of 0."""
        order = np.argsort(-self.probabilities_NK[row], kind="stable")[:most]
        return [
            (int(index), float(self.probabilities_NK[row, index]))
            for index in order
            if self.probabilities_NK[row, index] > 0
        ]


def read_answers(run: Path, classes: Sequence[str], measured: Mapping[str, Any]) -> Answers:
    """Read ``predictions.csv`` of a run.

    Args:
        run: the run's folder.
        classes: names in index order.
        measured: the run's ``evaluation.json``, with which the table must agree.
    Raises:
        RunError: it is missing, damaged, or not the one that was measured.
    """
    path = run / "predictions.csv"
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
        answers = _answers(rows, classes)
    except (OSError, csv.Error, KeyError, ValueError, TypeError) as error:
        raise RunError(
            f"{path} cannot be read ({_reason(error)}); copy the run again from where it was made."
        ) from error
    confusion = confusion_matrix(answers.predicted_N, answers.labels_N, len(classes))
    if confusion.tolist() != measured["confusion_matrix"]:
        raise RunError(
            f"{path} has {len(rows):,} answers that are not those of evaluation.json ({measured['n']:,} images); copy"
            " the run again from where it was made."
        )
    return answers


def _answers(rows: list[dict[str, str]], classes: Sequence[str]) -> Answers:
    index_of = {safe_cell(name): index for index, name in enumerate(classes)}
    probabilities_NK = np.zeros((len(rows), len(classes)), np.float32)
    complete = bool(rows) and "true_probability" in rows[0]
    for number, row in enumerate(rows):
        if None in row.values():
            raise ValueError(f"line {number + 2} is cut off")
        for end in ("", "_2", "_3", "_4", "_5"):
            if row[f"class{end}"]:  # empty where there are fewer classes
                probabilities_NK[number, index_of[row[f"class{end}"]]] = float(row[f"probability{end}"])
        if complete:
            probabilities_NK[number, index_of[row["true_class"]]] = float(row["true_probability"])
    labels_N = np.array([index_of[row["true_class"]] for row in rows], np.int64)
    predicted_N = np.array([index_of[row["class"]] for row in rows], np.int64)
    if not ((probabilities_NK >= 0) & (probabilities_NK <= 1)).all():
        raise ValueError("a probability is not between 0 and 1")
    groups_N = np.array([int(row["group"]) for row in rows], np.int64) if rows and "group" in rows[0] else None
    return Answers([row["file"] for row in rows], labels_N, predicted_N, probabilities_NK, complete, groups_N)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no column or class {error.args[0]!r}"
    return " ".join(str(error).split())
