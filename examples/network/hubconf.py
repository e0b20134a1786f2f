"""A network of your own, where torch.hub looks for it: a function of ``hubconf.py`` that builds a module.

It may be anything that ends in one linear layer and has a map of the image before it. The number of classes does not
matter: the last layer is made anew for those of the image set.
"""

from torch import Tensor, nn

dependencies = ["torch"]


class Residual(nn.Module):
    """Two convolutions that a shortcut skips."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return nn.functional.relu(maps + self.layers(maps))


def little(classes: int = 10) -> nn.Module:
    """Build a residual network of two stages."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Residual(16),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        Residual(32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )
