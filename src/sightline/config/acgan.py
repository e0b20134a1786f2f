"""The settings of generators that learn against a discriminator."""

from typing import Annotated, Literal

from msgspec import Meta

from sightline.config.building import Kind
from sightline.config.checks import Dropout, Finite
from sightline.errors import ConfigError

__all__ = ["ACGANConfig", "Disguise"]

Disguise = Literal["color", "translation", "cutout"]


Channels = Annotated[int, Meta(ge=1, le=4096)]


class ACGANConfig(Kind, frozen=True, kw_only=True, tag="acgan"):
    """A generator, and a discriminator that also names the class; they learn against each other, a step each in
    turn.
    """

    patch: Annotated[int, Meta(ge=1, le=16)] = 1
    """Pixels of a side that are one to both networks: images are made so much smaller and enlarged, and judged as
    small. Where images have no finer detail, nothing is lost; a generator that could draw finer would hide there what
    tells the class."""
    grey: bool = False
    """Draw without color, which a generator of gray images would also write the class into."""
    noise_width: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """Numbers of noise that an image is made of."""
    widths: tuple[Channels, ...] = (384, 192, 96)
    """Channels of the generator's maps, the coarsest first; each has half the side of the one after it."""
    discriminator_widths: tuple[Channels, ...] = (16, 32, 64, 128, 256, 512)
    """Channels of the discriminator's layers, the finest first; every other one, from the first on, halves the side."""
    dropout: Dropout = 0.5
    """Share of the discriminator's maps that is left out at random while training."""
    spectral: bool = False
    """Hold the largest factor by which a layer of the discriminator stretches its input at 1 (spectral normalization),
    in place of its norms."""
    gradient_penalty: Finite = 0.0
    """Weight of R1, which keeps the discriminator flat around real images; 0: none."""
    disguises: tuple[Disguise, ...] = ()
    """Changes (color, translation, cutout) in which the discriminator sees real and made images, so that it cannot
    learn few real ones by heart (differentiable augmentation)."""

    def _check(self) -> None:
        for name in ("widths", "discriminator_widths"):
            if not getattr(self, name):
                flag = f"--generator.{name.replace('_', '-')}"
                raise ConfigError(f"{flag} is empty; name the channels of one layer or more, such as 64 32.")
        for disguise in {item for item in self.disguises if self.disguises.count(item) > 1}:
            raise ConfigError(f"--generator.disguises names {disguise} twice; once is enough.")

    @property
    def side_multiple(self) -> int:
        """The number that the sides of images must be a multiple of, in pixels."""
        return int(self.patch * 2 ** len(self.widths))
