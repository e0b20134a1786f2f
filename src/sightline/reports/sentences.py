"""A finished run in sentences, tables and charts, for its report. Texts only; images are picked and drawn in ``reporting``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.config import AnyRecipe
from sightline.config.resolving import to_mapping
from sightline.display.charts import Curve, draw_curves, draw_swatch
from sightline.display.pages import Chart, Section, Table
from sightline.evaluation.results import VIEWS, Known, how_it_did
from sightline.runs.outcomes import Outcome, read_curves, spoken_value

__all__ = [
    "Told",
    "about_learning",
    "about_settings",
    "commands",
    "lead",
    "learning_charts",
    "learning_legend",
    "repeat",
    "settings_section",
    "trained_on",
]

BLOCKS = ("network", "head", "finetune", "optimizer", "schedule", "averaging", "early_stopping", "augment")
LISTED = 10  # classes that are named in a sentence
MUCH = 5  # factor between values, from which on a logarithmic scale shows them better and has numbers beside it
CURVES = (
    ("Loss", "loss", ("train_loss", "val_loss")),
    ("Accuracy", "accuracy", ("train_acc", "val_acc")),
    ("Learning rate", "rate", ("learning_rate",)),
)


@dataclass(frozen=True)
class Told(Known):
    """What is known of a run."""

    outcome: Outcome


# ── the top of the page ──────────────────────────────────────────────────────────────────────────────────────────────


def lead(told: Told) -> list[str]:
    """What was trained on what, how good it is, where it is wrong and how sure."""
    return [_what_was_trained(told), *how_it_did(told)]


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


def _network(told: Told) -> str:
    network = to_mapping(told.outcome.recipe)["network"]
    name = ":".join(str(network[part]) for part in ("kind", "repo", "name") if network.get(part))
    head = told.outcome.recipe.head
    return f"{name} with {head.kind} as its head" if head is not None else name


def _parameters(told: Told) -> str:
    return "" if told.outcome.parameters is None else f" ({told.outcome.parameters:,} parameters)"


# ── where it is wrong ────────────────────────────────────────────────────────────────────────────────────────────────


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
