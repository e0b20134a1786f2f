"""The methods on networks whose maps are known by hand, and by their laws."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.config.explaining import METHODS, AttributionConfig, Method
from sightline.config.heads import AttentionPoolHeadConfig, GraphAttentionHeadConfig, SelfAttentionHeadConfig
from sightline.config.networks import (
    CustomResNetConfig,
    NetworkConfig,
    ResNet18Config,
    SpeednetConfig,
    TimmConfig,
    TorchvisionConfig,
)
from sightline.errors import ConfigError
from sightline.explanation import attribution
from sightline.explanation.attribution import (
    attribute,
    completeness_gaps,
    deeplift,
    gradient_shap,
    integrated_gradients,
    integrated_gradients_smoothgrad,
    occlusion,
    saliency,
)
from sightline.explanation.requirements import layer_named
from sightline.models.base import GlobalMaximum, Network
from sightline.models.build import build_network
from sightline.models.deeplift import refuse_without_rules
from sightline.models.gradcam import default_layer, grad_cam, map_sizes
from sightline.models.rollout import rollout

pytest.importorskip("captum")
PLAIN = AttributionConfig()
SPEEDNET = SpeednetConfig(widths=(8, 16, 16))


class Linear(nn.Module):
    """Two logits that are weighted sums of the pixels: every map is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weights.flatten(1).T


def trained(config: NetworkConfig, side: int = 32, head: object = None, steps: int = 3) -> Network:
    """A network after a few steps on noise, whose norms have seen something."""
    torch.manual_seed(0)
    network = build_network(config, 3, (side, side), head)  # type: ignore[arg-type]
    images, labels = torch.randn(8, 3, side, side), torch.arange(8) % 3
    network.fit_to(images)
    optimizer = torch.optim.SGD([item for item in network.parameters() if item.requires_grad], 0.02, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network.eval()


def some_images(count: int = 3, side: int = 32) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(5))


CLASSES = torch.tensor([0, 2, 1])


# ── known by hand ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_a_weighted_sum_every_pixel_gets_its_weight_times_its_value() -> None:
    network, images, classes = Linear(), some_images(2, 8), torch.tensor([1, 0])
    wanted_BHW = (network.weights[classes] * images).sum(1)
    for found_BHW in (
        integrated_gradients(network, images, classes, 4),  # type: ignore[arg-type]
        deeplift(network, images, classes),  # type: ignore[arg-type]
        occlusion(network, images, classes, 1, 1),  # type: ignore[arg-type]
    ):
        assert torch.allclose(found_BHW, wanted_BHW, atol=1e-4)
    steepest_BHW = network.weights[classes].abs().amax(1)
    assert torch.allclose(saliency(network, images, classes), steepest_BHW)  # type: ignore[arg-type]


def test_the_shap_values_of_a_weighted_sum_compare_with_plain_images_of_all_colours() -> None:
    network, images, classes = Linear(), some_images(1, 8), torch.tensor([1])
    found = gradient_shap(network, images, classes, 4000, 1e-6).sum()  # type: ignore[arg-type]
    wanted = (network.weights[classes] * images).sum()  # the colours' mean is the mean image
    spread = network.weights[1].sum((1, 2)).norm()  # of the logit over such images
    assert abs(found - wanted) < 4 * spread / 64**0.5  # of 64 colours


def test_a_square_that_is_covered_twice_counts_by_the_mean() -> None:
    network, images = Linear(), torch.ones(1, 3, 8, 8)
    with torch.no_grad():
        network.weights.zero_()
        network.weights[0, 0, 0, 2] = 6.0  # covered with columns 0-2 and 2-4, and 4-6 without it
    found_HW = occlusion(network, images, torch.tensor([0]), 3, 2)[0]  # type: ignore[arg-type]
    assert found_HW[0, :6].tolist() == [6, 6, 6, 6, 3, 0]
    assert found_HW[3:].abs().max() == 0


