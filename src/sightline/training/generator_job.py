"""What is settled, and refused, before the first step of a generator's training, and what its run knows of itself."""

from collections.abc import Mapping
from math import log2
from os.path import abspath, expanduser
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.nn import functional

from sightline.config import (
    ACGANConfig,
    DiffusionConfig,
    GeneratorConfig,
    GeneratorRecipe,
    indivisible,
    resolve_generator,
)
from sightline.config.resolving import merge, to_mapping
from sightline.data.augment.augment import centre
from sightline.data.batches import derived_seed, prepare
from sightline.data.cache import CachedImages, open_images
from sightline.data.decoding.preprocessing import Preprocessing
from sightline.data.sources.source import ImageSource
from sightline.display.waiting import Progress
from sightline.errors import TrainingError
from sightline.generation.generator import FULL_RANGE
from sightline.machine.devices import arithmetic, choose_device, describe, refuse_without_compiler, set_determinism
from sightline.machine.extras import refuse_missing_trackers
from sightline.models.acgan import ACGAN
from sightline.models.build import build_generator
from sightline.models.flops import training_flops
from sightline.runs.folder import MODEL_FORMAT, mark_done, read_model, write_weights
from sightline.runs.writing import write_json
from sightline.training.conflicts import refuse_processes, refuse_split_seed, refuse_without_effect
from sightline.training.job import GeneratorPlan, describe_origin
from sightline.training.prepare import refuse_validation

__all__ = [
    "FEW_WIDTHS",
    "MANY_WIDTHS",
    "describe_generator",
    "finish_generator",
    "lost_detail",
    "notes_of_generator",
    "prepare_generator",
    "scaled_to",
    "without_colour",
]

MANY = 10_000  # training images
FEW_WIDTHS: tuple[int, ...] = (32, 64)  # channels of the levels
MANY_WIDTHS: tuple[int, ...] = (64, 128, 128)
FINEST_SIDE = 16  # positions along a side of the finest level, at most where the sides allow it
LOST = 0.05  # share of what varies within images that larger patches may blur: of images that were enlarged, say
LOOKED_AT = 256  # images by which that is judged, at most
FEW_SHOWN, MANY_SHOWN = 120_000, 270_000  # images that the training shows, over all epochs
ACGAN_FEW_SHOWN = 600_000  # its variety grows slowly, and a step of one of its two networks is cheap
LEAST_EPOCHS, MOST_EPOCHS, ACGAN_MOST_EPOCHS = 5, 200, 600
BATCH = 64  # more, and the same images make fewer steps; docs/generation.md has what that costs
COARSEST = 4  # positions along a side of the coarsest map of a generator of one pass
PATCHES = (1, 2, 4)  # pixels; in larger ones there is too much to see at once


def prepare_generator(
    source: ImageSource, named: Mapping[str, Any], settings: Mapping[str, Any], console: Console
) -> GeneratorPlan:
    """Settle everything that can be settled before the first step.

    Args:
        source: the image set.
        named: the recipe.
        settings: what is set over it.
        console: where the reading of the images is shown.
    Raises:
        ConfigError: a setting is wrong, has no effect, or does not fit the images.
    """
    refuse_missing_trackers(named, settings)
    with Progress(console, f"Reading {source.name}") as progress:
        asked = resolve_generator(named, settings, {"image_set": source.location})
        paths = {name: getattr(asked.data, name) for name in ("exclude", "keep_split")}
        whole = {name: _whole(path) for name, path in paths.items() if path is not None}
        if whole:  # so that the recipe can be repeated from anywhere
            settings = {**settings, "data": {**(settings.get("data") or {}), **whole}}
        arithmetic(asked.fit.precision, choose_device())  # refuses what the device cannot
        set_determinism(asked.fit.deterministic)
        if asked.fit.compile:
            refuse_without_compiler(choose_device())
        opened = open_images(source, asked.data.size, progress, preprocessing=Preprocessing(asked.data.fit))
        if "val" in opened.splits:
            refuse_validation(settings, source.name)
            named = merge(named, {"data": {"validation": None}})
        refuse_split_seed(asked, settings, opened)
        images, splits, _ = prepare(source, asked, progress)
    count = len(splits.train)
    recipe = resolve_generator(
        scaled_to(images, count, asked.generator), named, settings, {"image_set": source.location}
    )
    for side in images.size:
        if side % recipe.generator.side_multiple:
            raise indivisible(side, recipe.generator)
    refuse_processes(recipe, count)
    refuse_without_effect(recipe, images, splits)
    torch.manual_seed(derived_seed(recipe.fit.seed, "network"))
    network = build_generator(recipe.generator, len(images.classes), images.size)
    why = f"as asked; {count:,} training images of {max(images.size)} px"
    return GeneratorPlan(source, recipe, why, images, splits, FULL_RANGE, network)


