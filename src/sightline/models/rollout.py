"""Attention rollout: the places that an attention head looks at. B images, h × w positions of a map, N nodes, Q
queries, H heads.

Source:
    Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.models.base import Network
from sightline.models.heads import AttentionEncoder, HeadedNetwork

__all__ = ["attention", "has_attention", "rollout"]


def has_attention(network: Network) -> bool:
    """Return whether the network's head attends to something."""
    return isinstance(network, HeadedNetwork) and not isinstance(network.neck, nn.Identity)


def attention(network: Network, images_BCHW: Tensor) -> Tensor:
    """Show what an attention head looks at, whatever the class.

    Of encoder blocks the rollout: the mean over heads, half of it and half of the node itself, block after block; then
    the mean over the last nodes, all of which the last layer reads. Of a pool the mean over its queries and heads.

    Args:
        network: one with an attention head, in evaluation mode.
        images_BCHW: normalized.
    Returns:
        (B, H, W), from 0 up: the share of each node, enlarged to the images; what fills no patch counts as nothing.
    """
    assert isinstance(network, HeadedNetwork)
    neck = network.neck
    assert not isinstance(neck, nn.Identity)
    with torch.no_grad():
        maps_BDhw = network.backbone_output(images_BCHW)
        blocks = [weights_BHQN.float().mean(dim=1) for weights_BHQN in neck.weights(maps_BDhw)]
    sides, patch = maps_BDhw.shape[2:], 1
    if isinstance(neck, AttentionEncoder):
        patch = neck.embedding.convolution.kernel_size[0]
        shares_BN = rollout(blocks).mean(dim=1)
    else:
        shares_BN = blocks[0].mean(dim=1)
    grid = [side // patch for side in sides]
    # the part of the image that the patches cover
    covered = [
        round(pixels * n * patch / side) for pixels, n, side in zip(images_BCHW.shape[2:], grid, sides, strict=True)
    ]
    nodes_B1hw = shares_BN.view(-1, 1, *grid)
    enlarged = functional.interpolate(nodes_B1hw, covered, mode="bilinear", align_corners=False).squeeze(1)
    height, width = images_BCHW.shape[2:]
    return functional.pad(enlarged, (0, width - covered[1], 0, height - covered[0]))


def rollout(blocks_BNN: list[Tensor]) -> Tensor:
    """Return how much of each first node reaches each last one, (B, last N, first N); rows add up to 1.

    Args:
        blocks_BNN: the attention of each block, first block first; rows add up to 1.
    """
    itself = torch.eye(blocks_BNN[0].shape[-1], device=blocks_BNN[0].device)
    flow_BNN = itself.expand_as(blocks_BNN[0])
    for weights_BNN in blocks_BNN:
        flow_BNN = (weights_BNN + itself) / 2 @ flow_BNN
    return flow_BNN
