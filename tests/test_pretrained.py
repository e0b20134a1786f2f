"""Networks and weights from elsewhere: what is taken over, what is told, what is refused."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import Finished
from sightline.config.networks import HubConfig, ResNet18Config, TimmConfig, TorchvisionConfig
from sightline.errors import ConfigError
from sightline.models import pretrained
from sightline.models.adapters import ForeignNetwork
from sightline.models.build import build_network
from sightline.models.pretrained import load_weights
from sightline.models.resnet import ResNet18
from sightline.models.transfer import put_in

CLONE = str(Path(__file__).parent / "hub_clone")
SMALL, LARGE = (32, 32), (96, 96)


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    """Weights of torchvision's ResNet-18 of 7 classes, none of them fresh."""
    from torchvision.models import resnet18

    torch.manual_seed(11)
    return {
        name: value + 0.5 if value.is_floating_point() else value
        for name, value in resnet18(num_classes=7).state_dict().items()
    }


@pytest.fixture
def nowhere(no_network: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights on this machine, and a network on which nobody answers."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


# ── weights from a file ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("file", "key"), [("a.pth", None), ("a.pt", "state_dict"), ("a.pth", "model"), ("a.safetensors", None)]
)
def test_a_file_of_the_original_fills_all_but_the_head(
    tmp_path: Path, original: dict[str, Tensor], file: str, key: str | None
) -> None:
    if file.endswith(".safetensors"):
        from safetensors.torch import save_file

        save_file(original, tmp_path / file)
    else:
        torch.save({key: original, "epoch": 3} if key else original, tmp_path / file)
    config = ResNet18Config(weights=str(tmp_path / file))
    network = build_network(config, 5, LARGE)
    loaded = load_weights(network, config, LARGE)
    assert loaded is not None
    assert network.state_dict()["stem.0.weight"].equal(original["conv1.weight"])
    assert network.state_dict()["layer3.1.conv2.weight"].equal(original["layer3.1.conv2.weight"])
    assert network.head.weight.abs().max() <= 1 / 512, "a fresh head on weights starts small"  # type: ignore[union-attr,operator]
    assert (loaded.loaded, loaded.total) == (100, 102)  # 20 convolutions, 20 norms of four tensors; the head's two not
    assert (loaded.fresh_head, loaded.fresh_stem, loaded.missing, loaded.unexpected, loaded.misshapen) == (
        True,
        False,
        [],
        [],
        [],
    )
    assert loaded.mean == [0.485, 0.456, 0.406]
    assert loaded.lines()[1:] == ["  a fresh head: these weights tell other classes apart"]


def test_small_images_get_a_fresh_stem_and_are_told(original: dict[str, Tensor]) -> None:
    for network, stem in (
        (ResNet18(7, SMALL), "stem.1.weight"),
        (build_network(TorchvisionConfig(name="resnet18"), 7, SMALL), "body.bn1.weight"),
    ):
        loaded = put_in(network, original, "a.pth")
        state = network.state_dict()
        assert loaded.fresh_stem
        assert not loaded.fresh_head  # of as many classes
        assert loaded.misshapen == []
        assert state[stem].equal(torch.ones(64))
        assert any("fresh first layer, 3×3 without pooling" in line for line in loaded.lines())


def test_what_is_missing_unknown_or_of_another_shape_is_counted_and_named(original: dict[str, Tensor]) -> None:
    odd = dict(original)
    del odd["layer1.0.conv1.weight"]
    odd["layer1.0.conv2.weight"] = torch.zeros(3, 3)
    odd["tail.weight"] = torch.zeros(1)
    loaded = put_in(ResNet18(7, LARGE), odd, "a.pth")
    assert (loaded.missing, loaded.unexpected) == (["layer1.0.conv1.weight"], ["tail.weight"])
    assert loaded.misshapen == ["layer1.0.conv2.weight"]
    assert loaded.loaded == 100
    assert "  warning: 1 tensors have other shapes and stay fresh (layer1.0.conv2.weight)" in loaded.lines()


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"none of the 1 tensors of a.pth \(x, ...\) fits the network \(stem.0.weight, "
    ):
        put_in(ResNet18(7, LARGE), {"x": torch.zeros(1)}, "a.pth")


