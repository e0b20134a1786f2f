"""Classes that become one: what a text means, that no image changes its split, and that every verb reads the same."""

import json
from pathlib import Path

import numpy as np
import pytest

import sightline
from conftest import QUICK, Finished
from sightline.cli.main import main
from sightline.data.merging import merge_names, merged
from sightline.data.splits import split
from sightline.errors import ConfigError, RunError
from sightline.evaluation.evaluate import evaluate
from sightline.runs.folder import read_model, read_run_recipe

# ── what a text means ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["cat+dog"], {"cat": "cat+dog", "dog": "cat+dog"}),
        (["pet=dog+cat"], {"dog": "pet", "cat": "pet"}),
        (["cat=cat+dog"], {"cat": "cat", "dog": "cat"}),
        (["cat+dog", "C+++fox"], {"cat": "cat+dog", "dog": "cat+dog", "C++": "C+++fox", "fox": "C+++fox"}),
        (["a=b+fox"], {"a=b": "a=b+fox", "fox": "a=b+fox"}),
        (["all=a=b+cat+dog+fox+C++"], dict.fromkeys(["a=b", "cat", "dog", "fox", "C++"], "all")),
    ],
)
def test_a_text_names_classes_whatever_signs_they_hold(texts: list[str], names: dict[str, str]) -> None:
    assert merge_names(["C++", "a=b", "cat", "dog", "fox"], texts) == names


@pytest.mark.parametrize(
    ("classes", "texts", "sentence"),
    [
        (["cat", "dog"], ["cat+dgo"], "names 'dgo', which is no class; did you mean 'dog'?"),
        (["cat", "dog", "fox"], ["cat"], "merges nothing"),
        (["cat", "dog", "fox"], ["pet=cat"], "merges nothing"),
        (["cat", "dog", "fox"], ["cat+cat"], "names class 'cat' twice"),
        (["cat", "dog", "fox"], ["cat+dog", "dog+fox"], "names class 'dog' twice"),
        (["cat", "dog", "fox"], ["fox=cat+dog"], "would name a class 'fox', which is there already"),
        (["a", "b", "c", "d", "e"], ["x=a+b", "x=c+d"], "makes two classes of the name 'x'"),
        (["a", "b", "a+b", "c", "b+c"], ["a+b+c"], "can be read as"),
        (["b", "c", "a=b"], ["a=b+c"], "can be read as"),
        (["cat", "dog"], ["+" * 1001], "is longer than 1,000 letters"),
    ],
)
def test_a_text_that_names_no_classes_or_two_readings_is_refused(
    classes: list[str], texts: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError) as error:
        merge_names(classes, texts)
    assert sentence in str(error.value)


def test_a_text_of_many_signs_is_read_at_once() -> None:
    classes = ["+" * count for count in range(1, 200)]
    with pytest.raises(ConfigError, match="can be read as"):
        merge_names(classes, ["+" * 999])


# ── what becomes of a set ────────────────────────────────────────────────────────────────────────────────────────────


def test_labels_follow_the_order_of_the_new_names_and_unreadable_images_stay_so(in_memory) -> None:
    images = in_memory([0, 1, 2, 3, 1])
    images.labels[4] = -1
    after = merged(images, ["zoo=class 0+class 2"])
    assert after.classes == ["class 1", "class 3", "zoo"]
    assert after.labels.tolist() == [2, 0, 2, 1, -1]
    assert after.merged == {"class 0": "zoo", "class 2": "zoo"}
    assert "class 0 and class 2 are zoo" in after.notes[-1]
    assert after.fingerprint != images.fingerprint


def test_no_image_changes_its_split(in_memory) -> None:
    images = in_memory([0, 1, 2, 3] * 60 + [0] * 33)
    before, after = split(images, selects=True), split(merged(images, ["class 0+class 3"]), selects=True)
    for part in ("train", "select", "calibrate", "test"):
        assert getattr(before, part).tolist() == getattr(after, part).tolist()


def test_one_class_alone_is_refused_and_a_run_takes_what_another_set_has(in_memory) -> None:
    images = in_memory([0, 1, 0, 1])
    with pytest.raises(ConfigError, match="nothing to tell apart"):
        merged(images, ["class 0+class 1"])
    assert merged(images, {"class 0": "both", "class 7": "both"}).classes == ["both", "class 1"]
    assert merged(images, {"class 7": "other"}) is images


# ── a training, and what comes after it ──────────────────────────────────────────────────────────────────────────────


def test_a_run_of_merged_classes_is_evaluated_repeated_and_told_from_another(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    settings = QUICK | {"data": {"merge": ["plants=grass+ünder wasser"]}}
    run = sightline.train(finished.data, recipe="small", settings=settings, run=tmp_path / "run")
    model, before = read_model(run), read_model(finished.run)
    assert model["classes"] == ["=blood", "plants"]
    assert model["data"]["merge"] == {"grass": "plants", "ünder wasser": "plants"}
    assert model["data"]["counts"] == before["data"]["counts"]
    assert read_run_recipe(run).data.merge == ("plants=grass+ünder wasser",)
    own = json.loads((run / "evaluation.json").read_text())
    assert sorted(own["classes"]) == ["=blood", "plants"]
    assert evaluate(run)["accuracy"] == own["accuracy"]
    assert evaluate(run, finished.data)["n"] == 90  # another set, whose classes become the run's
    again = sightline.train(recipe=run / "recipe.yaml", run=tmp_path / "again")
    assert (again / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()
    assert sightline.load(run).predict([finished.data / "grass" / "000.png"])[0].label in model["classes"]
    capsys.readouterr()
    assert main(["train", str(finished.data), "--data.merge", "grass+gras", "--dry-run"]) == 2
    assert "names 'gras', which is no class" in capsys.readouterr().err
    assert (
        main(["train", str(finished.data), "--data.merge", "a=grass+ünder wasser", "--recipe", "small", "--dry-run"])
        == 0
    )
    assert "merged as asked: grass and ünder wasser are a" in capsys.readouterr().out
    with pytest.raises((ConfigError, RunError), match=r"data\.merge"):
        sightline.train(finished.data, recipe="small", settings=QUICK, run=tmp_path / "run", resume=True)


def test_generated_images_join_a_set_under_its_new_names(in_memory, tmp_path, monkeypatch) -> None:
    from sightline.data.synthetic import _joined

    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path))
    (tmp_path / ("a" * 21)).mkdir()
    pixels = np.zeros((4, 2, 2, 3), np.uint8)
    real = merged(in_memory([0, 1, 2, 2], pixels=pixels), ["class 0+class 1"])
    made = merged(in_memory([0, 1, 2, 2], pixels=pixels), ["class 0+class 1"])
    joined = _joined(real, made)
    assert joined.merged == real.merged
    assert joined.labels.tolist() == [0, 0, 1, 1] * 2
    apart = _joined(in_memory([0, 1, 2, 2], pixels=pixels), in_memory([0, 1, 2, 2], pixels=pixels))
    assert apart.labels.tolist() == [0, 1, 2, 2] * 2  # not the cache of the merged ones
