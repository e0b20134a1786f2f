"""What is settled, and refused, before the first step of a training: images, recipe, network, the run to continue."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from sightline.backbones import SEEN, Built, build, describe_network, with_whole_paths
from sightline.config import (
    AnyRecipe,
    FrozenConfig,
    GeneratorRecipe,
    Recipe,
    batches_within,
    read_recipe,
    refuse_range_test,
    resolve,
)
from sightline.config.resolving import AUTO, flatten, refuse_hopeless, searches, to_mapping
from sightline.describing import Progress, describe_phase
from sightline.devices import arithmetic, choose_device, refuse_without_compiler, set_determinism
from sightline.errors import ConfigError, DataError, RunError
from sightline.extras import refuse_missing_trackers
from sightline.features import settle_features
from sightline.images.batches import Normalization, derived_seed, prepare
from sightline.images.cache import CachedImages, open_images
from sightline.images.excluding import excluded_fingerprint
from sightline.images.joining import generated_fingerprint
from sightline.images.lookup import find_source
from sightline.images.sources import ImageSource
from sightline.images.splits import Splits
from sightline.misfits import (
    SMALLEST_SIDE,
    refuse_misfits,
    refuse_processes,
    refuse_saturation_of_grey,
    refuse_small_padding,
    refuse_split_seed,
    refuse_without_effect,
)
from sightline.nets import ACGAN, HeadedNetwork, Network, UNet
from sightline.phases import layers_of, phases_of
from sightline.runs import MODEL_FORMAT, list_runs, read_any_recipe, read_model

__all__ = [
    "AnyPlan",
    "GeneratorPlan",
    "Plan",
    "as_found",
    "changes",
    "changes_since",
    "choose_recipe",
    "describe_classifier",
    "describe_origin",
    "notes",
    "prepare_training",
    "refuse_validation",
    "run_to_resume",
    "what_is_asked",
]

MANY_SMALL = 10_000  # images up to 64 px; from here on the few large batches of ``fast`` are enough steps
MANY_LARGE = 20_000  # larger images
SMALL_SIDE = 64  # pixels


SEARCHES = {
    "fit.batch_size": "to be found before the first step, by steps with ever larger batches",
    "optimizer.learning_rate": "to be found before the first step, by a range test and short trainings",
}
"""What a dry run says of each setting that may be searched for."""


@dataclass(frozen=True)
class Plan:
    """Everything that is settled before the first step."""

    source: ImageSource
    recipe: Recipe
    why: str
    images: CachedImages
    splits: Splits
    normalization: Normalization
    built: Built
    kept: str = ""
    """Whether the features of a frozen backbone are kept, in words."""
    searches: tuple[str, ...] = ()
    """Settings of which the recipe has only a number to start from: they are searched for before the training."""

    @property
    def network(self) -> Network:
        return self.built.network


@dataclass(frozen=True)
class GeneratorPlan:
    """Everything that is settled before the first step of a generator's training."""

    source: ImageSource
    recipe: GeneratorRecipe
    why: str
    images: CachedImages
    splits: Splits
    normalization: Normalization
    network: UNet | ACGAN
    searches: tuple[str, ...] = ()


AnyPlan = Plan | GeneratorPlan
P = TypeVar("P", bound=Plan | GeneratorPlan)


