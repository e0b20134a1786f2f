"""Prepare a training: source → recipe → image set → splits → network → plan, each step a function.

Every step runs once, and refuses what cannot be trained as early as it can be known.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from msgspec.structs import replace

from sightline.config.building import build as build_settings
from sightline.config.finetuning import UpperConfig
from sightline.config.generating import GeneratorRecipe, indivisible
from sightline.config.networks import NetworkConfig, RunConfig
from sightline.config.resolving import flatten, merge, read_recipe, resolve, resolve_generator, searches
from sightline.config.settings import Recipe
from sightline.data.augment.own import settle_own
from sightline.data.batches import Normalization, derived_seed, prepare
from sightline.data.cache import CachedImages, open_images, survey
from sightline.data.sizing import HIDDEN_MOST, SMALL_SIDE, hidden_share, training_size
from sightline.data.sources.downloads import Progress
from sightline.data.sources.embedded import GROCERIES
from sightline.data.sources.source import ImageSource
from sightline.data.splits import Splits, brings_validation
from sightline.display.reporting import Listener, stage
from sightline.errors import ConfigError
from sightline.generation.generator import FULL_RANGE
from sightline.machine.devices import arithmetic, choose_device, refuse_without_compiler, set_determinism
from sightline.models.build import build_generator
from sightline.models.pretrained import native_size, refuse_missing_weights
from sightline.training.base import Plan, R, with_settings
from sightline.training.choosing import choose_recipe
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.generator_plan import GeneratorPlan, scaled_to
from sightline.training.image_conflicts import (
    SMALLEST_SIDE,
    refuse_conflicts,
    refuse_lone_program,
    refuse_processes,
    refuse_split_options,
    refuse_without_effect,
)
from sightline.training.kept_features import settle_features
from sightline.training.mirror_choice import Mirrored, set_aside, settle_mirroring
from sightline.training.network import build, with_whole_paths
from sightline.training.optimizer_choice import settle_optimizer
from sightline.training.phases import phases_of
from sightline.training.request import Request, read_request
from sightline_runtime.decoding.preprocessing import Preprocessing

__all__ = ["prepare_any", "prepare_classifier", "prepare_training", "settle_scales"]

UNNAMED = f"No image set was named: this trains on {GROCERIES}, the embedded photographs."
UNMEASURED = Normalization([0.0] * 3, [1.0] * 3)  # until the weights tell theirs
RIVAL = "small"  # what auto tries besides on photographs of at most so many pixels, which it reads as they are
RIVAL_SIDE = 128


class Choice(NamedTuple):
    """A recipe that was named or chosen."""

    recipe: Mapping[str, Any]
    why: str = "as asked"
    rival: str = ""
    """Recipe that is tried besides; empty: none."""


def prepare_training(
    data: str | os.PathLike[str] | None,
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    settings: Mapping[str, Any],
    on_event: Listener,
) -> ClassifierPlan:
    """Settle everything before the first step of a classifier; arguments as ``sightline.train`` has them."""
    return prepare_classifier(read_request(data, recipe, settings, say=on_event), on_event)


def prepare_any(request: Request, on_event: Listener) -> Plan:
    """Settle everything before the first step of a classifier, or of a generator where the recipe names one."""
    fit = merge(request.named or {}, request.settings).get("fit")
    refuse_lone_program(fit.get("processes") if isinstance(fit, Mapping) else None)  # before any image is read
    if request.by_default:
        on_event(UNNAMED)
    if isinstance(request.recipe, GeneratorRecipe):
        return prepare_generator(request, request.recipe, on_event)
    return prepare_classifier(request, on_event)


def prepare_classifier(request: Request, on_event: Listener) -> ClassifierPlan:
    """Settle everything before the first step of a classifier.

    Args:
        request: what is trained on what.
        on_event: where the reading of the images is shown.
    """
    source, settings = request.source, request.settings
    if request.named is None and "kind" in (network := settings.get("network") or {}):
        refuse_missing_weights(build_settings(NetworkConfig, network, "network"))  # before images are read to choose
    with stage(on_event, f"Reading {source.name}") as progress:
        choice = _choose(source, settings, progress) if request.named is None else Choice(request.named)
        recipe = request.recipe or resolve(choice.recipe, settings)
        assert isinstance(recipe, Recipe)
        recipe = _settle_recipe(recipe, source, choice.recipe, settings, progress)
        pretrained = isinstance(recipe.network, RunConfig) or getattr(recipe.network, "weights", None) is not None
        recipe, images, splits, normalization = _open_and_split(
            request, recipe, progress, UNMEASURED if pretrained else None
        )
    recipe = settle_scales(recipe, settings, min(images.size))
    if recipe.augment.own is not None:
        recipe = with_settings(recipe, "augment", own=settle_own(recipe.augment.own, images.size, choose_device()))
    recipe, splits, mirrored, rival = _settle_mirroring(recipe, request, choice, images, splits)
    searched = searches(choice.recipe, settings)
    refuse_conflicts(recipe, choice.recipe, settings, searched, images, splits)
    torch.manual_seed(derived_seed(recipe.fit.seed, "network"))
    built = build(recipe, images, splits)
    if isinstance(recipe.finetune, UpperConfig):
        built.network.cut_after(recipe.finetune.after)
    phases_of(recipe, built.network)  # refuses what the network does not have
    recipe, replaced = settle_optimizer(recipe, settings, built)
    shown = len(splits.train) + len(splits.validation)
    recipe, kept = settle_features(recipe, built.network, shown, images.size, choose_device())
    if built.weights is not None and built.weights.mean is not None and built.weights.std is not None:
        normalization = Normalization(built.weights.mean, built.weights.std)
    if recipe.probe is not None and recipe.probe.then == "auto":
        searched = (*searched, "fit.epochs")
    return ClassifierPlan(
        source=source,
        recipe=recipe,
        why=choice.why,
        images=images,
        splits=splits,
        normalization=normalization,
        built=built,
        kept=kept,
        searches=searched,
        rival=rival,
        replaced=replaced,
        mirrored=mirrored,
        named_views=_names_views(choice.recipe, settings),
    )


def prepare_generator(request: Request, recipe: GeneratorRecipe, on_event: Listener) -> GeneratorPlan:
    """Settle everything before the first step of a generator; ``recipe`` is that of the request."""
    source, settings = request.source, request.settings
    with stage(on_event, f"Reading {source.name}") as progress:
        _settle_machine(recipe)
        recipe, images, splits, _ = _open_and_split(request, recipe, progress)
    count, data = len(splits.train), recipe.data
    recipe = resolve_generator(scaled_to(images, count, recipe.generator), request.named or {}, settings)
    recipe = with_whole_paths(replace(recipe, data=data, image_set=source.location))
    for side in images.size:
        if side % recipe.generator.side_multiple:
            raise indivisible(side, recipe.generator)
    refuse_processes(recipe, count)
    refuse_without_effect(recipe, images, splits)
    torch.manual_seed(derived_seed(recipe.fit.seed, "network"))
    return GeneratorPlan(
        source=source,
        recipe=recipe,
        why=f"as asked; {count:,} training images of {max(images.size)} px",
        images=images,
        splits=splits,
        normalization=FULL_RANGE,
        built=build_generator(recipe.generator, len(images.classes), images.size),
    )


# ── recipe ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _choose(source: ImageSource, settings: Mapping[str, Any], progress: Progress) -> Choice:
    """Choose a recipe by the images, which are counted and not decoded."""
    data = settings.get("data") or {}
    count, median = survey(source, progress)
    name, why = choose_recipe(count, median, data.get("fraction") or 1.0)
    network = settings.get("network") or {}
    if name == "photos" and "probe" not in settings and "kind" in network and not has_learned(network):
        name, why = "small", f"{why}, but {network['kind']} starts from nothing"
    recipe = read_recipe(name)
    share = hidden_share(median, training_size([median], data.get("size"))[0])
    if share > HIDDEN_MOST and data.get("fit") is None:
        recipe = merge(recipe, {"data": {"fit": "squash"}})
        why += (
            f"; --data.fit squash: the crop to the center would hide {share:.0%} of the median image"
            f" ({median[1]} × {median[0]} px)"
        )
    return Choice(recipe, why, RIVAL if name == "photos" and max(median) <= RIVAL_SIDE else "")


def has_learned(network: Mapping[str, Any]) -> bool:
    """Tell whether a network, as a recipe's YAML has it, comes with weights that a probe can read."""
    return network["kind"] == RunConfig.kind or bool(network.get("weights"))


