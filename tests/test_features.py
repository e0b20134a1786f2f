"""Features of a frozen backbone that are computed once: the same training, without most of its work."""

import json
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sightline
from conftest import Finished
from sightline.config.resolving import resolve
from sightline.errors import ConfigError
from sightline.models.base import Network
from sightline.models.build import build_network
from sightline.models.speednet import Speednet
from sightline.runs import folder as runs
from sightline.training import kept_features as features
from sightline.training import module as learners
from sightline.training import phases

SETTINGS = {
    "fit": {"epochs": 3, "batch_size": 16, "precision": "float32"},
    "augment": {"crop": None, "flip": "random"},
    "evaluation": {"views": "one", "on": "none"},
    "optimizer": {"kind": "sgd", "learning_rate": 0.02},
    "finetune": {"kind": "frozen"},
}
ATTENTION = {"kind": "graph_attention", "layer": "groups.1", "patch": 2, "heads": 2}


def settings(**blocks: object) -> dict:
    return {**SETTINGS, **blocks}


def trained(finished: Finished, run: Path, **blocks: object) -> Path:
    """A frozen training on the backbone of the finished run."""
    wanted = settings(network={"kind": "run", "folder": str(finished.run)}, **blocks)
    made = sightline.train(finished.data, recipe="small", settings=wanted, run=run)
    assert made is not None
    return made


def weights(run: Path) -> dict[str, torch.Tensor]:
    return runs.read_weights(run / "model.safetensors")[0]


def kept_and_not(finished: Finished, folder: Path, **blocks: object) -> tuple[Path, Path]:
    once = trained(finished, folder / "once", **blocks)
    anew = trained(finished, folder / "anew", **blocks, finetune={"kind": "frozen", "features": "recompute"})
    return once, anew


@pytest.mark.parametrize(
    ("head", "flip"), [(None, "random"), ({"kind": "linear"}, "none"), (ATTENTION, "alternating"), (ATTENTION, "none")]
)
def test_kept_features_train_the_head_that_features_computed_anew_train_but_for_rounding(
    finished: Finished, tmp_path: Path, head: dict | None, flip: str
) -> None:
    once, anew = kept_and_not(finished, tmp_path, head=head, augment={"crop": None, "flip": flip})
    left, right = weights(once), weights(anew)
    start = weights(finished.run)
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=1e-4, atol=1e-5)
        backbone = start.get(name.removeprefix("backbone."))
        if backbone is not None and not name.startswith("head."):
            assert tensor.equal(backbone), f"{name} is frozen"
    if head is None:
        assert not left["head.weight"].equal(start["head.weight"]), "the head learns"
    assert runs.read_run_recipe(once).finetune == resolve({"finetune": {"kind": "frozen", "features": "keep"}}).finetune


