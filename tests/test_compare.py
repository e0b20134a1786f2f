"""``sightline compare``: runs side by side, a study to its page, and what is refused."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import sightline
from browsing import BROWSER, chromium, look_over
from conftest import Finished
from sightline.cli.main import main
from sightline.config.resolving import read_recipe, resolve, to_yaml
from sightline.errors import TrainingError
from sightline.measures.significance import paired_interval
from sightline.runs.tensors import digest_of_weights, pack_tensors, read_tensors
from sightline.studies import runner
from sightline.studies.findings import points
from sightline.studies.runner import Job

SMALL = {"network": {"kind": "speednet", "widths": [8, 16, 16]}, "fit": {"epochs": 2, "batch_size": 16}}
CLASSES = ["=blood", "grass", "ünder wasser"]
GAINS = {"plain": 0.0, "good": 0.1, "same": 0.001}
SHIFTS = ((0.0, 0.01, -0.01), (0.005, -0.005, 0.0), (-0.01, 0.0, 0.01))  # of a seed (rows) and a recipe


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def copy(finished: Finished, run: Path, accuracy: float, recipe: dict | None = None) -> Path:
    """A run like the finished one, of another accuracy and with other settings."""
    shutil.copytree(finished.run, run)
    model = json.loads((run / "model.json").read_text())
    model["validation"]["accuracy"] = accuracy
    model["metrics"]["accuracy"] = accuracy - 0.01
    (run / "model.json").write_text(json.dumps(model))
    whole = resolve(read_recipe(run / "recipe.yaml"), recipe or {})
    (run / "recipe.yaml").write_text(to_yaml(whole))
    return run


@pytest.fixture
def pretend(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trainings that take no time, and the names of those that were."""
    trained = []

    def train(job: Job, *more: object) -> None:
        trained.append(job.name)
        if job.variant.name == "broken":
            raise TrainingError("the loss is not finite from step 3 on.")
        position = list(GAINS).index(job.variant.name)
        accuracy = 0.8 + GAINS[job.variant.name] + SHIFTS[job.seed][position]
        copy(finished, job.run, accuracy, job.settings)

    monkeypatch.setattr(runner, "train_in_child", train)
    return trained


