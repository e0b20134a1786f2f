"""The arithmetic of diffusion, as plain functions of a network that predicts noise. B images, T steps of noise.

Times are counted from 0: at time t an image has had t + 1 steps of noise. Of its variance ``kept_T[t]`` is the image's
own, the rest is noise: x = √kept · image + √(1 - kept) · noise. Images lie between -1 and 1.

A network takes noisy images, (B, 3, H, W), times, (B,), and labels, (B,), and gives the noise, (B, 3, H, W); its
``no_class`` is the label that tells none. Nothing here draws from PyTorch's own generators.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from sightline.config.generators import Sampler
from sightline.errors import ConfigError

__all__ = [
    "FAINTEST",
    "Conditional",
    "add_noise",
    "conditioned",
    "extrapolated",
    "guided",
    "linear_noise",
    "loss",
    "noise_of",
    "sample",
    "strength_of",
    "times_of",
]

FAINTEST = 0.04
"""Strength of noise from which there is one step to a clean image: five of 255 levels. A network learns little of
fainter noise, which is at few of the times; asked about it, it leaves as much in the image as it should take out."""


class Conditional(Protocol):
    """A network that takes noisy images, how far their noise has come, and their classes."""

    @property
    def no_class(self) -> int: ...

    def __call__(self, images_BCHW: Tensor, times_B: Tensor, labels_B: Tensor, /) -> Tensor: ...


# ── noise, and learning to predict it ────────────────────────────────────────────────────────────────────────────────


def linear_noise(steps: int, first: float, last: float) -> Tensor:
    """Return how much of an image's variance is left after each step of noise whose variance rises in a straight line.

    Args:
        steps: steps of noise.
        first, last: variance that the first and the last step add.
    Returns:
        Falling shares, (T,), in float64.
    Source:
        Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, eq. 4.
    """
    return (1 - torch.linspace(first, last, steps, dtype=torch.float64)).cumprod(0)


def add_noise(images_BCHW: Tensor, noise_BCHW: Tensor, kept_B: Tensor) -> Tensor:
    """Add noise to images, so that ``kept_B`` of the variance is theirs, (B, 3, H, W)."""
    kept = kept_B[:, None, None, None].to(images_BCHW)
    return kept.sqrt() * images_BCHW + (1 - kept).sqrt() * noise_BCHW


def loss(
    net: Conditional,
    images_BCHW: Tensor,
    labels_B: Tensor,
    kept_T: Tensor,
    generator: torch.Generator,
    *,
    drop_labels: float = 0.0,
    first: int = 0,
    of: int | None = None,
) -> Tensor:
    """Compute the mean squared error of the predicted noise, each image at a random time; in float32.

    Args:
        net: the network.
        images_BCHW: from -1 to 1.
        labels_B: their classes.
        kept_T: the noise, of ``linear_noise``.
        generator: of the processor; draws the times, the noise, and which classes are not told, in this order.
        drop_labels: share of the images whose class is not told.
        first, of: where these images begin in a larger batch, and how many that has; numbers are drawn for all of it,
            so that processes that share a batch see what one would.
    Source:
        Ho et al., 2020, eq. 14; the classes not told: Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022.
    """
    device, all_of_them = images_BCHW.device, of or len(images_BCHW)
    own = slice(first, first + len(images_BCHW))
    times_B = torch.randint(len(kept_T), (all_of_them,), generator=generator)[own]
    noise_BCHW = torch.randn(all_of_them, *images_BCHW.shape[1:], generator=generator)[own].to(
        device, non_blocking=True
    )
    dropped_B = (torch.rand(all_of_them, generator=generator) < drop_labels)[own].to(device, non_blocking=True)
    kept_B = kept_T[times_B].float().to(device, non_blocking=True)
    noisy_BCHW = add_noise(images_BCHW.float(), noise_BCHW, kept_B).contiguous(memory_format=torch.channels_last)
    shown_labels_B = torch.where(dropped_B, net.no_class, labels_B)
    predicted_BCHW = net(noisy_BCHW, times_B.to(device, non_blocking=True), shown_labels_B)
    return functional.mse_loss(predicted_BCHW.float(), noise_BCHW)


# ── taking noise away ────────────────────────────────────────────────────────────────────────────────────────────────


def guided(net: Conditional, images_BCHW: Tensor, times_B: Tensor, labels_B: Tensor, guidance: float) -> Tensor:
    """Predict the noise, or the images, of a class, led away from those of any: (1 + w) conditional - w unconditional.

    Both halves are computed as one batch; without guidance there is no second half.

    Args:
        net, images_BCHW, times_B, labels_B: the network and what it takes.
        guidance: w; diffusers calls w + 1 its scale.
    Source:
        Ho and Salimans, 2022, eq. 6.
    """
    if guidance == 0:
        return net(images_BCHW, times_B, labels_B).float()
    twice = (torch.cat([images_BCHW, images_BCHW]), torch.cat([times_B, times_B]))
    labels = torch.cat([labels_B, torch.full_like(labels_B, net.no_class)])
    conditional, unconditional = net(*twice, labels).float().chunk(2)
    return (1 + guidance) * conditional - guidance * unconditional


def conditioned(
    net: Conditional,
    images_BCHW: Tensor,
    times_B: Tensor,
    labels_B: Tensor,
    strength: float,
    *,
    guidance: float,
    tell_above: float,
    guide_below: float,
) -> Tensor:
    """Predict with as much of class and guidance as a strength of noise allows.

    Args:
        net, images_BCHW, times_B, labels_B, guidance: see ``guided``.
        strength: of the noise of all images, as ``strength_of`` has it.
        tell_above: strength of noise below which the class is told no more, and nothing is guided: what is left there
            are traces too fine to be seen, and with a class in them a classifier would fall for them. 0: to the end.
        guide_below: strength of noise above which nothing is guided, since guidance there takes variety away.
    Source:
        Kynkäänniemi et al., "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in
        Diffusion Models", NeurIPS 2024; not telling the class in faint noise either is ours.
    """
    if strength <= tell_above:
        return guided(net, images_BCHW, times_B, torch.full_like(labels_B, net.no_class), 0)
    return guided(net, images_BCHW, times_B, labels_B, guidance if strength < guide_below else 0)


def noise_of(generators: Sequence[torch.Generator], size: tuple[int, int], device: torch.device) -> Tensor:
    """Draw noise for images of a (height, width) in pixels, for each by its own generator; (B, 3, H, W)."""
    noise = torch.stack([torch.randn(3, *size, generator=generator) for generator in generators])
    return noise.to(device).contiguous(memory_format=torch.channels_last)


def strength_of(kept: float) -> float:
    """Return the deviation of noise over that of the image, where ``kept`` of the variance is the image's."""
    return math.sqrt((1 - kept) / kept)


