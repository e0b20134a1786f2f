"""What a training reports before its first step: images, network, phases and an estimate."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from sightline.config.generating import AnyRecipe
from sightline.config.probing import MOST_SECONDS, TIMES_FEATURES, ProbeConfig
from sightline.config.settings import Recipe
from sightline.data.cache import CachedImages
from sightline.data.ranges import notes_on_reading
from sightline.data.remarks import remarks
from sightline.data.splits import Splits
from sightline.display.events import Table
from sightline.display.reporting import Listener, ignore
from sightline.display.terminal import natural_order
from sightline.display.waiting import spoken_seconds
from sightline.machine.devices import choose_device, describe
from sightline.models.base import Network
from sightline.models.build import summarize
from sightline.models.flops import Countable
from sightline.training.estimates import Estimate, estimate_training, features_per_second
from sightline.training.phases import Phase

if TYPE_CHECKING:
    from sightline.training.base import Plan

__all__ = ["describe_phase", "describe_training", "odd_images"]

PARTS = {
    "filters": "weights",
    "head": "last layer",
    "biases": "biases and norms",
    "whitening": "whitening bias",
    "head_biases": "biases of the head",
}
"""What the parts of a network with a learning rate of their own are called on a screen."""
LISTED = 5  # images left out that are named on the console; all are in the cache's index


def describe_training(on_event: Listener, plan: "Plan") -> None:
    """Report the classes, the counts, what was left out, the recipe and why, notes, the network, and an estimate."""
    if on_event is ignore:  # an estimate costs seconds
        return
    recipe, images, network, counts = plan.recipe, plan.images, plan.network, plan.splits.counts()
    classes = ", ".join(natural_order(images.classes)[:10]) + (", ..." if len(images.classes) > 10 else "")
    on_event(f"{images.name}: {len(images.classes)} classes ({classes})")
    notes = f" ({'; '.join(plan.splits.notes)})" if plan.splits.notes else ""
    on_event("images: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()) + notes)
    for line in odd_images(images, plan.splits):
        on_event(line)
    on_event(f"recipe: {recipe.name} ({plan.why})")
    for note in plan.notes():
        on_event(note)
    on_event(_table_of_layers(recipe, network, images.size))
    if isinstance(recipe, Recipe) and recipe.probe is not None and isinstance(network, Network):
        speed = features_per_second(network, images.size, recipe.fit.precision)
        for sentence in _estimated_probe(recipe.probe, counts, speed):
            on_event(sentence)
        if recipe.probe.then != "finetune":
            return
    on_event(_estimated(recipe, estimate_training(recipe, network, images.size, counts["train"], counts["validation"])))


def _table_of_layers(recipe: AnyRecipe, network: Countable, size: tuple[int, int]) -> Table:
    built, head = (recipe.network, recipe.head) if isinstance(recipe, Recipe) else (recipe.generator, None)
    parts = (getattr(built, part, None) for part in ("kind", "repo", "name", "folder"))
    name = ":".join(part for part in parts if part) + (f" + {head.kind}" if head else "")
    lines = summarize(network, size)
    rows = [
        (line.name, line.kind, "×".join(map(str, line.output)), f"{line.parameters:,}", f"{line.megabytes:.3f}")
        for line in lines
    ]
    parameters = sum(line.parameters for line in lines)
    rows.append(("total", "", "", f"{parameters:,}", f"{parameters * 4 / 1e6:.3f}"))
    title = f"{name} on {size[0]}×{size[1]} px"
    return Table(("layer", "type", "output", "parameters", "MB"), rows, texts=3, title=title)


def _estimated_probe(probe: ProbeConfig, counts: Mapping[str, int], speed: float) -> list[str]:
    """Return lines on what a probe takes, and what may follow it."""
    images = counts["train"] + counts["validation"]
    seconds = images / speed
    measured = f", and {spoken_seconds(counts['test'] / speed)} for the test" if counts["test"] else ""
    lines = [
        f"estimate: {spoken_seconds(seconds)} for the features of {images:,} images at {speed:,.0f} images/s (none"
        f" where they are kept from before){measured}, on {describe(choose_device())}"
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
        f" {estimate.memory / 1e9:.1f} GB of memory, on {describe(estimate.device)} in"
        f" {str(estimate.dtype).removeprefix('torch.')}"
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


def odd_images(images: CachedImages, splits: Splits) -> list[str]:
    """Return lines on what is odd about the images of a set, and on how they were read."""
    lines = [*remarks(images)]
    if images.tiny:
        tiny = ", ".join(images.tiny[:LISTED])
        lines.append(f"warning: {len(images.tiny)} images were enlarged more than four times ({tiny})")
    lines += notes_on_reading(images)
    if splits.shared_with_test:
        shared = splits.shared_with_test
        lines.append(f"warning: {shared} test images are also in train or validation, pixel for pixel")
    return lines
