"""What learns when, by names and numbers that can be checked by hand."""

from itertools import pairwise
from typing import Any

import pytest
from torch import nn

from sightline.config.finetuning import GradualConfig, phase_epochs
from sightline.config.networks import CustomResNetConfig, ResNet18Config, SpeednetConfig, TorchvisionConfig
from sightline.config.resolving import resolve
from sightline.errors import ConfigError
from sightline.models.base import Network
from sightline.models.build import build_network
from sightline.training.optimizers import build_optimizer
from sightline.training.phases import frozen_modules, layers_of, phases_of, shares_of

SPEEDNET = SpeednetConfig(widths=(8, 16, 16))


def speednet() -> Network:
    return build_network(SPEEDNET, 3, (32, 32))


def recipe(finetune: Any, epochs: int = 8, **settings: Any) -> Any:
    network = {"kind": "run", "folder": "earlier"}
    return resolve({"finetune": finetune, "fit": {"epochs": epochs}, "network": network} | settings)


def phases(*written: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"kind": "phases", "phases": list(written)} | settings


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("config", "side", "names"),
    [
        (SPEEDNET, 32, "whiten+groups.0 groups.1 groups.2 head"),
        (ResNet18Config(), 32, "stem layer1 layer2 layer3 layer4 head"),
        (CustomResNetConfig(), 32, "prep layer1 residual1 layer2 layer3 residual2 head"),
        (
            TorchvisionConfig(name="resnet18"),
            64,
            "body.conv1+body.bn1 body.layer1 body.layer2 body.layer3 body.layer4 head",
        ),
        (
            TorchvisionConfig(name="mobilenet_v3_small"),
            32,
            " ".join(f"body.features.{place}" for place in range(13)) + " body.classifier head",
        ),
        (
            TorchvisionConfig(name="swin_t"),
            32,
            " ".join(f"body.features.{place}" for place in range(7)) + " body.features.7+body.norm head",
        ),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "kind", "")),
)
def test_layers_are_what_an_image_runs_through_as_one_piece(config: Any, side: int, names: str) -> None:
    network = build_network(config, 3, (side, side))
    layers = layers_of(network)
    assert " ".join("+".join(layer.names) for layer in layers) == names
    learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert sorted(name for layer in layers for name in layer.parameters) == sorted(learning)  # each in one


def test_a_network_around_another_is_taken_apart_and_its_head_is_the_head() -> None:
    class Wrapping(Network):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = speednet()
            self.backbone.head = nn.Identity()
            self.head = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 3))

    layers = layers_of(Wrapping())
    assert [layer.names[-1] for layer in layers] == [
        "backbone.groups.0",
        "backbone.groups.1",
        "backbone.groups.2",
        "head",
    ]
    assert layers[-1].parameters == ("head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias")


# ── epochs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("epochs", "count", "growth", "shared"),
    [
        (9, 3, 1, (3, 3, 3)),
        (8, 3, 1, (2, 3, 3)),  # what is left over goes to later phases
        (7, 3, 2, (1, 2, 4)),
        (20, 3, 2, (2, 6, 12)),
        (3, 3, 10, (1, 1, 1)),
        (5, 4, 10, (1, 1, 1, 2)),  # an epoch at least
        (1000, 2, 10, (90, 910)),
    ],
)
def test_epochs_are_shared_out_by_their_growth(epochs: int, count: int, growth: float, shared: tuple[int, ...]) -> None:
    found = phase_epochs(GradualConfig(phases=count, growth=growth), epochs)
    assert found == shared
    assert sum(found) == epochs


def test_without_phases_one_takes_all_epochs() -> None:
    assert phase_epochs(None, 8) == phase_epochs(recipe("frozen").finetune, 8) == (8,)