def notes_of_generator(plan: GeneratorPlan) -> list[str]:
    """What a user should know of a training beyond its settings."""
    flops = _training_flops(plan, 1) / len(plan.splits.train)
    told = f"{flops / 1e9:.3g} GFLOP a training image"
    if isinstance(plan.recipe.generator, DiffusionConfig):
        told += f"; positions of the finest level: {max(plan.images.size) // plan.recipe.generator.patch} a side"
    return [told]


def scaled_to(images: CachedImages, count: int, generator: GeneratorConfig) -> dict[str, Any]:
    """What the images say of a generator's training where neither recipe nor flag does.

    Few images get a small network and many epochs, many a wider one and few; the patch makes the finest level as small as
    is still fit to draw on, and smaller where the images have no detail that this would blur. So the training shows about so
    many images, whatever their number, and takes minutes on a processor for few of them, and an hour for many.

    Args:
        images: of the set.
        count: those of them that are trained on.
        generator: as it is without them; its kind counts.
    Returns:
        A layer of settings, to lay below a recipe.
    """
    many = count >= MANY
    if isinstance(generator, ACGANConfig):
        return _acgan_scaled_to(images, count)
    widths = MANY_WIDTHS if many else FEW_WIDTHS
    shown = MANY_SHOWN if many else FEW_SHOWN
    epochs = min(max(round(shown / count), LEAST_EPOCHS), MOST_EPOCHS)
    while len(widths) > 1 and not _patches(images.size, len(widths)):
        widths = widths[:-1]
    patches = _patches(images.size, len(widths))
    patch = next((patch for patch in patches if max(images.size) / patch <= FINEST_SIDE), max(patches, default=1))
    patch = max([patch, *(larger for larger in patches if larger > patch and lost_detail(images, larger) <= LOST)])
    return {
        "generator": {"kind": "diffusion", "widths": list(widths), "patch": patch},
        "fit": {"epochs": epochs, "batch_size": BATCH},
    }


