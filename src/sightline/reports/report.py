"""The report of a finished run: one page that says how good it is, on what, where wrong, how sure, how to repeat it.

That of a generator is in ``generators``. Nothing here loads Lightning; torch is loaded where there are mistakes to explain.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config import to_yaml
from sightline.data.thumbnails import Thumbnails, affordable, data_uri, open_own
from sightline.display.pages import write_html
from sightline.display.terminal import natural_key
from sightline.errors import ConfigError, DataError, StorageError
from sightline.evaluation.answers import Answers, read_answers, read_measures
from sightline.evaluation.results import about_classes, about_cost, most_confused, warnings
from sightline.evaluation.uncertainty import about_doubt
from sightline.measures.metrics import suspected_labels
from sightline.reports.generator_page import generator_page
from sightline.reports.probe_section import about_learning_curve, about_probe
from sightline.reports.sentences import (
    Told,
    about_learning,
    about_settings,
    commands,
    lead,
    repeat,
)
from sightline.runs.folder import REPORT, is_generator, read_model_of_finished
from sightline.runs.outcomes import read_outcome
from sightline.runs.writing import plain_text

__all__ = ["report"]

A_CELL = 25  # images behind a cell of the confusion matrix, at most
MATRIX = 25  # classes, up to which the confusion matrix is shown whole
PAIRS = 40  # most confused pairs that are listed where it is not
SHOWN = 24  # mistakes, and suspected labels, that are shown
SIDE = 128  # pixels of a mistake
CELL_SIDE = 64  # pixels of an image behind a cell
PIXELS = 3_000_000  # of all images behind cells: about 2 MB of page
EXPLAINED = 8  # images that Grad-CAM looks at together

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cell:
    """Images of one class that got one answer."""

    key: str
    count: int
    share: float
    """Of the images of the class."""
    right: bool
    title: str
    shade: float
    """From 0 to 1: of a right answer its share, of a wrong one its share as a part of the largest of a wrong one."""


@dataclass(frozen=True)
class Picture:
    """An image behind a cell."""

    uri: str
    text: str
    file: str


@dataclass(frozen=True)
class Panel:
    """What opens behind a cell."""

    key: str
    title: str
    text: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix, or the most confused pairs of many classes."""

    about: str
    classes: Sequence[str]
    panels: Sequence[Panel]
    rows: Sequence[tuple[str, Sequence[Cell]]] = field(default=())
    pairs: Sequence[tuple[str, str, Cell]] = field(default=())

    @property
    def long(self) -> bool:
        """Whether a name is too long to stand over its column."""
        return max(map(len, self.classes)) > 3


@dataclass(frozen=True)
class Card:
    """An image with what is said of it."""

    title: str
    text: str
    file: str
    uris: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Images under a heading."""

    title: str
    about: str
    cards: Sequence[Card]


def report(
    run: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    trust_code: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the report of a finished run: one page of HTML that holds all it shows.

    Args:
        run: the run's folder.
        out: file to write (.html); None for ``report.html`` in the run.
        trust_code: run the code of the repository that a network of ``torch.hub`` is built by, to explain its mistakes; a
            generator has none.
        progress: called with (images done, images in all) where the image set must be decoded again.
    Returns:
        The page.
    Raises:
        ConfigError: ``out`` is no page, or the network needs a library that is missing, or code that is not trusted; or
            ``trust_code`` for a generator.
        RunError: no run, not finished, or damaged.
        StorageError: the page cannot be written.
    """
    path = Path(run) / REPORT if out is None else Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {path} must end in .html, the format of the report.")
    folder, model = Path(run), read_model_of_finished(run, generator=None)
    if is_generator(model):
        if trust_code:
            raise ConfigError(
                "--trust-code has no effect on the report of a generator, which runs no code; leave it out."
            )
        write_html(path, "generator.html", **generator_page(folder, model))
        return path
    measured = read_measures(folder) if model.get("metrics") else None
    answers = None if measured is None else read_answers(folder, model["classes"], measured)
    told = Told(model, measured, answers, read_outcome(folder))
    doubts = warnings(told)
    thumbnails = None
    if answers is not None:
        thumbnails, why = _images_of(folder, model, answers, progress)
        doubts += [why] if why else []
    galleries: list[Gallery] = []
    if answers is not None:
        galleries, unexplained = _galleries(told, answers, thumbnails, trust_code)
        doubts += [unexplained] if unexplained else []
    write_html(
        path,
        "report.html",
        title=f"Report: {folder.resolve().name}",
        lead=lead(told),
        warnings=doubts,
        confusion=None if answers is None else _confusion(told, answers, thumbnails),
        sections_on_classes=[] if measured is None else [about_classes(told)],
        galleries=galleries,
        sections=[
            *about_probe(model),
            *about_learning_curve(model),
            *about_doubt(told),
            *about_learning(told),
            about_settings(told),
            about_cost(told, told.outcome.backbone_flops),
        ],
        recipe=to_yaml(told.outcome.recipe),
        repeat=repeat(model, told.outcome.recipe.fit.seed),
        commands=commands(),
    )
    return path