# ── phases ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_gradual_schedule_begins_with_the_head_and_ends_with_everything() -> None:
    network = speednet()
    found = phases_of(recipe({"kind": "gradual", "phases": 4}), network)
    assert [phase.layers for phase in found] == [
        ("head",),
        ("head", "groups.2"),
        ("head", "groups.2", "groups.1"),
        ("all",),
    ]
    assert [(phase.first, phase.epochs) for phase in found] == [(0, 2), (2, 2), (4, 2), (6, 2)]
    # of 16 → 16 channels: 2 · 16 · 16 · 9 filters and 2 · 16 biases of norms, whose scales never learn
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    assert [sum(sizes[name] for name in phase.trained) for phase in found] == [
        16 * 3,
        16 * 3 + 4608 + 32,
        16 * 3 + 4608 + 32 + 8 * 16 * 9 + 16 * 16 * 9 + 32,
        16 * 3 + 4608 + 32 + 8 * 16 * 9 + 16 * 16 * 9 + 32 + 24 * 8 * 9 + 8 * 8 * 9 + 16,
    ]


def test_each_phase_of_a_gradual_schedule_trains_all_that_the_one_before_trains_and_more() -> None:
    network = build_network(TorchvisionConfig(name="mobilenet_v3_small"), 3, (32, 32))
    for count in range(2, 16):
        found = phases_of(recipe({"kind": "gradual", "phases": count}, epochs=16), network)
        assert len(found) == count
        assert all(one.trained < other.trained for one, other in pairwise(found))
    with pytest.raises(ConfigError, match=r"--finetune.phases 16 is more than the network allows: .* at most 15"):
        phases_of(recipe({"kind": "gradual", "phases": 16}, epochs=16), network)


def test_frozen_trains_the_head_and_discriminative_everything() -> None:
    network = speednet()
    (frozen,) = phases_of(recipe("frozen"), network)
    (whole,) = phases_of(recipe("discriminative"), network)
    assert frozen.trained == {"head.weight"}
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert whole.trained == learning - {"whiten.bias"}  # of an earlier run, whose whitening has ended
    assert len(whole.trained) == 1 + 6 + 6


def test_the_whitening_bias_learns_in_phases_that_begin_in_its_epochs_only() -> None:
    for first, learns in ((2, True), (3, False)):
        written = phases({"epochs": first, "train": ["head"]}, {"epochs": 8 - first, "train": ["all"]})
        found = phases_of(recipe(written, network={"kind": "speednet", "whiten_bias_epochs": 3}), speednet())
        assert [("whiten.bias" in phase.trained) for phase in found] == [False, learns]


def test_layers_are_named_as_finely_as_one_likes() -> None:
    written = phases(
        {"epochs": 3, "train": ["groups.1.conv2", "groups.1.norm2.bias"]}, {"epochs": 5, "train": ["groups"]}
    )
    first, second = phases_of(recipe(written), speednet())
    assert first.trained == {"groups.1.conv2.weight", "groups.1.norm2.bias"}
    assert len(second.trained) == 12


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        (["head", "layer3"], "phase 2 of finetune trains 'layer3', and the network has no such layer; known are: all, head, "),
        (["groups.3"], "trains 'groups.3', and the network has no such layer; did you mean 'groups.2'"),
        (["group"], "trains 'group', and the network has no such layer; did you mean 'groups'"),
        (["groups.1.conv"], "did you mean 'groups.1.conv"),
        (["groups.1.activation1"], "trains 'groups.1.activation1', and the network has no such layer"),
        (["head", "whiten"], "phase 2 of finetune trains 'whiten', in which nothing learns any more; leave it out"),
        (["groups.0.norm1.weight"], "phase 2 of finetune trains 'groups.0.norm1.weight', in which nothing learns"),
    ],
)  # fmt: skip
def test_a_phase_that_names_what_is_not_there_or_does_not_learn_is_refused(trained: list[str], message: str) -> None:
    written = phases({"epochs": 4, "train": ["head"]}, {"epochs": 4, "train": trained})
    with pytest.raises(ConfigError, match=message):
        phases_of(recipe(written), speednet())


