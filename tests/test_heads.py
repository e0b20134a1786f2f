"""Heads on the map of a network: by hand, by their laws, and each on several networks. Letters as in nets/heads.py."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.config.building import members
from sightline.config.heads import (
    AttentionPoolHeadConfig,
    GraphAttentionHeadConfig,
    HeadConfig,
    LinearHeadConfig,
    SelfAttentionHeadConfig,
)
from sightline.config.networks import (
    ArchitectureConfig,
    CustomResNetConfig,
    HubConfig,
    ResNet18Config,
    SpeednetConfig,
    TimmConfig,
    TorchvisionConfig,
)
from sightline.config.optimizers import MuonConfig
from sightline.errors import ConfigError, ShapeError
from sightline.models.attention import (
    EncoderBlock,
    GraphAttention,
    SelfAttention,
    additive_attention,
    dot_product_attention,
    weighted_sums,
)
from sightline.models.build import build_network, summarize
from sightline.models.flops import flops_per_image
from sightline.models.heads import AttentionEncoder, AttentionPool, HeadedNetwork, PatchEmbedding
from sightline.models.transfer import put_in
from sightline.training.optimizers import build_optimizer

CLASSES = 5
CLONE = str(Path(__file__).parent / "hub_clone")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ── two nodes, by hand ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_shares_of_two_nodes_by_hand() -> None:
    """Scores k_i + q_j: 1 + 0 and 1 + 2 in the first row, -1 + 0 and -1 + 2 in the second; LeakyReLU makes -1 to -0.2."""
    keys, queries = torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[0.0, 2.0]]])
    weights = additive_attention(queries, keys, nn.LeakyReLU(0.2))
    wanted = [[1 / (1 + 2.71828**2), 1 / (1 + 2.71828**-2)], [1 / (1 + 2.71828**1.2), 1 / (1 + 2.71828**-1.2)]]
    torch.testing.assert_close(weights, torch.tensor([[wanted]]), atol=1e-4, rtol=0)
    assert [round(share, 3) for share in weights.flatten().tolist()] == [0.119, 0.881, 0.231, 0.769]


def test_without_an_activation_the_keys_cancel_and_every_node_attends_alike() -> None:
    queries, keys = normal(2, 3, 5), normal(2, 3, 5, seed=1)
    first, *others = additive_attention(queries, keys, nn.Identity()).unbind(dim=2)
    for other in others:
        torch.testing.assert_close(other, first)


def test_scaled_products_of_two_nodes_by_hand() -> None:
    """Query (2, 0, 0, 0) with the keys (3, 0, 0, 0) and (1, 0, 0, 0): 6 / 2 and 2 / 2."""
    query, keys = torch.tensor([2.0, 0, 0, 0]), torch.tensor([[3.0, 0, 0, 0], [1, 0, 0, 0]])
    weights = dot_product_attention(query.view(1, 1, 1, 4), keys.view(1, 1, 2, 4))
    torch.testing.assert_close(weights.flatten(), torch.tensor([0.8808, 0.1192]), atol=1e-4, rtol=0)


def test_heads_lie_side_by_side_and_may_share_their_values() -> None:
    weights_BHQN = torch.tensor([[[[1.0, 0.0]], [[0.25, 0.75]]]])  # of two heads, one query each
    shared = torch.tensor([[[[4.0, 8.0], [0.0, 16.0]]]])
    assert weighted_sums(weights_BHQN, shared).tolist() == [[[4, 8, 1, 14]]]
    own = torch.cat([shared, shared / 4], dim=1)
    assert weighted_sums(weights_BHQN, own).tolist() == [[[4, 8, 0.25, 3.5]]]


def test_graph_attention_of_two_nodes_by_hand() -> None:
    """Values v = x: (1, 0) and (0, 1). Of the head, q reads the first feature, k the second: shares as by the sums."""
    attention = GraphAttention(2, 1)
    with torch.no_grad():
        attention.value.weight.copy_(torch.eye(2))
        attention.query.weight.copy_(torch.tensor([[1.0, 0.0]]))
        attention.key.weight.copy_(torch.tensor([[0.0, 1.0]]))
    gathered = attention(torch.eye(2).unsqueeze(0))
    # node 0: k = 0, scores 0 + 1 and 0 + 0; node 1: k = 1, scores 1 + 1 and 1 + 0: the same shares, e / (1 + e) first
    torch.testing.assert_close(gathered, torch.tensor([[[0.7311, 0.2689], [0.7311, 0.2689]]]), atol=1e-4, rtol=0)


# ── attention ────────────────────────────────────────────────────────────────────────────────────────────────────────

ATTENTIONS = pytest.mark.parametrize("kind", [GraphAttention, SelfAttention])


def test_values_are_shared_by_all_heads_so_the_weights_are_few() -> None:
    width, heads = 64, 8
    assert count(GraphAttention(width, heads)) == 64 * 8 + 2 * 8 * 8  # D · D/heads, and heads · D/heads twice
    assert count(SelfAttention(width, heads)) == 64 * 8 + 2 * 64 * 64  # queries and keys of the nodes


@ATTENTIONS
def test_the_shares_of_a_node_sum_to_one_in_every_head(kind: Any) -> None:
    weights = kind(16, 4).weights(normal(3, 7, 16))
    assert weights.shape == (3, 4, 7, 7)
    assert weights.min() > 0
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(3, 4, 7))


@ATTENTIONS
def test_nodes_in_another_order_gather_the_same_in_that_order(kind: Any) -> None:
    block = EncoderBlock(kind(16, 4, activation=nn.GELU()), 16, 0.1).eval()
    nodes_BND, order = normal(2, 6, 16), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(block(nodes_BND[:, order]), block(nodes_BND)[:, order])


@ATTENTIONS
def test_what_is_gathered_are_the_values_by_the_weights_that_can_be_asked_for(kind: Any) -> None:
    attention, nodes_BND = kind(16, 4), normal(2, 6, 16)
    values = attention.value(nodes_BND)
    if kind is SelfAttention:
        values = functional.leaky_relu(values, 0.2)  # its activation is passed by the values, not by the scores
    wanted = torch.einsum("bhij,bjd->bihd", attention.weights(nodes_BND), values).flatten(2)
    torch.testing.assert_close(attention(nodes_BND), wanted)


@ATTENTIONS
def test_by_itself_attention_has_a_leaky_activation_and_no_dropout(kind: Any) -> None:
    attention = kind(16, 4)
    assert (type(attention.activation), attention.activation.negative_slope) == (nn.LeakyReLU, 0.2)
    assert torch.equal(attention.train()(normal(1, 4, 16)), attention.eval()(normal(1, 4, 16)))


def test_a_block_adds_to_its_input_and_passes_an_activation_after_both_of_its_layers() -> None:
    block = EncoderBlock(GraphAttention(8, 2, activation=nn.GELU()), 8, 0.1).eval()
    assert [type(layer) for layer in block.mlp] == [nn.Linear, nn.GELU, nn.Dropout] * 2
    assert [layer.weight.shape for layer in block.mlp if isinstance(layer, nn.Linear)] == [(8, 8), (8, 8)]
    nodes_BND = normal(2, 3, 8)
    attended = nodes_BND + block.attention(block.norm1(nodes_BND))
    torch.testing.assert_close(block(nodes_BND), attended + block.mlp(block.norm2(attended)))
    with torch.no_grad():
        for layer in (block.attention.value, block.mlp[3]):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        nn.init.zeros_(block.mlp[3].bias)  # type: ignore[arg-type]
    assert torch.equal(block(nodes_BND), nodes_BND)


def test_no_module_of_an_encoder_is_called_twice() -> None:
    """Attribution methods hook each activation, and need to know which call is which."""
    encoder = AttentionEncoder(GraphAttentionHeadConfig(heads=2, depth=3), 8, (4, 4))
    calls: list[nn.Module] = []
    for module in encoder.modules():
        module.register_forward_hook(lambda module, *_: calls.append(module))
    encoder(normal(1, 8, 4, 4))
    assert len(calls) == len(set(calls))
    assert sum(isinstance(module, nn.GELU) for module in calls) == 3 * 3  # of the scores, and two of the linear layers


# ── from a map to a vector ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_is_a_patch_and_its_position_which_starts_at_zero() -> None:
    embedding = PatchEmbedding(3, 8, 2, (7, 5))  # the last row and the last column fill no patch
    maps_BDhw = normal(2, 3, 7, 5)
    assert embedding.grid == (3, 2)
    assert embedding.convolution.weight.shape == (8, 3, 2, 2)
    assert not embedding.positions.any()
    nodes_BND = embedding(maps_BDhw)
    assert nodes_BND.shape == (2, 6, 8)
    patch = maps_BDhw[1, :, 4:6, 2:4]  # the third row of patches, the second column: node 5
    by_hand = (embedding.convolution.weight * patch).sum(dim=(1, 2, 3)) + embedding.convolution.bias
    torch.testing.assert_close(nodes_BND[1, 5], by_hand)
    with torch.no_grad():
        embedding.positions[5] += 1
    torch.testing.assert_close(embedding(maps_BDhw) - nodes_BND, torch.eye(6)[5].view(1, 6, 1).expand(2, 6, 8))


def test_a_map_of_other_sides_than_an_embedding_was_made_for_is_refused() -> None:
    with pytest.raises(ShapeError, match="the head was made for 2×4 patches and the map has 4×2"):
        PatchEmbedding(3, 8, 2, (4, 8))(normal(1, 3, 8, 4))


def test_a_query_of_zeros_pools_the_mean_of_the_values() -> None:
    pool = AttentionPool(AttentionPoolHeadConfig(heads=2, queries=3), 8).eval()
    with torch.no_grad():
        pool.queries[1] = 0
    maps_BDhw = normal(2, 8, 3, 5)
    values = pool.value(pool.norm(maps_BDhw.flatten(2).mT))
    torch.testing.assert_close(pool(maps_BDhw)[:, 8:16], values.mean(dim=1))
    (weights,) = pool.weights(maps_BDhw)
    torch.testing.assert_close(weights[:, :, 1], torch.full((2, 2, 15), 1 / 15))
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(2, 2, 3))


def test_a_pool_does_not_see_where_a_position_lies_and_takes_maps_of_any_size() -> None:
    pool = AttentionPool(AttentionPoolHeadConfig(heads=2), 8).eval()
    maps_BDhw = normal(2, 8, 3, 5)
    torch.testing.assert_close(pool(maps_BDhw.flip(3)), pool(maps_BDhw))
    assert pool(normal(2, 8, 9, 2)).shape == (2, 8)


# ── every head on several networks ───────────────────────────────────────────────────────────────────────────────────

GRAPH, SELF = GraphAttentionHeadConfig, SelfAttentionHeadConfig
PLACES: list[tuple[ArchitectureConfig, tuple[int, int], str | None, int]] = [
    (SpeednetConfig(widths=(16, 32, 32)), (32, 32), "groups.1", 2),  # 7×7
    (ResNet18Config(), (32, 32), None, 2),  # 4×4
    (CustomResNetConfig(), (32, 48), "layer3", 2),  # 4×6
    (TorchvisionConfig(name="mobilenet_v3_small"), (64, 64), None, 1),  # 2×2
    (HubConfig(repo=CLONE, name="tiny", trust_code=True), (32, 32), None, 4),  # 16×16
    (TimmConfig(name="test_vit"), (64, 64), None, 2),  # 4×4 patches
]


def heads(layer: str | None, patch: int) -> list[HeadConfig]:
    return [
        LinearHeadConfig(layer=layer),
        GRAPH(layer=layer, patch=patch, depth=2),
        SELF(layer=layer, patch=patch, width=24, heads=4),
        AttentionPoolHeadConfig(layer=layer, queries=2, width=24, heads=4),
    ]


def shown(value: Any) -> str:
    return f"{value.kind} {getattr(value, 'name', '')}".strip() if hasattr(value, "kind") else ""


EVERY = pytest.mark.parametrize(
    ("network", "size", "head"),
    [(network, size, head) for network, size, layer, patch in PLACES for head in heads(layer, patch)],
    ids=shown,
)


@cache
def _made(network: ArchitectureConfig, size: tuple[int, int], head: HeadConfig) -> HeadedNetwork:
    torch.manual_seed(0)
    made = build_network(network, CLASSES, size, head)
    assert isinstance(made, HeadedNetwork)
    assert made.training
    made.fit_to(normal(4, 3, *size, seed=1))
    with torch.no_grad():
        made(normal(4, 3, *size, seed=2))
    return made.eval()


def headed(network: ArchitectureConfig, size: tuple[int, int], head: HeadConfig) -> HeadedNetwork:
    return copy.deepcopy(_made(network, size, head))


@EVERY
def test_a_head_keeps_to_what_every_network_gives(network: Any, size: tuple[int, int], head: Any) -> None:
    made, images = headed(network, size, head), normal(3, 3, *size)
    with torch.no_grad():
        logits_BK, features_BD, maps = made(images), made.features(images), made.feature_map(images)
        assert torch.equal(made.head(features_BD), logits_BK)
        assert torch.equal(made(images), logits_BK)
        torch.testing.assert_close(made(images[1:2]), logits_BK[1:2], atol=1e-5, rtol=1e-4)
        memory = {"memory_format": torch.channels_last}
        again = made.to(**memory)(images.contiguous(**memory))  # type: ignore[call-overload]
        torch.testing.assert_close(again, logits_BK, atol=1e-5, rtol=1e-4)
    assert logits_BK.shape == (3, CLASSES)
    assert features_BD.shape == (3, made.head.in_features)
    assert made.head.bias is not None
    assert maps.ndim == 4
    assert all(layer in set(made.modules()) for layer in made.cam_layers)


@EVERY
def test_gradients_reach_every_parameter_of_backbone_and_head(network: Any, size: tuple[int, int], head: Any) -> None:
    made = headed(network, size, head).train()
    for name, parameter in made.named_parameters():  # timm starts some scales at zero, which hides what they scale
        if name.endswith("weight") and not parameter.any():
            nn.init.ones_(parameter)
    functional.cross_entropy(made(normal(5, 3, *size)), torch.arange(5)).backward()
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@EVERY
def test_the_weights_of_a_head_are_shares_that_can_be_drawn(network: Any, size: tuple[int, int], head: Any) -> None:
    made, images = headed(network, size, head), normal(3, 3, *size)
    with torch.no_grad():
        weights, maps = made.attention_weights(images), made.feature_map(images)
    assert len(weights) == (0 if head.kind == "linear" else getattr(head, "depth", 1))
    for found in weights:
        patch = getattr(head, "patch", 1)
        nodes = (maps.shape[2] // patch) * (maps.shape[3] // patch)
        assert found.shape == (3, head.heads, getattr(head, "queries", nodes), nodes)
        torch.testing.assert_close(found.sum(dim=3), torch.ones(found.shape[:3]))


@EVERY
def test_the_last_layer_alone_is_the_head_and_only_matrices_are_filters(
    network: Any, size: tuple[int, int], head: Any
) -> None:
    made = headed(network, size, head)
    groups = build_optimizer(MuonConfig(), made).param_groups
    parts = {id(parameter): group["part"] for group in groups for parameter in group["params"]}
    for name, parameter in made.named_parameters():
        if not parameter.requires_grad:
            continue
        if name == "backbone.whiten.bias":
            wanted = "whitening"
        elif name == "head.weight":
            wanted = "head"
        else:
            matrix = parameter.ndim >= 2 and not name.endswith(("positions", "queries", "pos_embed", "cls_token"))
            wanted = "filters" if matrix else "biases" if name.startswith("backbone.") else "head_biases"
        assert parts[id(parameter)] == wanted, name
    beyond = [name for name, _ in made.named_parameters() if name.startswith(made.beyond_backbone)]
    assert {name.split(".")[0] for name in beyond} == ({"head"} if head.kind == "linear" else {"neck", "head"})


@EVERY
def test_a_summary_of_a_head_counts_every_parameter_once(network: Any, size: tuple[int, int], head: Any) -> None:
    made = headed(network, size, head)
    lines = summarize(made, size)
    assert sum(line.parameters for line in lines) == count(made)
    names = [line.name for line in lines]
    assert names[-1] == "head"
    assert names[0].startswith("backbone.")
    assert any(name.startswith("neck") for name in names) == (head.kind != "linear")
    assert "backbone.head" not in names


@EVERY
def test_the_same_settings_and_weights_give_the_same_logits(network: Any, size: tuple[int, int], head: Any) -> None:
    made, images = headed(network, size, head), normal(2, 3, *size)
    fresh = build_network(network, CLASSES, size, head).eval()
    with torch.no_grad():
        assert not torch.equal(fresh(images), made(images))
        fresh.load_state_dict(made.state_dict())
        assert torch.equal(fresh(images), made(images))


def test_every_kind_of_head_is_among_these() -> None:
    assert {type(head) for head in heads(None, 2)} == set(members(HeadConfig))


def test_the_parameters_of_the_surveys_head_are_those_counted_by_hand() -> None:
    """On the 512×4×4 map of ResNet-18: 4 patches of 2×2."""
    made = build_network(ResNet18Config(), 10, (32, 32), GRAPH())
    by_hand = (
        (512 * 2 * 2 * 512 + 512)  # the convolution from patches to nodes
        + 4 * 512  # positions
        + 512 * 64 + 2 * 8 * 64  # attention
        + 2 * (512 * 512 + 512)  # two linear layers
        + 2 * 2 * 512  # two norms
        + 4 * 512 * 10 + 10  # the last layer reads all nodes
    )  # fmt: skip
    assert count(made.neck) + count(made.head) == by_hand  # type: ignore[arg-type]
    assert made.head.in_features == 2048


# ── what of the network is kept ──────────────────────────────────────────────────────────────────────────────────────


def test_speednets_map_of_7_by_7_makes_9_nodes_and_the_layers_behind_it_are_neither_kept_nor_computed() -> None:
    plain = build_network(SpeednetConfig(), 10, (32, 32))
    made: Any = build_network(SpeednetConfig(), 10, (32, 32), GRAPH(layer="groups.1"))
    assert made.neck.embedding.grid == (3, 3)
    assert not any(name.startswith("backbone.groups.2") for name in made.state_dict())
    kept = flops_per_image(made.backbone, (32, 32))
    assert kept == flops_per_image(plain, (32, 32)) - 2 * 9 * 256 * 256 * (7 * 7 + 3 * 3) - 2 * 256 * 10
    assert [layer.conv1.out_channels for layer in made.cam_layers] == [256, 64]


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        (SpeednetConfig(), [(64, 15), (256, 7), (256, 3)]),
        (ResNet18Config(), [(64, 32), (128, 16), (256, 8), (512, 4)]),
        (CustomResNetConfig(), [(64, 32), (128, 16), (128, 16), (256, 8), (512, 4), (512, 4)]),
    ],
    ids=shown,
)
def test_the_map_of_every_layer_can_be_read_and_pooled_as_the_network_does(
    network: Any, shapes: list[tuple[int, int]]
) -> None:
    for layer, (channels, side) in zip(network.layers, shapes, strict=True):
        made = headed(network, (32, 32), LinearHeadConfig(layer=layer))
        with torch.no_grad():
            maps = made.feature_map(normal(2, 3, 32, 32))
            features_BD = made.features(normal(2, 3, 32, 32))
        assert maps.shape == (2, channels, side, side)
        pooled = maps.mean(dim=(2, 3)) if isinstance(network, ResNet18Config) else maps.amax(dim=(2, 3))
        assert torch.equal(features_BD, pooled)
        assert made.backbone.layers == network.layers[: network.layers.index(layer) + 1]
        assert made.cam_layers[0] is made.backbone.get_submodule(layer)


def test_layers_behind_the_last_map_of_anothers_network_are_kept_only_for_a_head_that_reads_them() -> None:
    network, size = TorchvisionConfig(name="mobilenet_v3_small"), (64, 64)
    linear = build_network(network, CLASSES, size, LinearHeadConfig())
    pooled = build_network(network, CLASSES, size, AttentionPoolHeadConfig())
    assert "backbone.body.classifier.0.weight" in linear.state_dict()
    assert not any("classifier" in name for name in pooled.state_dict())
    assert count(linear) - count(pooled) > 576 * 1024 - 3 * 576**2


def test_weights_are_taken_over_without_what_the_head_replaces_and_nothing_is_called_unknown() -> None:
    plain = build_network(ResNet18Config(), 7, (32, 32))
    made: Any = build_network(ResNet18Config(), CLASSES, (32, 32), GRAPH(layer="layer3", patch=4))
    loaded = put_in(made.backbone, plain.state_dict(), "a.pth")
    assert (loaded.missing, loaded.unexpected, loaded.misshapen, loaded.fresh_head) == ([], [], [], False)
    assert loaded.loaded == loaded.total == 75  # 15 convolutions and 15 norms of four tensors
    assert torch.equal(made.backbone.layer3[1].conv2.weight, plain.layer3[1].conv2.weight)


@pytest.mark.parametrize(
    ("network", "size", "head", "sentence"),
    [
        (
            SpeednetConfig(),
            (32, 32),
            GRAPH(),
            "--head graph_attention has nothing to attend to: a map of 3×3 makes 1×1 patches of --head.patch 2, and two or"
            " more along each side are needed; choose --head.layer groups.1 (7×7) or --head.patch 1 or larger images",
        ),
        (ResNet18Config(), (32, 32), SELF(patch=3), "a map of 4×4 makes 1×1 patches of --head.patch 3, .* --head.patch 2"),
        (ResNet18Config(), (32, 16), GRAPH(), "a map of 4×2 makes 2×1 patches .* --head.layer layer3 "),
        (
            SpeednetConfig(),
            (16, 16),
            AttentionPoolHeadConfig(),
            "--head attention_pool has nothing to attend to: a map of 1×1 makes 1×1 positions, .* groups.1 .3×3. or larger",
        ),
        (
            HubConfig(repo=CLONE, name="tiny", trust_code=True),
            (32, 32),
            GRAPH(heads=5),
            "as many features as the map has channels, 16, which do not divide by --head.heads .5.; choose other heads",
        ),
    ],
)  # fmt: skip
def test_a_map_that_does_not_suit_the_head_is_refused_with_what_would(
    network: Any, size: tuple[int, int], head: Any, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence.replace("(7×7)", r"\(7×7\)")):
        build_network(network, CLASSES, size, head)


def test_what_a_map_just_suffices_for_is_taken() -> None:
    made: Any = build_network(SpeednetConfig(), CLASSES, (32, 32), GRAPH(patch=1))
    assert made.neck.embedding.grid == (3, 3)
    made = build_network(ResNet18Config(), CLASSES, (32, 32), GRAPH(patch=2))
    assert made.neck.embedding.grid == (2, 2)
