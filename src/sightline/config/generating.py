"""The recipe of a generator: the blocks of a classifier's that apply to it, and the generator."""

from typing import ClassVar, Literal

from sightline.config.acgan import ACGANConfig
from sightline.config.building import Block
from sightline.config.conflicts import EVERY, GENERATOR, refuse_conflicts
from sightline.config.fitting import ClipConfig, DataConfig, EMAConfig, FitConfig, TrackConfig
from sightline.config.generators import DiffusionConfig, GeneratorConfig
from sightline.config.optimizers import AdamWConfig, OptimizerConfig
from sightline.config.schedules import CosineConfig, PlannedScheduleConfig
from sightline.config.settings import Recipe
from sightline.errors import ConfigError

__all__ = ["AnyRecipe", "FlipConfig", "GeneratorRecipe", "indivisible"]

EPOCHS = 100  # unless a recipe, the images or the user say otherwise


class FlipConfig(Block, frozen=True, kw_only=True):
    """Variation of a generator's training images: whatever else is done to them, it would learn to do."""

    flip: Literal["none", "random", "alternating"] = "none"
    """Mirror left and right: not at all, at random, or at random in the first epoch and the other way in each next."""


class GeneratorRecipe(Block, frozen=True, kw_only=True):
    """Every setting of a generator's training."""

    # what only the training of a classifier has
    early_stopping: ClassVar[None] = None
    finetune: ClassVar[None] = None
    head: ClassVar[None] = None
    probe: ClassVar[None] = None
    selects: ClassVar[bool] = False

    name: str = "custom"
    """What the recipe is called."""
    about: str = ""
    """What it is for, what it reached, on what, in how long, n."""
    image_set: str | None = None
    """What it was trained on, filled in for a run."""
    data: DataConfig = DataConfig()
    augment: FlipConfig = FlipConfig()
    generator: GeneratorConfig = DiffusionConfig()
    optimizer: OptimizerConfig = AdamWConfig()
    # a generator's losses do not say when it has stopped getting better, so none that waits for them
    schedule: PlannedScheduleConfig = CosineConfig()
    clip: ClipConfig | None = None
    averaging: EMAConfig | None = None
    fit: FitConfig = FitConfig(epochs=EPOCHS)
    track: TrackConfig = TrackConfig()

    def _check(self) -> None:
        refuse_conflicts(self, EVERY, GENERATOR)
        if self.data.size is not None and self.data.size % self.generator.side_multiple:
            raise indivisible(self.data.size, self.generator)


def indivisible(side: int, generator: GeneratorConfig) -> ConfigError:
    """Say that the levels of a generator cannot halve a side in pixels."""
    multiple = generator.side_multiple
    near = max(multiple, side // multiple * multiple)
    near = near if near >= 16 else -(-16 // multiple) * multiple
    acgan = isinstance(generator, ACGANConfig)
    return ConfigError(
        f"images of {side} px cannot be halved {len(generator.widths) - (not acgan)} times in patches of"
        f" {generator.patch} px (--generator.widths, --generator.patch): the side must be a multiple of {multiple};"
        f" choose --data.size {near}, fewer {'widths' if acgan else 'levels'} or smaller patches."
    )


AnyRecipe = Recipe | GeneratorRecipe
