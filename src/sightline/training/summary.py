"""The lines that a training prints before its first step and after its last, on a console that may be a log."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from sightline.config import AnyRecipe, ProbeConfig, Recipe
from sightline.config.probing import MOST_SECONDS, TIMES_FEATURES
from sightline.data.cache import CachedImages
from sightline.data.ranges import notes_on_reading
from sightline.data.remarks import remarks
from sightline.data.splits import Splits
from sightline.display.terminal import Table, cell, natural_order, show
from sightline.display.waiting import spoken_seconds
from sightline.machine.devices import choose_device, describe
from sightline.models.base import Network
from sightline.models.build import summarize
from sightline.models.flops import Countable
from sightline.runs.folder import REPORT, SAMPLES
from sightline.training.estimates import Estimate, estimate_training, features_per_second
from sightline.training.phases import Phase

if TYPE_CHECKING:
    from sightline.training.base import Plan

__all__ = [
    "TrialLines",
    "about_fidelity",
    "about_standard_fid",
    "describe_phase",
    "describe_training",
    "describe_tuning",
    "show_generator",
    "show_kept",
    "show_measures",
    "show_next_steps",
    "show_tuning",
]

PARTS = {
    "filters": "weights",
    "head": "last layer",
    "biases": "biases and norms",
    "whitening": "whitening bias",
    "head_biases": "biases of the head",
}
"""What the parts of a network with a learning rate of their own are called on a screen."""
LISTED = 5  # images left out that are named on the console; all are in the cache's index


def describe_training(console: Console, plan: "Plan") -> None:
    """Print the classes, the counts, what was left out, the recipe and why, notes, the network, and an estimate."""
    if console.quiet:
        return
    recipe, images, network, counts = plan.recipe, plan.images, plan.network, plan.splits.counts()
    classes = ", ".join(natural_order(images.classes)[:10]) + (", ..." if len(images.classes) > 10 else "")
    say = _to(console)
    say(f"{images.name}: {len(images.classes)} classes ({classes})")
    notes = f" ({'; '.join(plan.splits.notes)})" if plan.splits.notes else ""
    say("images: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()) + notes)
    _describe_odd(say, images, plan.splits)
    say(f"recipe: {recipe.name} ({plan.why})")
    for note in plan.notes():
        say(note)
    show(_table_of_layers(recipe, network, images.size), console)
    if isinstance(recipe, Recipe) and recipe.probe is not None and isinstance(network, Network):
        speed = features_per_second(network, images.size, recipe.fit.precision)
        for sentence in _estimated_probe(recipe.probe, counts, speed):
            say(sentence)
        if recipe.probe.then != "finetune":
            return
    say(_estimated(recipe, estimate_training(recipe, network, images.size, counts["train"], counts["validation"])))


def _table_of_layers(recipe: AnyRecipe, network: Countable, size: tuple[int, int]) -> Table:
    built, head = (recipe.network, recipe.head) if isinstance(recipe, Recipe) else (recipe.generator, None)
    parts = (getattr(built, part, None) for part in ("kind", "repo", "name", "folder"))
    name = ":".join(part for part in parts if part) + (f" + {head.kind}" if head else "")
    table = _table(f"{name} on {size[0]}×{size[1]} px", "layer", "type", "output", right=("parameters", "MB"))
    lines = summarize(network, size)
    for line in lines:
        shape = "×".join(map(str, line.output))
        table.add_row(line.name, line.kind, shape, f"{line.parameters:,}", f"{line.megabytes:.3f}")
    parameters = sum(line.parameters for line in lines)
    table.add_row("total", "", "", f"{parameters:,}", f"{parameters * 4 / 1e6:.3f}", end_section=True)
    return table


def _table(title: str, *left: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table with columns of words on its left and of numbers on its right."""
    table = Table(title)
    for column in (*left, *right):
        table.add_column(column, justify="right" if column in right else "left")
    return table


def _estimated_probe(probe: ProbeConfig, counts: Mapping[str, int], speed: float) -> list[str]:
    """Return lines on what a probe takes, and what may follow it."""
    images = counts["train"] + counts["validation"]
    seconds = images / speed
    measured = f", and {spoken_seconds(counts['test'] / speed)} for the test" if counts["test"] else ""
    lines = [
        f"estimate: {spoken_seconds(seconds)} for the features of {images:,} images at {speed:,.0f} images/s (none where they"
        f" are kept from before){measured}, on {describe(choose_device())}"
    ]
    if probe.then == "auto" and counts["validation"]:
        limit = (
            f"everything is to take at most {probe.minutes:g} minutes"
            if probe.minutes is not None
            else f"at most {spoken_seconds(min(TIMES_FEATURES * seconds, MOST_SECONDS))}; --minutes allows more or less"
        )
        lines.append(f"then something better is looked for and kept only if it is better on validation: {limit}")
    return lines


