"""Residual networks. B images, height H, width W, D features.

Source:
    ResNet-18 and -34, in torchvision's definition: He et al., "Deep Residual Learning for Image Recognition", CVPR
    2016. CustomResNet: D. Page, "How to Train Your ResNet", 2018, the winner of the DAWNBench competition, with plain
    layers.
"""

from typing import Any

from torch import Tensor, nn

from sightline.config.networks import CustomResNetConfig, ResNet18Config
from sightline.models.base import GlobalMaximum, Network

__all__ = ["SMALL_SIDE", "CustomResNet", "ResNet18", "ResNet34", "small_stem"]

SMALL_SIDE = 64  # pixels; up to here a 3×3 stem of stride 1 without pooling, above the original 7×7 stem


class ResNet18(Network):
    """torchvision's ResNet-18 with a stem for the size of the images."""

    blocks = (2, 2, 2, 2)
    layers = ResNet18Config.layers
    original_names = (("conv1.", "stem.0."), ("bn1.", "stem.1."), ("fc.", "head."))

    def __init__(self, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        from torchvision.models.resnet import BasicBlock, ResNet  # a slow import, and most never build one

        original = ResNet(BasicBlock, list(self.blocks))
        if max(size) <= SMALL_SIDE:
            self.stem = nn.Sequential(small_stem(), original.bn1, nn.ReLU())
            self.exchanged = ("stem.",)
        else:
            self.stem = nn.Sequential(original.conv1, original.bn1, nn.ReLU(), original.maxpool)
        self.layer1, self.layer2 = _blocks(original.layer1), _blocks(original.layer2)
        self.layer3, self.layer4 = _blocks(original.layer3), _blocks(original.layer4)
        self.head = nn.Linear(512, classes)

    def feature_map(self, images: Tensor) -> Tensor:
        maps: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(images)))))
        return maps

    @property
    def cam_layers(self) -> list[nn.Module]:
        return [self.get_submodule(layer) for layer in reversed(self.layers)]


class ResNet34(ResNet18):
    """torchvision's ResNet-34 with a stem for the size of the images."""

    blocks = (3, 4, 6, 3)


def small_stem() -> nn.Conv2d:
    """Return the first convolution of a ResNet for small images."""
    convolution = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


class _Block(nn.Module):
    """torchvision's basic block with two ReLUs in place of one that is called twice: attribution methods hook each."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = original.conv1, original.bn1, original.relu
        self.conv2, self.bn2, self.relu2 = original.conv2, original.bn2, nn.ReLU(inplace=True)
        self.downsample = original.downsample

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        inner += maps if self.downsample is None else self.downsample(maps)
        output: Tensor = self.relu2(inner)
        return output


def _blocks(layer: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(*map(_Block, layer))


class CustomResNet(Network):
    """Nine layers for small images: 6,573,120 parameters with 10 classes.

    Its last pooling takes the maximum of the whole map, which at 32 px is the original's maximum of 4×4.
    """

    layers = CustomResNetConfig.layers

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.prep = _layer(3, 64)
        self.layer1 = _layer(64, 128, pool=True)
        self.residual1 = _Residual(128)
        self.layer2 = _layer(128, 256, pool=True)
        self.layer3 = _layer(256, 512, pool=True)
        self.residual2 = _Residual(512)
        self.maximum = GlobalMaximum()
        self.head = nn.Linear(512, classes, bias=False)

    def feature_map(self, images: Tensor) -> Tensor:
        maps: Tensor = self.residual1(self.layer1(self.prep(images)))
        maps = self.residual2(self.layer3(self.layer2(maps)))
        return maps

    def features(self, images: Tensor) -> Tensor:
        features_BD: Tensor = self.maximum(self.feature_map(images))
        return features_BD

    @property
    def cam_layers(self) -> list[nn.Module]:
        followed = {"layer1": "residual1", "layer3": "residual2"}  # by one whose map is of the same size
        shown = [layer for layer in reversed(self.layers) if followed.get(layer) not in self.layers]
        return [self.get_submodule(layer) for layer in shown]


class _Residual(nn.Module):
    """Two layers whose output is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_layer(channels, channels), _layer(channels, channels))

    def forward(self, maps: Tensor) -> Tensor:
        added: Tensor = maps + self.layers(maps)
        return added


def _layer(inputs: int, outputs: int, *, pool: bool = False) -> nn.Sequential:
    """Build a 3×3 convolution, batch-norm and ReLU; with ``pool`` the sides are halved after the convolution."""
    steps: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
    if pool:
        steps.append(nn.MaxPool2d(2))
    return nn.Sequential(*steps, nn.BatchNorm2d(outputs), nn.ReLU())
