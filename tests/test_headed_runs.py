"""Trainings with a head of its own: what is learnt, kept, continued, started from, and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from conftest import coloured_folder
from sightline.cli.main import main
from sightline.config.heads import LinearHeadConfig
from sightline.config.resolving import resolve
from sightline.display.reporting import ignore
from sightline.errors import ConfigError, RunError
from sightline.models.heads import HeadedNetwork
from sightline.runs import folder
from sightline.training import module, preparation, resume
from sightline.training.classifier_plan import ClassifierPlan

HEADS = ("linear", "graph_attention", "self_attention", "attention_pool")
QUICK: dict[str, Any] = {
    "fit": {"epochs": 4, "batch_size": 16},
    "network": {"kind": "speednet", "widths": [8, 16, 16]},
}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_folder(tmp_path_factory.mktemp("set") / "colours")


def head(kind: str, **settings: Any) -> dict[str, Any]:
    return {"head": {"kind": kind, "layer": "groups.1", **settings}}


@pytest.fixture(scope="module")
def trained(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of each head, trained when it is first asked for."""
    root, made = tmp_path_factory.mktemp("runs"), {}

    def run(kind: str) -> Path:
        if kind not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SIGHTLINE_CACHE", str(root / "cache"))
                made[kind] = sightline.train(colours, recipe="small", settings=QUICK | head(kind), run=root / kind)
        return made[kind]

    return run


def planned(images: Path, **settings: Any) -> ClassifierPlan:
    return preparation.prepare_training(images, "small", QUICK | settings, ignore)


def model_of(run: Path) -> dict[str, Any]:
    model: dict[str, Any] = json.loads((run / "model.json").read_text())
    return model


def weights(run: Path) -> dict[str, torch.Tensor]:
    return folder.read_weights(run / "model.safetensors")[0]


