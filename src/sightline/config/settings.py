"""The settings of a training, as small frozen dataclasses.

The docstring under a field is its help text. A technique lives in its own block with a ``kind``; an optional block
is ``null`` in YAML and ``--block.kind none`` on the command line, so a knob without effect cannot be written.
Values are checked at birth, in the user's spelling; ``Recipe`` checks what one block asks of another.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from sightline.errors import ConfigError

__all__ = [
    "AdagradConfig",
    "AdamConfig",
    "AdamWConfig",
    "ArchitectureConfig",
    "AugmentConfig",
    "AveragingConfig",
    "ClipConfig",
    "ColorJitterConfig",
    "ConstantConfig",
    "CosineConfig",
    "CustomResNetConfig",
    "CutmixConfig",
    "CutoutConfig",
    "CyclicConfig",
    "DataConfig",
    "EMAConfig",
    "EarlyStoppingConfig",
    "EvaluationConfig",
    "ExponentialConfig",
    "FitConfig",
    "HubConfig",
    "LinearConfig",
    "MixupConfig",
    "MultiStepConfig",
    "MuonConfig",
    "NetworkConfig",
    "NormClipConfig",
    "OneCycleConfig",
    "OptimizerConfig",
    "PadCropConfig",
    "PlateauConfig",
    "RMSpropConfig",
    "RandomResizedCropConfig",
    "Recipe",
    "ResNet18Config",
    "ResNet34Config",
    "RotationConfig",
    "RunConfig",
    "SGDConfig",
    "SWAConfig",
    "ScheduleConfig",
    "SpeednetConfig",
    "StepConfig",
    "TimmConfig",
    "TorchvisionConfig",
    "TrackConfig",
    "TrivialAugmentConfig",
    "ValueClipConfig",
]


def _within(flag: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuse a number outside [low, high], or (low, high] with ``open_low``. NaN and infinity are outside of all."""
    if not ((low < value if open_low else low <= value) and value <= high) or value == _INFINITY:
        wanted = f"above {low:g}" if open_low else f"at least {low:g}"
        if high != float("inf"):
            wanted += f" and at most {_shown(high)}"
        elif value == _INFINITY:
            wanted += " and finite"
        raise ConfigError(f"--{flag} is {_shown(value)}; it must be {wanted}.")


def _shown(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)  # whole numbers keep all their digits


_INFINITY = float("inf")


# ── the image set ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images are trained on, and at what size."""

    validation: int | None = None
    """Images kept out of train to validate on, where the set has no validation split of its own; null: a tenth of
    train, at least 500 and at most 5,000, but never more than a fifth."""
    split_seed: int = 0
    """Which of the possible splits is cut; the run's seed never moves an image from one side to the other."""
    fraction: float = 1.0
    """Share of the training images to use, drawn class by class by the split seed; validation and test stay whole."""
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    """How an epoch draws its images: each once; or as many in all, every class as often as any other, so that images of
    rare classes come several times and not every image of a common class comes in every epoch."""
    size: int | None = None
    """Side of the images that the network sees, in pixels; null: their own up to 64, else at most 128."""

    def __post_init__(self) -> None:
        if self.validation is not None:
            _within("data.validation", self.validation, 1, _INFINITY)
        _within("data.fraction", self.fraction, 0, 1, open_low=True)
        if self.size is not None:
            _within("data.size", self.size, 16, 1024)


# ── augmentation ─────────────────────────────────────────────────────────────────────────────────────────────────────


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
        _within("augment.crop.padding", self.padding, 1, 64)


@dataclass(frozen=True, kw_only=True)
class RandomResizedCropConfig:
    """Cut a random part of each image and stretch it to the training size."""

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[float, float] = (0.35, 1.0)
    """Smallest and largest area of the part, as a share of the whole image."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest width divided by height of the part."""

    def __post_init__(self) -> None:
        for flag, (low, high), top in (("scale", self.scale, 1.0), ("ratio", self.ratio, _INFINITY)):
            _within(f"augment.crop.{flag}", low, 0, top, open_low=True)
            _within(f"augment.crop.{flag}", high, low, top)


@dataclass(frozen=True, kw_only=True)
class CutoutConfig:
    """Cover square holes of each image with the mean colour."""

    kind: Literal["cutout"] = "cutout"
    holes: int = 1
    """Holes an image."""
    size: int = 8
    """Side of a hole, in pixels at the training size."""

    def __post_init__(self) -> None:
        _within("augment.cutout.holes", self.holes, 1, 64)
        _within("augment.cutout.size", self.size, 1, 1024)


