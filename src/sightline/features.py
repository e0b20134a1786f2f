"""What a frozen backbone makes of images, computed once and kept. N images, V views, B images of a batch.

Where nothing below the head learns and images are shown as they are, or mirrored, the backbone's output for an image is one
of two. They are computed when they are first asked for, kept in memory on the device, and the epochs train the head on them.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sightline.config import FrozenConfig, Recipe
from sightline.errors import ConfigError
from sightline.images.batches import Batch, EvaluationBatches, TrainingBatches
from sightline.memory import free_memory
from sightline.nets import Network
from sightline.nets.base import GlobalMaximum
from sightline.phases import frozen_modules, layers_of, phases_of

__all__ = ["Backbone", "FeatureBatches", "KeptEvaluation", "bytes_kept", "settle_features"]

MOST = 1 / 3  # of the memory that is free
# The same in training mode as in evaluation mode.
PASSIVE = (nn.Identity, nn.Flatten, nn.ReLU, nn.GELU, nn.SiLU, GlobalMaximum)


def settle_features(
    recipe: Recipe, network: Network, images: int, size: tuple[int, int], device: torch.device
) -> tuple[Recipe, str]:
    """Decide whether the features of a frozen backbone are kept, where the recipe leaves it open.

    It is settled once and written down, for what is computed anew differs from what was kept in its last bits, and free
    memory is not the same when a training is resumed.

    Args:
        recipe: every setting.
        network: as it was built.
        images: how many are trained on and validated on.
        size: (height, width) of the images in pixels.
        device: what trains, whose free memory is asked for.
    Returns:
        The recipe, and a line for the user; empty where no features could be kept.
    Raises:
        ConfigError: they should be kept and cannot be.
    """
    finetune = recipe.finetune
    if not isinstance(finetune, FrozenConfig) or not recipe.shows_two_views:
        return recipe, ""
    wanted = bytes_kept(network, images * (1 if recipe.augment.flip == "none" else 2), size)
    problem = _why_not(recipe, network, wanted, device)
    if finetune.features == "keep" and problem:
        raise ConfigError(f"--finetune.features keep: {problem}; leave the option out.")
    keep = finetune.features != "recompute" and not problem
    settled = replace(recipe, finetune=replace(finetune, features="keep" if keep else "recompute"))
    if keep:
        return settled, f"  what the frozen layers make of the images is computed once and kept: {wanted / 1e9:.2g} GB"
    return settled, f"  the frozen layers compute in every epoch anew: {problem or 'as asked'}"


def _why_not(recipe: Recipe, network: Network, wanted: int, device: torch.device) -> str:
    """What speaks against keeping so many bytes of features; empty where nothing does."""
    if recipe.fit.compile:
        return "--fit.compile compiles the whole network"
    random = _random_below_head(recipe, network)
    if random:
        return f"the layer {random} below the head gives an image other features every time"
    if wanted * recipe.fit.processes > MOST * free_memory(device):
        return f"{wanted / 1e9:.1f} GB for each process is more than a third of the free memory"
    return ""


def bytes_kept(network: Network, images: int, size: tuple[int, int]) -> int:
    """What the features of so many images of a size take, in float32."""
    parameter = next(network.parameters())
    training = network.training
    with torch.no_grad():
        output = network.eval().backbone_output(torch.zeros(1, 3, *size, device=parameter.device))
    network.train(training)
    return images * output.numel() * 4


def _random_below_head(recipe: Recipe, network: Network) -> str:
    """The name of a module below the head that a frozen network leaves in training mode; empty where there is none."""
    frozen = set(frozen_modules(network, layers_of(network), phases_of(recipe, network)[0].trained))
    for name, module in network.named_modules():
        beyond = f"{name}.".startswith(network.beyond_backbone)
        if module not in frozen and not beyond and not list(module.children()) and not isinstance(module, PASSIVE):
            return str(name)
    return ""


class Backbone:
    """The part of a network below its head, frozen, in the number format of the training."""

    def __init__(self, network: Network, arithmetic: Callable[[], AbstractContextManager[Any]]) -> None:
        """
        Args:
            network: whose weights are those to use by the time the first features are asked for.
            arithmetic: enters the number format.
        """
        self._network = network
        self._arithmetic = arithmetic

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Normalised images, (B, 3, H, W), to what is read by ``Network.classify``."""
        modes = [(module, module.training) for module in self._network.modules()]
        self._network.eval()
        with self._arithmetic():
            output = self._network.backbone_output(images)
        for module, training in modes:
            module.training = training
        return output


class KeptEvaluation:
    """Evaluation batches whose images are replaced by their features, from the first round on."""

    def __init__(self, batches: EvaluationBatches, backbone: Backbone) -> None:
        self._batches = batches
        self._backbone = backbone
        self._kept: list[Batch] = []

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        if not self._kept:
            self._kept = [batch._replace(images=self._backbone(batch.images), features=True) for batch in self._batches]
        return iter(self._kept)


class FeatureBatches(TrainingBatches):
    """Training batches of features: the same images in the same order, mirrored by the same random numbers."""

    def __init__(self, *arguments: Any, as_they_are: EvaluationBatches, backbone: Backbone, **named: Any) -> None:
        """
        Args:
            as_they_are: all training images, in the order of their rows.
            backbone: makes the features.
            arguments, named: as ``TrainingBatches`` has them.
        """
        super().__init__(*arguments, **named)
        self._as_they_are = as_they_are
        self._backbone = backbone
        self._kept_VN: Tensor | None = None

    def make(self, epoch: int, index: int, order: Tensor) -> Batch:
        if self._kept_VN is None:
            self._kept_VN = self._compute()
        members, share, drawn, _ = self.draw(epoch, index, order)
        own = members[share]
        view_B = drawn.flip_B[share].long().to(self.device, non_blocking=True)
        features = self._kept_VN[view_B, own.to(self.device, non_blocking=True)]
        labels = self._labels[own].to(self.device, non_blocking=True)
        weight = len(labels) * self.world_size / len(members)
        return Batch(features, labels, epoch, index, weight, features=True)

    def _compute(self) -> Tensor:
        """(V, N, ...): of each training image and, where images are mirrored, of its mirror image."""
        views = 1 if self.config.flip == "none" else 2
        kept: Tensor | None = None
        start = 0
        for batch in self._as_they_are:
            for view in range(views):
                images = batch.images.flip(3) if view else batch.images
                output = self._backbone(images.contiguous(memory_format=torch.channels_last))
                if kept is None:
                    kept = output.new_empty(views, self._count, *output.shape[1:])
                kept[view, start : start + len(output)] = output
            start += len(batch.labels)
        assert kept is not None
        return kept
