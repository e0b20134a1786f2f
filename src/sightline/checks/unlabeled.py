"""Unlabeled images: which of them to label next, shown with what a run makes of them. N images, D features, K classes.

Nothing here loads torch before there is an image to choose.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.checks.advice import Advice
from sightline.checks.labeled_before import Before, labeled_before
from sightline.checks.problems import KINDS, Finding
from sightline.config.labeling import UnlabeledConfig
from sightline.config.serving import AddressConfig
from sightline.data.answers import CHOSEN, MANIFEST, Answers, Example
from sightline.data.cache import CachedImages, open_images
from sightline.data.corrections import Decision
from sightline.data.seen import number_of
from sightline.data.sources.downloads import Progress
from sightline.data.sources.entries import say_left_out
from sightline.data.sources.unlabeled import UNLABELED, UnlabeledSet
from sightline.display.pages import Item, Page, Picture, Section, Table, data_uri, write_page
from sightline.display.reporting import Listener
from sightline.errors import DataError, RunError
from sightline.runs.folder import read_model_of_finished
from sightline.runs.naming import names_a_run
from sightline.runs.writing import create_folder, write_csv
from sightline.serving.reviewing.items import Corrections, Review
from sightline.serving.reviewing.items import Item as ReviewItem
from sightline_runtime.sentences import quoted

if TYPE_CHECKING:
    from sightline.inference.classifier import Classifier
    from sightline_runtime.predictions import Prediction

__all__ = ["TO_LABEL", "Chosen", "choose_unlabeled", "open_labeling", "review_chosen"]

TO_LABEL = "to label"
"""The kind of what is found."""
PAGE = "check.html"
MOST_LABELED = 2000  # images that the run was trained on, with which others are compared
NAMED = 3  # unreadable files that the screen names
COLUMNS = ("path", "label", "suggestion", "probability", "next", "next_probability", "none_of_these")
LARGEST, SMALL = 160, 64  # pixels of a picture's longer side, and up to which pictures are kept without loss
STRANGE = 1 / 2  # of the images: where more look like none of the classes, the run is for other images
METHOD = (
    "Images are chosen by Uncertainty Herding (Bae, Oliveira and Sutherland, ICLR 2025): each is the one that stands"
    " for most images of which the run is unsure, and that are unlike those that it was trained on and those chosen"
    " before. What is alike is told by what the last layer of the run reads. A copy of a chosen image is passed over.",
    "Chosen images are no sample of all: an accuracy that is measured on them says little. So they are all listed for"
    " training, and the images that the run was validated and tested on stay what they were.",
)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Chosen:
    """Images to label next."""

    folder: Path
    """With check.html, chosen.csv and manifest.csv."""
    images: CachedImages
    """All of the folder, at the size of the run."""
    rows: list[int]
    """Of the chosen images, in the order in which they were chosen."""
    predictions: "list[Prediction]"
    """What the run makes of each."""
    answers: Answers
    """Where the answers go."""
    lead: str
    """How many were chosen among how many."""
    notes: list[str]
    """Sentences: what was left out, and why."""

    command: str
    """Trains with all answers; asks for some where there are none yet."""

    @property
    def advice(self) -> list[Advice]:
        """Return what to do with them."""
        if not self.rows:
            return []
        how = (
            f"Add --review to answer in a browser; or write the right class of each into the column label of"
            f" {self.folder / CHOSEN} (empty: not answered). Then run the same command again: it takes the answers, and"
            " chooses the next."
        )
        return [Advice(f"Label {_times(len(self.rows), 'image')}", "Their labels would teach the run most.", how)]

    @property
    def counts(self) -> dict[str, int]:
        """Count them, as a check counts findings."""
        return {TO_LABEL: len(self.rows)} if self.rows else {}

    @property
    def findings(self) -> list[Finding]:
        """Return the chosen images as findings of a check."""
        return [
            Finding(TO_LABEL, _in_words(prediction), row, score=round(prediction.probability, 6))
            for row, prediction in zip(self.rows, self.predictions, strict=True)
        ]


def choose_unlabeled(config: UnlabeledConfig, folder: Path, trust_code: bool, progress: Progress | None) -> Chosen:
    """Choose the images of a folder whose labels would teach a run most, and write them down.

    Args:
        config: which images, which run, and how many.
        folder: to write to; may be that of an earlier round, whose answers are kept.
        trust_code: run the code of the repository that a network of torch.hub is built by.
        progress: called with (images done, images in all).
    Raises:
        DataError: no image is there, or none can be read.
        RunError: no finished run of a classifier, or the folder to write to holds something else.
    """
    if names_a_run(config.unlabeled):
        raise DataError(f"--unlabeled {config.unlabeled} is a run, and no folder of images; name that with --run.")
    source = UnlabeledSet(config.unlabeled)
    if not config.run.endswith(".safetensors"):
        read_model_of_finished(config.run)
    _refuse_other(folder)
    from sightline.inference.predict import load

    classifier = load(config.run, trust_code=trust_code)
    exactly = (classifier.size, classifier.resize)
    images = open_images(source, None, progress, exactly=exactly, preprocessing=classifier.preprocessing)
    before = labeled_before(config.run, classifier.model, progress)
    create_folder(folder)
    answers = Answers(folder, _examples(source, images), before.rows, classifier.classes)
    said = answers.take_filled_in()
    rows, counts = _askable(images, before, answers)
    chosen, predictions, copies, strange = _choose(classifier, images, rows, before, config.count, progress)
    counts["copies of chosen images"] = copies
    here, gone = answers.write_manifest()
    lead, notes = _sentences(config, images, len(chosen), counts)
    if strange > STRANGE:
        notes.append(
            f"{strange:.0%} of the images look like none of the classes of {config.run}: is it the run for such images?"
        )
    if gone:
        notes.append(f"{_times(gone, 'answered image')} no longer in {images.location}, and not in the manifest.")
    known = f"{_times(len(before.rows), 'image')} of {config.run} and " if before.rows else ""
    notes += [
        f"{MANIFEST} lists {known}{_times(here, 'answer')}.",
        *before.notes,
        *say_left_out(images.ignored, images.suffixes),
    ]
    command = ["sightline", "train", str(folder.absolute() / MANIFEST)]
    if not before.rows and not here:
        command = ["sightline", "check", "--unlabeled", config.unlabeled, "--run", config.run, "--review"]
    done = Chosen(folder, images, chosen, predictions, answers, lead, [*said, *notes], quoted(*command))
    _write(done)
    return done


def _refuse_other(folder: Path) -> None:
    """Refuse a folder that holds something else than an earlier round."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CHOSEN).exists():
        raise RunError(
            f"{folder} holds something else than an earlier choice of images to label; choose another --out."
        )
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; choose another --out.")


