"""What a recipe cannot do, or what would do nothing, with the images that it is to be trained on: refused before the first step."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sightline.config import AnyRecipe, DataConfig, PadCropConfig, Recipe
from sightline.data.augment.augment import shrunk_side
from sightline.data.cache import CachedImages
from sightline.data.splits import Splits
from sightline.display.terminal import in_notebook
from sightline.errors import ConfigError
from sightline.machine.devices import choose_device

__all__ = [
    "SMALLEST_SIDE",
    "is_grey",
    "refuse_lone_program",
    "refuse_misfits",
    "refuse_processes",
    "refuse_saturation_of_grey",
    "refuse_small_padding",
    "refuse_split_seed",
    "refuse_without_effect",
]

SMALLEST_SIDE = 16  # pixels that every network can read
ROWS_AT_ONCE = 1_000  # images that are looked at for colours before the next are


def refuse_split_seed(chosen: AnyRecipe, settings: Mapping[str, Any], images: CachedImages) -> None:
    """Refuse to choose among the splits of a set of which nothing is cut."""
    asked = (settings.get("data") or {}).get("split_seed") not in (None, DataConfig().split_seed)
    if asked and chosen.data.fraction == 1 and {"val", "test"} <= set(images.splits):
        raise ConfigError(
            f"--data.split-seed has no effect: {images.name} brings its test and validation splits, and nothing else is cut;"
            " leave the option out."
        )


def refuse_misfits(recipe: Recipe, side: int) -> None:
    """Refuse what cannot be done with images of a side in pixels."""
    cutout = recipe.augment.cutout
    if cutout is not None and cutout.size > side:
        raise ConfigError(
            f"--augment.cutout.size ({cutout.size}) is larger than the images ({side} px); a hole must fit into the image."
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
                f"--augment.scales {scale:g} has no effect: the even side that is nearest to {side * scale:.1f} px is the full"
                f" one, {side} px; choose {(side - 2) / side:.2f} or less, or 1."
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
            f"--fit.processes {processes} starts this program again, and it has no file (a notebook, or python -c); use the"
            " command line or a script, or leave the setting out."
        )


def refuse_processes(recipe: AnyRecipe, images: int) -> None:
    """Refuse more processes than there can be, or than there is work for."""
    wanted, device = recipe.fit.processes, choose_device()
    if wanted == 1:
        return
    refuse_lone_program(wanted)
    most = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type, os.cpu_count() or 1)
    if wanted > most:
        raise ConfigError(
            f"--fit.processes is {wanted}, and this machine has {most} {'GPUs' if device.type == 'cuda' else 'cores'};"
            f" choose at most {most}."
        )
    batches = -(-images // recipe.fit.batch_size)
    if images // batches < 2 * wanted:
        raise ConfigError(
            f"{images} training images leave less than two a batch to each of --fit.processes ({wanted}); choose fewer."
        )


def refuse_small_padding(recipe: Recipe, images: CachedImages) -> None:
    """Refuse a shift that is lost in what larger images are cached with to crop from."""
    crop = recipe.augment.crop
    margin = min((found - wanted) // 2 for found, wanted in zip(images.pixels.shape[1:3], images.size, strict=True))
    if isinstance(crop, PadCropConfig) and crop.padding < margin:
        raise ConfigError(
            f"--augment.crop.padding ({crop.padding}) has no effect: images of {min(images.size)} px are cut from larger ones,"
            f" shifted by up to {margin} px; choose {margin} or more, or another --augment.crop.kind."
        )


def refuse_without_effect(recipe: AnyRecipe, images: CachedImages, splits: Splits) -> None:
    """Refuse what would change nothing with these training images."""
    batches = -(-len(splits.train) // recipe.fit.batch_size)
    most = max(recipe.fit.batches_a_step(epoch) for epoch in range(recipe.fit.epochs))
    if most > batches:
        raise ConfigError(
            f"--fit.accumulate {most} is more than the {batches} batches of an epoch ({len(splits.train)} images in batches"
            f" of {recipe.fit.batch_size}); choose at most {batches}."
        )
    counts = np.bincount(images.labels[splits.train], minlength=len(images.classes))
    if counts.min() == counts.max():
        for flag, value in (("fit.class-weights", recipe.fit.class_weights), ("data.sampling", recipe.data.sampling)):
            if value == "balanced":
                raise ConfigError(
                    f"--{flag} balanced has no effect: every class of {images.name} has {counts[0]} training images; leave"
                    " it out."
                )


def refuse_saturation_of_grey(recipe: Recipe, images: CachedImages, splits: Splits) -> None:
    """Refuse to vary the saturation of images that have no colours."""
    color = recipe.augment.color
    if color is None or color.saturation == 0 or not is_grey(images.pixels, splits.train):
        return
    raise ConfigError(
        f"--augment.color.saturation ({color.saturation:g}) has no effect: the training images of {images.name} are grey;"
        + (" leave --augment.color out." if color.brightness == color.contrast == 0 else " set it to 0.")
    )


def is_grey(pixels_NHWC: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> bool:
    """Whether the three channels of every pixel of some images are equal; looks no further than the first colour."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = pixels_NHWC[rows[start : start + ROWS_AT_ONCE]]
        if (part[..., :1] != part[..., 1:]).any():
            return False
    return True
