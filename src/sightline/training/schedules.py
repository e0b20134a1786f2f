"""Learning-rate schedules as pure functions of the step, and the number of steps of a training.

A schedule gives the share of the peak rate for each optimizer step, counted from 0. What depends on measurements, the
plateau, is a factor by itself.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from sightline.config.fitting import EMAConfig, FitConfig, SWAConfig
from sightline.config.schedules import (
    ConstantConfig,
    CosineConfig,
    CyclicConfig,
    ExponentialConfig,
    LinearConfig,
    MultiStepConfig,
    OneCycleConfig,
    PlateauConfig,
    ScheduleConfig,
    StepConfig,
)

__all__ = ["Best", "Plateau", "Steps", "falling", "schedule"]


class Steps:
    """The optimizer steps of some epochs, counted from 0; a step sees several batches where gradients accumulate."""

    def __init__(self, fit: FitConfig, batches: int, first: int = 0, end: int | None = None) -> None:
        """
        Args:
            fit: its epochs, and how many batches make a step in each.
            batches: batches of an epoch.
            first: the first of the epochs that are counted; a phase of a training counts by itself.
            end: the epoch after the last of them; None: after the last of all.
        """
        self._fit, self._batches, self._first = fit, batches, first
        self.starts = [0]
        """The first step of each epoch, and the number of all steps last."""
        for epoch in range(first, fit.epochs if end is None else end):
            self.starts.append(self.starts[-1] - (-batches // fit.batches_a_step(epoch)))

    def part(self, first: int, end: int) -> "Steps":
        """Return the steps of some of the epochs of a training, by themselves."""
        return Steps(self._fit, self._batches, first, end)

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.starts[-1]

    def of(self, epoch: int, batch: int) -> int:
        """Return the step that a batch of an epoch is part of."""
        return self.starts[epoch] + batch // self._fit.batches_a_step(self._first + epoch)

    def batches_beside(self, epoch: int, batch: int) -> int:
        """Count the batches of the step that a batch is part of; the last step of an epoch may have fewer."""
        each = self._fit.batches_a_step(self._first + epoch)
        return min(each, self._batches - batch // each * each)

    def at(self, epochs: float) -> float:
        """Count the steps that have been taken after so many epochs; fractions allowed."""
        epoch = min(int(epochs), len(self.starts) - 2)
        length = self.starts[epoch + 1] - self.starts[epoch]
        return self.starts[epoch] + (epochs * length - epoch * length)

    def epochs(self, step: float) -> float:
        """Count the epochs that are over when a step begins; the inverse of ``at``."""
        epoch = min(bisect_right(self.starts, step), len(self.starts) - 1) - 1
        return epoch + (step - self.starts[epoch]) / (self.starts[epoch + 1] - self.starts[epoch])


def schedule(
    config: ScheduleConfig,
    steps: Steps,
    averaging: SWAConfig | EMAConfig | None = None,
    phases: Sequence[int] = (0,),
) -> Callable[[int], float]:
    """Make the function from a step to the share of the peak rate.

    Args:
        config: which curve.
        steps: the steps of the training.
        averaging: of weights; SWA leads the rate to its own for the last epochs.
        phases: the epochs that phases begin with, rising from 0; each goes through the curve anew.
    """
    curve = _with_warmup(config, steps) if len(phases) == 1 else _anew(config, steps, phases)
    if not isinstance(averaging, SWAConfig):
        return curve
    first = averaging.start * len(steps.starts[1:])
    start, end = steps.at(first), steps.at(first + averaging.anneal_epochs)
    return lambda step: (
        curve(step)
        if step < start
        else _cosine(curve(start), averaging.rate, (step - start) / (end - start) if end > start else 1.0)
    )


def _anew(config: ScheduleConfig, steps: Steps, phases: Sequence[int]) -> Callable[[float], float]:
    """Return the curve of a kind over the steps of each phase by itself."""
    starts = [steps.starts[first] for first in phases]
    ends = [*phases[1:], len(steps.starts) - 1]
    curves = [_with_warmup(config, steps.part(first, end)) for first, end in zip(phases, ends, strict=True)]

    def curve(step: float) -> float:
        phase = bisect_right(starts, step) - 1
        return curves[phase](step - starts[phase])

    return curve


def falling(epochs: float, steps: Steps) -> Callable[[int], float]:
    """Return a straight line from one to zero over some epochs, zero from there on; for what learns only at first."""
    count = math.ceil(steps.at(epochs))
    return lambda step: max(0.0, 1 - step / count) if count else 0.0


class Best:
    """The best value of a measure so far, and for how many measurements it has not been passed."""

    def __init__(self, monitor: str, min_delta: float = 0.0) -> None:
        """
        Args:
            monitor: name of the measure; of a ``_loss`` less is better, of anything else more.
            min_delta: smallest gain that counts.
        """
        self.monitor = monitor
        self.min_delta = min_delta
        self.value: float | None = None
        self.since = 0

    def see(self, value: float) -> bool:
        """Look at a measurement; whether it is better. What is not finite never is."""
        sign = -1 if self.monitor.endswith("_loss") else 1
        better = math.isfinite(value) and (self.value is None or sign * (value - self.value) > self.min_delta)
        self.value, self.since = (value, 0) if better else (self.value, self.since + 1)
        return better

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "since": self.since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.since = state["value"], state["since"]


class Plateau:
    """The factor of the rate so far, by the measurements since the training began."""

    def __init__(self, config: PlateauConfig) -> None:
        self.config = config
        self.factor = 1.0
        self._best = Best(config.monitor)

    def see(self, value: float) -> None:
        """Look at a measurement; the one after more than ``patience`` without improvement cuts the rate."""
        if not self._best.see(value) and self._best.since > self.config.patience:
            self.factor *= self.config.factor
            self._best.since = 0

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "best": self._best.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor = state["factor"]
        self._best.load_state_dict(state["best"])


def _warmup_epochs(config: ScheduleConfig) -> float:
    return 0.0 if isinstance(config, OneCycleConfig) else config.warmup_epochs  # one_cycle rises by itself


def _with_warmup(config: ScheduleConfig, steps: Steps) -> Callable[[float], float]:
    """Return the curve of a kind, behind a straight line from nearly zero to where it starts."""
    curve, warmup = _curve(config, steps), steps.at(_warmup_epochs(config))
    return lambda step: (step + 1) / (warmup + 1) * curve(warmup) if step < warmup else curve(step)


def _curve(config: ScheduleConfig, steps: Steps) -> Callable[[float], float]:
    """Return what comes after the warm-up."""
    warmup = _warmup_epochs(config)
    match config:
        case OneCycleConfig():
            peak, last = steps.at(config.peak_epoch), steps.total - 1
            return lambda step: (
                _cosine(config.start, 1.0, step / peak)
                if step < peak
                else _cosine(1.0, config.final, (step - peak) / ((last - peak) or 1.0))
            )
        case CosineConfig() | LinearConfig():
            curve, start = _cosine if isinstance(config, CosineConfig) else _line, steps.at(warmup)
            return lambda step: curve(1.0, config.final, (step - start) / (steps.total - start))
        case StepConfig():
            return lambda step: config.factor ** (steps.epochs(step) // config.every_epochs)
        case MultiStepConfig():
            return lambda step: config.factor ** bisect_right(config.epochs, steps.epochs(step))
        case ExponentialConfig():
            return lambda step: config.factor ** max(0.0, steps.epochs(step) - warmup)
        case CyclicConfig():
            return lambda step: _triangle(config.low, (steps.epochs(step) - warmup) / config.period_epochs)
        case ConstantConfig() | PlateauConfig():
            return lambda step: 1.0


def _triangle(low: float, cycles: float) -> float:
    return low + (1 - low) * (1 - abs(2 * (cycles % 1) - 1))


def _line(start: float, end: float, share: float) -> float:
    return start + (end - start) * min(1.0, share)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2