class Malicious:
    def __reduce__(self) -> Any:
        return (open, ("touched", "w"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pth", None, "there is no such file"),
        ("a.h5", {}, "ends in .h5; wanted .safetensors, .pth or .pt"),
        ("a.pth", Malicious(), "cannot be read without running code that is in it"),
        ("a.pth", {"state_dict": {"epoch": 3}}, "holds no tensors by name"),
        ("a.pt", [1], "holds no tensors by name"),
    ],
)
def test_a_file_that_holds_no_tensors_by_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        torch.save(content, name)
    with pytest.raises(ConfigError, match=message):
        pretrained.read_foreign(name)
    assert not Path("touched").exists()


def test_a_classifier_of_ours_is_started_from_as_a_run(finished: Finished) -> None:
    with pytest.raises(ConfigError, match="is a classifier of sightline; name its run instead"):
        pretrained.read_foreign(str(finished.run / "model.safetensors"))


@pytest.mark.parametrize("classes", [2, 81])
@pytest.mark.parametrize(
    "network",
    [
        TorchvisionConfig(name="resnet18"),
        TorchvisionConfig(name="mnasnet0_5"),
        TimmConfig(name="resnet18"),
        TimmConfig(name="tf_efficientnet_lite0"),
        TimmConfig(name="vit_tiny_patch16_224"),
        HubConfig(repo=CLONE, name="tiny", trust_code=True),
    ],
    ids=lambda config: f"{config.kind}-{config.name}",
)
def test_the_first_loss_of_a_new_head_is_that_of_guessing(network: Any, classes: int) -> None:
    if network.kind == "timm":
        pytest.importorskip("timm")
    torch.manual_seed(0)
    assert first_loss(build_network(network, classes, LARGE), classes) == pytest.approx(math.log(classes), rel=0.1)


@pytest.mark.parametrize("classes", [2, 81])
@pytest.mark.parametrize("config", [ResNet18Config(), TimmConfig(name="tf_efficientnet_lite0")], ids=lambda c: c.kind)
def test_the_first_loss_on_weights_that_tell_other_classes_apart_is_that_of_guessing(config: Any, classes: int) -> None:
    if config.kind == "timm":
        pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = build_network(config, 7, LARGE).state_dict()
    network = build_network(config, classes, LARGE)
    assert put_in(network, theirs, "a.pth").fresh_head
    assert first_loss(network, classes) == pytest.approx(math.log(classes), rel=0.1)


def test_a_head_of_the_same_classes_keeps_its_weights(original: dict[str, Tensor]) -> None:
    network = ResNet18(7, LARGE)
    put_in(network, original, "a.pth")
    assert network.head.weight.equal(original["fc.weight"])


def first_loss(network: nn.Module, classes: int) -> float:
    """The loss of a batch of noise in training mode, before the first step."""
    with torch.no_grad():
        logits_BK = network.train()(torch.randn(8, 3, *LARGE))
    return float(nn.functional.cross_entropy(logits_BK, torch.arange(8) % classes))


# ── published weights ────────────────────────────────────────────────────────────────────────────────────────────────


def test_published_weights_are_taken_from_the_local_cache_without_the_network(
    nowhere: None, tmp_path: Path, original: dict[str, Tensor]
) -> None:
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(original, cache / "resnet18-f37072fd.pth")
    config = ResNet18Config(weights="pretrained")
    network = build_network(config, 5, LARGE)
    loaded = load_weights(network, config, LARGE)
    assert loaded is not None
    assert loaded.source == "torchvision's ResNet18_Weights.IMAGENET1K_V1"
    assert network.state_dict()["stem.0.weight"].equal(original["conv1.weight"])


@pytest.mark.parametrize(
    "config",
    [ResNet18Config(weights="pretrained"), TorchvisionConfig(name="resnet18", weights="pretrained")],
    ids=["resnet18", "torchvision"],
)
def test_without_the_network_published_weights_fail_at_once_with_what_to_do(nowhere: None, config: Any) -> None:
    network = build_network(config, 5, SMALL)
    start = time.perf_counter()
    with pytest.raises(
        ConfigError,
        match=r"cannot be reached; where you are online, download .*pth to .*checkpoints.*--network.weights FILE",
    ):
        load_weights(network, config, SMALL)
    assert time.perf_counter() - start < 2