def _images_of(
    run: Path, model: dict[str, Any], answers: Answers, progress: Callable[[int, int], None] | None
) -> tuple[Thumbnails | None, str]:
    """The images of the answers; where they cannot be shown None, and a sentence that says why."""
    without = "so the page is without pictures."
    try:
        found = open_own(run, model, progress)
    except (DataError, StorageError) as error:
        return None, f"The image set cannot be opened, {without} {str(error)[:1].upper()}{str(error)[1:]}"
    if found is None:
        return None, f"The image set is not what the run was trained on any more, {without}"
    missing = [file for file in answers.files if file not in found]
    if missing:
        return (
            None,
            f"The image set has other names than when the run was measured (no {plain_text(missing[0])}), {without}",
        )
    return found, ""


# ── the confusion matrix ─────────────────────────────────────────────────────────────────────────────────────────────


def _confusion(told: Told, answers: Answers, thumbnails: Thumbnails | None) -> Confusion:
    assert told.measured is not None
    counts_KK = np.array(told.measured["confusion_matrix"])
    classes = told.classes
    whole = len(classes) <= MATRIX
    if whole:
        shown = [(int(true), int(answer)) for true, answer in np.argwhere(counts_KK)]
    else:
        shown = most_confused(counts_KK, PAIRS)
    cells = {pair: _cell(classes, counts_KK, *pair) for pair in shown}
    panels = _panels(answers, cells, thumbnails)
    opens = f"Tap a number to see {'images' if thumbnails else 'files'} behind it, {A_CELL} at most."
    if whole:
        empty = Cell("", 0, 0.0, False, "", 0.0)
        order = sorted(range(len(classes)), key=lambda index: natural_key(classes[index]))
        rows = [(classes[true], [cells.get((true, answer), empty) for answer in order]) for true in order]
        about = (
            "Each row is a true class, each column an answer; right answers are blue, wrong ones orange, the darker the larger"
            f" their share of the class. {opens}"
        )
        return Confusion(about, [classes[index] for index in order], panels, rows=rows)
    mistakes = int(counts_KK.sum() - np.trace(counts_KK))
    about = (
        f"A matrix of {len(classes)} classes would fit no screen: these are the {len(shown)} pairs that are confused most,"
        f" with {sum(cell.count for cell in cells.values()):,} of all {mistakes:,} mistakes. {opens}"
    )
    pairs = [(classes[true], classes[answer], cell) for (true, answer), cell in cells.items()]
    return Confusion(about, classes, panels, pairs=pairs)


def _cell(classes: Sequence[str], counts_KK: Array, true: int, answer: int) -> Cell:
    shares_KK = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
    count, share, right = int(counts_KK[true, answer]), float(shares_KK[true, answer]), true == answer
    images = f"{count:,} image{'s' if count > 1 else ''} of {classes[true]}"
    title = f"{images}, recognized" if right else f"{images}, taken for {classes[answer]}"
    most_wrong = float((shares_KK - np.diag(np.diag(shares_KK))).max())
    return Cell(f"{true}-{answer}", count, share, right, title, share if right else share / most_wrong)


def _panels(answers: Answers, cells: dict[tuple[int, int], Cell], thumbnails: Thumbnails | None) -> list[Panel]:
    side = thumbnails.side if thumbnails else CELL_SIDE
    counts = [cell.count for cell in cells.values()]
    most, side = affordable(counts, min(side, CELL_SIDE), most=A_CELL, pixels=PIXELS)
    panels = []
    for (true, answer), cell in cells.items():
        surest_first = answers.surest_first(
            np.flatnonzero((answers.labels_N == true) & (answers.predicted_N == answer))
        )
        rows = (surest_first[::-1] if cell.right else surest_first)[:most]
        which = f"{'least sure' if cell.right else 'surest'} first" + (
            f", {len(rows)} of {cell.count:,}" if len(rows) < cell.count else ""
        )
        pictures = [
            Picture(
                thumbnails.uri(answers.files[row], side) if thumbnails else "",
                f"{answers.probabilities_NK[row, answer]:.3f}",
                _short(answers.files[row]),
            )
            for row in rows.tolist()
        ]
        panels.append(Panel(cell.key, cell.title, f"with the probability of the answer; {which}", pictures))
    return panels


