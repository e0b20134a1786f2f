"""A finished run in sentences, tables and charts, for its report; its pictures are chosen in ``mistakes``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.config.generating import AnyRecipe
from sightline.config.resolving import to_mapping, to_yaml
from sightline.display.charts import Curve, draw_curves, draw_swatch
from sightline.display.pages import Chart, Section, Table
from sightline.evaluation.results import VIEWS, Facts, how_it_did
from sightline.runs.outcomes import Outcome, read_curves, spoken_value

__all__ = [
    "RunFacts",
    "about_learning",
    "about_settings",
    "in_figures",
    "learning_charts",
    "learning_section",
    "repeat_sections",
    "settings_section",
    "trained_on",
]

BLOCKS = ("network", "head", "finetune", "optimizer", "schedule", "averaging", "early_stopping", "augment")
LISTED = 10  # classes that are named in a sentence
MUCH = 5  # factor between values, from which on a logarithmic scale shows them better and has numbers beside it
CURVES = [("Loss", "loss", ("train_loss", "val_loss")), ("Accuracy", "accuracy", ("train_acc", "val_acc"))]
RATE = ("Learning rate", "rate", ("learning_rate",))


@dataclass(frozen=True)
class RunFacts(Facts):
    """Facts of a finished run."""

    outcome: Outcome


# ── what it is ────────────────────────────────────────────────────────────────────────────────────────────────────────


def in_figures(facts: RunFacts) -> list[str]:
    """Say what was trained on what, how good it is, where it is wrong and how sure."""
    network = to_mapping(facts.outcome.recipe)["network"]
    name = ":".join(str(network[part]) for part in ("kind", "repo", "name") if network.get(part))
    head, parameters = facts.outcome.recipe.head, facts.outcome.parameters
    name += f" with {head.kind} as its head" if head is not None else ""
    name += f" ({parameters:,} parameters)" if parameters is not None else ""
    notes = facts.model["data"].get("split_notes")
    split = [f"How it was split: {'; '.join(notes)}."] if notes else []
    mirroring = facts.model.get("mirroring", "")
    mirrored = [f"{mirroring[0].upper()}{mirroring[1:]}."] if mirroring else []
    return [f"{name}, {trained_on(facts.model)}", *split, *mirrored, *how_it_did(facts)]


def trained_on(model: Mapping[str, Any]) -> str:
    """Describe the image set, its images, classes and pixels, as the second half of a sentence."""
    data, classes, (height, width) = model["data"], model["classes"], model["size"]
    counts = data["counts"]
    named = ", ".join(classes[:LISTED]) + (", …" if len(classes) > LISTED else "")
    aside = f"{counts['validation']:,} for validation, {counts['test']:,} for the test"
    if not counts["validation"] and not counts["test"]:
        aside = "none set aside"
    return (
        f"trained on {data['name']}: {counts['train']:,} images to learn from, {aside}; {len(classes)} classes"
        f" ({named}); {height} × {width} pixels."
    )


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
        shown = [Curve(style, *zip(*curves[name], strict=True)) for style, name in enumerate(names) if curves[name]]
        if shown:
            values = [value for curve in shown for value in curve.values]
            differ = title in logarithmic and 0 < MUCH * min(values) <= max(values)
            caption = f"{title}, by epoch{', on a logarithmic scale' if differ else ''}."
            charts.append(Chart(draw_curves(title, unit, shown, logarithmic=differ), caption))
    return charts


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


def repeat_sections(model: Mapping[str, Any], recipe: AnyRecipe, commands: str) -> list[Section]:
    """List every setting, and what it takes to train the same again.

    Args:
        model: content of the run's ``model.json``.
        recipe: that it was trained by.
        commands: what one can do in the folder of the run.
    """
    about = (
        f"The seed is {recipe.fit.seed}. The image set must have the fingerprint {model['data']['fingerprint']}, which"
        " changes with its pixels and labels, not with its place or name; its files must have the same names, too,"
        f" since they settle the order of the images. {_about_machine(model)} the weights come out the same (on a GPU:"
        f" with --deterministic), elsewhere close to these. {_about_weights(model)}"
        "DATA is where the images lie on your machine; in the folder of the run:"
    )
    return [
        Section("Every setting", code=to_yaml(recipe), folded=True),
        Section("How to repeat it", about, code=commands),
    ]


def _about_weights(model: Mapping[str, Any]) -> str:
    """Say how to tell whether the weights came out the same; nothing of a run from before they were digested."""
    digest = model.get("weights_sha256")
    if digest is None:
        return ""
    return (
        f"The SHA-256 of the weights begins with {digest[:16]} (weights_sha256 in model.json): it is the same where"
        " they are, and sightline compare says so. "
    )


def _about_machine(model: Mapping[str, Any]) -> str:
    """Say what must be the same for the same weights, as far as the run has noted it."""
    device = (model.get("cost") or {}).get("device")
    here = ", ".join(f"{name} {number}" for name, number in (model.get("versions") or {}).items())
    return (
        f"It was trained{f' on {device}' if device else ''} in {model.get('precision', 'float32')}"
        f"{f' by {here}' if here else ''}. With the same versions, on the same machine and with the same number of"
        " threads,"
    )
