"""The measured quality of a classifier in sentences and tables, for report and model card. K classes. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.display.lines import tables_of_measures
from sightline.display.notebook import show_in_cell
from sightline.display.pages import Section, Table
from sightline.display.terminal import natural_key
from sightline.evaluation.answers import Answers
from sightline.runs.outcomes import MISSING, measured_on
from sightline.runs.schemas import CROSSED

__all__ = [
    "SURE",
    "UNDECIDED",
    "VIEWS",
    "Facts",
    "Measures",
    "about_classes",
    "about_cost",
    "about_few_calibrated",
    "about_left_out",
    "about_passes",
    "about_views",
    "cost_section",
    "how_it_did",
    "most_confused",
    "no_pair_twice",
    "number",
    "warnings",
]

SURE = 0.9  # probability of an answer from which on the lead calls it sure
UNDECIDED = 2  # factor between the ends of the temperature's interval from which on too few images fitted it
CONFUSED = 3  # pairs of classes that are named in a sentence
VIEWS = {
    "one": "one view",
    "flip": "with its mirror image",
    "six": "six views",
    "adaptive": "six views where one leaves it unsure",
}


class Measures(dict[str, Any]):
    """The measures of a classifier, as ``evaluation.json`` has them; a notebook shows them as tables."""

    def _ipython_display_(self) -> None:
        show_in_cell(*self.get("data", {}).get("remarks", ()), *tables_of_measures(self))


@dataclass(frozen=True)
class Facts:
    """Facts of a classifier: its own, and its measures."""

    model: Mapping[str, Any]
    measured: Mapping[str, Any] | None
    """``evaluation.json``; None where the run was measured on nothing. Of weights alone what they hold of it."""
    answers: Answers | None
    """``predictions.csv``, where there is the other."""

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their indices."""
        return list(self.model["classes"])

    @property
    def split(self) -> str:
        """Name of the images that it was measured on."""
        return str((self.measured or {}).get("split", "test"))


def how_it_did(facts: Facts) -> list[str]:
    """Say how good it is, where it is wrong and how sure."""
    sentences = [_how_good(facts)]
    if facts.answers is not None:
        sentences += [_most_confused(facts), _how_sure(facts, facts.answers)]
    return sentences


def _how_good(facts: Facts) -> str:
    readings, measured = facts.model.get("test_readings", 0), facts.measured
    read = {0: "never", 1: "once", 2: "twice"}.get(readings, f"{readings} times")
    of_test = f"The test images were read {read}." if readings else "The test images were never read."
    if measured is None:
        validation = measured_on(facts.model.get("validation"))
        text = "It was measured on nothing, as asked."
        if validation is not None:
            text += (
                f" On the {validation.n:,} validation images by which its probabilities were set, its accuracy was"
                f" {validation.accuracy:.4f} ({_interval(*validation.interval, validation.groups)})."
            )
        return f"{text} {of_test}"
    low, high = measured["accuracy_interval"]
    if facts.split == CROSSED:
        return (
            f"Accuracy {measured['accuracy']:.4f} by cross-validation of all {measured['n']:,} images (95 % interval"
            f" {low:.4f} to {high:.4f}, corrected for the overlap of the {measured['folds']} folds,"
            f" {measured['repeats']} times dealt). They were too few to set any aside for a test, so the classifier"
            " that was saved has learned from all of them; every answer on this page is of one that had not seen the"
            f" image, when they were dealt first.{_as_labeled(measured)}"
        )
    which = "that it had not seen" if facts.split == "test" else "by which its probabilities were set as well"
    return (
        f"Accuracy {measured['accuracy']:.4f} on {measured['n']:,} {facts.split} images {which}"
        f" ({_interval(low, high, measured.get('groups'))}).{_as_labeled(measured)} {of_test}"
    )


def _as_labeled(measured: Mapping[str, Any]) -> str:
    """Say what the accuracy is by the labels that the set came with, where they were corrected."""
    beside = measured.get("as_labeled")
    if beside is None:
        return ""
    low, high = beside["accuracy_interval"]
    return (
        f" That is by corrected labels: {beside['corrected']:,} were changed and {beside['left_out']:,} images left"
        f" out. As labeled, the accuracy is {beside['accuracy']:.4f} on {beside['n']:,} images"
        f" ({_interval(low, high, beside.get('groups'))})."
    )


