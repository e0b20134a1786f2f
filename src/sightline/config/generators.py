"""The settings of generators: what makes images of a class."""

import unicodedata
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from msgspec import Meta
from msgspec.structs import replace

from sightline.config.acgan import ACGANConfig
from sightline.config.building import Block, Kind
from sightline.config.checks import Count, Dropout, Finite, Share, nearest, within
from sightline.errors import ConfigError

__all__ = [
    "GLIMPSE_STEPS",
    "SAMPLERS",
    "SHOWN_CLASSES",
    "DiffusionConfig",
    "GeneratorConfig",
    "KeepConfig",
    "Sampler",
    "SamplingConfig",
    "chosen_classes",
    "glimpse_of",
    "sampling_of",
]

Sampler = Literal["ddpm", "ddim", "dpm++"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)

NORM_GROUPS = 8  # of the U-Net's norms
SHOWN_CLASSES = 20
"""Classes, at most, in a picture of what a generator makes while it learns."""
GLIMPSE_GUIDANCE, GLIMPSE_STEPS = 1.8, 10  # of such a picture, which must not take long
TELL_ABOVE = 0.3  # docs/results/generation.md has what was measured


class DiffusionConfig(Kind, frozen=True, kw_only=True, tag="diffusion"):
    """Noise that is taken away step by step (DDPM), by a U-Net that knows the class."""

    widths: tuple[Annotated[int, Meta(ge=NORM_GROUPS, le=2048)], ...] = (32, 64, 64)
    """Channels of the levels of the U-Net, the finest first; each level has half the side of the one before it. Where
    neither recipe nor flag names them, the number of images decides, and their side decides the patch."""
    blocks: Annotated[int, Meta(ge=1, le=8)] = 1
    """Residual blocks of a level on the way down; on the way up there is one more."""
    attention: tuple[Count, ...] = ()
    """Levels, counted from 1, whose blocks on the way down end in self-attention; the middle always has one."""
    patch: Annotated[int, Meta(ge=1, le=16)] = 1
    """Side of the squares of pixels that the first layer takes as one position: 2 makes a quarter of the positions of
    1, and takes about a quarter of the time."""
    dropout: Dropout = 0.0
    """Share of a residual block's channels that is left out at random while training."""
    noise_steps: Annotated[int, Meta(ge=2, le=10_000)] = 500
    """Steps in which an image becomes noise."""
    first_noise: Annotated[float, Meta(gt=0, le=0.5)] = 1e-4
    """Variance of the noise of the first step; from there it rises in a straight line."""
    last_noise: float = 0.028
    """Variance of the noise of the last step."""
    drop_labels: Dropout = 0.1
    """Share of the training images whose class is not told, from which guidance learns what images are without one;
    0: guidance cannot be used."""

    def _check(self) -> None:
        if not self.widths:
            raise ConfigError("--generator.widths is empty; name the channels of one level or more, such as 32 64 64.")
        for width in self.widths:
            if width % NORM_GROUPS:
                raise ConfigError(
                    f"--generator.widths {width} is no multiple of {NORM_GROUPS}, the groups of its norms; choose"
                    f" {width // NORM_GROUPS * NORM_GROUPS} or {(width // NORM_GROUPS + 1) * NORM_GROUPS}."
                )
        for level in self.attention:
            within("generator.attention", level, 1, len(self.widths))
        for level in {level for level in self.attention if self.attention.count(level) > 1}:
            raise ConfigError(f"--generator.attention names level {level} twice; once is enough.")
        within("generator.last-noise", self.last_noise, self.first_noise, 0.999)

    @property
    def side_multiple(self) -> int:
        """The number that the sides of images must be a multiple of, in pixels."""
        return int(self.patch * 2 ** (len(self.widths) - 1))


GeneratorConfig = DiffusionConfig | ACGANConfig


