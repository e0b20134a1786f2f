"""Networks: tensors in, tensors out. B images, 3 channels, height H, width W, D features, K classes."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from sightline.config.generators import DiffusionConfig, EDMConfig, GeneratorConfig
from sightline.config.heads import HeadConfig
from sightline.config.networks import (
    ArchitectureConfig,
    CustomResNetConfig,
    HubConfig,
    ResNet18Config,
    ResNet34Config,
    SpeednetConfig,
    TimmConfig,
    TorchvisionConfig,
)
from sightline.models.acgan import ACGAN
from sightline.models.base import Network, recorded
from sightline.models.flops import Countable, forward_once
from sightline.models.heads import HeadedNetwork
from sightline.models.libraries import build_foreign
from sightline.models.resnet import CustomResNet, ResNet18, ResNet34
from sightline.models.speednet import Speednet
from sightline.models.unet import EDMUNet, UNet

__all__ = ["build_generator", "build_network", "summarize"]


def build_network(
    config: ArchitectureConfig,
    classes: int,
    size: tuple[int, int],
    head: HeadConfig | None = None,
    head_size: tuple[int, int] | None = None,
) -> Network:
    """Build a network from its settings, without the weights that they may name.

    Args:
        config: its settings; their type names the network.
        classes: classes to tell apart.
        size: (height, width) of the images in pixels.
        head: settings of a head of its own; None keeps the network's last layer.
        head_size: (height, width) of the images that the head is made for, where they are others (of a network that was
            built for the images of an earlier run).
    Raises:
        ConfigError: a network of another library cannot be had, or does not take such images, or its map does not fit
            the head.
    """
    network = _plain_network(config, classes, size)
    return network if head is None else HeadedNetwork(network, head, classes, head_size or size)


def _plain_network(config: ArchitectureConfig, classes: int, size: tuple[int, int]) -> Network:
    match config:
        case SpeednetConfig():
            return Speednet(classes, size, widths=config.widths, depth=config.depth)
        case ResNet18Config():
            return ResNet18(classes, size)
        case ResNet34Config():
            return ResNet34(classes, size)
        case CustomResNetConfig():
            return CustomResNet(classes)
        case TimmConfig() | TorchvisionConfig() | HubConfig():
            return build_foreign(config, classes, size)


def build_generator(config: GeneratorConfig, classes: int, size: tuple[int, int]) -> UNet | EDMUNet | ACGAN:
    """Build what learns to make images of classes from its settings.

    Args:
        config: its settings.
        classes: how many there are.
        size: (height, width) of the images in pixels.
    """
    match config:
        case DiffusionConfig():
            return UNet(config, classes)
        case EDMConfig():
            return EDMUNet(config, classes)
        case _:
            return ACGAN(config, classes, size)


OPENED = ("backbone", "body", "neck", "down", "middle", "up")  # parts of which a summary lists the children


@dataclass(frozen=True)
class LayerSummary:
    """One line of a network's summary."""

    name: str
    kind: str
    output: tuple[int, ...]
    """Shape of the output for one image."""
    parameters: int
    megabytes: float
    """Of the parameters, in float32."""


def summarize(network: Countable, size: tuple[int, int]) -> list[LayerSummary]:
    """Describe a network layer by layer.

    Returns:
        A line for each direct child; of another library's network, a backbone and a neck, for each of its children.
    """
    modules = {module: module for module in network.modules() if module is not network}
    with recorded(modules, lambda _, output: output.shape[1:] if isinstance(output, Tensor) else None) as shapes:
        forward_once(network, size)
    outputs = {module: tuple(shape) for module, shape in shapes if shape is not None}
    lines = []
    for name, child, own in _layers(network):
        count = sum(parameter.numel() for parameter in child.parameters(recurse=not own))
        lines.append(LayerSummary(name, type(child).__name__, outputs.get(child, ()), count, count * 4 / 1e6))
    return lines


def _layers(network: nn.Module, where: str = "") -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield (name, layer, whether only what it holds itself counts) of what a summary lists."""
    for name, child in network.named_children():
        if name in OPENED:
            if any(True for _ in child.parameters(recurse=False)):
                yield f"{where}{name}", child, True
            yield from _layers(child, f"{where}{name}.")
        elif not where or not isinstance(child, nn.Identity):
            yield f"{where}{name}", child, False