def _interval(low: float, high: float, groups: int | None) -> str:
    rule = "Wilson’s"
    if groups is not None:
        rule = f"by the cluster bootstrap over {groups:,} groups, whose images are not independent"
    return f"95 % interval {low:.4f} to {high:.4f}, {rule}"


def _most_confused(facts: Facts) -> str:
    assert facts.measured is not None
    confusion_KK = np.array(facts.measured["confusion_matrix"])
    pairs = [
        f"{facts.classes[true]} for {facts.classes[answer]} ({confusion_KK[true, answer]:,} of"
        f" {confusion_KK[true].sum():,})"
        for true, answer in most_confused(confusion_KK, CONFUSED, least=2)
    ]
    mistakes = int(confusion_KK.sum() - np.trace(confusion_KK))
    if pairs:
        return f"Of its {mistakes:,} mistakes, it most often took {', '.join(pairs)}."
    return no_pair_twice(mistakes)


def no_pair_twice(mistakes: int) -> str:
    """Say that no two classes were confused more than once, of so many mistakes."""
    if mistakes < 2:
        return f"It made {'one' if mistakes else 'no'} mistake when it was measured."
    return f"Its {mistakes:,} mistakes are each of other classes, no pair twice: none can be called frequent."


def most_confused(confusion_KK: np.ndarray[Any, Any], most: int, least: int = 1) -> list[tuple[int, int]]:
    """List the pairs of (true class, answer) with the most mistakes, ``least`` at least, most first."""
    mistakes_KK = confusion_KK - np.diag(np.diag(confusion_KK))
    order = np.argsort(-mistakes_KK, axis=None, kind="stable")[: min(most, np.count_nonzero(mistakes_KK >= least))]
    return [divmod(int(place), len(confusion_KK)) for place in order]


def _how_sure(facts: Facts, answers: Answers) -> str:
    assert facts.measured is not None
    confidence_N = answers.probabilities_NK[np.arange(len(answers.files)), answers.predicted_N]
    right_N = answers.predicted_N == answers.labels_N
    sure_N = confidence_N >= SURE
    shares = "; ".join(
        f"of the {part_N.sum():,} answers with a probability {name}, {right_N[part_N].mean():.4f} are right"
        for part_N, name in ((sure_N, f"of {SURE} or more"), (~sure_N, f"below {SURE}"))
        if part_N.any()
    )
    return (
        f"{shares[0].upper()}{shares[1:]}. On average its probabilities miss the share of right answers by"
        f" {facts.measured['calibration_error']:.4f} (calibration error)."
    )


def warnings(facts: Facts) -> list[str]:
    """Say what one must know of the images before one believes the numbers."""
    shared = facts.model["data"].get("shared_with_test")
    text = f"{shared or 0:,} test images are also in train or validation, pixel for pixel."
    return ([text] if shared else []) + about_left_out(facts.model) + about_few_calibrated(facts.model)


def about_few_calibrated(model: Mapping[str, Any]) -> list[str]:
    """Say that the images which fitted the temperature are too few, where they leave it open by a factor of two."""
    trust = model.get("trust") or {}
    low, high = trust.get("temperature_interval") or (1.0, 1.0)
    if high <= UNDECIDED * low:
        return []
    return [
        f"{trust['n']:,} images say too little to calibrate its probabilities well: the"
        f" temperature, {model['temperatures'][trust['views']]:.2f}, may be anything from {low:.2f} to {high:.2f}. Take"
        " them for an order, and more images for --data.validation."
    ]


def about_passes(model: Mapping[str, Any]) -> list[str]:
    """Say how many views of an image adaptive views show; nothing of other views."""
    adaptive = (model.get("trust") or {}).get("adaptive")
    if adaptive is None or model["views"] != "adaptive":
        return []
    if adaptive["threshold"] >= 1:
        return [
            f"Adaptive views save nothing here: at no threshold were they as good as six views on the {adaptive['n']:,}"
            " validation images, so every image is shown six times."
        ]
    if adaptive["threshold"] <= 0:
        return [
            f"Six views were no better than one on the {adaptive['n']:,} validation images, so every image is shown"
            " once."
        ]
    return [
        "An image is shown once, and five times more where the probability of its answer is below"
        f" {adaptive['threshold']:g}: {adaptive['passes']:.2f} views on average of {adaptive['n']:,} validation images."
    ]