def test_the_rollout_of_two_blocks_of_two_nodes() -> None:
    first, second = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    # half stays: [[1, 0], [1/2, 1/2]], then [[1/2, 1/2], [0, 1]] of that
    assert rollout([first, second]).tolist() == [[[0.75, 0.25], [0.5, 0.5]]]


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("steps", [0, 3], ids=["random", "trained"])
@pytest.mark.parametrize(
    ("config", "side"),
    [(SPEEDNET, 32), (CustomResNetConfig(), 16), (ResNet18Config(), 16), (ResNet18Config(), 72)],
    ids=["speednet", "custom_resnet", "resnet18", "resnet18 with its pool"],
)
def test_deeplift_adds_up_on_our_networks(config: NetworkConfig, side: int, steps: int) -> None:
    network = trained(config, side, steps=steps)
    found = attribute("deeplift", network, some_images(side=side), CLASSES, PLAIN)
    assert found.gaps_B is not None
    assert found.gaps_B.max() < 1e-3
    assert found.maps_BHW.shape == (3, side, side)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captum_alone_does_not_add_up_where_there_is_a_gelu_and_says_nothing() -> None:
    from captum.attr import DeepLift

    network, images = trained(SPEEDNET), some_images()
    theirs_BHW = DeepLift(network).attribute(images, target=CLASSES).sum(1)
    assert completeness_gaps(network, images, CLASSES, theirs_BHW).max() > 0.05


def test_integrated_gradients_take_more_steps_until_they_add_up() -> None:
    network, images = trained(SPEEDNET), some_images()
    coarse = attribute("integrated_gradients", network, images, CLASSES, AttributionConfig(steps=2)).gaps_B
    fine = attribute("integrated_gradients", network, images, CLASSES, PLAIN).gaps_B
    assert coarse is not None
    assert fine is not None
    assert coarse.max() > 0.01 >= fine.max()


@pytest.mark.parametrize("method", METHODS)
def test_a_map_depends_on_its_image_alone_and_comes_out_the_same_again(method: Method) -> None:
    network = trained(SPEEDNET, head=AttentionPoolHeadConfig() if method == "attention" else None)
    images, settings = some_images(), AttributionConfig(steps=4 if "gradients" in method else None)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    together_BHW = attribute(method, network, images, CLASSES, settings).maps_BHW
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()  # type: ignore[index]
    assert torch.equal(together_BHW, attribute(method, network, images, CLASSES, settings).maps_BHW)
    for i in range(3):
        alone_HW = attribute(method, network, images[i : i + 1], CLASSES[i : i + 1], settings).maps_BHW[0]
        assert torch.allclose(together_BHW[i], alone_HW, atol=1e-4 * float(alone_HW.abs().max()))
    assert all(item.grad is None or item.grad_fn is None for item in network.parameters())


@pytest.fixture(scope="module")
def lite0() -> Network:
    """What the box's backbone is built of: ReLU6, convolutions of single channels, padding as TensorFlow has it."""
    torch.manual_seed(0)
    return build_network(TimmConfig(name="tf_efficientnet_lite0"), 3, (64, 64)).eval()


@pytest.mark.parametrize("method", [method for method in METHODS if method != "attention"])
def test_every_method_but_attention_explains_an_efficientnet_lite0(lite0: Network, method: Method) -> None:
    image_1CHW = functional.interpolate(some_images(1, 4), (64, 64), mode="bilinear")
    settings = AttributionConfig(
        steps=4 if method == "integrated_gradients_smoothgrad" else None,
        samples=8 if method in ("integrated_gradients_smoothgrad", "gradient_shap") else None,
    )
    found = attribute(method, lite0, image_1CHW, CLASSES[:1], settings)
    assert found.maps_BHW.shape == (1, 64, 64)
    assert found.maps_BHW.isfinite().all()
    assert found.maps_BHW.std() > 0
    assert (found.gaps_B is not None) == (method in ("integrated_gradients", "deeplift"))
    if found.gaps_B is not None:
        assert found.gaps_B.max() < (1e-4 if method == "deeplift" else 0.01)


