"""The settings of a training, as small frozen dataclasses.

The docstring under a field is its help text. A technique lives in its own block with a ``kind``; an optional block
is ``null`` in YAML and ``--block.kind none`` on the command line, so a knob without effect cannot be written.
Values are checked at birth, in the user's spelling; ``Recipe`` checks what one block asks of another.
"""

from dataclasses import dataclass, field
from typing import Literal

from sightline.errors import ConfigError

__all__ = [
    "AdamWConfig",
    "AugmentConfig",
    "CosineConfig",
    "CutoutConfig",
    "DataConfig",
    "EvaluationConfig",
    "FitConfig",
    "LinearConfig",
    "MuonConfig",
    "NetworkConfig",
    "OneCycleConfig",
    "OptimizerConfig",
    "PadCropConfig",
    "RandomResizedCropConfig",
    "Recipe",
    "ResNet18Config",
    "SGDConfig",
    "ScheduleConfig",
    "SpeednetConfig",
    "TrackConfig",
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
    """Largest shift, in pixels at the training size, in each direction; never less than what larger images are cached
    with to crop from."""
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
class AugmentConfig:
    """How training images are varied; each image of a batch gets its own random numbers."""

    flip: Literal["none", "random", "alternating"] = "random"
    """Mirror left and right: not at all, at random, or at random in the first epoch and the other way in each next."""
    crop: PadCropConfig | RandomResizedCropConfig | None = None
    """Shift or cut each image; null: the whole image (its centre where it is cached larger)."""
    cutout: CutoutConfig | None = None
    """Cover holes of each image; null: none."""
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


NetworkConfig = SpeednetConfig | ResNet18Config


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


OptimizerConfig = SGDConfig | AdamWConfig | MuonConfig


# ── schedules ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """A straight line from the peak rate to ``final`` of it, after an optional warm-up."""

    kind: Literal["linear"] = "linear"
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""
    final: float = 0.0
    """Last rate as a share of the peak."""


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """Half a cosine from the peak rate to ``final`` of it, after an optional warm-up."""

    kind: Literal["cosine"] = "cosine"
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""
    final: float = 0.0
    """Last rate as a share of the peak."""


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


ScheduleConfig = LinearConfig | CosineConfig | OneCycleConfig


# ── fitting and evaluation ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How long, how fast and how reproducibly to train."""

    epochs: int = 8
    """Passes over the training images."""
    batch_size: int = 128
    """Images a step, over all processes; the batches of an epoch differ by one image at most."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes."""
    validate_every: int = 1
    """Epochs between two validations; 0: only after the last."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints within an epoch; there is one at the end of every epoch too."""
    seed: int = 42
    """Seed of everything random in the training."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the arithmetic; auto: bfloat16 where the processor or GPU computes it fast, else float32."""
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
    fit: FitConfig = field(default_factory=FitConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or "\\" in self.name:
            raise ConfigError(f"the recipe's name is {self.name!r}; it must be a word for a folder, without slashes.")
        schedule, epochs = self.schedule, self.fit.epochs
        if isinstance(schedule, OneCycleConfig):
            _within("schedule.start", schedule.start, 0, 1)
            _within("schedule.peak-epoch", schedule.peak_epoch, 0, _INFINITY)
            if schedule.peak_epoch >= epochs:
                raise ConfigError(
                    f"--schedule.peak-epoch ({schedule.peak_epoch:g}) must be shorter than --fit.epochs ({epochs});"
                    " the learning rate would never come down."
                )
        else:
            _within("schedule.warmup-epochs", schedule.warmup_epochs, 0, _INFINITY)
            if schedule.warmup_epochs >= epochs:
                raise ConfigError(
                    f"--schedule.warmup-epochs ({schedule.warmup_epochs:g}) must be shorter than --fit.epochs"
                    f" ({epochs}); the learning rate would never come down."
                )
        _within("schedule.final", schedule.final, 0, 1)
        size, cutout = self.data.size, self.augment.cutout
        if size is not None and cutout is not None and cutout.size > size:
            raise ConfigError(
                f"--augment.cutout.size ({cutout.size}) is larger than the images (--data.size {size});"
                " a hole must fit into the image."
            )
