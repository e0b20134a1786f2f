"""Brightness, contrast and saturation of a batch, a factor for each image. B images, height H, width W.

Levels are pixels in float32 from 0 to 255, (B, H, W, 3). A factor of 1 changes nothing.
"""

import torch
from torch import Tensor

from sightline.machine.devices import exact_dtype

__all__ = ["brightness", "contrast", "saturation"]

GRAY = (0.2989, 0.587, 0.114)  # of red, green and blue: luma of ITU-R BT.601, as torchvision rounds it


def brightness(levels_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    """Multiply every level of an image by its factor."""
    return (levels_BHWC * factor_B[:, None, None, None]).clamp_(0, 255)


def contrast(levels_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    """Multiply the distance of every level from the image's mean gray."""
    # exact, so that the mean does not depend on how many images are made together
    gray_B = _gray(levels_BHWC.mean(dim=(1, 2), dtype=exact_dtype(levels_BHWC.device))).float()
    return _away_from(gray_B[:, None, None, None], levels_BHWC, factor_B)


def saturation(levels_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    """Multiply the distance of every level from the gray of its pixel; 0 makes the image gray."""
    return _away_from(_gray(levels_BHWC)[..., None], levels_BHWC, factor_B)


def _gray(colors: Tensor) -> Tensor:
    """Turn (..., 3) into (...)."""
    red, green, blue = colors.unbind(-1)
    return red * GRAY[0] + green * GRAY[1] + blue * GRAY[2]


def _away_from(gray: Tensor, levels_BHWC: Tensor, factor_B: Tensor) -> Tensor:
    return torch.lerp(gray.expand_as(levels_BHWC), levels_BHWC, factor_B[:, None, None, None]).clamp_(0, 255)
