"""A set whose labels people have decided on: known by pixels, never cut anew, and test changes only on request."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import sightline
from conftest import QUICK, Finished, coloured_folder
from sightline.cli.main import main
from sightline.config.fitting import DataConfig
from sightline.config.resolving import read_recipe, resolve
from sightline.config.studies import read_study
from sightline.data.batches import prepare
from sightline.data.cache import open_images
from sightline.data.correcting import correct, correct_rows, corrections_fingerprint, with_corrected_labels
from sightline.data.corrections import CorrectionsFile, Decision
from sightline.data.folds import deal_folds
from sightline.data.merging import merged
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split
from sightline.errors import ConfigError, DataError
from sightline.inference.logistic_regression import Examples, cross_validate
from sightline.runs.folder import read_model, read_run_recipe
from sightline.training import module


@pytest.fixture
def decide(tmp_path):
    """Write decisions on rows of a set; returns the path of the file."""

    def write(images, decisions, path=tmp_path / "corrections.csv", **other):
        file = CorrectionsFile(path)
        for row, after in decisions.items():
            facts = {"file": images.paths[row], "digest": images.hashes[row]}
            facts["before"] = images.classes[images.labels[row]]
            file.decide(Decision(**(facts | other), after=after))
        return str(path)

    return write


def config(path: str, **other: object) -> DataConfig:
    return DataConfig(corrections=path, **other)


def names(images, rows):
    return [images.classes[images.labels[row]] for row in rows]


# ── what is corrected ────────────────────────────────────────────────────────────────────────────────────────────────


def test_labels_of_train_and_validation_are_corrected_and_no_image_changes_sides(in_memory, decide):
    images = in_memory([0, 1, 2] * 300)
    before = split(images, selects=True)
    one, two, out, chosen = before.train[0], before.train[1], before.train[2], before.select[0]
    other = {row: "class 1" if images.labels[row] != 1 else "class 2" for row in (one, two, chosen)}
    corrected, after = correct(images, before, config(decide(images, other | {out: None})))
    assert names(corrected, [one, two, chosen]) == list(other.values())
    assert after.train.tolist() == sorted(set(before.train.tolist()) - {out})
    for name in ("select", "calibrate", "test"):
        assert getattr(after, name).tolist() == getattr(before, name).tolist()
    rest = np.setdiff1d(images.readable, [one, two, chosen])
    assert corrected.labels[rest].tolist() == images.labels[rest].tolist()
    assert after.notes[-2:] == ["labels corrected: 2 of train, 1 of validation", "left out as decided: 1 of train"]
    assert corrected.fingerprint == images.fingerprint, "the set is the same, whatever is decided on it"
    assert corrected.as_labeled.labels.tolist() == images.labels.tolist()


def test_test_labels_change_only_on_request(in_memory, decide):
    images = in_memory([0, 1] * 100)
    splits = split(images)
    relabeled, out, learned = splits.test[0], splits.test[1], splits.train[0]
    other = {row: f"class {1 - images.labels[row]}" for row in (relabeled, learned)}
    path = decide(images, other | {out: None})
    corrected, after = correct(images, splits, config(path))
    assert names(corrected, [relabeled, out]) == names(images, [relabeled, out])
    assert after.test.tolist() == splits.test.tolist()
    assert "2 decided test images stay as they are labeled (--data.correct-test)" in after.notes
    assert corrected.corrected.left_out.tolist() == []
    corrected, after = correct(images, splits, config(path, correct_test=True))
    assert names(corrected, [relabeled]) == [other[relabeled]]
    assert after.test.tolist() == sorted(set(splits.test.tolist()) - {out})
    assert corrected.corrected.left_out.tolist() == [out]


def test_identical_images_are_corrected_together_wherever_they_lie_now(in_memory, decide):
    hashes = [f"{row:032x}" for row in range(100)]
    hashes[1] = hashes[0]
    images = in_memory([0, 1] * 50, hashes=hashes, splits=["train"] * 80 + ["val"] * 10 + ["test"] * 10)
    path = decide(images, {0: "class 1", 3: "class 0"})
    images.paths[3] = "moved/3.png"
    corrected, after = correct(images, split(images), config(path))
    assert names(corrected, [0, 1, 3]) == ["class 1", "class 1", "class 0"]
    assert "1 decided images were found by their pixels under other names" in after.notes


def test_an_image_that_is_gone_is_counted_and_the_rest_is_corrected(in_memory, decide):
    images = in_memory([0, 1] * 50, splits=["train"] * 80 + ["val"] * 10 + ["test"] * 10)
    path = decide(images, {0: "class 1", 2: "class 1", 4: "class 1"})
    images.hashes[2], images.hashes[4], images.paths[4] = "a", "b", "elsewhere.png"
    corrected, after = correct(images, split(images), config(path))
    assert names(corrected, [0, 2, 4]) == ["class 1", "class 0", "class 0"]
    assert after.notes[-1] == (
        "2 decided images are gone (the first: 00002.png), 1 of whose files now hold other pixels"
    )


def test_a_decision_on_a_label_that_was_changed_meanwhile_is_applied_only_where_it_still_makes_sense(in_memory, decide):
    images = in_memory([0, 1, 2] * 40, splits=["train"] * 100 + ["val"] * 10 + ["test"] * 10)
    path = decide(images, {0: "class 1", 3: "class 1", 6: "class 0", 9: None, 12: "class 1"})
    images.labels[0] = 1  # moved as decided
    images.labels[3] = 2  # moved elsewhere
    images.labels[6] = 2  # was right, and is not there any more
    images.labels[9] = 2
    corrected, after = correct(images, split(images), config(path))
    assert names(corrected, [0, 3, 6, 9, 12]) == ["class 1", "class 2", "class 2", "class 2", "class 1"]
    assert 9 in after.train
    note = "3 decisions do not apply, since the class was changed meanwhile (the first: 00003.png was class 0 and is class 2)"
    assert after.notes[-1] == note


def test_a_class_may_be_added_and_takes_its_place_in_the_order(in_memory, decide):
    images = in_memory([0, 1] * 50, splits=["train"] * 80 + ["val"] * 10 + ["test"] * 10)
    path = decide(images, {0: "class 05", 2: "class 05"})
    corrected, _ = correct(images, split(images), config(path, add_classes=("class 05",)))
    assert corrected.classes == ["class 0", "class 05", "class 1"]
    assert names(corrected, [0, 1, 2, 3]) == ["class 05", "class 1", "class 05", "class 1"]
    assert corrected.fingerprint == images.fingerprint
    assert with_corrected_labels(images, corrected).labels.tolist() == corrected.labels.tolist()
    assert with_corrected_labels(corrected, corrected).labels.tolist() == corrected.labels.tolist()
    assert with_corrected_labels(images, images) is images


def test_a_class_that_was_added_where_it_was_decided_needs_no_flag(in_memory, decide):
    images = in_memory([0, 1] * 50, splits=["train"] * 80 + ["val"] * 10 + ["test"] * 10)
    path = decide(images, {0: "moss", 82: "moss"}, new_class=True)
    decide(images, {4: "moss"})  # one mark says it of all
    corrected, _ = correct(images, split(images), config(path))
    assert corrected.classes == ["class 0", "class 1", "moss"]
    assert names(corrected, [0, 1, 4, 82]) == ["moss", "class 1", "moss", "moss"]
    checked, _, _ = correct_rows(images, images.readable, path)
    assert names(checked, [0, 4, 82]) == ["moss"] * 3
    with pytest.raises(ConfigError, match=r"--data.add-classes moss has no effect: .* adds it by itself; leave it out"):
        correct(images, split(images), config(path, add_classes=("moss",)))


def test_images_of_an_added_class_that_cannot_be_learned_are_left_out_and_counted(in_memory, decide, tmp_path):
    images = in_memory([0, 1] * 50, splits=["train"] * 80 + ["val"] * 10 + ["test"] * 10)
    path = decide(images, {0: "class 1", 82: "moss", 90: "fern"}, new_class=True)
    corrected, after = correct(images, split(images), config(path))
    assert corrected.classes == ["class 0", "class 1"]
    assert 82 not in after.validation
    assert 90 in after.test
    assert "1 images of the new class 'moss' are left out: none of them is a training image" in after.notes
    assert "1 decided test images stay as they are labeled (--data.correct-test)" in after.notes
    assert not any("fern" in note for note in after.notes)
    _, after = correct(images, split(images), config(path, correct_test=True))
    assert 90 not in after.test
    _, left, notes = correct_rows(images, images.readable, path, known=("class 0", "class 1", "moss"))
    assert set(images.readable.tolist()) - set(left.tolist()) == {90}
    assert "1 images of the new class 'fern' are left out: the classifier does not know it" in notes


def test_another_spelling_of_a_class_is_the_class(in_memory, decide):
    images = in_memory([0, 1] * 50)
    images.classes[:] = ["1", "é"]
    path = decide(images, {0: "e\u0301", 1: "1.0"})
    assert names(correct_rows(images, images.readable, path)[0], [0, 1]) == ["é", "1"]


def test_decisions_hold_for_classes_that_are_merged(in_memory, decide):
    images = in_memory([0, 1, 2] * 40)
    path = decide(images, {0: "class 1", 1: "class 2", 2: "class 0"})
    together = merged(images, ["pet=class 0+class 1"])
    assert names(correct_rows(together, images.readable, path)[0], [0, 1, 2]) == ["pet", "class 2", "pet"]


def test_generated_images_lie_beside_corrected_ones(finished: Finished, tmp_path, decide):
    images = open_images(find_source(finished.data), None)
    one, out, new = split(images).train[:3].tolist()
    path = decide(images, {one: "grass", out: None, new: "moss"})
    for name in ("grass", "ünder wasser"):
        shutil.copytree(finished.data / name, tmp_path / "generated" / name)
    data = {"corrections": path, "synthetic": str(tmp_path / "generated")}
    with pytest.raises(ConfigError, match="moss makes it a class"):
        prepare(find_source(finished.data), resolve(read_recipe("small"), {"data": data}))
    recipe = resolve(read_recipe("small"), {"data": {**data, "add_classes": ["moss"]}})
    joined, splits, _ = prepare(find_source(finished.data), recipe)
    assert joined.classes == ["=blood", "grass", "moss", "ünder wasser"]
    assert names(joined, [one, new]) == ["grass", "moss"]
    assert out not in splits.train
    generated = splits.train[splits.train >= len(images.labels)]
    assert set(names(joined, generated)) == {"grass", "ünder wasser"}
    assert joined.fingerprint == images.fingerprint


def test_the_fingerprint_is_that_of_what_changes_not_of_the_file(in_memory, decide, tmp_path):
    images = in_memory([0, 1] * 50)
    splits = split(images)
    one, two = splits.train[np.flatnonzero(images.labels[splits.train] == 0)[:2]]
    first = decide(images, {one: "class 1", two: "class 0"}, tmp_path / "a.csv", why="x")
    second = decide(images, {one: "class 1"}, tmp_path / "b.csv", why="y")
    third = decide(images, {one: "class 1", two: None}, tmp_path / "c.csv")
    of = [corrections_fingerprint(correct(images, splits, config(path))[0]) for path in (first, second, third)]
    assert of[0] == of[1] != of[2]
    assert corrections_fingerprint(images) is None


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_of_another_set_is_refused(in_memory, decide):
    images = in_memory([0, 1] * 50)
    path = decide(images, {0: "class 1", 1: "class 0"})
    other = in_memory([0, 1] * 50, hashes=[f"{row:032x}" for row in range(100)])
    sentence = (
        r"of another image set: none of the 2 images .* is in made, though 2 of their files are, with other pixels"
    )
    with pytest.raises(ConfigError, match=sentence):
        correct(other, split(other), config(path))


@pytest.mark.parametrize("added", [(), ("clas 2",)])
def test_an_unknown_class_is_refused_with_the_nearest_and_how_to_add_it(in_memory, decide, added):
    images = in_memory([0, 1] * 50)
    path = decide(images, {0: "clas 1"})
    sentence = r"the class 'clas 1', which made does not have; did you mean '.*'\? --data.add-classes clas 1 makes it"
    with pytest.raises(ConfigError, match=sentence):
        correct(images, split(images), config(path, add_classes=added))
    with pytest.raises(ConfigError, match=r"did you mean '.*'\? To make it a class, write yes in the column new_class"):
        correct_rows(images, images.readable, path)


def test_a_review_that_found_every_label_right_changes_nothing_and_says_so(in_memory, decide, tmp_path):
    images = in_memory([0, 1] * 50)
    splits = split(images)
    row = splits.train[0]
    kept = decide(images, {row: images.classes[images.labels[row]]}, tmp_path / "kept.csv")
    corrected, same = correct(images, splits, config(kept))
    assert np.array_equal(corrected.labels, images.labels)
    assert all(
        np.array_equal(getattr(same, name), getattr(splits, name)) for name in ("train", "select", "calibrate", "test")
    )
    assert any(note.startswith("labels corrected: none; the images that") for note in same.notes)
    data = coloured_folder(tmp_path / "colors", images=12)
    own = open_images(find_source(data))
    kept = decide(own, {0: own.classes[own.labels[0]]}, tmp_path / "own.csv")
    settings = QUICK | {"data": {"corrections": str(kept)}}
    run = sightline.train(data, recipe="small", settings=settings, run=tmp_path / "run")
    assert run is not None
    assert read_model(run)["data"]["corrections"]["labels"] == {"train": 0, "validation": 0, "test": 0}
    assert sightline.load(run).classes == own.classes


def test_what_has_no_effect_is_refused(in_memory, decide, tmp_path):
    images = in_memory([0, 1] * 50)
    splits = split(images)
    learned, tested = splits.train[0], splits.test[0]
    only_test = decide(images, {tested: None}, tmp_path / "test.csv")
    _, after = correct(images, splits, config(only_test))  # what a review ends with is never refused
    assert "1 decided test images stay as they are labeled (--data.correct-test)" in after.notes
    only_train = decide(images, {learned: None}, tmp_path / "train.csv")
    with pytest.raises(ConfigError, match=r"--data\.correct-test has no effect: .* changes no test image"):
        correct(images, splits, config(only_train, correct_test=True))
    for name, why in (("class 1", "made has that class"), ("class 7", "no decision of .* names it")):
        with pytest.raises(ConfigError, match=f"--data.add-classes {name} has no effect: {why}"):
            correct(images, splits, config(only_train, add_classes=(name,)))
    with pytest.raises(ConfigError, match=r"--data\.correct-test has no effect without --data.corrections"):
        DataConfig(correct_test=True)
    with pytest.raises(ConfigError, match=r"--data\.add-classes has no effect without --data.corrections"):
        DataConfig(add_classes=("a",))


def test_a_class_that_would_have_no_training_image_is_refused(in_memory, decide, tmp_path):
    images = in_memory([0, 1] * 50)
    splits = split(images)
    ones = splits.train[images.labels[splits.train] == 1]
    path = decide(images, dict.fromkeys(ones.tolist(), "class 0"), tmp_path / "a.csv")
    with pytest.raises(DataError, match="leaves class 'class 1' of made without a training image"):
        correct(images, splits, config(path))
    path = decide(images, {int(splits.calibrate[0]): "new"}, tmp_path / "b.csv")
    with pytest.raises(DataError, match="leaves class 'new' of made without a training image"):
        correct(images, splits, config(path, add_classes=("new",)))
    path = decide(images, dict.fromkeys(splits.test.tolist()), tmp_path / "c.csv")
    with pytest.raises(DataError, match="leaves no test image"):
        correct(images, splits, config(path, correct_test=True))


def test_recipes_of_a_study_are_measured_by_the_same_labels(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "name: s\nrecipe: small\nbaseline: raw\nvariants: [{name: raw}, {name: mended, settings: {data: {corrections: a}}}]"
    )
    with pytest.raises(ConfigError, match=r"data\.corrections is .* would then be measured on other images or labels"):
        read_study(tmp_path / "s.yaml")


@pytest.mark.parametrize("verb", ["train", "check"])
def test_a_file_that_is_none_is_refused_before_anything_is_decoded(tmp_path, capsys, verb, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("file,finding\nx.png,dark\n")
    assert main([verb, "digits", "--data.corrections", "a.csv"]) == 2
    assert "--data.corrections a.csv has no column 'hash'" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


# ── a training, an evaluation, a check ───────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    pass


def test_a_run_notes_how_labels_were_corrected_and_refuses_to_go_on_with_other_decisions(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decide
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished.data, "colours")
    images = open_images(find_source("colours"), None)
    splits = split(images)
    chosen = splits.train[np.flatnonzero(names(images, splits.train) == np.array("grass"))[:3]].tolist()
    path = decide(images, {chosen[0]: "=blood", chosen[1]: None})
    steps = iter(range(100))
    step = module.ClassifierLearner.training_step

    def killing(*arguments):
        if next(steps) == 6:
            raise Killed
        return step(*arguments)

    settings = QUICK | {"data": {"corrections": "corrections.csv"}}
    with monkeypatch.context() as patch:
        patch.setattr(module.ClassifierLearner, "training_step", killing)
        with pytest.raises(Killed):
            sightline.train("colours", recipe="small", settings=settings, run="run")
    assert read_run_recipe("run").data.corrections == path
    decide(images, {chosen[2]: "=blood"})
    with pytest.raises(ConfigError, match=r"with other settings: data\.corrections decides otherwise"):
        sightline.train(run="run", resume=True)
    CorrectionsFile(path).undo(CorrectionsFile(path).read()[images.hashes[chosen[2]]])
    assert sightline.train(run="run", resume=True) == Path("run")
    model, whole = read_model(Path("run")), read_model(finished.run)
    noted = model["data"]["corrections"]
    assert noted["labels"] == {"train": 1, "validation": 0, "test": 0}
    assert noted["left_out"] == {"train": 1, "validation": 0, "test": 0}
    assert model["data"]["fingerprint"] == whole["data"]["fingerprint"]
    assert model["data"]["counts"] == whole["data"]["counts"] | {"train": whole["data"]["counts"]["train"] - 1}
    assert "as_labeled" not in model["metrics"]
    assert "as_labeled" not in sightline.evaluate("run"), "its own test set is read as it is labeled"


def test_both_accuracies_are_shown_where_test_is_corrected(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], decide, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = open_images(find_source(finished.data), None)
    splits = split(images)
    grass = [row for row in splits.test.tolist() if images.classes[images.labels[row]] == "grass"]
    path = decide(images, {grass[0]: "=blood", grass[1]: None})
    run = shutil.copytree(finished.run, tmp_path / "run")
    plain = sightline.evaluate(run)
    beside = sightline.evaluate(run, corrections=path, out=tmp_path / "out")
    assert beside["n"] == plain["n"] - 1
    assert beside["as_labeled"]["accuracy"] == plain["accuracy"]
    assert (beside["as_labeled"]["n"], beside["as_labeled"]["corrected"]) == (plain["n"], 1)
    assert beside["as_labeled"]["left_out"] == 1
    assert beside["accuracy"] < plain["accuracy"], "a right answer counts as wrong by the decision"
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["as_labeled"] == beside["as_labeled"]
    capsys.readouterr()
    assert main(["evaluate", str(run), str(finished.data), "--data.corrections", path]) == 0
    shown = capsys.readouterr().out
    assert "accuracy as labeled (90 images)" in shown
    assert re.search(r"labels corrected, images left out +1, 1\b", shown)
    only_train = decide(images, {int(splits.train[0]): None}, tmp_path / "train.csv")
    with pytest.raises(ConfigError, match=r"has no effect: it changes no label of the \d+ images that are measured"):
        sightline.evaluate(run, corrections=only_train)

    kept = decide(images, {grass[0]: "grass"}, tmp_path / "kept.csv")
    found_right = sightline.evaluate(run, corrections=kept)
    assert found_right["accuracy"] == plain["accuracy"]
    assert "as_labeled" not in found_right
    assert any(
        "labels of all 1 images that were decided on are kept" in note for note in found_right["data"]["remarks"]
    )

    settings = QUICK | {"fit": {"epochs": 1}, "data": {"corrections": path, "correct_test": True}}
    other = sightline.train(finished.data, recipe="small", settings=settings, run=tmp_path / "other")
    measured = json.loads((other / "evaluation.json").read_text())
    assert measured["n"] == plain["n"] - 1
    assert measured["as_labeled"]["n"] == plain["n"]
    assert "That is by corrected labels: 1 were changed and 1 images left out. As labeled" in (
        other / "report.html"
    ).read_text("utf-8")
    again = sightline.evaluate(other)
    assert again["as_labeled"] == measured["as_labeled"]
    decide(images, {grass[0]: "ünder wasser"})
    with pytest.raises(DataError, match="decides otherwise on test images than when the run was trained"):
        sightline.evaluate(other)


def test_cross_validation_measures_the_same_answers_by_both_labels():
    labels_N = torch.arange(60) % 3
    features_ND = torch.nn.functional.one_hot(labels_N, 3).float() + 0.01 * torch.rand(60, 3)
    given_N = labels_N.clone()
    given_N[:3] = (given_N[:3] + 1) % 3
    fold_N = np.arange(60) // 3 % 5
    found = cross_validate(
        Examples(features_ND, labels_N, 3), lambda *_: fold_N, 1e-3, folds=5, repeats=2, given_N=given_N
    )
    assert found.accuracy == 1
    assert found.as_labeled is not None
    assert found.as_labeled[0] == pytest.approx(57 / 60)
    plain = cross_validate(Examples(features_ND, labels_N, 3), lambda *_: fold_N, 1e-3, folds=5, repeats=2)
    assert (plain.as_labeled, plain.interval) == (None, found.interval)


def test_folds_are_those_of_the_labels_as_they_were(in_memory, decide):
    images = in_memory([0, 1, 2] * 30)
    before = deal_folds(images, images.readable, 5, 0)
    corrected, rows, _ = correct_rows(
        images, images.readable, decide(images, dict.fromkeys(range(0, 60, 3), "class 1"))
    )
    assert deal_folds(corrected, rows, 5, 0).tolist() == before.tolist()


def test_a_check_looks_at_the_labels_as_decided(finished: Finished, tmp_path: Path, decide) -> None:
    images = open_images(find_source(finished.data), None)
    grass = [row for row in split(images).train.tolist() if images.classes[images.labels[row]] == "grass"]
    path = decide(images, {grass[0]: "=blood", grass[1]: None})
    wrong = sightline.check(finished.data, labels=finished.run, corrections=path, out=tmp_path / "a")
    suspects = {item.row for item in wrong.findings if item.kind == "suspected label"}
    assert not suspects & {grass[0], grass[1]}, "what was decided is not asked again"
    table = (tmp_path / "a" / "check.html").read_text("utf-8")
    assert "labels corrected: 1; left out as decided: 1" in table
    assert f"--data.corrections {path}" in wrong.command, "the command keeps what was decided"
    kept = decide(images, {grass[2]: "grass"}, tmp_path / "kept.csv")
    unchanged = sightline.check(finished.data, corrections=kept, out=tmp_path / "b")
    assert "--data.corrections" not in unchanged.command, "which would have no effect"
