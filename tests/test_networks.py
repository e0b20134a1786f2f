"""What every network keeps to, and what each is. B images, height H, width W, D features, K classes."""

import copy
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.config.building import members
from sightline.config.heads import LinearHeadConfig
from sightline.config.networks import (
    ArchitectureConfig,
    CustomResNetConfig,
    HubConfig,
    ResNet18Config,
    ResNet34Config,
    SpeednetConfig,
    TimmConfig,
    TorchvisionConfig,
)
from sightline.models.base import Network
from sightline.models.build import build_network, summarize
from sightline.models.flops import flops_per_image, training_flops
from sightline.models.resnet import ResNet18
from sightline.models.speednet import Speednet, whitening_filters

CLASSES = 5
CLONE = str(Path(__file__).parent / "hub_clone")
MEMBERS: list[ArchitectureConfig] = [
    SpeednetConfig(),
    SpeednetConfig(depth=3),
    ResNet18Config(),
    ResNet34Config(),
    CustomResNetConfig(),
    TorchvisionConfig(name="shufflenet_v2_x0_5"),
    HubConfig(repo=CLONE, name="tiny", trust_code=True),
    TimmConfig(name="test_resnet"),
    TimmConfig(name="test_vit"),
]


def shown(value: Any) -> str:
    return (
        "x".join(map(str, value)) if isinstance(value, tuple) else f"{value.kind} {getattr(value, 'name', '')}".strip()
    )


EVERY_NETWORK = pytest.mark.parametrize("kind", MEMBERS, ids=shown)
EVERY_NETWORK_AND_SIZE = pytest.mark.parametrize(
    ("kind", "size"),
    [
        (config, size)
        for config in MEMBERS
        for size in [(32, 32), (96, 96), (28, 36)]
        if size == (32, 32) or config in MEMBERS[:2] or (size == (28, 36) and config == MEMBERS[3])
    ],
    ids=shown,
)


def images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def network(kind: Any, size: tuple[int, int]) -> Network:
    """A network (by its settings, or their kind) that has seen some images, so that its norms are not those of a new one."""
    return copy.deepcopy(_network(kind() if isinstance(kind, type) else kind, size))


@cache
def _network(kind: Any, size: tuple[int, int]) -> Network:
    torch.manual_seed(0)
    made = build_network(kind, CLASSES, size)
    made.fit_to(images(4, size, seed=1))
    with torch.no_grad():
        made(images(4, size, seed=2))
    return made.eval()


def sides(made: Network, size: tuple[int, int], layers: list[nn.Module]) -> list[tuple[int, ...]]:
    """(height, width) that each layer puts out."""
    found: dict[nn.Module, tuple[int, ...]] = {}
    hooks = [
        layer.register_forward_hook(lambda module, _, output: found.update({module: tuple(output.shape[2:])}))
        for layer in layers
    ]
    with torch.no_grad():
        made(images(1, size))
    for hook in hooks:
        hook.remove()
    return [found[layer] for layer in layers]


# ── every network ────────────────────────────────────────────────────────────────────────────────────────────────────


@EVERY_NETWORK_AND_SIZE
def test_a_network_gives_logits_features_and_a_map_whose_head_gives_the_logits(
    kind: Any, size: tuple[int, int]
) -> None:
    made = network(kind, size)
    batch = images(3, size)
    with torch.no_grad():
        logits_BK, features_BD, maps = made(batch), made.features(batch), made.feature_map(batch)
        assert torch.equal(made.head(features_BD), logits_BK)
    assert logits_BK.shape == (3, CLASSES)
    assert maps.ndim == 4
    assert features_BD.shape == (3, made.head.in_features)
    assert len(maps) == 3
    assert torch.isfinite(logits_BK).all()


@EVERY_NETWORK_AND_SIZE
def test_an_answer_is_the_same_every_time_and_does_not_depend_on_the_other_images(
    kind: Any, size: tuple[int, int]
) -> None:
    made = network(kind, size)
    batch = images(3, size)
    with torch.no_grad():
        logits_BK = made(batch)
        assert torch.equal(made(batch), logits_BK)
        torch.testing.assert_close(made(batch[1:2]), logits_BK[1:2], atol=1e-4, rtol=1e-4)
        others = torch.cat([batch[:1], 100 * batch[2:]])
        torch.testing.assert_close(made(others)[:1], logits_BK[:1], atol=1e-4, rtol=1e-4)


