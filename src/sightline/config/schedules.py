"""The settings of schedules: how the learning rate goes over a training."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from sightline.config.checks import INFINITY, within
from sightline.errors import ConfigError

__all__ = [
    "ConstantConfig",
    "CosineConfig",
    "CyclicConfig",
    "ExponentialConfig",
    "LinearConfig",
    "MultiStepConfig",
    "OneCycleConfig",
    "PlannedScheduleConfig",
    "PlateauConfig",
    "ScheduleConfig",
    "StepConfig",
]


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """A straight line from the peak rate to ``final`` of it, after an optional warm-up."""

    kind: Literal["linear"] = "linear"
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""
    final: float = 0.0
    """The rate one step after the last, as a share of the peak, so that no step is taken at a rate of zero."""

    def __post_init__(self) -> None:
        within("schedule.warmup-epochs", self.warmup_epochs, 0, INFINITY)
        within("schedule.final", self.final, 0, 1)


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """Half a cosine from the peak rate to ``final`` of it, after an optional warm-up."""

    kind: Literal["cosine"] = "cosine"
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""
    final: float = 0.0
    """The rate one step after the last, as a share of the peak, so that no step is taken at a rate of zero."""

    def __post_init__(self) -> None:
        within("schedule.warmup-epochs", self.warmup_epochs, 0, INFINITY)
        within("schedule.final", self.final, 0, 1)


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
        within("schedule.start", self.start, 0, 1)
        within("schedule.peak-epoch", self.peak_epoch, 0, INFINITY)
        within("schedule.final", self.final, 0, 1)


@dataclass(frozen=True, kw_only=True)
class ConstantConfig:
    """The peak rate throughout, after an optional warm-up."""

    kind: Literal["constant"] = "constant"
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""

    def __post_init__(self) -> None:
        within("schedule.warmup-epochs", self.warmup_epochs, 0, INFINITY)


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
        within("schedule.every-epochs", self.every_epochs, 1, INFINITY)
        within("schedule.factor", self.factor, 0, 0.999999, open_low=True)
        within("schedule.warmup-epochs", self.warmup_epochs, 0, INFINITY)


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
            within("schedule.epochs", epoch, 1, INFINITY)
        if not self.epochs or any(later <= earlier for earlier, later in pairwise(self.epochs)):
            raise ConfigError(
                f"--schedule.epochs is {_listed(self.epochs)}; name one epoch or more, each later than the one before."
            )
        within("schedule.factor", self.factor, 0, 0.999999, open_low=True)
        within("schedule.warmup-epochs", self.warmup_epochs, 0, INFINITY)


def _listed(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers)) or "empty"


@dataclass(frozen=True, kw_only=True)
class ExponentialConfig:
    """From the peak rate down by ``factor`` an epoch, a little at every step, after an optional warm-up."""

    kind: Literal["exponential"] = "exponential"
    factor: float = 0.7
    """What the rate is multiplied by over an epoch."""
    warmup_epochs: float = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""

    def __post_init__(self) -> None:
        within("schedule.factor", self.factor, 0, 0.999999, open_low=True)
        within("schedule.warmup-epochs", self.warmup_epochs, 0, INFINITY)


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
        within("schedule.low", self.low, 0, 0.999999, open_low=True)
        within("schedule.period-epochs", self.period_epochs, 0, INFINITY, open_low=True)
        within("schedule.warmup-epochs", self.warmup_epochs, 0, INFINITY)


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
        within("schedule.factor", self.factor, 0, 0.999999, open_low=True)
        within("schedule.patience", self.patience, 0, INFINITY)
        within("schedule.warmup-epochs", self.warmup_epochs, 0, INFINITY)


PlannedScheduleConfig = (
    LinearConfig
    | CosineConfig
    | OneCycleConfig
    | ConstantConfig
    | StepConfig
    | MultiStepConfig
    | ExponentialConfig
    | CyclicConfig
)
"""The schedules that are settled before the first step: they need no measurements."""
ScheduleConfig = PlannedScheduleConfig | PlateauConfig
