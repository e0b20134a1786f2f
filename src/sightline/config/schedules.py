"""The settings of schedules: how the learning rate goes over a training."""

from itertools import pairwise
from typing import Literal

from sightline.config.building import Kind
from sightline.config.checks import AboveZero, Count, Finite, OpenShare, Share, ZeroOrMore
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


class LinearConfig(Kind, frozen=True, kw_only=True, tag="linear"):
    """A straight line from the peak rate to ``final`` of it, after an optional warm-up."""

    warmup_epochs: Finite = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""
    final: Share = 0.0
    """The rate one step after the last, as a share of the peak, so that no step is taken at a rate of zero."""


class CosineConfig(Kind, frozen=True, kw_only=True, tag="cosine"):
    """Half a cosine from the peak rate to ``final`` of it, after an optional warm-up."""

    warmup_epochs: Finite = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""
    final: Share = 0.0
    """The rate one step after the last, as a share of the peak, so that no step is taken at a rate of zero."""


class OneCycleConfig(Kind, frozen=True, kw_only=True, tag="one_cycle"):
    """Half a cosine up from ``start`` of the peak rate to the peak, and half a cosine down to ``final`` of it."""

    peak_epoch: Finite = 5.0
    """Epochs until the peak; fractions allowed."""
    start: Share = 0.01
    """First rate as a share of the peak."""
    final: Share = 0.0001
    """Last rate as a share of the peak."""


class ConstantConfig(Kind, frozen=True, kw_only=True, tag="constant"):
    """The peak rate throughout, after an optional warm-up."""

    warmup_epochs: Finite = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""


class StepConfig(Kind, frozen=True, kw_only=True, tag="step"):
    """The peak rate, multiplied by ``factor`` every few epochs."""

    every_epochs: Count = 2
    """Epochs between two cuts of the rate, counted from the start of the training."""
    factor: OpenShare = 0.5
    """What the rate is multiplied by; by the exponential schedule once an epoch, spread over its steps."""
    warmup_epochs: Finite = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""


class MultiStepConfig(Kind, frozen=True, kw_only=True, tag="multi_step"):
    """The peak rate, multiplied by ``factor`` after each of the named epochs."""

    epochs: tuple[Count, ...] = (4, 6)
    """Epochs after which the rate is cut, rising."""
    factor: OpenShare = 0.1
    """What the rate is multiplied by."""
    warmup_epochs: Finite = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""

    def _check(self) -> None:
        if not self.epochs or any(later <= earlier for earlier, later in pairwise(self.epochs)):
            raise ConfigError(
                f"--schedule.epochs is {' '.join(map(str, self.epochs)) or 'empty'}; name one epoch or more, each later"
                " than the one before."
            )


class ExponentialConfig(Kind, frozen=True, kw_only=True, tag="exponential"):
    """From the peak rate down by ``factor`` an epoch, a little at every step, after an optional warm-up."""

    factor: OpenShare = 0.7
    """What the rate is multiplied by over an epoch."""
    warmup_epochs: Finite = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""


class CyclicConfig(Kind, frozen=True, kw_only=True, tag="cyclic"):
    """Straight lines from ``low`` of the peak rate up to the peak and back, again and again."""

    low: OpenShare = 0.1
    """Lowest rate of a cycle as a share of the peak."""
    period_epochs: AboveZero = 4.0
    """Epochs of a cycle, up and down; fractions allowed."""
    warmup_epochs: Finite = 0.0
    """Epochs of linear ramp from zero, here to ``low``; fractions allowed."""


class PlateauConfig(Kind, frozen=True, kw_only=True, tag="plateau"):
    """The peak rate, multiplied by ``factor`` whenever a measure has not improved for more than some measurements."""

    monitor: Literal["val_loss", "val_acc", "train_acc"] = "val_loss"
    """The measure: loss or accuracy on validation, measured at each validation; or accuracy on train, each epoch."""
    factor: OpenShare = 0.1
    """What the rate is multiplied by."""
    patience: ZeroOrMore = 4
    """Measurements in a row without improvement that are borne; the one after them cuts the rate."""
    warmup_epochs: Finite = 0.0
    """Epochs of linear ramp from zero; fractions allowed."""


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