# ── networks of others ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet19", SMALL, "torchvision has no network 'resnet19' that classifies; did you mean 'resnet1[0-9]+'"),
        ("squeezenet1_1", LARGE, "has no linear layer, so its head cannot be exchanged"),
        ("vit_b_16", SMALL, "gives no map of the image; take one of timm's"),
        ("alexnet", (16, 16), "torchvision's alexnet cannot read images of 16×16 px"),
    ],
)
def test_a_network_of_torchvision_that_cannot_be_used_is_refused(
    name: str, size: tuple[int, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fill in ("normal_", "trunc_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(
            nn.init, fill, lambda tensor, *_, **__: tensor
        )  # the numbers do not matter, and take seconds
    with pytest.raises(ConfigError, match=message):
        build_network(TorchvisionConfig(name=name), 5, size)


def test_a_resnet_of_torchvision_sees_small_images_at_full_size() -> None:
    network = build_network(TorchvisionConfig(name="resnet18"), 5, SMALL)
    with torch.no_grad():
        assert network.feature_map(torch.zeros(1, 3, *SMALL)).shape == (1, 512, 4, 4)
    large = build_network(TorchvisionConfig(name="resnet18"), 5, LARGE)
    assert large.state_dict()["body.conv1.weight"].shape == (64, 3, 7, 7)


def test_a_repository_that_was_cloned_gives_its_network_a_head_for_our_classes() -> None:
    network = build_network(HubConfig(repo=CLONE, name="tiny", trust_code=True), 5, SMALL)
    assert isinstance(network, ForeignNetwork)
    with torch.no_grad():
        assert network(torch.zeros(2, 3, *SMALL)).shape == (2, 5)
        assert network.feature_map(torch.zeros(2, 3, *SMALL)).shape == (2, 16, 16, 16)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("probabilities", "does not end in its last linear layer"),
        ("without_linear", "has no linear layer"),
        ("no_network", "is a int; wanted a network"),
        ("missing", "does not build 'missing' .*; read its hubconf.py"),
    ],
)
def test_a_repository_that_gives_no_classifier_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(HubConfig(repo=CLONE, name=name, trust_code=True), 5, SMALL)


def test_a_repository_out_of_reach_is_refused_at_once(nowhere: None) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=r"cannot be reached and torch.hub has no copy of a/b; clone it"):
        build_network(HubConfig(repo="a/b", name="c", trust_code=True), 5, SMALL)
    assert time.perf_counter() - start < 2


# ── timm ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet19", SMALL, "timm has no network 'resnet19', nor is a backbone called so .* did you mean 'resnet18'"),
        ("hf-hub:someone/something", SMALL, "timm has no network 'hf-hub:someone/something'"),
        ("xcit_nano_12_p16_224", SMALL, "gives no map of the image"),
        ("deit_tiny_distilled_patch16_224", SMALL, "does not end in one linear layer"),
    ],
)
def test_a_network_of_timm_that_cannot_be_used_is_refused(name: str, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(TimmConfig(name=name), 5, size)


def test_the_map_of_a_transformer_is_the_grid_of_its_patches() -> None:
    made: Any = build_network(TimmConfig(name="test_vit"), 5, (32, 48)).eval()
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        maps, tokens_BND = made.feature_map(images), made.body.forward_features(images)
    assert maps.shape == (1, 64, 2, 3)
    assert maps[0, :, 1, 0].equal(tokens_BND[0, 1 + 3])  # behind the class token: second row, first column


def test_timms_weights_bring_their_own_statistics(tmp_path: Path) -> None:
    import timm

    theirs = timm.create_model("test_vit", num_classes=9, img_size=SMALL)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    config = TimmConfig(name="test_vit", weights=str(tmp_path / "a.pth"))
    network = build_network(config, 5, SMALL)
    loaded = load_weights(network, config, SMALL)
    assert loaded is not None
    assert loaded.fresh_head
    assert loaded.loaded == loaded.total - 2
    assert loaded.mean == list(theirs.pretrained_cfg["mean"]) == [0.5, 0.5, 0.5]


def test_timms_published_weights_come_from_the_local_cache_or_fail_at_once(
    nowhere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    import timm

    found: list[str | None] = [None]
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: found[0])
    config = TimmConfig(name="test_resnet", weights="pretrained")
    network = build_network(config, 5, SMALL)
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=r"weights test_resnet.* cannot be reached; where you are online, download"):
        load_weights(network, config, SMALL)
    assert time.perf_counter() - start < 2
    theirs = timm.create_model("test_resnet")
    found[0] = str(tmp_path / "a.pth")
    torch.save(theirs.state_dict(), found[0])
    loaded = load_weights(network, config, SMALL)
    assert loaded is not None
    assert loaded.loaded == loaded.total - 2
    assert network.state_dict()["body.conv1.0.weight"].equal(theirs.state_dict()["conv1.0.weight"])