def _settle_recipe(
    recipe: Recipe, source: ImageSource, named: Mapping[str, Any], settings: Mapping[str, Any], progress: Progress
) -> Recipe:
    """Settle what does not depend on the pixels, and refuse what this machine cannot do."""
    recipe = with_whole_paths(replace(recipe, image_set=source.location))
    recipe = _with_probe_settled(recipe, named, settings)
    refuse_missing_weights(recipe.network)
    _settle_machine(recipe)
    return _at_own_size(recipe, source, progress)


def _settle_machine(recipe: Recipe | GeneratorRecipe) -> None:
    """Refuse what the device cannot compute, and set whether results may differ from run to run."""
    arithmetic(recipe.fit.precision, choose_device())
    if isinstance(recipe, Recipe):
        arithmetic(recipe.evaluation.precision, choose_device(), "--evaluation.precision")
    set_determinism(recipe.fit.deterministic)
    if recipe.fit.compile:
        refuse_without_compiler(choose_device())


def _with_probe_settled(recipe: Recipe, named: Mapping[str, Any], settings: Mapping[str, Any]) -> Recipe:
    """Let a probe be followed by what the settings ask for: epochs, or a way to fine-tune."""
    probe = recipe.probe
    if probe is None:
        return recipe
    searched = searches(named, settings)
    if searched:
        raise ConfigError(f"{searched[0]} is auto, and nothing is searched for behind a probe; name a number.")
    steps = [name for name in ("fit.epochs", "finetune.kind") if flatten(settings).get(name) not in (None, "none")]
    if probe.then == "nothing" and steps:
        raise ConfigError(f"--{steps[0]} has no effect with --probe.then nothing; leave one of the two out.")
    if probe.then == "auto" and steps:
        return with_settings(recipe, "probe", then="finetune")
    return recipe


