"""A repository as torch.hub wants it, as a test would find it cloned."""

from torch import nn

dependencies = ["torch"]


def tiny(classes: int = 7) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


def probabilities() -> nn.Module:
    return nn.Sequential(tiny(), nn.LogSoftmax(1))


def without_linear() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def no_network() -> int:
    return 3
