"""The arithmetic of EDM, as plain functions of a network that predicts clean images. B images.

The strength σ of noise is its deviation: x = image + σ · noise. Images lie between -1 and 1.

A network takes noisy images, (B, 3, H, W), strengths, (B,), and labels, (B,), and gives images, (B, 3, H, W); its
``no_class`` is the label that tells none. Nothing here draws from PyTorch's own generators.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from sightline.config.generators import EDMConfig, Sampler
from sightline.models.diffusion import Conditional, conditioned, extrapolated, noise_of

__all__ = ["Denoiser", "loss", "sample", "strengths_of"]

CURVATURE = 7  # ρ: the more, the more of the strengths at which the network is asked are faint


class Denoiser(Conditional, Protocol):
    """A network that predicts clean images."""

    @property
    def image_deviation(self) -> float: ...


def loss(
    net: Denoiser,
    images_BCHW: Tensor,
    labels_B: Tensor,
    noise: EDMConfig,
    generator: torch.Generator,
    *,
    drop_labels: float = 0.0,
    first: int = 0,
    of: int | None = None,
) -> Tensor:
    """Compute the squared error of the predicted images, each with noise of a random strength; in float32.

    It is weighted by the strength: a network that only scales the noisy image down, as far as its strength alone says,
    has 1 at each, of images whose root mean square is its ``image_deviation``.

    Args:
        net: the network.
        images_BCHW: from -1 to 1.
        labels_B: their classes.
        noise: the distribution of the strengths.
        generator: of the processor; draws the strengths, the noise, and which classes are not told, in this order.
        drop_labels, first, of: as in ``diffusion.loss``.
    Source:
        Karras, Aittala, Aila and Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS
        2022, eq. 2 and table 1.
    """
    device, all_of_them = images_BCHW.device, of or len(images_BCHW)
    own = slice(first, first + len(images_BCHW))
    normal_B = torch.randn(all_of_them, generator=generator)[own]
    noise_BCHW = torch.randn(all_of_them, *images_BCHW.shape[1:], generator=generator)[own]
    dropped_B = (torch.rand(all_of_them, generator=generator) < drop_labels)[own].to(device, non_blocking=True)
    strengths_B = (math.log(noise.typical_noise) + noise.noise_spread * normal_B).exp().to(device, non_blocking=True)
    strengths, images = strengths_B[:, None, None, None], images_BCHW.float()
    noisy_BCHW = images + strengths * noise_BCHW.to(device, non_blocking=True)
    shown_labels_B = torch.where(dropped_B, net.no_class, labels_B)
    predicted_BCHW = net(noisy_BCHW.contiguous(memory_format=torch.channels_last), strengths_B, shown_labels_B)
    weight = strengths.square().reciprocal() + net.image_deviation**-2  # λ, (σ² + σd²) / (σ · σd)²
    return (weight * (predicted_BCHW.float() - images).square()).mean()


def strengths_of(points: int, least: float, most: float) -> list[float]:
    """Return the strengths of noise at which a network is asked, falling from the most to the least.

    Source:
        Karras et al., 2022, eq. 5.
    """
    if points == 1:
        return [most]
    high, low = most ** (1 / CURVATURE), least ** (1 / CURVATURE)
    return [(high + index / (points - 1) * (low - high)) ** CURVATURE for index in range(points)]


@torch.no_grad()
def sample(
    net: Conditional,
    labels_B: Tensor,
    steps: int,
    noise: EDMConfig,
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

    Every image has a generator of its own, so it does not depend on those that are made beside it. What the network
    predicts is cut to the range of images: guidance leads out of it, where the network has never been. Eleven
    parameters because they are the knobs that papers on samplers compare.

    Args:
        net: the network, in evaluation mode, on the device of the labels.
        labels_B: classes of the images.
        steps: times that the network is asked; twice as many passes with guidance, in half as many batches.
        noise: the least and the most noise.
        seeds: of the images.
        size: (height, width) in pixels.
        guidance, tell_above, guide_below: see ``diffusion.conditioned``.
        sampler: ``ddim`` (Euler's method here) and ``dpm++`` (2M) ask once for each step; ``heun`` twice, but for the
            last, and of an even number of times also the first, where noise is so strong that the way is straight. Few
            times are too few for its steps: on normal images, whose way is known, 20 of ``dpm++`` leave a quarter of
            the error of 20 of ``heun``.
        watch: is told, before the first step and after each, how often the network has been asked, and the images as
            they are then, divided by √(1 + σ²): noise of variance 1 at first.
    Returns:
        Images from -1 to 1, (B, 3, H, W), in float32.
    Source:
        Karras et al., 2022, algorithm 1 (without the noise that algorithm 2 adds); for ``dpm++`` Lu et al.,
        "DPM-Solver++", 2022, algorithm 2.
    """
    assert len(seeds) == len(labels_B)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    how = {"guidance": guidance, "tell_above": tell_above, "guide_below": guide_below}
    asked, before = 0, None

    def predicted(images: Tensor, strength: float) -> Tensor:
        nonlocal asked
        asked += 1
        strengths_B = torch.full(labels_B.shape, strength, device=labels_B.device)
        return conditioned(net, images, strengths_B, labels_B, strength, **how).clamp(-1, 1)

    images = noise.most_noise * noise_of(generators, size, labels_B.device)
    _show(watch, 0, images, noise.most_noise)
    points = strengths_of(steps // 2 + 1 if sampler == "heun" else steps, noise.least_noise, noise.most_noise)
    for now, then in pairwise([*points, 0.0]):
        clean = predicted(images, now)
        ahead = extrapolated(clean, now, then, before) if sampler == "dpm++" and then > 0 else clean
        following = _step(images, ahead, now, then)
        if sampler == "heun" and then > 0 and (steps % 2 == 1 or asked > 1):
            following = _corrected(images, clean, following, predicted(following, then), now, then)
        images, before = following, (clean, now)
        _show(watch, asked, images, then)
    return images


def _step(noisy: Tensor, clean: Tensor, now: float, then: float) -> Tensor:
    """Take a step straight towards a clean image: what is left of the noise stays the same."""
    return clean + then / now * (noisy - clean)


def _corrected(noisy: Tensor, clean: Tensor, further: Tensor, clean_then: Tensor, now: float, then: float) -> Tensor:
    """Take the step again, by the mean of the slopes at its beginning and at its end."""
    return noisy + (then - now) / 2 * ((noisy - clean) / now + (further - clean_then) / then)


def _show(watch: Callable[[int, Tensor], None] | None, asked: int, images: Tensor, strength: float) -> None:
    if watch:
        watch(asked, images / math.sqrt(1 + strength**2))
