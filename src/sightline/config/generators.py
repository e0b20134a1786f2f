"""The settings of generators: what makes images of a class."""

import unicodedata
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from msgspec import Meta
from msgspec.structs import replace

from sightline.config.acgan import ACGANConfig
from sightline.config.building import Block, Kind
from sightline.config.checks import AboveZero, Count, Dropout, Finite, Share, nearest, within
from sightline.errors import ConfigError

__all__ = [
    "GLIMPSE_STEPS",
    "SHOWN_CLASSES",
    "DiffusionConfig",
    "EDMConfig",
    "GeneratorConfig",
    "KeepConfig",
    "Sampler",
    "SamplingConfig",
    "UNetConfig",
    "chosen_classes",
    "glimpse_of",
    "sampling_of",
    "usual_of",
]

Sampler = Literal["ddpm", "ddim", "dpm++", "heun"]

NORM_GROUPS = 8  # of the U-Net's norms
SHOWN_CLASSES = 20
"""Classes, at most, in a picture of what a generator makes while it learns."""
GLIMPSE_STEPS = 10  # of such a picture, which must not take long
TELL_ABOVE = 0.3  # docs/results/generation.md has what was measured
MOST_STEPS = 10_000


class UNetConfig(Kind, frozen=True, kw_only=True):
    """Settings of every U-Net that takes noise away."""

    samplers: ClassVar[tuple[Sampler, ...]]
    """How its noise can be taken away."""

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

    @property
    def side_multiple(self) -> int:
        """The number that the sides of images must be a multiple of, in pixels."""
        return int(self.patch * 2 ** (len(self.widths) - 1))

    @property
    def most_steps(self) -> int:
        """The times that the network can be asked for an image."""
        return MOST_STEPS


class DiffusionConfig(UNetConfig, frozen=True, kw_only=True, tag="diffusion"):
    """Noise that is taken away step by step (DDPM), by a U-Net that knows the class."""

    samplers: ClassVar[tuple[Sampler, ...]] = ("ddpm", "ddim", "dpm++")

    noise_steps: Annotated[int, Meta(ge=2, le=MOST_STEPS)] = 500
    """Steps in which an image becomes noise."""
    first_noise: Annotated[float, Meta(gt=0, le=0.5)] = 1e-4
    """Variance of the noise of the first step; from there it rises in a straight line."""
    last_noise: float = 0.028
    """Variance of the noise of the last step."""

    def _check(self) -> None:
        super()._check()
        within("generator.last-noise", self.last_noise, self.first_noise, 0.999)

    @property
    def most_steps(self) -> int:
        return self.noise_steps


class EDMConfig(UNetConfig, frozen=True, kw_only=True, tag="edm"):
    """Noise of any strength that is taken away along a curve (EDM), by a U-Net that knows the class and whose input,
    output and loss are scaled by the strength.

    A strength is the deviation of the noise, in the numbers from -1 to 1 that an image consists of.
    """

    samplers: ClassVar[tuple[Sampler, ...]] = ("ddim", "dpm++", "heun")

    typical_noise: Annotated[float, Meta(ge=1e-4, le=1000)] = 0.3
    """Median strength of the noise while training; strengths are drawn from a log-normal distribution."""
    noise_spread: Annotated[float, Meta(gt=0, le=5)] = 1.2
    """Standard deviation of the logarithm of that strength."""
    image_deviation: Annotated[float, Meta(ge=0.01, le=1)] = 0.5
    """Root mean square of the images, by which input, output and loss are scaled. Where neither recipe nor flag names
    it, it is that of the images."""
    least_noise: Annotated[float, Meta(ge=1e-4, le=1)] = 0.002
    """Strength of noise from which there is one step to a clean image."""
    most_noise: Annotated[float, Meta(ge=2, le=1000)] = 80.0
    """Strength of the noise that an image begins as."""


GeneratorConfig = DiffusionConfig | EDMConfig | ACGANConfig


class SamplingConfig(Block, frozen=True, kw_only=True):
    """Settings of making images by diffusion."""

    guidance: Finite = 1.8
    """How far beyond the class, away from images of any class: w in (1 + w) conditional - w unconditional; 0: not at
    all."""
    steps: Count = 20
    """Times that the network is asked for each image."""
    sampler: Sampler = "dpm++"
    """How noise is taken away: step by step with some put back (ddpm), without (ddim, Euler's method), or by steps of
    second order, from the step before (dpm++) or by asking twice (heun). Generators of the kind diffusion have no heun,
    those of the kind edm no ddpm."""
    tell_above: Share | None = None
    """Tell the class, and guide, while noise is stronger than this: its deviation as a multiple of the image's share.
    What is left to decide below is no longer what is to be seen, and the class would be written into traces that only a
    classifier finds. From 0, to the end, to 1, where it is as strong as the image; null: 0.3, or 0 where the generator
    does not know images without their class."""
    guide_below: AboveZero | None = None
    """Guide only while noise is weaker than this (guidance in an interval), by the same measure: in stronger noise
    guidance takes variety away; null: from the beginning."""

    def settled(self, generator: UNetConfig) -> "SamplingConfig":
        """Return the same, with what the generator decides where it was left open."""
        usual = TELL_ABOVE if generator.drop_labels else 0.0
        return replace(self, tell_above=usual if self.tell_above is None else self.tell_above)

    def refuse_conflicts(self, generator: GeneratorConfig) -> None:
        """Refuse what a generator cannot do.

        Raises:
            ConfigError: it knows no image without a class, has no such sampler, or its noise has fewer steps; or
                guidance would be in an interval that is empty.
        """
        if isinstance(generator, ACGANConfig):
            raise ConfigError(
                "--guidance, --steps, --sampler, --tell-above and --guide-below have no effect on this generator, which"
                " makes an image in one pass; leave them out."
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
        if self.sampler not in generator.samplers:
            raise ConfigError(
                f"--sampler {self.sampler} cannot be used with this generator, which is of the kind {generator.kind};"
                f" choose one of {', '.join(generator.samplers)}."
            )
        if self.steps > generator.most_steps:
            raise ConfigError(
                f"--steps is {self.steps}, and the network of this generator can be asked at most"
                f" {generator.most_steps} times for an image; choose at most so many."
            )
        self._refuse_empty_interval(generator)

    def _refuse_empty_interval(self, generator: UNetConfig) -> None:
        if self.guide_below is None:
            return
        if self.guidance == 0:
            raise ConfigError(
                f"--guide-below {self.guide_below:g} has no effect with --guidance 0; leave it out, or guide."
            )
        tell_above = self.settled(generator).tell_above or 0.0
        if self.guide_below <= tell_above:
            raise ConfigError(
                f"--guide-below {self.guide_below:g} is not above --tell-above {tell_above:g}, so nothing would be"
                " guided; choose a higher one, or --guidance 0."
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
    assert isinstance(generator, UNetConfig)
    return how.settled(generator)


def usual_of(generator: UNetConfig, steps: int | None = None) -> SamplingConfig:
    """Return how a generator makes images unless told otherwise, as far as it can.

    Args:
        generator: its settings.
        steps: times that its network is asked for each image; None: the usual.
    """
    usual = SamplingConfig()
    guidance = usual.guidance if generator.drop_labels else 0
    return SamplingConfig(guidance=guidance, steps=min(steps or usual.steps, generator.most_steps)).settled(generator)


def glimpse_of(generator: GeneratorConfig) -> SamplingConfig | None:
    """Return how a generator makes the pictures that are drawn while it learns; None of one that makes images in one
    pass.
    """
    return None if isinstance(generator, ACGANConfig) else usual_of(generator, GLIMPSE_STEPS)


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
