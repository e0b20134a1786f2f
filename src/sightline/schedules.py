"""Learning-rate schedules as pure functions of the step, and the number of steps of a training.

A schedule gives the share of the peak rate for each optimizer step, counted from 0.
"""

import math
from collections.abc import Callable

from sightline.config import CosineConfig, LinearConfig, OneCycleConfig, ScheduleConfig

__all__ = ["falling", "schedule"]


def schedule(config: ScheduleConfig, steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Make the function from a step to the share of the peak rate.

    Args:
        config: which curve.
        steps: optimizer steps of the whole training.
        steps_per_epoch: optimizer steps of an epoch; fractions of epochs are counted in them.
    """
    match config:
        case OneCycleConfig():
            peak = config.peak_epoch * steps_per_epoch
            return lambda step: (
                _cosine(config.start, 1.0, step / peak)
                if step < peak
                else _cosine(1.0, config.final, (step - peak) / ((steps - 1 - peak) or 1.0))
            )
        case CosineConfig() | LinearConfig():
            warmup = config.warmup_epochs * steps_per_epoch
            curve = _cosine if isinstance(config, CosineConfig) else _line
            return lambda step: (
                (step + 1) / (warmup + 1)
                if step < warmup
                else curve(1.0, config.final, (step - warmup) / (steps - warmup))
            )


def falling(epochs: float, steps_per_epoch: int) -> Callable[[int], float]:
    """A straight line from one to zero over some epochs, zero from there on; for what learns only at first."""
    steps = math.ceil(epochs * steps_per_epoch)
    return lambda step: max(0.0, 1 - step / steps) if steps else 0.0


def _line(start: float, end: float, share: float) -> float:
    return start + (end - start) * min(1.0, share)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2