def _examples(source: UnlabeledSet, images: CachedImages) -> list[Example]:
    """List the readable images, by the paths of their files."""
    entries = sorted(source.scan().entries, key=lambda entry: entry.name)  # stable: the order of the rows
    readable = set(images.readable.tolist())
    return [
        Example(os.path.normpath(source.root / entry.path), entry.name, images.hashes[row])
        for row, entry in enumerate(entries)
        if row in readable
    ]


def _askable(images: CachedImages, before: Before, answers: Answers) -> tuple[Array, dict[str, int]]:
    """Return the rows that can be chosen, and how many others there are, by the reason."""
    readable = images.readable
    first = {images.hashes[row]: row for row in reversed(readable.tolist())}
    once = np.array(sorted(first.values()), np.int64)
    seen = np.isin(np.array([number_of(images.hashes[row]) for row in once], np.uint64), before.numbers)
    decided = answers.read()
    answered = np.array([images.hashes[row] in decided for row in once.tolist()], bool)
    counts = {
        "unreadable": len(images.left_out),
        "the same, pixel for pixel, as another": len(readable) - len(once),
        "among the images of the run": int(seen.sum()),
        "answered in an earlier round": int((answered & ~seen).sum()),
    }
    return once[~seen & ~answered], counts


def _choose(
    classifier: "Classifier", images: CachedImages, rows: Array, before: Before, count: int, progress: Progress | None
) -> "tuple[list[int], list[Prediction], int, float]":
    """Choose among some rows: (chosen rows, predictions of them, copies passed over, share that look like no class)."""
    if not len(rows):
        return [], [], 0, 0.0
    from sightline.checks.active import spread_out
    from sightline.checks.duplicates import near_duplicates
    from sightline.inference.answering import answer_rows, open_store

    answered = answer_rows(classifier, images, rows, progress)
    labeled_MD = None
    if before.images is not None and len(before.trained):
        some = np.random.default_rng(0).permutation(before.trained)[:MOST_LABELED]
        labeled_MD = np.asarray(open_store(classifier, before.images).vectors(np.sort(some), progress)[0])
    pairs = near_duplicates(images.pixels, rows, answered.features_ND, progress)
    alike = defaultdict(set)
    for first, second in zip(pairs.first_P.tolist(), pairs.second_P.tolist(), strict=True):
        alike[first].add(second)
        alike[second].add(first)
    places, copies = spread_out(
        answered.features_ND,
        answered.probabilities_NK,
        count,
        labeled_MD,
        lambda place, chosen: not alike[int(rows[place])].isdisjoint(rows[chosen].tolist()),
    )
    strange = float(answered.unknown_N.mean())
    chosen = np.array(places, np.int64)
    return rows[chosen].tolist(), answered.predict(chosen) if places else [], copies, strange


