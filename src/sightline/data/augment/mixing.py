"""Mixing each image of a batch, and its label, with another one of it. B images, height H, width W."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sightline.config.augmentation import CutmixConfig, MixupConfig

__all__ = ["Mixing", "cut", "draw_mixing", "mix"]


@dataclass(frozen=True)
class Mixing:
    """The partners of a batch, and the share of each."""

    partner_B: Tensor
    """Position in the batch of the image that is mixed in; a permutation, so some may meet themselves."""
    share_B: Tensor
    """How much of the image's own label remains, from 0 to 1."""
    box_B4: Tensor | None
    """Rows (first, beyond the last) and columns (the same) that show the partner; None: images are blended."""


def draw_mixing(
    config: MixupConfig | CutmixConfig, count: int, size: tuple[int, int], generator: torch.Generator
) -> Mixing:
    """Draw the partners and shares of a batch.

    Args:
        config: what to draw for.
        count: images of the batch, over all processes.
        size: (height, width) of the images.
        generator: where the numbers come from; on the CPU.
    Source:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al., "CutMix: Regularization
        Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019, eq. 2.
    """
    partner_B = torch.randperm(count, generator=generator)
    seed = int(torch.randint(2**62, (), generator=generator))  # PyTorch draws from Beta by its global generator only
    share_B = torch.from_numpy(np.random.default_rng(seed).beta(config.alpha, config.alpha, count))
    if isinstance(config, MixupConfig):
        return Mixing(partner_B, share_B.float(), None)
    row_B, column_B = (torch.randint(extent, (count,), generator=generator) for extent in size)
    return Mixing(partner_B, *cut(share_B, row_B, column_B, size))


def cut(share_B: Tensor, row_B: Tensor, column_B: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the boxes that leave a share of each image, cut off at its border.

    Args:
        share_B: to leave, in float64.
        row_B, column_B: the middle of each box.
    Returns:
        What is left in truth, in float32, (B,), and the boxes, (B, 4).
    """
    edges = []
    for middle_B, extent in ((row_B, size[0]), (column_B, size[1])):
        half_B = (0.5 * (1 - share_B).sqrt() * extent).long()
        edges += [(middle_B - half_B).clamp(min=0), (middle_B + half_B).clamp(max=extent)]
    top_B, bottom_B, left_B, right_B = edges
    area_B = (bottom_B - top_B) * (right_B - left_B)
    return 1 - area_B / (size[0] * size[1]), torch.stack(edges, 1)


def mix(images_BCHW: Tensor, partners_BCHW: Tensor, share_B: Tensor, box_B4: Tensor | None) -> Tensor:
    """Blend each image with its partner by its share, or show the partner in its box."""
    if box_B4 is None:
        own = share_B[:, None, None, None]
        return (images_BCHW * own + partners_BCHW * (1 - own)).to(images_BCHW.dtype)
    height, width = images_BCHW.shape[2:]
    top_B1, bottom_B1, left_B1, right_B1 = (edge_B[:, None] for edge_B in box_B4.unbind(1))
    rows, columns = (torch.arange(extent, device=images_BCHW.device) for extent in (height, width))
    in_rows_BH = (rows >= top_B1) & (rows < bottom_B1)
    in_columns_BW = (columns >= left_B1) & (columns < right_B1)
    box_BHW = in_rows_BH[:, :, None] & in_columns_BW[:, None, :]
    return torch.where(box_BHW[:, None], partners_BCHW, images_BCHW)
