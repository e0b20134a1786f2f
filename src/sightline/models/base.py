"""The base of every network. B images, height H, width W, D features, K classes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sightline.errors import ConfigError

__all__ = ["GlobalMaximum", "Network", "recorded"]

Key = TypeVar("Key")
Fact = TypeVar("Fact")


class Network(nn.Module):
    """A classifier: a feature map, its pooled features, and a last layer called ``head``."""

    head: nn.Module
    original_names: tuple[tuple[str, str], ...] = ()
    """How published weights call the parameters, as (beginning of a name there, here); the first that fits holds."""
    exchanged: tuple[str, ...] = ()
    """Beginnings of the names of parameters that an image size has given other shapes than the published ones."""
    layers: tuple[str, ...] = ()
    """Names of the layers that hand a map on, in their order: the network may end at each. None where not known."""
    dropped: tuple[str, ...] = ()
    """Beginnings of the names of parameters that the network could have and does without."""
    beyond_backbone: tuple[str, ...] = ("head.",)
    """Beginnings of the names of parameters that are none of the backbone's: they learn where it is frozen."""
    chain: tuple[str, ...] = ()
    """Names of the layers that an image runs through one after the other, up to the last map: what lies behind one can
    learn on kept maps. Empty where a network is no such chain."""
    side_by_side: int = 1
    """Vectors that ``head`` reads side by side, such as the nodes of an attention; pooled features are one."""

    def feature_map(self, images: Tensor) -> Tensor:
        """Turn images, (B, 3, H, W), into the last feature map, (B, D, h, w)."""
        raise NotImplementedError(f"{type(self).__name__} must define feature_map.")

    def features(self, images: Tensor) -> Tensor:
        """Turn images, (B, 3, H, W), into one vector each, (B, D)."""
        return self.feature_map(images).mean(dim=(2, 3))

    def backbone_output(self, images: Tensor) -> Tensor:
        """Turn images, (B, 3, H, W), into what ``classify`` reads: the last without the head's parameters."""
        return self.features(images)

    def classify(self, backbone_output: Tensor) -> Tensor:
        """Turn what ``backbone_output`` gives into logits, (B, K)."""
        logits: Tensor = self.head(backbone_output)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Turn images, (B, 3, H, W), into logits, (B, K)."""
        return self.classify(self.backbone_output(images))

    def example(self, size: tuple[int, int], count: int = 1) -> tuple[Tensor, ...]:
        """Return what the network takes: images of nothing but zeros, of a (height, width) in pixels."""
        return (torch.zeros(count, 3, *size),)

    def drop(self, layer: str) -> None:
        """Do without a layer: it hands on what it is given, and its parameters are gone."""
        self.set_submodule(layer, nn.Identity())
        self.dropped += (f"{layer}.",)

    def end_at(self, layer: str) -> None:
        """Make the map of one of ``layers`` the last: those behind it are neither kept nor computed."""
        end = self.layers.index(layer) + 1
        for later in self.layers[end:]:
            self.drop(later)
        self.layers = self.layers[:end]

    def cut_after(self, layer: str) -> None:
        """Let ``backbone_output`` end with the map of one of ``chain``, which ``classify`` goes on from.

        Raises:
            ConfigError: the network is no chain, or has no such layer in it.
        """
        raise ConfigError(
            "--finetune upper: the maps of this network cannot be kept; choose another way to fine-tune it."
        )

    @property
    def cam_layers(self) -> list[nn.Module]:
        """Layers whose maps an explanation can show, coarse to fine."""
        raise NotImplementedError(f"{type(self).__name__} must define cam_layers.")

    def fit_to(self, images: Tensor) -> None:
        """Set what is computed from the image set rather than learned; most networks have nothing of the kind.

        Args:
            images: some normalized training images, (B, 3, H, W), without augmentation.
        """

    def train_whitening(self, learning: bool) -> None:
        """Let a bias that is trained for the first epochs only learn, or not; most networks have none."""


class GlobalMaximum(nn.Module):
    """The largest value of each channel; a module of its own, since attribution methods hook what is not linear."""

    def forward(self, maps_BDhw: Tensor) -> Tensor:
        """Reduce a map, (B, D, h, w), to (B, D)."""
        return maps_BDhw.amax(dim=(2, 3))


@contextmanager
def recorded(
    layers: Mapping[Key, nn.Module], fact: Callable[[tuple[Any, ...], Any], Fact]
) -> Iterator[list[tuple[Key, Fact]]]:
    """Record a fact of every call of some layers while the block runs, in the order in which the calls end.

    Args:
        layers: by what to call them.
        fact: of what a layer is given, and of what it returns.
    Yields:
        A list that fills with (what the layer is called, fact).
    """
    facts: list[tuple[Key, Fact]] = []

    def note(key: Key, _: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        facts.append((key, fact(inputs, output)))

    hooks = [layer.register_forward_hook(partial(note, key)) for key, layer in layers.items()]
    try:
        yield facts
    finally:
        for hook in hooks:
            hook.remove()