@pytest.fixture
def written(finished: Finished, tmp_path: Path) -> Callable[..., Path]:
    """Write the file of a study of three recipes and three seeds."""

    def write(*more: str, **changed: object) -> Path:
        names = ("plain", "good", "same", *more)
        variants = [{"name": name, "settings": {"fit": {"label_smoothing": at / 10}}} for at, name in enumerate(names)]
        variants[0]["about"] = "As it comes."
        content = {
            "name": "made",
            "data": str(finished.data),
            "recipe": "small",
            "settings": SMALL,
            "variants": variants,
        }
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content | changed))
        return tmp_path / "mine.yaml"

    return write


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["compare", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("sightline: ")
    assert printed.err.count("\n") == 1
    return printed.err


# ── runs side by side ────────────────────────────────────────────────────────────────────────────────────────────────


def test_runs_become_a_page_three_tables_and_a_table_on_the_console(finished: Finished, tmp_path: Path, capsys) -> None:
    one = copy(finished, tmp_path / "one", 0.9)
    other = copy(finished, tmp_path / "other", 0.8, {"schedule": "constant", "fit": {"seed": 3}})
    assert main(["compare", str(one), str(other)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "studies/runs-1/runs.html"
    for wanted in ("one", "other", "0.8900", "0.7900", "18", "10,888"):
        assert wanted in printed
    folder = tmp_path / "studies" / "runs-1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "curves.csv",
        "runs.csv",
        "runs.html",
        "runs.md",
        "settings.csv",
    ]
    assert [row["name"] for row in rows(folder / "runs.csv")] == ["one", "other"]
    assert [row["setting"] for row in rows(folder / "settings.csv")] == ["schedule.kind", "schedule.final", "fit.seed"]
    page = (folder / "runs.html").read_text("utf-8")
    for wanted in ("2 runs side by side", "schedule.<wbr>kind", "Accuracy on validation, by epoch.", "training FLOPs"):
        assert wanted in page
    assert "Trained: 2 runs on " in page
    assert "fit.<wbr>epochs" not in page  # in which they do not differ
    assert main(["compare", str(one), str(other)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "studies/runs-2/runs.html"


def test_runs_on_other_images_are_compared_all_the_same_and_it_is_said(
    finished: Finished, tmp_path: Path, capsys
) -> None:
    one, other = copy(finished, tmp_path / "one", 0.9), copy(finished, tmp_path / "other", 0.8)
    model = json.loads((other / "model.json").read_text())
    model["data"]["fingerprint"] = "0" * 16
    (other / "model.json").write_text(json.dumps(model))
    assert main(["compare", str(one), str(other), "--out", "o"]) == 0
    assert "warning: These runs were not trained on the same images" in capsys.readouterr().out
    assert "were not trained on the same images" in (tmp_path / "o" / "runs.html").read_text("utf-8")


def test_runs_whose_weights_are_equal_are_said_to_be_identical_whatever_else_they_note(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same, other = copy(finished, tmp_path / "same", 0.9), copy(finished, tmp_path / "other", 0.9)
    tensors, metadata = read_tensors(same / "model.safetensors")
    noted = json.loads((finished.run / "model.json").read_text())["weights_sha256"]
    (same / "model.safetensors").write_bytes(pack_tensors(tensors, {**metadata, "more": "words"}))
    assert digest_of_weights((same / "model.safetensors").read_bytes()) == noted
    name = next(name for name in tensors if not name.startswith("sightline."))
    tensors[name] = tensors[name] + 1
    (other / "model.safetensors").write_bytes(pack_tensors(tensors, metadata))
    assert main(["compare", str(finished.run), str(same), str(other)]) == 0
    assert f"weights: identical in {finished.run.name}, same\n" in "".join(capsys.readouterr())
    assert main(["compare", str(same), str(other)]) == 0
    assert "identical" not in "".join(capsys.readouterr())


def test_two_runs_of_one_name_are_called_by_their_paths(finished: Finished, tmp_path: Path, capsys) -> None:
    runs = [copy(finished, tmp_path / side / "run", 0.9) for side in ("a", "b")]
    assert main(["compare", *map(str, runs), "--out", "o"]) == 0
    assert [row["name"] for row in rows(tmp_path / "o" / "runs.csv")] == list(map(str, runs))
    assert "none: the recipes are the same" in (tmp_path / "o" / "runs.html").read_text("utf-8")


def test_runs_of_the_same_test_images_are_compared_image_by_image(finished: Finished, tmp_path: Path, capsys) -> None:
    one, other = (copy(finished, tmp_path / name, 0.9) for name in ("one", "other"))
    lines = (other / "predictions.csv").read_text("utf-8").splitlines()
    measured = json.loads((other / "evaluation.json").read_text())
    for place in range(13, 19):  # answers of the last class, which become wrong
        cells = lines[place].split(",")
        true = cells[1]
        wrong = "grass"
        at = cells.index(true, 2), cells.index(wrong, 2)
        cells[at[0]], cells[at[1]] = wrong, true
        lines[place] = ",".join(cells)
        row = CLASSES.index(true)
        measured["confusion_matrix"][row][row] -= 1
        measured["confusion_matrix"][row][CLASSES.index(wrong)] += 1
    (other / "predictions.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n", "utf-8")
    (other / "evaluation.json").write_text(json.dumps(measured))
    assert main(["compare", str(one), str(other), "--out", "o"]) == 0
    assert "0, 6" in capsys.readouterr().out
    words = (tmp_path / "o" / "runs.md").read_text("utf-8")
    low, high = paired_interval(np.arange(18) < 12, np.ones(18, bool))[1:]
    assert f"| other | 0, 6 | -33.33 ({points(low)} to {points(high)}) | 0.031 |" in words  # 2 / 2^6
    assert "The same 18 test images, image by image, against one." in words


# ── a study ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_study_is_trained_ranked_and_shown(written, pretend: list[str], tmp_path: Path, capsys) -> None:
    assert main(["compare", str(written())]) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "studies" / "made-colours"
    assert printed.splitlines()[-1] == "studies/made-colours/study.html"
    assert len(pretend) == 9
    for wanted in (
        "[9/9] same-2",
        "validation 0.8110, test 0.8010",
        "made, ranked by validation",
        "Better than plain on test: good (+10.",
    ):
        assert wanted in printed
    tables = {"study.csv", "runs.csv", "settings.csv", "curves.csv"}
    assert {path.name for path in folder.iterdir()} == {
        *tables, "study.html", "study.md", "study.yaml", "runs", "work", ".lock"
    }  # fmt: skip
    good, *others = rows(folder / "study.csv")
    assert good["recipe"] == "good"
    assert float(good["test_mean"]) == pytest.approx(0.89 + 0.005 / 3)
    assert {row["recipe"]: row["test_verdict"] for row in others} == {"plain": "", "same": "no difference shown"}
    assert len(rows(folder / "runs.csv")) == 9
    assert {row["seed"] for row in rows(folder / "runs.csv")} == {"0", "1", "2"}
    assert rows(folder / "settings.csv")[0] == {
        "setting": "fit.label_smoothing", "good": "0.1", "same": "0.2", "plain": "0"
    }  # fmt: skip
    page = (folder / "study.html").read_text("utf-8")
    for wanted in (
        "no difference shown",
        "As it comes.",
        "Differences on test",
        "Accuracy against training FLOPs",
        "Accuracy against seconds",
        "Bands: from the lowest seed to the highest.",
        "Dunnett",
        "critical value 3.310",  # of two comparisons with 4 degrees of freedom
        f" and PyTorch {torch.__version__.partition('+')[0]}.",
    ):
        assert wanted in page
    if BROWSER:
        with chromium() as browser:
            assert look_over(browser, (folder / "study.html").as_uri()) == []
    words = (folder / "study.md").read_text("utf-8")
    for wanted in ("# Study: made\n", "| good | 0.90", "(-2.55 to +3.08, no difference shown)", "Dunnett"):
        assert wanted in words


def test_a_study_that_was_shown_is_shown_again_without_training(
    written, pretend: list[str], tmp_path: Path, capsys
) -> None:
    path = written()
    assert main(["compare", str(path), "--seeds", "2", "--out", "o"]) == 0
    page = (tmp_path / "o" / "study.html").read_bytes()
    pretend.clear()
    assert main(["compare", str(path), "--seeds", "2", "--out", "o"]) == 0
    assert main(["compare", "o"]) == 0
    assert pretend == []
    assert (tmp_path / "o" / "study.html").read_bytes() == page
    assert "seeds was [0, 1] and is [0, 1, 2]" in refusal(capsys, path, "--out", "o")


def test_without_a_recipe_a_study_is_shown_as_a_second_look_beside_its_page(
    written, pretend: list[str], tmp_path: Path, capsys
) -> None:
    path = written()
    assert "has not begun; train the study first" in refusal(capsys, path, "--without", "same", "--out", "o")
    assert main(["compare", str(path), "--out", "o"]) == 0
    page = (tmp_path / "o" / "study.html").read_bytes()
    pretend.clear()
    capsys.readouterr()
    assert main(["compare", "o", "--without", "same"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "o/study-without-same.html"
    assert "A second look: same was left out after the results were known" in " ".join(printed.split())
    assert pretend == []
    assert (tmp_path / "o" / "study.html").read_bytes() == page
    again = (tmp_path / "o" / "study-without-same.html").read_text("utf-8")
    assert "critical value 4.303" in again  # Student's: one comparison with 2 degrees of freedom
    assert "A second look" in again
    assert "no such recipe" in refusal(capsys, "o", "--without", "sane")
    assert "it is the baseline" in refusal(capsys, "o", "--without", "plain")
    assert "--without has no effect on runs that are finished" in refusal(capsys, "a", "b", "--without", "c")


def test_one_seed_is_shown_with_the_words_that_there_is_no_interval(written, pretend, tmp_path: Path, capsys) -> None:
    assert main(["compare", str(written()), "--seeds", "1", "--out", "o"]) == 0
    assert "There is one seed, so there is no interval" in " ".join(capsys.readouterr().out.split())
    assert rows(tmp_path / "o" / "study.csv")[0]["test_low"] == ""


def test_a_recipe_that_fails_leaves_the_others_a_page_and_the_command_that_tries_it_again(
    written, pretend, tmp_path: Path, capsys
) -> None:
    sentence = refusal(capsys, written("broken"), "--out", "o")
    assert "3 of 12 runs are not finished (the first: the loss is not finite from step 3 on.)" in sentence
    assert "Try them again: sightline compare o" in sentence
    page = (tmp_path / "o" / "study.html").read_text("utf-8")
    assert "broken has no finished run and is left out." in page
    assert "broken, seed 1, failed: the loss is not finite from step 3 on." in page


def test_ctrl_c_ends_with_status_130_and_the_command_that_continues(
    written, pretend: list[str], capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, train = written(), runner.train_in_child

    def stopped(job: Job, *more: object) -> None:
        if job.name == "same-1":
            raise KeyboardInterrupt
        train(job, *more)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "train_in_child", stopped)
        assert main(["compare", str(path)]) == 130
    sentence = "sightline: stopped; continue with: sightline compare studies/made-colours\n"
    assert capsys.readouterr().err == sentence
    assert len(pretend) == 5
    assert main(["compare", "studies/made-colours"]) == 0
    assert pretend[5:] == ["same-1", "plain-2", "good-2", "same-2"]


def test_the_fraction_is_part_of_the_folder_and_of_every_run(written, pretend, tmp_path: Path, capsys) -> None:
    assert main(["compare", str(written()), "--fraction", "0.5", "--seeds", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "studies/made-colours-0.5/study.html"
    told = yaml.safe_load((tmp_path / "studies" / "made-colours-0.5" / "study.yaml").read_text())
    assert told["fraction"] == 0.5


def test_python_has_the_same_verb(finished: Finished, tmp_path: Path) -> None:
    runs = [copy(finished, tmp_path / name, 0.9) for name in ("a", "b")]
    assert sightline.compare(*runs, out=tmp_path / "o") == tmp_path / "o" / "runs.html"


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "nothing was named to compare; give two or more finished runs, or a study: attention"),
        (("RUN",), "is one run alone; name two or more"),
        (("RUN", "RUN"), "is named twice"),
        (("RUN", "HALF"), "is not a finished run: it has no DONE file"),
        (("RUN", "nowhere"), "there is no run or study 'nowhere'"),
        (("atention",), "there is no run or study 'atention'; did you mean 'attention'?"),
        (("RUN", "tricks"), "tricks is a study, which is compared by itself"),
        (("RUN", "OTHER", "--seeds", "3"), "--seeds has no effect on runs that are finished"),
        (("RUN", "OTHER", "--out", "begun"), "begun holds a study; choose another --out"),
        (("begun", "--seeds", "5"), "--seeds cannot be changed: begun has begun with its own"),
        (("RUN", "OTHER", "--workers", "2"), "--workers has no effect on runs that are finished"),
        (("mine.yaml", "--workers", "0"), "--workers is 0; it must be at least 1"),
        (("begun", "--workers", "999"), "--workers is 999; it must be at least 1 and at most"),
        (("begun", "--out", "o"), "--out cannot be changed"),
        (("nowhere.yaml",), "there is no study or file 'nowhere.yaml'"),
        (("mine.yaml", "--data", "nowhere"), "no image set at 'nowhere'"),
        (("mine.yaml", "--seeds", "0"), "--seeds is 0; it must be at least 1"),
        (("mine.yaml", "--fraction", "2"), "--fraction is 2; it must be above 0 and at most 1"),
        (("homeless.yaml",), "study 'made' names no image set; add --data"),
    ],
)
def test_compare_refuses_in_one_sentence(
    arguments: tuple[str, ...], sentence: str, finished: Finished, written, tmp_path: Path, capsys
) -> None:
    for name in ("RUN", "OTHER", "HALF"):
        shutil.copytree(finished.run, tmp_path / name)
    (tmp_path / "HALF" / "DONE").unlink()
    (tmp_path / "begun").mkdir()
    shutil.copy(written(), tmp_path / "begun" / "study.yaml")
    shutil.copy(written(data=None), tmp_path / "homeless.yaml")
    written()
    assert sentence in refusal(capsys, *arguments)
    assert not (tmp_path / "studies").exists()


def test_studies_lists_those_that_come_along(capsys) -> None:
    assert main(["studies"]) == 0
    text = capsys.readouterr().out
    for wanted in ("tricks", "attention", "what it asks", "Does graph attention"):
        assert wanted in text


@pytest.mark.parametrize("arguments", [["studies"], ["compare", "nowhere"], ["compare", "a.yaml"]])
def test_listing_and_refusing_load_no_torch(arguments: list[str]) -> None:
    code = f"import sys; from sightline.cli.main import main; main({arguments!r}); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ | {"COLUMNS": "100"})
    assert result.returncode == 0, result.stderr


def test_comparing_runs_loads_no_torch(finished: Finished, tmp_path: Path) -> None:
    runs = [str(copy(finished, tmp_path / name, 0.9)) for name in ("a", "b")]
    code = f"import sys; from sightline.cli.main import main; main(['compare', *{runs!r}]); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ)
    assert result.returncode == 0, result.stdout
