"""Several views of an image, whose logits are averaged. V views, B images, height H, width W, K classes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from sightline_runtime.views import VIEWS, Views, combine, decide, shown, unsure

__all__ = ["VIEWS", "Views", "combine", "decide", "logits_of_views", "shown", "unsure"]


def logits_of_views(network: Callable[[Tensor], Tensor], images: Tensor, views: Views, first: int = 0) -> Tensor:
    """Ask a network about several views of the images, in one batch.

    The views, in order: the image, its mirror image, and both shifted by a pixel up-left and then down-right, with the
    border reflected; ``flip`` takes the first two, ``one`` the first.

    Args:
        images: normalized, (B, 3, H, W).
        first: the view to begin with; those before it are left out.
    Returns:
        Logits, (V, B, K), in float32.
    """
    if VIEWS[views] == 1:
        return network(images).float().unsqueeze(0)
    seen = [images]
    if VIEWS[views] > len(seen) * 2:
        height, width = images.shape[2:]
        padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
        seen += [padded[:, :, 2:, 2:], padded[:, :, :height, :width]]
    batch = torch.cat([view for image in seen for view in (image, image.flip(3))][first:])
    logits = network(batch.contiguous(memory_format=torch.channels_last)).float()
    return logits.view(VIEWS[views] - first, len(images), -1)
