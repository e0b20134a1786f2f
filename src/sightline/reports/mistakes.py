"""Mistakes of a classifier, for its report: confusion matrix, worst mistakes, suspected labels. N images, K classes.

torch is loaded only where there are mistakes to explain.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sightline.data.thumbnails import Thumbnails, affordable
from sightline.display.pages import Item, Link, Picture, Section, Table, data_uri
from sightline.display.terminal import natural_key
from sightline.errors import ConfigError
from sightline.evaluation.answers import Answers
from sightline.evaluation.results import most_confused
from sightline.measures.metrics import suspected_labels
from sightline.reports.sentences import RunFacts
from sightline.runs.writing import plain_text

__all__ = ["confusion_section", "mistake_sections"]

BEHIND_A_CELL = 25  # images behind a cell of the confusion matrix, at most
MATRIX = 25  # classes, up to which the confusion matrix is shown whole
PAIRS = 40  # most confused pairs that are listed where it is not
SHOWN = 24  # mistakes, and suspected labels, that are shown
SIDE = 128  # pixels of a mistake
CELL_SIDE = 64  # pixels of an image behind a cell
PIXELS = 3_000_000  # of all images behind cells: about 2 MB of page
EXPLAINED = 8  # images that are explained together

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]


# ── the confusion matrix ─────────────────────────────────────────────────────────────────────────────────────────────


def confusion_section(facts: RunFacts, answers: Answers, thumbnails: Thumbnails | None) -> Section:
    """Show the confusion matrix, or the most confused pairs of many classes, and the images behind every number."""
    assert facts.measured is not None
    counts_KK = np.array(facts.measured["confusion_matrix"])
    classes = facts.classes
    whole = len(classes) <= MATRIX
    pairs = [(int(true), int(answer)) for true, answer in np.argwhere(counts_KK)]
    if not whole:
        pairs = most_confused(counts_KK, PAIRS)
    links = {pair: _link(classes, counts_KK, *pair) for pair in pairs}
    opens = f"Tap a number to see {'images' if thumbnails else 'files'} behind it, {BEHIND_A_CELL} at most."
    if whole:
        order = sorted(range(len(classes)), key=lambda index: natural_key(classes[index]))
        table = Table(
            ["answer →\nclass ↓", *(classes[index] for index in order)],
            [[classes[true], *(links.get((true, answer), "·") for answer in order)] for true in order],
            look="matrix long" if max(map(len, classes)) > 3 else "matrix",
        )
        about = (
            "Each row is a true class, each column an answer; right answers are blue, wrong ones orange, the stronger"
            f" the color, the larger their share of the class. {opens}"
        )
    else:
        rows = [
            (classes[true], classes[answer], link, f"{counts_KK[true, answer] / counts_KK[true].sum():.4f}")
            for (true, answer), link in links.items()
        ]
        table = Table(("true class", "answer", "images", "of the class"), rows, texts=2)
        about = (
            f"A matrix of {len(classes)} classes would fit no screen: these are the {len(pairs)} pairs that are"
            f" confused most, with {sum(counts_KK[pair] for pair in pairs):,} of all"
            f" {counts_KK.sum() - np.trace(counts_KK):,} mistakes. {opens}"
        )
    return Section("Where it is wrong", about, table, panels=_panels(answers, links, thumbnails))


def _link(classes: Sequence[str], counts_KK: Array, true: int, answer: int) -> Link:
    shares_KK = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
    count, share = int(counts_KK[true, answer]), float(shares_KK[true, answer])
    title = f"{count:,} image{'s' if count > 1 else ''} of {classes[true]}"
    key, text = f"cell-{true}-{answer}", f"{count:,}"
    if true == answer:
        return Link(text, key, f"{title}, recognized", "right", share)
    most_wrong = float((shares_KK - np.diag(np.diag(shares_KK))).max())
    return Link(text, key, f"{title}, taken for {classes[answer]}", "wrong", share / most_wrong)


def _panels(answers: Answers, links: Mapping[Pair, Link], thumbnails: Thumbnails | None) -> list[Section]:
    """Make what opens behind each cell: images with the probability of their answer."""
    rows = {
        (true, answer): np.flatnonzero((answers.labels_N == true) & (answers.predicted_N == answer))
        for true, answer in links
    }
    side = min(thumbnails.side if thumbnails else CELL_SIDE, CELL_SIDE)
    most, side = affordable(list(map(len, rows.values())), side, most=BEHIND_A_CELL, pixels=PIXELS)
    panels = []
    for (true, answer), link in links.items():
        order = answers.surest_first(rows[true, answer])
        right = true == answer
        shown = (order[::-1] if right else order)[:most].tolist()
        about = f"with the probability of the answer; {'least sure' if right else 'surest'} first"
        about += f", {len(shown)} of {len(order):,}" if len(shown) < len(order) else ""
        items = [
            Item([_picture(answers.files[row], thumbnails, side, answers.probabilities_NK[row, answer])])
            for row in shown
        ]
        panels.append(Section(link.title, about, items=items, look="tiles", key=link.panel))
    return panels


def _picture(file: str, thumbnails: Thumbnails | None, side: int, probability: float) -> Picture:
    name = plain_text(file).rpartition("/")[2]
    return Picture(thumbnails.uri(file, side) if thumbnails else "", "", f"{probability:.3f}\n{name}")


# ── mistakes and suspected labels ────────────────────────────────────────────────────────────────────────────────────


def mistake_sections(
    facts: RunFacts, answers: Answers, thumbnails: Thumbnails | None, trust_code: bool
) -> tuple[list[Section], str]:
    """Show the worst mistakes and the suspected labels.

    Returns:
        The sections, and a sentence where no map explains the mistakes.
    """
    worst = answers.wrong[:SHOWN].tolist()
    maps: list[Array] = []
    unexplained = said = ""
    if thumbnails and worst:
        maps, said = _explained(facts, answers, thumbnails, worst, trust_code)
        unexplained = "" if maps else said
    about = "The wrong answers that it was surest of."
    if maps:
        about += (
            f" Beside each image what spoke for the answer ({said}), yellow the most; how bright two images are cannot"
            " be compared."
        )
    items = [_item(facts, answers, row, thumbnails, maps[place : place + 1]) for place, row in enumerate(worst)]
    look = "cards" if maps else "beside"
    sections = [Section("The worst mistakes", about, items=items, look=look)] if items else []
    if answers.complete:
        suspects = suspected_labels(answers.probabilities_NK, answers.labels_N)
        items = [_item(facts, answers, row, thumbnails) for row in suspects[:SHOWN].tolist()]
        about = _about_suspects(len(suspects), len(answers.files))
        sections.append(Section("Suspected wrong labels", about, items=items, look="beside"))
    return sections, unexplained


def _about_suspects(suspects: int, images: int) -> str:
    about = (
        f"{suspects or 'None'} of {images:,} images {'are' if suspects > 1 else 'is'} suspected to bear a wrong label,"
        " by the rule of confident learning (Northcutt et al., 2021): another class is more probable than the label,"
        " and at least as probable as it is on average of the images that bear its name."
    )
    if suspects:
        about += " Look before you believe it: they may be plain mistakes of the classifier."
    return about + (f" The {SHOWN} most suspect:" if suspects > SHOWN else "")


def _item(
    facts: RunFacts, answers: Answers, row: int, thumbnails: Thumbnails | None, maps: Sequence[Array] = ()
) -> Item:
    classes, file = facts.classes, answers.files[row]
    label, answer = int(answers.labels_N[row]), int(answers.predicted_N[row])
    own = float(answers.probabilities_NK[row, label])
    likely = answers.likeliest(row, 3)
    if label not in dict(likely) and (answers.complete or own > 0):
        likely.append((label, own))
    shares = " · ".join(
        f"{classes[index]}{' (the label)' if index == label else ''}: {probability:.3f}"
        for index, probability in likely
    )
    pictures = [Picture(thumbnails.uri(file, SIDE), plain_text(file))] if thumbnails else []
    pictures += [Picture(data_uri(overlay, SIDE), "what spoke for the answer") for overlay in maps]
    return Item(pictures, f"labeled {classes[label]}, answer {classes[answer]}\n{shares}\n{plain_text(file)}")


def _explained(
    facts: RunFacts, answers: Answers, thumbnails: Thumbnails, rows: Sequence[int], trust_code: bool
) -> tuple[list[Array], str]:
    """Lay over images what spoke for the answers to them.

    Returns:
        The images, and by which method; none, and why, where the network has no map.
    """
    from sightline.display.pictures import overlaid
    from sightline.explanation.explainer import quick_method, what_spoke
    from sightline.inference.predict import load
    from sightline.machine.devices import keep_freed_memory

    keep_freed_memory()
    classifier = load(facts.outcome.run, trust_code=trust_code)
    method = quick_method(classifier)
    overlays = []
    for start in range(0, len(rows), EXPLAINED):
        some = list(rows[start : start + EXPLAINED])
        pixels_BHWC = np.stack([thumbnails.pixels(answers.files[row]) for row in some])
        try:
            heat_BHW = what_spoke(classifier, pixels_BHWC, answers.predicted_N[some].tolist(), method)
        except ConfigError as error:
            return [], f"What spoke for the wrong answers is not shown: {error}"
        overlays += [overlaid(*pair) for pair in zip(pixels_BHWC, heat_BHW, strict=True)]
    return overlays, "DeepLift" if method == "deeplift" else "Grad-CAM"