@EVERY_NETWORK_AND_SIZE
def test_gradients_reach_every_trainable_parameter_and_no_frozen_one(kind: Any, size: tuple[int, int]) -> None:
    made = network(kind, size).train()
    for (
        name,
        parameter,
    ) in made.named_parameters():  # timm starts the last norm of a block at zero, which hides the block
        if name.endswith("weight") and not parameter.any():
            nn.init.ones_(parameter)
    functional.cross_entropy(made(images(5, size)), torch.arange(5)).backward()
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name


@EVERY_NETWORK_AND_SIZE
def test_the_layers_to_explain_are_the_networks_own_and_go_from_coarse_to_fine(
    kind: Any, size: tuple[int, int]
) -> None:
    made = network(kind, size)
    modules = set(made.modules())
    assert len(made.cam_layers) >= (1 if hasattr(made, "body") else 3)  # a transformer has one size of map
    assert all(layer in modules for layer in made.cam_layers)
    found = sides(made, size, made.cam_layers)
    with torch.no_grad():
        assert found[0] == tuple(made.feature_map(images(1, size)).shape[2:])
    for coarse, fine in pairwise(found):
        assert fine[0] > coarse[0]
        assert fine[1] > coarse[1]


@EVERY_NETWORK_AND_SIZE
def test_weights_put_into_a_new_network_give_the_same_logits(kind: Any, size: tuple[int, int]) -> None:
    made = network(kind, size)
    torch.manual_seed(9)
    fresh = build_network(kind, CLASSES, size).eval()
    with torch.no_grad():
        logits_BK = made(images(2, size))
        assert not torch.equal(fresh(images(2, size)), logits_BK)
        fresh.load_state_dict(made.state_dict())
        assert torch.equal(fresh(images(2, size)), logits_BK)


@EVERY_NETWORK_AND_SIZE
def test_a_summary_counts_every_parameter_and_leaves_the_network_as_it_was(kind: Any, size: tuple[int, int]) -> None:
    made = network(kind, size).train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    lines = summarize(made, size)
    total = sum(parameter.numel() for parameter in made.parameters())
    assert sum(line.parameters for line in lines) == total
    assert sum(line.megabytes for line in lines) == pytest.approx(total * 4 / 1e6)
    assert {line.name.split(".")[0] for line in lines} == {name for name, _ in made.named_children()}
    assert all(line.output for line in lines if line.name != "body")  # which holds what no layer of it holds
    assert lines[-1].output == (CLASSES,)
    assert flops_per_image(made, size) > 2 * total / 10
    assert made.training
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_operations_of_a_training_counted_by_hand() -> None:
    class Counted(Network):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
            self.second = nn.Conv2d(8, 4, 1, bias=False)
            self.head = nn.Linear(4, 2, bias=False)

        def feature_map(self, images: Tensor) -> Tensor:
            maps: Tensor = self.second(self.first(images))
            return maps

    pixels = 8 * 8  # multiplications and additions of an image of 8 × 8 px:
    first, second, head = 2 * pixels * 8 * (3 * 9), 2 * pixels * 4 * 8, 2 * 4 * 2
    whole = ((8, 8), frozenset({"first.weight", "second.weight", "head.weight"}))
    assert flops_per_image(Counted(), (8, 8)) == first + second + head
    # forwards, gradients of weights, and, but for the first layer, of what a layer is given
    assert training_flops(Counted(), [whole], images=10) == 10 * (2 * first + 3 * second + 3 * head)
    quarter = ((4, 4), whole[1])
    both = training_flops(Counted(), [quarter, whole], images=10)
    assert both == 10 * (1.25 * (2 * first + 3 * second) + 2 * 3 * head)
    frozen = ((8, 8), frozenset({"head.weight"}))
    assert training_flops(Counted(), [frozen] * 2, images=10) == 2 * 10 * (first + second + 2 * head)
    kept = training_flops(Counted(), [frozen] * 2, images=10, kept_views=2)
    assert kept == 2 * 10 * (first + second) + 2 * 10 * 2 * head  # two views of each image once, then the head alone
    middle = ((8, 8), frozenset({"first.weight", "head.weight"}))  # through a frozen layer gradients go all the same
    assert training_flops(Counted(), [middle], images=10) == 10 * (2 * first + 2 * second + 3 * head)


