"""Features of a frozen backbone, computed once and kept. N images, V views, B images of a batch.

Where nothing below the head learns and images are shown as they are, or mirrored, the backbone's output for an image
is one of two. They are computed when they are first asked for, kept in memory on the device, and the epochs train the
head on them.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from sightline.config.finetuning import FrozenConfig
from sightline.config.settings import Recipe
from sightline.data.batches import Batch, EvaluationBatches, TrainingBatches
from sightline.errors import ConfigError
from sightline.machine.memory import free_memory
from sightline.models.base import Network
from sightline.training.phases import frozen_modules, layers_of, modes_kept, phases_of

__all__ = ["Backbone", "FeatureBatches", "KeptEvaluation", "bytes_kept", "settle_features"]

MOST = 1 / 3  # of the memory that is free


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
    size_in_bytes = bytes_kept(network, images * (1 if recipe.augment.flip == "none" else 2), size)
    problem = _why_not(recipe, network, size, size_in_bytes, device)
    if finetune.features == "keep" and problem:
        raise ConfigError(f"--finetune.features keep: {problem}; leave the option out.")
    keep = finetune.features != "recompute" and not problem
    settled = replace(recipe, finetune=replace(finetune, features="keep" if keep else "recompute"))
    if keep:
        return (
            settled,
            f"  what the frozen layers make of the images is computed once and kept: {size_in_bytes / 1e9:.2g} GB",
        )
    return settled, f"  the frozen layers compute in every epoch anew: {problem or 'as asked'}"


def _why_not(recipe: Recipe, network: Network, size: tuple[int, int], size_in_bytes: int, device: torch.device) -> str:
    """Return what speaks against keeping so many bytes of features; empty where nothing does."""
    if recipe.fit.compile:
        return "--fit.compile compiles the whole network"
    varying = _varying(recipe, network, size)
    if varying:
        return varying
    if size_in_bytes * recipe.fit.processes > MOST * free_memory(device):
        return f"{size_in_bytes / 1e9:.1f} GB for each process is more than a third of the free memory"
    return ""


def bytes_kept(network: Network, images: int, size: tuple[int, int]) -> int:
    """Return the bytes that the features of so many images of a size take, in float32."""
    parameter = next(network.parameters())
    with torch.no_grad(), modes_kept(network):
        output = network.eval().backbone_output(torch.zeros(1, 3, *size, device=parameter.device))
    return images * output.numel() * 4


def _varying(recipe: Recipe, network: Network, size: tuple[int, int]) -> str:
    """Say why an image's features vary while the head of a frozen network trains, as a clause; empty where they do not.

    Two images are sent through: in evaluation mode; twice in the modes of the training, where dropout rescales what
    it keeps and batch-norm takes the statistics of the batch; and one of them alone. The network and the generators
    are left as they were.
    """
    frozen = set(frozen_modules(network, layers_of(network), phases_of(recipe, network)[0].trained))
    below = {
        name: module
        for name, module in network.named_modules()
        if module not in frozen and not f"{name}.".startswith(network.beyond_backbone)
    }
    device = next(network.parameters()).device
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    still = _features(network, images, ())
    if any(not _same(_features(network, images, below.values()), still) for _ in range(2)):
        causes = [name for name, module in below.items() if not _same(_features(network, images, (module,)), still)]
        cause = min(causes, key=lambda name: len(list(below[name].modules())), default="")
        layer = network.get_submodule(cause)
        where = f"the layer {cause} ({type(layer).__name__}) below the head" if cause else "the network below its head"
        by_batch = isinstance(layer, nn.modules.batchnorm._BatchNorm)
        return f"{where} {'normalizes by the batch' if by_batch else 'gives an image other features every time'}"
    if not _same(_features(network, images[:1], ()), still[:1]):
        return "the network below its head gives an image features that depend on the others of its batch"
    return ""


def _features(network: Network, images: Tensor, learning: Iterable[nn.Module]) -> Tensor:
    """Return the backbone's output with some modules in training mode, all others not; nothing is changed."""
    measured = [(buffer, buffer.clone()) for buffer in network.buffers()]
    generators = torch.random.fork_rng([images.device] if images.device.type == "cuda" else [])
    with torch.no_grad(), modes_kept(network), generators:
        network.eval()
        for module in learning:
            module.training = True
        output = network.backbone_output(images)
        for buffer, before in measured:
            buffer.copy_(before)
    return output


def _same(one: Tensor, other: Tensor) -> bool:
    """Tell whether features are equal but for rounding, which is not the same for every number of images."""
    scale = float(other.abs().max())
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5 * scale, equal_nan=True)


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
        """Turn normalized images, (B, 3, H, W), into what is read by ``Network.classify``."""
        with modes_kept(self._network), self._arithmetic():
            return self._network.eval().backbone_output(images)


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
        """Compute the features of each training image and, where wanted, of its mirror image, (V, N, ...)."""
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