def test_grad_cam_of_an_efficientnet_lite0_shows_at_least_seven_positions_a_side(lite0: Network) -> None:
    for side in (64, 224):
        images = some_images(1, side)
        assert min(map_sizes(lite0, images)[default_layer(lite0, images)]) >= 7


def test_shap_samples_that_are_computed_some_at_a_time_add_up_as_all_at_once_do() -> None:
    network, images = Linear(), some_images(1, 8)
    with torch.no_grad():
        network.weights -= network.weights.mean((2, 3), keepdim=True)  # blind to plain colours: baselines do not matter
    together, apart = (gradient_shap(network, images, CLASSES[:1], 7, 1e-6, rows) for rows in (None, 3))  # type: ignore[arg-type]
    assert torch.allclose(together.sum(), apart.sum(), atol=1e-3)


def test_integrated_gradients_stop_refining_where_more_steps_would_take_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def coarse(network: object, images: Tensor, classes: Tensor, steps: int, rows: int) -> Tensor:
        asked.append((images.shape[-1], steps))
        return torch.zeros(images.shape[0], *images.shape[2:])

    monkeypatch.setattr(attribution, "integrated_gradients", coarse)
    monkeypatch.setattr(attribution, "completeness_gaps", lambda network, images, *_: torch.ones(len(images)))
    for side in (32, 128, 224):
        attribute("integrated_gradients", Linear(), torch.zeros(1, 3, side, side), CLASSES[:1], PLAIN)  # type: ignore[arg-type]
    assert [steps for side, steps in asked if side == 32] == [64, 256, 1024, 4096]
    assert [steps for side, steps in asked if side == 128] == [64, 256, 1024]
    assert [steps for side, steps in asked if side == 224] == [64, 256]


def test_noise_and_samples_reach_the_noisy_methods() -> None:
    network, images = trained(SPEEDNET), some_images(1)
    maps = [
        integrated_gradients_smoothgrad(network, images, CLASSES[:1], 4, samples, noise)
        for samples, noise in ((2, 0.1), (3, 0.1), (2, 0.2))
    ]
    assert all(found.min() >= 0 for found in maps)
    assert not torch.allclose(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])


def test_grad_cam_is_captums_enlarged() -> None:
    from captum.attr import LayerGradCam

    network, images = trained(SPEEDNET), some_images()
    layer = default_layer(network, images)
    theirs = LayerGradCam(network, layer).attribute(images, target=CLASSES, relu_attributions=True)
    wanted_BHW = functional.interpolate(theirs, (32, 32), mode="bilinear", align_corners=False).squeeze(1)
    assert (grad_cam(network, images, CLASSES, layer) - wanted_BHW).abs().max() < 1e-5
    assert wanted_BHW.max() > 1e-3


@pytest.mark.parametrize(
    "head",
    [
        GraphAttentionHeadConfig(layer="groups.1", patch=2, depth=2, heads=2),  # 7 positions: the last fills no patch
        SelfAttentionHeadConfig(layer="groups.1", patch=1, depth=1, heads=2),
        AttentionPoolHeadConfig(heads=2),
    ],
    ids=["graph", "self", "pool"],
)
def test_the_shares_of_an_attention_head_cover_what_its_patches_cover(head: object) -> None:
    network = trained(SPEEDNET, head=head)
    map_HW = attribute("attention", network, some_images(1), CLASSES[:1], PLAIN).maps_BHW[0]
    covered = 27 if isinstance(head, GraphAttentionHeadConfig) else 32  # 6 / 7 of 32 pixels
    assert (map_HW[:covered, :covered] > 0).all()
    assert map_HW[covered:].eq(0).all()
    nodes = 9 if isinstance(head, GraphAttentionHeadConfig) else 49 if isinstance(head, SelfAttentionHeadConfig) else 9
    assert abs(float(map_HW[:covered, :covered].mean()) * nodes - 1) < 0.1  # enlarged, the shares still add up, about


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


