"""A finished run in sentences, tables and charts, for its report. Texts only; images are picked and drawn in ``reporting``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.answers import Answers
from sightline.charting import Bins, Curve, draw_curves, draw_reliability, draw_swatch
from sightline.config.resolving import to_mapping
from sightline.metrics import wilson_interval
from sightline.outcomes import MISSING, Outcome, read_curves, spoken_value
from sightline.pages import Chart, Section, Table

__all__ = [
    "Told",
    "about_classes",
    "about_cost",
    "about_doubt",
    "about_learning",
    "commands",
    "lead",
    "repeat",
    "warnings",
]

SURE = 0.9  # probability of an answer from which on the lead calls it sure
LISTED = 10  # classes that are named in a sentence
CONFUSED = 3  # pairs of classes that are named in a sentence
VIEWS = {"one": "one view", "flip": "with its mirror image", "six": "six views"}
CURVES = ("train_loss", "val_loss", "train_acc", "val_acc", "learning_rate")
SPLITS = {"test": "test", "validation": "validation"}


@dataclass(frozen=True)
class Told:
    """What is known of a run."""

    outcome: Outcome
    model: Mapping[str, Any]
    measured: Mapping[str, Any] | None
    """``evaluation.json``; None where the run was measured on nothing."""
    answers: Answers | None
    """``predictions.csv``, where there is the other."""

    @property
    def classes(self) -> list[str]:
        return list(self.model["classes"])

    @property
    def split(self) -> str:
        """What it was measured on."""
        return str((self.measured or {}).get("split", "test"))


# ── the top of the page ──────────────────────────────────────────────────────────────────────────────────────────────


def lead(told: Told) -> list[str]:
    """What was trained on what, how good it is, where it is wrong and how sure."""
    found = [_what_was_trained(told), _how_good(told)]
    if told.answers is not None:
        found += [_what_is_confused(told), _how_sure(told)]
    return found


def warnings(told: Told) -> list[str]:
    """What one must know of the images before one believes the numbers."""
    data, found = told.model["data"], []
    if shared := data.get("shared_with_test"):
        found.append(f"{shared:,} test images are also in train or validation, pixel for pixel.")
    if left_out := data.get("left_out"):
        found.append(f"{left_out:,} images could not be read and were left out.")
    return found


def _what_was_trained(told: Told) -> str:
    model, counts = told.model, told.outcome.counts
    height, width = model["size"]
    named = ", ".join(told.classes[:LISTED]) + (", …" if len(told.classes) > LISTED else "")
    return (
        f"{_network(told)}{_parameters(told)}, trained on {told.outcome.image_set}: {counts['train']:,} images to learn"
        f" from, {counts['validation']:,} for validation, {counts['test']:,} for the test; {len(told.classes)} classes"
        f" ({named}); {height} × {width} pixels."
    )


def _how_good(told: Told) -> str:
    readings, measured = told.model.get("test_readings", 0), told.measured
    read = {0: "never", 1: "once", 2: "twice"}.get(readings, f"{readings} times")
    told_of_test = f"The test images were read {read}." if readings else "The test images were never read."
    if measured is None:
        validation = told.outcome.validation
        known = ""
        if validation is not None:
            low, high = validation.interval
            known = (
                f" On the {validation.n:,} validation images by which its probabilities were set, its accuracy was"
                f" {validation.accuracy:.4f} ({_interval(low, high)})."
            )
        return f"It was measured on nothing, as asked.{known} {told_of_test}"
    low, high = measured["accuracy_interval"]
    which = "that it had not seen" if told.split == "test" else "by which its probabilities were set as well"
    return (
        f"Accuracy {measured['accuracy']:.4f} on {measured['n']:,} {told.split} images {which} ({_interval(low, high)})."
        f" {told_of_test}"
    )


def _what_is_confused(told: Told) -> str:
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


def _how_sure(told: Told) -> str:
    assert told.answers is not None
    assert told.measured is not None
    rows = np.arange(len(told.answers.files))
    confidence_N = told.answers.probabilities_NK[rows, told.answers.predicted_N]
    right_N = told.answers.predicted_N == told.answers.labels_N
    spoken = []
    for part_N, name in ((confidence_N >= SURE, f"a probability of {SURE} or more"), (confidence_N < SURE, "less")):
        if part_N.any():
            spoken.append(f"of the {part_N.sum():,} answers with {name}, {right_N[part_N].mean():.4f} are right")
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


def about_classes(told: Told) -> Section:
    """A line a class: images, precision, recall, F1."""
    assert told.measured is not None
    rows = [
        (name, f"{row['n']:,}", *(_number(row[key], ".4f") for key in ("precision", "recall", "f1")))
        for name, row in told.measured["classes"].items()
    ]
    about = (
        "Precision: of the answers that name the class, the share that is right. Recall: of the images of the class, the"
        " share that is found. F1: their harmonic mean."
    )
    return Section("Class by class", about, Table(("class", "images", "precision", "recall", "F1"), rows))


# ── how sure it is ───────────────────────────────────────────────────────────────────────────────────────────────────


def about_doubt(told: Told) -> list[Section]:
    """Calibration, prediction sets, images of no class, corruptions: of each what the run knows."""
    trust = told.model.get("trust") or {}
    found = [
        _about_calibration(told, trust),
        _about_sets(told, trust.get("sets")),
        _about_unknown(told, trust.get("unknown")),
        _about_corruptions(trust.get("corruptions")),
    ]
    return [section for section in found if section is not None]


def _about_calibration(told: Told, trust: Mapping[str, Any]) -> Section | None:
    measured, rows = told.measured, []
    sources = [(f"{told.split}, {measured['n']:,} images", measured)] if measured is not None else []
    if "calibration_error" in trust:
        sources.append((f"validation, {trust['n']:,} images that set them", trust))
    for name, source in sources:
        rows.append(
            (name, *(_number(source.get(key), ".4f") for key in ("calibration_error_unscaled", "calibration_error")))
        )
    if not rows:
        return None
    shown = [(name, source["reliability"]) for name, source in sources if source.get("reliability")]
    charts, legend = [], []
    if shown:
        svg = draw_reliability(
            "Confidence and right answers", [_bins(style, bins) for style, (_, bins) in enumerate(shown)]
        )
        caption = "Answers of equal confidence: the share of them that is right, with its 95 % interval (Wilson’s). On the line both agree; below it the classifier is too sure."
        charts = [Chart(svg, caption)]
        legend = [(name, draw_swatch(style)) for style, (name, _) in enumerate(shown)]
    about = (
        "Its probabilities are scaled by one number, the temperature, that was fitted on"
        f" {_number(told.model.get('calibrated_on'), ',')} validation images. Calibration error: the mean distance of"
        " confidence and accuracy over 15 bins of confidence; 0 is perfect."
    )
    table = Table(("images", "calibration error before scaling", "after"), rows)
    return Section("How sure it is", about, table, charts, legend=legend)


def _bins(style: int, bins: Sequence[Mapping[str, Any]]) -> Bins:
    held = [one for one in bins if one["n"]]
    intervals = [wilson_interval(round(one["accuracy"] * one["n"]), one["n"]) for one in held]
    return Bins(
        style,
        [one["confidence"] for one in held],
        [one["accuracy"] for one in held],
        [low for low, _ in intervals],
        [high for _, high in intervals],
    )


def _about_sets(told: Told, sets: Mapping[str, Any] | None) -> Section | None:
    if not sets:
        return None
    tested = (told.measured or {}).get("sets") or {}
    rows = []
    for wanted, one in sets["coverages"].items():
        found = tested.get(wanted) or {}
        rows.append(
            (
                wanted,
                *(_number(found.get(key), form) for key, form in (("coverage", ".4f"), ("mean_size", ".2f"))),
                f"{one['mean_size']:.2f}",
            )
        )
    about = (
        f"Instead of one answer it can give a set of classes that holds the true one with a chosen probability ({sets['score'].upper()},"
        f" calibrated on {told.model['trust']['n']:,} validation images): the less sure it is, the more classes."
    )
    columns = ("wanted", f"sets with the true class, {told.split}", "classes in a set", "on validation")
    return Section("Sets of classes", about, Table(columns, rows))


def _about_unknown(told: Told, unknown: Mapping[str, Any] | None) -> Section | None:
    if not unknown:
        return None
    rows = [("its own validation", f"{told.model['trust']['n']:,}", f"{unknown['share_of_own']:.4f}")]
    if told.measured is not None and "unknown_share" in told.measured:
        rows.append((f"its own {told.split}", f"{told.measured['n']:,}", f"{told.measured['unknown_share']:.4f}"))
    rows += [(name, f"{one['n']:,}", f"{one['rate']:.4f}") for name, one in unknown.get("rates", {}).items()]
    about = (
        f"An image is called “none of these” by its {unknown['score'].replace('_', ' ')}, beyond a threshold of"
        f" {format(unknown['threshold'], '.4g').replace('-', '−')}, which was set on validation. Of images that show none of the classes it should be many;"
        " of its own, few."
    )
    return Section("Images of no class", about, Table(("images of", "n", "called “none of these”"), rows))


def _about_corruptions(found: Mapping[str, Any] | None) -> Section | None:
    if not found:
        return None
    series = found["accuracy"]
    severities = range(1 + max(len(values) for values in series.values()))
    curves = [
        Curve(style, severities, whole := [found["clean"], *values], whole, whole)
        for style, values in enumerate(series.values())
    ]
    svg = draw_curves("Accuracy on corrupted images", "accuracy", curves, over="severity")
    rows = [(name, *(f"{value:.4f}" for value in values)) for name, values in series.items()]
    about = (
        f"Accuracy on {found['n']:,} validation images ({VIEWS.get(found['views'], found['views'])}) that were corrupted on"
        f" purpose; as they are, it is {found['clean']:.4f}."
    )
    return Section(
        "On worse images",
        about,
        Table(("corruption", *(f"severity {number}" for number in severities[1:])), rows),
        [Chart(svg, "Severity 0: the images as they are.")],
        legend=[(name, draw_swatch(style)) for style, name in enumerate(series)],
    )


# ── how it came about ────────────────────────────────────────────────────────────────────────────────────────────────


def about_learning(told: Told) -> Section | None:
    """Loss, accuracy and rate of every epoch; None where there are none."""
    curves = read_curves(told.outcome.run, CURVES)
    charts = []
    for title, unit, names in (
        ("Loss", "loss", ("train_loss", "val_loss")),
        ("Accuracy", "accuracy", ("train_acc", "val_acc")),
        ("Learning rate", "rate", ("learning_rate",)),
    ):
        shown = [_curve(style, curves[name]) for style, name in enumerate(names) if curves[name]]
        if shown:
            charts.append(Chart(draw_curves(title, unit, shown), f"{title}, by epoch."))
    if not charts:
        return None
    kept = told.model.get("kept") or {}
    about = "Training images are augmented and their loss may be smoothed, so they can look harder than validation’s."
    if kept:
        about += f" Handed on are the weights of epoch {kept['epoch']}: best {kept['monitor']}, {kept['value']:.4f}."
    if told.outcome.recipe.selects:
        about += " The curve of validation is of the half that chose while training, and flatters."
    legend = [("train (of the rate: the first group’s)", draw_swatch(0)), ("validation", draw_swatch(1))]
    return Section("How it learnt", about, charts=charts, legend=legend)


def _curve(style: int, points: Sequence[tuple[int, float]]) -> Curve:
    epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
    return Curve(style, epochs, values, values, values)


def about_cost(told: Told) -> list[Section]:
    """What mattered of the settings; what it took."""
    recipe, model = to_mapping(told.outcome.recipe), told.model
    blocks = (
        ("network", "network"),
        ("head", "head"),
        ("fine-tuning", "finetune"),
        ("optimizer", "optimizer"),
        ("schedule", "schedule"),
        ("averaging", "averaging"),
        ("early stopping", "early_stopping"),
        ("augmentation", "augment"),
    )
    rows = [("recipe", recipe["name"])]
    rows += [(name, _block(recipe[block])) for name, block in blocks if recipe.get(block)]
    fit = recipe["fit"]
    rows += [
        ("epochs", str(fit["epochs"])),
        ("images a batch", str(fit["batch_size"])),
        ("seed", str(fit["seed"])),
        ("views of an image", VIEWS[recipe["evaluation"]["views"]]),
    ]
    cost, outcome = model.get("cost") or {}, told.outcome
    spent = [
        ("parameters", _number(outcome.parameters, ",")),
        ("weights, MB", _number(outcome.parameters and outcome.parameters * 4 / 1e6, ".1f")),
    ]
    spent += [
        ("device", cost.get("device", MISSING)),
        ("seconds of fit", _number(cost.get("fit_seconds"), ",.1f")),
        ("seconds of calibration and test", _number(cost.get("evaluation_seconds"), ",.1f")),
    ]
    spent += [
        ("FLOP/s of a convolution meanwhile", _number(cost.get("probe_flops"), ".3g")),
        ("cost: seconds × that", _number(cost.get("cost"), ".3g")),
        ("operations of the training", _number(cost.get("training_flops"), ".3g")),
    ]
    if outcome.backbone_flops:
        spent.append(("operations of the runs it starts from", _number(outcome.backbone_flops, ".3g")))
    spent += [(name, version) for name, version in model.get("versions", {}).items()]
    return [
        Section("Settings", table=Table(("setting", "value"), rows, texts=2)),
        Section("What it took", table=Table(("what", "how much"), spent, texts=2)),
    ]


def _block(block: Mapping[str, Any]) -> str:
    """A block of settings in a line: ``muon: learning rate 0.1, momentum 0.6``."""
    told = []
    for name, value in block.items():
        if name == "kind" or value is None or value == [] or value == "none":
            continue
        spoken = (
            value["kind"]
            if isinstance(value, dict) and "kind" in value
            else _block(value)
            if isinstance(value, dict)
            else spoken_value(value)
        )
        told.append(f"{name.replace('_', ' ')} {spoken}")
    return ": ".join(filter(None, (block.get("kind", ""), ", ".join(told)))) or "none"


def repeat(told: Told) -> list[str]:
    """What it takes to train the same again."""
    data = told.model["data"]
    return [
        f"The seed is {told.outcome.recipe.fit.seed}. The image set must have the fingerprint {data['fingerprint']}, which"
        " changes with its pixels and labels, not with its place or name. With the same versions on the same machine the"
        " weights come out the same (on a GPU: with --deterministic), elsewhere close to these. In the folder of the run:"
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


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)