class SamplingConfig(Block, frozen=True, kw_only=True):
    """Settings of making images by diffusion."""

    guidance: Finite = 1.8
    """How far beyond the class, away from images of any class: w in (1 + w) conditional - w unconditional; 0: not at
    all."""
    steps: Count = 20
    """Times that the network is asked for each image."""
    sampler: Sampler = "dpm++"
    """How noise is taken away: step by step with some put back (ddpm), without (ddim), or by steps of second order
    (dpm++)."""
    tell_above: Share | None = None
    """Tell the class, and guide, while noise is stronger than this: its deviation as a multiple of the image's share.
    What is left to decide below is no longer what is to be seen, and the class would be written into traces that only a
    classifier finds. From 0, to the end, to 1, where it is as strong as the image; None: 0.3, or 0 where the generator
    does not know images without their class."""

    def settled(self, generator: DiffusionConfig) -> "SamplingConfig":
        """Return the same, with what the generator decides where it was left open."""
        usual = TELL_ABOVE if generator.drop_labels else 0.0
        return replace(self, tell_above=usual if self.tell_above is None else self.tell_above)

    def refuse_conflicts(self, generator: GeneratorConfig) -> None:
        """Refuse what a generator cannot do.

        Raises:
            ConfigError: it knows no image without a class, or its noise has fewer steps.
        """
        if isinstance(generator, ACGANConfig):
            raise ConfigError(
                "--guidance, --steps, --sampler and --tell-above have no effect on this generator, which makes an image"
                " in one pass; leave them out."
            )
        if self.guidance > 0 and generator.drop_labels == 0:
            raise ConfigError(
                f"--guidance {self.guidance:g} needs a generator that also knows images without their class, and this"
                " one was trained with --generator.drop-labels 0; choose --guidance 0."
            )
        if self.tell_above and generator.drop_labels == 0:
            raise ConfigError(
                f"--tell-above {self.tell_above:g} needs a generator that also knows images without their class, and"
                " this one was trained with --generator.drop-labels 0; leave the option out."
            )
        if self.steps > generator.noise_steps:
            raise ConfigError(
                f"--steps is {self.steps}, and the noise of this generator has {generator.noise_steps} steps; choose at"
                " most so many."
            )


class KeepConfig(Block, frozen=True, kw_only=True):
    """Settings of the filter: the generated images that are kept."""

    run: str
    """Run of a classifier that must take an image for its class."""
    least: Annotated[float, Meta(ge=0, le=1, extra={"flag": "keep-least"})] = 0.5
    """Probability of that class, at least."""
    most: Annotated[float, Meta(ge=0, le=1, extra={"flag": "keep-most"})] = 1.0
    """Probability of that class, at most: what a classifier is sure of already may teach it little."""
    copies: Annotated[float, Meta(ge=0, le=0.5, extra={"flag": "keep-copies"})] = 0.01
    """Share of the training images that have a nearer other one than a generated image may be to any; 0: as near as the
    nearest two of them."""

    def _check(self) -> None:
        if self.least > self.most:
            raise ConfigError(
                f"--keep-least {self.least:g} is more than --keep-most {self.most:g}, so no image would pass; exchange"
                " them."
            )

    @property
    def criteria(self) -> str:
        """The rule of what passes, without whose word it is."""
        return f"{self.least:g} to {self.most:g}, copies {self.copies:g}"


def sampling_of(generator: GeneratorConfig, sampling: SamplingConfig | None) -> SamplingConfig | None:
    """Return how a generator makes images: as the settings say, or as usual; None of one that makes them in one pass.

    Raises:
        ConfigError: it cannot do what is asked for.
    """
    if sampling is None and isinstance(generator, ACGANConfig):
        return None
    how = sampling or SamplingConfig()
    how.refuse_conflicts(generator)
    assert isinstance(generator, DiffusionConfig)
    return how.settled(generator)


def glimpse_of(generator: GeneratorConfig) -> SamplingConfig | None:
    """Return how a generator makes the pictures that are drawn while it learns; None of one that makes images in one
    pass.
    """
    if isinstance(generator, ACGANConfig):
        return None
    guidance = GLIMPSE_GUIDANCE if generator.drop_labels else 0
    return SamplingConfig(guidance=guidance, steps=min(GLIMPSE_STEPS, generator.noise_steps)).settled(generator)


def chosen_classes(names: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """Return the chosen classes, each once and in the order that a generator knows them in; None for all.

    Raises:
        ConfigError: there is no such class.
    """
    spelled = {unicodedata.normalize("NFC", name): name for name in known}  # accents may be typed in two ways
    chosen = {spelled.get(unicodedata.normalize("NFC", name), name) for name in names or ()}
    for name in sorted(chosen - set(known)):
        raise ConfigError(f"--classes {name}: the generator knows no such class; {nearest(name, known)}")
    return [name for name in known if names is None or name in chosen]
