"""Code of others is run where the caller says that it is trusted; what a file says of trust is never taken."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import sightline
from conftest import Finished, coloured_folder
from sightline.cli.main import main
from sightline.config.resolving import merge, read_recipe, resolve, to_yaml
from sightline.config.studies import read_study, study_to_yaml
from sightline.config.trust import foreign_code, trusting, without_trust
from sightline.errors import ConfigError, RunError
from sightline.runs.folder import read_run_recipe
from sightline.studies.runner import jobs

CODE = """
open({trace!r}, "a").write("ran\\n")
from torch import nn

def tiny():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 3))

def dim(images):
    return images / 2
"""
TRUSTED = {"network": {"trust_code": True}, "augment": {"own": {"trust_code": True}}}


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Return the file that the code writes wherever it is run."""
    (tmp_path / "code").mkdir()
    trace = tmp_path / "was here"
    (tmp_path / "code" / "hubconf.py").write_text(CODE.format(trace=str(trace)))
    return trace


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return coloured_folder(tmp_path / "images", images=20)


def settings(tmp_path: Path) -> dict[str, Any]:
    code = tmp_path / "code"
    return {
        "network": {"kind": "hub", "repo": str(code), "name": "tiny", "trust_code": True},
        "augment": {"own": {"kind": "file", "file": str(code / "hubconf.py"), "name": "dim", "trust_code": True}},
        "fit": {"epochs": 1, "batch_size": 16},
        "evaluation": {"robustness": False},
    }


def file_of(tmp_path: Path, name: str, content: Any) -> Path:
    path = tmp_path / name
    path.write_text(yaml.safe_dump(content))
    return path


def test_trust_that_a_recipe_says_is_ignored_wherever_the_recipe_is_named(
    tmp_path: Path, images: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = file_of(tmp_path, "recipe.yaml", merge(read_recipe("small"), settings(tmp_path)))
    parts = file_of(tmp_path, "parts.yaml", settings(tmp_path))
    assert "trust_code: true" in whole.read_text()
    space = file_of(tmp_path, "space.yaml", {"fit": {"batch_size": [8, 16]}})
    for command in (
        ["train", images, "--config", whole],
        ["train", images, "--recipe", whole],
        ["train", images, "--recipe", "small", "--config", parts],
        ["plan", images, "--config", whole],
        ["find", "rate", images, "--config", whole],
        ["tune", images, "--config", whole, "--space", space, "--study", tmp_path / "tuning"],
    ):
        assert main([*map(str, command)]) == 2, command
        assert "read it, then add --network.trust-code" in capsys.readouterr().err, command
    assert main(["train", str(images), "--config", str(whole), "--network.trust-code"]) == 2
    assert "read it, then add --augment.own.trust-code" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"in Python: settings=\{'network': \{'trust_code': True\}\}"):
        sightline.train(images, recipe=whole)
    assert not trace.exists()


