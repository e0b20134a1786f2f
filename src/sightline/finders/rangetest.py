"""The range test: a learning rate that rises from step to step, and where the loss falls fastest. Plain PyTorch, no Lightning.

What the steps change is put back, bit by bit, so that the training that follows is the one that would have been.
"""

import copy
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sightline.devices import generators_kept
from sightline.optimizers import peaks, scale_peaks

__all__ = ["RangeTest", "range_test", "restored", "smooth", "steepest"]

DIVERGED = 4.0  # times the best smoothed loss: where the test is stopped
SMOOTHED_OVER = 1 / 20  # of the steps: how far a loss reaches in the smoothed one, to each side

Array = np.ndarray[Any, Any]
Examples = TypeVar("Examples")
SomeNetwork = TypeVar("SomeNetwork", bound=nn.Module)


@dataclass(frozen=True)
class RangeTest:
    """What the loss did while the rate rose."""

    rates: list[float]
    """Of the steps that were taken, rising."""
    losses: list[float]
    """Of each step, before it, none below zero; the last may not be finite."""
    smoothed: list[float]
    """The same without the noise of single batches, and at most four times the first; as many as are finite."""
    diverged_at: float | None
    """Rate at which the test was stopped, because the loss had grown or was not finite; None where it went to the end."""
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
    total = weight = 0.0  # of a running average, which looks back only: the last of the smoothed losses so far
    best, diverged_at = math.inf, None
    given = peaks(optimizer)
    with restored(network, optimizer):
        network.train()
        for rate, examples in zip(rates, batches, strict=False):  # batches may go on
            scale_peaks(optimizer, given, rate / peak)
            losses.append(step(network, optimizer, examples).item())
            if progress:
                progress(len(losses), len(rates))
            total, weight = (math.exp(-1 / reach) * before + new for before, new in ((total, losses[-1]), (weight, 1)))
            latest = total / weight if math.isfinite(losses[-1]) else math.inf
            if len(losses) > reach:  # fewer are no average
                best = min(best, latest)
            if latest > DIVERGED * best or latest == math.inf:
                diverged_at = rate
                break
    most = DIVERGED * losses[0]  # one huge loss would blur the others
    finite = [min(loss, most) for loss in losses if math.isfinite(loss)]
    smoothed = smooth(finite, reach).tolist()
    return RangeTest(list(rates[: len(losses)]), losses, smoothed, diverged_at, steepest(rates, finite, smoothed))


def smooth(losses: Sequence[float], reach: float) -> Array:
    """Average each loss with its neighbours on both sides, by weights that fall by 1/e every ``reach`` steps.

    The weights are divided by their sum, so that neither end is drawn towards zero. A running average would look back
    only and lag behind the losses by its reach, and the rate where it falls fastest would be too large by as much.
    """
    steps = np.arange(len(losses))
    weights = np.exp(-np.abs(steps[:, None] - steps) / reach)
    averages: Array = weights @ np.asarray(losses, float) / weights.sum(1)
    return averages


def steepest(rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """The rate where the smoothed loss falls fastest over the logarithm of the rate, left of its minimum.

    Returns:
        The rate; None where the loss falls by less, from the first step to the minimum, than single losses lie from the
        smoothed ones (standard deviation): what falls then may be noise.
    """
    lowest = int(np.argmin(smoothed)) if len(smoothed) else 0
    if lowest < 2:
        return None
    head = slice(0, lowest + 1)
    noise = float(np.std(np.subtract(losses[head], smoothed[head])))
    if smoothed[0] - smoothed[lowest] <= noise:
        return None
    slopes = np.gradient(np.asarray(smoothed)[head], np.log(rates[head]))
    return float(rates[int(np.argmin(slopes))])


@contextmanager
def restored(network: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put back bit by bit what training steps change: weights, buffers, modes, the optimizer, the global generators.

    Gradients are dropped.
    """
    tensors = [*network.parameters(), *network.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    modes = [(module, module.training) for module in network.modules()]
    state = copy.deepcopy(optimizer.state_dict())
    python, numpys = random.getstate(), np.random.get_state()
    with generators_kept(tensors[0].device):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, old in zip(tensors, before, strict=True):
                    tensor.copy_(old)
            for module, mode in modes:
                module.training = mode
            optimizer.load_state_dict(state)
            optimizer.zero_grad()
            random.setstate(python)
            np.random.set_state(numpys)