def _estimated(recipe: AnyRecipe, estimate: Estimate) -> str:
    """Return the line of an estimate."""
    once = ", the frozen layers once for each image," if estimate.kept else ""
    return (
        f"estimate: {'at most ' if recipe.early_stopping else ''}{spoken_seconds(estimate.seconds)} for"
        f" {recipe.fit.epochs} epochs{once} at {estimate.speed:,.0f} images/s of full size, and about"
        f" {estimate.memory / 1e9:.1f} GB of memory, on {describe(estimate.device)} in {str(estimate.dtype).removeprefix('torch.')}"
    )


def describe_phase(
    phases: Sequence[Phase], index: int, network: Network, optimizer: torch.optim.Optimizer | None = None
) -> str:
    """Return a line that says what learns in a phase: how many parameters, of which layers, at which rates.

    Args:
        phases: of the training.
        index: which of them, counted from 0.
        network: whose parameters are counted.
        optimizer: knows the peak rate of each part; None before there is one.
    """
    phase = phases[index]
    counts = {name: parameter.numel() for name, parameter in network.named_parameters()}
    learning = sum(counts[name] for name in phase.trained)
    layers = ", ".join(phase.layers[:LISTED]) + (
        f" and {len(phase.layers) - LISTED} more" if len(phase.layers) > LISTED else ""
    )
    line = f"phase {index + 1} of {len(phases)}, {phase.when}: " if len(phases) > 1 else "fine-tuning: "
    line += f"{learning:,} of {sum(counts.values()):,} parameters learn ({layers})"
    if optimizer is None:
        return line + (f", at {phase.rate:g} of the peak learning rates" if phase.rate != 1 else "")
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    peaks: dict[str, list[float]] = {}
    for group in optimizer.param_groups:
        if any(names[id(parameter)] in phase.trained for parameter in group["params"]):
            peaks.setdefault(group["part"], []).append(group["initial_lr"] * phase.rate)
    spoken = (
        f"{PARTS[part]} {min(rates):.3g}" + (f" to {max(rates):.3g}" if len(rates) > 1 else "")
        for part, rates in peaks.items()
    )
    return f"{line}; peak learning rates: {', '.join(spoken)}"


def show_kept(console: Console, kept: dict[str, Any], epochs: int) -> None:
    """Print which validation chose the weights, as ``averaging.hand_on`` gives it."""
    stopped = f"stopped early, after epoch {kept['stopped_after']} of {epochs}; " if kept["stopped_after"] else ""
    _to(console)(f"{stopped}weights of epoch {kept['epoch']}: best {kept['monitor']}, {kept['value']:.4f}")


