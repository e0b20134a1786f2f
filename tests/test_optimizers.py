"""One optimizer for each learner: what each part gets, and what a step does."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sightline.config.building import members, required
from sightline.config.heads import GraphAttentionHeadConfig
from sightline.config.networks import NetworkConfig, SpeednetConfig
from sightline.config.optimizers import AdagradConfig, AdamConfig, MuonConfig, OptimizerConfig, RMSpropConfig, SGDConfig
from sightline.models.base import Network
from sightline.models.build import build_network
from sightline.training.optimizers import Muon, build_optimizer, main_rate, orthogonalize

NETWORKS = pytest.mark.parametrize(
    "kind", [kind for kind in members(NetworkConfig) if not required(kind)], ids=lambda kind: kind.__name__
)
OPTIMIZERS = pytest.mark.parametrize("kind", members(OptimizerConfig), ids=lambda kind: kind.__name__)

MUON = MuonConfig(
    learning_rate=0.3, momentum=0.5, head_learning_rate=0.02, bias_learning_rate=4.0, head_momentum=0.8, shrink=0.01
)


def small() -> Network:
    torch.manual_seed(0)
    return build_network(SpeednetConfig(widths=(8, 8, 8)), 3, (16, 16))


def parts(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    return {group["part"]: group for group in optimizer.param_groups}


def without_gradient(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)


# ── orthogonal steps ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", [(64, 216), (216, 64), (256, 576), (8, 1), (1, 8)])
def test_orthogonalizing_brings_every_singular_value_near_one_and_keeps_the_shape(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    found = orthogonalize(torch.randn(shape))
    assert found.shape == shape
    assert found.dtype == torch.float32
    values = torch.linalg.svdvals(found)
    assert 0.6 < values.min() <= values.max() < 1.3


def test_orthogonalizing_lifts_small_singular_values_and_lowers_none_to_nothing() -> None:
    values = torch.linalg.svdvals(orthogonalize(torch.diag(torch.tensor([1.0, 0.5, 0.3, 0.1, 0.05]))))
    assert 0.6 < values.min() <= values.max() < 1.3


def test_orthogonalizing_keeps_signs_and_forgets_the_scale() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(16, 48)
    found = orthogonalize(matrix)
    assert torch.equal(orthogonalize(-matrix), -found)
    assert torch.equal(orthogonalize(matrix * 1024), found)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    signs = (left.T @ found @ right.T).diagonal()  # of every singular direction
    assert signs.min() > 0.5
    assert torch.equal(orthogonalize(matrix.T), found.T)


def test_orthogonalizing_nothing_gives_nothing() -> None:
    assert torch.equal(orthogonalize(torch.zeros(4, 6)), torch.zeros(4, 6))


# ── what each part gets ──────────────────────────────────────────────────────────────────────────────────────────────


@NETWORKS
@pytest.mark.parametrize("settings", [kind() for kind in members(OptimizerConfig)], ids=lambda settings: settings.kind)
def test_every_trainable_parameter_is_in_the_group_of_its_part_and_no_frozen_one_in_any(
    kind: Any, settings: OptimizerConfig
) -> None:
    network = build_network(kind(), 5, (32, 32))
    optimizer = build_optimizer(settings, network)
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    trainable = {id(parameter): name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(trainable)
    head = {id(parameter) for parameter in network.head.parameters()}
    for part, group in parts(optimizer).items():
        for parameter in group["params"]:
            if part in ("filters", "head"):
                assert parameter.ndim >= 2
                assert (id(parameter) in head) == (part == "head")
            else:
                assert parameter.ndim == 1
                assert (trainable[id(parameter)] == "whiten.bias") == (part == "whitening")
                assert (id(parameter) in head) == (part == "head_biases")


def test_the_parts_of_speednet_are_those_counted_by_hand() -> None:
    network = small()
    counts = {part: len(group["params"]) for part, group in parts(build_optimizer(MuonConfig(), network)).items()}
    assert counts == {"filters": 6, "head": 1, "biases": 6, "whitening": 1}
    network.requires_grad_(False)
    network.head.requires_grad_(True)
    assert list(parts(build_optimizer(SGDConfig(), network))) == ["head"]


@NETWORKS
@pytest.mark.parametrize("kind_of_optimizer", [kind for kind in members(OptimizerConfig) if kind is not MuonConfig])
def test_without_gradients_filters_decay_and_biases_and_norms_stay(kind: Any, kind_of_optimizer: Any) -> None:
    network = build_network(kind(), 5, (32, 32))
    optimizer = build_optimizer(kind_of_optimizer(learning_rate=1e-5, weight_decay=0.5), network)
    without_gradient(optimizer)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer.step()
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2 and parameter.requires_grad:
            assert parameter.norm() < before[name].norm()
        else:
            assert torch.equal(parameter, before[name])


def test_muon_gives_each_part_its_own_rate_and_shrinks_all_but_the_filters() -> None:
    found = {
        part: tuple(group[name] for name in ("lr", "momentum", "weight_decay", "orthogonal"))
        for part, group in parts(build_optimizer(MUON, small())).items()
    }
    assert found == {
        "filters": (0.3, 0.5, 0.0, True),
        "head": (0.02, 0.8, 0.5, False),  # 0.01 / 0.02
        "biases": (4.0, 0.8, 0.0025, False),
        "whitening": (4.0, 0.8, 0.0025, False),
    }


@OPTIMIZERS
def test_parameters_of_one_part_and_share_are_a_group_at_that_share_of_the_rate_and_the_same_decay(kind: Any) -> None:
    shares = {"groups.0.conv1.weight": 0.25, "groups.0.conv2.weight": 0.25, "groups.1.norm1.bias": 0.5}
    whole, parted = (build_optimizer(kind(), small(), given).param_groups for given in (None, shares))
    peaks = {group["part"]: (group["lr"], group["weight_decay"]) for group in whole}
    found = [(group["part"], group["share"], len(group["params"])) for group in parted]
    assert found == [("filters", 1.0, 4), ("filters", 0.25, 2), ("head", 1.0, 1), ("biases", 1.0, 5), ("biases", 0.5, 1),
                     ("whitening", 1.0, 1)]  # fmt: skip
    for group in parted:
        rate, decay = peaks[group["part"]]
        assert (group["lr"], group["weight_decay"]) == (rate * group["share"], decay)


def test_the_rate_that_is_shown_is_that_of_the_filters_or_of_the_head_where_they_are_frozen() -> None:
    network = small()
    config = MuonConfig(learning_rate=0.3, head_learning_rate=0.02, bias_learning_rate=100.0)
    optimizer = build_optimizer(config, network, {"groups.2.conv1.weight": 0.5})
    assert main_rate(optimizer) == 0.3
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name in ("head.weight", "groups.2.conv1.weight", "groups.0.norm1.bias")
    assert main_rate(optimizer) == 0.15
    network.get_parameter("groups.2.conv1.weight").requires_grad = False
    assert main_rate(optimizer) == 0.02


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_muon_does_not_orthogonalize_moves_exactly_as_under_torchs_sgd() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(start) for start in torch.randn(7, 5).expand(2, 7, 5).clone())
    settings = {"lr": 0.1, "momentum": 0.85, "weight_decay": 0.03}
    muon = Muon([{"params": [ours], **settings}])
    sgd = torch.optim.SGD([theirs], nesterov=True, **settings)
    for step in range(20):
        ours.grad = torch.randn(7, 5)
        theirs.grad = ours.grad.clone()
        for optimizer in (muon, sgd):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)  # a schedule changes it between steps
            optimizer.step()
        assert torch.equal(ours, theirs), f"step {step}"


def test_without_gradients_a_filter_is_only_set_back_to_the_norm_of_the_root_of_its_outputs() -> None:
    torch.manual_seed(0)
    filters = nn.Parameter(torch.randn(16, 3, 3, 3) * 7)
    before = filters.detach().clone()
    filters.grad = torch.zeros_like(filters)
    Muon([{"params": [filters], "lr": 0.3, "momentum": 0.6, "orthogonal": True}]).step()
    assert filters.norm().item() == pytest.approx(4.0, rel=1e-6)
    torch.testing.assert_close(filters.detach(), before * 4.0 / before.norm())


def test_the_first_muon_step_goes_down_the_orthogonalized_gradient_from_the_reset_filter() -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(16, 3, 3, 3), torch.randn(16, 3, 3, 3)
    filters = nn.Parameter(start.clone())
    filters.grad = gradient.clone()
    Muon([{"params": [filters], "lr": 0.3, "momentum": 0.6, "orthogonal": True}]).step()
    wanted = start * 4 / start.norm() - 0.3 * orthogonalize(gradient.flatten(1)).view_as(start)
    torch.testing.assert_close(filters.detach(), wanted, atol=0.01, rtol=0)  # the iteration is in bfloat16


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        (
            AdamConfig(learning_rate=0.1, weight_decay=0.5),
            0.1,
        ),  # the first step of Adam: the rate, whatever the gradient
        (AdagradConfig(learning_rate=0.1, weight_decay=0.5), 0.1),  # gradient over the root of its square
        (RMSpropConfig(learning_rate=0.1, alpha=0.99, weight_decay=0.5), 1.0),  # over the root of a hundredth of it
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_the_first_step_of_what_adapts_its_rates_does_not_depend_on_the_size_of_the_gradient(
    settings: OptimizerConfig, step: float
) -> None:
    network = small()
    optimizer = build_optimizer(settings, network)
    weight = network.head.weight
    before = weight.detach().clone()
    weight.grad = torch.full_like(weight, 7.0)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before - step)


def test_a_parameter_without_gradient_stays_and_a_closure_is_asked_for_the_loss() -> None:
    moved, left = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Muon([{"params": [moved, left], "lr": 0.5}])

    def closure() -> Tensor:
        loss = moved.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2.0
    assert moved.tolist() == [0.5, 0.5]
    assert left.tolist() == [1.0, 1.0]


@OPTIMIZERS
def test_a_restored_optimizer_goes_on_bit_by_bit(kind: Any) -> None:
    images, labels = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3

    def train(network: Network, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()

    network = small()
    optimizer = build_optimizer(kind(), network)
    train(network, optimizer)
    file = io.BytesIO()
    torch.save([network.state_dict(), optimizer.state_dict()], file)
    train(network, optimizer)

    restored = small()
    again = build_optimizer(kind(), restored)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    restored.load_state_dict(weights)
    again.load_state_dict(state)
    train(restored, again)
    for name, value in network.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name]), name
    assert parts(again).keys() == parts(optimizer).keys()


@OPTIMIZERS
def test_every_optimizer_brings_the_loss_down(kind: Any) -> None:
    network = small()
    optimizer = build_optimizer(kind() if kind is not MuonConfig else MuonConfig(bias_learning_rate=1.0), network)
    images = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(24) % 3
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] * 0.8


def test_positions_and_tokens_of_a_transformer_are_no_filters() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))  # of norm zero, which Muon would divide by
            self.block = nn.Linear(8, 8)
            self.head = nn.Linear(8, 3)

    made = Tokens()
    parts = {
        id(parameter): group["part"]
        for group in build_optimizer(MuonConfig(), made).param_groups
        for parameter in group["params"]
    }
    named = {name: parts[id(parameter)] for name, parameter in made.named_parameters()}
    assert named == {
        "pos_embed": "biases",
        "block.weight": "filters",
        "block.bias": "biases",
        "head.weight": "head",
        "head.bias": "head_biases",
    }


def test_muon_gives_a_heads_biases_the_rate_of_the_last_layer_which_is_less_for_more_nodes_side_by_side() -> None:
    torch.manual_seed(0)
    head = GraphAttentionHeadConfig(heads=2, patch=1)
    network = build_network(SpeednetConfig(widths=(8, 8, 8)), 3, (32, 32), head)  # a map of 3×3
    found = {
        part: (group["lr"], group["weight_decay"]) for part, group in parts(build_optimizer(MUON, network)).items()
    }
    assert found == {
        "filters": (0.3, 0.0),
        "head": (0.02 / 9, pytest.approx(4.5)),  # 0.01 · 9 / 0.02
        "biases": (4.0, 0.0025),
        "whitening": (4.0, 0.0025),
        "head_biases": (0.02, 0.5),
    }
