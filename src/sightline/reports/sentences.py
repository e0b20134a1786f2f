"""A finished run in sentences, tables and charts, for its report; its pictures are chosen in ``mistakes``. K classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config import AnyRecipe, to_yaml
from sightline.config.resolving import to_mapping
from sightline.display.charts import Curve, draw_curves, draw_swatch
from sightline.display.pages import Chart, Section, Table
from sightline.display.terminal import natural_key
from sightline.reports.answers import Answers
from sightline.runs.outcomes import MISSING, Outcome, measured_on, read_curves, spoken_value

__all__ = [
    "VIEWS",
    "Facts",
    "RunFacts",
    "about_classes",
    "about_cost",
    "about_learning",
    "about_left_out",
    "about_settings",
    "cost_section",
    "how_it_did",
    "lead",
    "learning_charts",
    "learning_section",
    "most_confused",
    "number",
    "repeat_sections",
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
CURVES = [("Loss", "loss", ("train_loss", "val_loss")), ("Accuracy", "accuracy", ("train_acc", "val_acc"))]
RATE = ("Learning rate", "rate", ("learning_rate",))


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


@dataclass(frozen=True)
class RunFacts(Facts):
    """Facts of a finished run."""

    outcome: Outcome


# ── the top of the page ──────────────────────────────────────────────────────────────────────────────────────────────


def lead(facts: RunFacts) -> list[str]:
    """Say what was trained on what, how good it is, where it is wrong and how sure."""
    network = to_mapping(facts.outcome.recipe)["network"]
    name = ":".join(str(network[part]) for part in ("kind", "repo", "name") if network.get(part))
    head, parameters = facts.outcome.recipe.head, facts.outcome.parameters
    name += f" with {head.kind} as its head" if head is not None else ""
    name += f" ({parameters:,} parameters)" if parameters is not None else ""
    return [f"{name}, {trained_on(facts.model)}", *how_it_did(facts)]


def how_it_did(facts: Facts) -> list[str]:
    """Say how good it is, where it is wrong and how sure."""
    sentences = [_how_good(facts)]
    if facts.answers is not None:
        sentences += [_most_confused(facts), _how_sure(facts, facts.answers)]
    return sentences


def warnings(facts: Facts) -> list[str]:
    """Say what one must know of the images before one believes the numbers."""
    shared = facts.model["data"].get("shared_with_test")
    text = f"{shared or 0:,} test images are also in train or validation, pixel for pixel."
    return ([text] if shared else []) + about_left_out(facts.model)


def about_left_out(model: Mapping[str, Any]) -> list[str]:
    """Say how many images could not be read, where there were any."""
    left_out = model["data"].get("left_out")
    return [f"{left_out:,} images could not be read and were left out."] if left_out else []


def trained_on(model: Mapping[str, Any]) -> str:
    """Describe the image set, its images, classes and pixels, as the second half of a sentence."""
    data, classes, (height, width) = model["data"], model["classes"], model["size"]
    counts = data["counts"]
    named = ", ".join(classes[:LISTED]) + (", …" if len(classes) > LISTED else "")
    aside = f"{counts['validation']:,} for validation, {counts['test']:,} for the test"
    if not counts["validation"] and not counts["test"]:
        aside = "none set aside"
    return (
        f"trained on {data['name']}: {counts['train']:,} images to learn from, {aside}; {len(classes)} classes ({named});"
        f" {height} × {width} pixels."
    )


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
                f" {validation.accuracy:.4f} ({_interval(*validation.interval)})."
            )
        return f"{text} {of_test}"
    low, high = measured["accuracy_interval"]
    if facts.split == CROSSED:
        return (
            f"Accuracy {measured['accuracy']:.4f} by cross-validation of all {measured['n']:,} images (95 % interval"
            f" {low:.4f} to {high:.4f}, corrected for the overlap of the {measured['folds']} folds, {measured['repeats']}"
            " times dealt). They were too few to set any aside for a test, so the classifier that was saved has learned from"
            " all of them; every answer on this page is of one that had not seen the image, when they were dealt first."
        )
    which = "that it had not seen" if facts.split == "test" else "by which its probabilities were set as well"
    return (
        f"Accuracy {measured['accuracy']:.4f} on {measured['n']:,} {facts.split} images {which} ({_interval(low, high)})."
        f" {of_test}"
    )


def _interval(low: float, high: float) -> str:
    return f"95 % interval {low:.4f} to {high:.4f}, Wilson’s"


def _most_confused(facts: Facts) -> str:
    assert facts.measured is not None
    confusion_KK = np.array(facts.measured["confusion_matrix"])
    pairs = [
        f"{facts.classes[true]} for {facts.classes[answer]} ({confusion_KK[true, answer]:,} of {confusion_KK[true].sum():,})"
        for true, answer in most_confused(confusion_KK, CONFUSED)
    ]
    mistakes = int(confusion_KK.sum() - np.trace(confusion_KK))
    if mistakes > 1:
        return f"Of its {mistakes:,} mistakes, it most often took {', '.join(pairs)}."
    return f"Its one mistake: it took {pairs[0]}." if pairs else "It made no mistake."


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


def most_confused(confusion_KK: np.ndarray[Any, Any], most: int) -> list[tuple[int, int]]:
    """List the pairs of (true class, answer) with the most mistakes, most first."""
    mistakes_KK = confusion_KK - np.diag(np.diag(confusion_KK))
    order = np.argsort(-mistakes_KK, axis=None, kind="stable")[: min(most, np.count_nonzero(mistakes_KK))]
    return [divmod(int(place), len(confusion_KK)) for place in order]


# ── where it is wrong ────────────────────────────────────────────────────────────────────────────────────────────────


def about_classes(facts: Facts) -> Section:
    """List images, precision, recall and F1 of each class."""
    assert facts.measured is not None
    rows = [
        (name, f"{row['n']:,}", *(number(row[key], ".4f") for key in ("precision", "recall", "f1")))
        for name, row in sorted(facts.measured["classes"].items(), key=lambda item: natural_key(item[0]))
    ]
    about = (
        "Precision: of the answers that name the class, the share that is right. Recall: of the images of the class, the"
        " share that is found. F1: their harmonic mean."
    )
    return Section("Class by class", about, Table(("class", "images", "precision", "recall", "F1"), rows))


# ── how it came about ────────────────────────────────────────────────────────────────────────────────────────────────


def about_learning(facts: RunFacts) -> list[Section]:
    """Show loss, accuracy and rate of every epoch; nothing where there are none."""
    kept = facts.model.get("kept") or {}
    about = "Training images are augmented and their loss may be smoothed, so they can look harder than validation’s."
    if kept:
        about += f" The saved weights are those of epoch {kept['epoch']}: best {kept['monitor']}, {kept['value']:.4f}."
    if facts.outcome.recipe.selects:
        about += " The curve of validation is of the half that chose while training, and flatters."
    return learning_section(facts.outcome.run, CURVES, about)


def learning_section(
    run: Path, groups: Sequence[tuple[str, str, Sequence[str]]], about: str, logarithmic: Sequence[str] = ()
) -> list[Section]:
    """Show the curves of a run's ``metrics.csv`` and its learning rate; nothing where there are none.

    Args:
        run, groups, logarithmic: as ``learning_charts`` has them.
        about: what one must know of them.
    """
    charts = learning_charts(run, [*groups, RATE], logarithmic)
    legend = [
        ("train, and the learning rate (of the weights, where parts differ)", draw_swatch(0, "learned")),
        ("validation", draw_swatch(1, "learned")),
    ]
    return [Section("How it learned", about, charts=charts, legend=legend)] if charts else []


def learning_charts(
    run: Path, groups: Sequence[tuple[str, str, Sequence[str]]], logarithmic: Sequence[str] = ()
) -> list[Chart]:
    """Draw columns of ``metrics.csv`` by epoch; none of columns that have no numbers.

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


