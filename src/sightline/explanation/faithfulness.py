"""Faithfulness of maps to what the network reads: squares of the image taken away, or given, in the map's order.

B images, C channels, H × W pixels, h × w squares, S steps.

Squares rather than single pixels: scattered pixels that are missing are a noise that no image has, and a random order
then brings a network down as fast as any map does.

Source:
    Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018; by regions: Samek
    et al., "Evaluating the Visualization of What a Deep Neural Network Has Learned", IEEE TNNLS 2017.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["STEPS", "Faithfulness", "area", "blurred", "curve", "measure_faithfulness", "random_maps", "ranks"]

STEPS = 20  # of a curve, from no square to all
SQUARES = 8  # along the shorter side
BLUR = 1 / 8  # of the shorter side: deviation of the blur that insertion begins from
SEED = 43


@dataclass(frozen=True)
class Faithfulness:
    """Areas under the two curves of each image, from 0 to 1: means of the class's probability on the way."""

    deletion_B: Tensor
    """Squares become the mean color, the most important first; lower is better."""
    insertion_B: Tensor
    """Squares of a blurred copy become those of the image, the most important first; higher is better."""


def measure_faithfulness(
    predict: Callable[[Tensor], Tensor], images_BCHW: Tensor, classes_B: Tensor, maps_BHW: Tensor, steps: int = STEPS
) -> Faithfulness:
    """Measure how fast the probability of a class falls and rises in the order of maps.

    Args:
        predict: normalized images, (B, C, H, W), to probabilities, (B, K).
        images_BCHW: normalized, so that zero is the mean color; as many as are computed side by side.
        classes_B: indices of classes.
        maps_BHW: the higher, the more important.
        steps: between no square and all.
    """
    ranks_BHW = ranks(maps_BHW)
    nothing_BCHW = torch.zeros_like(images_BCHW)
    deletion_BS = curve(predict, images_BCHW, nothing_BCHW, classes_B, ranks_BHW, steps)
    insertion_BS = curve(predict, blurred(images_BCHW), images_BCHW, classes_B, ranks_BHW, steps)
    return Faithfulness(area(deletion_BS), area(insertion_BS))


def curve(
    predict: Callable[[Tensor], Tensor],
    begin_BCHW: Tensor,
    end_BCHW: Tensor,
    classes_B: Tensor,
    ranks_BHW: Tensor,
    steps: int = STEPS,
) -> Tensor:
    """Trace the probability of a class while one image becomes another, bit by bit.

    Args:
        predict: images, (B, C, H, W), to probabilities, (B, K).
        begin_BCHW, end_BCHW: the images.
        classes_B: indices of classes.
        ranks_BHW: when a pixel changes: the share of the way that lies before it, from 0 up to less than 1.
        steps: between the one and the other.
    Returns:
        (B, S + 1), float32.
    """
    steps_BS = []
    with torch.no_grad():
        for step in range(steps + 1):
            changed_B1HW = (ranks_BHW < step / steps).unsqueeze(1)
            chances_BK = predict(torch.where(changed_B1HW, end_BCHW, begin_BCHW))
            steps_BS.append(chances_BK.float().gather(1, classes_B.unsqueeze(1)).squeeze(1))
    return torch.stack(steps_BS, dim=1)


def area(curves_BS: Tensor) -> Tensor:
    """Compute the area under curves over the share of pixels, by trapezoids, (B,)."""
    return ((curves_BS[:, :-1] + curves_BS[:, 1:]) / 2).mean(dim=1)


def ranks(maps_BHW: Tensor) -> Tensor:
    """Rank pixels, (B, H, W), by the share of squares before their own, those of the highest mean first.

    Squares that are equal lie in a random order.
    """
    height, width = maps_BHW.shape[1:]
    side = max(1, round(min(height, width) / SQUARES))
    means_Bhw = functional.avg_pool2d(maps_BHW.float().unsqueeze(1), side, ceil_mode=True).squeeze(1)
    chance_N = random_maps(means_Bhw.unsqueeze(1))[0].flatten().argsort()
    order_BN = chance_N[means_Bhw.flatten(1)[:, chance_N].argsort(dim=1, descending=True, stable=True)]
    shares_N = torch.arange(order_BN.shape[1], device=order_BN.device) / order_BN.shape[1]
    ranks_Bhw = (
        torch.empty_like(means_Bhw).flatten(1).scatter_(1, order_BN, shares_N.expand_as(order_BN)).view_as(means_Bhw)
    )
    return ranks_Bhw.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :height, :width]


def random_maps(images_BCHW: Tensor) -> Tensor:
    """Draw maps that know nothing, (B, H, W), to compare others with; the same for every image."""
    generator = torch.Generator().manual_seed(SEED)
    map_HW = torch.rand(images_BCHW.shape[2:], generator=generator).to(images_BCHW.device)
    return map_HW.expand(len(images_BCHW), -1, -1)


def blurred(images_BCHW: Tensor) -> Tensor:
    """Blur images until only coarse patches of color are left, by a Gaussian of an eighth of the shorter side."""
    height, width = images_BCHW.shape[2:]
    deviation = BLUR * min(height, width)
    radius = min(round(3 * deviation), min(height, width) - 1)  # as far as reflection reaches
    places = torch.arange(-radius, radius + 1, device=images_BCHW.device, dtype=images_BCHW.dtype)
    weights = torch.exp(-(places**2) / (2 * deviation**2))
    weights = weights / weights.sum()
    planes = images_BCHW.reshape(-1, 1, height, width)
    planes = functional.conv2d(
        functional.pad(planes, (0, 0, radius, radius), mode="reflect"), weights.view(1, 1, -1, 1)
    )
    planes = functional.conv2d(
        functional.pad(planes, (radius, radius, 0, 0), mode="reflect"), weights.view(1, 1, 1, -1)
    )
    return planes.view_as(images_BCHW)
