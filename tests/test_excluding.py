"""Images that a list keeps out: of train and validation, never of test, and nothing else moves."""

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import sightline
from conftest import QUICK, Finished
from sightline.cli.main import main
from sightline.data.cache import open_images
from sightline.data.corrections import Corrected
from sightline.data.excluding import excluded_fingerprint, leave_out, read_excluded
from sightline.data.seen import trained_rows
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split
from sightline.errors import ConfigError, DataError
from sightline.evaluation import evaluate
from sightline.runs.folder import read_model, read_run_recipe
from sightline.runs.writing import write_csv
from sightline.training import module


def listing(folder: Path, *names: str, file: str = "exclude.csv") -> Path:
    path = folder / file
    if path.suffix == ".csv":
        write_csv(path, ["finding", "file"], [("near duplicate", name) for name in names])
    else:
        path.write_text("\n".join(names) + "\n\n")
    return path


# ── what is left out ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("file", ["exclude.csv", "exclude.txt"])
def test_listed_images_leave_train_and_validation_and_all_others_stay_where_they_are(in_memory, tmp_path, file):
    images = in_memory([0, 1] * 500)
    before = split(images, selects=True)
    listed = np.concatenate([before.train[:7], before.select[:3], before.calibrate[:2], before.test[:5]])
    after = leave_out(images, before, listing(tmp_path, *(images.paths[row] for row in listed), file=file))
    assert after.train.tolist() == before.train[7:].tolist()
    assert after.select.tolist() == before.select[3:].tolist()
    assert after.calibrate.tolist() == before.calibrate[2:].tolist()
    assert after.test.tolist() == before.test.tolist()
    assert after.excluded.tolist() == sorted(listed[:12].tolist())
    assert after.notes[-2] == "left out as listed: 7 of train, 5 of validation"
    assert after.notes[-1].startswith("5 listed test images stay")


def test_images_that_test_shares_are_counted_anew(in_memory, tmp_path):
    images = in_memory(
        [0, 1, 0, 1, 0, 1, 0], splits=["train"] * 4 + ["val"] + ["test"] * 2, hashes=["a", "b", "c", "d", "e", "b", "c"]
    )
    before = split(images)
    assert before.shared_with_test == 2
    assert leave_out(images, before, listing(tmp_path, images.paths[1])).shared_with_test == 1


def test_a_cell_that_no_spreadsheet_was_to_run_is_the_name_it_was(in_memory, tmp_path):
    images = in_memory([0, 1] * 50)
    names = ["=1+1.png", "-a.png", "'quoted.png", "plain.png", "'=1.png"]
    images.paths[:5] = names
    everything = split(images)
    cells = listing(tmp_path, *names)
    assert "'=1+1.png" in cells.read_text()
    found = leave_out(images, everything, cells).excluded
    assert found.tolist() == sorted(set(range(5)) - set(everything.test.tolist()))


@pytest.mark.parametrize(
    ("file", "separator", "encoding"),
    [("a.csv", ";", "utf-8"), ("a.csv", "\t", "utf-16"), ("a.tsv", "\t", "utf-8-sig"), ("a.csv", ",", "utf-16-le")],
)
def test_a_list_is_read_as_a_spreadsheet_writes_it(in_memory, tmp_path, file, separator, encoding):
    images = in_memory([0, 1] * 50)
    images.paths[:2] = ["a/é.png", "a/b.png"]
    lines = [f"{name}{separator}x" for name in ("Finding", "a/é.png", "a\\b.png")]
    lines = [separator.join(reversed(line.split(separator))) for line in lines]
    (tmp_path / file).write_bytes("\r\n".join(["x" + separator + "File", *lines[1:]]).encode(encoding))
    assert read_excluded(tmp_path / file) == ["a/é.png", "a\\b.png"]
    splits = split(images)
    gone = leave_out(images, splits, tmp_path / file).excluded.tolist()
    assert gone == sorted({0, 1} - set(splits.test.tolist()))


def test_a_list_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match=r"a\.csv cannot be read \(it is a pipe; wanted a file\)"):
        read_excluded(tmp_path / "a.csv")


def test_a_file_that_a_manifest_names_twice_is_left_out_twice(in_memory, tmp_path):
    images = in_memory([0, 1] * 20, splits=["train"] * 36 + ["val", "val", "test", "test"])
    images.paths[2] = images.paths[0]
    assert leave_out(images, split(images), listing(tmp_path, images.paths[0])).excluded.tolist() == [0, 2]


def test_the_fingerprint_is_that_of_the_images_not_of_the_order_or_the_file(in_memory, tmp_path):
    images = in_memory([0, 1] * 50)
    splits = split(images)
    one, two, three = (images.paths[row] for row in splits.train[:3])

    def of(*names: str, file: str = "a.csv") -> str | None:
        return excluded_fingerprint(images, leave_out(images, splits, listing(tmp_path, *names, file=file)))

    assert of(one, two) == of(two, one, file="b.txt") != of(one, three)
    assert excluded_fingerprint(images, splits) is None


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_name_of_no_image_is_refused_with_the_nearest(in_memory, tmp_path):
    images = in_memory([0, 1] * 50)
    with pytest.raises(ConfigError, match=r"lists '00042.jpg', which is no image of made; did you mean '00042.png'"):
        leave_out(images, split(images), listing(tmp_path, "00042.jpg"))


