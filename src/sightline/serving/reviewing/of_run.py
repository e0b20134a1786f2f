"""The review of a run that is served: the images that it was measured on whose labels look wrong by its own answers."""

import threading
from pathlib import Path

from sightline.data.corrections import CORRECTIONS
from sightline.measures.metrics import label_quality, suspected_labels
from sightline.serving.exhibits import Exhibits, Opening
from sightline.serving.reviewing.items import Corrections, Item, Review
from sightline.serving.reviewing.session import Session
from sightline_runtime.sentences import quoted

__all__ = ["ReviewOfRun", "review_of_run"]


class ReviewOfRun:
    """Opens the review of a run as soon as its images are there."""

    def __init__(self, opening: Opening, run: Path | None) -> None:
        """
        Args:
            opening: opens the images.
            run: folder of the run; None of weights alone.
        """
        self._opening = opening
        self._run = run
        self._lock = threading.Lock()
        self._session: Session | None = None

    def opened(self) -> Session | str:
        """Return the session; a sentence where there is nothing to review, or not yet."""
        exhibits = self._opening.exhibits
        if exhibits is None or self._run is None:
            return self._opening.says + ("" if self._opening.done else " Load this page again in a while.")
        with self._lock:
            if self._session is None:
                self._session = Session(review_of_run(self._run, exhibits))
        if not self._session.review.items:
            return f"By the answers of this classifier, none of its {exhibits.split} images bears a wrong label."
        return self._session


def review_of_run(run: Path, exhibits: Exhibits) -> Review:
    """Return the review of the suspected labels of a run, as its report lists them; decisions go to its folder."""
    answers, images = exhibits.answers, exhibits.thumbnails.images
    quality_N = label_quality(answers.probabilities_NK, answers.labels_N)
    items: dict[str, Item] = {}
    for place in suspected_labels(answers.probabilities_NK, answers.labels_N).tolist():
        row, suggestion = exhibits.thumbnails.row(answers.files[place]), exhibits.predicted(place)
        known = suggestion in images.classes  # not so where the run knows two classes as one
        item = Item(
            row,
            images.paths[row],
            images.hashes[row],
            images.classes[int(images.labels[row])],
            suggestion if known else None,
            exhibits.probability(place) if known else None,
            f"suspected label: quality {quality_N[place]:.3f} by {run.resolve().name}",
            split=exhibits.split,
        )
        items.setdefault(item.digest, item)
    path = (run / CORRECTIONS).absolute()
    verb = f"evaluate {quoted(str(run))}" if exhibits.split == "test" else f"train {quoted(images.location)}"
    notes = [
        f"These are {exhibits.split} images that this classifier gives another class, the most likely wrong first; look"
        " before you believe it. sightline check DATA --review judges the labels of all images.",
    ]
    if exhibits.split == "test":
        notes.append("What is decided on test images changes no training unless --data.correct-test asks for it.")
    command = f"sightline {verb} --data.corrections {quoted(str(path))}"
    title = f"Review of {images.name}, by {run.resolve().name}"
    return Review(title, images, list(items.values()), Corrections(path), lambda _: command, notes, home="/")
