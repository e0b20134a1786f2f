"""A small convolutional network that trains in minutes. B images, C channels, height H, width W, D features, K classes.

Source:
    After K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (arXiv 2404.00498), which builds on
    D. Page's and T. Balsam's networks: a frozen whitening layer, three groups of two convolutions, a small head; its
    most accurate one has three convolutions a group and a shortcut.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.config.networks import SpeednetConfig
from sightline.models.base import GlobalMaximum, Network

__all__ = ["Speednet", "whitening_filters"]

LARGE_SIDE = 64  # pixels; above, the first layer looks at 4×4 patches in steps of 2
WHITENING_EPSILON = 5e-4  # keeps the faintest patch directions from being blown up into noise

ABSENT = 1e-6  # of the strongest direction's power; weaker ones (color, in gray images) are rounding noise


class Speednet(Network):
    """Whitening layer, three groups that halve the sides, global maximum, linear head without bias."""

    layers = SpeednetConfig.layers

    def __init__(
        self, classes: int, size: tuple[int, int], widths: tuple[int, int, int] = (64, 256, 256), depth: int = 2
    ) -> None:
        """
        Args:
            classes: classes to tell apart, K.
            size: (height, width) of the images in pixels; at least 16.
            widths: channels of the three groups; the last is D.
            depth: convolutions of each group, 2 or 3.
        """
        super().__init__()
        patch, stride = (2, 1) if max(size) <= LARGE_SIDE else (4, 2)
        whitened = 2 * 3 * patch**2  # every direction of a patch, and its opposite
        self.whiten = nn.Conv2d(3, whitened, patch, stride)
        self.whiten.weight.requires_grad = False  # computed from the image set by fit_to
        self.activation = nn.GELU()
        self.groups = nn.Sequential(
            *(_Group(inputs, outputs, depth) for inputs, outputs in zip((whitened, *widths[:2]), widths, strict=True))
        )
        self.maximum = GlobalMaximum()
        self.head = nn.Linear(widths[2], classes, bias=False)
        nn.init.normal_(self.head.weight, std=1 / widths[2])  # small: the features are maxima and far from zero
        self._whitening_learns = True

    def feature_map(self, images: Tensor) -> Tensor:
        if self._whitening_learns:
            whitened = self.whiten(images)
        else:  # saves the backward pass into the first layer
            assert self.whiten.bias is not None
            bias = self.whiten.bias.detach()
            whitened = functional.conv2d(images, self.whiten.weight, bias, self.whiten.stride)
        maps: Tensor = self.groups(self.activation(whitened))
        return maps

    def features(self, images: Tensor) -> Tensor:
        features_BD: Tensor = self.maximum(self.feature_map(images))
        return features_BD

    @property
    def cam_layers(self) -> list[nn.Module]:
        return [self.get_submodule(layer) for layer in reversed(self.layers)]

    def fit_to(self, images: Tensor) -> None:
        """Compute the whitening filters from the patches of some training images."""
        patch = self.whiten.kernel_size[0]
        filters = whitening_filters(images, patch)
        with torch.no_grad():
            self.whiten.weight.copy_(filters)
            assert self.whiten.bias is not None
            self.whiten.bias.zero_()

    def train_whitening(self, learning: bool) -> None:
        self._whitening_learns = learning


class _Group(nn.Module):
    """Two or three 3×3 convolutions with batch-norm and GELU; the sides are halved after the first.

    With three, a shortcut skips the second and third: what they give is added to what they get.
    """

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = _norm(outputs)
        self.activation1 = nn.GELU()
        self.conv2 = _convolution(outputs, outputs)
        self.norm2 = _norm(outputs)
        self.activation2 = nn.GELU()  # a module of its own: attribution methods hook each
        self.deep = depth == 3
        if self.deep:
            self.conv3 = _convolution(outputs, outputs)
            self.norm3 = _norm(outputs)
            self.activation3 = nn.GELU()

    def forward(self, maps: Tensor) -> Tensor:
        halved: Tensor = self.activation1(self.norm1(self.pool(self.conv1(maps))))
        maps = self.activation2(self.norm2(self.conv2(halved)))
        if self.deep:
            maps = self.activation3(self.norm3(self.conv3(maps)) + halved)
        return maps


def whitening_filters(images: Tensor, patch: int) -> Tensor:
    """Compute filters whose answers to patches are uncorrelated and of equal power, and their opposites.

    Directions in which the patches never vary (color, in gray images) have no filter; the strongest others come twice
    instead. A filter without an answer would make batch-norm divide by zero, and gradients explode.

    Args:
        images: (B, C, H, W).
        patch: side of a patch in pixels.
    Returns:
        (2 · C · patch², C, patch, patch).
    """
    channels = images.shape[1]
    patches_CN = functional.unfold(images.double(), patch).transpose(0, 1).flatten(1)  # N = B · positions
    covariance = patches_CN @ patches_CN.T / patches_CN.shape[1]
    values, vectors = torch.linalg.eigh(covariance)
    present = torch.nonzero(values >= ABSENT * values.max()).flatten().flip(0)  # strongest first
    chosen = present[torch.arange(len(values)) % len(present)]
    filters = (vectors / (values + WHITENING_EPSILON).sqrt()).T[chosen].reshape(-1, channels, patch, patch)
    return torch.cat([filters, -filters]).to(images.dtype)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Build a 3×3 convolution that starts by passing its inputs on, as far as there are outputs for them."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def _norm(channels: int) -> nn.BatchNorm2d:
    """Batch-norm with a short memory (the training is short) and no scale of its own."""
    norm = nn.BatchNorm2d(channels, eps=1e-5, momentum=0.4)
    norm.weight.requires_grad = False
    return norm