@dataclass(frozen=True, kw_only=True)
class RotationConfig:
    """Turn each image by a random angle about the middle of its crop; crop and rotation resample its pixels once."""

    kind: Literal["rotation"] = "rotation"
    degrees: float = 15.0
    """Largest angle, in degrees, in each direction."""
    fill: Literal["reflect", "zero"] = "reflect"
    """What lies outside of the image: its mirror image, or the mean colour (zero once normalised)."""

    def __post_init__(self) -> None:
        _within("augment.rotation.degrees", self.degrees, 0, 180, open_low=True)


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
            _within(f"augment.color.{name}", getattr(self, name), 0, _INFINITY)
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
        _within("augment.mix.alpha", self.alpha, 0, _INFINITY, open_low=True)


@dataclass(frozen=True, kw_only=True)
class CutmixConfig:
    """Paste a random box of another image of the batch into each image, and mix the labels by area."""

    kind: Literal["cutmix"] = "cutmix"
    alpha: float = 1.0
    """The area left to an image is drawn from Beta(alpha, alpha), before the box is cut at the border."""

    def __post_init__(self) -> None:
        _within("augment.mix.alpha", self.alpha, 0, _INFINITY, open_low=True)


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
            _within("augment.scales", scale, 0.25, 1)
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


# ── networks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class SpeednetConfig:
    """A small, fast convolutional network with a whitening first layer fitted to the image set."""

    kind: Literal["speednet"] = "speednet"
    widths: tuple[int, int, int] = (64, 256, 256)
    """Channels of the three groups."""
    whiten_bias_epochs: float = 3.0
    """Epochs during which the bias of the whitening layer learns; its rate falls to zero over them."""

    def __post_init__(self) -> None:
        for width in self.widths:
            _within("network.widths", width, 8, 8192)
        _within("network.whiten-bias-epochs", self.whiten_bias_epochs, 0, _INFINITY)


@dataclass(frozen=True, kw_only=True)
class ResNet18Config:
    """The 18-layer residual network; a 3×3 stem without pooling up to 64 px, the original 7×7 stem above."""

    kind: Literal["resnet18"] = "resnet18"
    weights: str | None = None
    """Weights to start from: null for none, pretrained for the library's own, or a file (.safetensors, .pth, .pt)."""


@dataclass(frozen=True, kw_only=True)
class ResNet34Config:
    """The 34-layer residual network, with the stems of the 18-layer one."""

    kind: Literal["resnet34"] = "resnet34"
    weights: str | None = None
    """Weights to start from: null for none, pretrained for the library's own, or a file (.safetensors, .pth, .pt)."""


@dataclass(frozen=True, kw_only=True)
class CustomResNetConfig:
    """Nine layers of 6.6 million parameters for small images, without knobs."""

    kind: Literal["custom_resnet"] = "custom_resnet"


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """A network of the library timm, an extra of sightline."""

    kind: Literal["timm"] = "timm"
    name: str
    """What the library or repository calls the network."""
    weights: str | None = None
    """Weights to start from: null for none, pretrained for the library's own, or a file (.safetensors, .pth, .pt)."""


