"""Measure a finished classifier."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import sightline
from conftest import Finished, coloured_folder
from sightline.cli.main import main
from sightline.errors import DataError
from sightline.evaluation.evaluate import measures
from sightline.measures.metrics import wilson_interval


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.run, tmp_path / "copy"))


def test_evaluating_again_gives_what_training_measured_and_counts_the_reading(copy: Path) -> None:
    before = json.loads((copy / "evaluation.json").read_text())
    again = sightline.evaluate(copy)
    for name in ("accuracy", "accuracy_one_view", "accuracy_interval", "n", "confusion_matrix", "temperature"):
        assert again[name] == before[name]
    assert again["loss"] == pytest.approx(before["loss"], rel=1e-3)
    assert json.loads((copy / "model.json").read_text())["test_readings"] == 2


def test_a_folder_that_cannot_be_made_is_refused_before_the_reading_is_counted(copy: Path, capsys) -> None:
    (copy.parent / "file").touch()
    wanted = copy.parent / "file" / "out"
    assert main(["evaluate", str(copy), "--out", str(wanted)]) == 2
    assert f"{wanted} cannot be written (Not a directory)" in capsys.readouterr().err
    assert json.loads((copy / "model.json").read_text())["test_readings"] == 1


def test_a_set_without_a_test_split_is_measured_whole(finished: Finished, tmp_path: Path) -> None:
    other = coloured_folder(tmp_path / "other", images=5)
    found = sightline.evaluate(finished.run, other, out=tmp_path / "out")
    assert found["n"] == 15
    assert found["data"]["name"] == "other"
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == found
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 16


def test_images_that_were_trained_on_are_counted_and_the_others_measured_apart(
    finished: Finished, tmp_path: Path, capsys
) -> None:
    other = coloured_folder(tmp_path / "other", images=5)
    for file in other.rglob("*.png"):
        with Image.open(file) as image:
            ImageOps.mirror(image).save(file)
    assert sightline.evaluate(finished.run, other)["data"]["remarks"] == []
    own = sorted(finished.data.rglob("*.png"))
    for file in own:
        shutil.copy(file, other / file.parent.name / f"own-{file.name}")
    assert main(["evaluate", str(finished.run), str(other)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    learned = np.load(finished.run / "seen.npz")["trained"]
    assert (
        f"{len(learned):,} of these {len(own) + 15:,} images are, pixel for pixel, among those that it was trained"
        in said
    )
    assert f"on the other {len(own) + 15 - len(learned):,} is 1.0000" in said
    assert main(["evaluate", str(finished.run), str(shutil.copytree(finished.data, tmp_path / "again"))]) == 0
    assert "which flatters every figure" in capsys.readouterr().err


def test_of_a_set_with_a_test_split_that_is_measured(finished: Finished, tmp_path: Path) -> None:
    coloured_folder(tmp_path / "set" / "train", images=5)
    coloured_folder(tmp_path / "set" / "test", images=4)
    assert sightline.evaluate(finished.run, tmp_path / "set")["n"] == 12


def test_classes_are_matched_by_name_and_not_by_position(finished: Finished, tmp_path: Path) -> None:
    other = coloured_folder(tmp_path / "other", images=5)
    shutil.rmtree(other / "=blood")  # grass is the first of two here, and the second of three in the classifier
    found = sightline.evaluate(finished.run, other)
    assert found["accuracy"] == 1.0
    assert found["classes"]["=blood"]["n"] == 0
    assert found["classes"]["=blood"]["recall"] is None


def test_a_class_that_the_classifier_does_not_know_is_refused(finished: Finished, tmp_path: Path) -> None:
    other = coloured_folder(tmp_path / "other", images=5)
    (other / "grass").rename(other / "weed")
    with pytest.raises(
        DataError, match="class 'weed' of other is unknown to the classifier, which knows =blood, grass"
    ):
        sightline.evaluate(finished.run, other)


def test_a_set_that_has_changed_has_no_test_split_of_its_own_any_more(finished: Finished, tmp_path: Path) -> None:
    data = Path(shutil.copytree(finished.data, tmp_path / "colours"))
    run = Path(shutil.copytree(finished.run, tmp_path / "run"))
    model = json.loads((run / "model.json").read_text())
    model["data"]["location"] = str(data)
    (run / "model.json").write_text(json.dumps(model))
    assert sightline.evaluate(run)["n"] == 18  # moved, but the same images
    (data / "grass" / "000.png").unlink()
    with pytest.raises(DataError, match=r"are not those that .* was trained on"):
        sightline.evaluate(run)
    assert json.loads((run / "model.json").read_text())["test_readings"] == 2  # the refused reading is none


def test_the_measures_of_a_known_confusion() -> None:
    labels = np.array([0] * 6 + [1] * 4)
    predicted = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0])  # 4 of 6 and 3 of 4 are right
    logits_VNK = (np.eye(2)[predicted] * 2)[None].astype(np.float32)
    found = measures(logits_VNK, labels, ["a", "b"], "one", {"one": 1.0})
    assert found["accuracy"] == found["accuracy_one_view"] == 0.7
    assert found["accuracy_interval"] == list(wilson_interval(7, 10))
    assert found["confusion_matrix"] == [[4, 2], [1, 3]]
    assert found["classes"]["a"] == {"n": 6, "precision": 4 / 5, "recall": 4 / 6, "f1": 8 / 11}
    chance = np.exp(2) / (np.exp(2) + 1)  # of every prediction
    assert found["calibration_error"] == pytest.approx(chance - 0.7)
    assert found["loss"] == pytest.approx(-(7 * np.log(chance) + 3 * np.log(1 - chance)) / 10)
    assert "top_5_accuracy" not in found


def test_top_5_appears_from_six_classes_on() -> None:
    logits_VNK = np.eye(6, dtype=np.float32)[None]
    found = measures(logits_VNK, np.arange(6), list("abcdef"), "one", {"one": 1.0})
    assert found["top_5_accuracy"] == 1.0


# ── generated images ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_images_that_are_its_own_are_at_no_distance_and_noise_is_far(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, noise, image_file
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    own = sightline.evaluate(finished.run, finished.data, generated=True)["fidelity"]
    for number in range(own["made"]):
        folder = tmp_path / "made" / ("grass", "=blood")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        # black or white in each channel: far away in float32 and in bfloat16
        harsh = np.where(noise(number, 32, 32) > 127, np.uint8(255), np.uint8(0))
        (folder / f"{number:04d}.png").write_bytes(image_file(harsh))
    far = sightline.evaluate(finished.run, tmp_path / "made", generated=True, out=tmp_path / "measured")["fidelity"]
    assert own["made"] == own["real"] == far["made"] == far["real"]
    assert own["frechet"] < far["frechet"] / 5
    assert own["precision"] > 0.8
    assert far["precision"] < 0.5
    assert far["recall"] < 0.5 < own["recall"]
    assert json.loads((tmp_path / "measured" / "evaluation.json").read_text())["fidelity"] == far


def test_nothing_but_a_set_that_is_named_can_be_generated(finished: Finished, capsys) -> None:
    assert main(["evaluate", str(finished.run), "--generated"]) == 2
    assert "--generated measures a set of generated images: name the set" in capsys.readouterr().err


def test_answers_to_groups_are_measured_by_groups_and_so_are_two_runs_compared(tmp_path: Path, capsys) -> None:
    """Forty students with three photographs each: the interval is of forty, on the screen, in the run and its report."""
    coloured_folder(tmp_path / "set", images=40)
    lines = ["file,class,group"]
    for path in sorted((tmp_path / "set").rglob("*.png")):
        lines.append(f"{path.relative_to(tmp_path / 'set')},{path.parent.name},student {path.stem}")
    (tmp_path / "set" / "list.csv").write_text("\n".join(lines), "utf-8")
    settings = {"fit": {"epochs": 1, "batch_size": 16}, "network": {"kind": "speednet", "widths": [8, 16, 16]}}
    runs = [
        sightline.train(
            tmp_path / "set" / "list.csv",
            recipe="small",
            settings=settings | {"fit": settings["fit"] | {"seed": seed}},
            run=tmp_path / f"run-{seed}",
        )
        for seed in (0, 1)
    ]
    measured = json.loads((tmp_path / "run-0" / "evaluation.json").read_text())
    assert (measured["n"], measured["groups"]) == (24, 8)
    right, low = measured["accuracy"], measured["accuracy_interval"][0]
    assert low <= wilson_interval(round(24 * right), 24)[0]
    model = json.loads((tmp_path / "run-0" / "model.json").read_text())
    assert model["validation"]["groups"] * 3 == model["validation"]["n"]
    assert model["data"]["split_rule"] == 3
    report = (tmp_path / "run-0" / "report.html").read_text("utf-8")
    assert "by the cluster bootstrap over 8 groups" in report
    assert "test: whole groups, 24 of 120 images (20.0%; a fifth wanted)" in report
    assert main(["evaluate", str(runs[0])]) == 0
    assert "cluster bootstrap, 8 groups" in capsys.readouterr().out
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "o")]) == 0
    assert "24 test images of 8 groups, image by image, against run-0" in (tmp_path / "o" / "runs.md").read_text(
        "utf-8"
    )