def test_a_run_records_no_trust_and_every_verb_asks_again(
    tmp_path: Path, images: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = sightline.train(images, recipe="small", settings=settings(tmp_path), run=tmp_path / "run")
    assert run is not None
    assert trace.exists()
    assert "trust_code" not in (run / "recipe.yaml").read_text()
    assert "trust_code" not in (run / "report.html").read_text()
    record = run / "recipe.yaml"  # as an older sightline, or a stranger, wrote it
    record.write_text(yaml.safe_dump(merge(yaml.safe_load(record.read_text()), TRUSTED)))
    assert read_run_recipe(run).name == "small"
    trace.unlink()
    again = ["train", "--config", str(record), "--run", str(tmp_path / "again")]
    (run / "DONE").rename(run / "not DONE")
    for command, flag in (
        (again, "--network.trust-code"),
        (["train", "--resume", "--run", str(run)], "--network.trust-code"),
    ):
        assert main(command) == 2
        assert f"read it, then add {flag}" in capsys.readouterr().err
    (run / "not DONE").rename(run / "DONE")
    image = str(next(images.glob("*/*.png")))
    for command in (
        ["evaluate", run],
        ["report", run],
        ["predict", run, image],
        ["explain", run, image, "--out", tmp_path / "maps"],
        ["encode", run, image, "--out", tmp_path / "features.npz"],
        ["export", run, "--out", tmp_path / "net.onnx"],
        ["check", images, "--labels", run],
        ["serve", run],
    ):
        assert main([*map(str, command)]) == 2, command
        assert "read it, then add --trust-code, in Python trust_code=True" in capsys.readouterr().err, command
    assert main(["train", str(images), "--network", f"run:{run}", "--recipe", "small", "--dry-run"]) == 2
    assert "--network.trust-code" in capsys.readouterr().err
    assert not trace.exists()
    assert main([*again, "--network.trust-code", "--augment.own.trust-code", "--dry-run"]) == 0
    assert trace.exists()


def study_file(tmp_path: Path, images: Path) -> Path:
    own = settings(tmp_path)
    content = {
        "name": "strangers",
        "data": str(images),
        "recipe": merge(read_recipe("small"), {name: own[name] for name in ("fit", "evaluation")}),
        "seeds": 1,
        "variants": [
            {"name": "plain", "settings": {"fit": {"epochs": 2}}},
            {"name": "own", "settings": {"network": own["network"], "augment": own["augment"]}},
            {"name": "from", "backbone": "own"},
        ],
    }
    return file_of(tmp_path, "study.yaml", content)


def test_trust_that_a_study_says_is_ignored_and_the_callers_reaches_its_trainings(
    tmp_path: Path, images: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = study_file(tmp_path, images), tmp_path / "study"
    command = ["compare", str(file), "--out", str(folder)]
    assert main(command) == 2
    assert "study 'strangers', 'own', runs the code of" in (said := capsys.readouterr().err)
    assert "read it, then add --trust-code" in said
    assert not trace.exists()
    assert not folder.exists()
    by_name = {job.variant.name: job.trust for job in jobs(read_study(file), folder, trust_code=True)}
    assert by_name == {"plain": {}, "own": TRUSTED, "from": {"network": {"trust_code": True}}}
    assert main([*command, "--trust-code"]) == 0
    assert trace.exists()
    for written in (folder / "study.yaml", *(folder / "work").glob("*.yaml"), *folder.glob("runs/*/recipe.yaml")):
        assert "trust_code" not in written.read_text(), written
    assert "trust_code" not in study_to_yaml(read_study(file))


def test_a_tuning_asks_for_trust_when_it_is_begun_and_when_it_is_continued(
    tmp_path: Path, images: Path, trace: Path
) -> None:
    space, folder = {"fit": {"batch_size": [8, 16]}}, tmp_path / "tuning"
    sightline.tune(
        images,
        recipe="small",
        settings=settings(tmp_path) | {"fit": {"epochs": 1}},
        space=space,
        study=folder,
        trials=1,
    )
    assert trace.exists()
    trace.unlink()
    for written in (folder / "study.yaml", folder / "best.yaml", *folder.glob("trials/*/recipe.yaml")):
        assert "trust_code" not in written.read_text(), written
    with pytest.raises(ConfigError, match=r"then add --network.trust-code"):
        sightline.tune(study=folder, resume=True, trials=2)
    assert not trace.exists()
    assert sightline.tune(study=folder, resume=True, trials=2, settings=TRUSTED) == folder
    assert trace.exists()


def test_a_recipe_is_read_as_data_and_written_without_trust(tmp_path: Path) -> None:
    whole = merge(read_recipe("small"), settings(tmp_path))
    assert foreign_code(whole)["network"] == (str(tmp_path / "code"), True)
    assert trusting(whole) == TRUSTED
    assert "trust_code" not in to_yaml(resolve(whole))
    assert without_trust({"data": {"merge": {"trust_code": "a"}}}) == {"data": {"merge": {"trust_code": "a"}}}


def test_a_run_that_has_moved_looks_for_its_code_in_its_own_folder(tmp_path: Path, images: Path, trace: Path) -> None:
    own = settings(tmp_path) | {"augment": {}}
    run = sightline.train(images, recipe="small", settings=own, run=tmp_path / "run")
    assert run is not None
    code = (tmp_path / "code").rename(tmp_path / "elsewhere") / "hubconf.py"
    with pytest.raises(RunError, match=r"built by hubconf.py of .*code, which is not on this machine; copy that file"):
        sightline.load(run, trust_code=True)
    (run / "hubconf.py").write_bytes(code.read_bytes())
    with pytest.raises(ConfigError, match="add --trust-code"):
        sightline.load(run)
    assert sightline.load(run, trust_code=True).predict(next(images.glob("*/*.png"))).label


def test_a_recipe_whose_images_lie_elsewhere_says_how_to_name_them_and_whether_they_are_the_same(
    tmp_path: Path, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    run, images = tmp_path / "run", tmp_path / "copy"
    shutil.copytree(finished.run, run)
    shutil.copytree(finished.data, images)
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(finished.data), "/nobody/has/this"))
    assert main(["train", "--config", str(recipe), "--dry-run"]) == 2
    assert "'/nobody/has/this', which the recipe names, on this machine; name your copy" in capsys.readouterr().err
    assert main(["train", str(images), "--config", str(recipe), "--dry-run"]) == 0
    assert f"The images are those of {run}" in "".join(capsys.readouterr()).replace("\n", " ")
    next(images.glob("*/*.png")).unlink()
    assert main(["train", str(images), "--config", str(recipe), "--dry-run"]) == 0
    assert f"the images are not those of {run}" in "".join(capsys.readouterr()).replace("\n", " ")
