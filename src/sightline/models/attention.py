"""Attention among nodes: what each gathers from all, and by which shares.

B images, N nodes, D features, H heads with d = D / H features each, Q queries.

Source:
    Graph attention: Velickovic et al., "Graph Attention Networks", ICLR 2018, eq. 3. Its classical twin: Vaswani et
    al., "Attention Is All You Need", 2017, eq. 1. That all heads share their values: W. Jiang et al., "PyTorch Image
    Classification Techniques", 2023, and before them Shazeer, "Fast Transformer Decoding", 2019. Blocks with the norms
    before: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.
"""

from collections.abc import Callable

from torch import Tensor, nn

__all__ = [
    "EncoderBlock",
    "GraphAttention",
    "SelfAttention",
    "additive_attention",
    "by_heads",
    "dot_product_attention",
    "weighted_sums",
]


# ── the arithmetic ───────────────────────────────────────────────────────────────────────────────────────────────────


def additive_attention(queries_BHN: Tensor, keys_BHN: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Score every pair of nodes by the sum of one number each: softmax over j of act(k_i + q_j).

    Without the activation the keys would cancel in the softmax, and every node would attend alike.

    Returns:
        Weights, (B, H, N, N): of node i's attention, the share of node j. Each row sums to 1.
    Source:
        Velickovic et al., 2018, eq. 3, with the vector a cut into its halves.
    """
    scores_BHNN = activation(keys_BHN.unsqueeze(3) + queries_BHN.unsqueeze(2))
    weights_BHNN: Tensor = scores_BHNN.softmax(dim=3)
    return weights_BHNN


def dot_product_attention(queries_BHQd: Tensor, keys_BHNd: Tensor) -> Tensor:
    """Score every query and node by their product, over the root of its terms.

    Returns:
        Weights, (B, H, Q, N); each row sums to 1.
    Source:
        Vaswani et al., "Attention Is All You Need", 2017, eq. 1.
    """
    scores_BHQN: Tensor = queries_BHQd @ keys_BHNd.mT / keys_BHNd.shape[3] ** 0.5
    return scores_BHQN.softmax(dim=3)


def weighted_sums(weights_BHQN: Tensor, values_BHNd: Tensor) -> Tensor:
    """Sum what each query sees: the values by its weights, the heads side by side.

    Args:
        weights_BHQN: from one of the attentions.
        values_BHNd: of each head, or with H = 1 those that all heads share.
    Returns:
        (B, Q, H · d).
    """
    return (weights_BHQN @ values_BHNd).transpose(1, 2).flatten(2)


def by_heads(vectors_BND: Tensor, heads: int) -> Tensor:
    """Turn (B, N, D) into (B, H, N, d)."""
    batch, nodes, width = vectors_BND.shape
    return vectors_BND.reshape(batch, nodes, heads, width // heads).transpose(1, 2)


# ── among nodes ───────────────────────────────────────────────────────────────────────────────────────────────────────


class GraphAttention(nn.Module):
    """Attention whose weights come from one number a node and head for the query, and one for the key.

    The values are d wide and shared by all heads; queries and keys are linear in them. D · d + 2 · H · d weights.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, activation: nn.Module | None = None) -> None:
        """
        Args:
            width: features of a node, D; each head's d is a ``heads``-th of it.
            heads: how many, H.
            dropout: share of the weights that is dropped while training.
            activation: of the scores; None: LeakyReLU of slope 0.2, as the source has it.
        """
        super().__init__()
        self.value = nn.Linear(width, width // heads, bias=False)
        self.query = nn.Linear(width // heads, heads, bias=False)
        self.key = nn.Linear(width // heads, heads, bias=False)
        self.activation = nn.LeakyReLU(0.2) if activation is None else activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes_BND: Tensor) -> Tensor:
        """Turn nodes, (B, N, D), into what each gathers from all, (B, N, D)."""
        values_BNd = self.value(nodes_BND)
        weights_BHNN = self.dropout(self._weights(values_BNd))
        return weighted_sums(weights_BHNN, values_BNd.unsqueeze(1))

    def weights(self, nodes_BND: Tensor) -> Tensor:
        """Return the share of each node in what each node gathers, (B, H, N, N), without dropout."""
        return self._weights(self.value(nodes_BND))

    def _weights(self, values_BNd: Tensor) -> Tensor:
        return additive_attention(self.query(values_BNd).mT, self.key(values_BNd).mT, self.activation)


class SelfAttention(nn.Module):
    """The classical twin: the weights come from the scaled product of a query and a key of d numbers each.

    As in graph attention the values are d wide and shared by all heads, and one activation is passed, here by the
    values. 2 · D² + D · d weights.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, activation: nn.Module | None = None) -> None:
        """
        Args:
            width: features of a node, D; each head's d is a ``heads``-th of it.
            heads: how many, H.
            dropout: share of the weights that is dropped while training.
            activation: of the values; None: LeakyReLU of slope 0.2, as in graph attention.
        """
        super().__init__()
        self.heads = heads
        self.value = nn.Linear(width, width // heads, bias=False)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.activation = nn.LeakyReLU(0.2) if activation is None else activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes_BND: Tensor) -> Tensor:
        """Turn nodes, (B, N, D), into what each gathers from all, (B, N, D)."""
        values_BNd = self.activation(self.value(nodes_BND))
        weights_BHNN = self.dropout(self.weights(nodes_BND))
        return weighted_sums(weights_BHNN, values_BNd.unsqueeze(1))

    def weights(self, nodes_BND: Tensor) -> Tensor:
        """Return the share of each node in what each node gathers, (B, H, N, N), without dropout."""
        queries, keys = (by_heads(layer(nodes_BND), self.heads) for layer in (self.query, self.key))
        return dot_product_attention(queries, keys)


class EncoderBlock(nn.Module):
    """Attention and two linear layers, each with the norm before it and its input added; nodes stay (B, N, D)."""

    def __init__(self, attention: GraphAttention | SelfAttention, width: int, dropout: float) -> None:
        """
        Args:
            attention: of nodes of that width.
            width: features of a node, and between the two linear layers.
            dropout: share of the outputs of each linear layer that is dropped while training.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
        )

    def forward(self, nodes_BND: Tensor) -> Tensor:
        nodes_BND = nodes_BND + self.attention(self.norm1(nodes_BND))
        nodes_BND = nodes_BND + self.mlp(self.norm2(nodes_BND))
        return nodes_BND