def _short(file: str) -> str:
    """The last part of a file's path."""
    return plain_text(file).rpartition("/")[2]


# ── mistakes and suspected labels ────────────────────────────────────────────────────────────────────────────────────


def _galleries(
    told: Told, answers: Answers, thumbnails: Thumbnails | None, trust_code: bool
) -> tuple[list[Gallery], str]:
    """The worst mistakes and the suspected labels; and a sentence where Grad-CAM cannot explain the mistakes."""
    worst = answers.wrong[:SHOWN].tolist()
    explained: list[Array] = []
    unexplained = ""
    if thumbnails and worst:
        explained, unexplained = _explained(told, answers, thumbnails, worst, trust_code)
    about = "The wrong answers that it was surest of."
    if explained:
        about += " Beside each image what spoke for the answer (Grad-CAM), yellow the most; how bright two images are cannot be compared."
    cards = [_card(told, answers, row, thumbnails, explained[number : number + 1]) for number, row in enumerate(worst)]
    galleries = [Gallery("The worst mistakes", about, cards)] if cards else []
    if answers.complete:
        suspects = suspected_labels(answers.probabilities_NK, answers.labels_N)
        about = (
            f"{len(suspects) or 'None'} of {len(answers.files):,} images {'are' if len(suspects) > 1 else 'is'} suspected to"
            " bear a wrong label, by the rule of confident learning (Northcutt et al., 2021): another class is more probable"
            " than the label, and at least as probable as it is"
            " on average of the images that bear its name."
        )
        if len(suspects):
            about += " Look before you believe it: they may be plain mistakes of the classifier."
        if len(suspects) > SHOWN:
            about += f" The {SHOWN} most suspect:"
        cards = [_card(told, answers, row, thumbnails) for row in suspects[:SHOWN].tolist()]
        galleries.append(Gallery("Suspected wrong labels", about, cards))
    return galleries, unexplained


def _card(
    told: Told, answers: Answers, row: int, thumbnails: Thumbnails | None, explained: Sequence[Array] = ()
) -> Card:
    classes, file = told.classes, answers.files[row]
    label, answer = int(answers.labels_N[row]), int(answers.predicted_N[row])
    own = answers.probabilities_NK[row, label]
    likely = answers.likeliest(row, 3)
    if label not in dict(likely) and (answers.complete or own > 0):
        likely.append((label, float(own)))
    spoken = [
        f"{classes[index]}{' (the label)' if index == label else ''}: {probability:.3f}"
        for index, probability in likely
    ]
    uris = [thumbnails.uri(file, SIDE)] if thumbnails else []
    uris += [data_uri(picture, SIDE) for picture in explained]
    title = f"labeled {classes[label]}, answer {classes[answer]}"
    return Card(title, " · ".join(spoken), plain_text(file), uris)


def _explained(
    told: Told, answers: Answers, thumbnails: Thumbnails, rows: Sequence[int], trust_code: bool
) -> tuple[list[Array], str]:
    """Images with what spoke for the answers to them, by Grad-CAM; where the network has no map for it none, and why."""
    import torch

    from sightline.data.augment.augment import normalize
    from sightline.display.pictures import overlaid
    from sightline.inference.predict import load
    from sightline.machine.devices import keep_freed_memory
    from sightline.models.gradcam import default_layer, grad_cam

    keep_freed_memory()
    classifier = load(told.outcome.run, trust_code=trust_code)
    found = []
    for start in range(0, len(rows), EXPLAINED):
        some = list(rows[start : start + EXPLAINED])
        pixels_BHWC = np.stack([thumbnails.pixels(answers.files[row]) for row in some])
        on_device = torch.from_numpy(pixels_BHWC).to(classifier.device)
        images_BCHW = normalize(on_device, classifier.mean, classifier.std, torch.float32)
        predicted_B = torch.from_numpy(answers.predicted_N[some]).to(classifier.device)
        try:
            layer = default_layer(classifier.network, images_BCHW)
            heat_BHW = grad_cam(classifier.network, images_BCHW, predicted_B, layer).cpu().numpy()
        except ConfigError as error:
            return [], f"What spoke for the wrong answers is not shown: {error}"
        found += [overlaid(*pair) for pair in zip(pixels_BHWC, heat_BHW, strict=True)]
    return found, ""