@dataclass(frozen=True, kw_only=True)
class TorchvisionConfig:
    """A network of torchvision whose last layer is linear; its ResNets get a 3×3 stem without pooling up to 64 px."""

    kind: Literal["torchvision"] = "torchvision"
    name: str
    """What the library or repository calls the network."""
    weights: str | None = None
    """Weights to start from: null for none, pretrained for the library's own, or a file (.safetensors, .pth, .pt)."""


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """A network that torch.hub builds by running the code of a repository."""

    kind: Literal["hub"] = "hub"
    repo: str
    """OWNER/REPO[:BRANCH], or the folder of a clone."""
    name: str
    """What the library or repository calls the network."""
    trust_code: bool = False
    """Run the code of the repository, which may do whatever you may do."""

    def __post_init__(self) -> None:
        if not self.trust_code:
            raise ConfigError(
                f"network hub runs the code of {self.repo} on this machine (torch.hub downloads and executes it); read"
                " it, then add --network.trust-code."
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The network of an earlier run, with its weights; the head is new where the classes differ."""

    kind: Literal["run"] = "run"
    folder: str
    """Folder of the finished run."""
    trust_code: bool = False
    """Run the code of the repository, which may do whatever you may do."""


ArchitectureConfig = (
    SpeednetConfig | ResNet18Config | ResNet34Config | CustomResNetConfig | TimmConfig | TorchvisionConfig | HubConfig
)
"""What a network can be built from; a run's network is one of these."""
NetworkConfig = ArchitectureConfig | RunConfig


# ── optimizers ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class SGDConfig:
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    """Share of the last step that is kept."""
    nesterov: bool = True
    """Look ahead along the momentum before measuring."""
    weight_decay: float = 5e-4
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""

    def __post_init__(self) -> None:
        _within("optimizer.learning-rate", self.learning_rate, 0, _INFINITY, open_low=True)
        _within("optimizer.momentum", self.momentum, 0, 1)
        _within("optimizer.weight-decay", self.weight_decay, 0, _INFINITY)
        if self.nesterov and self.momentum == 0:
            raise ConfigError(
                "--optimizer.nesterov has no effect with --optimizer.momentum 0; add --no-optimizer.nesterov."
            )


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running mean of gradients and of their squares."""
    weight_decay: float = 1e-2
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""

    def __post_init__(self) -> None:
        _within("optimizer.learning-rate", self.learning_rate, 0, _INFINITY, open_low=True)
        for beta in self.betas:
            _within("optimizer.betas", beta, 0, 0.999999)
        _within("optimizer.weight-decay", self.weight_decay, 0, _INFINITY)


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """Adam: momentum, and a rate for each weight; the weight decay is added to the gradient."""

    kind: Literal["adam"] = "adam"
    learning_rate: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running mean of gradients and of their squares."""
    weight_decay: float = 0.0
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""

    def __post_init__(self) -> None:
        _within("optimizer.learning-rate", self.learning_rate, 0, _INFINITY, open_low=True)
        for beta in self.betas:
            _within("optimizer.betas", beta, 0, 0.999999)
        _within("optimizer.weight-decay", self.weight_decay, 0, _INFINITY)


@dataclass(frozen=True, kw_only=True)
class AdagradConfig:
    """Adagrad: a rate for each weight, which falls with the sum of its squared gradients."""

    kind: Literal["adagrad"] = "adagrad"
    learning_rate: float = 1e-2
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""

    def __post_init__(self) -> None:
        _within("optimizer.learning-rate", self.learning_rate, 0, _INFINITY, open_low=True)
        _within("optimizer.weight-decay", self.weight_decay, 0, _INFINITY)


@dataclass(frozen=True, kw_only=True)
class RMSpropConfig:
    """RMSProp: a rate for each weight, by the running mean of its squared gradients."""

    kind: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = 1e-3
    """Peak learning rate."""
    alpha: float = 0.99
    """Decay of the running mean of squared gradients."""
    momentum: float = 0.0
    """Share of the last step that is kept."""
    weight_decay: float = 0.0
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""

    def __post_init__(self) -> None:
        _within("optimizer.learning-rate", self.learning_rate, 0, _INFINITY, open_low=True)
        _within("optimizer.alpha", self.alpha, 0, 0.999999)
        _within("optimizer.momentum", self.momentum, 0, 1)
        _within("optimizer.weight-decay", self.weight_decay, 0, _INFINITY)


@dataclass(frozen=True, kw_only=True)
class MuonConfig:
    """Muon (orthogonalised momentum, filters kept at unit norm) for filters; Nesterov SGD for head and biases."""

    kind: Literal["muon"] = "muon"
    learning_rate: float = 0.24
    """Peak learning rate of the filters."""
    momentum: float = 0.6
    """Momentum of the filters."""
    head_learning_rate: float = 0.02
    """Peak learning rate of the last layer."""
    bias_learning_rate: float = 106.0
    """Peak learning rate of biases and norms; it is this large because the head, and so their gradient, is small."""
    head_momentum: float = 0.85
    """Momentum of the last layer, the biases and the norms."""
    shrink: float = 0.004
    """Weight decay times learning rate, for the last layer, the biases and the norms, at their peak rate."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "head_learning_rate", "bias_learning_rate"):
            _within(f"optimizer.{name.replace('_', '-')}", getattr(self, name), 0, _INFINITY, open_low=True)
        for name in ("momentum", "head_momentum"):
            _within(f"optimizer.{name.replace('_', '-')}", getattr(self, name), 0, 0.999999, open_low=True)
        _within("optimizer.shrink", self.shrink, 0, 1)


OptimizerConfig = SGDConfig | AdamWConfig | MuonConfig | AdamConfig | AdagradConfig | RMSpropConfig


# ── schedules ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """A straight line from the peak rate to ``final`` of it, after an optional warm-up."""

    kind: Literal["linear"] = "linear"
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""
    final: float = 0.0
    """The rate one step after the last, as a share of the peak, so that no step is taken at a rate of zero."""

    def __post_init__(self) -> None:
        _within("schedule.warmup-epochs", self.warmup_epochs, 0, _INFINITY)
        _within("schedule.final", self.final, 0, 1)


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """Half a cosine from the peak rate to ``final`` of it, after an optional warm-up."""

    kind: Literal["cosine"] = "cosine"
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""
    final: float = 0.0
    """The rate one step after the last, as a share of the peak, so that no step is taken at a rate of zero."""

    def __post_init__(self) -> None:
        _within("schedule.warmup-epochs", self.warmup_epochs, 0, _INFINITY)
        _within("schedule.final", self.final, 0, 1)


@dataclass(frozen=True, kw_only=True)
class OneCycleConfig:
    """Half a cosine up from ``start`` of the peak rate to the peak, and half a cosine down to ``final`` of it."""

    kind: Literal["one_cycle"] = "one_cycle"
    peak_epoch: float = 5.0
    """Epochs until the peak; fractions allowed."""
    start: float = 0.01
    """First rate as a share of the peak."""
    final: float = 0.0001
    """Last rate as a share of the peak."""

    def __post_init__(self) -> None:
        _within("schedule.start", self.start, 0, 1)
        _within("schedule.peak-epoch", self.peak_epoch, 0, _INFINITY)
        _within("schedule.final", self.final, 0, 1)


@dataclass(frozen=True, kw_only=True)
class ConstantConfig:
    """The peak rate throughout, after an optional warm-up."""

    kind: Literal["constant"] = "constant"
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""

    def __post_init__(self) -> None:
        _within("schedule.warmup-epochs", self.warmup_epochs, 0, _INFINITY)


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """The peak rate, multiplied by ``factor`` every few epochs."""

    kind: Literal["step"] = "step"
    every_epochs: int = 2
    """Epochs between two cuts of the rate, counted from the start of the training."""
    factor: float = 0.5
    """What the rate is multiplied by; by the exponential schedule once an epoch, spread over its steps."""
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""

    def __post_init__(self) -> None:
        _within("schedule.every-epochs", self.every_epochs, 1, _INFINITY)
        _within("schedule.factor", self.factor, 0, 0.999999, open_low=True)
        _within("schedule.warmup-epochs", self.warmup_epochs, 0, _INFINITY)


@dataclass(frozen=True, kw_only=True)
class MultiStepConfig:
    """The peak rate, multiplied by ``factor`` after each of the named epochs."""

    kind: Literal["multi_step"] = "multi_step"
    epochs: tuple[int, ...] = (4, 6)
    """Epochs after which the rate is cut, rising."""
    factor: float = 0.1
    """What the rate is multiplied by."""
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""

    def __post_init__(self) -> None:
        for epoch in self.epochs:
            _within("schedule.epochs", epoch, 1, _INFINITY)
        if not self.epochs or any(later <= earlier for earlier, later in pairwise(self.epochs)):
            raise ConfigError(
                f"--schedule.epochs is {_listed(self.epochs)}; name one epoch or more, each later than the one before."
            )
        _within("schedule.factor", self.factor, 0, 0.999999, open_low=True)
        _within("schedule.warmup-epochs", self.warmup_epochs, 0, _INFINITY)


@dataclass(frozen=True, kw_only=True)
class ExponentialConfig:
    """From the peak rate down by ``factor`` an epoch, a little at every step, after an optional warm-up."""

    kind: Literal["exponential"] = "exponential"
    factor: float = 0.7
    """What the rate is multiplied by over an epoch."""
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""

    def __post_init__(self) -> None:
        _within("schedule.factor", self.factor, 0, 0.999999, open_low=True)
        _within("schedule.warmup-epochs", self.warmup_epochs, 0, _INFINITY)


@dataclass(frozen=True, kw_only=True)
class CyclicConfig:
    """Straight lines from ``low`` of the peak rate up to the peak and back, again and again."""

    kind: Literal["cyclic"] = "cyclic"
    low: float = 0.1
    """Lowest rate of a cycle as a share of the peak."""
    period_epochs: float = 4.0
    """Epochs of a cycle, up and down; fractions allowed."""
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero, here to ``low``; fractions allowed."""

    def __post_init__(self) -> None:
        _within("schedule.low", self.low, 0, 0.999999, open_low=True)
        _within("schedule.period-epochs", self.period_epochs, 0, _INFINITY, open_low=True)
        _within("schedule.warmup-epochs", self.warmup_epochs, 0, _INFINITY)


@dataclass(frozen=True, kw_only=True)
class PlateauConfig:
    """The peak rate, multiplied by ``factor`` whenever a measure has not improved for more than some measurements."""

    kind: Literal["plateau"] = "plateau"
    monitor: Literal["val_loss", "val_acc", "train_acc"] = "val_loss"
    """The measure: loss or accuracy on validation, measured at each validation; or accuracy on train, each epoch."""
    factor: float = 0.1
    """What the rate is multiplied by."""
    patience: int = 4
    """Measurements in a row without improvement that are borne; the one after them cuts the rate."""
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""

    def __post_init__(self) -> None:
        _within("schedule.factor", self.factor, 0, 0.999999, open_low=True)
        _within("schedule.patience", self.patience, 0, _INFINITY)
        _within("schedule.warmup-epochs", self.warmup_epochs, 0, _INFINITY)


ScheduleConfig = (
    LinearConfig
    | CosineConfig
    | OneCycleConfig
    | ConstantConfig
    | StepConfig
    | MultiStepConfig
    | ExponentialConfig
    | CyclicConfig
    | PlateauConfig
)


# ── clipping, averaging, stopping early ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class NormClipConfig:
    """Shorten the gradient of all weights together to a largest length, keeping its direction."""

    kind: Literal["norm"] = "norm"
    limit: float = 1.0
    """Largest length of the whole gradient (norm), or largest size of each of its numbers (value)."""

    def __post_init__(self) -> None:
        _within("clip.limit", self.limit, 0, _INFINITY, open_low=True)


@dataclass(frozen=True, kw_only=True)
class ValueClipConfig:
    """Cut every number of the gradient to a largest size."""

    kind: Literal["value"] = "value"
    limit: float = 0.5
    """Largest size of each number of the gradient."""

    def __post_init__(self) -> None:
        _within("clip.limit", self.limit, 0, _INFINITY, open_low=True)


ClipConfig = NormClipConfig | ValueClipConfig


@dataclass(frozen=True, kw_only=True)
class EMAConfig:
    """Hand on a running mean of the weights, taken at every step."""

    kind: Literal["ema"] = "ema"
    start: float = 0.0
    """Share of the training after which the averaging begins."""
    decay: float = 0.999
    """Share of the mean that is kept at a step; less over its first steps: (1 + n) / (10 + n) after n of them."""

    def __post_init__(self) -> None:
        _within("averaging.start", self.start, 0, 0.999999)
        _within("averaging.decay", self.decay, 0, 0.999999, open_low=True)


@dataclass(frozen=True, kw_only=True)
class SWAConfig:
    """Hand on the mean of the weights at the ends of the last epochs, trained at a rate of their own."""

    kind: Literal["swa"] = "swa"
    start: float = 0.75
    """Share of the training after which the averaging begins."""
    rate: float = 0.1
    """Rate while averaging as a share of the peak."""
    anneal_epochs: float = 1.0
    """Epochs over which the rate goes there from where the schedule is, along half a cosine; fractions allowed."""

    def __post_init__(self) -> None:
        _within("averaging.start", self.start, 0, 0.999999)
        _within("averaging.rate", self.rate, 0, 1, open_low=True)
        _within("averaging.anneal-epochs", self.anneal_epochs, 0, _INFINITY)


AveragingConfig = EMAConfig | SWAConfig


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """Stop when validation has not improved for a while, and hand on the weights of the best validation."""

    kind: Literal["patience"] = "patience"
    monitor: Literal["val_loss", "val_acc"] = "val_acc"
    """What must improve, and chooses the weights."""
    patience: int = 3
    """Validations in a row without improvement after which the training stops."""
    min_delta: float = 0.0
    """Smallest gain that counts as an improvement; the best weights are the best however small their lead."""

    def __post_init__(self) -> None:
        _within("early-stopping.patience", self.patience, 1, _INFINITY)
        _within("early-stopping.min-delta", self.min_delta, 0, _INFINITY)


# ── fitting and evaluation ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How long, how fast and how reproducibly to train."""

    epochs: int = 8
    """Passes over the training images."""
    batch_size: int = 128
    """Images a batch, over all processes; the batches of an epoch differ by one image at most. An optimizer step sees
    so many times ``accumulate``."""
    accumulate: int | dict[int, int] = 1
    """Batches whose gradients are averaged for one optimizer step: a number, or one from each of some epochs on, counted
    from 0; in YAML {0: 8, 4: 4, 8: 1}, as a flag 0:8 4:4 8:1. The last step of an epoch sees what is left, and each image
    weighs the same in it."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """How much an image counts in the training loss: each the same, or by the number of train images, over classes times
    images of its class. Validation and test are not weighted."""
    validate_every: int = 1
    """Epochs between two validations; 0: only after the last."""
    keep: Literal["last", "val_acc", "val_loss"] = "last"
    """Which weights are handed on: those of the last epoch, or of the validation with the best accuracy or loss. Half of
    validation then chooses, and only the other half calibrates; so too with early stopping and plateau on validation."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints within an epoch; there is one at the end of every epoch too."""
    seed: int = 42
    """Seed of everything random in the training."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the arithmetic; auto: bfloat16 where the processor or GPU computes it fast, else float32."""
    processes: int = 1
    """Processes that train together, each on a GPU of its own, or on its share of a processor's cores; each takes its part
    of every batch. Batch-norm sees the part of its process only."""
    deterministic: bool = False
    """Refuse every operation whose result may differ from run to run; on a processor nothing differs either way."""
    compile: bool = False
    """Compile the network for the training steps (torch.compile), anew for every batch size and scale: for long trainings
    on a GPU. Where it was tried, on 2 busy cores, each took one to two minutes (a few seconds the next time) and the steps
    were not faster. Losses differ in the last digits."""

    def __post_init__(self) -> None:
        _within("fit.epochs", self.epochs, 1, _INFINITY)
        _within("fit.batch-size", self.batch_size, 2, _INFINITY)
        _within("fit.label-smoothing", self.label_smoothing, 0, 0.9)
        _within("fit.validate-every", self.validate_every, 0, self.epochs)
        _within("fit.checkpoint-seconds", self.checkpoint_seconds, 0, _INFINITY)
        _within("fit.seed", self.seed, 0, 2**63 - 1)
        _within("fit.processes", self.processes, 1, 1024)
        if self.batch_size < 2 * self.processes:
            raise ConfigError(
                f"--fit.batch-size ({self.batch_size}) leaves less than two images to each of --fit.processes"
                f" ({self.processes}); batch-norm needs two: choose {2 * self.processes} or more."
            )
        if isinstance(self.accumulate, dict):
            self._check_accumulation(self.accumulate)
        else:
            _within("fit.accumulate", self.accumulate, 1, _INFINITY)
        if self.keep != "last" and not 0 < self.validate_every <= self.epochs // 2:
            raise ConfigError(
                f"--fit.keep {self.keep} has nothing to choose from with --fit.validate-every {self.validate_every} of"
                f" {self.epochs} epochs; validate twice or more, or leave it out."
            )

    def batches_a_step(self, epoch: int) -> int:
        """Batches of an optimizer step in an epoch, counted from 0."""
        if not isinstance(self.accumulate, dict):
            return self.accumulate
        return self.accumulate[max(first for first in self.accumulate if first <= epoch)]

    def _check_accumulation(self, schedule: dict[int, int]) -> None:
        epochs, counts = list(schedule), list(schedule.values())
        for count in counts:
            _within("fit.accumulate", count, 1, _INFINITY)
        spoken = " ".join(f"{epoch}:{count}" for epoch, count in schedule.items())
        if not epochs or epochs[0] != 0 or any(later <= earlier for earlier, later in pairwise(epochs)):
            raise ConfigError(f"--fit.accumulate is {spoken or 'empty'}; its epochs must begin with 0 and rise.")
        if epochs[-1] >= self.epochs:
            raise ConfigError(
                f"--fit.accumulate {epochs[-1]}:{counts[-1]} has no effect: the epochs of --fit.epochs {self.epochs} are"
                f" 0 to {self.epochs - 1}; leave it out."
            )
        same = next(
            (epoch for epoch, (one, other) in zip(epochs[1:], pairwise(counts), strict=True) if one == other), None
        )
        if same is not None or counts == [1]:
            raise ConfigError(
                f"--fit.accumulate {same or 0}:{schedule[same or 0]} has no effect: it is so already; leave it out."
            )


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the finished classifier reads an image, and what it is measured on."""

    views: Literal["one", "flip", "six"] = "one"
    """Views of an image whose logits are averaged: itself; with its mirror image; both also shifted by a pixel
    up-left and down-right (the shifted four share half of the weight)."""
    on: Literal["test", "validation", "none"] = "test"
    """What the finished classifier is measured on; the test split is read once."""


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Where the numbers of a training go besides its run folder; ``metrics.csv`` is written always."""

    to: tuple[Literal["tensorboard", "wandb", "csv"], ...] = ()
    """Trackers, several at once: all settings, the rates step by step, the epochs and the final numbers, below logs/ in
    the run. TensorBoard and Weights & Biases come with the extra track; empty: none."""
    every: int | None = None
    """Steps between two learning rates that are tracked; null: 50."""
    project: str | None = None
    """Project of Weights & Biases; null: sightline."""
    offline: bool = False
    """Keep the run of Weights & Biases in logs/wandb, for `wandb sync`; without a key or a network it stays there too."""

    def __post_init__(self) -> None:
        for name in {name for name in self.to if self.to.count(name) > 1}:
            raise ConfigError(f"--track.to names {name} twice; once is enough.")
        if self.every is not None:
            _within("track.every", self.every, 1, _INFINITY)
            if not self.to:
                raise ConfigError("--track.every has no effect without a tracker; add --track.to csv, or leave it out.")
        for flag, given in (("project", self.project is not None), ("offline", self.offline)):
            if given and "wandb" not in self.to:
                raise ConfigError(f"--track.{flag} has no effect without --track.to wandb; add it, or leave it out.")
        if self.project is not None and (not self.project.strip() or set(self.project) & set("/\\#?%:")):
            raise ConfigError(
                f"--track.project is {self.project!r}; it must be a name without any of / \\ # ? % :, such as flowers."
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a training."""

    name: str = "custom"
    """What the recipe is called."""
    about: str = ""
    """What it is for, what it reached, on what, in how long, n."""
    image_set: str | None = None
    """What it was trained on, filled in for a run."""
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    network: NetworkConfig = field(default_factory=SpeednetConfig)
    optimizer: OptimizerConfig = field(default_factory=SGDConfig)
    schedule: ScheduleConfig = field(default_factory=LinearConfig)
    clip: ClipConfig | None = None
    averaging: AveragingConfig | None = None
    early_stopping: EarlyStoppingConfig | None = None
    fit: FitConfig = field(default_factory=FitConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or "\\" in self.name:
            raise ConfigError(f"the recipe's name is {self.name!r}; it must be a word for a folder, without slashes.")
        _check_schedule(self.schedule, self.fit)
        if self.averaging is not None:
            _check_averaging(self.averaging, self.schedule, self.early_stopping, self.fit.epochs)
        if self.early_stopping is not None:
            _check_patience(
                "early-stopping.patience", self.early_stopping.patience, 1, self.early_stopping.monitor, self.fit
            )
            if self.fit.keep != "last":
                raise ConfigError(
                    f"--fit.keep {self.fit.keep} has no effect with --early-stopping, which hands on the weights that are"
                    " best by its own monitor; leave --fit.keep out."
                )
        if self.fit.class_weights == "balanced" and self.data.sampling == "balanced":
            raise ConfigError(
                "--fit.class-weights balanced and --data.sampling balanced both make up for rare classes, together twice"
                " over; choose one."
            )
        size, cutout = self.data.size, self.augment.cutout
        if size is not None and cutout is not None and cutout.size > size:
            raise ConfigError(
                f"--augment.cutout.size ({cutout.size}) is larger than the images (--data.size {size});"
                " a hole must fit into the image."
            )

    @property
    def selects(self) -> bool:
        """Whether validation chooses anything while training; half of it is then kept from that, to calibrate."""
        plateau = isinstance(self.schedule, PlateauConfig) and self.schedule.monitor != "train_acc"
        return plateau or self.early_stopping is not None or self.fit.keep != "last"


def _check_schedule(schedule: ScheduleConfig, fit: FitConfig) -> None:
    """Refuse a schedule that would not do in so many epochs what it says."""
    epochs = fit.epochs
    if isinstance(schedule, OneCycleConfig):
        if schedule.peak_epoch >= epochs:
            raise ConfigError(
                f"--schedule.peak-epoch ({schedule.peak_epoch:g}) must be shorter than --fit.epochs ({epochs});"
                " the learning rate would never come down."
            )
        return
    if schedule.warmup_epochs >= epochs:
        raise ConfigError(
            f"--schedule.warmup-epochs ({schedule.warmup_epochs:g}) must be shorter than --fit.epochs"
            f" ({epochs}); the learning rate would never come down."
        )
    match schedule:
        case StepConfig():
            _check_cuts("every-epochs", (schedule.every_epochs,), schedule.warmup_epochs, epochs)
        case MultiStepConfig():
            _check_cuts("epochs", schedule.epochs, schedule.warmup_epochs, epochs)
        case CyclicConfig():
            if schedule.period_epochs > epochs - schedule.warmup_epochs:
                raise ConfigError(
                    f"--schedule.period-epochs ({schedule.period_epochs:g}) is more than the"
                    f" {epochs - schedule.warmup_epochs:g} epochs that --fit.epochs and the warm-up leave; the learning"
                    " rate would never come back down."
                )
        case PlateauConfig():
            _check_patience("schedule.patience", schedule.patience, 2, schedule.monitor, fit)


def _check_cuts(name: str, cuts: tuple[int, ...], warmup: float, epochs: int) -> None:
    if cuts[-1] >= epochs:
        raise ConfigError(f"--schedule.{name} {cuts[-1]} has no effect: it must be less than --fit.epochs ({epochs}).")
    if cuts[0] <= warmup:
        raise ConfigError(
            f"--schedule.{name} {cuts[0]} cuts the rate before the warm-up ends (--schedule.warmup-epochs {warmup:g});"
            " choose a later epoch or a shorter warm-up."
        )


def _check_patience(flag: str, patience: int, more: int, monitor: str, fit: FitConfig) -> None:
    """Refuse a patience that cannot run out before the last epoch.

    Args:
        more: measurements until it has run out, beyond the patience: the first, which is the best so far, and the one
            that is not borne any more.
    """
    every = 1 if monitor == "train_acc" else fit.validate_every
    if every == 0:
        raise ConfigError(
            f"--{flag.partition('.')[0]} waits for {monitor}, but --fit.validate-every 0 measures it only after the last"
            " epoch; choose --fit.validate-every 1."
        )
    if (patience + more) * every >= fit.epochs:
        raise ConfigError(
            f"--{flag} {patience} cannot run out within --fit.epochs {fit.epochs} with a measurement every"
            f" {f'{every} epochs' if every > 1 else 'epoch'}; choose less patience or more epochs."
        )


def _check_averaging(
    averaging: AveragingConfig, schedule: ScheduleConfig, stopping: EarlyStoppingConfig | None, epochs: int
) -> None:
    start = averaging.start * epochs
    if isinstance(averaging, EMAConfig):
        if epochs - start < 1:
            raise ConfigError(
                f"--averaging.start {averaging.start:g} of --fit.epochs {epochs} leaves less than an epoch to average; choose"
                " an earlier start."
            )
        return
    if isinstance(schedule, PlateauConfig):
        raise ConfigError(
            "--averaging.kind swa and --schedule.kind plateau both set the rate of the last epochs; choose another"
            " schedule, or --averaging.kind ema."
        )
    if stopping is not None:
        raise ConfigError(
            "--averaging.kind swa averages the last epochs, which --early-stopping would cut off; choose one of the two,"
            " or --averaging.kind ema."
        )
    if epochs - start < 2:
        raise ConfigError(
            f"--averaging.start {averaging.start:g} of --fit.epochs {epochs} leaves {epochs - start:g} epochs to average;"
            " two or more are needed: choose an earlier start, or more epochs."
        )
    if averaging.anneal_epochs >= epochs - start:
        raise ConfigError(
            f"--averaging.anneal-epochs ({averaging.anneal_epochs:g}) must be less than the {epochs - start:g} epochs after"
            " --averaging.start; the rate would never be reached."
        )
    rising = schedule.peak_epoch if isinstance(schedule, OneCycleConfig) else schedule.warmup_epochs
    if start < rising:
        raise ConfigError(
            f"--averaging.start {averaging.start:g} is epoch {start:g}, before the peak of the schedule (epoch {rising:g});"
            " choose a later start."
        )


def _listed(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers)) or "empty"