def test_a_backbone_sees_every_image_and_its_mirror_image_once_and_every_validation_image_once(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = learners.ClassifierLearner.on_fit_start

    def count(learner: learners.ClassifierLearner) -> None:
        learner.network.whiten.register_forward_hook(lambda *call: seen.append(len(call[2])))
        original(learner)

    monkeypatch.setattr(learners.ClassifierLearner, "on_fit_start", count)
    monkeypatch.setattr("sightline.training.classifier_plan.finish", lambda *_: None)
    monkeypatch.setattr("sightline.training.execution.describe_training", lambda *_: None)
    run = trained(finished, tmp_path / "run")
    counts = json.loads((run / "model.json").read_text())["data"]["counts"]
    assert sum(seen) == 2 * counts["train"] + counts["validation"]


@pytest.mark.parametrize("stop", ["within an epoch", "before the first checkpoint"])
def test_a_training_on_kept_features_that_was_stopped_ends_in_the_same_bits(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    fit = SETTINGS["fit"] | {"checkpoint_seconds": 0.0}
    whole = trained(finished, tmp_path / "whole", head=ATTENTION, fit=fit)
    step = learners.ClassifierLearner.training_step
    left = [5 if stop == "within an epoch" else 0]

    class Killed(BaseException):
        pass

    def until(learner: learners.ClassifierLearner, *arguments: object) -> torch.Tensor:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return step(learner, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(learners.ClassifierLearner, "training_step", until)
        with pytest.raises(Killed):
            trained(finished, tmp_path / "stopped", head=ATTENTION, fit=fit)
    run = sightline.train(run=tmp_path / "stopped", resume=True)
    assert run is not None
    one, other = weights(whole), weights(run)
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


# ── what is decided, and what is refused ─────────────────────────────────────────────────────────────────────────────


def frozen(**blocks: object) -> object:
    return resolve(settings(network={"kind": "speednet", "widths": [8, 16, 16]}, **blocks))


def network() -> Network:
    return Speednet(3, (32, 32), (8, 16, 16))


def test_what_is_kept_is_counted_in_both_views() -> None:
    # 16 features of 4 bytes, of 1,000 images and as many mirror images
    assert features.bytes_kept(network(), 1_000, (32, 32)) == 1_000 * 16 * 4
    recipe, line = features.settle_features(frozen(), network(), 1_000_000, (32, 32), torch.device("cpu"))
    assert recipe.finetune.features == "keep"
    assert "0.13 GB" in line  # 128 million bytes


def test_features_that_do_not_fit_into_a_third_of_the_free_memory_are_computed_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "free_memory", lambda device: 3 * 128_000 - 1)
    recipe, line = features.settle_features(frozen(), network(), 1_000, (32, 32), torch.device("cpu"))
    assert recipe.finetune.features == "recompute"
    assert "more than a third of the free memory" in line
    asked = frozen(finetune={"kind": "frozen", "features": "keep"})
    with pytest.raises(ConfigError, match=r"--finetune.features keep: .* free memory; leave the option out"):
        features.settle_features(asked, network(), 1_000, (32, 32), torch.device("cpu"))
    monkeypatch.setattr(features, "free_memory", lambda device: 3 * 128_000)
    assert features.settle_features(asked, network(), 1_000, (32, 32), torch.device("cpu"))[0] == asked


class Ending(Speednet):
    """A network with one more layer between its last map's maximum and its head."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__(3, (32, 32), (8, 16, 16))
        head = self.head
        del self.head
        self.last, self.head = last, head

    def features(self, images: Tensor) -> Tensor:
        features_BD: Tensor = self.last(super().features(images))
        return features_BD


class Centered(nn.Module):
    def forward(self, features_BD: Tensor) -> Tensor:
        return features_BD - features_BD.mean(0)


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (nn.Dropout(0.5), r"the layer last \(Dropout\) below the head gives an image other features every time"),
        (nn.Dropout(0.001), r"the layer last \(Dropout\) below the head gives an image other features every time"),
        (nn.Sequential(nn.ReLU(), nn.AlphaDropout(0.5)), r"the layer last.1 \(AlphaDropout\) below the head gives"),
        (nn.BatchNorm1d(16, affine=False), r"the layer last \(BatchNorm1d\) below the head normalizes by the batch"),
        (Centered(), "gives an image features that depend on the others of its batch"),
    ],
    ids=["dropout", "rare dropout", "inner dropout", "batch-norm", "centered"],
)
def test_features_that_vary_while_the_head_trains_are_not_kept_and_the_layer_is_named(
    last: nn.Module, reason: str
) -> None:
    made = Ending(last)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    generator = torch.get_rng_state()
    recipe, line = features.settle_features(frozen(), made, 10, (32, 32), torch.device("cpu"))
    assert recipe.finetune.features == "recompute"
    assert re.search(reason, line)
    assert torch.get_rng_state().equal(generator), "the training that follows draws the same numbers"
    assert all(value.equal(before[name]) for name, value in made.state_dict().items()), "norms have measured nothing"
    assert all(module.training for module in made.modules())


@pytest.mark.parametrize("last", [nn.Dropout(0.0), nn.Tanh(), nn.Hardswish(), nn.LayerNorm(16)], ids=str)
def test_a_layer_below_the_head_that_changes_nothing_from_time_to_time_does_not_stand_in_the_way(
    last: nn.Module,
) -> None:
    recipe, _ = features.settle_features(frozen(), Ending(last), 10, (32, 32), torch.device("cpu"))
    assert recipe.finetune.features == "keep"


@pytest.mark.parametrize(
    ("network", "side"),
    [
        ("speednet", 32),
        ("resnet18", 32),
        ("custom_resnet", 32),
        ("torchvision:resnet18", 96),
        ("timm:resnet18", 64),
        ("timm:tf_efficientnet_lite0", 64),
        ("timm:mobilenetv3_small_050", 64),
        ("timm:vit_tiny_patch16_224", 32),
    ],
)
def test_an_ordinary_network_gives_an_image_one_output_below_its_head_and_is_kept(network: str, side: int) -> None:
    if network.startswith("timm"):
        pytest.importorskip("timm")
    recipe = resolve(settings(network=network))
    made = build_network(recipe.network, 3, (side, side))
    settled, line = features.settle_features(recipe, made, 10, (side, side), torch.device("cpu"))
    assert settled.finetune.features == "keep", line
    images = torch.randn(3, 3, side, side)
    for module in phases.frozen_modules(made, phases.layers_of(made), phases.phases_of(recipe, made)[0].trained):
        module.training = False  # as in fine-tuning
    with torch.no_grad():
        as_trained = made.backbone_output(images)
    kept = features.Backbone(made, nullcontext)(images)
    torch.testing.assert_close(as_trained, kept)


def test_dropout_of_a_library_before_the_head_is_named() -> None:
    recipe = resolve(settings(network="torchvision:mnasnet0_5"))
    made = build_network(recipe.network, 3, (64, 64))
    settled, line = features.settle_features(recipe, made, 10, (64, 64), torch.device("cpu"))
    assert settled.finetune.features == "recompute"
    assert "the layer body.classifier.0 (Dropout) below the head gives an image other features every time" in line


def test_images_that_are_shown_in_ever_new_ways_leave_nothing_to_keep() -> None:
    recipe = frozen(augment={"crop": {"kind": "pad_crop"}})
    assert features.settle_features(recipe, network(), 10, (32, 32), torch.device("cpu")) == (recipe, "")
