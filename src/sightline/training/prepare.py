"""What is settled, and refused, before the first step of a training: images, recipe, network."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from sightline.config import (
    NetworkConfig,
    Recipe,
    RunConfig,
    UpperConfig,
    batches_within,
    read_recipe,
    refuse_range_test,
    resolve,
)
from sightline.config.building import build as build_settings
from sightline.config.resolving import flatten, merge, refuse_hopeless, searches, spell_out, to_mapping
from sightline.data.batches import Normalization, derived_seed, prepare
from sightline.data.cache import open_images, survey
from sightline.data.decoding.preprocessing import Preprocessing
from sightline.data.decoding.sizing import HIDDEN_MOST, hidden_share, training_size
from sightline.data.sources.find_source import find_source
from sightline.data.sources.source import ImageSource
from sightline.data.splits import brings_validation
from sightline.errors import ConfigError, DataError, RunError
from sightline.machine.devices import arithmetic, choose_device, refuse_without_compiler, set_determinism
from sightline.machine.extras import refuse_missing_trackers
from sightline.models.pretrained import native_size, refuse_missing_weights
from sightline.training.conflicts import (
    SMALLEST_SIDE,
    refuse_misfits,
    refuse_processes,
    refuse_saturation_of_grey,
    refuse_small_padding,
    refuse_split_seed,
    refuse_without_effect,
)
from sightline.training.job import Plan
from sightline.training.kept_features import settle_features
from sightline.training.network import build, with_whole_paths
from sightline.training.optimizer_choice import settle_optimizer
from sightline.training.phases import phases_of
from sightline.training.summary import Progress

__all__ = [
    "choose_recipe",
    "prepare_training",
    "refuse_validation",
    "what_is_asked",
]

MANY_SMALL = 10_000  # images up to 64 px; from here on the few large batches of ``fast`` are enough steps
SMALL_SIDE = 64  # pixels
UNMEASURED = Normalization([0.0] * 3, [1.0] * 3)  # until the weights tell theirs
RIVAL, RIVAL_SIDE = (
    "small",
    128,
)  # what auto tries besides on photographs of at most so many pixels, which it reads as they are


def prepare_training(
    data: str | os.PathLike[str] | None,
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    settings: Mapping[str, Any],
    begun: Path | None,
    console: Console,
    otherwise: str | None = None,
) -> Plan:
    """Settle everything that can be settled before the first step, and refuse what cannot be trained.

    Args:
        data, recipe, settings, console: as ``sightline.train`` has them.
        begun: the run to continue, whose own recipe is taken where nothing else is named.
        otherwise: the image set where none is named; None refuses.
    """
    asked, source = what_is_asked(data, recipe, begun, otherwise, settings)
    automatic, named, rival = asked is None, asked or {}, ""
    if automatic:
        refuse_hopeless(settings)
        if "kind" in (network := spell_out(settings).get("network") or {}):  # before images are read to choose a recipe
            refuse_missing_weights(build_settings(NetworkConfig, network, "network"))
    refuse_missing_trackers(named, settings)
    why = "as asked"
    with Progress(console, f"Reading {source.name}") as progress:
        if automatic:
            wanted = settings.get("data") or {}
            count, median = survey(source, progress)
            name, why = choose_recipe(count, median, wanted.get("fraction") or 1.0)
            rival = RIVAL if name == "photos" and max(median) <= RIVAL_SIDE else ""
            named = read_recipe(name)
            share = hidden_share(median, training_size([median], wanted.get("size"))[0])
            if share > HIDDEN_MOST and wanted.get("fit") is None:
                named = merge(named, {"data": {"fit": "squash"}})
                why += (
                    f"; --data.fit squash: the crop to the center would hide {share:.0%} of the median image"
                    f" ({median[1]} × {median[0]} px)"
                )
        chosen = with_whole_paths(resolve(named, settings, {"image_set": source.location}))
        chosen = _with_probe_settled(chosen, named, settings)
        refuse_missing_weights(chosen.network)
        arithmetic(chosen.fit.precision, choose_device())  # refuses what the device cannot
        set_determinism(chosen.fit.deterministic)
        if chosen.fit.compile:
            refuse_without_compiler(choose_device())
        chosen = _at_own_size(chosen, source, progress)
        opened = open_images(source, chosen.data.size, progress, preprocessing=Preprocessing(chosen.data.fit))
        if brings_validation(opened):
            chosen = _without_validation(chosen, settings, source.name)
        refuse_split_seed(chosen, settings, opened)
        pretrained = isinstance(chosen.network, RunConfig) or getattr(chosen.network, "weights", None) is not None
        images, splits, normalization = prepare(source, chosen, progress, UNMEASURED if pretrained else None)
    chosen = _without_scales(chosen, settings)
    if "scales" not in (settings.get("augment") or {}):
        chosen = _within_reach(chosen, min(images.size))
    refuse_misfits(chosen, min(images.size))
    searched = searches(named, settings)
    if chosen.probe is not None and splits.cross_validated and chosen.probe.then == "finetune":
        raise ConfigError(
            f"fine-tuning needs validation images, and of {len(splits.train)} none are set aside; add --data.validation with"
            " how many, or leave out what asks for it (--fit.epochs, --finetune, --probe.then)."
        )
    easiest = _easiest(chosen, searched, len(splits.train))
    refuse_processes(easiest, len(splits.train))
    refuse_small_padding(chosen, images)
    refuse_without_effect(easiest, images, splits)
    refuse_saturation_of_grey(chosen, images, splits)
    if splits.cross_validated or (chosen.probe is not None and chosen.probe.then == "nothing"):
        _refuse_steps(chosen, named)
    if splits.cross_validated and chosen.evaluation.views != "one":
        raise ConfigError(
            f"--evaluation.views {chosen.evaluation.views} has no effect on so few images, which are cross-validated with one view"
            " each; leave it out, or set some aside with --data.validation."
        )
    torch.manual_seed(derived_seed(chosen.fit.seed, "network"))
    built = build(chosen, images, splits)
    if isinstance(chosen.finetune, UpperConfig):
        built.network.cut_after(chosen.finetune.after)
    phases_of(chosen, built.network)  # refuses what the network does not have
    chosen, replaced = settle_optimizer(chosen, settings, built)
    shown = len(splits.train) + len(splits.validation)
    chosen, kept = settle_features(chosen, built.network, shown, images.size, choose_device())
    if built.weights is not None and built.weights.mean is not None and built.weights.std is not None:
        normalization = Normalization(built.weights.mean, built.weights.std)
    if chosen.probe is not None and chosen.probe.then == "auto":
        searched = (*searched, "fit.epochs")
    return Plan(source, chosen, why, images, splits, normalization, built, kept, searched, rival, replaced)


def what_is_asked(
    data: str | os.PathLike[str] | None,
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    begun: Path | None,
    otherwise: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any] | None, ImageSource]:
    """The content of the recipe that is asked for, None where it is auto, and the image set; arguments as above."""
    if begun is not None and data is None and recipe == "auto":
        if not (begun / "recipe.yaml").exists():
            raise RunError(
                f"{begun} is no run that could be continued: it has no recipe.yaml; name the image set to start it."
            )
        recipe = begun / "recipe.yaml"
    named = None if recipe == "auto" else dict(recipe) if isinstance(recipe, Mapping) else read_recipe(recipe)
    location = data if data is not None else (named or {}).get("image_set") or otherwise
    if location is None:
        raise DataError("no image set was named; give a folder, an archive, a manifest, or a name such as groceries.")
    wanted = merge(named or {}, settings or {}).get("data") or {}
    return named, find_source(location, wanted.get("classes"))


def choose_recipe(images: int, size: tuple[int, int], fraction: float = 1.0) -> tuple[str, str]:
    """Choose a recipe by the number and the size of the images, of which a fraction will be trained on.

    Args:
        images: how many.
        size: (height, width) of the median image, in pixels.
        fraction: that is trained on.
    Returns:
        Its name, and why in words.
    """
    count, side = round(images * fraction), max(size)
    if side > SMALL_SIDE:
        return "photos", f"{count:,} images of {side} px: photographs, for which a pretrained network is tried first"
    many = count >= MANY_SMALL
    return "fast" if many else "small", f"{count:,} images of {side} px: {'many' if many else 'few'}, small"


def _with_probe_settled(chosen: Recipe, named: Mapping[str, Any], settings: Mapping[str, Any]) -> Recipe:
    """The recipe in which a probe is followed by what the settings ask for: epochs, or a way to fine-tune."""
    probe = chosen.probe
    if probe is None:
        return chosen
    searched = searches(named, settings)
    if searched:
        raise ConfigError(f"{searched[0]} is auto, and nothing is searched for behind a probe; name a number.")
    asked = [name for name in ("fit.epochs", "finetune.kind") if flatten(settings).get(name) not in (None, "none")]
    if probe.then == "nothing" and asked:
        raise ConfigError(f"--{asked[0]} has no effect with --probe.then nothing; leave one of the two out.")
    if probe.then == "auto" and asked:
        return resolve(to_mapping(chosen), {"probe": {"then": "finetune"}})
    return chosen


def _refuse_steps(chosen: Recipe, named: Mapping[str, Any]) -> None:
    """Refuse settings of a training by steps, other than those of the recipe, where nothing follows the probe."""
    before, now = (flatten(to_mapping(recipe)) for recipe in (resolve({"probe": None}, named), chosen))
    blocks = ("augment", "optimizer", "schedule", "clip", "averaging", "early_stopping")
    fits = ("fit.batch_size", "fit.accumulate", "fit.label_smoothing", "fit.keep", "fit.validate_every", "fit.compile")
    for name in now:
        if (name in fits or name.split(".")[0] in blocks) and before.get(name) != now[name]:
            raise ConfigError(
                f"--{name.replace('_', '-')} has no effect: nothing is trained by steps behind this probe; leave it out, or fine-tune"
                " (--probe.then finetune, which needs validation images)."
            )


def _at_own_size(chosen: Recipe, source: ImageSource, progress: Progress) -> Recipe:
    """The recipe with the size of the images that pretrained weights are used at, where none is named.

    A probe reads features at the weights' own size; what is trained by steps shows larger images than usual, up to it.
    """
    native = None if chosen.data.size is not None else native_size(chosen.network)
    if native is None:
        return chosen
    size = native
    if chosen.probe is None:
        _, median = survey(source, progress)
        if max(median) <= SMALL_SIDE:
            return chosen
        (size, _), _ = training_size([median], None, native)
    return resolve(to_mapping(chosen), {"data": {"size": size}})


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
    """The recipe for images of a side in pixels: its own scales show them no smaller than networks can read."""
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