def times_of(kept_T: Tensor, steps: int) -> list[int]:
    """Return the times at which the network is asked, falling.

    They go from the last, of nearly pure noise, to the first that is not fainter than ``FAINTEST``, or to a fainter one
    where there are not steps enough in between.

    They are evenly apart in the logarithm of signal over noise, or as nearly as whole steps of noise allow: evenly
    apart in time, most of the way to a clean image would be one step, the last but one.

    Raises:
        ConfigError: the noise has fewer steps.
    Source:
        Lu et al., "DPM-Solver", NeurIPS 2022, section 3.
    """
    longest = len(kept_T)
    if not 1 <= steps <= longest:
        raise ConfigError(f"--steps is {steps}; it must be at least 1 and at most {longest}, the steps of the noise.")
    if steps == 1:
        return [longest - 1]
    ratios_T = 0.5 * torch.log(kept_T / (1 - kept_T))
    fainter = sum(strength_of(kept) < FAINTEST for kept in kept_T.tolist())
    first = min(fainter, longest - steps)
    targets = torch.linspace(float(ratios_T[first]), float(ratios_T[-1]), steps, dtype=torch.float64)
    nearest = (ratios_T[None] - targets[:, None]).abs().argmin(1).tolist()
    times = [first]
    for index in range(1, steps):
        times.append(min(max(times[-1] + 1, nearest[index]), longest - steps + index))  # each once
    return times[::-1]