def _acgan_scaled_to(images: CachedImages, count: int) -> dict[str, Any]:
    """Few images get narrow networks, many those of the original; the coarsest map has two to eight positions a side."""
    few = count < MANY
    patch = max(
        patch for patch in _patches(images.size, levels=2) or [1] if patch == 1 or lost_detail(images, patch) <= LOST
    )
    sides = [side // patch for side in images.size]
    levels = max(2, round(log2(min(sides) / COARSEST)))
    while levels > 1 and any(side % 2**levels for side in sides):
        levels -= 1
    narrowest, steepest = (32, 16) if few else (96, 16)
    widths = [narrowest * min(2**level, 4) for level in reversed(range(levels))]
    layers = 2 * levels if few else 2 * max(levels, 3)
    shown = ACGAN_FEW_SHOWN if few else MANY_SHOWN
    return {
        "generator": {
            "kind": "acgan",
            "patch": patch,
            "grey": without_colour(images),
            "widths": widths,
            "discriminator_widths": [steepest * 2 ** (layer // (2 if few else 1)) for layer in range(layers)],
        },
        "fit": {"epochs": min(max(round(shown / count), LEAST_EPOCHS), ACGAN_MOST_EPOCHS), "batch_size": BATCH},
    }


def _patches(size: tuple[int, int], levels: int) -> list[int]:
    """The patches in which so many levels can halve both sides."""
    return [patch for patch in PATCHES if all(side % (patch * 2 ** (levels - 1)) == 0 for side in size)]


def lost_detail(images: CachedImages, patch: int) -> float:
    """How much of an image does not outlast its being shrunk.

    Args:
        images: of the set; some of them are looked at.
        patch: pixels of a side that become one, before it is enlarged again.
    Returns:
        The squared differences to the images as they were, as a share of the squared differences of those from their own
        mean colour; 0 of images of one colour.
    """
    rows = _looked_at(images)
    levels = centre(torch.from_numpy(images.pixels[rows]), images.size).permute(0, 3, 1, 2).float()
    shrunk = functional.interpolate(levels, scale_factor=1 / patch, mode="area")
    again = functional.interpolate(shrunk, size=images.size, mode="bicubic")
    varies = (levels - levels.mean((2, 3), keepdim=True)).square().sum()
    return float((levels - again).square().sum() / varies.clamp_min(1e-9))


def without_colour(images: CachedImages) -> bool:
    """Whether no image of a set, of those that are looked at, has any colour."""
    pixels = images.pixels[_looked_at(images)]
    return bool((pixels == pixels[..., :1]).all())


def _looked_at(images: CachedImages) -> Any:
    """Rows of some images, from all over the set."""
    return images.readable[:: max(1, len(images.readable) // LOOKED_AT)][:LOOKED_AT]


def _whole(path: str) -> str:
    return abspath(expanduser(path))


def describe_generator(plan: GeneratorPlan) -> dict[str, Any]:
    """``model.json`` as far as it is known before training."""
    recipe: GeneratorRecipe = plan.recipe
    return {
        "format": MODEL_FORMAT,
        "kind": recipe.generator.kind,
        "classes": plan.images.classes,
        "generator": to_mapping(recipe.generator),
        "parameters": sum(parameter.numel() for parameter in plan.network.parameters()),
        "size": list(plan.images.size),
        **plan.images.preprocessing.kept(),
        "normalization": {"mean": plan.normalization.mean, "std": plan.normalization.std},
        "precision": recipe.fit.precision,
        **describe_origin(plan),
    }


def finish_generator(plan: GeneratorPlan, run: Path, cost: Mapping[str, float], losses: Mapping[str, float]) -> None:
    """Write what is handed on: the weights, and what the run knows of itself.

    Args:
        plan: with the trained network.
        run: its folder.
        cost: ``seconds`` of the fit, and ``probe_flops``.
        losses: of the last epoch.
    Raises:
        TrainingError: the weights are not finite.
    """
    if not all(bool(torch.isfinite(value).all()) for value in plan.network.state_dict().values()):
        raise TrainingError(
            f"the weights are not finite after the last step; {run} is not finished. Try a smaller rate."
        )
    model = read_model(run)
    model["losses"] = {**losses, "n": len(plan.splits.validation)}
    model["cost"] = {
        "fit_seconds": cost["seconds"],
        "probe_flops": cost["probe_flops"],
        "cost": cost["seconds"] * cost["probe_flops"],
        "training_flops": _training_flops(plan, plan.recipe.fit.epochs),
        "device": describe(choose_device()),
    }
    maker = plan.network.generator if isinstance(plan.network, ACGAN) else plan.network
    write_weights(run / "model.safetensors", maker.state_dict(), model)
    write_json(run / "model.json", model)
    mark_done(run)


def _training_flops(plan: GeneratorPlan, epochs: int) -> int:
    learning = frozenset(name for name, _ in plan.network.named_parameters())
    return training_flops(plan.network, [(plan.images.size, learning)] * epochs, len(plan.splits.train))
