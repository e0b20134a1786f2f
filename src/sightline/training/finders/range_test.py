"""The range test: a learning rate that rises from step to step, and where the loss falls fastest. No Lightning.

What the steps change is put back, bit by bit, so that the training that follows is the one that would have been.

The smoothed loss looks back, as in other range tests, and so lags behind by a tenth of the steps, about half a
decade. Here that is wanted: a rate acts in the test for few steps, and the best rate of a training lies above the
steepest descent. How far back it looks was chosen by five trials (a small speednet on digits with sgd, adam and muon,
and on a tenth of CIFAR-10 (JPEG) with sgd and adam; 5 to 8 epochs, grids by factors of 3, n = 1). Computed anew from
the losses of those same trials, what it suggests is 0.15, 0.81, 0.26, 0.42 and 1.13 times the best rate: that is a fit,
not a test of it. In `make bench-finders` it is 0.1 (fast), 1 (resnet18) and 0.01 times (custom-resnet-onecycle) the
best rate; short trainings find the rest.
"""

import copy
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sightline.machine.devices import generators_kept
from sightline.training.optimizers import peaks, scale_peaks
from sightline.training.phases import modes_kept

__all__ = ["RangeTest", "range_test", "restored", "smooth", "steepest"]

DIVERGED = 4.0  # times the best smoothed loss: where the test is stopped
SMOOTHED_OVER = 1 / 20  # of the steps: how far back the smoothed loss looks, twice

Examples = TypeVar("Examples")
SomeNetwork = TypeVar("SomeNetwork", bound=nn.Module)


@dataclass(frozen=True)
class RangeTest:
    """The losses while the rate rose."""

    rates: list[float]
    """Of the steps that were taken, rising."""
    losses: list[float]
    """Of each step, before it, none below zero; the last may not be finite."""
    smoothed: list[float]
    """The same without the noise of single batches; as many as are finite."""
    diverged_at: float | None
    """Rate at which the test was stopped, as the loss had grown or was not finite; None where it went to the end."""
    suggestion: float | None
    """Rate where the smoothed loss falls fastest; None where it never falls by more than noise."""


def range_test(
    network: SomeNetwork,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Examples],
    rates: Sequence[float],
    step: Callable[[SomeNetwork, torch.optim.Optimizer, Examples], Tensor],
    *,
    peak: float,
    progress: Callable[[int, int], None] | None = None,
) -> RangeTest:
    """Take a step at each rate, and put network, optimizer and generators back.

    Args:
        network, optimizer: what is trained; every group of the optimizer is scaled by one common factor.
        batches: what the steps see, one each; at least as many as there are rates.
        rates: of the steps, rising.
        step: takes one optimizer step and returns the loss before it, a scalar.
        peak: the rate that the groups' own rates belong to: at this one of ``rates`` the factor is 1.
        progress: called with (steps taken, steps in all).
    Source:
        L. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3.
    """
    losses: list[float] = []
    reach = SMOOTHED_OVER * len(rates)
    best, diverged_at = math.inf, None
    peaks_before = peaks(optimizer)
    with restored(network, optimizer):
        network.train()
        for rate, examples in zip(rates, batches, strict=False):  # batches may go on
            scale_peaks(optimizer, peaks_before, rate / peak)
            losses.append(step(network, optimizer, examples).item())
            if progress:
                progress(len(losses), len(rates))
            latest = smooth(losses, reach)[-1] if math.isfinite(losses[-1]) else math.inf
            if len(losses) > reach:  # fewer are no average
                best = min(best, latest)
            if latest > DIVERGED * best or latest == math.inf:
                diverged_at = rate
                break
    finite = [loss for loss in losses if math.isfinite(loss)]
    smoothed = smooth(smooth(finite, reach), reach)  # twice: the slope of the first is set by single losses
    suggestion = steepest(rates, finite, smoothed, first=math.ceil(reach))
    return RangeTest(list(rates[: len(losses)]), losses, smoothed, diverged_at, suggestion)


def smooth(losses: Sequence[float], reach: float) -> list[float]:
    """Average each loss with those before it, by weights that fall by 1/e every ``reach`` steps and are one in sum.

    An average that looks back lags behind by its reach.
    """
    decay, total, weight, averages = math.exp(-1 / reach), 0.0, 0.0, []
    for loss in losses:
        total, weight = decay * total + loss, decay * weight + 1
        averages.append(total / weight)  # by the weights so far, so that the first are not drawn to zero
    return averages


def steepest(rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], first: int) -> float | None:
    """Return the rate where the smoothed loss falls fastest over the logarithm of the rate, left of its minimum.

    Args:
        first: index of the first smoothed loss that is an average of enough.
    Returns:
        The rate; None where the loss falls by less, down to the minimum, than losses differ that follow each other (as
        their standard deviation): what falls then may be noise.
    """
    lowest = first + int(np.argmin(smoothed[first:])) if len(smoothed) > first else 0
    if lowest < first + 2:
        return None
    noise = float(np.std(np.diff(losses[: lowest + 1]))) / math.sqrt(2)
    if smoothed[first] - smoothed[lowest] <= noise:
        return None
    part = slice(first, lowest + 1)
    slopes = np.gradient(np.asarray(smoothed[part]), np.log(rates[part]))
    return float(rates[first + int(np.argmin(slopes))])


@contextmanager
def restored(network: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put back bit by bit what training steps change: weights, buffers, modes, the optimizer, the global generators.

    Gradients are dropped.
    """
    tensors = [*network.parameters(), *network.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    state = copy.deepcopy(optimizer.state_dict())
    python, numpys = random.getstate(), np.random.get_state()
    with generators_kept(tensors[0].device), modes_kept(network):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, old in zip(tensors, before, strict=True):
                    tensor.copy_(old)
            optimizer.load_state_dict(state)
            optimizer.zero_grad()
            random.setstate(python)
            np.random.set_state(numpys)