def test_a_network_in_another_one_is_counted_once() -> None:
    """A head calls its backbone's parts, not the backbone: what runs in them is no work of the network around."""
    config = SpeednetConfig(widths=(8, 16, 16))
    plain = build_network(config, 10, (32, 32))
    headed = build_network(config, 10, (32, 32), LinearHeadConfig())
    for trained in ("head.", ""):
        both = [
            frozenset(name for name, _ in network.named_parameters() if name.startswith(trained))
            for network in (plain, headed)
        ]
        for kept in (0, 2):
            assert training_flops(headed, [((32, 32), both[1])] * 3, 10, kept_views=kept) == training_flops(
                plain, [((32, 32), both[0])] * 3, 10, kept_views=kept
            )


@EVERY_NETWORK
def test_the_same_seed_makes_the_same_network(kind: Any) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(build_network(kind, CLASSES, (32, 32)).state_dict())
    assert list(weights[0]) == list(weights[1])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@EVERY_NETWORK
def test_the_settings_of_a_kind_build_a_network_that_takes_16_px(kind: Any) -> None:
    made = network(kind, (16, 16))
    with torch.no_grad():
        assert made(images(2, (16, 16))).shape == (2, CLASSES)


@EVERY_NETWORK
def test_channels_last_in_memory_gives_the_same_answer(kind: Any) -> None:
    made, batch = network(kind, (32, 32)), images(3, (32, 32))
    with torch.no_grad():
        logits_BK = made(batch)
        made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        again = made(batch.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(again, logits_BK, atol=1e-4, rtol=1e-4)


@EVERY_NETWORK
def test_the_gradient_of_a_logit_reaches_the_layers_to_explain(kind: Any) -> None:
    made = network(kind, (32, 32))
    found: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda module, _, output: found.append(output)) for layer in made.cam_layers]
    logit = made(images(1, (32, 32)))[0, 2]
    for hook in hooks:
        hook.remove()
    assert len(found) == len(made.cam_layers)
    for gradient in torch.autograd.grad(logit, found):
        assert gradient.ndim == 4
        assert gradient.abs().max() > 0


def test_every_kind_of_network_is_among_these() -> None:
    assert {type(config) for config in MEMBERS} == set(members(ArchitectureConfig))


def test_a_network_that_does_not_say_what_it_is_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Network must define feature_map"):
        Network().features(images(1, (16, 16)))
    with pytest.raises(NotImplementedError, match="Network must define cam_layers"):
        _ = Network().cam_layers


# ── speednet ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_speednet_has_a_map_of_7_by_7_inside_and_3_by_3_at_the_end_at_32_px() -> None:
    made = network(SpeednetConfig, (32, 32))
    assert sides(made, (32, 32), made.cam_layers) == [(3, 3), (7, 7), (15, 15)]
    assert sides(made, (32, 32), [made.whiten]) == [(31, 31)]  # type: ignore[list-item]
    small = network(SpeednetConfig, (16, 16))
    assert sides(small, (16, 16), small.cam_layers) == [(1, 1), (3, 3), (7, 7)]


def test_speednets_floating_point_operations_are_those_counted_by_hand_at_32_px() -> None:
    by_hand = (
        31 * 31 * 24 * 3 * 2 * 2  # whitening: 2×2 patches of 3 channels to 24
        + 31 * 31 * 64 * 24 * 9
        + 15 * 15 * 64 * 64 * 9
        + 15 * 15 * 256 * 64 * 9
        + 7 * 7 * 256 * 256 * 9
        + 7 * 7 * 256 * 256 * 9
        + 3 * 3 * 256 * 256 * 9
        + 256 * 10
    )  # multiplications; each goes with an addition
    assert flops_per_image(build_network(SpeednetConfig(), 10, (32, 32)), (32, 32)) == 2 * by_hand


def test_speednets_parameters_are_those_counted_by_hand() -> None:
    filters = 24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256
    norms = 2 * 2 * (64 + 256 + 256)  # a scale, which is frozen, and a bias, twice a group
    made = build_network(SpeednetConfig(), 10, (32, 32))
    total = 9 * filters + norms + 24 * 12 + 24 + 256 * 10
    assert sum(parameter.numel() for parameter in made.parameters()) == total


