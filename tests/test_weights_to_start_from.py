"""Weights that a training starts from are preserved by its optimizer, under whatever recipe."""

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Finished
from sightline.config.optimizers import AdamWConfig, MuonConfig, SGDConfig
from sightline.config.resolving import read_recipe, resolve, to_mapping
from sightline.config.settings import Recipe
from sightline.display.reporting import ignore
from sightline.errors import ConfigError
from sightline.models.build import build_network
from sightline.models.transfer import LoadedWeights
from sightline.runs import folder
from sightline.training import optimizer_choice, preparation
from sightline.training.network import Built

SIDE = (64, 64)
LOADED = LoadedWeights("a.pth", 100, 102)


def settled(recipe: str, settings: dict[str, Any], weights: LoadedWeights | None = LOADED) -> tuple[Recipe, str]:
    """A named recipe with settings over it, its network built, and its optimizer settled."""
    chosen = resolve(read_recipe(recipe), settings)
    network = chosen.network if chosen.network.kind != "run" else resolve({"network": "resnet18"}).network
    built = Built(build_network(network, 3, SIDE, chosen.head), network, chosen.head, SIDE, weights, None)
    return optimizer_choice.settle_optimizer(chosen, settings, built)


@pytest.mark.parametrize(
    ("recipe", "network", "was"),
    [("small", "resnet18", "muon"), ("fast", "resnet18", "muon"), ("resnet34", "resnet34", "sgd")],
)
def test_a_recipe_for_training_from_scratch_starts_from_weights_with_adamw_and_says_so(
    recipe: str, network: str, was: str
) -> None:
    chosen, line = settled(recipe, {"network": network})
    assert chosen.optimizer == AdamWConfig(learning_rate=1e-3)
    assert line.startswith(f"optimizer: adamw at 0.001 in place of the recipe's {was}: it ")
    assert line.endswith("destroys the weights from a.pth")
    assert settled(recipe, {"network": network}, None)[0].optimizer.kind == was, "without weights nothing is replaced"


def test_muon_that_is_asked_for_with_weights_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ConfigError,
        match=r"--optimizer.kind muon sets every filter to a norm of its own, which destroys the weights from a.pth; leave the"
        r" option out, and adamw takes its place, or name another optimizer",
    ):
        settled("resnet18", {"network": "resnet18", "optimizer": "muon"})
    with pytest.raises(
        ConfigError, match=r"--optimizer.learning-rate is a setting of the recipe's muon, which sets every"
    ):
        settled("small", {"network": "resnet18", "optimizer": {"learning_rate": 0.01}})


def test_a_rate_that_is_asked_for_stays_and_one_that_is_searched_for_is_adamws() -> None:
    asked = {"network": "resnet18", "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
    assert settled("small", asked) == (resolve(read_recipe("small"), asked), "")
    assert settled("resnet18", {"network": "resnet18", "optimizer": {"learning_rate": 0.01}})[1] == ""
    searched = {"network": "resnet18", "optimizer": {"learning_rate": "auto"}}
    assert settled("small", searched)[0].optimizer.kind == "adamw"


def test_what_is_frozen_below_a_head_that_muon_trains_is_preserved_as_it_is() -> None:
    frozen = {"network": "resnet18", "finetune": "frozen"}
    assert settled("small", frozen)[0].optimizer.kind == "muon"
    attention = frozen | {"head": {"kind": "attention_pool", "layer": "layer3"}}
    assert settled("small", attention)[0].optimizer.kind == "muon"
    assert settled("small", {"network": "resnet18", "finetune": "gradual"})[0].optimizer.kind == "adamw"


@pytest.mark.parametrize(
    ("before", "after"), [(MuonConfig(), "muon"), (AdamWConfig(), "adamw"), (SGDConfig(learning_rate=0.01), "adamw")]
)
def test_muon_goes_on_with_the_network_of_a_run_that_muon_trained_and_with_no_other(
    tmp_path: Path, before: Any, after: str
) -> None:
    folder.write_recipe(tmp_path, resolve({"optimizer": to_mapping(before)}))
    chosen, _ = settled("small", {"network": f"run:{tmp_path}"})
    assert chosen.optimizer.kind == after


@pytest.mark.parametrize(
    ("network", "after"),
    [
        ("timm:test_vit", "adamw"),
        ("timm:convnext_atto", "adamw"),
        ("timm:nf_resnet26", "adamw"),  # no norms at all
        ("torchvision:convnext_tiny", "adamw"),
        ("timm:resnet18", "muon"),
        ("timm:tf_efficientnet_lite0", "muon"),
        ("torchvision:resnet18", "muon"),
    ],
)
def test_without_weights_muon_trains_only_networks_that_a_filters_scale_does_not_matter_to(
    network: str, after: str
) -> None:
    if network.startswith("timm"):
        pytest.importorskip("timm")
    chosen, line = settled("small", {"network": network}, None)
    assert chosen.optimizer.kind == after
    if after == "adamw":
        assert line.endswith("has no batch-norm behind its filters to undo that")
        with pytest.raises(
            ConfigError, match=r"--optimizer.kind muon sets every filter to a norm of its own, and \w+ has no"
        ):
            settled("small", {"network": network, "optimizer": "muon"}, None)


def test_a_plan_holds_the_optimizer_that_trains_and_its_notes_tell_it(finished: Finished, tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.save(resnet18(num_classes=7).state_dict(), tmp_path / "a.pth")
    settings = {"network": {"kind": "resnet18", "weights": str(tmp_path / "a.pth")}, "fit": {"epochs": 2}}
    plan = preparation.prepare_training(finished.data, "small", settings, ignore)
    assert plan.recipe.optimizer.kind == "adamw"
    assert plan.notes()[0].startswith("optimizer: adamw at 0.001 in place of the recipe's muon")
    again = preparation.prepare_training(finished.data, to_mapping(plan.recipe), {}, ignore)
    assert (again.recipe, again.replaced) == (plan.recipe, "")