@torch.no_grad()
def sample(
    net: Conditional,
    labels_B: Tensor,
    steps: int,
    kept_T: Tensor,
    *,
    seeds: Sequence[int],
    size: tuple[int, int],
    guidance: float = 0.0,
    sampler: Sampler = "dpm++",
    tell_above: float = 0.0,
    guide_below: float = math.inf,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Make images of classes out of noise.

    Every image has a generator of its own, so it does not depend on those that are made beside it. Eleven parameters
    because they are the knobs that papers on samplers compare.

    Args:
        net: the network, in evaluation mode, on the device of the labels.
        labels_B: classes of the images.
        steps: times that the network is asked; twice as many passes with guidance, in half as many batches.
        kept_T: the noise that the network has learned, of ``linear_noise``.
        seeds: of the images.
        size: (height, width) in pixels.
        guidance, tell_above, guide_below: see ``conditioned``.
        sampler: ``ddpm`` (ancestral: some noise is put back at every step), ``ddim`` or ``dpm++`` (2M), which draw
            none.
        watch: is told, before the first step and after each, how many are over, and the images as they are then.
    Returns:
        Images from -1 to 1, (B, 3, H, W), in float32.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    assert len(generators) == len(labels_B)
    how = {"guidance": guidance, "tell_above": tell_above, "guide_below": guide_below}
    drawn = partial(noise_of, generators, size, labels_B.device)
    images, before = drawn(), None
    if watch:
        watch(0, images)
    kept = kept_T.tolist()
    for index, (time, following) in enumerate(_pairs(times_of(kept_T, steps))):
        times_B = torch.full_like(labels_B, time)
        now, then = kept[time], 1.0 if following is None else kept[following]
        noise = conditioned(net, images, times_B, labels_B, strength_of(now), **how)
        clean = ((images - math.sqrt(1 - now) * noise) / math.sqrt(now)).clamp(-1, 1)
        if following is None:
            images = clean
        elif sampler == "ddpm":
            images = _ancestral(images, clean, now, then) + _ancestral_deviation(now, then) * drawn()
        elif sampler == "ddim":
            images = _ddim(images, clean, now, then)
        else:
            images = _dpm_solver(images, clean, now, then, before)
        before = clean, strength_of(now)
        if watch:
            watch(index + 1, images)
    return images


def _pairs(times: list[int]) -> Iterator[tuple[int, int | None]]:
    """Return each time with the one that follows; behind the last comes the clean image."""
    return zip(times, [*times[1:], None], strict=True)


def _ancestral(noisy: Tensor, clean: Tensor, now: float, then: float) -> Tensor:
    """Return the mean of an image some steps of noise before; Ho et al., 2020, eq. 7, over several steps at once."""
    ratio = now / then
    return (math.sqrt(then) * (1 - ratio) * clean + math.sqrt(ratio) * (1 - then) * noisy) / (1 - now)


def _ancestral_deviation(now: float, then: float) -> float:
    return math.sqrt((1 - then) / (1 - now) * (1 - now / then))


def _ddim(noisy: Tensor, clean: Tensor, now: float, then: float) -> Tensor:
    """Take a step as if the noise stayed the same; Song, Meng and Ermon, "DDIM", ICLR 2021, eq. 12 with σ = 0."""
    noise = (noisy - math.sqrt(now) * clean) / math.sqrt(1 - now)
    return math.sqrt(then) * clean + math.sqrt(1 - then) * noise


def _dpm_solver(noisy: Tensor, clean: Tensor, now: float, then: float, before: tuple[Tensor, float] | None) -> Tensor:
    """Take a step of second order; ``before`` as ``extrapolated`` has it. Source: see there."""
    weak, strong = strength_of(then), strength_of(now)
    clean = extrapolated(clean, strong, weak, before)
    reach = math.log(strong / weak)
    return math.sqrt((1 - then) / (1 - now)) * noisy - math.sqrt(then) * math.expm1(-reach) * clean


def extrapolated(clean: Tensor, now: float, then: float, before: tuple[Tensor, float] | None) -> Tensor:
    """Return the clean image as it will be thought to be in the middle of a step, by how it has changed so far.

    Args:
        clean: the image as it is thought to be now.
        now, then: strengths of noise before and after the step.
        before: the clean image as it was thought to be a step before, and the strength then; None: it is left as it is.
    Source:
        Lu et al., "DPM-Solver++", 2022, algorithm 2.
    """
    if before is None:
        return clean
    earlier, long_ago = before
    share = math.log(now / then) / (2 * math.log(long_ago / now))
    return (1 + share) * clean - share * earlier