def test_a_phase_that_trains_the_same_by_other_names_is_refused() -> None:
    other = ["head", "groups.0", "groups.1", "groups.2"]
    with pytest.raises(ConfigError, match=r"phase 2 of finetune trains the same as phase 1, at the same rate"):
        phases_of(recipe(phases({"epochs": 4, "train": ["all"]}, {"epochs": 4, "train": other})), speednet())
    slower = phases({"epochs": 4, "train": ["all"]}, {"epochs": 4, "train": other, "rate": 0.1})
    assert len(phases_of(recipe(slower), speednet())) == 2


# ── rates ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_layer_learns_at_the_power_of_its_distance_from_the_head() -> None:
    network = speednet()
    shares = shares_of(recipe({"kind": "discriminative", "layer_decay": 0.5}), network)
    assert shares["head.weight"] == 1
    assert shares["groups.2.conv1.weight"] == shares["groups.2.norm2.bias"] == 0.5
    assert shares["groups.1.conv1.weight"] == 0.25
    assert shares["groups.0.conv1.weight"] == shares["whiten.bias"] == 0.125
    assert shares_of(recipe("frozen"), network) == {}


@pytest.mark.parametrize(
    ("optimizer", "rates"),
    [
        ({"kind": "sgd", "learning_rate": 0.1}, {"filters": [0.05, 0.025, 0.0125], "head": [0.1], "biases": [0.05, 0.025, 0.0125]}),
        ({"kind": "muon", "learning_rate": 0.24, "head_learning_rate": 0.02, "bias_learning_rate": 100.0},
         {"filters": [0.12, 0.06, 0.03], "head": [0.02], "biases": [50, 25, 12.5]}),
    ],
)  # fmt: skip
def test_every_part_of_a_layer_learns_at_its_share_of_the_rate_of_the_part(optimizer: Any, rates: dict) -> None:
    chosen = recipe({"kind": "discriminative", "layer_decay": 0.5}, optimizer=optimizer)
    network = speednet()
    network.get_parameter("whiten.bias").requires_grad = False
    found: dict[str, list[float]] = {}
    for group in build_optimizer(chosen.optimizer, network, shares_of(chosen, network)).param_groups:
        found.setdefault(group["part"], []).append(group["lr"])
    assert found == {part: pytest.approx(values) for part, values in rates.items()}


# ── modes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def frozen_names(network: Network, trained: set[str]) -> set[str]:
    layers = layers_of(network)
    frozen = frozen_modules(network, layers, trained)
    return {name for name, module in network.named_modules() if module in frozen}


def test_a_layer_in_which_nothing_learns_is_frozen_to_its_last_module() -> None:
    network = speednet()
    everything = {name for name, _ in network.named_modules()}
    groups = {name for name in everything if name.startswith(("groups", "whiten"))}
    assert frozen_names(network, {"head.weight"}) == groups
    of_two = {name for name in groups if name.startswith("groups.2")}
    conv_of_two = frozen_names(network, {"head.weight", "groups.2.conv2.weight"})
    assert conv_of_two == groups - of_two - {"groups"} | {"groups.2.conv1", "groups.2.norm1", "groups.2.norm2"}
    assert frozen_names(network, {"head.weight", "groups.1.norm1.bias"}) >= of_two
    assert frozen_names(network, {name for name, _ in network.named_parameters()}) == set()


def test_dropout_goes_with_its_block_and_that_before_the_head_with_the_head() -> None:
    network = build_network(TorchvisionConfig(name="mobilenet_v2"), 3, (32, 32))
    dropout = "body.classifier.0"
    assert isinstance(network.get_submodule(dropout), nn.Dropout)
    assert dropout not in frozen_names(network, {"head.weight", "head.bias"})
    assert dropout in frozen_names(network, {"body.features.0.0.weight"})
    network = build_network(TorchvisionConfig(name="mobilenet_v3_small"), 3, (32, 32))
    assert "body.classifier.2" in frozen_names(network, {"head.weight", "head.bias"})  # between two matrices