def _at_own_size(recipe: Recipe, source: ImageSource, progress: Progress) -> Recipe:
    """Set the size of the images to the one that pretrained weights are used at, where none is named.

    A probe reads features at the weights' own size; what is trained by steps shows larger images than usual, up to it.
    """
    native = None if recipe.data.size is not None else native_size(recipe.network)
    if native is None:
        return recipe
    size = native
    if recipe.probe is None:
        _, median = survey(source, progress)
        if max(median) <= SMALL_SIDE:
            return recipe
        (size, _), _ = training_size([median], None, native)
    return with_settings(recipe, "data", size=size)


def settle_scales(recipe: Recipe, settings: Mapping[str, Any], side: int) -> Recipe:
    """Fit the sizes that images are shown at early in training to its epochs and to what networks can read.

    Of a training too short for smaller images a recipe's are left out, and asking for them is refused; a recipe's own
    show images of ``side`` pixels no smaller than networks can read.
    """
    epochs, scales = recipe.fit.epochs, recipe.augment.scales
    if scales and not any(recipe.augment.scale(epoch, epochs) < 1 for epoch in range(epochs)):
        if (settings.get("augment") or {}).get("scales"):
            raise ConfigError(
                f"--augment.scales {' '.join(f'{scale:g}' for scale in scales)} has no effect with --fit.epochs"
                f" {epochs}: every epoch is shown in full; train longer, or leave the option out."
            )
        scales = ()
    elif "scales" not in (settings.get("augment") or {}):
        scales = tuple(max(scale, min(1.0, SMALLEST_SIDE / side)) for scale in scales)
        scales = scales if min(scales, default=1.0) < 1 else ()
    return recipe if scales == recipe.augment.scales else with_settings(recipe, "augment", scales=scales)


def _settle_mirroring(
    recipe: Recipe, request: Request, choice: Choice, images: CachedImages, splits: Splits
) -> tuple[Recipe, Splits, Mirrored, str]:
    """Leave mirroring out where the images object, and name the recipe that is then tried besides a probe.

    The backbone of a probe was trained on mirrored images and may not tell left from right: where ``auto`` chose it, a
    recipe that trains from nothing is tried besides, for which images of a small set are set aside to validate on.
    """
    aside = None
    probed_by_auto = request.named is None and recipe.probe is not None and recipe.probe.then == "auto"
    data = recipe.data
    whole = not data.exclude and not data.synthetic and not data.corrections
    if probed_by_auto and splits.cross_validated and whole:
        aside = set_aside(recipe, images, splits.rule)
    recipe, mirrored = settle_mirroring(recipe, choice.recipe, request.settings, images, aside[1] if aside else splits)
    if not mirrored.left_out or not probed_by_auto:
        return recipe, splits, mirrored, choice.rival
    if aside is not None:
        recipe, splits = with_settings(recipe, "data", validation=aside[0].data.validation), aside[1]
    line = f"{mirrored.line}; the backbone learned from mirrored images, so recipe {RIVAL} is tried besides it"
    return recipe, splits, mirrored._replace(line=line), RIVAL


def _names_views(named: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Tell whether the user named how training images are varied: over ``photos``, or in their own recipe."""
    augment = settings.get("augment") or {}
    return named.get("name") != "photos" or bool({"crop", "policy", "own"} & augment.keys())


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _open_and_split(
    request: Request,
    recipe: R,
    progress: Progress,
    known: Normalization | None = None,
) -> tuple[R, CachedImages, Splits, Normalization]:
    """Open the image set, decoding it where that was not done yet, and cut its splits.

    Args:
        request: the image set, what the user set, and the rule of the splits.
        recipe: every setting.
        progress: is told how far the reading is.
        known: the normalization, where it is known; None measures it.
    Returns:
        The recipe, without a validation share where the set brings its own split; images, splits and normalization.
    """
    source = request.source
    opened = open_images(source, recipe.data.size, progress, preprocessing=Preprocessing(recipe.data.fit))
    refuse_split_options(recipe, request.settings, opened)
    if brings_validation(opened):
        recipe = with_settings(recipe, "data", validation=None)
    images, splits, normalization = prepare(source, recipe, progress, known, opened, request.split_rule)
    return recipe, images, splits, normalization