def prepare_training(
    data: str | os.PathLike[str] | None,
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    settings: Mapping[str, Any],
    begun: Path | None,
    console: Console,
) -> Plan:
    """Settle everything that can be settled before the first step, and refuse what cannot be trained.

    Args:
        data, recipe, settings, console: as ``sightline.train`` has them.
        begun: the run to continue, whose own recipe is taken where nothing else is named.
    """
    asked, source = what_is_asked(data, recipe, begun)
    automatic, named = asked is None, asked or {}
    if automatic:
        refuse_hopeless(settings)
    refuse_missing_trackers(named, settings)
    why = "as asked"
    with Progress(console, f"Reading {source.name}") as progress:
        if automatic:
            wanted = settings.get("data") or {}
            name, why = choose_recipe(open_images(source, wanted.get("size"), progress), wanted.get("fraction", 1.0))
            named = read_recipe(name)
        chosen = with_whole_paths(resolve(named, settings, {"image_set": source.location}))
        arithmetic(chosen.fit.precision, choose_device())  # refuses what the device cannot
        set_determinism(chosen.fit.deterministic)
        if chosen.fit.compile:
            refuse_without_compiler(choose_device())
        opened = open_images(source, chosen.data.size, progress)
        if "val" in opened.splits:
            chosen = _without_validation(chosen, settings, source.name)
        refuse_split_seed(chosen, settings, opened)
        images, splits, normalization = prepare(source, chosen, progress)
    chosen = _without_scales(chosen, settings)
    if automatic and "scales" not in (settings.get("augment") or {}):
        chosen = _within_reach(chosen, min(images.size))
    refuse_misfits(chosen, min(images.size))
    searched = searches(named, settings)
    easiest = _easiest(chosen, searched, len(splits.train))
    refuse_processes(easiest, len(splits.train))
    refuse_small_padding(chosen, images)
    refuse_without_effect(easiest, images, splits)
    refuse_saturation_of_grey(chosen, images, splits)
    torch.manual_seed(derived_seed(chosen.fit.seed, "network"))
    built = build(chosen, images, splits)
    phases_of(chosen, built.network)  # refuses what the network does not have
    shown = len(splits.train) + len(splits.validation)
    chosen, kept = settle_features(chosen, built.network, shown, images.size, choose_device())
    if built.weights is not None and built.weights.mean is not None and built.weights.std is not None:
        normalization = Normalization(built.weights.mean, built.weights.std)
    return Plan(source, chosen, why, images, splits, normalization, built, kept, searched)


def what_is_asked(
    data: str | os.PathLike[str] | None, recipe: str | os.PathLike[str] | Mapping[str, Any], begun: Path | None
) -> tuple[dict[str, Any] | None, ImageSource]:
    """The content of the recipe that is asked for, None where it is auto, and the image set; arguments as above."""
    if begun is not None and data is None and recipe == "auto":
        if not (begun / "recipe.yaml").exists():
            raise RunError(
                f"{begun} is no run that could be continued: it has no recipe.yaml; name the image set to start it."
            )
        recipe = begun / "recipe.yaml"
    named = None if recipe == "auto" else dict(recipe) if isinstance(recipe, Mapping) else read_recipe(recipe)
    location = data if data is not None else (named or {}).get("image_set")
    if location is None:
        raise DataError("no image set was named; give a folder, an archive, a manifest, or a name such as digits.")
    return named, find_source(location)


def choose_recipe(images: CachedImages, fraction: float = 1.0) -> tuple[str, str]:
    """Choose a recipe by the size and number of the images, of which a fraction will be trained on.

    Returns:
        Its name, and why in words.
    """
    count, side = round(len(images.readable) * fraction), max(images.size)
    small = side <= SMALL_SIDE
    many = count >= (MANY_SMALL if small else MANY_LARGE)
    name = ("fast" if small else "resnet18") if many else "small"
    return name, f"{count:,} images of {side} px: {'many' if many else 'few'}, {'small' if small else 'larger'}"


def _without_validation(chosen: Recipe, settings: Mapping[str, Any], name: str) -> Recipe:
    """The recipe for a set that brings a validation split, of which none is cut."""
    refuse_validation(settings, name)
    return resolve(to_mapping(chosen), {"data": {"validation": None}})


def refuse_validation(settings: Mapping[str, Any], name: str) -> None:
    """Refuse to cut a validation split of a set that brings one."""
    if (settings.get("data") or {}).get("validation") is not None:
        raise ConfigError(f"--data.validation has no effect: {name} brings a validation split; leave the option out.")


