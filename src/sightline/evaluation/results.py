"""A finished classifier's measured quality in sentences and tables, for its report and its model card. K classes. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.display.pages import Section, Table
from sightline.display.terminal import natural_key
from sightline.evaluation.answers import Answers
from sightline.runs.outcomes import MISSING, measured_on

__all__ = [
    "VIEWS",
    "Known",
    "about_classes",
    "about_cost",
    "about_left_out",
    "cost_section",
    "how_it_did",
    "most_confused",
    "number",
    "warnings",
]

CROSSED = "cross-validation"  # split of a run that was measured without a test split
SURE = 0.9  # probability of an answer from which on the lead calls it sure
CONFUSED = 3  # pairs of classes that are named in a sentence
VIEWS = {"one": "one view", "flip": "with its mirror image", "six": "six views"}


@dataclass(frozen=True)
class Known:
    """What a classifier knows of itself, and how it was measured."""

    model: Mapping[str, Any]
    measured: Mapping[str, Any] | None
    """``evaluation.json``; None where the run was measured on nothing. Of weights alone what they hold of it."""
    answers: Answers | None
    """``predictions.csv``, where there is the other."""

    @property
    def classes(self) -> list[str]:
        return list(self.model["classes"])

    @property
    def split(self) -> str:
        """What it was measured on."""
        return str((self.measured or {}).get("split", "test"))


def how_it_did(known: Known) -> list[str]:
    """How good it is, where it is wrong and how sure."""
    found = [_how_good(known)]
    if known.answers is not None:
        found += [_what_is_confused(known), _how_sure(known)]
    return found


def _how_good(told: Known) -> str:
    readings, measured = told.model.get("test_readings", 0), told.measured
    read = {0: "never", 1: "once", 2: "twice"}.get(readings, f"{readings} times")
    told_of_test = f"The test images were read {read}." if readings else "The test images were never read."
    if measured is None:
        validation = measured_on(told.model.get("validation"))
        known = ""
        if validation is not None:
            low, high = validation.interval
            known = (
                f" On the {validation.n:,} validation images by which its probabilities were set, its accuracy was"
                f" {validation.accuracy:.4f} ({_interval(low, high)})."
            )
        return f"It was measured on nothing, as asked.{known} {told_of_test}"
    low, high = measured["accuracy_interval"]
    if told.split == CROSSED:
        return (
            f"Accuracy {measured['accuracy']:.4f} by cross-validation of all {measured['n']:,} images (95 % interval"
            f" {low:.4f} to {high:.4f}, corrected for the overlap of the {measured['folds']} folds, {measured['repeats']}"
            " times dealt). They were too few to set any aside for a test, so the classifier that was saved has learned from"
            " all of them; every answer on this page is of one that had not seen the image, when they were dealt first."
        )
    which = "that it had not seen" if told.split == "test" else "by which its probabilities were set as well"
    return (
        f"Accuracy {measured['accuracy']:.4f} on {measured['n']:,} {told.split} images {which} ({_interval(low, high)})."
        f" {told_of_test}"
    )


def _interval(low: float, high: float) -> str:
    return f"95 % interval {low:.4f} to {high:.4f}, Wilson’s"


def _what_is_confused(told: Known) -> str:
    assert told.measured is not None
    confusion_KK = np.array(told.measured["confusion_matrix"])
    pairs = most_confused(confusion_KK, CONFUSED)
    if not pairs:
        return "It made no mistake."
    spoken = [
        f"{told.classes[true]} for {told.classes[answer]} ({confusion_KK[true, answer]:,} of {confusion_KK[true].sum():,})"
        for true, answer in pairs
    ]
    mistakes = int(confusion_KK.sum() - np.trace(confusion_KK))
    return (
        f"Of its {mistakes:,} mistakes, it most often took {', '.join(spoken)}."
        if mistakes > 1
        else f"Its one mistake: it took {spoken[0]}."
    )


def most_confused(confusion_KK: np.ndarray[Any, Any], most: int) -> list[tuple[int, int]]:
    """The pairs of (true class, answer) with the most mistakes, most first."""
    mistakes_KK = confusion_KK - np.diag(np.diag(confusion_KK))
    order = np.argsort(-mistakes_KK, axis=None, kind="stable")[: min(most, np.count_nonzero(mistakes_KK))]
    return [divmod(int(place), len(confusion_KK)) for place in order]


def _how_sure(told: Known) -> str:
    assert told.answers is not None
    assert told.measured is not None
    rows = np.arange(len(told.answers.files))
    confidence_N = told.answers.probabilities_NK[rows, told.answers.predicted_N]
    right_N = told.answers.predicted_N == told.answers.labels_N
    spoken = []
    sure_N = confidence_N >= SURE
    for part_N, name in ((sure_N, f"of {SURE} or more"), (~sure_N, f"below {SURE}")):
        if part_N.any():
            told_of = f"the {part_N.sum():,} answers with a probability {name}"
            spoken.append(f"of {told_of}, {right_N[part_N].mean():.4f} are right")
    together = "; ".join(spoken)
    return (
        f"{together[0].upper()}{together[1:]}. On average its probabilities miss the share of right answers by"
        f" {told.measured['calibration_error']:.4f} (calibration error)."
    )


def warnings(told: Known) -> list[str]:
    """What one must know of the images before one believes the numbers."""
    found = []
    if shared := told.model["data"].get("shared_with_test"):
        found.append(f"{shared:,} test images are also in train or validation, pixel for pixel.")
    return found + about_left_out(told.model)


def about_left_out(model: Mapping[str, Any]) -> list[str]:
    """A sentence on images that could not be read, where there were any."""
    left_out = model["data"].get("left_out")
    return [f"{left_out:,} images could not be read and were left out."] if left_out else []


def about_classes(told: Known) -> Section:
    """A line a class: images, precision, recall, F1."""
    assert told.measured is not None
    rows = [
        (name, f"{row['n']:,}", *(number(row[key], ".4f") for key in ("precision", "recall", "f1")))
        for name, row in sorted(told.measured["classes"].items(), key=lambda item: natural_key(item[0]))
    ]
    about = (
        "Precision: of the answers that name the class, the share that is right. Recall: of the images of the class, the"
        " share that is found. F1: their harmonic mean."
    )
    return Section("Class by class", about, Table(("class", "images", "precision", "recall", "F1"), rows))


def about_cost(known: Known, backbone_flops: float | None = None) -> Section:
    """Return parameters, seconds and operations, and what it ran on.

    Args:
        known: the classifier.
        backbone_flops: floating-point operations of the runs it starts from; None where there are none.
    """
    parameters = known.model.get("parameters")
    evaluation = (known.model.get("cost") or {}).get("evaluation_seconds")
    flops = [("floating-point operations of the runs it starts from", number(backbone_flops, ".3g"))]
    return cost_section(
        known.model,
        None if parameters is None else parameters * 4 / 1e6,
        seconds=[("seconds of calibration and test", number(evaluation, ",.1f"))],
        more=flops if backbone_flops else [],
    )


def cost_section(
    model: Mapping[str, Any],
    megabytes: float | None,
    *,
    seconds: Sequence[tuple[str, str]] = (),
    more: Sequence[tuple[str, str]] = (),
) -> Section:
    """Parameters, seconds and operations of a run, and what it ran on.

    Args:
        model: what the run knows of itself.
        megabytes: of the weights that it hands on.
        seconds, more: further rows, below the seconds of the training and below the operations.
    """
    cost = model.get("cost") or {}
    rows = [
        ("parameters", number(model.get("parameters"), ",")),
        ("weights, MB", number(megabytes, ".1f")),
        ("device", cost.get("device", MISSING)),
        ("seconds of training", number(cost.get("fit_seconds"), ",.1f")),
        *seconds,
        ("floating-point operations of the training", number(cost.get("training_flops"), ".3g")),
        *more,
        *model.get("versions", {}).items(),
    ]
    return Section("What it took", table=Table(("what", "how much"), rows, texts=2))


def number(value: float | None, form: str) -> str:
    """A number as a text, or what stands where it is not known."""
    return MISSING if value is None else format(value, form)
