"""Requirements of the methods of explanation on a network and on images, and the sentence where one is missing.

B images, C channels, H × W pixels.
"""

import torch
from torch import Tensor, nn

from sightline.config.checks import nearest
from sightline.config.explaining import AttributionConfig, Method
from sightline.errors import ConfigError
from sightline.models.base import Network
from sightline.models.deeplift import refuse_without_rules
from sightline.models.gradcam import default_layer, grad_cam
from sightline.models.rollout import has_attention

__all__ = ["layer_named", "refuse_unfit", "window_of"]


def refuse_unfit(method: Method, network: Network, images_BCHW: Tensor, settings: AttributionConfig) -> None:
    """Refuse a method that a network lacks something for.

    Args:
        method: by its name.
        network: in evaluation mode.
        images_BCHW: normalized; one is enough.
        settings: numbers of the methods.
    Raises:
        ConfigError: with what it lacks.
    """
    if method == "deeplift":
        refuse_without_rules(network, images_BCHW[:1])
    elif method == "attention" and not has_attention(network):
        raise ConfigError(
            "attention shows how a head attends, and this network's head has no attention; choose another method, such"
            " as grad_cam."
        )
    elif method == "occlusion":
        window, side = window_of(settings, images_BCHW)[0], min(images_BCHW.shape[2:])
        if window > side:
            raise ConfigError(f"--window {window} is larger than the images ({side} px); choose a smaller one.")
    elif method == "grad_cam" and settings.layer is not None:
        grad_cam(
            *(network, images_BCHW[:1], torch.zeros(1, dtype=torch.long, device=images_BCHW.device)),
            layer_named(network, settings.layer, images_BCHW),
        )


def layer_named(network: Network, name: str | None, images_BCHW: Tensor) -> nn.Module:
    """Look up a layer of a network by its name, or the one that Grad-CAM shows by default.

    Raises:
        ConfigError: there is no such layer; the nearest is named.
    """
    if name is None:
        return default_layer(network, images_BCHW)
    modules: dict[str, nn.Module] = {where: module for where, module in network.named_modules() if where}
    if name not in modules:
        shown = [where for where, module in modules.items() if module in network.cam_layers]
        raise ConfigError(f"--layer {name}: there is no such layer; {nearest(name, modules, shown)}")
    return modules[name]


def window_of(settings: AttributionConfig, images_BCHW: Tensor) -> tuple[int, int]:
    """Choose (window, stride) of occlusion, in pixels: by default an eighth of the shorter side, and half of that."""
    window = settings.window or max(1, min(images_BCHW.shape[2:]) // 8)
    return window, settings.stride or max(1, window // 2)