# ── a run with a head ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", HEADS)
def test_each_head_learns_and_a_training_that_was_stopped_ends_in_the_same_bits(
    kind: str, colours: Path, trained: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(kind)
    assert json.loads((whole / "evaluation.json").read_text())["accuracy"] == 1
    often = {"fit": QUICK["fit"] | {"checkpoint_seconds": 0.0}} if kind == "graph_attention" else {}  # within an epoch
    step, count = module.ClassifierLearner.training_step, 0

    def dying(self, batch, index):
        nonlocal count
        count += 1
        if count == 7:
            raise MemoryError
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(module.ClassifierLearner, "training_step", dying)
        with pytest.raises(MemoryError):
            sightline.train(colours, recipe="small", settings=QUICK | head(kind) | often, run=tmp_path / "run")
    resumed = sightline.train(run=tmp_path / "run", resume=True)
    assert resumed is not None
    one, other = weights(whole), weights(resumed)
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize("kind", HEADS)
def test_the_run_and_its_weights_file_alone_answer_as_they_did_when_measured(
    kind: str, colours: Path, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    run = trained(kind)
    assert model_of(run)["head"]["kind"] == kind
    assert model_of(run)["head"]["layer"] == "groups.1"
    rows = [line.split(",") for line in (run / "predictions.csv").read_text("utf-8").splitlines()]
    column = rows[0].index("probability")
    for classifier in (sightline.load(run, device="cpu"), sightline.load(run / "model.safetensors", device="cpu")):
        found = classifier.predict([colours / row[0].removeprefix("'") for row in rows[1:]])
        for prediction, row in zip(found, rows[1:], strict=True):
            assert f"{prediction.probability:.3f}" == f"{float(row[column]):.3f}"
    assert sightline.evaluate(run)["accuracy"] == 1  # type: ignore[index]


def test_features_are_what_the_last_layer_reads_and_nodes_of_a_layer_are_averaged(
    colours: Path, trained: Callable[[str], Path]
) -> None:
    run = trained("graph_attention")
    assert sightline.encode(run, [colours]).features.shape == (90, 9 * 16)
    assert sightline.encode(run, [colours], layer="neck.blocks").features.shape == (90, 16)
    assert sightline.encode(run, [colours], layer="backbone.groups.1").features.shape == (90, 16)
    with pytest.raises(
        ConfigError, match=r"--layer groups.1: there is no such layer; did you mean 'backbone.groups.1'"
    ):
        sightline.encode(run, [colours], layer="groups.1")


def test_a_run_of_before_there_were_heads_is_read_as_one_without(finished: Any, tmp_path: Path) -> None:
    tensors, reference, model = folder.read_weights_and_reference(finished.run / "model.safetensors")
    assert model.pop("head") is None
    folder.write_weights(tmp_path / "model.safetensors", tensors | reference, model)
    image = finished.data / "grass" / "000.png"
    assert sightline.load(tmp_path / "model.safetensors", device="cpu").predict([image])[0].label == "grass"
    recipe = (finished.run / "recipe.yaml").read_text()
    assert "head: null\n" in recipe
    (tmp_path / "recipe.yaml").write_text(recipe.replace("head: null\n", ""))
    assert not resume.changes(folder.read_run_recipe(tmp_path), folder.read_run_recipe(finished.run))


def test_the_command_line_names_a_head_in_a_word_and_the_table_shows_it(colours: Path, capsys) -> None:
    command = ["train", str(colours), "--recipe", "small", "--network.widths", "8", "16", "16", "--dry-run"]
    assert main([*command, "--head", "graph_attention", "--head.layer", "groups.1", "--head.patch", "3"]) == 0
    printed = capsys.readouterr().out
    assert "speednet + graph_attention on 32×32 px" in printed
    for line in ("backbone.groups", "neck.embedding", "neck.blocks"):
        assert line in printed
    assert main([*command, "--head", "graph_attention"]) == 2
    assert "--head graph_attention has nothing to attend to: a map of 3×3 makes 1×1" in capsys.readouterr().err


def test_the_smaller_images_of_a_recipe_can_be_left_out_for_a_head_that_takes_one_size(colours: Path, capsys) -> None:
    command = ["train", str(colours), "--recipe", "fast", "--network.widths", "8", "16", "16", "--dry-run"]
    command += [
        "--fit.batch-size",
        "16",
        "--data.validation",
        "15",
        "--head",
        "self_attention",
        "--head.layer",
        "groups.1",
    ]
    assert main(command) == 2
    assert "reads one size only" in capsys.readouterr().err
    assert main([*command, "--augment.no-scales"]) == 0


def test_smaller_images_are_shown_to_a_pool_and_to_a_linear_layer(colours: Path) -> None:
    for kind in ("attention_pool", "linear"):
        plan = planned(colours, augment={"scales": [0.5, 1]}, **head(kind))
        assert plan.network(torch.zeros(2, 3, 16, 16)).shape == (2, 3)


# ── a run as a backbone ──────────────────────────────────────────────────────────────────────────────────────────────


def other_classes(root: Path) -> Path:
    for channel, name in enumerate(("sea", "sky")):
        (root / name).mkdir(parents=True)
        for index in range(20):
            pixels = np.random.default_rng(9000 + 100 * channel + index).integers(0, 90, (32, 32, 3), np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def from_run(run: Path) -> dict[str, Any]:
    return {"network": f"run:{run}"}


def test_without_a_head_named_the_whole_run_is_taken_with_its_head(
    colours: Path, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    run = trained("graph_attention")
    plan = planned(colours, **from_run(run))
    assert all(value.equal(weights(run)[name]) for name, value in plan.network.state_dict().items())
    assert plan.describe()["head"] == model_of(run)["head"]
    others = planned(other_classes(tmp_path / "others"), **from_run(run))
    state = others.network.state_dict()
    assert state["head.weight"].shape == (2, 9 * 16)  # of other classes: the last layer alone is fresh
    assert state["neck.blocks.0.attention.value.weight"].equal(weights(run)["neck.blocks.0.attention.value.weight"])
    assert "  a fresh head: these weights tell other classes apart" in others.notes()


def test_a_head_that_is_named_is_always_fresh_on_the_backbone_that_the_run_has(
    colours: Path, trained: Callable[[str], Path]
) -> None:
    for before in ("graph_attention", "linear"):
        run = trained(before)
        for kind in ("linear", "attention_pool"):
            plan = planned(colours, **from_run(run), head={"kind": kind})
            assert isinstance(plan.network, HeadedNetwork)
            state = plan.network.state_dict()
            assert all(state[name].equal(value) for name, value in weights(run).items() if name.startswith("backbone."))
            assert not plan.network.head.weight.equal(weights(run)["head.weight"])
            assert not plan.network.head.bias.any()
            assert plan.describe()["head"]["layer"] == "groups.1"  # behind which the run has nothing
            assert f"  a fresh head, as asked: {kind}" in plan.notes()
            assert len(plan.notes()) == 3  # nothing is called missing or unknown


def test_a_plain_run_gets_a_head_on_an_earlier_map_and_the_new_run_loads_without_it(
    finished: Any, tmp_path: Path
) -> None:
    settings = QUICK | from_run(finished.run) | head("graph_attention", patch=3)
    made = sightline.train(
        finished.data, recipe="small", settings=settings | {"fit": {"epochs": 1}}, run=tmp_path / "run"
    )
    assert made is not None
    assert not any(name.startswith("backbone.groups.2") for name in weights(made))
    assert model_of(made)["network"]["kind"] == "speednet"
    image = finished.data / "grass" / "000.png"
    assert sightline.load(made, device="cpu").predict([image])
    again = planned(finished.data, **from_run(made))
    assert again.network.state_dict().keys() == weights(made).keys()


def test_layers_that_a_run_does_not_have_or_has_not_kept_are_refused(
    colours: Path, trained: Callable[[str], Path], finished: Any
) -> None:
    with pytest.raises(
        ConfigError, match=r"--head.layer groups.2 is no layer of the network of .*; did you mean 'groups"
    ):
        planned(colours, **from_run(trained("linear")), head={"kind": "linear", "layer": "groups.2"})
    with pytest.raises(
        ConfigError, match=r"--head.layer groups.3 is no layer of the network of .*; did you mean 'groups"
    ):
        planned(finished.data, **from_run(finished.run), head={"kind": "linear", "layer": "groups.3"})


def test_a_head_that_reads_what_a_run_has_dropped_is_refused(colours: Path, tmp_path: Path) -> None:
    network = {"kind": "torchvision", "name": "mobilenet_v3_small"}
    settings = {"network": network, "head": "attention_pool", "data": {"size": 48}, "fit": {"epochs": 1}}
    run = sightline.train(colours, recipe="small", settings=settings, run=tmp_path / "run")
    assert run is not None
    with pytest.raises(
        ConfigError,
        match=r"--head linear reads layers that .* does without \(body.classifier.0.weight, ...\), since its own head is a"
        r" attention_pool",
    ):
        planned(colours, **from_run(run), data={"size": 48}, head="linear")


def test_images_of_another_size_suit_a_fresh_head_but_not_one_that_was_made_for_the_first(
    colours: Path, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    run, larger = trained("graph_attention"), {"data": {"size": 48}}
    with pytest.raises(
        ConfigError,
        match=r"the network run cannot read images of 48×48 px \(the head was made for 3×3 patches and the map has 5×5\)",
    ):
        planned(colours, **from_run(run), **larger)
    with pytest.raises(ConfigError, match=r"network run \(--augment.scales 0.5\) cannot read images of 16×16 px"):
        planned(colours, **from_run(run), augment={"scales": [0.5, 1]})
    assert (
        planned(colours, **from_run(trained("attention_pool")), **larger).network(torch.zeros(1, 3, 48, 48)).ndim == 2
    )
    settings = QUICK | from_run(run) | larger | {"head": "self_attention", "fit": {"epochs": 1}}
    made = sightline.train(colours, recipe="small", settings=settings, run=tmp_path / "run")
    assert made is not None
    assert model_of(made)["built_for"] == [32, 32]
    classifier = sightline.load(made, device="cpu")
    assert classifier.network.neck.embedding.grid == (5, 5)
    assert planned(colours, **from_run(made), **larger).network(torch.zeros(1, 3, 48, 48)).ndim == 2


def test_weights_of_a_run_that_lack_a_part_of_the_head_are_refused(
    colours: Path, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    run = Path(shutil.copytree(trained("attention_pool"), tmp_path / "run"))
    tensors, model = folder.read_weights(run / "model.safetensors")
    tensors.pop("neck.queries")
    folder.write_weights(run / "model.safetensors", tensors, model)
    with pytest.raises(RunError, match=r"do not fit its network \(neck.queries\)"):
        planned(colours, **from_run(run))
    with pytest.raises(RunError, match=r"neck\.queries is missing"):
        sightline.load(run)
    assert planned(colours, **from_run(run), head="linear").built.head == LinearHeadConfig(layer="groups.1")


def test_weights_of_another_library_go_into_the_backbone(colours: Path, tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "a.pth")
    network = {"kind": "resnet18", "weights": str(tmp_path / "a.pth")}
    plan = planned(colours, network=network, head={"kind": "graph_attention", "layer": "layer3"})
    loaded = plan.built.weights
    assert loaded is not None
    assert (loaded.missing, loaded.unexpected, loaded.fresh_head, loaded.fresh_stem) == ([], [], False, True)
    assert resolve({"head": plan.describe()["head"], "network": "resnet18"}).head == plan.recipe.head
