"""Class-conditional U-Nets that tell noise from image. B images, channels D, height H, width W, embedding E, K classes.

Ours rather than diffusers' ``UNet2DModel``: it can work on patches of pixels, and its layers can be counted and
compiled like those of every other network here.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.config.generators import DiffusionConfig, EDMConfig, UNetConfig
from sightline.models.diffusion import linear_noise

__all__ = ["ConditionalUNet", "EDMUNet", "UNet", "time_features"]

GROUPS = 8  # of each norm; widths are multiples of it
HEAD_WIDTH = 64  # channels of a head of self-attention
LEAST_NOISE = 0.05**2  # variance that patches of little noise are scaled by at most, on the straight way
LONGEST = 10_000  # steps: the longest wave of an embedded time
STRENGTHS = 1000  # steps that an embedded strength of noise goes through from the least to the most


class ConditionalUNet(nn.Module):
    """The layers of every U-Net here: from a noisy image, the time and the class to a correction.

    Noise has more numbers than an image has features, and it passes norms badly; so there is also a straight way past
    the layers (``Straight``). Without training the correction is zero.

    Levels halve the side from one to the next. What a level makes on the way down is joined to what comes back up.
    Every residual block is told time and class, by a scale and a shift of its second norm.

    Source:
        Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, appendix B; the scale and shift,
        and the last filters that start at zero, from Dhariwal and Nichol, "Diffusion Models Beat GANs", NeurIPS 2021.
    """

    def __init__(self, config: UNetConfig, classes: int) -> None:
        """
        Args:
            config: widths, blocks, attention, patch and dropout.
            classes: classes to tell apart; one more stands for "no class".
        """
        super().__init__()
        self.no_class = classes
        self.patch = config.patch
        widths, pixels = config.widths, 3 * config.patch**2
        embedding = 4 * widths[0]
        self.stem = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.time = nn.Sequential(nn.Linear(widths[0], embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(classes + 1, embedding)
        self.down = nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for level, outputs in enumerate(widths):
            if level:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
            for _ in range(config.blocks):
                self.down.append(Block(width, outputs, embedding, config.dropout, level + 1 in config.attention))
                skips.append(outputs)
                width = outputs
        self.middle = nn.ModuleList(
            [Block(width, width, embedding, config.dropout, True), Block(width, width, embedding, config.dropout)]
        )
        self.up = nn.ModuleList()
        for level, outputs in reversed(list(enumerate(widths))):
            for _ in range(config.blocks + 1):
                self.up.append(Block(width + skips.pop(), outputs, embedding, config.dropout))
                width = outputs
            if level:
                self.up.append(Enlarge(width, widths[level - 1]))
                width = widths[level - 1]
        self.norm = nn.GroupNorm(GROUPS, width)
        self.out = zeroed(nn.Conv2d(width, pixels, 3, padding=1))
        self.straight = Straight(pixels, embedding)

    def example(self, size: tuple[int, int], count: int = 1) -> tuple[Tensor, ...]:
        """Return what the network takes: images of nothing but zeros, of a (height, width) in pixels; how far their
        noise has come; labels.
        """
        return torch.zeros(count, 3, *size), torch.ones(count, dtype=torch.long), torch.zeros(count, dtype=torch.long)

    def correction(self, images_BCHW: Tensor, times_B: Tensor, noise_B: Tensor, labels_B: Tensor) -> Tensor:
        """Compute the correction.

        Args:
            images_BCHW: noisy images, (B, 3, H, W).
            times_B: how far the noise has come, in steps.
            noise_B: share of the noise in the variance of each image.
            labels_B: their classes; ``no_class`` where none is told.
        Returns:
            (B, 3, H, W).
        """
        waves_BD = time_features(times_B, self.time[0].in_features)  # type: ignore[arg-type]
        condition_BE = functional.silu(self.time(waves_BD.to(images_BCHW.dtype)) + self.label(labels_B))
        patches = functional.pixel_unshuffle(images_BCHW, self.patch)
        maps = self.stem(patches)
        skips = [maps]
        for layer in self.down:
            maps = layer(maps, condition_BE) if isinstance(layer, Block) else layer(maps)
            skips.append(maps)
        for layer in self.middle:
            maps = layer(maps, condition_BE)
        for layer in self.up:
            maps = layer(torch.cat([maps, skips.pop()], 1), condition_BE) if isinstance(layer, Block) else layer(maps)
        correction = self.out(functional.silu(self.norm(maps)))
        scale = (noise_B + LEAST_NOISE).rsqrt()[:, None, None, None]
        correction = correction + self.straight(patches * scale, condition_BE)
        return functional.pixel_shuffle(correction, self.patch)


class UNet(ConditionalUNet):
    """Predicts the noise in an image from the image, the time, and the class.

    What the layers give is a correction: without one, of all that there is in an image its share of noise is taken for
    noise.

    Source:
        The correction is the velocity of Salimans and Ho, "Progressive Distillation", ICLR 2022, appendix D.
    """

    kept_T: Tensor

    def __init__(self, config: DiffusionConfig, classes: int) -> None:
        """See ``ConditionalUNet``; the noise is also told by the settings."""
        super().__init__(config, classes)
        kept_T = linear_noise(config.noise_steps, config.first_noise, config.last_noise)
        self.register_buffer("kept_T", kept_T.float(), persistent=False)

    def forward(self, images_BCHW: Tensor, times_B: Tensor, labels_B: Tensor) -> Tensor:
        """Predict the noise in images, in float32.

        Args:
            images_BCHW: noisy images, (B, 3, H, W).
            times_B: steps of noise they have had, less one.
            labels_B: their classes; ``no_class`` where none is told.
        Returns:
            (B, 3, H, W).
        """
        kept_B = self.kept_T[times_B]
        correction_BCHW = self.correction(images_BCHW, times_B, 1 - kept_B, labels_B)
        kept = kept_B[:, None, None, None]
        return (1 - kept).sqrt() * images_BCHW + kept.sqrt() * correction_BCHW


class EDMUNet(ConditionalUNet):
    """Predicts the image in a noisy one from the noisy one, the strength of its noise, and the class.

    Without a correction it is the noisy image scaled down, by as much as its strength alone says. What the layers take
    has a variance of 1 at every strength, and so has the correction that is wanted of them.

    Source:
        Karras, Aittala, Aila and Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS
        2022, eq. 7 and table 1. Other than theirs the strength is told as a step between the least and the most.
    """

    def __init__(self, config: EDMConfig, classes: int) -> None:
        """See ``ConditionalUNet``; the deviation of images, least and most noise are also told by the settings."""
        super().__init__(config, classes)
        self.image_deviation = config.image_deviation
        self._least, self._most = math.log(config.least_noise), math.log(config.most_noise)

    def forward(self, images_BCHW: Tensor, strengths_B: Tensor, labels_B: Tensor) -> Tensor:
        """Predict images, in float32.

        Args:
            images_BCHW: noisy images, (B, 3, H, W).
            strengths_B: deviations of their noise.
            labels_B: their classes; ``no_class`` where none is told.
        Returns:
            (B, 3, H, W).
        """
        steps_B = STRENGTHS * (strengths_B.log() - self._least) / (self._most - self._least)
        variance_B = strengths_B.square() + self.image_deviation**2
        noise_B = strengths_B.square() / variance_B
        scale = variance_B.rsqrt()[:, None, None, None]
        correction_BCHW = self.correction(scale * images_BCHW, steps_B, noise_B, labels_B)
        own = (1 - noise_B)[:, None, None, None]  # the image's share of the variance
        return own * images_BCHW + self.image_deviation * noise_B.sqrt()[:, None, None, None] * correction_BCHW


class Straight(nn.Module):
    """A linear way from the numbers of a patch to its noise: mixed, scaled each by time and class, and mixed back.

    The norms of the layers beside it take the size out of what they are given, and most of a noisy image is noise, of a
    size.
    """

    def __init__(self, pixels: int, embedding: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(pixels, pixels, 1, bias=False)
        self.told = nn.Linear(embedding, pixels)
        self.mix_back = nn.Conv2d(pixels, pixels, 1, bias=False)
        nn.init.dirac_(self.mix.weight)
        nn.init.dirac_(self.mix_back.weight)
        nn.init.zeros_(self.told.weight)  # nothing at first
        nn.init.zeros_(self.told.bias)

    def forward(self, patches_BPHW: Tensor, condition_BE: Tensor) -> Tensor:
        output: Tensor = self.mix_back(self.mix(patches_BPHW) * self.told(condition_BE)[..., None, None])
        return output


class Block(nn.Module):
    """Two 3×3 convolutions around a detour, told time and class; and, optionally, self-attention over positions."""

    def __init__(self, width: int, outputs: int, embedding: int, dropout: float, attention: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, width)
        self.filters1 = nn.Conv2d(width, outputs, 3, padding=1)
        self.told = nn.Linear(embedding, 2 * outputs)
        self.norm2 = nn.GroupNorm(GROUPS, outputs)
        self.dropout = nn.Dropout(dropout)
        self.filters2 = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.detour = nn.Identity() if width == outputs else nn.Conv2d(width, outputs, 1)
        self.attention = Attention(outputs) if attention else nn.Identity()

    def forward(self, maps_BDHW: Tensor, condition_BE: Tensor) -> Tensor:
        inner = self.filters1(functional.silu(self.norm1(maps_BDHW)))
        scale_BD, shift_BD = self.told(condition_BE).chunk(2, 1)
        inner = self.norm2(inner) * (1 + scale_BD[..., None, None]) + shift_BD[..., None, None]
        inner = self.filters2(self.dropout(functional.silu(inner)))
        output: Tensor = self.attention(self.detour(maps_BDHW) + inner)
        return output


class Attention(nn.Module):
    """Self-attention over the N = H · W positions of a map, added to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = next(heads for heads in range(max(1, width // HEAD_WIDTH), 0, -1) if width % heads == 0)
        self.norm = nn.GroupNorm(GROUPS, width)
        self.queries_keys_values = nn.Conv2d(width, 3 * width, 1)
        self.out = zeroed(nn.Conv2d(width, width, 1))

    def forward(self, maps_BDHW: Tensor) -> Tensor:
        joint_BDHW = self.queries_keys_values(self.norm(maps_BDHW))
        count, positions = len(maps_BDHW), maps_BDHW[0, 0].numel()
        split_B3hDN = joint_BDHW.reshape(count, 3, self.heads, -1, positions)
        queries, keys, values = split_B3hDN.mT.unbind(1)  # each (B, heads, N, D)
        mixed_BhND = functional.scaled_dot_product_attention(queries, keys, values)
        output: Tensor = maps_BDHW + self.out(mixed_BhND.mT.reshape(maps_BDHW.shape))
        return output


class Enlarge(nn.Module):
    """Twice the side: filters on the small map, at a quarter of the operations; then each pixel four times."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.filters = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, maps_BDHW: Tensor) -> Tensor:
        return functional.interpolate(self.filters(maps_BDHW), scale_factor=2.0, mode="nearest")


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Return a layer that gives nothing at first, so that a block begins as its detour."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def time_features(times_B: Tensor, width: int) -> Tensor:
    """Return the cosines and sines of times at wavelengths from 2π to ``LONGEST`` · 2π steps, (B, width), in float32.

    Source:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.5.
    """
    half = width // 2
    rates = torch.exp(-math.log(LONGEST) * torch.arange(half, device=times_B.device) / half)
    angles_BH = times_B.float()[:, None] * rates
    return torch.cat([angles_BH.cos(), angles_BH.sin()], 1)
