"""A generator's training that is settled and not begun: what the images say of its network, and how it is finished."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from sightline.config.acgan import ACGANConfig
from sightline.config.generating import GeneratorRecipe
from sightline.config.generators import EDMConfig, GeneratorConfig
from sightline.config.resolving import to_mapping
from sightline.data.augment.augment import center
from sightline.data.cache import CachedImages
from sightline.display.pictures import drawing
from sightline.display.reporting import Listener, ignore
from sightline.machine.devices import choose_device, describe
from sightline.models.acgan import ACGAN
from sightline.models.flops import training_flops
from sightline.models.unet import EDMUNet, UNet
from sightline.reports.report import report
from sightline.runs.folder import REPORT, SAMPLES, mark_done, read_model, write_weights
from sightline.runs.writing import write_json
from sightline.training.base import Plan, Trained

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from sightline.training.module import Learner

__all__ = [
    "FEW_WIDTHS",
    "MANY_WIDTHS",
    "GeneratorPlan",
    "lost_detail",
    "root_mean_square",
    "scaled_to",
    "without_color",
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
BATCH = 64  # more, and the same images make fewer steps; docs/results/generation.md has what that costs
COARSEST = 4  # positions along a side of the coarsest map of a generator of one pass
PATCHES = (1, 2, 4)  # pixels; in larger ones there is too much to see at once


@dataclass(frozen=True, kw_only=True)
class GeneratorPlan(Plan):
    """Everything that is settled before the first step of a generator's training."""

    recipe: GeneratorRecipe
    built: UNet | EDMUNet | ACGAN

    @property
    def network(self) -> UNet | EDMUNet | ACGAN:
        return self.built

    def notes(self) -> list[str]:
        """Return the operations of a training image, and the size of the finest level."""
        line = f"{self._operations(1) / len(self.splits.train) / 1e9:.3g} GFLOP a training image"
        if not isinstance(self.recipe.generator, ACGANConfig):
            line += f"; positions of the finest level: {max(self.images.size) // self.recipe.generator.patch} a side"
        return [line]

    def describe(self) -> dict[str, Any]:
        generator = self.recipe.generator
        return super().describe() | {"kind": generator.kind, "generator": to_mapping(generator)}

    def learner(self, fresh: bool) -> "Learner":
        from sightline.training.module import ACGANLearner, DiffusionLearner, EDMLearner

        batches = -(-len(self.splits.train) // self.recipe.fit.batch_size)
        if isinstance(self.built, ACGAN):
            return ACGANLearner(self.built, self.recipe, batches)
        if isinstance(self.built, EDMUNet):
            return EDMLearner(self.built, self.recipe, batches)
        return DiffusionLearner(self.built, self.recipe, batches)

    def callbacks(self, run: Path, on_event: Listener) -> "list[Callback]":
        from sightline.training.callbacks.samples import SampleGrid

        return [SampleGrid(run, self.images.classes, self.images.size, len(self.splits.train), on_event)]

    def finish(self, run: Path, trained: Trained, on_event: Listener) -> None:
        self.refuse_bad_weights(run)
        model = read_model(run)
        model["losses"] = {**trained.losses, "n": len(self.splits.validation)}
        model["cost"] = {
            "fit_seconds": trained.seconds,
            "probe_flops": trained.probe_flops,
            "cost": trained.seconds * trained.probe_flops,
            "training_flops": self._operations(self.recipe.fit.epochs),
            "device": describe(choose_device()),
        }
        saved = self.built.generator if isinstance(self.built, ACGAN) else self.built
        write_weights(run / "model.safetensors", saved.state_dict(), model)
        write_json(run / "model.json", model)
        mark_done(run)
        with drawing(REPORT, on_event):
            report(run, on_event=ignore)
        _report_reached(on_event, run, self.recipe.generator.kind, trained.losses, len(self.splits.validation))

    def _operations(self, epochs: int) -> int:
        """Return the floating-point operations of so many epochs."""
        learning = frozenset(name for name, _ in self.network.named_parameters())
        return training_flops(self.network, [(self.images.size, learning)] * epochs, len(self.splits.train))


def _report_reached(on_event: Listener, run: Path, kind: str, losses: Mapping[str, float], n: int) -> None:
    """Report what a finished generator reached, and on what one may do with it."""
    if "val_generator_loss" in losses:
        on_event(
            f"losses on {n:,} validation images: discriminator {losses['val_loss']:.4f}, generator"
            f" {losses['val_generator_loss']:.4f} (of a contest: neither says how good the images are)"
        )
    elif "val_loss" in losses:
        meaning = "weighted squared error of the image" if kind == "edm" else "mean squared error of the noise"
        on_event(f"loss on {n:,} validation images: {losses['val_loss']:.4f} ({meaning})")
    on_event("Next:")
    if (run / REPORT).exists():
        on_event(f"  {run / REPORT}   what it was trained on, how it learned, what it makes")
    on_event(f"  {run / SAMPLES}   what it made after some of the epochs")
    on_event(f"  sightline generate {run} --per-class 100 --out FOLDER   images of each class")


def scaled_to(images: CachedImages, count: int, generator: GeneratorConfig) -> dict[str, Any]:
    """Return the settings that the images suggest for a generator, below those of recipe and flags.

    Few images get a small network and many epochs, many a wider one and few; the patch makes the finest level as
    small as is still fit to draw on, and smaller where the images have no detail that this would blur. So the
    training shows about so many images, whatever their number, and takes minutes on a processor for few of them, and
    an hour for many.

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
    own = {"image_deviation": root_mean_square(images)} if isinstance(generator, EDMConfig) else {}
    return {
        "generator": {"kind": generator.kind, "widths": list(widths), "patch": patch, **own},
        "fit": {"epochs": epochs, "batch_size": BATCH},
    }


def _acgan_scaled_to(images: CachedImages, count: int) -> dict[str, Any]:
    """Give few images narrow networks, many those of the original; the coarsest map has 2 to 8 positions a side."""
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
            "grey": without_color(images),
            "widths": widths,
            "discriminator_widths": [steepest * 2 ** (layer // (2 if few else 1)) for layer in range(layers)],
        },
        "fit": {"epochs": min(max(round(shown / count), LEAST_EPOCHS), ACGAN_MOST_EPOCHS), "batch_size": BATCH},
    }


def _patches(size: tuple[int, int], levels: int) -> list[int]:
    """Return the patches in which so many levels can halve both sides."""
    return [patch for patch in PATCHES if all(side % (patch * 2 ** (levels - 1)) == 0 for side in size)]


def lost_detail(images: CachedImages, patch: int) -> float:
    """Measure how much of an image does not outlast its being shrunk.

    Args:
        images: of the set; some of them are looked at.
        patch: pixels of a side that become one, before it is enlarged again.
    Returns:
        The squared differences to the images as they were, as a share of the squared differences of those from their
        own mean color; 0 of images of one color.
    """
    rows = _looked_at(images)
    levels = center(torch.from_numpy(images.pixels[rows]), images.size).permute(0, 3, 1, 2).float()
    shrunk = functional.interpolate(levels, scale_factor=1 / patch, mode="area")
    again = functional.interpolate(shrunk, size=images.size, mode="bicubic")
    varies = (levels - levels.mean((2, 3), keepdim=True)).square().sum()
    return float((levels - again).square().sum() / varies.clamp_min(1e-9))


def root_mean_square(images: CachedImages) -> float:
    """Return the root mean square of images of a set, of those that are looked at, as numbers from -1 to 1; to two
    digits, and 0.1 at least.
    """
    levels = center(torch.from_numpy(images.pixels[_looked_at(images)]), images.size).float()
    return max(round(float((levels / 127.5 - 1).square().mean().sqrt()), 2), 0.1)


def without_color(images: CachedImages) -> bool:
    """Tell whether no image of a set, of those that are looked at, has any color."""
    pixels = images.pixels[_looked_at(images)]
    return bool((pixels == pixels[..., :1]).all())


def _looked_at(images: CachedImages) -> Any:
    """Return rows of some images, from all over the set."""
    return images.readable[:: max(1, len(images.readable) // LOOKED_AT)][:LOOKED_AT]
