"""Heads: what reads a network's map and tells the classes apart.

B images, D features (channels of the map, or the width), h × w positions, N nodes (patches of the map), H heads with
d = D / H features each, Q learned queries, K classes.

Source:
    Patches of a ResNet's map as nodes of a graph: W. Jiang et al., "PyTorch Image Classification Techniques", 2023,
    after Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. Pooling by learned queries: Lee et al., "Set
    Transformer", ICML 2019, section 3.2, without its feed-forward layer, which makes it the attentive probe of Chen et
    al., "Context Autoencoder", IJCV 2024.
"""

import torch
from torch import Tensor, nn

from sightline.config.heads import (
    AttentionPoolHeadConfig,
    GraphAttentionHeadConfig,
    HeadConfig,
    LinearHeadConfig,
    SelfAttentionHeadConfig,
)
from sightline.errors import ConfigError, ShapeError
from sightline.models.adapters import answer
from sightline.models.attention import (
    EncoderBlock,
    GraphAttention,
    SelfAttention,
    by_heads,
    dot_product_attention,
    weighted_sums,
)
from sightline.models.base import Network, recorded

__all__ = ["AttentionEncoder", "AttentionPool", "HeadedNetwork", "PatchEmbedding"]

LEAST_NODES = 2  # along each side of a map; among fewer there is nothing to attend to


# ── from a map to a vector ───────────────────────────────────────────────────────────────────────────────────────────