def show_measures(console: Console, measured: dict[str, Any]) -> None:
    """Print the measures of an evaluation as a table."""
    low, high = measured["accuracy_interval"]
    where = f" {measured['split']}" if "split" in measured else ""
    title, rule = f"measured on {measured['n']:,}{where} images", "Wilson"
    if "groups" in measured:
        rule = f"cluster bootstrap, {measured['groups']:,} groups"
    if "folds" in measured:
        title = (
            f"cross-validated on {measured['n']:,} images ({measured['folds']} folds, {measured['repeats']} repeats)"
        )
        rule = "corrected for the overlap of the folds"
    table = _table(title, "measure", right=("value",))
    views = {"one": "one view", "flip": "with the mirror image", "six": "six views"}[measured["views"]]
    table.add_row(f"accuracy ({views})", f"{measured['accuracy']:.4f}")
    table.add_row(f"  95 % interval ({rule})", f"{low:.4f} to {high:.4f}")
    if measured["views"] != "one":
        table.add_row("accuracy with one view", f"{measured['accuracy_one_view']:.4f}")
    if "top_5_accuracy" in measured:
        table.add_row("top-5 accuracy", f"{measured['top_5_accuracy']:.4f}")
    table.add_row("loss", f"{measured['loss']:.4f}")
    table.add_row("calibration error (15 bins)", f"{measured['calibration_error']:.4f}")
    table.add_row("  before temperature scaling", f"{measured['calibration_error_unscaled']:.4f}")
    for coverage, found in measured.get("sets", {}).items():
        held = f"{found['coverage']:.4f}, with {found['mean_size']:.2f} classes"
        table.add_row(f"prediction sets for {float(coverage):.0%}: hold the true class", held)
    if "unknown_share" in measured:
        table.add_row("called none of the classes", f"{measured['unknown_share']:.4f}")
    if "arithmetic" in measured:
        table.add_row("number format of the answers", measured["arithmetic"])
    if "cost" in measured:
        cost = measured["cost"]
        seconds = cost["fit_seconds"] + cost["evaluation_seconds"]
        table.add_row("seconds of training and test", f"{seconds:.1f}")
    show(table, console)
    classes = _table("by class", "class", right=("n", "precision", "recall", "F1"))
    for name in natural_order(measured["classes"])[:30]:
        row = measured["classes"][name]
        numbers = ["–" if row[key] is None else f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
        classes.add_row(name, str(row["n"]), *numbers)
    show(classes, console)


def show_next_steps(console: Console, run: Path, location: str, model: dict[str, Any]) -> None:
    """Print what one may do with a finished run."""
    say = _to(console)
    readings = model["test_readings"]
    if readings:
        say(f"The test split was read {'once' if readings == 1 else f'{readings} times'}.")
    say("Next:")
    if (run / REPORT).exists():
        say(f"  {run / REPORT}   what it was trained on, how good, where wrong, how sure")
    say(f"  sightline predict {run} IMAGES...      what it sees in other images")
    say(f"  sightline evaluate {run} DATA          how good it is on another image set")
    say(f"  sightline train --config {run}/recipe.yaml --run ANOTHER   the same again")


def show_generator(console: Console, run: Path, losses: Mapping[str, float], n: int) -> None:
    """Print what a finished generator reached, and what one may do with it."""
    say = _to(console)
    if "val_generator_loss" in losses:
        say(
            f"losses on {n:,} validation images: discriminator {losses['val_loss']:.4f}, generator"
            f" {losses['val_generator_loss']:.4f} (of a contest: neither says how good the images are)"
        )
    elif "val_loss" in losses:
        say(f"loss on {n:,} validation images: {losses['val_loss']:.4f} (mean squared error of the noise)")
    say("Next:")
    if (run / REPORT).exists():
        say(f"  {run / REPORT}   what it was trained on, how it learned, what it makes")
    say(f"  {run / SAMPLES}   what it made after some of the epochs")
    say(f"  sightline generate {run} --per-class 100 --out FOLDER   images of each class")


def about_fidelity(run: str, found: Mapping[str, Any]) -> str:
    """Tell how near made images are to real ones, with what the numbers may be compared with."""
    return (
        f"in the features of {run}, {found['made']:,} made and {found['real']:,} real images: Fréchet distance"
        f" {found['frechet']:.4g}, precision {found['precision']:.3f}, recall {found['recall']:.3f} (compare only with what the"
        " same run measured of as many)"
    )


def about_standard_fid(found: Mapping[str, Any]) -> str:
    """Tell the distance that compares with papers, and what it depends on."""
    height, width = found["size"]
    return (
        f"in the Inception features of the literature, {found['made']:,} made and {found['real']:,} real images of"
        f" {height}×{width} px: standard FID {found['fid']:.4g} (compare only with one of as many: papers make 50,000)"
    )


# ── tuning ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def describe_tuning(console: Console, images: CachedImages, splits: Splits, facts: Sequence[str]) -> None:
    """Print what is tuned, on what, and how."""
    say = _to(console)
    counts = splits.counts()
    say(
        f"{images.name}: {len(images.classes)} classes; train {counts['train']:,}, validation {counts['validation']:,} images;"
        " no trial reads the test split"
    )
    _describe_odd(say, images, splits)
    for fact in facts:
        say(fact)


class TrialLines:
    """A line for each trial that has ended; on a terminal, what is running stands below them."""

    def __init__(self, console: Console, total: int) -> None:
        self._say, self._total = _to(console), total
        self._status = console.status("") if console.is_terminal and not console.quiet else None
        self._running: dict[int, str] = {}

    def __enter__(self) -> "TrialLines":
        if self._status is not None:
            self._status.start()
        return self

    def running(self, number: int, text: str) -> None:
        """Show how far a trial is."""
        self._running[number] = f"trial {number}: {text}"
        self._refresh()

    def ended(self, number: int, text: str) -> None:
        """Print the line of a trial."""
        self._running.pop(number, None)
        self._say(f"trial {number}/{self._total}  {text}")
        self._refresh()

    def _refresh(self) -> None:
        if self._status is not None:
            self._status.update(cell("   ".join(self._running.values())))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()


def show_tuning(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]], facts: Sequence[str]) -> None:
    """Print the best trials as a table, and what to know of them."""
    table = Table("the best trials")
    for column in header:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    show(table, console)
    for fact in facts:
        _to(console)(fact)


def _to(console: Console) -> Callable[[str], None]:
    """Return what prints lines as they are on a console: no markup, no wrapping in a log."""
    return partial(show, console=console)


def _describe_odd(say: Callable[[str], None], images: CachedImages, splits: Splits) -> None:
    for line in remarks(images):
        say(line)
    if images.tiny:
        say(
            f"warning: {len(images.tiny)} images were enlarged more than four times ({', '.join(images.tiny[:LISTED])})"
        )
    for note in notes_on_reading(images):
        say(note)
    if splits.shared_with_test:
        say(f"warning: {splits.shared_with_test} test images are also in train or validation, pixel for pixel")