# ── the review ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Labels(Corrections):
    """Where a review writes the labels of images that had none; the manifest knows of each at once."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(answers.path)
        self._answers = answers

    def decide(self, item: ReviewItem, after: str | None, new_class: bool = False) -> tuple[Decision, Decision | None]:
        """Write an answer; return it, and what it took the place of."""
        facts = {"file": item.file, "digest": item.digest, "why": item.why, "decided_by": self._name}
        decision = Decision(before=UNLABELED, after=after, new_class=new_class, **facts)
        return decision, self._answers.decide(decision)

    def undo(self, decision: Decision, earlier: Decision | None) -> bool:
        """Take an answer back, so that an earlier one holds again, or none."""
        return self._answers.undo(decision, earlier)


def open_labeling(chosen: Chosen) -> Review:
    """Return the review of the chosen images: each with the run's suggestion, and no label."""
    images, answers = chosen.images, chosen.answers
    items = [
        ReviewItem(row, images.paths[row], images.hashes[row], None, said.label, said.probability, _in_words(said))
        for row, said in zip(chosen.rows, chosen.predictions, strict=True)
    ]
    notes = ["The first images teach most."]
    title = f"Images of {images.name} to label"
    images = replace(images, classes=answers.classes)
    return Review(title, images, items, _Labels(answers), lambda _: chosen.command, notes)


def review_chosen(chosen: Chosen, address: AddressConfig, on_event: Listener) -> None:
    """Show the chosen images on a page in a browser, until Ctrl-C; say how to go on."""
    from sightline.serving.reviewing.server import serve_review

    if not chosen.rows:
        on_event("There is no image left to ask about.")
        return
    on_event("It can be ended by Ctrl-C at any time: answers are kept. The same command again chooses the next images.")
    shown = open_labeling(chosen)
    serve_review(shown, address, on_event)
    done = sum(item.digest in shown.sink.read() for item in shown.items)
    on_event(f"{done:,} of {len(shown.items):,} are answered; train with all answers: {chosen.command}")


# ── what is said and written ─────────────────────────────────────────────────────────────────────────────────────────


def _sentences(
    config: UnlabeledConfig, images: CachedImages, chosen: int, counts: Mapping[str, int]
) -> tuple[str, list[str]]:
    """Say how many images were chosen, and which could not be."""
    lead = f"{chosen:,} of {_times(len(images.paths), 'image')} in {images.location} {'was' if chosen == 1 else 'were'}"
    lead += " chosen to be labeled next."
    if chosen < config.count:
        lead += f" That is fewer than --count {config.count:,}: there are no others to ask about."
    others = [f"{count:,} {reason}" for reason, count in counts.items() if count]
    notes = [f"Not chosen: {'; '.join(others)}."] if others else []
    notes += [f"Unreadable: {path} ({reason})." for path, reason in images.left_out[:NAMED]]
    if len(images.left_out) > NAMED:
        notes.append(f"{_times(len(images.left_out) - NAMED, 'more unreadable file')} listed in {PAGE}.")
    return lead, notes


def _times(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def _in_words(prediction: "Prediction") -> str:
    """Say what the run makes of an image."""
    ranked = list(prediction.probabilities.items())[:2]
    said = ", ".join(f"{label} {chance:.0%}" for label, chance in ranked)
    return f"looks like none of the classes; the nearest: {said}" if prediction.unknown else f"perhaps {said}"


def _write(chosen: Chosen) -> None:
    """Write chosen.csv and the page."""
    folder, images = chosen.folder, chosen.images
    table: list[Sequence[Any]] = []
    for row, prediction in zip(chosen.rows, chosen.predictions, strict=True):
        ranked = [(label, f"{chance:.6f}") for label, chance in list(prediction.probabilities.items())[:2]]
        unknown = "" if prediction.unknown is None else "yes" if prediction.unknown else "no"
        table.append(
            [chosen.answers.paths[images.hashes[row]], "", *(cell for pair in ranked for cell in pair), unknown]
        )
    write_csv(folder / CHOSEN, COLUMNS, table)
    pixelated = " pixelated" if max(images.pixels.shape[1:3]) <= SMALL else ""
    kind = KINDS[TO_LABEL]
    sections = [
        Section(
            kind.title,
            f"{kind.about} Below each stands what the run takes it for, and how sure it is.",
            items=[
                Item([_picture(images, row)], _in_words(prediction))
                for row, prediction in zip(chosen.rows, chosen.predictions, strict=True)
            ],
            look=f"singles{pixelated}",
            count=len(chosen.rows),
            key=TO_LABEL.replace(" ", "-"),
        )
    ]
    if images.left_out:
        unreadable = Table(("file", "why"), images.left_out, texts=2)
        title = KINDS["unreadable"].title
        sections.append(Section(title, table=unreadable, count=len(images.left_out), key="unreadable"))
    lead = [chosen.lead, *(f"{step.title}. {step.why} {step.how}" for step in chosen.advice), *chosen.notes]
    page = Page(f"Images of {images.name} to label", lead, sections, command=chosen.command, method=METHOD)
    write_page(folder / PAGE, page)


def _picture(images: CachedImages, row: int) -> Picture:
    pixels = images.pixels[row]
    return Picture(
        data_uri(pixels, LARGEST, lossless=max(pixels.shape[:2]) <= SMALL), images.paths[row], images.paths[row]
    )
