"""What finished runs reached, where their settings differ, and whether their accuracies are of the same images."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

import sightline
from conftest import QUICK, Finished
from sightline.config.resolving import resolve, to_yaml
from sightline.errors import RunError
from sightline.runs.outcomes import (
    CURVE_COLUMNS,
    RUN_COLUMNS,
    Outcome,
    curve_rows,
    read_outcome,
    run_rows,
    settings_that_differ,
    spoken_value,
    unlike_images,
)
from sightline.studies.pairs import paired_runs


@pytest.fixture
def like(finished: Finished, tmp_path: Path):
    """Make a run like the finished one, but for some settings and some of what its model says."""

    def make(name: str, settings: dict | None = None, **model: object) -> Outcome:
        run = Path(shutil.copytree(finished.run, tmp_path / name))
        (run / "recipe.yaml").write_text(to_yaml(resolve(_recipe(finished.run), settings or {})))
        content = json.loads((run / "model.json").read_text())
        (run / "model.json").write_text(json.dumps(content | model))
        return read_outcome(run)

    return make


def _recipe(run: Path) -> dict:
    from sightline.config.resolving import read_recipe

    return read_recipe(run / "recipe.yaml")


# ── what a run reached ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_tells_its_accuracies_with_n_its_seconds_operations_and_parameters(finished: Finished) -> None:
    outcome = read_outcome(finished.run)
    model = json.loads((finished.run / "model.json").read_text())
    assert (outcome.name, outcome.image_set, outcome.counts) == (
        "run",
        "colours",
        {"train": 57, "validation": 15, "test": 18},
    )
    assert outcome.test is not None
    assert (outcome.test.accuracy, outcome.test.n) == (1.0, 18)
    assert outcome.validation is not None
    assert (outcome.validation.accuracy, outcome.validation.n) == (model["validation"]["accuracy"], 15)
    assert outcome.seconds == pytest.approx(model["cost"]["fit_seconds"] + model["cost"]["evaluation_seconds"])
    assert outcome.parameters == 10_888 == model["parameters"]
    assert outcome.flops == outcome.all_flops == model["cost"]["training_flops"]
    assert "thread" in str(outcome.device)
    assert outcome.versions["torch"] == torch.__version__.split("+")[0]
    assert [epoch for epoch, _ in outcome.curves["val_acc"]] == [1, 2, 3, 4]


def test_a_run_of_an_earlier_sightline_lacks_what_that_did_not_write(like) -> None:
    model = json.loads((like("now").run / "model.json").read_text())
    cost = {name: value for name, value in model["cost"].items() if name not in ("training_flops", "device")}
    outcome = like("before", validation=None, parameters=None, cost=cost)
    assert (outcome.validation, outcome.parameters, outcome.all_flops) == (None, None, None)
    assert outcome.test is not None
    row = dict(zip(RUN_COLUMNS, next(run_rows([outcome])), strict=True))
    assert (row["validation_accuracy"], row["test_n"], row["training_flops"]) == (None, 18, None)
    assert row["device"] is None


def test_a_run_that_was_measured_on_validation_has_no_accuracy_on_test(like) -> None:
    outcome = like("run", validation=None, metrics={"accuracy": 0.9, "n": 30, "split": "validation"})
    assert outcome.test is None
    assert outcome.validation is not None
    assert (outcome.validation.accuracy, outcome.validation.n) == (0.9, 30)


def test_operations_of_the_runs_that_the_weights_come_from_are_added(finished: Finished, tmp_path: Path) -> None:
    settings = {**QUICK, "fit": {"epochs": 1, "batch_size": 16}}
    start = {**settings, "network": {"kind": "run", "folder": str(finished.run)}}
    run = sightline.train(finished.data, recipe="small", settings=start, run=tmp_path / "start")
    assert run is not None
    outcome, before = read_outcome(run), read_outcome(finished.run)
    assert before.flops is not None
    assert outcome.backbone_flops == before.flops
    assert outcome.flops == before.flops / 4  # one epoch after four
    assert outcome.all_flops == before.flops * 5 / 4
    assert outcome.seconds is not None
    assert before.seconds is not None
    assert outcome.all_seconds == pytest.approx(outcome.seconds + before.seconds)
    moved = replace(outcome.recipe, network=replace(outcome.recipe.network, folder=str(tmp_path / "gone")))
    (run / "recipe.yaml").write_text(to_yaml(moved))
    assert (read_outcome(run).all_flops, read_outcome(run).flops) == (None, outcome.flops)


def test_a_run_that_is_not_finished_is_refused(like) -> None:
    run = like("run").run
    (run / "DONE").unlink()
    with pytest.raises(RunError, match="is not a finished run"):
        read_outcome(run)


def test_learning_curves_become_rows_with_a_value_each(finished: Finished) -> None:
    rows = [dict(zip(CURVE_COLUMNS, row, strict=True)) for row in curve_rows([read_outcome(finished.run)])]
    assert len(rows) == 4 * 4  # epochs × measures
    assert {row["measure"] for row in rows} == {"train_loss", "train_acc", "val_loss", "val_acc"}


# ── differences ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_settings_that_differ_are_told_and_of_another_kind_only_its_own(like) -> None:
    plain = like("plain")
    other = like("other", {"name": "x", "augment": {"cutout": {"kind": "cutout"}}, "schedule": "constant"})
    assert settings_that_differ([plain, other]) == [
        ("augment.cutout.kind", ["–", "cutout"]),
        ("augment.cutout.holes", ["–", "1"]),
        ("augment.cutout.size", ["–", "8"]),
        ("schedule.kind", ["linear", "constant"]),
        ("schedule.final", ["0", "–"]),
    ]
    assert settings_that_differ([plain, plain]) == []
    assert settings_that_differ([plain, like("seed", {"fit": {"seed": 1}})], "fit.seed") == []


@pytest.mark.parametrize(
    ("value", "spoken"),
    [
        (None, "none"),
        (True, "yes"),
        (0.0001, "0.0001"),
        ([8, 16, 16], "8 16 16"),
        ([], "none"),
        ([0.5, 0.5, 0.5, 0.75, 1], "3 × 0.5, 0.75, 1"),
    ],
)
def test_values_are_written_as_a_person_does(value: object, spoken: str) -> None:
    assert spoken_value(value) == spoken


def test_runs_on_the_same_images_are_alike_whatever_their_seed_and_recipe(like) -> None:
    assert unlike_images([like("a"), like("b", {"fit": {"seed": 1}, "augment": {"flip": "none"}})]) == []


def test_runs_on_other_images_are_told_apart(like) -> None:
    one = like("one")
    data = json.loads((one.run / "model.json").read_text())["data"]
    other = like("other", data=data | {"fingerprint": "0" * 16, "name": "elsewhere"})
    (sentence,) = unlike_images([one, other])
    assert "one on colours; other on elsewhere" in sentence
    assert "fingerprints" in sentence


def test_another_cut_of_the_same_images_is_told(like) -> None:
    sentences = unlike_images([like("one"), like("other", {"data": {"split_seed": 3}})])
    assert len(sentences) == 2
    assert "not measured on the same test images: one on 18 (split 0); other on 18 (split 3)" in sentences[0]
    fewer = unlike_images([like("whole"), like("half", validation={"accuracy": 1.0, "n": 8})])
    assert fewer == [
        "These runs were not measured on the same validation images: whole on 15 (split 0); half on 8 (split 0)."
    ]


def test_labels_that_were_corrected_in_one_run_alone_are_told_where_it_was_measured_by_them(like) -> None:
    one = like("one")
    data = json.loads((one.run / "model.json").read_text())["data"]

    def corrected(name: str, **digests: str):
        return like(name, data=data | {"corrections": {"digest": "d", **digests}})

    assert unlike_images([one, corrected("train")]) == []
    assert unlike_images([one, corrected("test", test="t")]) == [
        "These runs were not measured by the same test labels: one by those of the set; test by t."
    ]
    (sentence,) = unlike_images([one, corrected("both", validation="v")])
    assert "not measured by the same validation labels: one by those of the set; both by v" in sentence
    assert not paired_runs([one, corrected("again", test="t")])
