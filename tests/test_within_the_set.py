"""Commands that are run inside the folder of images, and again when it has grown: nothing they write changes the set."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import sightline
from conftest import QUICK, Finished, coloured_folder
from sightline.cli.main import main
from sightline.data.sources import folder
from sightline.display.lines import Lines
from sightline.errors import DataError
from sightline.runs.folder import read_model

ONE = QUICK | {"fit": {"epochs": 1, "batch_size": 16}}


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images in which we are."""
    root = coloured_folder(tmp_path / "photos", images=12)
    monkeypatch.chdir(root)
    return root


def test_a_training_inside_the_set_that_it_reads_works_and_again(inside: Path) -> None:
    text = io.StringIO()
    before = sorted(path for path in inside.rglob("*") if path.is_file())
    one = sightline.train(".", recipe="small", settings=ONE)
    other = sightline.train(".", recipe="small", settings=ONE, on_event=Lines(Console(file=text, width=200)))
    assert one is not None
    assert other is not None
    models = [read_model(run) for run in (one, other)]
    assert models[0]["data"]["fingerprint"] == models[1]["data"]["fingerprint"]
    assert models[0]["classes"] == ["=blood", "grass", "ünder wasser"]
    assert models[0]["metrics"]["accuracy"] == models[1]["metrics"]["accuracy"]
    assert "files that sightline wrote" in text.getvalue()
    assert (one / "report.html").exists()
    after = sorted(path for path in inside.rglob("*") if path.is_file() and "runs" not in path.parts)
    assert after == before


def test_a_command_lists_the_set_once(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[Path] = []
    tree = folder.FolderTree
    monkeypatch.setattr(folder, "FolderTree", lambda root: walked.append(root) or tree(root))  # type: ignore[func-returns-value]
    sightline.train(".", recipe="small", settings=ONE)
    assert len(walked) == 1


def test_a_check_inside_the_set_says_what_it_left_out(inside: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (inside / "grass" / "deep").mkdir()
    shutil.copy(inside / "grass" / "000.png", inside / "grass" / "deep" / "1.png")
    (inside / "notes.txt").write_text("")
    assert main(["check", "."]) == 0
    assert main(["check", "."]) == 0
    told = capfd.readouterr().out
    assert "left out: 1 other file (1 .txt)" in told
    assert "left out: 4 files that sightline wrote (2 .csv, 1 .html, 1 .json)" in told
    assert "1 deeper folder holds images, which count for the 3 classes at the top; --data.classes leaf makes" in told
    page = Path("checks/photos-2/check.html").read_text("utf-8")
    assert "deeper folder" in page
    assert main(["check", ".", "--data.classes", "leaf"]) == 0
    assert "deeper folder" not in capfd.readouterr().out


def test_a_dry_run_says_that_there_are_deeper_folders_and_that_they_can_be_the_classes(
    inside: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("grass", "=blood"):
        for part in ("one", "other"):
            (inside / name / part).mkdir()
            for number in range(6):
                source = inside / name / f"{number + (6 if part == 'other' else 0):03d}.png"
                source.rename(inside / name / part / source.name)
    quick = ["--recipe", "small", "--network.widths", "8", "16", "16", "--dry-run"]
    assert main(["train", ".", *quick]) == 0
    told = capfd.readouterr().out
    assert "3 classes" in told
    assert "4 deeper folders hold images, which count for the 3 classes at the top; --data.classes leaf makes" in told
    assert main(["train", ".", *quick, "--data.classes", "leaf"]) == 0
    told = capfd.readouterr().out
    assert "5 classes (=blood/one, =blood/other, grass/one, grass/other, ünder wasser)" in told
    assert "deeper" not in told


def test_a_run_on_the_deepest_folders_is_evaluated_on_them(inside: Path, tmp_path: Path) -> None:
    (inside / "plants").mkdir()
    (inside / "grass").rename(inside / "plants" / "grass")
    shutil.copytree(inside / "=blood", inside / "plants" / "rose")
    run = sightline.train(".", recipe="small", settings=ONE | {"data": {"classes": "leaf"}}, run=tmp_path / "run")
    assert run is not None
    assert read_model(run)["classes"] == ["=blood", "grass", "rose", "ünder wasser"]
    assert sightline.evaluate(run)["n"] == read_model(run)["metrics"]["n"]
    assert sightline.evaluate(run, inside)["n"] == 48


def test_classes_by_folders_are_refused_where_folders_have_no_say(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--data.classes", "leaf", "--dry-run"]) == 2
    assert "--data.classes leaf has no effect: digits names the class of each image" in capfd.readouterr().err


def test_commands_that_read_images_say_what_they_left_out(
    finished: Finished, inside: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (inside / "grass" / "notes.txt").write_text("")
    (inside / "gone").symlink_to("/nowhere")
    lines = ["left out: 1 link to nothing", "left out: 1 other file (1 .txt)"]
    for command in (
        ["predict", str(finished.run), "."],
        ["evaluate", str(finished.run), "."],
        ["encode", str(finished.run), ".", "--out", str(tmp_path / "f.npz")],
    ):
        assert main(command) == 0
        told = capfd.readouterr().err
        assert [line for line in lines if line not in told] == [], command


def test_a_grown_set_is_refused_with_the_network_of_the_run_before_and_taken_with_its_splits(
    inside: Path, tmp_path: Path
) -> None:
    old = sightline.train(inside, recipe="small", settings=ONE, run=tmp_path / "old")
    assert old is not None
    random = np.random.default_rng(0)
    coloured_folder(tmp_path / "more", images=30)
    for name in ("grass", "=blood", "ünder wasser"):
        for number in range(12, 30):
            shutil.copy(tmp_path / "more" / name / f"{number:03d}.png", inside / name)
    (inside / "violet").mkdir()
    for number in range(12):
        path = tmp_path / "more" / random.choice(["grass", "=blood"]) / f"{number:03d}.png"
        data = bytearray(path.read_bytes())
        pixels = np.asarray(Image.open(io.BytesIO(data)))[..., ::-1] // 2
        Image.fromarray(np.ascontiguousarray(pixels)).save(inside / "violet" / path.name)
    settings = ONE | {"network": {"kind": "run", "folder": os.fspath(old)}}
    with pytest.raises(DataError, match=r"keep its splits \(--data\.keep-split .*old\)"):
        sightline.train(inside, recipe="small", settings=settings, run=tmp_path / "new")
    kept = settings | {"data": {"keep_split": os.fspath(old)}}
    new = sightline.train(inside, recipe="small", settings=kept, run=tmp_path / "new")
    assert new is not None
    assert read_model(new)["classes"] == ["=blood", "grass", "violet", "ünder wasser"]
    shutil.rmtree(old)
    assert sightline.evaluate(new)["n"] == read_model(new)["metrics"]["n"]