def test_a_third_convolution_of_each_group_is_skipped_by_a_shortcut() -> None:
    made = build_network(SpeednetConfig(depth=3), 10, (32, 32)).eval()
    plain = build_network(SpeednetConfig(), 10, (32, 32))
    more = 15 * 15 * 64 * 64 * 9 + 7 * 7 * 256 * 256 * 9 + 3 * 3 * 256 * 256 * 9
    assert flops_per_image(made, (32, 32)) == flops_per_image(plain, (32, 32)) + 2 * more
    assert set(made.state_dict()) > set(plain.state_dict())
    group: Any = made.groups[1]  # type: ignore[index]
    maps = images(2, (10, 10)).repeat(1, 22, 1, 1)[:, :64]
    with torch.no_grad():
        group.conv3.weight.zero_()
        halved = group.activation1(group.norm1(group.pool(group.conv1(maps))))
        assert torch.equal(group(maps), group.activation3(halved))  # what the third adds is nothing


def test_a_group_starts_by_handing_its_inputs_on() -> None:
    made = build_network(SpeednetConfig(widths=(16, 32, 32)), 2, (32, 32))
    maps = images(2, (10, 10)).repeat(1, 8, 1, 1)[:, :24]
    first: Any = made.groups[0]  # type: ignore[index]
    assert torch.equal(first.conv1(maps), maps[:, :16])  # fewer outputs than inputs
    second: Any = made.groups[1]  # type: ignore[index]
    assert torch.equal(second.conv1(maps[:, :16])[:, :16], maps[:, :16])
    assert second.conv1.weight[16:].flatten(1).norm(dim=1).min() > 0.1  # the outputs beyond look at something too


def test_speednets_features_are_the_maxima_of_its_map() -> None:
    made = network(SpeednetConfig, (32, 32))
    with torch.no_grad():
        maps, features_BD = made.feature_map(images(2, (32, 32))), made.features(images(2, (32, 32)))
    assert features_BD[1, 7] == maps[1, 7].max()
    assert torch.equal(features_BD, maps.flatten(2).max(dim=2).values)


@pytest.mark.parametrize(("side", "patch"), [(32, 2), (64, 2), (65, 4), (96, 4)])
def test_whitened_patches_of_the_images_are_uncorrelated_and_of_equal_power(side: int, patch: int) -> None:
    batch = functional.avg_pool2d(images(15, (side, side)), 3, 1, 1) + 0.5 * images(15, (1, 1), seed=3)
    made = Speednet(CLASSES, (side, side))
    made.fit_to(batch)
    directions = 3 * patch**2
    assert made.whiten.kernel_size == (patch, patch)
    with torch.no_grad():
        answers = functional.conv2d(batch, made.whiten.weight, made.whiten.bias)  # every position, whatever the stride
    first, second = answers.split(directions, dim=1)
    torch.testing.assert_close(first, -second)
    answers_CN = first.transpose(0, 1).flatten(1).double()
    power_CC = answers_CN @ answers_CN.T / answers_CN.shape[1]
    torch.testing.assert_close(power_CC, torch.eye(directions).double(), atol=0.12, rtol=0)
    off_diagonal = power_CC - torch.diag(power_CC.diagonal())
    assert off_diagonal.abs().max() < 1e-3
    assert (power_CC.diagonal().diff() <= 1e-6).all()  # the strongest direction first, the faintest held back most


def test_whitening_of_images_of_one_colour_stays_finite() -> None:
    assert torch.isfinite(whitening_filters(torch.zeros(2, 3, 16, 16), 2)).all()
    assert torch.isfinite(whitening_filters(torch.full((2, 3, 16, 16), 2.0), 2)).all()


def test_whitening_of_grey_images_has_no_filter_for_the_colour_they_lack() -> None:
    grey = images(20, (32, 32)).mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    filters = whitening_filters(grey, 2)
    assert filters.shape == (24, 3, 2, 2)
    power = functional.conv2d(grey, filters).square().mean(dim=(0, 2, 3))
    torch.testing.assert_close(power, torch.ones(24), atol=0.01, rtol=0)
    assert len(filters.flatten(1).round(decimals=5).unique(dim=0)) == 8  # one of 2×2 numbers, and their opposites


def test_fitting_to_images_sets_the_whitening_and_nothing_else() -> None:
    made = Speednet(CLASSES, (32, 32))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.fit_to(images(8, (32, 32)))
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"whiten.weight", "whiten.bias"}
    assert not made.whiten.weight.requires_grad
    assert made.whiten.bias is not None
    assert made.whiten.bias.abs().max() == 0


