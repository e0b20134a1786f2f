"""The right and the wrong answers of a run to its own test images, as galleries show them: filtered, by pages.

N images, K classes. Nothing here knows what draws them; no torch.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from sightline.data.thumbnails import Thumbnails, open_own
from sightline.errors import DataError, RunError, StorageError
from sightline.evaluation.answers import Answers, read_answers, read_measures
from sightline.runs.writing import plain_text

__all__ = ["PAGE", "Exhibits", "Opening", "Selection"]

PAGE = 24  # images a page
EXAMPLES = 10  # images to click, at most

Array = np.ndarray[Any, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """The answers to show, and their order."""

    right: bool
    true: int | None = None
    """Index of the true class; None for any."""
    predicted: int | None = None
    """Index of the class that was answered; None for any."""
    surest_first: bool = True
    """Or the least sure first."""


@dataclass(frozen=True)
class Exhibits:
    """The answers of a run and the images that they are to."""

    answers: Answers
    classes: list[str]
    split: str
    """That the images belong to, such as ``test``."""
    thumbnails: Thumbnails

    def rows(self, selection: Selection) -> Array:
        """Return the rows of the answers that are selected, in their order, (n,)."""
        answers = self.answers
        held_N = (answers.predicted_N == answers.labels_N) == selection.right
        for index, labels_N in ((selection.true, answers.labels_N), (selection.predicted, answers.predicted_N)):
            if index is not None:
                held_N &= labels_N == index
        surest_first = answers.surest_first(np.flatnonzero(held_N))
        return surest_first if selection.surest_first else surest_first[::-1]

    def true_classes(self, right: bool) -> list[tuple[int, int]]:
        """Return the true classes that occur among the right, or the wrong, answers: (index, images), by index."""
        return _counted(self.answers.labels_N[self.rows(Selection(right))])

    def predicted_classes(self, right: bool, true: int | None = None) -> list[tuple[int, int]]:
        """Return the classes that were answered, to images of a true class or of any: (index, images), by index."""
        return _counted(self.answers.predicted_N[self.rows(Selection(right, true))])

    def examples(self) -> list[int]:
        """Return a right answer of each class, up to ten, neither the surest nor the least sure of its class."""
        of_classes = [self.rows(Selection(True, index)) for index, _ in self.true_classes(right=True)]
        middle = [int(rows[len(rows) // 2]) for rows in of_classes]
        step = max(1, len(middle) / EXAMPLES)
        return [middle[int(place * step)] for place in range(min(EXAMPLES, len(middle)))]

    def name(self, row: int) -> str:
        """Return what an image's file is called within its set."""
        return plain_text(self.answers.files[row])

    def true(self, row: int) -> str:
        """Return the class that an image bears."""
        return self.classes[int(self.answers.labels_N[row])]

    def predicted(self, row: int) -> str:
        """Return the class that was answered."""
        return self.classes[int(self.answers.predicted_N[row])]

    def probability(self, row: int) -> float:
        """Return the probability of the answer."""
        return float(self.answers.probabilities_NK[row, self.answers.predicted_N[row]])

    def likeliest(self, row: int, most: int) -> list[tuple[str, float]]:
        """Return the most probable classes of an image with their probabilities, highest first."""
        return [(self.classes[index], probability) for index, probability in self.answers.likeliest(row, most)]


def _counted(indices: Array) -> list[tuple[int, int]]:
    return sorted(Counter(indices.tolist()).items())


class Opening:
    """Opens the exhibits of a run on a thread of its own: its images may have to be decoded again, which takes a while.

    What it says is shown to visitors, so it holds no path of the machine; the log has the whole reason.
    """

    def __init__(self, run: Path | None, model: Mapping[str, Any]) -> None:
        """
        Args:
            run: its folder; None of weights alone, which have no images.
            model: what the classifier knows of itself.
        """
        self.exhibits: Exhibits | None = None
        self.done = False
        """Whether there is nothing left to wait for."""
        self.says = "The images are being opened."
        self._run = run
        self._model = model
        self._thread = Thread(target=self._open, name="exhibits", daemon=True)

    def start(self) -> None:
        """Begin, once."""
        self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until there is nothing left to wait for."""
        self._thread.join(seconds)

    def _open(self) -> None:
        try:
            self.says = self._read()
        except (RunError, DataError, StorageError) as error:
            log.warning("no galleries: %s", error)
            what = "answers of the run cannot be read" if isinstance(error, RunError) else "image set cannot be opened"
            self.says = f"The {what} any more, so there is nothing to show here; the log of the server says why."
        except Exception:
            log.exception("no galleries")
            self.says = "Something went wrong while the images were opened; the log of the server says what."
        finally:
            self.done = True

    def _read(self) -> str:
        """Read what there is to show; return a sentence where there is nothing."""
        if self._run is None:
            return "These weights came without their run, so there are no answers to test images to show."
        if not self._model.get("metrics"):
            return "The run was measured on no images, so there are no answers to show."
        measured = read_measures(self._run)
        answers = read_answers(self._run, self._model["classes"], measured)
        thumbnails = open_own(self._run, self._model, self._progress)
        if thumbnails is None:
            return "The image set is not what the run was trained on any more, so there is nothing to show here."
        if missing := sum(file not in thumbnails for file in answers.files):
            return (
                f"The image set has other names than when the run was measured ({missing:,} files are missing), so"
                " there is nothing to show here."
            )
        self.exhibits = Exhibits(answers, self._model["classes"], str(measured.get("split", "test")), thumbnails)
        return ""

    def _progress(self, done: int, total: int) -> None:
        self.says = f"The images are being decoded: {done:,} of {total:,}."
