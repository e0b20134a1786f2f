"""Networks: tensors in, tensors out. B images, 3 channels, height H, width W, D features, K classes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sightline.config import (
    ArchitectureConfig,
    CustomResNetConfig,
    HubConfig,
    ResNet18Config,
    ResNet34Config,
    SpeednetConfig,
    TimmConfig,
    TorchvisionConfig,
)
from sightline.nets.base import Network
from sightline.nets.pretrained import LoadedWeights, build_foreign, load_weights, put_in
from sightline.nets.resnet import CustomResNet, ResNet18, ResNet34
from sightline.nets.speednet import Speednet

__all__ = [
    "CustomResNet",
    "LayerSummary",
    "LoadedWeights",
    "Network",
    "ResNet18",
    "ResNet34",
    "Speednet",
    "build_network",
    "flops_per_image",
    "load_weights",
    "put_in",
    "summarize",
    "training_flops",
]

LEARNING = 3  # forward passes that a training step takes as long as: itself, and a backward pass of about two


def build_network(config: ArchitectureConfig, classes: int, size: tuple[int, int]) -> Network:
    """Build a network from its settings, without the weights that they may name.

    Args:
        config: its settings; their type names the network.
        classes: classes to tell apart.
        size: (height, width) of the images in pixels.
    Raises:
        ConfigError: a network of another library cannot be had, or does not take such images.
    """
    match config:
        case SpeednetConfig():
            return Speednet(classes, size, widths=config.widths)
        case ResNet18Config():
            return ResNet18(classes, size)
        case ResNet34Config():
            return ResNet34(classes, size)
        case CustomResNetConfig():
            return CustomResNet(classes)
        case TimmConfig() | TorchvisionConfig() | HubConfig():
            return build_foreign(config, classes, size)


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


def summarize(network: Network, size: tuple[int, int]) -> tuple[list[LayerSummary], int]:
    """Describe a network layer by layer.

    Returns:
        A line for each direct child (of another library's network, for each of its children), and the numbers that all layers put out for one image (their memory while
        training, times four bytes, roughly).
    """
    outputs: dict[nn.Module, tuple[int, ...]] = {}
    numbers = 0

    def note(module: nn.Module, _: object, output: object) -> None:
        nonlocal numbers
        if not isinstance(output, Tensor):
            return
        outputs[module] = tuple(output.shape[1:])
        numbers += output.numel() if not list(module.children()) else 0

    hooks = [module.register_forward_hook(note) for module in network.modules() if module is not network]
    _forward_once(network, size)
    for hook in hooks:
        hook.remove()
    lines = []
    for name, child, own in _layers(network):
        count = sum(parameter.numel() for parameter in child.parameters(recurse=not own))
        lines.append(LayerSummary(name, type(child).__name__, outputs.get(child, ()), count, count * 4 / 1e6))
    return lines, numbers


def _layers(network: Network) -> Iterator[tuple[str, nn.Module, bool]]:
    """(name, layer, whether only what it holds itself counts) of what a summary lists."""
    for name, child in network.named_children():
        if name != "body":
            yield name, child, False
            continue
        if any(True for _ in child.parameters(recurse=False)):
            yield name, child, True
        for inner, layer in child.named_children():
            if not isinstance(layer, nn.Identity):
                yield f"{name}.{inner}", layer, False


def flops_per_image(network: Network, size: tuple[int, int]) -> int:
    """Floating-point operations of one forward pass of one image; a training step takes about three times as many."""
    return sum(_flops_by_part(network, size))


def training_flops(
    network: Network, sizes: Sequence[tuple[int, int]], images: int, *, backbone_passes: int = LEARNING
) -> int:
    """Floating-point operations of the convolutions and matrix products of a training.

    Those of the optimizer, of augmentation, and of validation and test are not counted.

    Args:
        network: what was trained.
        sizes: (height, width) in pixels of the images in each epoch.
        images: images an epoch.
        backbone_passes: what all below the head took for an image, in forward passes: 3 where it learnt, 1 where it was
            frozen and only run forwards, 0 where its features were kept.
    """
    total = 0
    for size, epochs in Counter(sizes).items():
        backbone, head = _flops_by_part(network, size)
        total += epochs * images * (backbone_passes * backbone + LEARNING * head)
    return total


def _flops_by_part(network: Network, size: tuple[int, int]) -> tuple[int, int]:
    """Floating-point operations of a forward pass of one image: (all below the head, the head)."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        _forward_once(network, size)
    head = sum(counter.get_flop_counts().get(f"{type(network).__name__}.head", {}).values())
    return int(counter.get_total_flops()) - int(head), int(head)


def _forward_once(network: Network, size: tuple[int, int]) -> None:
    training = network.training
    parameter = next(network.parameters())
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype))
    network.train(training)
