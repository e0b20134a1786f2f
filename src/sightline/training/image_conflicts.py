"""Refuse, before the first step, what a recipe cannot do with its images, or what would do nothing."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sightline.config.augmentation import PadCropConfig
from sightline.config.finding import batches_within, refuse_range_test
from sightline.config.fitting import DataConfig
from sightline.config.generating import AnyRecipe
from sightline.config.resolving import flatten, resolve, to_mapping
from sightline.config.settings import Recipe
from sightline.data.augment.augment import shrunk_side
from sightline.data.cache import CachedImages
from sightline.data.splits import Splits, brings_validation
from sightline.display.terminal import in_notebook
from sightline.errors import ConfigError
from sightline.machine.devices import choose_device
from sightline.training.base import with_settings

__all__ = [
    "SMALLEST_SIDE",
    "is_gray",
    "refuse_conflicts",
    "refuse_conflicts_with_size",
    "refuse_lone_program",
    "refuse_processes",
    "refuse_small_padding",
    "refuse_split_options",
    "refuse_without_effect",
]

SMALLEST_SIDE = 16  # pixels that every network can read
ROWS_AT_ONCE = 1_000  # images that are looked at for colors before the next are


# of a training by steps, beside the settings of ``fit`` that a probe reads as well
STEP_BLOCKS = ("augment", "optimizer", "schedule", "clip", "averaging", "early_stopping")
STEP_SETTINGS = ("batch_size", "accumulate", "loss", "label_smoothing", "keep", "validate_every", "compile")


def refuse_conflicts(
    recipe: Recipe,
    named: Mapping[str, Any],
    settings: Mapping[str, Any],
    searched: tuple[str, ...],
    images: CachedImages,
    splits: Splits,
) -> None:
    """Refuse what a classifier's recipe cannot do with an image set, and what would change nothing.

    Args:
        recipe: every setting.
        named: the recipe as it was named, below what the user set.
        settings: what the user set over it.
        searched: the settings that are left to a search.
        images: the set.
        splits: of it.
    Raises:
        ConfigError: with what to do.
    """
    count, probe = len(splits.train), recipe.probe
    refuse_conflicts_with_size(recipe, min(images.size))
    if probe is not None and splits.cross_validated and probe.then == "finetune":
        raise ConfigError(
            f"fine-tuning needs validation images, and of {count} none are set aside; add --data.validation with how"
            " many, or leave out what asks for it (--fit.epochs, --finetune, --probe.then)."
        )
    if "optimizer.learning_rate" in searched:
        refuse_range_test(recipe.fit, recipe.finetune, count, "--optimizer.learning-rate auto")
    easiest = recipe
    if "fit.batch_size" in searched:  # what the smallest batch that may be found cannot do, none can
        easiest = with_settings(recipe, "fit", batch_size=batches_within(recipe.fit, count)[0])
    refuse_processes(easiest, count)
    refuse_small_padding(recipe, images)
    refuse_without_effect(easiest, images, splits)
    _refuse_saturation_of_gray(recipe, images, splits)
    if splits.cross_validated or (probe is not None and probe.then == "nothing"):
        _refuse_steps(recipe, named, settings)
    if splits.cross_validated and recipe.evaluation.views != "one":
        raise ConfigError(
            f"--evaluation.views {recipe.evaluation.views} has no effect on so few images, which are cross-validated"
            " with one view each; leave it out, or set some aside with --data.validation."
        )


def refuse_split_options(recipe: AnyRecipe, settings: Mapping[str, Any], images: CachedImages) -> None:
    """Refuse to cut, or to choose among, the splits of a set that brings them."""
    data = settings.get("data") or {}
    if data.get("validation") is not None and brings_validation(images):
        raise ConfigError(
            f"--data.validation has no effect: {images.name} brings a validation split; leave the option out."
        )
    seed = data.get("split_seed")
    if (
        seed not in (None, DataConfig().split_seed)
        and recipe.data.fraction == 1
        and {"val", "test"} <= set(images.splits)
    ):
        raise ConfigError(
            f"--data.split-seed has no effect: {images.name} brings its test and validation splits, and nothing else is"
            " cut; leave the option out."
        )


def refuse_conflicts_with_size(recipe: Recipe, side: int) -> None:
    """Refuse what cannot be done with images of a side in pixels."""
    cutout = recipe.augment.cutout
    if cutout is not None and cutout.size > side:
        raise ConfigError(
            f"--augment.cutout.size ({cutout.size}) is larger than the images ({side} px); a hole must fit into the"
            " image."
        )
    scale = min(recipe.augment.scales, default=1.0)
    if round(side * scale, 3) < SMALLEST_SIDE:
        raise ConfigError(
            f"--augment.scales {scale:g} makes {side * scale:.0f} px of {side} px; the networks need at least"
            f" {SMALLEST_SIDE} px: choose {SMALLEST_SIDE / side:.2f} or more."
        )
    for scale in recipe.augment.scales:
        if scale < 1 and shrunk_side(side, scale) >= side:
            raise ConfigError(
                f"--augment.scales {scale:g} has no effect: the even side that is nearest to {side * scale:.1f} px is"
                f" the full one, {side} px; choose {(side - 2) / side:.2f} or less, or 1."
            )


def refuse_lone_program(processes: object) -> None:
    """Refuse several processes where this program cannot be started again for each of them.

    Args:
        processes: of a training; what is no number of them is refused elsewhere.
    """
    if not isinstance(processes, int) or processes < 2:
        return
    main = sys.modules["__main__"]
    if in_notebook() or (main.__spec__ is None and not os.path.isfile(sys.argv[0])):
        raise ConfigError(
            f"--fit.processes {processes} starts this program again, and it has no file (a notebook, or python -c); use"
            " the command line or a script, or leave the setting out."
        )


def refuse_processes(recipe: AnyRecipe, images: int) -> None:
    """Refuse more processes than there can be, or than there is work for."""
    processes, device = recipe.fit.processes, choose_device()
    if processes == 1:
        return
    refuse_lone_program(processes)
    most = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type, os.cpu_count() or 1)
    if processes > most:
        raise ConfigError(
            f"--fit.processes is {processes}, and this machine has {most}"
            f" {'GPUs' if device.type == 'cuda' else 'cores'}; choose at most {most}."
        )
    batches = -(-images // recipe.fit.batch_size)
    if images // batches < 2 * processes:
        raise ConfigError(
            f"{images} training images leave less than two a batch to each of --fit.processes ({processes}); choose"
            " fewer."
        )


def refuse_small_padding(recipe: Recipe, images: CachedImages) -> None:
    """Refuse a shift that is lost in what larger images are cached with to crop from."""
    crop = recipe.augment.crop
    margin = min((cached - shown) // 2 for cached, shown in zip(images.pixels.shape[1:3], images.size, strict=True))
    if isinstance(crop, PadCropConfig) and crop.padding < margin:
        raise ConfigError(
            f"--augment.crop.padding ({crop.padding}) has no effect: images of {min(images.size)} px are cut from"
            f" larger ones, shifted by up to {margin} px; choose {margin} or more, or another --augment.crop.kind."
        )


def refuse_without_effect(recipe: AnyRecipe, images: CachedImages, splits: Splits) -> None:
    """Refuse what would change nothing with these training images."""
    batches = -(-len(splits.train) // recipe.fit.batch_size)
    most = max(recipe.fit.batches_a_step(epoch) for epoch in range(recipe.fit.epochs))
    if most > batches:
        raise ConfigError(
            f"--fit.accumulate {most} is more than the {batches} batches of an epoch ({len(splits.train)} images in"
            f" batches of {recipe.fit.batch_size}); choose at most {batches}."
        )
    counts = np.bincount(images.labels[splits.train], minlength=len(images.classes))
    if counts.min() == counts.max():
        for flag, value in (("fit.class-weights", recipe.fit.class_weights), ("data.sampling", recipe.data.sampling)):
            if value == "balanced":
                raise ConfigError(
                    f"--{flag} balanced has no effect: every class of {images.name} has {counts[0]} training images;"
                    " leave it out."
                )
        if isinstance(recipe, Recipe) and recipe.evaluation.prior == "equal":
            raise ConfigError(
                f"--evaluation.prior equal has no effect: every class of {images.name} has {counts[0]} training images;"
                " leave it out."
            )


def _refuse_saturation_of_gray(recipe: Recipe, images: CachedImages, splits: Splits) -> None:
    """Refuse to vary the saturation of images that have no colors."""
    color = recipe.augment.color
    if color is None or color.saturation == 0 or not is_gray(images.pixels, splits.train):
        return
    raise ConfigError(
        f"--augment.color.saturation ({color.saturation:g}) has no effect: the training images of {images.name} are"
        " gray;" + (" leave --augment.color out." if color.brightness == color.contrast == 0 else " set it to 0.")
    )


def is_gray(pixels_NHWC: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> bool:
    """Tell whether the channels of every pixel of some images are equal; looks no further than the first color."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = pixels_NHWC[rows[start : start + ROWS_AT_ONCE]]
        if (part[..., :1] != part[..., 1:]).any():
            return False
    return True


def _refuse_steps(recipe: Recipe, named: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse settings of a training by steps, other than those of the recipe, where nothing follows the probe."""
    if not settings.keys() & {*STEP_BLOCKS, "fit"}:
        return
    before, now = (flatten(to_mapping(settled)) for settled in (resolve({"probe": None}, named), recipe))
    for name in now:
        block, _, setting = name.partition(".")
        by_steps = block in STEP_BLOCKS or (block == "fit" and setting in STEP_SETTINGS)
        if by_steps and before.get(name) != now[name]:
            raise ConfigError(
                f"--{name.replace('_', '-')} has no effect: nothing is trained by steps behind this probe; leave it"
                " out, or fine-tune (--probe.then finetune, which needs validation images)."
            )