def _curve(style: int, points: Sequence[tuple[int, float]]) -> Curve:
    epochs, values = zip(*points, strict=True)
    return Curve(style, epochs, values, values, values)


def about_settings(facts: RunFacts) -> Section:
    """List the settings that matter most, a block of them in a line."""
    recipe = facts.outcome.recipe
    return settings_section(recipe, BLOCKS, [("views of an image", VIEWS[recipe.evaluation.views])])


def settings_section(recipe: AnyRecipe, blocks: Sequence[str], more: Sequence[tuple[str, str]] = ()) -> Section:
    """List the named blocks of a recipe in a line each, and how long it trains.

    Args:
        more: further settings with their values.
    """
    settings = to_mapping(recipe)
    rows = [("recipe", settings["name"])]
    rows += [(name.replace("_", " "), _block(settings[name])) for name in blocks if settings[name]]
    rows += [(name.replace("_", " "), spoken_value(settings["fit"][name])) for name in ("epochs", "batch_size", "seed")]
    return Section("Settings", table=Table(("setting", "value"), [*rows, *more], texts=2))


def _block(block: Mapping[str, Any]) -> str:
    """Put a block of settings in a line: ``muon: learning rate 0.1, momentum 0.6``; a block within by its kind."""
    values = [
        f"{name.replace('_', ' ')} {value.get('kind', 'as set') if isinstance(value, Mapping) else spoken_value(value)}"
        for name, value in block.items()
        if name != "kind" and value not in (None, [], "none")
    ]
    return ": ".join(filter(None, (block.get("kind", ""), ", ".join(values)))) or "none"


def about_cost(facts: Facts) -> Section:
    """List parameters, seconds and operations of a classifier, and what it ran on."""
    parameters = facts.model.get("parameters")
    evaluation = (facts.model.get("cost") or {}).get("evaluation_seconds")
    flops = facts.outcome.backbone_flops if isinstance(facts, RunFacts) else None
    return cost_section(
        facts.model,
        None if parameters is None else parameters * 4 / 1e6,
        seconds=[("seconds of calibration and test", number(evaluation, ",.1f"))],
        more=[("floating-point operations of the runs it starts from", number(flops, ".3g"))] if flops else [],
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
        ("seconds of training", number(cost.get("fit_seconds"), ",.1f")),
        *seconds,
        ("floating-point operations of the training", number(cost.get("training_flops"), ".3g")),
        *more,
        *model.get("versions", {}).items(),
    ]
    return Section("What it took", table=Table(("what", "how much"), rows, texts=2))


def repeat_sections(model: Mapping[str, Any], recipe: AnyRecipe, commands: str) -> list[Section]:
    """List every setting, and what it takes to train the same again.

    Args:
        model: content of the run's ``model.json``.
        recipe: that it was trained by.
        commands: what one can do in the folder of the run.
    """
    about = (
        f"The seed is {recipe.fit.seed}. The image set must have the fingerprint {model['data']['fingerprint']}, which changes"
        " with its pixels and labels, not with its place or name. With the same versions on the same machine the weights come"
        " out the same (on a GPU: with --deterministic), elsewhere close to these. In the folder of the run:"
    )
    return [
        Section("Every setting", code=to_yaml(recipe), folded=True),
        Section("How to repeat it", about, code=commands),
    ]


def number(value: float | None, form: str) -> str:
    """Format a number, or what stands where it is not known."""
    return MISSING if value is None else format(value, form)
