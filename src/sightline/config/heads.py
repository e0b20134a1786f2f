"""The settings of heads: what turns a network's features, or one of its maps, into logits.

A network without a head of its own in the recipe keeps its last layer.
"""

from typing import Annotated

from msgspec import Meta

from sightline.config.building import Kind
from sightline.config.checks import Dropout, nearest
from sightline.errors import ConfigError

__all__ = [
    "AttentionPoolHeadConfig",
    "GraphAttentionHeadConfig",
    "HeadConfig",
    "LinearHeadConfig",
    "SelfAttentionHeadConfig",
    "refuse_unknown_layer",
]


class _HeadConfig(Kind, frozen=True, kw_only=True):
    """Settings of every head."""

    layer: str | None = None
    """Layer of the network whose map is read, such as groups.1 or layer3, and behind which the network ends; null: the
    last."""


class LinearHeadConfig(_HeadConfig, frozen=True, kw_only=True, tag="linear"):
    """A fresh linear layer, with a bias, on the features that the network pools itself."""


class _AttentionConfig(_HeadConfig, frozen=True, kw_only=True):
    """Settings of every head with attention."""

    heads: Annotated[int, Meta(ge=1, le=64)] = 8
    """Attentions side by side, each with its own weights."""
    width: Annotated[int, Meta(ge=8, le=8192)] | None = None
    """Features of a node, or of what a query pools, of which each head has its part; null: as many as the map has
    channels."""
    dropout: Dropout = 0.1
    """Share of the attention weights, and in an encoder of the outputs within a block, that is dropped while
    training."""

    def _check(self) -> None:
        if self.width is not None and self.width % self.heads:
            below = self.width - self.width % self.heads
            raise ConfigError(
                f"--head.width ({self.width}) must divide by --head.heads ({self.heads}), for each head has an equal"
                f" part; choose {below if below >= 8 else below + self.heads}."
            )


class _EncoderConfig(_AttentionConfig, frozen=True, kw_only=True):
    """Settings of the two encoders."""

    patch: Annotated[int, Meta(ge=1, le=64)] = 2
    """Side of a patch, in positions of the map; a border that fills no patch is left out."""
    depth: Annotated[int, Meta(ge=1, le=24)] = 1
    """Encoder blocks in a row."""


class GraphAttentionHeadConfig(_EncoderConfig, frozen=True, kw_only=True, tag="graph_attention"):
    """Graph attention over patches of the map: pairs are scored by the sum of a query and a key, then a linear
    layer.
    """


class SelfAttentionHeadConfig(_EncoderConfig, frozen=True, kw_only=True, tag="self_attention"):
    """The classical twin of graph attention: pairs are scored by the scaled product of a query and a key."""


class AttentionPoolHeadConfig(_AttentionConfig, frozen=True, kw_only=True, tag="attention_pool"):
    """Pooling by attention: learned queries choose among all positions of the map, then a linear layer."""

    queries: Annotated[int, Meta(ge=1, le=64)] = 1
    """Learned queries; each pools the map once, and the linear layer reads them all."""


HeadConfig = LinearHeadConfig | GraphAttentionHeadConfig | SelfAttentionHeadConfig | AttentionPoolHeadConfig


def refuse_unknown_layer(layer: str, layers: tuple[str, ...], network: str) -> None:
    """Refuse to read the map of a layer that a network does not have.

    Args:
        layer: which layer is asked for.
        layers: those whose maps can be read; none where they are not known.
        network: what the network is called.
    Raises:
        ConfigError: with the nearest of them.
    """
    if not layers:
        raise ConfigError(
            f"--head.layer {layer} cannot be read: only the last map of the network {network} is known; leave the"
            " option out, or choose a network of sightline's own."
        )
    if layer not in layers:
        raise ConfigError(f"--head.layer {layer} is no layer of the network {network}; {nearest(layer, layers)}")
