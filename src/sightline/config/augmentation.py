"""The settings of augmentation: how training images are varied."""

from typing import Annotated, Literal

from msgspec import Meta

from sightline.config.building import Block, Kind
from sightline.config.checks import INFINITY, AboveZero, Finite, ShareAboveZero, within
from sightline.errors import ConfigError

__all__ = [
    "AugmentConfig",
    "ColorJitterConfig",
    "CutmixConfig",
    "CutoutConfig",
    "MixupConfig",
    "OwnAugmentConfig",
    "PadCropConfig",
    "RandomResizedCropConfig",
    "RotationConfig",
    "TrivialAugmentConfig",
]


class PadCropConfig(Kind, frozen=True, kw_only=True, tag="pad_crop"):
    """Shift each image by a few pixels: pad, then crop back to size."""

    padding: Annotated[int, Meta(ge=1, le=64)] = 4
    """Largest shift, in pixels at the training size, in each direction; at least what larger images are cached with to
    crop from."""
    fill: Literal["reflect", "zero"] = "reflect"
    """What the padding shows: the mirrored border, or the mean color (zero once normalized)."""


class RandomResizedCropConfig(Kind, frozen=True, kw_only=True, tag="random_resized_crop"):
    """Cut a random part of each image and stretch it to the training size."""

    scale: tuple[ShareAboveZero, ShareAboveZero] = (0.35, 1.0)
    """Smallest and largest area of the part, as a share of the whole image."""
    ratio: tuple[AboveZero, AboveZero] = (0.75, 4 / 3)
    """Smallest and largest width divided by height of the part."""

    def _check(self) -> None:
        for flag, (low, high), top in (("scale", self.scale, 1.0), ("ratio", self.ratio, INFINITY)):
            within(f"augment.crop.{flag}", high, low, top)


class CutoutConfig(Kind, frozen=True, kw_only=True, tag="cutout"):
    """Cover square holes of each image with the mean color."""

    holes: Annotated[int, Meta(ge=1, le=64)] = 1
    """Holes an image."""
    size: Annotated[int, Meta(ge=1, le=1024)] = 8
    """Side of a hole, in pixels at the training size."""


class RotationConfig(Kind, frozen=True, kw_only=True, tag="rotation"):
    """Turn each image by a random angle about the middle of its crop; crop and rotation resample its pixels once."""

    degrees: Annotated[float, Meta(gt=0, le=180)] = 15.0
    """Largest angle, in degrees, in each direction."""
    fill: Literal["reflect", "zero"] = "reflect"
    """What lies outside of the image: its mirror image, or the mean color (zero once normalized)."""


class ColorJitterConfig(Kind, frozen=True, kw_only=True, tag="color_jitter"):
    """Vary the colors of each image by random factors: first brightness, then contrast, then saturation."""

    brightness: Finite = 0.4
    """Brightness is multiplied by 1 - this to 1 + this, never by less than 0; 0 leaves it alone."""
    contrast: Finite = 0.4
    """Distance from the image's mean gray is multiplied by 1 - this to 1 + this, never by less than 0; 0: alone."""
    saturation: Finite = 0.4
    """Distance from each pixel's gray is multiplied by 1 - this to 1 + this, never by less than 0; 0: alone."""

    def _check(self) -> None:
        if self.brightness == self.contrast == self.saturation == 0:
            raise ConfigError(
                "--augment.color has no effect: brightness, contrast and saturation are all 0; raise one of them, or"
                " leave the block out."
            )


class TrivialAugmentConfig(Kind, frozen=True, kw_only=True, tag="trivial_augment"):
    """Change each image by one random operation of 14 at a random strength (TrivialAugment Wide); nothing to tune."""


class MixupConfig(Kind, frozen=True, kw_only=True, tag="mixup"):
    """Blend each image, and its label, with another one of the batch."""

    alpha: AboveZero = 0.2
    """Shares are drawn from Beta(alpha, alpha): near 0 or 1 for a small alpha, anywhere for 1, near a half for more."""


class CutmixConfig(Kind, frozen=True, kw_only=True, tag="cutmix"):
    """Paste a random box of another image of the batch into each image, and mix the labels by area."""

    alpha: AboveZero = 1.0
    """The area left to an image is drawn from Beta(alpha, alpha), before the box is cut at the border."""


class OwnAugmentConfig(Kind, frozen=True, kw_only=True, tag="file"):
    """Change the images by a function of a Python file of yours, after crop, flip, policy and colors; it takes images
    as floats from 0 to 1, (B, 3, H, W), and returns as many of that shape.
    """

    file: str
    """The Python file; it can import what is installed."""
    name: str
    """What the function is called there; also a transform of torchvision, which has the same call."""
    sha256: str | None = None
    """Of the file: a run notes it, and another file is refused; null: whatever it holds."""
    trust_code: bool = False
    """Run the code of the file, which may do whatever you may do; a flag or Python says so, never a file."""


class AugmentConfig(Block, frozen=True, kw_only=True):
    """Variation of the training images; each image of a batch gets its own random numbers."""

    flip: Literal["none", "random", "alternating"] = "random"
    """Mirror left and right: not at all, at random, or at random in the first epoch and the other way in each next;
    unless set, not where a test finds that mirrored images look like another class."""
    crop: PadCropConfig | RandomResizedCropConfig | None = None
    """Shift or cut each image; null: the whole image (its center where it is cached larger)."""
    rotation: RotationConfig | None = None
    """Turn each image; null: leave it upright."""
    policy: TrivialAugmentConfig | None = None
    """A published mixture of operations on the cropped image; null: none."""
    color: ColorJitterConfig | None = None
    """Vary the colors of each image; null: leave them alone."""
    own: OwnAugmentConfig | None = None
    """A function of your own; null: none."""
    cutout: CutoutConfig | None = None
    """Cover holes of each image; null: none."""
    mix: MixupConfig | CutmixConfig | None = None
    """Mix each image and its label with another one of the batch; null: none."""
    scales: tuple[Annotated[float, Meta(ge=0.25, le=1)], ...] = ()
    """Shares of the training side at which the images are shown in equal parts of the training, of whole epochs;
    smaller is faster. The last is 1: the full size, which validation and test see; empty: always."""

    def _check(self) -> None:
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
        """Return the share of the training side in an epoch, counted from 0; a change within an epoch comes at its
        start.
        """
        return self.scales[-(-(epoch + 1) * len(self.scales) // epochs) - 1] if self.scales else 1.0