def _without_scales(chosen: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe for a training too short for smaller images: a recipe's are left out, asking for them is refused."""
    epochs, scales = chosen.fit.epochs, chosen.augment.scales
    if not scales or any(chosen.augment.scale(epoch, epochs) < 1 for epoch in range(epochs)):
        return chosen
    if (settings.get("augment") or {}).get("scales"):
        raise ConfigError(
            f"--augment.scales {' '.join(f'{scale:g}' for scale in scales)} has no effect with --fit.epochs {epochs}: every"
            " epoch is shown in full; train longer, or leave the option out."
        )
    return resolve(to_mapping(chosen), {"augment": {"scales": []}})


def _within_reach(chosen: Recipe, side: int) -> Recipe:
    """A recipe that was not asked for by name: images of a side in pixels are shown no smaller than networks can read."""
    scales = [max(scale, min(1.0, SMALLEST_SIDE / side)) for scale in chosen.augment.scales]
    return resolve(to_mapping(chosen), {"augment": {"scales": scales if min(scales, default=1.0) < 1 else []}})


def _easiest(recipe: Recipe, searched: tuple[str, ...], images: int) -> Recipe:
    """The recipe with the smallest batch that a search may find: what that cannot do, none can.

    Raises:
        ConfigError: so many training images do not allow the searches.
    """
    if "optimizer.learning_rate" in searched:
        refuse_range_test(recipe.fit, recipe.finetune, images, "--optimizer.learning-rate auto")
    if "fit.batch_size" not in searched:
        return recipe
    return resolve(to_mapping(recipe), {"fit": {"batch_size": batches_within(recipe.fit, images)[0]}})


def run_to_resume(run: str | os.PathLike[str] | None, plan: AnyPlan) -> Path | None:
    """The run to continue; None where the one that was named does not exist yet."""
    if run is None:
        for summary in reversed(list_runs()):
            if not summary.finished and summary.recipe != "?" and not changes_since(summary.folder, plan):
                return summary.folder
        raise RunError(
            f"no unfinished run of {plan.source.name} with these settings in runs/; start one without --resume, or name"
            " it with --run."
        )
    folder = Path(run)
    if not folder.exists():
        return None
    if not (folder / "model.json").exists():  # killed before anything was kept
        if any(not item.name.startswith(".") and item.name not in ("recipe.yaml", SEEN) for item in folder.iterdir()):
            raise RunError(f"{folder} is no run that could be continued: it has no model.json; choose another --run.")
        return folder
    changed = changes_since(folder, plan)
    if changed:
        raise ConfigError(
            f"{folder} cannot be continued with other settings: {'; '.join(changed)}; leave them as they were, or start"
            " a new run."
        )
    if read_model(folder)["data"]["fingerprint"] != plan.images.fingerprint:
        raise DataError(
            f"{folder} cannot be continued: the images in {plan.source.location} have changed since it began; start a new run."
        )
    return folder


def as_found(plan: P, run: Path) -> P:
    """The plan with the numbers that a run's own searches found, for what the plan leaves to a search from the same start."""
    try:
        found: Mapping[str, Any] = read_model(run).get("found", {})
    except RunError:  # killed before anything was kept
        found = {}
    known = flatten(to_mapping(plan.recipe))
    settled = [
        name
        for name in plan.searches
        if name in found and all(known.get(start) == value for start, value in found[name]["from"].items())
    ]
    recipe: Any = plan.recipe
    for name in settled:
        recipe = resolve(to_mapping(recipe), found[name]["settings"])
    return replace(plan, recipe=recipe, searches=tuple(name for name in plan.searches if name not in settled))


def changes_since(run: Path, plan: AnyPlan) -> list[str]:
    """The settings in which a plan differs from those of a run; one that the run has searched for too does not differ."""
    before, now = read_any_recipe(run), as_found(plan, run)
    old = flatten(to_mapping(before))
    searched = [f"{name} was {old.get(name)} and is {AUTO}" for name in now.searches]
    listed = _other_images(run, before, plan)
    return (
        searched + listed + [change for change in changes(before, now.recipe) if change.split()[0] not in now.searches]
    )


def _other_images(run: Path, before: AnyRecipe, plan: AnyPlan) -> list[str]:
    """The lists and folders whose names are the same and whose images are others than when a run has begun."""
    if before.data.exclude is None and before.data.synthetic is None:
        return []
    try:
        data = read_model(run)["data"]
    except RunError:  # killed before anything was kept
        return []
    found = []
    if before.data.exclude is not None and data.get("excluded") != excluded_fingerprint(plan.images, plan.splits):
        found.append("data.exclude lists other images")
    if before.data.synthetic is not None and data.get("generated") != generated_fingerprint(plan.images, plan.splits):
        found.append("data.synthetic holds other images")
    return found


def changes(before: AnyRecipe, now: AnyRecipe) -> list[str]:
    """The settings that differ, as ``fit.epochs was 8 and is 10``."""
    old, new = flatten(to_mapping(before)), flatten(to_mapping(now))
    names = [name for name in {**old, **new} if name != "about" and old.get(name) != new.get(name)]
    return [f"{name} was {old.get(name)} and is {new.get(name)}" for name in names]


def notes(plan: Plan) -> list[str]:
    """What a user should know of the numbers that are searched for, of the weights that the training starts from, and of
    which of them learn."""
    lines = [f"{name}: auto, {SEARCHES[name]}" for name in plan.searches]
    if plan.built.weights is None:
        return lines + _notes_of_phases(plan)
    mean, std = (
        " ".join(f"{value:.3f}" for value in part) for part in (plan.normalization.mean, plan.normalization.std)
    )
    head = plan.recipe.head
    return [
        *lines,
        *plan.built.weights.lines(),
        *([] if head is None else [f"  a fresh head, as asked: {head.kind}"]),
        f"  normalised by the statistics these weights were trained with: mean {mean}, deviation {std}",
        *_notes_of_phases(plan),
    ]


def _notes_of_phases(plan: Plan) -> list[str]:
    """A line for each phase of a fine-tuning, and a warning where what is frozen at first has learnt nothing yet."""
    if plan.recipe.finetune is None:
        return []
    phases = phases_of(plan.recipe, plan.network)
    lines = [describe_phase(phases, index, plan.network) for index in range(len(phases))]
    lines += [plan.kept] if plan.kept else []
    if isinstance(plan.recipe.finetune, FrozenConfig):
        lines.append(
            "  a head that learns alone may want another rate than the recipe's: `sightline find rate` looks for one"
        )
    layers = [layer for layer in layers_of(plan.network) if not phases[0].trained.issuperset(layer.parameters)]
    if plan.built.weights is None and layers:
        lines.append(
            "  warning: what is frozen has random weights; start from some that have learnt: --network run:FOLDER"
        )
        return lines
    for layer in layers:
        fresh = _fresh(plan).intersection(layer.parameters) - phases[0].trained
        if fresh:
            until = "at first" if any(fresh & phase.trained for phase in phases) else "throughout"
            lines.append(
                f"  warning: {' and '.join(layer.names)} begins with random weights and is frozen {until}; `sightline plan`"
                " writes a schedule to edit, in which it may learn from the start"
            )
    return lines


def _fresh(plan: Plan) -> set[str]:
    """Parameters below the head that the weights a training starts from did not have."""
    weights = plan.built.weights
    if weights is None:
        return set()
    network = plan.network.backbone if isinstance(plan.network, HeadedNetwork) else plan.network
    place = "" if network is plan.network else "backbone."
    stem = network.exchanged if weights.fresh_stem else ()
    names = [name for name, _ in network.named_parameters() if name.startswith(stem)]
    found = (*names, *weights.missing, *weights.misshapen)
    return {f"{place}{name}" for name in found if not name.startswith("head.")}


def describe_classifier(plan: Plan) -> dict[str, Any]:
    """``model.json`` as far as it is known before training."""
    recipe, images = plan.recipe, plan.images
    return {
        "format": MODEL_FORMAT,
        "kind": "classifier",
        "classes": images.classes,
        **describe_network(plan.built),
        "parameters": sum(parameter.numel() for parameter in plan.network.parameters()),
        "size": list(images.size),
        "resize": list(images.pixels.shape[1:3]),
        "normalization": {"mean": plan.normalization.mean, "std": plan.normalization.std},
        "views": recipe.evaluation.views,
        "precision": recipe.fit.precision,
        "temperatures": {},
        "test_readings": 0,
        **describe_origin(plan),
    }


def describe_origin(plan: AnyPlan) -> dict[str, Any]:
    """What any run knows of where it comes from."""
    images, recipe = plan.images, plan.recipe
    return {
        "data": {
            "name": images.name,
            "location": images.location,
            "fingerprint": images.fingerprint,
            "counts": plan.splits.counts(),
            "shared_with_test": plan.splits.shared_with_test,
            "left_out": len(images.left_out),
            "excluded": excluded_fingerprint(images, plan.splits),
            "generated": generated_fingerprint(images, plan.splits),
        },
        "recipe": recipe.name,
        "seed": recipe.fit.seed,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("sightline", "torch", "lightning")},
    }