def test_a_list_that_leaves_nothing_out_is_refused(in_memory, tmp_path):
    images = in_memory([0, 1] * 50)
    splits = split(images)
    with pytest.raises(ConfigError, match=r"no effect: none of its 2 images .*\(2 are test images, which stay\)"):
        leave_out(images, splits, listing(tmp_path, *(images.paths[row] for row in splits.test[:2])))


def test_leaving_out_all_of_a_class_or_of_validation_is_refused(in_memory, tmp_path):
    images = in_memory([0, 1] * 50)
    splits = split(images)
    ones = [images.paths[row] for row in splits.train if images.labels[row] == 1]
    with pytest.raises(DataError, match="leaves class 'class 1' of made without a training image"):
        leave_out(images, splits, listing(tmp_path, *ones))
    with pytest.raises(DataError, match="leaves no image to validate on"):
        leave_out(images, splits, listing(tmp_path, *(images.paths[row] for row in splits.validation)))


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "name\nx.png\n", "has no column 'file' (found: name)"),
        ("a.csv", "", "has no column 'file' (found: nothing)"),
        ("a.csv", "file,why\n,dark\n", "has no effect: it lists no images"),
        ("a.txt", "\n \n", "has no effect: it lists no images"),
        ("a.csv", f"file,why\n{'x' * 200_000},dark\n", "line 2: no row of CSV (a cell of more than 131,072 letters)"),
        ("a.csv", "file,why\nx.png,one,two\n", "line 2: 3 cells, and the first line names 2 columns"),
        ("missing.csv", None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_file_that_is_no_list_is_refused_before_anything_is_decoded(tmp_path, capsys, name, text, sentence):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_excluded(tmp_path / name)
    assert sentence in str(caught.value)
    assert main(["train", "digits", "--data.exclude", str(tmp_path / name)]) == 2
    assert sentence in capsys.readouterr().err


# ── a training ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    pass


def test_a_run_keeps_what_it_left_out_and_refuses_to_go_on_with_another_list(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished.data, "colours")
    path = listing(tmp_path, "grass/003.png", "grass/004.png", "grass/005.png")
    settings = QUICK | {"data": {"exclude": "exclude.csv"}}
    steps = iter(range(100))
    step = module.ClassifierLearner.training_step

    def killing(*arguments):
        if next(steps) == 6:
            raise Killed
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module.ClassifierLearner, "training_step", killing)
        with pytest.raises(Killed):
            sightline.train("colours", recipe="small", settings=settings, run="run")
    assert read_run_recipe("run").data.exclude == str(path)
    excluded = read_model(Path("run"))["data"]["excluded"]
    assert isinstance(excluded, str)
    listing(tmp_path, "grass/003.png")
    with pytest.raises(ConfigError, match=r"cannot be continued with other settings: data\.exclude lists other images"):
        sightline.train(run="run", resume=True)
    listing(tmp_path, "grass/005.png", "grass/004.png", "grass/003.png")
    assert sightline.train(run="run", resume=True) == Path("run")
    whole, left = (read_model(run)["data"]["counts"] for run in (finished.run, Path("run")))
    assert left["test"] == whole["test"]
    assert 1 <= whole["train"] + whole["validation"] - left["train"] - left["validation"] <= 3


def test_what_was_left_out_is_not_compared_with_generated_images_as_trained_on(finished: Finished, tmp_path) -> None:
    images = open_images(find_source(finished.data), None)
    rows = split(images).train
    settings = {**QUICK, "fit": {"epochs": 1}, "data": {"exclude": str(listing(tmp_path, images.paths[rows[0]]))}}
    run = tmp_path / "run"
    sightline.train(finished.data, recipe="small", settings={**settings, "evaluation": {"on": "none"}}, run=run)
    model = read_model(run)
    own, train = evaluate._trained_on(run, model, (tuple(model["size"]), tuple(model["resize"])))
    assert [own.paths[row] for row in train] == [images.paths[row] for row in rows[1:]]
    (run / "seen.npz").unlink()  # of a run that did not note its images
    assert trained_rows(run, own, rows).tolist() == rows.tolist()


def test_a_decision_on_a_label_goes_before_a_list_that_was_made_for_its_sake(in_memory, tmp_path):
    images = in_memory([0, 1] * 30, splits=["train"] * 40 + ["val"] * 10 + ["test"] * 10)
    lines = [(0, "suspected label"), (1, "two labels"), (2, "suspected label"), (3, "duplicate"), (3, "two labels")]
    (tmp_path / "a.csv").write_text(
        "file,finding\n" + "".join(f"{images.paths[row]},{finding}\n" for row, finding in lines)
    )
    facts = {"classes": images.classes, "labels": images.labels, "left_out": np.array([], np.int64), "facts": {}}
    decided = dataclasses.replace(images, corrected=Corrected(decided=np.array([0, 1, 3, 41]), **facts))
    left = leave_out(decided, split(images), tmp_path / "a.csv")
    assert left.excluded.tolist() == [2, 3]
    assert "2 images are listed for labels that were decided since: the decision holds" in left.notes
    assert leave_out(images, split(images), tmp_path / "a.csv").excluded.tolist() == [0, 1, 2, 3]
    (tmp_path / "b.csv").write_text(f"file,finding\n{images.paths[0]},suspected label\n")
    assert leave_out(decided, split(images), tmp_path / "b.csv").excluded.tolist() == []  # decided: no reason to refuse