class PatchEmbedding(nn.Module):
    """A map to nodes: one for each patch, by a convolution that steps from patch to patch, plus a learned position."""

    def __init__(self, channels: int, width: int, patch: int, sides: tuple[int, int]) -> None:
        """
        Args:
            channels: of the map.
            width: features of a node.
            patch: side of a patch, in positions of the map.
            sides: (h, w) of the map; a border that fills no patch is left out.
        """
        super().__init__()
        self.grid = (sides[0] // patch, sides[1] // patch)
        self.convolution = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(torch.zeros(self.grid[0] * self.grid[1], width))

    def forward(self, maps_BDhw: Tensor) -> Tensor:
        """Turn a map, (B, D, h, w), into nodes, (B, N, width), row by row.

        Raises:
            ShapeError: the map has not the sides that this was made for.
        """
        patches_BDhw = self.convolution(maps_BDhw)
        if patches_BDhw.shape[2:] != self.grid:
            grid, expected = ("×".join(map(str, sides)) for sides in (patches_BDhw.shape[2:], self.grid))
            raise ShapeError(f"the head was made for {expected} patches and the map has {grid}")
        nodes_BND: Tensor = patches_BDhw.flatten(2).mT + self.positions
        return nodes_BND


class AttentionEncoder(nn.Module):
    """Patches of a map through encoder blocks; a map, (B, D, h, w), to all nodes in one vector, (B, N · width)."""

    def __init__(
        self, config: GraphAttentionHeadConfig | SelfAttentionHeadConfig, channels: int, sides: tuple[int, int]
    ) -> None:
        """
        Args:
            config: the settings.
            channels: of the map.
            sides: (h, w) of the map.
        """
        super().__init__()
        width = config.width or channels
        kind = GraphAttention if isinstance(config, GraphAttentionHeadConfig) else SelfAttention
        self.embedding = PatchEmbedding(channels, width, config.patch, sides)
        self.blocks = nn.Sequential(
            *(
                EncoderBlock(kind(width, config.heads, config.dropout, nn.GELU()), width, config.dropout)
                for _ in range(config.depth)
            )
        )
        self.nodes, self.width = self.embedding.grid[0] * self.embedding.grid[1], width

    def forward(self, maps_BDhw: Tensor) -> Tensor:
        nodes_BND: Tensor = self.blocks(self.embedding(maps_BDhw))
        return nodes_BND.flatten(1)

    def weights(self, maps_BDhw: Tensor) -> list[Tensor]:
        """Return the attention of each block, (B, H, N, N)."""
        nodes_BND, weights = self.embedding(maps_BDhw), []
        for block in self.blocks:
            assert isinstance(block, EncoderBlock)
            weights.append(block.attention.weights(block.norm1(nodes_BND)))
            nodes_BND = block(nodes_BND)
        return weights


class AttentionPool(nn.Module):
    """Learned queries pool a map, (B, D, h, w), of any size, to (B, Q · width)."""

    def __init__(self, config: AttentionPoolHeadConfig, channels: int) -> None:
        """
        Args:
            config: the settings.
            channels: of the map.
        """
        super().__init__()
        width = config.width or channels
        self.heads = config.heads
        self.norm = nn.LayerNorm(channels)
        self.queries = nn.Parameter(torch.randn(config.queries, width) * width**-0.5)  # small: it begins as the mean
        self.key = nn.Linear(channels, width, bias=False)
        self.value = nn.Linear(channels, width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.nodes, self.width = config.queries, width

    def forward(self, maps_BDhw: Tensor) -> Tensor:
        nodes_BND = self._nodes(maps_BDhw)
        values_BHNd = by_heads(self.value(nodes_BND), self.heads)
        return weighted_sums(self.dropout(self._weights(nodes_BND)), values_BHNd).flatten(1)

    def weights(self, maps_BDhw: Tensor) -> list[Tensor]:
        """Return the share of each position in what each query pools, one tensor (B, H, Q, h · w)."""
        return [self._weights(self._nodes(maps_BDhw))]

    def _nodes(self, maps_BDhw: Tensor) -> Tensor:
        nodes_BND: Tensor = self.norm(maps_BDhw.flatten(2).mT)
        return nodes_BND

    def _weights(self, nodes_BND: Tensor) -> Tensor:
        queries_1HQd = by_heads(self.queries.unsqueeze(0), self.heads)
        return dot_product_attention(queries_1HQd, by_heads(self.key(nodes_BND), self.heads))


# ── a head on a network ──────────────────────────────────────────────────────────────────────────────────────────────


class HeadedNetwork(Network):
    """A backbone, a neck that turns its map into a vector, and the last linear layer, ``head``.

    Of the backbone only that is kept which the neck reads: not its own head, nothing behind the layer that was asked
    for. ``head`` is the last linear layer alone, as in every network: it alone depends on the number of classes, and
    the scale of its outputs must be free, where Muon holds filters at one norm. The neck's matrices are filters like
    any other.
    """

    beyond_backbone = ("neck.", "head.")

    def __init__(self, backbone: Network, config: HeadConfig, classes: int, size: tuple[int, int]) -> None:
        """
        Args:
            backbone: the network, which is taken apart.
            config: the settings of the head; its layer is one of the backbone's.
            classes: classes to tell apart.
            size: (height, width) of the images in pixels.
        Raises:
            ConfigError: the map is too small for the head, or does not divide among its heads.
        """
        super().__init__()
        backbone.eval()
        choices = _sides(backbone, size)
        if config.layer is not None:
            backbone.end_at(config.layer)
        backbone.drop("head")
        self.backbone = backbone
        self.pooled = isinstance(config, LinearHeadConfig)
        """Whether the backbone pools its map itself."""
        output = answer(self.backbone_output, size, "the network")
        self.neck: AttentionEncoder | AttentionPool | nn.Identity
        if isinstance(config, LinearHeadConfig):
            self.neck, inputs = nn.Identity(), output.shape[1]
        else:
            _drop_unread(backbone, size)
            self.neck = _neck(config, output.shape[1:], choices)
            self.side_by_side, inputs = self.neck.nodes, self.neck.nodes * self.neck.width
        self.head = nn.Linear(inputs, classes)
        nn.init.normal_(
            self.head.weight, std=1 / inputs
        )  # small, as speednet's own: what a backbone has learned is not
        nn.init.zeros_(self.head.bias)  # swept away by the first gradients
        backbone.train()

    def backbone_output(self, images: Tensor) -> Tensor:
        """Turn images, (B, 3, H, W), into what the neck reads: a map, (B, D, h, w), or pooled features, (B, D)."""
        return self.backbone.features(images) if self.pooled else self.backbone.feature_map(images)

    def classify(self, backbone_output: Tensor) -> Tensor:
        """Turn a map, (B, D, h, w), or pooled features, (B, D), into logits, (B, K)."""
        logits: Tensor = self.head(self.neck(backbone_output))
        return logits

    def feature_map(self, images: Tensor) -> Tensor:
        return self.backbone.feature_map(images)

    def features(self, images: Tensor) -> Tensor:
        features_BD: Tensor = self.neck(self.backbone_output(images))
        return features_BD

    def attention_weights(self, images: Tensor) -> list[Tensor]:
        """Return how the head attends: (B, H, N, N) for each encoder block, (B, H, Q, N) for a pool, none if linear."""
        return [] if isinstance(self.neck, nn.Identity) else self.neck.weights(self.backbone_output(images))

    @property
    def cam_layers(self) -> list[nn.Module]:
        return self.backbone.cam_layers

    def fit_to(self, images: Tensor) -> None:
        self.backbone.fit_to(images)

    def train_whitening(self, learning: bool) -> None:
        self.backbone.train_whitening(learning)


def _neck(
    config: GraphAttentionHeadConfig | SelfAttentionHeadConfig | AttentionPoolHeadConfig,
    shape: tuple[int, ...],
    choices: dict[str, tuple[int, int]],
) -> AttentionEncoder | AttentionPool:
    """Build the neck for a map, (D, h, w).

    Args:
        config: the settings.
        shape: the shape of the map.
        choices: (h, w) of the other maps that could be read.
    Raises:
        ConfigError: it is too small, or its channels do not divide among the heads.
    """
    channels, height, width = shape
    patch = 1 if isinstance(config, AttentionPoolHeadConfig) else config.patch
    if min(height, width) // patch < LEAST_NODES:
        raise ConfigError(_too_small(config.kind, patch, (height, width), choices))
    if config.width is None and channels % config.heads:
        raise ConfigError(
            f"--head {config.kind} has as many features as the map has channels, {channels}, which do not divide by"
            f" --head.heads ({config.heads}); choose other heads, or a --head.width that divides by them."
        )
    if isinstance(config, AttentionPoolHeadConfig):
        return AttentionPool(config, channels)
    return AttentionEncoder(config, channels, (height, width))


def _too_small(kind: str, patch: int, sides: tuple[int, int], choices: dict[str, tuple[int, int]]) -> str:
    """Return the sentence for a map of too few patches, with what would help."""
    grid = "×".join(str(side // patch) for side in sides)
    least = LEAST_NODES * patch
    help_ = [f"--head.layer {layer} ({h}×{w})" for layer, (h, w) in choices.items() if min(h, w) >= least][-1:]
    help_ += [f"--head.patch {min(sides) // LEAST_NODES}"] if min(sides) >= LEAST_NODES else []
    patches = f"{grid} patches of --head.patch {patch}" if patch > 1 else f"{grid} positions"
    return (
        f"--head {kind} has nothing to attend to: a map of {sides[0]}×{sides[1]} makes {patches}, and two or more along"
        f" each side are needed; choose {' or '.join([*help_, 'larger images (--data.size)'])}."
    )


def _sides(network: Network, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Return (h, w) of the map of each layer that a head can read."""
    layers = {layer: network.get_submodule(layer) for layer in network.layers}
    with recorded(layers, lambda _, output: (output.shape[2], output.shape[3])) as sides:
        answer(network.feature_map, size, "the network")
    return dict(sides)


def _drop_unread(network: Network, size: tuple[int, int]) -> None:
    """Drop the layers whose parameters the last map does not depend on, such as those behind its pooling."""
    images = torch.zeros(1, 3, *size)
    parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
    with torch.enable_grad():
        gradients = torch.autograd.grad(network.feature_map(images).sum(), [*parameters.values()], allow_unused=True)
    read = {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    for layer, _ in list(network.named_modules()):
        own = {name for name in parameters if name.startswith(f"{layer}.")}
        if layer and own and not own & read and not layer.startswith(network.dropped):
            network.drop(layer)
    answer(network.feature_map, size, "the network without what lies behind its last map")
