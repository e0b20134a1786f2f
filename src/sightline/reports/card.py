"""The model card: what a classifier was trained on, how good and how sure it is, and what it is not for. No torch.

What it says is shown to visitors, so it names no path of the machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from sightline.display.pages import Answer, Section, Table
from sightline.display.terminal import natural_key
from sightline.errors import RunError
from sightline.evaluation.answers import read_answers, read_measures
from sightline.evaluation.results import (
    VIEWS,
    Facts,
    about_classes,
    about_cost,
    about_views,
    how_it_did,
    most_confused,
    warnings,
)
from sightline.evaluation.uncertainty import about_doubt
from sightline.reports.verdict import verdict

__all__ = ["Card", "known_of", "model_card", "summary"]

MATRIX = 12  # classes, up to which the confusion matrix is shown whole
PAIRS = 15  # most confused pairs that are listed where it is not


@dataclass(frozen=True)
class Card:
    """A model card."""

    verdict: Sequence[Answer]
    lead: Sequence[str]
    warnings: Sequence[str]
    sections: Sequence[Section]


def known_of(run: Path | None, model: Mapping[str, Any]) -> Facts:
    """Return what is known of a classifier; of a run whose tables cannot be read, as much as its weights know.

    Args:
        run: its folder; None of weights alone.
        model: what the classifier knows of itself.
    """
    metrics = model.get("metrics") or None
    if run is None or metrics is None:
        return Facts(model, metrics, None)
    try:
        measured = read_measures(run)
        return Facts(model, measured, read_answers(run, model["classes"], measured))
    except RunError:
        return Facts(model, metrics, None)


def model_card(known: Facts, use: Sequence[Section] = ()) -> Card:
    """Return all that is said of a classifier, the most important first.

    Args:
        known: of the classifier.
        use: what it is for and how it is used where the card is read; unless given, by the service that shows it.
    """
    sections = [*use, _about_limits(known)] if use else [_about_limits(known), _about_calls()]
    if known.measured is not None and "confusion_matrix" in known.measured:
        sections += [about_classes(known), _about_confusion(known)]
    sections += [*about_doubt(known), *about_views(known), about_cost(known)]
    return Card(verdict(known), [_trained_on(known), *how_it_did(known)], warnings(known), sections)


def summary(model: Mapping[str, Any]) -> str:
    """Return a sentence for the top of the page."""
    about, metrics = f"{len(model['classes'])} classes, learned from {model['data']['name']}", model.get("metrics")
    if not metrics:
        return f"{about}."
    right, low, high = (f"{100 * share:.1f} %" for share in (metrics["accuracy"], *metrics["accuracy_interval"]))
    images = f"{metrics['n']:,} {metrics.get('split', 'test')} images"
    of_groups = f", over {metrics['groups']:,} groups" if "groups" in metrics else ""
    return f"{about}; {right} right on {images} (95 % interval {low} to {high}{of_groups})."


def _trained_on(known: Facts) -> str:
    model = known.model
    data, parameters = model["data"], model.get("parameters")
    counts, (height, width) = data["counts"], model["size"]
    size = "" if parameters is None else f" of {parameters:,} parameters"
    head = f" with {model['head']['kind']} as its head" if model.get("head") else ""
    recipe = f" by the recipe {model['recipe']}" if model.get("recipe") else ""
    return (
        f"A {_network(model['network'])}{head}{size}, trained{recipe} on {data['name']}: {counts['train']:,} images to"
        f" learn from, {counts['validation']:,} for validation, {counts['test']:,} for the test. It is shown"
        f" {height} × {width} pixels of an image, {VIEWS[model['views']]}, and knows {len(known.classes)} classes:"
        f" {', '.join(known.classes)}."
    )


def _network(network: Mapping[str, Any]) -> str:
    """Return kind and name of a network; of a repository on this machine only what it is called."""
    parts = [network["kind"], PurePath(str(network.get("repo") or "")).name, network.get("name") or ""]
    return ":".join(filter(None, parts)) if network["kind"] in ("hub", "timm") else str(network["kind"])


def _about_limits(known: Facts) -> Section:
    sentences = [
        "It compares whatever it is shown with the classes it knows, and with no others.",
        f"Its numbers hold for images like those of {known.model['data']['name']}; on others, and on worse ones,"
        " expect fewer right answers.",
    ]
    if known.model.get("trust"):
        sentences.append(
            "It says “none of these” where an image looks like none of its classes, but does not notice all of them."
        )
    else:
        sentences.append("It was trained before it could say “none of these”, so it has an answer to every image.")
    sentences.append(
        "It was not measured on images made to deceive it, nor for fairness where they show people: it is not for"
        " decisions that harm someone when they are wrong."
    )
    return Section("What it is not for", " ".join(sentences))


def _about_calls() -> Section:
    return Section(
        "How programs ask it",
        "POST /api/predict takes one image or many and answers in JSON; /api/model says what the classifier knows of"
        " itself, and /api describes both.",
    )


def _about_confusion(known: Facts) -> Section:
    assert known.measured is not None
    counts_KK = np.array(known.measured["confusion_matrix"])
    classes = known.classes
    if len(classes) <= MATRIX:
        order = sorted(range(len(classes)), key=lambda index: natural_key(classes[index]))
        rows = [
            (classes[index], *(f"{count:,}" if count else "·" for count in counts_KK[index, order].tolist()))
            for index in order
        ]
        about = "Each row is a true class, each column an answer."
        return Section(
            "What it takes for what", about, Table(("true class", *(classes[index] for index in order)), rows)
        )
    pairs = most_confused(counts_KK, PAIRS)
    mistakes = int(counts_KK.sum() - np.trace(counts_KK))
    listed = [
        (classes[true], classes[answer], f"{counts_KK[true, answer]:,}", f"{counts_KK[true].sum():,}")
        for true, answer in pairs
    ]
    about = f"The pairs that are confused most, of {mistakes:,} mistakes in all."
    return Section("What it takes for what", about, Table(("true class", "answer", "images", "of"), listed, texts=2))
