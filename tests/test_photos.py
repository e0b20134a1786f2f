"""The recipe photos, from a folder of photographs to a finished run, with the backbone in the box at a reduced size."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import sightline
from sightline.config.augmentation import AugmentConfig
from sightline.config.resolving import read_recipe, resolve
from sightline.config.settings import Recipe
from sightline.data.cache import cached
from sightline.display.lines import Lines
from sightline.display.reporting import ignore
from sightline.errors import ConfigError, DataError
from sightline.runs.folder import read_model, read_run_recipe
from sightline.training import finetune, finetune_costs, preparation, probe
from sightline.training.callbacks import cost
from test_train import Killed, same_bits

SIZE = {"data": {"size": 64}}
KINDS = {"blue": (40, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}


def photographs(root: Path, count: int, splits: tuple[str, ...] = ("",), side: int = 80) -> Path:
    """A folder of so many textured pictures a class, and split, whose classes are their colors."""
    random = np.random.default_rng(0)
    for split in splits:
        for name, color in KINDS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                noise = random.normal(0, 60, (side, side + index % 7, 3))
                Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return root


def train(data: Path, run: Path, settings: dict[str, Any] | None = None, **named: Any) -> tuple[dict[str, Any], str]:
    """Train by the recipe photos; returns model.json and what was printed."""
    console = Console(file=io.StringIO(), width=300)
    merged = resolve_layers(SIZE, settings or {})
    sightline.train(data, settings=merged, run=run, on_event=Lines(console), **named)
    return read_model(run), console.file.getvalue()  # type: ignore[attr-defined]


def resolve_layers(*layers: dict[str, Any]) -> dict[str, Any]:
    from sightline.config.resolving import merge

    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer)
    return merged


# ── few images ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_few_photographs_are_cross_validated_and_all_of_them_train(tmp_path: Path) -> None:
    model, printed = train(photographs(tmp_path / "pets", 7), tmp_path / "run")
    assert "recipe: photos (21 images of 83 px: photographs" in printed
    assert "too few to set any aside: cross-validation measures, all 21 train" in printed
    assert model["data"]["counts"] == {"train": 21, "validation": 0, "test": 0}
    metrics = model["metrics"]
    assert metrics["split"] == "cross-validation"
    assert (metrics["n"], metrics["folds"], metrics["repeats"]) == (21, 10, 10)
    low, high = metrics["accuracy_interval"]
    assert low < metrics["accuracy"] <= high
    assert model["test_readings"] == 0
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "by cross-validation of all 21 images" in page
    assert "What more images would bring" in page
    lines = (tmp_path / "run" / "predictions.csv").read_text().splitlines()
    assert len(lines) == 22


def test_a_file_of_few_photographs_tells_how_good_the_run_is_on_images_it_did_not_learn_from(tmp_path: Path) -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    model, _ = train(photographs(tmp_path / "pets", 7), tmp_path / "run")
    exported = sightline.export(tmp_path / "run", out=tmp_path / "pets.onnx", int8=True)
    metadata, metrics = exported.metadata, model["metrics"]
    assert (metadata.measured.split, metadata.learned) == ("train", 21)
    assert metadata.held_out == metadata.run
    assert metadata.run is not None
    assert (metadata.run.split, metadata.run.accuracy) == ("cross-validation", metrics["accuracy"])
    first, second, _, last = exported.sentences()
    assert f"accuracy of the run {metrics['accuracy']:.4f} (" in first
    assert "cross-validation of pets, n = 21)" in first
    assert "accuracy" not in second  # on images that it learned from it would be taken for more than it is
    assert "learned from these images: they show that the file answers as the run does, not how good it is" in last
    assert "nor what int8 costs" in last


def test_an_image_is_answered_the_same_by_the_run_and_by_predict(tmp_path: Path) -> None:
    data = photographs(tmp_path / "pets", 20, ("train", "val", "test"))
    train(data, tmp_path / "run", {"probe": {"then": "nothing"}})
    rows = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:]
    told = {row.split(",")[0]: row.split(",")[2:4] for row in rows}
    classifier = sightline.load(tmp_path / "run")
    files = sorted(told)
    for file, answer in zip(files, classifier.predict([data / file for file in files]), strict=True):
        assert answer.label == told[file][0]
        assert answer.probability == pytest.approx(float(told[file][1]), abs=1e-4)


def test_a_run_by_cross_validation_has_no_test_split_to_evaluate(tmp_path: Path) -> None:
    train(photographs(tmp_path / "pets", 5), tmp_path / "run")
    with pytest.raises(DataError, match=r"was measured by cross-validation, of too few images to set any aside"):
        sightline.evaluate(tmp_path / "run")


def test_fine_tuning_that_is_asked_for_needs_images_to_validate_on(tmp_path: Path) -> None:
    data = photographs(tmp_path / "pets", 5)
    with pytest.raises(
        ConfigError, match=r"fine-tuning needs validation images, and of 15 none are set aside; add --data.val"
    ):
        train(data, tmp_path / "run", {"fit": {"epochs": 1}})


def test_cross_validation_has_one_view_of_each_image(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--evaluation\.views flip has no effect on so few images, which are cross-val"
    ):
        train(photographs(tmp_path / "pets", 5), tmp_path / "run", {"evaluation": {"views": "flip"}})


ROBUST = {"fit": {"loss": "generalized_cross_entropy", "label_smoothing": 0.0}}


@pytest.mark.parametrize(
    "settings",
    [{"augment": {"cutout": {"size": 6}}}, {"optimizer": "sgd"}, {"fit": {"batch_size": 9}}, ROBUST],
    ids=str,
)
def test_settings_of_steps_are_refused_where_none_are_taken(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"has no effect: nothing is trained by steps behind this probe"):
        train(photographs(tmp_path / "pets", 4), tmp_path / "run", settings)


def test_a_class_of_one_photograph_trains_and_is_never_right_when_left_out(tmp_path: Path) -> None:
    data = photographs(tmp_path / "pets", 6)
    for index in range(1, 6):
        (data / "red" / f"{index}.png").unlink()
    model, _ = train(data, tmp_path / "run")
    assert model["data"]["counts"]["train"] == 13
    measured = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert measured["classes"]["red"]["recall"] == 0.0


# ── the probe ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_second_training_computes_no_feature_and_ends_in_the_same_bits(tmp_path: Path) -> None:
    data = photographs(tmp_path / "pets", 20, ("train", "val", "test"))
    first, _ = train(data, tmp_path / "first")
    second, printed = train(data, tmp_path / "second")
    assert first["probe"]["features_computed"] == 120  # those of test are computed when they are read
    assert second["probe"]["features_computed"] == 0
    assert "features kept from before" in printed
    assert same_bits(tmp_path / "first", tmp_path / "second")
    kept = [row["images"] for row in cached() if row["name"] == "pets, features"]
    assert kept == [180], "in one number format, that of the answers"


def test_a_probe_loads_no_lightning(tmp_path: Path) -> None:
    data = photographs(tmp_path / "pets", 4)
    program = (
        "import sys, sightline\n"
        f"sightline.train({str(data)!r}, settings={SIZE!r}, run={str(tmp_path / 'run')!r})\n"
        "assert 'lightning' not in sys.modules and 'pytorch_lightning' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_probe_is_taken_up_with_the_head_it_solved_for(tmp_path: Path, precision: str) -> None:
    """Whatever the network is trained in: solved for on features in bfloat16, it answered otherwise than it was said."""
    data = photographs(tmp_path / "pets", 20, ("train", "val", "test"))
    settings = resolve_layers(SIZE, {"fit": {"precision": precision}})
    plan = preparation.prepare_training(data, "photos", settings, ignore)
    probed = probe.run_probe(plan, ignore)
    pixels = torch.from_numpy(np.array(plan.images.pixels[plan.splits.validation]))
    from sightline.data.augment.augment import center, normalize

    mean, std = plan.normalization.tensors(torch.device("cpu"))
    with torch.no_grad():
        logits = plan.network.eval()(normalize(center(pixels, plan.images.size), mean, std, torch.float32))
    np.testing.assert_allclose(logits.numpy(), probed.logits_NK, rtol=1e-3, atol=1e-3)


def test_rare_classes_count_as_much_as_common_ones_where_that_is_asked_for(tmp_path: Path) -> None:
    data = photographs(tmp_path / "pets", 12)
    (data / "red" / "0.png").unlink()
    plain = preparation.prepare_training(data, "photos", SIZE, ignore)
    balanced = preparation.prepare_training(
        data, "photos", resolve_layers(SIZE, {"fit": {"class_weights": "balanced"}}), ignore
    )
    labels = torch.tensor([0] * 30 + [1] * 5 + [2])
    assert probe._weights(plain, labels) is None
    weights = probe._weights(balanced, labels)
    assert weights is not None
    assert weights.mean() == pytest.approx(1.0)
    assert weights[labels == 2].sum() == pytest.approx(float(weights[labels == 0].sum()))


# ── what follows it ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def easy(tmp_path: Path) -> Path:
    return photographs(tmp_path / "pets", 20, ("train", "val", "test"))


def test_fine_tuning_is_kept_only_where_validation_is_better(easy: Path, tmp_path: Path, monkeypatch) -> None:
    ruin = {"fit": {"epochs": 1, "batch_size": 20}, "optimizer": {"kind": "adamw", "learning_rate": 1.0}}
    model, printed = train(easy, tmp_path / "run", resolve_layers(ruin, {"averaging": {"kind": "none"}}))
    assert model["probe"]["kept"] == "probe"
    assert "the probe is kept" in printed
    assert model["metrics"]["accuracy"] > 0.9  # what is saved is the probe, not the ruin
    classifier = sightline.load(tmp_path / "run")
    answers = classifier.predict(sorted((easy / "test" / "red").iterdir()))
    assert sum(answer.label == "red" for answer in answers) > 17
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "Probe and fine-tuning" in page
    assert "it was no better: the probe is what was saved" in page


def test_upper_layers_are_fine_tuned_on_kept_maps_and_the_lower_ones_keep_every_bit(easy: Path, tmp_path: Path) -> None:
    upper = {
        "fit": {"epochs": 2, "batch_size": 20},
        "finetune": {"kind": "upper", "after": "body.blocks.4"},
        "augment": {"crop": {"kind": "none"}, "policy": {"kind": "none"}},
    }
    kept: list[bool] = []
    original = finetune.keep_better

    def keep(plan, *arguments):
        tuned = {name: value.clone() for name, value in plan.network.state_dict().items()}
        compared = original(plan, *arguments)
        before = arguments[1]
        for name, value in tuned.items():
            frozen = not name.startswith(plan.network.beyond_backbone)
            kept.append(torch.equal(value, before[name]) == frozen or name.endswith(("mean", "var", "tracked")))
        return compared

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "keep_better", keep)
        model, _ = train(easy, tmp_path / "run", upper)
    assert all(kept)
    assert len(kept) > 200
    assert "finetuned" in model["probe"]
    assert read_run_recipe(tmp_path / "run").probe.then == "finetune"  # type: ignore[union-attr]


def test_a_layer_that_the_network_cannot_be_cut_behind_is_refused(easy: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--finetune\.after body\.nose: the network cannot be cut there; wanted one of: "
    ):
        train(
            easy,
            tmp_path / "run",
            {
                "finetune": {"kind": "upper", "after": "body.nose"},
                "augment": {"crop": {"kind": "none"}, "policy": {"kind": "none"}},
            },
        )


def test_batch_norm_keeps_the_statistics_that_the_probe_was_solved_on(easy: Path, tmp_path: Path) -> None:
    settings = {"fit": {"epochs": 1, "batch_size": 20}, "averaging": {"kind": "none"}}
    tuned: dict[str, torch.Tensor] = {}
    original = finetune.keep_better

    def keep(plan, *arguments):
        tuned.update({name: value.clone() for name, value in plan.network.state_dict().items()})
        return original(plan, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "keep_better", keep)
        train(easy, tmp_path / "run", settings)
    box = preparation.prepare_training(easy, "photos", SIZE, ignore).network.state_dict()
    statistics = [name for name in box if "running_" in name]
    assert len(statistics) > 40
    assert all(torch.equal(box[name], tuned[name]) for name in statistics)
    assert not torch.equal(box["body.bn1.weight"], tuned["body.bn1.weight"])


def test_the_minutes_decide_how_many_epochs_of_how_many_layers(easy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = preparation.prepare_training(easy, "photos", resolve_layers(SIZE, {"probe": {"minutes": 2}}), ignore)
    probed = replace(probe.run_probe(plan, ignore), images_per_second=1e9)
    options = [
        finetune_costs.Candidate(None, 0.0, 29.0),
        finetune_costs.Candidate("body.blocks.2", 10.0, 10.0),
        finetune_costs.Candidate("body.blocks.4", 5.0, 2.0),
    ]
    monkeypatch.setattr(finetune, "candidates", lambda _: options)
    monkeypatch.setattr(finetune.time, "monotonic", lambda: 1000.0)

    def decided(elapsed: float) -> Recipe:
        plan.network._cut = 0  # type: ignore[assignment]
        return finetune.plan_finetuning(plan, probed, 1000.0 - elapsed, ignore)[0].recipe

    whole = decided(-100.0)  # 120 s and 100 more
    assert (whole.probe.then, whole.finetune) == ("finetune", None)  # type: ignore[union-attr]
    assert whole.fit.epochs == int((220 - 20) * 0.9 / 29)
    upper = decided(30.0)
    assert upper.finetune.after == "body.blocks.2"  # type: ignore[union-attr]
    assert upper.augment.crop is None
    assert decided(80.0).finetune.after == "body.blocks.4"  # type: ignore[union-attr]
    assert decided(95.0).probe.then == "nothing"  # type: ignore[union-attr]
    assert decided(200.0).probe.then == "nothing"  # type: ignore[union-attr]


def test_a_killed_fine_tuning_goes_on_to_the_same_bits(
    easy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"fit": {"epochs": 2, "batch_size": 20, "checkpoint_seconds": 0}}
    train(easy, tmp_path / "whole", settings)
    from sightline.training.module import ClassifierLearner

    step, steps = ClassifierLearner.training_step, []

    def die(self, batch, batch_idx):
        steps.append(batch_idx)
        if len(steps) == 5:
            raise Killed
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassifierLearner, "training_step", die)
        with pytest.raises(Killed):
            train(easy, tmp_path / "run", settings)
    _, printed = train(easy, tmp_path / "run", settings, resume=True)
    assert "Continuing" in printed
    assert same_bits(tmp_path / "whole", tmp_path / "run")


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"network": "speednet"}, "--probe needs a network that has learned already, and speednet starts from nothing"),
        ({"network": "speednet", "probe": {"minutes": 3}}, "--minutes needs a network that has learned already"),
        ({"head": "attention_pool"}, "--head attention_pool has no effect with a probe, whose head is linear"),
        ({"finetune": "frozen"}, "--finetune frozen has no effect behind a probe"),
        ({"probe": {"minutes": 3, "then": "nothing"}}, "--minutes 3 has no effect with --probe.then nothing"),
        ({"probe": {"minutes": -1}}, "--minutes is -1; it must be above 0"),
        ({"probe": {"penalty": 0}}, "--probe.penalty is 0; it must be above 0"),
        ({"fit": {"processes": 2}}, "--fit.processes: a probe is solved by one process"),
        (
            {"finetune": {"kind": "upper", "after": "body.blocks.2"}},
            "--augment.crop has no effect with --finetune upper",
        ),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(read_recipe("photos"), settings)
    assert str(refused.value).startswith(sentence)


def test_what_is_asked_of_fine_tuning_makes_it_follow(tmp_path: Path) -> None:
    data = photographs(tmp_path / "pets", 20, ("train", "val", "test"))

    def prepared(**settings: Any) -> Any:
        layers = resolve_layers(SIZE, settings)
        return preparation.prepare_training(data, "photos", layers, ignore).recipe.probe

    assert prepared().then == "auto"
    assert prepared(fit={"epochs": 3}).then == "finetune"
    assert prepared(finetune="gradual", fit={"epochs": 3}).then == "finetune"
    with pytest.raises(ConfigError, match=r"--fit.epochs has no effect with --probe.then nothing"):
        prepared(fit={"epochs": 3}, probe={"then": "nothing"})
    with pytest.raises(ConfigError, match=r"--minutes 5 has no effect with --probe.then finetune"):
        prepared(fit={"epochs": 3}, probe={"minutes": 5})
    with pytest.raises(
        ConfigError, match=r"optimizer.learning_rate is auto, and nothing is searched for behind a probe"
    ):
        prepared(optimizer={"learning_rate": "auto"})


def test_photographs_are_shown_at_the_size_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = photographs(tmp_path / "pets", 4, side=300)
    plan = preparation.prepare_training(data, "auto", {}, ignore)
    assert plan.recipe.name == "photos"
    assert plan.images.size == (224, 224)
    assert plan.recipe.data.size == 224
    small = preparation.prepare_training(data, "small", {"backbone": "box"}, ignore)
    assert small.images.size == (224, 224)  # not 128, the cap of what starts from nothing
    assert preparation.prepare_training(data, "small", {}, ignore).images.size == (128, 128)


def test_a_training_ends_before_the_epoch_that_would_pass_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from sightline.training.module import ClassifierLearner

    learner = ClassifierLearner.__new__(ClassifierLearner)
    torch.nn.Module.__init__(learner)
    clock = {"now": 0.0}
    monkeypatch.setattr(cost.time, "monotonic", lambda: clock["now"])

    def stops(done: int, took: float, left: float, scales: tuple[float, ...] = ()) -> bool:
        learner.recipe = SimpleNamespace(augment=AugmentConfig(scales=scales))  # type: ignore[assignment]
        trainer = SimpleNamespace(current_epoch=done - 1, max_epochs=4, should_stop=False)
        ending = cost.Deadline(100.0, ignore)
        clock["now"] = 100.0 - left - took
        ending.on_train_epoch_start(trainer, learner)  # type: ignore[arg-type]
        clock["now"] += took
        ending.on_train_epoch_end(trainer, learner)  # type: ignore[arg-type]
        return bool(trainer.should_stop)

    assert not stops(2, took=10, left=11)
    assert stops(2, took=10, left=9)
    assert not stops(4, took=10, left=1)  # it was the last
    assert stops(2, took=10, left=39, scales=(0.5, 1.0))  # the next epoch shows four times the pixels
    assert not stops(2, took=10, left=41, scales=(0.5, 1.0))
    assert not stops(1, took=10, left=11, scales=(0.5, 1.0))


@pytest.mark.parametrize(
    "named", [{"crop": {"kind": "random_resized_crop", "scale": [0.5, 1.0]}}, {"policy": "trivial_augment"}, {}]
)
def test_a_crop_or_policy_that_the_user_names_is_never_dropped_though_the_recipe_has_the_same(
    easy: Path, named: dict[str, Any]
) -> None:
    settings = resolve_layers(SIZE, {"augment": named} if named else {})
    plan = preparation.prepare_training(easy, "photos", settings, ignore)
    recipe = preparation.prepare_training(easy, "photos", SIZE, ignore).recipe
    assert plan.recipe.augment == recipe.augment
    layers = [option.after for option in finetune_costs.candidates(plan)]
    assert layers[0] is None
    assert (layers[1:] == []) == bool(named)  # upper layers alone would do without it


def test_upper_layers_that_the_time_chose_go_on_to_the_same_bits_after_a_kill(
    easy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline.training.module import ClassifierLearner

    monkeypatch.setattr(finetune, "MOST_EPOCHS", 3)
    monkeypatch.setattr(finetune, "candidates", lambda _: [finetune_costs.Candidate("body.blocks.4", 0.1, 0.1)])
    settings = {"fit": {"batch_size": 20, "checkpoint_seconds": 0}, "probe": {"minutes": 30}}
    train(easy, tmp_path / "whole", settings, recipe="photos")
    assert read_run_recipe(tmp_path / "whole").finetune.after == "body.blocks.4"  # type: ignore[union-attr]
    step, steps = ClassifierLearner.training_step, []

    def die(self, batch, batch_idx):
        steps.append(batch_idx)
        if len(steps) == 5:
            raise Killed
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassifierLearner, "training_step", die)
        with pytest.raises(Killed):
            train(easy, tmp_path / "run", settings, recipe="photos")
    monkeypatch.setattr(finetune, "candidates", lambda _: pytest.fail("layers were chosen again"))
    train(easy, tmp_path / "run", settings, recipe="photos", resume=True)
    assert same_bits(tmp_path / "whole", tmp_path / "run")


# ── two of them ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cross_validated_runs_are_paired_and_labels_that_differ_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = photographs(tmp_path / "pets", 12)
    decided = tmp_path / "corrections.csv"
    sightline.corrections(decided, take={"red/0.png": "blue"}, data=data)
    settings = {
        "first": {},
        "weak": {"probe": {"penalty": 0.1}},
        "corrected": {"data": {"corrections": str(decided)}},
    }
    for name, changed in settings.items():
        sightline.train(data, settings=resolve_layers(SIZE, changed), run=tmp_path / name)
    first = read_model(tmp_path / "first")["metrics"]
    page = sightline.compare(tmp_path / "first", tmp_path / "weak", out=tmp_path / "two", on_event=ignore)
    text = page.with_suffix(".md").read_text("utf-8")
    assert f"{first['accuracy']:.4f}" in text, "the accuracy that training told"
    assert "Each answer is of a head that had not seen the image" in text
    assert "McNemar" in text
    page = sightline.compare(tmp_path / "first", tmp_path / "corrected", out=tmp_path / "three", on_event=ignore)
    text = page.with_suffix(".md").read_text("utf-8")
    assert "were not measured by the same" in text
    assert "McNemar" not in text