def about_views(facts: Facts) -> list[Section]:
    """Compare adaptive views with one and six on validation; nothing of other views."""
    sentences = about_passes(facts.model)
    if not sentences:
        return []
    adaptive = facts.model["trust"]["adaptive"]
    counts = {"one": 1.0, "six": 6.0, "adaptive": adaptive["passes"]}
    rows = [
        (name, f"{adaptive['accuracy'][name]:.4f}", f"{adaptive['log_likelihood'][name]:.4f}", f"{count:.2f}")
        for name, count in counts.items()
    ]
    if "passes" in (facts.measured or {}):
        sentences.append(f"Of the {facts.split} images it is {facts.measured['passes']:.2f}.")  # type: ignore[index]
    about = (
        "The threshold is the lowest at which accuracy is not lower than with six views by more than the standard error"
        " of the paired difference, and at which, with a confidence of 95 %, accuracy and log-likelihood are lower by"
        " less than 0.01. It was chosen on the images of this table, which flatters it a little."
    )
    columns = ("views", "accuracy", "log-likelihood", "views of an image")
    return [Section("How often it looks", " ".join([*sentences, about]), Table(columns, rows))]


def about_left_out(model: Mapping[str, Any]) -> list[str]:
    """Say how many images could not be read, where there were any."""
    left_out = model["data"].get("left_out")
    return [f"{left_out:,} images could not be read and were left out."] if left_out else []


def about_classes(facts: Facts) -> Section:
    """List images, precision, recall and F1 of each class."""
    assert facts.measured is not None
    rows = [
        (name, f"{row['n']:,}", *(number(row[key], ".4f") for key in ("precision", "recall", "f1")))
        for name, row in sorted(facts.measured["classes"].items(), key=lambda item: natural_key(item[0]))
    ]
    about = (
        "Precision: of the answers that name the class, the share that is right. Recall: of the images of the class,"
        " the share that is found. F1: their harmonic mean."
    )
    return Section("Class by class", about, Table(("class", "images", "precision", "recall", "F1"), rows))


def about_cost(facts: Facts, backbone_flops: float | None = None) -> Section:
    """List parameters, seconds and operations of a classifier, and what it ran on.

    Args:
        backbone_flops: floating-point operations of the runs that its weights come from.
    """
    parameters = facts.model.get("parameters")
    evaluation = (facts.model.get("cost") or {}).get("evaluation_seconds")
    name = "floating-point operations of the runs it starts from"
    answers = facts.model.get("answer_precision") or "that of the training"
    return cost_section(
        facts.model,
        None if parameters is None else parameters * 4 / 1e6,
        seconds=[
            ("seconds of calibration and test", number(evaluation, ",.1f")),
            ("number format of the answers", answers),
        ],
        more=[(name, number(backbone_flops, ".3g"))] if backbone_flops else [],
    )


def cost_section(
    model: Mapping[str, Any],
    megabytes: float | None,
    *,
    seconds: Sequence[tuple[str, str]] = (),
    more: Sequence[tuple[str, str]] = (),
) -> Section:
    """List parameters, seconds and operations of a run, and what it ran on.

    Args:
        model: content of its ``model.json``.
        megabytes: of the weights that it saves.
        seconds, more: further rows, below the seconds of the training and below the operations.
    """
    cost = model.get("cost") or {}
    rows = [
        ("parameters", number(model.get("parameters"), ",")),
        ("weights, MB", number(megabytes, ".1f")),
        ("device", cost.get("device", MISSING)),
        ("number format of the training", model.get("precision", MISSING)),
        ("seconds of training", number(cost.get("fit_seconds"), ",.1f")),
        *seconds,
        ("floating-point operations of the training", number(cost.get("training_flops"), ".3g")),
        *more,
        *model.get("versions", {}).items(),
    ]
    return Section("What it took", table=Table(("what", "how much"), rows, texts=2))


def number(value: float | None, form: str) -> str:
    """Format a number, or what stands where it is not known."""
    return MISSING if value is None else format(value, form)
