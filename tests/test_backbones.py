"""A training that starts from an earlier run: its weights, its statistics, and the images it must not be tested on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from conftest import Finished
from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split
from sightline.display.reporting import ignore
from sightline.errors import ConfigError, DataError, RunError
from sightline.runs import folder
from sightline.training import module, preparation

QUICK = {"fit": {"epochs": 1, "batch_size": 16}}
CLONE = str(Path(__file__).parent / "hub_clone")


@pytest.fixture
def earlier(finished: Finished, tmp_path: Path) -> Path:
    """A copy of an earlier run that may be changed and taken away."""
    return Path(shutil.copytree(finished.run, tmp_path / "earlier"))


def start_from(run: Path, data: Path, out: Path, **settings: Any) -> Path:
    network = {"network": f"run:{run}"}
    made = sightline.train(data, recipe="small", settings=QUICK | network | settings, run=out)
    assert made is not None
    return made


def model_of(run: Path) -> dict[str, Any]:
    model: dict[str, Any] = json.loads((run / "model.json").read_text())
    return model


def seen(run: Path, column: str) -> set[int]:
    with np.load(run / "seen.npz", allow_pickle=False) as file:
        assert file[column].dtype == np.uint64
        assert (np.diff(file[column].astype(object)) > 0).all()  # sorted, each once
        return set(file[column].tolist())


def planned(images: Path, run: Path, **settings: Any) -> Any:
    return preparation.prepare_training(images, "small", QUICK | {"network": f"run:{run}"} | settings, ignore)


def other_set(root: Path) -> Path:
    """Two classes of the tests' own images."""
    for channel, name in enumerate(("sea", "sky")):
        (root / name).mkdir(parents=True)
        for index in range(20):
            pixels = np.random.default_rng(9000 + 100 * channel + index).integers(0, 90, (32, 32, 3), np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_a_run_keeps_the_hashes_of_what_it_was_trained_and_validated_on(finished: Finished, monkeypatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    images = open_images(find_source(finished.data))
    splits = split(images)
    for column, rows in (("trained", splits.train), ("validated", splits.validation)):
        assert seen(finished.run, column) == {int(images.hashes[row][:16], 16) for row in rows}


def test_the_same_set_starts_from_the_weights_the_head_and_the_statistics_of_the_run(
    finished: Finished, earlier: Path
) -> None:
    plan = planned(finished.data, earlier)
    before = folder.read_weights(earlier / "model.safetensors")[0]
    assert all(value.equal(before[name]) for name, value in plan.network.state_dict().items())
    assert plan.normalization.mean == model_of(earlier)["normalization"]["mean"]
    assert not plan.built.weights.fresh_head


def test_the_new_run_loads_and_goes_on_without_the_earlier_one(
    finished: Finished, earlier: Path, tmp_path: Path
) -> None:
    made = start_from(earlier, finished.data, tmp_path / "made")
    shutil.rmtree(earlier)
    classifier = sightline.load(made, device="cpu")
    assert classifier.predict([finished.data / "grass" / "000.png"])[0].label == "grass"
    model = model_of(made)
    assert model["network"]["kind"] == "speednet"
    assert model["weights"]["source"] == f"the run {earlier}"
    assert f"folder: {earlier}" in (made / "recipe.yaml").read_text()
    assert seen(made, "trained") == seen(finished.run, "trained")


def test_a_training_from_a_run_that_was_stopped_ends_in_the_same_bits(
    finished: Finished, earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start_from(earlier, finished.data, tmp_path / "whole")
    step, count = module.ClassifierLearner.training_step, 0

    def dying(self, batch, index):
        nonlocal count
        count += 1
        if count == 3:
            raise MemoryError
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(module.ClassifierLearner, "training_step", dying)
        with pytest.raises(MemoryError):
            start_from(earlier, finished.data, tmp_path / "run", fit=QUICK["fit"] | {"checkpoint_seconds": 0.0})
    resumed = sightline.train(run=tmp_path / "run", resume=True)
    assert resumed is not None
    one, other = (folder.read_weights(run / "model.safetensors")[0] for run in (whole, resumed))
    assert all(one[name].equal(other[name]) for name in one)


def test_other_classes_get_a_fresh_head_and_the_images_of_both_runs_are_kept(earlier: Path, tmp_path: Path) -> None:
    data = other_set(tmp_path / "others")
    plan = planned(data, earlier)
    assert plan.built.weights.fresh_head
    assert "  a fresh head: these weights tell other classes apart" in plan.notes()
    before = folder.read_weights(earlier / "model.safetensors")[0]
    state = plan.network.state_dict()
    assert state["head.weight"].shape == (2, 16)
    assert state["groups.0.conv1.weight"].equal(before["groups.0.conv1.weight"])
    made = start_from(earlier, data, tmp_path / "made")
    assert seen(made, "trained") > seen(earlier, "trained")
    assert len(seen(made, "trained")) == 57 + model_of(made)["data"]["counts"]["train"]


def test_a_backbone_that_has_learnt_from_test_images_is_refused(finished: Finished, earlier: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"\d+ of the 18 test images of colours were trained or selected on by the backbone .*earlier \(the first: .*png\)",
    ):
        planned(finished.data, earlier, data={"split_seed": 1})


def test_a_backbone_that_was_trained_on_validation_images_is_refused(finished: Finished, earlier: Path) -> None:
    with pytest.raises(DataError, match=r"of the \d+ validation images of colours were trained or selected on by"):
        planned(finished.data, earlier, data={"validation": 30})


def test_a_run_of_an_earlier_version_is_no_backbone(finished: Finished, earlier: Path) -> None:
    (earlier / "seen.npz").unlink()
    with pytest.raises(
        RunError, match=r"cannot be a backbone: it has no seen.npz, .*; train it again: sightline train --config"
    ):
        planned(finished.data, earlier)
    (earlier / "seen.npz").write_bytes(b"half")
    with pytest.raises(RunError, match=r"seen.npz cannot be read"):
        planned(finished.data, earlier)


def test_a_backbone_that_is_missing_or_unfinished_is_refused(finished: Finished, earlier: Path) -> None:
    with pytest.raises(RunError, match="there is no run at"):
        planned(finished.data, earlier / "no")
    (earlier / "DONE").unlink()
    with pytest.raises(RunError, match="is not a finished run"):
        planned(finished.data, earlier)


def test_images_of_another_size_go_through_the_network_that_was_built_for_the_first(
    finished: Finished, earlier: Path
) -> None:
    plan = planned(finished.data, earlier, data={"size": 80})
    assert plan.built.size == (32, 32)
    assert plan.network.state_dict()["whiten.weight"].shape[-1] == 2  # above 64 px a new one would have 4×4 patches
    assert plan.describe()["built_for"] == [32, 32]


def test_trusting_code_where_there_is_none_is_refused(finished: Finished, earlier: Path) -> None:
    network = {"kind": "run", "folder": str(earlier), "trust_code": True}
    with pytest.raises(ConfigError, match=r"--network.trust-code has no effect"):
        planned(finished.data, earlier, network=network)


def test_a_run_of_a_repositorys_network_loads_only_when_its_code_is_trusted(finished: Finished, tmp_path: Path) -> None:
    network = {"kind": "hub", "repo": CLONE, "name": "tiny", "trust_code": True}
    run = sightline.train(finished.data, recipe="small", settings=QUICK | {"network": network}, run=tmp_path / "hub")
    assert run is not None
    assert "trust_code" not in model_of(run)["network"]
    with pytest.raises(ConfigError, match=r"is built by the code of .*hub_clone, .*; read it, then add --trust-code"):
        sightline.load(run)
    with pytest.raises(ConfigError, match=r"--network.trust-code"):
        planned(finished.data, run)
    image = finished.data / "grass" / "000.png"
    assert sightline.predict(run, [image], trust_code=True).files == [str(image)]


def test_an_image_size_that_a_transformer_cannot_read_is_refused_before_the_first_step(finished: Finished) -> None:
    fit = {"fit": {"epochs": 2, "batch_size": 16}}
    settings = fit | {"network": "timm:test_vit", "augment": {"scales": [0.5, 1]}}
    with pytest.raises(ConfigError, match=r"network timm \(--augment.scales 0.5\) cannot read images of 16×16 px"):
        preparation.prepare_training(finished.data, "small", settings, ignore)


def test_the_statistics_of_the_weights_normalise_the_images(finished: Finished, tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "a.pth")
    settings = QUICK | {"network": {"kind": "resnet18", "weights": str(tmp_path / "a.pth")}}
    plan = preparation.prepare_training(finished.data, "small", settings, ignore)
    assert plan.describe()["normalization"]["mean"] == [0.485, 0.456, 0.406]
    assert plan.notes()[-1].endswith("mean 0.485 0.456 0.406, deviation 0.229 0.224 0.225")
    assert plan.describe()["weights"]["fresh_stem"]  # of 32 px