class Trap(nn.Module):
    """A convolution, something in its place, a global mean and a linear layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.convolution = nn.Conv2d(3, 4, 3)
        self.relu, self.gelu, self.norm = nn.ReLU(), nn.GELU(), nn.GroupNorm(2, 4)
        self.relu6, self.hardtanh = nn.ReLU6(inplace=True), nn.Hardtanh(-1, 2)
        self.pool, self.maximum = nn.MaxPool2d(3, 1, 1), GlobalMaximum()
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.convolution(images)
        match self.kind:
            case "functional":
                maps = functional.gelu(maps)
            case "twice":
                maps = self.relu(self.relu(maps) - 1)
            case "norm":
                maps = self.norm(maps)
            case "product":
                maps = maps * maps.mean((2, 3), keepdim=True)
            case "softmax":
                maps = maps.flatten(2).softmax(2).view_as(maps)
            case "amax":
                return self.head(maps.amax((2, 3)))
            case "relu6" | "hardtanh":  # with what lies on either side of where they are flat, and between
                maps = (self.relu6 if self.kind == "relu6" else self.hardtanh)(8 * maps)
            case "residual":  # the gelu's input is read by others, too
                maps = maps + self.gelu(maps) / 2 - torch.cat([maps, maps], 1)[:, :4] * 0.1
            case "overlap":  # windows of three, one pixel apart
                return self.head(self.maximum(self.pool(self.relu(maps))))
        return self.head(maps.mean((2, 3)))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("functional", "deeplift has no rule for a gelu that is no layer of its own in this network, so its map"),
        ("twice", "deeplift needs every ReLU called once, and relu of this network is called 2 times"),
        (
            "norm",
            r"no rule for norm \(GroupNorm\) in this network, so its map would not add up; choose integrated_gradients",
        ),
        ("product", "a mul that is no layer of its own"),
        ("softmax", "a softmax that is no layer of its own"),
        ("amax", "a amax that is no layer of its own"),
    ],
)
def test_deeplift_refuses_what_it_has_no_rule_for(kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        deeplift(Trap(kind).eval(), some_images(1), CLASSES[:1])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["residual", "overlap", "plain", "relu6", "hardtanh"])
def test_deeplift_adds_up_where_maps_are_read_twice_windows_overlap_and_functions_are_flat_on_both_sides(
    kind: str,
) -> None:
    torch.manual_seed(0)
    network, images = Trap(kind).eval(), some_images()
    found_BHW = deeplift(network, images, CLASSES)  # type: ignore[arg-type]
    assert completeness_gaps(network, images, CLASSES, found_BHW).max() < 1e-4  # type: ignore[arg-type]
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in network.modules())


def test_networks_of_others_and_attention_heads_are_refused_or_add_up() -> None:
    shared = build_network(TorchvisionConfig(name="resnet18"), 3, (32, 32)).eval()
    with pytest.raises(ConfigError, match=r"and body\.layer1\.0\.relu of this network is called 2 times"):
        refuse_without_rules(shared, some_images(1))
    attentive = trained(SPEEDNET, head=SelfAttentionHeadConfig(layer="groups.1", heads=2), steps=0)
    with pytest.raises(ConfigError, match=r"no rule for neck\.blocks\.0\.norm2 \(LayerNorm\)"):
        refuse_without_rules(attentive, some_images(1))


def test_what_the_network_lacks_is_said() -> None:
    network, images = trained(SPEEDNET, steps=0), some_images()
    with pytest.raises(
        ConfigError, match="this network's head has no attention; choose another method, such as grad_cam"
    ):
        attribute("attention", network, images, CLASSES, PLAIN)
    with pytest.raises(ConfigError, match=r"--window 33 is larger than the images \(32 px\)"):
        attribute("occlusion", network, images, CLASSES, AttributionConfig(window=33))
    with pytest.raises(ConfigError, match=r"--layer group\.1: there is no such layer; did you mean 'groups\.1'\?"):
        layer_named(network, "group.1", images)
    with pytest.raises(ConfigError, match="the layer gives no map of the image; choose another layer"):
        attribute("grad_cam", network, images, CLASSES, AttributionConfig(layer="head"))
