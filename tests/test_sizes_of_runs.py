"""A run is measured and shown at the size that it was trained at, also where that is decided another way today."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import sightline
from conftest import QUICK
from sightline.data.thumbnails import open_own
from sightline.errors import ConfigError
from sightline.runs.folder import read_model, read_model_of_finished


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """A run on images of 8 px from when they were enlarged to 32: its recipe leaves the size to the images."""
    root = tmp_path_factory.mktemp("older")
    for channel, name in enumerate(("red", "green")):
        (root / "set" / name).mkdir(parents=True)
        for index in range(20):
            pixels = np.random.default_rng(100 * channel + index).integers(0, 150, (8, 8, 3), np.uint8)
            pixels[..., channel] += 90
            Image.fromarray(pixels).save(root / "set" / name / f"{index:02d}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(root / "cache"))
        settings = QUICK | {"data": {"size": 32}}
        run = sightline.train(root / "set", recipe="small", settings=settings, run=root / "run")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["data"]["size"] = None
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert read_model(run)["size"] == [32, 32]
    return run


@pytest.fixture
def run(older, tmp_path):
    return Path(shutil.copytree(older, tmp_path / "run"))


def test_evaluate_reads_the_test_images_at_the_size_of_the_run(run):
    before = json.loads((run / "evaluation.json").read_text())
    found = sightline.evaluate(run, out=run / "again")
    assert (found["n"], found["accuracy"]) == (before["n"], before["accuracy"])
    assert (run / "again/predictions.csv").read_text() == (run / "predictions.csv").read_text()


def test_the_report_shows_the_images_at_the_size_of_the_run(run):
    shown = open_own(run, read_model_of_finished(run))
    assert shown.side == 32
    (run / "report.html").unlink(missing_ok=True)
    assert Path(sightline.report(run)).exists()


def test_an_unfinished_run_of_another_size_is_not_continued(run):
    (run / "DONE").unlink()
    with pytest.raises(ConfigError, match=r"images were 32×32 px and are 16×16 px"):
        sightline.train(run=run, resume=True)
