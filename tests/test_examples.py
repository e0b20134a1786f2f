"""The examples that people copy: they run, and answer as the classifier does."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

import sightline
from conftest import Finished

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str, file: str = "app.py") -> ModuleType:
    """Import a file of an example."""
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), EXAMPLES / name / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photo(finished: Finished) -> Path:
    return sorted(finished.data.rglob("*.png"))[0]


@pytest.fixture(params=["run", "file"])
def classifier(request: pytest.FixtureRequest, finished: Finished, tmp_path: Path, monkeypatch: Any) -> str:
    """The folder of a run, or its exported file."""
    if request.param == "run":
        return str(finished.run)
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    return str(sightline.export(finished.run, out=tmp_path / "model.onnx").path)


def test_a_route_of_ones_own_application_answers_as_the_classifier_does(
    classifier: str, finished: Finished, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    monkeypatch.setenv("RUN", classifier)
    module = example("fastapi")
    wanted = sightline.load(finished.run).predict(photo, coverage=0.9)
    with TestClient(module.application) as client:
        answer = client.post("/what", files={"photo": photo.read_bytes()})
        assert answer.status_code == 200
        found = answer.json()
        assert found["label"] == wanted.label
        assert found["probability"] == pytest.approx(wanted.probability, abs=1e-3)
        assert found["none of these"] == wanted.unknown
        assert found["among these in 90 of 100 photos"] == list(wanted.within)
        refused = client.post("/what", files={"photo": b"no image"})
        assert refused.status_code == 422
        assert "cannot be read" in refused.json()["detail"] or "no image" in refused.json()["detail"]
        monkeypatch.setattr(module, "LARGEST", 10)
        assert client.post("/what", files={"photo": photo.read_bytes()}).status_code == 413


def test_the_page_of_a_space_shows_what_the_classifier_sees(finished: Finished, photo: Path) -> None:
    gradio = pytest.importorskip("gradio")
    page = example("space").page_of(str(finished.run))
    wanted = sightline.load(finished.run).predict(photo)
    with Image.open(photo) as image:
        shares, note = page.fn(image)
    assert max(shares, key=shares.get) == wanted.label
    assert bool(note) == wanted.unknown
    with pytest.raises(gradio.Error, match="No image was given"):
        page.fn(None)


def test_a_network_of_ones_own_is_trained_measured_explained_and_exported(
    finished: Finished, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    exported = example("network", "train.py").train(finished.data, tmp_path / "run", epochs=2)
    assert len(list((tmp_path / "run" / "maps").glob("*.png"))) == 1
    with pytest.raises(sightline.SightlineError, match="read it, then add --trust-code"):
        sightline.load(tmp_path / "run")
    import sightline_runtime

    answers = [
        loaded.predict(photo).label
        for loaded in (sightline.load(tmp_path / "run", trust_code=True), sightline_runtime.load(exported))
    ]
    assert answers[0] == answers[1]


def test_an_augmentation_of_ones_own_is_trained_with_and_changes_each_image_its_own_way(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    assert example("augmentation", "train.py").train(finished.data, tmp_path / "run", epochs=2) > 0
    assert "light.py" in (tmp_path / "run" / "recipe.yaml").read_text("utf-8")
    lit = example("augmentation", "light.py").light(torch.full((4, 3, 5, 6), 0.5))
    assert lit.shape == (4, 3, 5, 6)
    assert (lit.amax((1, 2, 3)) - lit.amin((1, 2, 3)) > 0).all()
    assert lit.flatten(1).unique(dim=0).shape[0] == 4


def test_a_trainer_of_ones_own_calls_ones_callback_and_leaves_a_run(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    norms = example("trainer", "train.py").train(finished.data, tmp_path / "run", tmp_path / "work", epochs=2)
    assert len(norms) > 0
    assert all(norm > 0 for norm in norms)
    assert (tmp_path / "run" / "report.html").exists()
    assert list((tmp_path / "work").glob("*.ckpt"))
