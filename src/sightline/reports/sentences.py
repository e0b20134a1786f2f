"""A finished run in sentences, tables and charts, for its report. Texts only; images are picked and drawn in ``reporting``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config import AnyRecipe
from sightline.config.resolving import to_mapping
from sightline.display.charts import Curve, draw_curves, draw_swatch
from sightline.display.pages import Chart, Section, Table
from sightline.display.terminal import natural_key
from sightline.reports.answers import Answers
from sightline.runs.outcomes import MISSING, Outcome, measured_on, read_curves, spoken_value

__all__ = [
    "VIEWS",
    "Known",
    "Told",
    "about_classes",
    "about_cost",
    "about_learning",
    "about_left_out",
    "about_settings",
    "commands",
    "cost_section",
    "how_it_did",
    "lead",
    "learning_charts",
    "learning_legend",
    "most_confused",
    "number",
    "repeat",
    "settings_section",
    "trained_on",
    "warnings",
]

BLOCKS = ("network", "head", "finetune", "optimizer", "schedule", "averaging", "early_stopping", "augment")
CROSSED = "cross-validation"  # split of a run that was measured without a test split
SURE = 0.9  # probability of an answer from which on the lead calls it sure
LISTED = 10  # classes that are named in a sentence
CONFUSED = 3  # pairs of classes that are named in a sentence
VIEWS = {"one": "one view", "flip": "with its mirror image", "six": "six views"}
MUCH = 5  # factor between values, from which on a logarithmic scale shows them better and has numbers beside it
CURVES = (
    ("Loss", "loss", ("train_loss", "val_loss")),
    ("Accuracy", "accuracy", ("train_acc", "val_acc")),
    ("Learning rate", "rate", ("learning_rate",)),
)


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


@dataclass(frozen=True)
class Told(Known):
    """What is known of a run."""

    outcome: Outcome


# ── the top of the page ──────────────────────────────────────────────────────────────────────────────────────────────


def lead(told: Told) -> list[str]:
    """What was trained on what, how good it is, where it is wrong and how sure."""
    return [_what_was_trained(told), *how_it_did(told)]


def how_it_did(known: Known) -> list[str]:
    """How good it is, where it is wrong and how sure."""
    found = [_how_good(known)]
    if known.answers is not None:
        found += [_what_is_confused(known), _how_sure(known)]
    return found


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


def trained_on(model: Mapping[str, Any]) -> str:
    """The image set, its images, classes and pixels, as the second half of a sentence."""
    data, classes, (height, width) = model["data"], model["classes"], model["size"]
    counts = data["counts"]
    named = ", ".join(classes[:LISTED]) + (", …" if len(classes) > LISTED else "")
    aside = f"{counts['validation']:,} for validation, {counts['test']:,} for the test"
    if not counts["validation"] and not counts["test"]:
        aside = "none set aside"
    return f"trained on {data['name']}: {counts['train']:,} images to learn from, {aside}; {len(classes)} classes ({named}); {height} × {width} pixels."


def _what_was_trained(told: Told) -> str:
    return f"{_network(told)}{_parameters(told)}, {trained_on(told.model)}"


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


def most_confused(confusion_KK: np.ndarray[Any, Any], most: int) -> list[tuple[int, int]]:
    """The pairs of (true class, answer) with the most mistakes, most first."""
    mistakes_KK = confusion_KK - np.diag(np.diag(confusion_KK))
    order = np.argsort(-mistakes_KK, axis=None, kind="stable")[: min(most, np.count_nonzero(mistakes_KK))]
    return [divmod(int(place), len(confusion_KK)) for place in order]


def _network(told: Told) -> str:
    network = to_mapping(told.outcome.recipe)["network"]
    name = ":".join(str(network[part]) for part in ("kind", "repo", "name") if network.get(part))
    head = told.outcome.recipe.head
    return f"{name} with {head.kind} as its head" if head is not None else name


def _parameters(told: Told) -> str:
    return "" if told.outcome.parameters is None else f" ({told.outcome.parameters:,} parameters)"


def _interval(low: float, high: float) -> str:
    return f"95 % interval {low:.4f} to {high:.4f}, Wilson’s"


# ── where it is wrong ────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── how it came about ────────────────────────────────────────────────────────────────────────────────────────────────


def about_learning(told: Told) -> list[Section]:
    """Loss, accuracy and rate of every epoch; nothing where there are none."""
    charts = learning_charts(told.outcome.run, CURVES)
    if not charts:
        return []
    kept = told.model.get("kept") or {}
    about = "Training images are augmented and their loss may be smoothed, so they can look harder than validation’s."
    if kept:
        about += f" Handed on are the weights of epoch {kept['epoch']}: best {kept['monitor']}, {kept['value']:.4f}."
    if told.outcome.recipe.selects:
        about += " The curve of validation is of the half that chose while training, and flatters."
    return [Section("How it learned", about, charts=charts, legend=learning_legend())]


def learning_charts(
    run: Path, groups: Sequence[tuple[str, str, Sequence[str]]], logarithmic: Sequence[str] = ()
) -> list[Chart]:
    """Charts of columns of ``metrics.csv``, by epoch; none of columns that have no numbers.

    Args:
        run: its folder.
        groups: of each chart its title, its unit, and its columns: that of train, and that of validation.
        logarithmic: titles of the charts that are drawn on a logarithmic scale where their values differ by much.
    """
    curves = read_curves(run, [name for _, _, names in groups for name in names])
    charts = []
    for title, unit, names in groups:
        shown = [_curve(style, curves[name]) for style, name in enumerate(names) if curves[name]]
        if shown:
            values = [value for curve in shown for value in curve.values]
            differ = title in logarithmic and 0 < MUCH * min(values) <= max(values)
            caption = f"{title}, by epoch{', on a logarithmic scale' if differ else ''}."
            charts.append(Chart(draw_curves(title, unit, shown, logarithmic=differ), caption))
    return charts


def learning_legend() -> list[tuple[str, str]]:
    """The legend of such charts."""
    return [
        ("train, and the learning rate (of the weights, where parts differ)", draw_swatch(0, "learnt")),
        ("validation", draw_swatch(1, "learnt")),
    ]


def _curve(style: int, points: Sequence[tuple[int, float]]) -> Curve:
    epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
    return Curve(style, epochs, values, values, values)


def about_settings(told: Told) -> Section:
    """The settings that matter most, a block of them in a line."""
    recipe = told.outcome.recipe
    return settings_section(recipe, BLOCKS, [("views of an image", VIEWS[recipe.evaluation.views])])


def settings_section(recipe: AnyRecipe, blocks: Sequence[str], more: Sequence[tuple[str, str]] = ()) -> Section:
    """The named blocks of a recipe in a line each, and how long it trains.

    Args:
        more: further settings with their values.
    """
    settings = to_mapping(recipe)
    rows = [("recipe", settings["name"])]
    rows += [(name.replace("_", " "), _block(settings[name])) for name in blocks if settings[name]]
    rows += [(name.replace("_", " "), spoken_value(settings["fit"][name])) for name in ("epochs", "batch_size", "seed")]
    return Section("Settings", table=Table(("setting", "value"), [*rows, *more], texts=2))


def _block(block: Mapping[str, Any]) -> str:
    """A block of settings in a line: ``muon: learning rate 0.1, momentum 0.6``; a block within by its kind."""
    told = []
    for name, value in block.items():
        if name == "kind" or value in (None, [], "none"):
            continue
        inner = value.get("kind", "as set") if isinstance(value, Mapping) else spoken_value(value)
        told.append(f"{name.replace('_', ' ')} {inner}")
    return ": ".join(filter(None, (block.get("kind", ""), ", ".join(told)))) or "none"


def about_cost(told: Known) -> Section:
    """Parameters, seconds and operations, and what it ran on."""
    parameters = told.model.get("parameters")
    evaluation = (told.model.get("cost") or {}).get("evaluation_seconds")
    more = (
        [("floating-point operations of the runs it starts from", told.outcome.backbone_flops)]
        if isinstance(told, Told)
        else []
    )
    return cost_section(
        told.model,
        None if parameters is None else parameters * 4 / 1e6,
        seconds=[("seconds of calibration and test", number(evaluation, ",.1f"))],
        more=[(name, number(flops, ".3g")) for name, flops in more if flops],
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


def repeat(model: Mapping[str, Any], seed: int) -> list[str]:
    """What it takes to train the same again."""
    return [
        f"The seed is {seed}. The image set must have the fingerprint {model['data']['fingerprint']}, which changes with its"
        " pixels and labels, not with its place or name. With the same versions on the same machine the weights come out the"
        " same (on a GPU: with --deterministic), elsewhere close to these. In the folder of the run:"
    ]


def commands() -> str:
    """Commands that repeat and use a run, from within its folder."""
    return "\n".join(
        (
            "sightline train --config recipe.yaml --run ANOTHER    # train the same again",
            "sightline evaluate . DATA                             # how good it is on another image set",
            "sightline predict . IMAGES...                         # what it sees in other images",
        )
    )


def number(value: float | None, form: str) -> str:
    """A number as a text, or what stands where it is not known."""
    return MISSING if value is None else format(value, form)
