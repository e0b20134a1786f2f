"""The settings of heads: what turns a network's features, or one of its maps, into logits.

A network without a head of its own in the recipe keeps its last layer.
"""

from dataclasses import dataclass
from typing import Literal

from sightline.config.checks import nearest, within
from sightline.errors import ConfigError

__all__ = [
    "AttentionPoolHeadConfig",
    "GraphAttentionHeadConfig",
    "HeadConfig",
    "LinearHeadConfig",
    "SelfAttentionHeadConfig",
    "refuse_unknown_layer",
]


@dataclass(frozen=True, kw_only=True)
class LinearHeadConfig:
    """A fresh linear layer, with a bias, on the features that the network pools itself."""

    kind: Literal["linear"] = "linear"
    layer: str | None = None
    """Layer of the network whose map is read, such as groups.1 or layer3, and behind which the network ends; null: the
    last."""


@dataclass(frozen=True, kw_only=True)
class GraphAttentionHeadConfig:
    """Graph attention over patches of the map: pairs are scored by the sum of a query and a key, then a linear layer."""

    kind: Literal["graph_attention"] = "graph_attention"
    layer: str | None = None
    """Layer of the network whose map is read, such as groups.1 or layer3, and behind which the network ends; null: the
    last."""
    patch: int = 2
    """Side of a patch, in positions of the map; a border that fills no patch is left out."""
    heads: int = 8
    """Attentions side by side, each with its own weights."""
    width: int | None = None
    """Features of a node, of which each head has its part; null: as many as the map has channels."""
    depth: int = 1
    """Encoder blocks in a row."""
    dropout: float = 0.1
    """Share of the attention weights, and of the outputs within a block, that is dropped while training."""

    def __post_init__(self) -> None:
        _check_encoder(self.patch, self.heads, self.width, self.depth, self.dropout)


@dataclass(frozen=True, kw_only=True)
class SelfAttentionHeadConfig:
    """The classical twin of graph attention: pairs are scored by the scaled product of a query and a key."""

    kind: Literal["self_attention"] = "self_attention"
    layer: str | None = None
    """Layer of the network whose map is read, such as groups.1 or layer3, and behind which the network ends; null: the
    last."""
    patch: int = 2
    """Side of a patch, in positions of the map; a border that fills no patch is left out."""
    heads: int = 8
    """Attentions side by side, each with its own weights."""
    width: int | None = None
    """Features of a node, of which each head has its part; null: as many as the map has channels."""
    depth: int = 1
    """Encoder blocks in a row."""
    dropout: float = 0.1
    """Share of the attention weights, and of the outputs within a block, that is dropped while training."""

    def __post_init__(self) -> None:
        _check_encoder(self.patch, self.heads, self.width, self.depth, self.dropout)


@dataclass(frozen=True, kw_only=True)
class AttentionPoolHeadConfig:
    """Pooling by attention: learned queries choose among all positions of the map, then a linear layer."""

    kind: Literal["attention_pool"] = "attention_pool"
    layer: str | None = None
    """Layer of the network whose map is read, such as groups.1 or layer3, and behind which the network ends; null: the
    last."""
    queries: int = 1
    """Learned queries; each pools the map once, and the linear layer reads them all."""
    heads: int = 8
    """Attentions side by side, each with its own weights."""
    width: int | None = None
    """Features that a query pools, of which each head has its part; null: as many as the map has channels."""
    dropout: float = 0.1
    """Share of the attention weights that is dropped while training."""

    def __post_init__(self) -> None:
        within("head.queries", self.queries, 1, 64)
        _check_heads(self.heads, self.width, self.dropout)


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
            f"--head.layer {layer} cannot be read: only the last map of the network {network} is known; leave the option"
            " out, or choose a network of sightline's own."
        )
    if layer not in layers:
        raise ConfigError(f"--head.layer {layer} is no layer of the network {network}; {nearest(layer, layers)}")


def _check_encoder(patch: int, heads: int, width: int | None, depth: int, dropout: float) -> None:
    within("head.patch", patch, 1, 64)
    within("head.depth", depth, 1, 24)
    _check_heads(heads, width, dropout)


def _check_heads(heads: int, width: int | None, dropout: float) -> None:
    within("head.heads", heads, 1, 64)
    within("head.dropout", dropout, 0, 0.9)
    if width is None:
        return
    within("head.width", width, 8, 8192)
    if width % heads:
        below = width - width % heads
        raise ConfigError(
            f"--head.width ({width}) must divide by --head.heads ({heads}), for each head has an equal part; choose"
            f" {below if below >= 8 else below + heads}."
        )
