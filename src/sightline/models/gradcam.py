"""Grad-CAM: which places of an image spoke for a class. B images, D channels, h × w positions of a map, H × W pixels.

Source:
    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.errors import ConfigError
from sightline.models.base import Network, recorded

__all__ = ["default_layer", "grad_cam", "map_sizes"]

LEAST_SIDE = 7  # positions along a side; a coarser map shows hardly more than that there is something


def grad_cam(network: Network, images_BCHW: Tensor, classes_B: Tensor, layer: nn.Module) -> Tensor:
    """Show how much each place of a layer's map raises the logit of a class, enlarged to the images.

    A channel weighs as much as the logit's mean gradient over its map; what speaks against the class counts as nothing.

    Args:
        network: in evaluation mode; its parameters and their gradients are left as they are.
        images_BCHW: normalized.
        classes_B: the class of each image that is asked about, as its index.
        layer: one whose output is a map, (B, D, h, w); ``default_layer`` names one.
    Returns:
        (B, H, W), float32, from 0 up, in units of the logit; of no scale that could be compared between images.
    Raises:
        ConfigError: the layer is not run, gives no map, or the logits do not depend on it.
    """
    with recorded({"layer": layer}, lambda _, output: output) as outputs, torch.enable_grad():
        logits = network(images_BCHW.detach().requires_grad_())  # so that a map has a gradient where all is frozen
    maps_BDhw = outputs[-1][1] if outputs else None
    if not isinstance(maps_BDhw, Tensor) or maps_BDhw.ndim != 4:
        raise ConfigError("the layer gives no map of the image; choose another layer.")
    (gradients_BDhw,) = torch.autograd.grad(
        logits.gather(1, classes_B.unsqueeze(1)).sum(), maps_BDhw, allow_unused=True
    )
    if gradients_BDhw is None:
        raise ConfigError("the classes do not depend on the layer's map; choose another layer.")
    weights_BD11 = gradients_BDhw.float().mean(dim=(2, 3), keepdim=True)
    cam_B1hw = functional.relu((weights_BD11 * maps_BDhw.detach().float()).sum(dim=1, keepdim=True))
    enlarged = functional.interpolate(cam_B1hw, images_BCHW.shape[2:], mode="bilinear", align_corners=False)
    return enlarged.squeeze(1)


def default_layer(network: Network, images_BCHW: Tensor) -> nn.Module:
    """Return the deepest of ``cam_layers`` whose map has at least 7 × 7 positions, or the finest.

    Args:
        network: in evaluation mode.
        images_BCHW: normalized; one is enough.
    """
    sides = {layer: min(size) for layer, size in map_sizes(network, images_BCHW).items()}
    layers = network.cam_layers
    fine = [layer for layer in layers if sides.get(layer, 0) >= LEAST_SIDE]
    return fine[0] if fine else max(layers, key=lambda layer: sides.get(layer, 0))


def map_sizes(network: Network, images_BCHW: Tensor) -> dict[nn.Module, tuple[int, int]]:
    """Return (h, w) of the map of each of ``cam_layers`` that is run.

    Args:
        network: in evaluation mode.
        images_BCHW: normalized; one is enough.
    """
    layers = {layer: layer for layer in network.cam_layers}
    with recorded(layers, lambda _, output: (output.shape[2], output.shape[3])) as sizes, torch.no_grad():
        network(images_BCHW[:1])
    return dict(sizes)
