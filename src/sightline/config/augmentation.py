"""The settings of augmentation: how training images are varied."""

from dataclasses import dataclass
from typing import Literal

from sightline.config.checks import INFINITY, within
from sightline.errors import ConfigError

__all__ = [
    "AugmentConfig",
    "ColorJitterConfig",
    "CutmixConfig",
    "CutoutConfig",
    "MixupConfig",
    "PadCropConfig",
    "RandomResizedCropConfig",
    "RotationConfig",
    "TrivialAugmentConfig",
]


@dataclass(frozen=True, kw_only=True)
class PadCropConfig:
    """Shift each image by a few pixels: pad, then crop back to size."""

    kind: Literal["pad_crop"] = "pad_crop"
    padding: int = 4
    """Largest shift, in pixels at the training size, in each direction; at least what larger images are cached with to
    crop from."""
    fill: Literal["reflect", "zero"] = "reflect"
    """What the padding shows: the mirrored border, or the mean colour (zero once normalised)."""

    def __post_init__(self) -> None:
        within("augment.crop.padding", self.padding, 1, 64)


@dataclass(frozen=True, kw_only=True)
class RandomResizedCropConfig:
    """Cut a random part of each image and stretch it to the training size."""

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[float, float] = (0.35, 1.0)
    """Smallest and largest area of the part, as a share of the whole image."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest width divided by height of the part."""

    def __post_init__(self) -> None:
        for flag, (low, high), top in (("scale", self.scale, 1.0), ("ratio", self.ratio, INFINITY)):
            within(f"augment.crop.{flag}", low, 0, top, open_low=True)
            within(f"augment.crop.{flag}", high, low, top)


@dataclass(frozen=True, kw_only=True)
class CutoutConfig:
    """Cover square holes of each image with the mean colour."""

    kind: Literal["cutout"] = "cutout"
    holes: int = 1
    """Holes an image."""
    size: int = 8
    """Side of a hole, in pixels at the training size."""

    def __post_init__(self) -> None:
        within("augment.cutout.holes", self.holes, 1, 64)
        within("augment.cutout.size", self.size, 1, 1024)


@dataclass(frozen=True, kw_only=True)
class RotationConfig:
    """Turn each image by a random angle about the middle of its crop; crop and rotation resample its pixels once."""

    kind: Literal["rotation"] = "rotation"
    degrees: float = 15.0
    """Largest angle, in degrees, in each direction."""
    fill: Literal["reflect", "zero"] = "reflect"
    """What lies outside of the image: its mirror image, or the mean colour (zero once normalised)."""

    def __post_init__(self) -> None:
        within("augment.rotation.degrees", self.degrees, 0, 180, open_low=True)


@dataclass(frozen=True, kw_only=True)
class ColorJitterConfig:
    """Vary the colours of each image by random factors: first brightness, then contrast, then saturation."""

    kind: Literal["color_jitter"] = "color_jitter"
    brightness: float = 0.4
    """Brightness is multiplied by 1 - this to 1 + this, never by less than 0; 0 leaves it alone."""
    contrast: float = 0.4
    """Distance from the image's mean grey is multiplied by 1 - this to 1 + this, never by less than 0; 0: alone."""
    saturation: float = 0.4
    """Distance from each pixel's grey is multiplied by 1 - this to 1 + this, never by less than 0; 0: alone."""

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            within(f"augment.color.{name}", getattr(self, name), 0, INFINITY)
        if self.brightness == self.contrast == self.saturation == 0:
            raise ConfigError(
                "--augment.color has no effect: brightness, contrast and saturation are all 0; raise one of them, or"
                " leave the block out."
            )


@dataclass(frozen=True, kw_only=True)
class TrivialAugmentConfig:
    """Change each image by one random operation of 14 at a random strength (TrivialAugment Wide); nothing to tune."""

    kind: Literal["trivial_augment"] = "trivial_augment"


@dataclass(frozen=True, kw_only=True)
class MixupConfig:
    """Blend each image, and its label, with another one of the batch."""

    kind: Literal["mixup"] = "mixup"
    alpha: float = 0.2
    """Shares are drawn from Beta(alpha, alpha): near 0 or 1 for a small alpha, anywhere for 1, near a half for more."""

    def __post_init__(self) -> None:
        within("augment.mix.alpha", self.alpha, 0, INFINITY, open_low=True)


@dataclass(frozen=True, kw_only=True)
class CutmixConfig:
    """Paste a random box of another image of the batch into each image, and mix the labels by area."""

    kind: Literal["cutmix"] = "cutmix"
    alpha: float = 1.0
    """The area left to an image is drawn from Beta(alpha, alpha), before the box is cut at the border."""

    def __post_init__(self) -> None:
        within("augment.mix.alpha", self.alpha, 0, INFINITY, open_low=True)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training images are varied; each image of a batch gets its own random numbers."""

    flip: Literal["none", "random", "alternating"] = "random"
    """Mirror left and right: not at all, at random, or at random in the first epoch and the other way in each next."""
    crop: PadCropConfig | RandomResizedCropConfig | None = None
    """Shift or cut each image; null: the whole image (its centre where it is cached larger)."""
    rotation: RotationConfig | None = None
    """Turn each image; null: leave it upright."""
    policy: TrivialAugmentConfig | None = None
    """A published mixture of operations on the cropped image; null: none."""
    color: ColorJitterConfig | None = None
    """Vary the colours of each image; null: leave them alone."""
    cutout: CutoutConfig | None = None
    """Cover holes of each image; null: none."""
    mix: MixupConfig | CutmixConfig | None = None
    """Mix each image and its label with another one of the batch; null: none."""
    scales: tuple[float, ...] = ()
    """Shares of the training side at which the images are shown in equal parts of the training, of whole epochs;
    smaller is faster. The last is 1: the full size, which validation and test see; empty: always."""

    def __post_init__(self) -> None:
        for scale in self.scales:
            within("augment.scales", scale, 0.25, 1)
        if self.scales and self.scales[-1] != 1:
            raise ConfigError(
                f"--augment.scales ends with {self.scales[-1]:g}; the last must be 1, the size that the finished"
                " classifier is shown."
            )
        if self.scales and min(self.scales) == 1:
            raise ConfigError("--augment.scales 1 has no effect: it is the full size; leave the option out.")
        padded = self.crop if isinstance(self.crop, PadCropConfig) else None
        if self.rotation is not None and padded is not None and self.rotation.fill != padded.fill:
            raise ConfigError(
                f"--augment.rotation.fill is {self.rotation.fill} and --augment.crop.fill is {padded.fill}; crop and"
                " rotation move each pixel once, so what lies outside is filled in one way: make them the same."
            )

    def scale(self, epoch: int, epochs: int) -> float:
        """Share of the training side in an epoch, counted from 0; a change within an epoch comes at its start."""
        return self.scales[-(-(epoch + 1) * len(self.scales) // epochs) - 1] if self.scales else 1.0
