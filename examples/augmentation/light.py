"""An augmentation of your own: photographs under warmer and colder light, with one side in the shade.

A function takes a batch of images as floats from 0 to 1, (B, 3, H, W), on the device that trains, and returns as many.
Draw random numbers from PyTorch alone: its generators are seeded for each batch, so that a run can be repeated.
"""

import torch
from torch import Tensor

WARMTH = 0.2  # most that red and blue change, in opposite directions
SHADE = 0.5  # most that the dark side loses


def light(images: Tensor) -> Tensor:
    """Change the light on each image in a way of its own."""
    count, _, _, width = images.shape
    warmth, shade = torch.rand(2, count, device=images.device)
    warmth = WARMTH * (2 * warmth - 1)
    gains = torch.stack([1 + warmth, torch.ones_like(warmth), 1 - warmth], 1)[:, :, None, None]
    across = torch.linspace(0, 1, width, device=images.device)
    across = torch.where(torch.rand(count, 1, device=images.device) < 0.5, across, across.flip(0))
    shadow = 1 - SHADE * shade[:, None] * across
    return (images * gains * shadow[:, None, None, :]).clamp(0, 1)
