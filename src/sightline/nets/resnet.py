"""Residual networks in torchvision's definition. B images, height H, width W, D features.

Source:
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from torch import Tensor, nn

from sightline.nets.base import Network

__all__ = ["ResNet18"]

SMALL_SIDE = 64  # pixels; up to here a 3×3 stem of stride 1 without pooling, above the original 7×7 stem


class ResNet18(Network):
    """torchvision's ResNet-18 with a stem for the size of the images."""

    def __init__(self, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        from torchvision.models.resnet import BasicBlock, ResNet  # a slow import, and most never build one

        original = ResNet(BasicBlock, [2, 2, 2, 2])
        if max(size) <= SMALL_SIDE:
            convolution = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            self.stem = nn.Sequential(convolution, original.bn1, nn.ReLU())
        else:
            self.stem = nn.Sequential(original.conv1, original.bn1, nn.ReLU(), original.maxpool)
        self.layer1, self.layer2 = original.layer1, original.layer2
        self.layer3, self.layer4 = original.layer3, original.layer4
        self.head = nn.Linear(512, classes)

    def feature_map(self, images: Tensor) -> Tensor:
        maps: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(images)))))
        return maps

    @property
    def cam_layers(self) -> list[nn.Module]:
        return [self.layer4, self.layer3, self.layer2, self.layer1]