def test_a_whitening_that_does_not_learn_gets_no_gradient_and_gives_the_same_logits() -> None:
    made = network(SpeednetConfig, (32, 32)).train()
    labels = torch.arange(5)
    logits = made(images(5, (32, 32)))
    made.train_whitening(False)
    assert torch.equal(made(images(5, (32, 32))), logits)
    functional.cross_entropy(made(images(5, (32, 32))), labels).backward()
    assert made.whiten.bias.grad is None  # type: ignore[union-attr]
    made.train_whitening(True)
    functional.cross_entropy(made(images(5, (32, 32))), labels).backward()
    assert made.whiten.bias.grad.abs().max() > 0  # type: ignore[union-attr]


# ── resnet18 ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_resnet18_is_torchvisions_at_96_px() -> None:
    from torchvision.models import resnet18

    theirs = resnet18(num_classes=CLASSES)
    with torch.no_grad():
        theirs(images(2, (96, 96), seed=2))  # so that the norms have something to remember
    names = {"conv1.": "stem.0.", "bn1.": "stem.1.", "fc.": "head."}
    ours = ResNet18(CLASSES, (96, 96))
    ours.load_state_dict(
        {
            next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), name): value
            for name, value in theirs.state_dict().items()
        }
    )
    with torch.no_grad():
        assert torch.equal(ours.eval()(images(2, (96, 96))), theirs.eval()(images(2, (96, 96))))


def test_resnet18_has_the_published_number_of_parameters() -> None:
    made = build_network(ResNet18Config(), 1000, (224, 224))
    assert sum(parameter.numel() for parameter in made.parameters()) == 11_689_512


@pytest.mark.parametrize(
    ("size", "kernel", "side", "last"),
    [((32, 32), 3, 32, 4), ((64, 64), 3, 64, 8), ((65, 65), 7, 17, 3), ((96, 96), 7, 24, 3), ((32, 65), 7, 8, 1)],
)
def test_resnet18_has_a_stem_of_3_by_3_without_pooling_up_to_64_px(
    size: tuple[int, int], kernel: int, side: int, last: int
) -> None:
    made = network(ResNet18Config, size)
    stem: Any = made.stem
    assert stem[0].kernel_size == (kernel, kernel)
    assert any(isinstance(layer, nn.MaxPool2d) for layer in stem) == (kernel == 7)
    assert [found[0] for found in sides(made, size, [stem, made.cam_layers[0]])] == [side, last]


# ── resnet34, custom_resnet ──────────────────────────────────────────────────────────────────────────────────────────


def test_resnet34_has_the_published_number_of_parameters() -> None:
    made = build_network(ResNet34Config(), 1000, (224, 224))
    assert sum(parameter.numel() for parameter in made.parameters()) == 21_797_672


def test_the_custom_resnet_has_the_published_parameters_layer_by_layer() -> None:
    lines = summarize(build_network(CustomResNetConfig(), 10, (32, 32)), (32, 32))
    assert [(line.name, line.output, line.parameters) for line in lines] == [
        ("prep", (64, 32, 32), 3 * 64 * 9 + 2 * 64),  # 1.9 K
        ("layer1", (128, 16, 16), 73_984),  # 74.0 K
        ("residual1", (128, 16, 16), 295_424),  # 295 K
        ("layer2", (256, 8, 8), 295_424),  # 295 K
        ("layer3", (512, 4, 4), 1_180_672),  # 1.2 M
        ("residual2", (512, 4, 4), 4_720_640),  # 4.7 M
        ("maximum", (512,), 0),
        ("head", (10,), 5_120),  # 5.1 K
    ]
    assert sum(line.parameters for line in lines) == 6_573_120
    assert sum(line.megabytes for line in lines) == pytest.approx(26.292, abs=5e-4)


def test_the_custom_resnet_pools_a_map_of_4_by_4_at_32_px_and_the_whole_map_of_larger_images() -> None:
    for side in (32, 48):
        made = network(CustomResNetConfig, (side, side))
        with torch.no_grad():
            maps, features_BD = made.feature_map(images(2, (side, side))), made.features(images(2, (side, side)))
        assert maps.shape[2:] == (side // 8, side // 8)
        assert torch.equal(features_BD, functional.max_pool2d(maps, side // 8).flatten(1))
