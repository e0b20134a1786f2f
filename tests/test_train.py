"""From an image set to a finished run, and back into it after anything that stops a training."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import sightline
from conftest import QUICK, Finished, coloured_folder
from sightline.config.resolving import merge, read_recipe, resolve
from sightline.display.lines import Lines
from sightline.display.reporting import ignore
from sightline.errors import ConfigError, DataError, Interrupted, RunError, StorageError, TrainingError
from sightline.inference.predict import load
from sightline.models.flops import flops_per_image
from sightline.runs import folder as runs
from sightline.training import checkpoints, choosing, finish, image_conflicts, module, preparation, resume_point
from sightline.training import fit as fitting
from sightline.training import network as architecture


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return coloured_folder(tmp_path / "colours", images=20)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return runs.read_weights(run / "model.safetensors")[0]


def same_bits(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(left[name].equal(right[name]) for name in left)


def epochs_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


# ── what a training leaves behind ────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_run_holds_what_the_manual_says_and_nothing_else(finished: Finished) -> None:
    assert sorted(path.name for path in finished.run.iterdir()) == [
        "DONE",
        "batch.png",
        "evaluation.json",
        "metrics.csv",
        "model.json",
        "model.safetensors",
        "predictions.csv",
        "recipe.yaml",
        "report.html",
        "seen.npz",
    ]


def test_three_colours_are_told_apart(finished: Finished) -> None:
    measured = json.loads((finished.run / "evaluation.json").read_text())
    assert measured["accuracy"] == 1.0
    assert measured["n"] == 18  # a fifth of 90, class by class
    assert measured["accuracy_interval"][0] == pytest.approx(18 / (18 + 1.959964**2))  # Wilson's bound for 18 of 18
    assert "top_5_accuracy" not in measured  # of three classes


def test_every_epoch_has_a_line_with_losses_accuracies_rate_and_speed(finished: Finished) -> None:
    with (finished.run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert all(all(value != "" for value in row.values()) for row in rows)
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])


def test_the_test_split_was_read_once_and_the_model_says_so(finished: Finished) -> None:
    model = json.loads((finished.run / "model.json").read_text())
    assert model["test_readings"] == 1
    assert model["classes"] == ["=blood", "grass", "ünder wasser"]
    assert model["data"]["counts"] == {"train": 57, "validation": 15, "test": 18}


def test_a_run_knows_its_accuracy_on_validation_its_parameters_and_the_operations_of_its_training(
    finished: Finished, tmp_path: Path
) -> None:
    model = runs.read_model(finished.run)
    assert model["parameters"] == 10_888
    per_image = flops_per_image(load(finished.run).network, (32, 32))
    whitening = 2 * 31 * 31 * 24 * (3 * 2 * 2)  # of whose backward pass nothing is needed but the bias's
    assert model["cost"]["training_flops"] == (3 * per_image - 2 * whitening) * 57 * 4  # images × epochs
    assert model["validation"]["n"] == model["calibrated_on"] == 15
    settings = {"evaluation": {"on": "validation"}}
    run = sightline.train(recipe=finished.run / "recipe.yaml", settings=settings, run=tmp_path / "run")
    assert run is not None
    again = runs.read_model(run)
    assert again["validation"] == model["validation"]  # whatever else is measured
    assert again["validation"]["accuracy"] == again["metrics"]["accuracy"]


def test_smaller_images_and_an_early_end_cost_fewer_operations(colours: Path, tmp_path: Path) -> None:
    def operations(name: str, **settings: Any) -> int:
        run = sightline.train(colours, recipe="small", settings=merge(QUICK, settings), run=tmp_path / name)
        assert run is not None
        return int(runs.read_model(run)["cost"]["training_flops"])

    whole = operations("whole")
    assert 0.5 < operations("smaller", augment={"scales": [0.5, 1]}) / whole < 0.65  # half the epochs at a quarter
    stopping = {"kind": "patience", "monitor": "val_acc", "patience": 1, "min_delta": 1.0}  # more than there is to gain
    assert operations("stopped", early_stopping=stopping) == whole / 2  # after two epochs of four


def test_the_recipe_of_a_run_trains_the_same_run_again(finished: Finished, tmp_path: Path) -> None:
    again = sightline.train(recipe=finished.run / "recipe.yaml", run=tmp_path / "again")
    assert again is not None
    assert same_bits(finished.run, again)
    assert epochs_of(finished.run) == epochs_of(again)
    assert (finished.run / "predictions.csv").read_bytes() == (again / "predictions.csv").read_bytes()


def test_another_seed_trains_other_weights_on_the_same_test_images(finished: Finished, tmp_path: Path) -> None:
    other = sightline.train(recipe=finished.run / "recipe.yaml", settings={"fit": {"seed": 7}}, run=tmp_path / "other")
    assert other is not None
    assert not same_bits(finished.run, other)
    files = [[row["file"] for row in csv.DictReader((run / "predictions.csv").open())] for run in (finished.run, other)]
    assert files[0] == files[1]


def test_deterministic_mode_trains_the_same_weights_and_leaves_pytorch_in_it(
    finished: Finished, tmp_path: Path
) -> None:
    settings = {"fit": {"deterministic": True}}
    run = sightline.train(recipe=finished.run / "recipe.yaml", settings=settings, run=tmp_path / "run")
    assert run is not None
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    assert same_bits(finished.run, run)  # on a processor nothing differs either way
    assert "deterministic: true" in (run / "recipe.yaml").read_text()


def test_deterministic_mode_is_on_before_the_first_product_of_matrices_which_cublas_remembers(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    modes = []

    def build(*arguments):
        cudnn = torch.backends.cudnn
        modes.append((torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark))
        return build_network(*arguments)

    build_network = architecture.build_network
    monkeypatch.setattr(architecture, "build_network", build)
    for wanted in (True, False):
        settings = {"fit": {"deterministic": wanted}}
        sightline.train(recipe=finished.run / "recipe.yaml", settings=settings, dry_run=True)
    assert modes == [(True, True, False), (False, False, True)]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


# ── torch.compile ────────────────────────────────────────────────────────────────────────────────────────────────────


def compile_without_compiler(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch.compile trace as always and run what it traced as written: seconds instead of minutes.

    Returns:
        The sizes that were traced, as a list that grows.
    """
    real, sizes = torch.compile, []

    def as_written(graph, examples):
        images = [tuple(example.shape) for example in examples if example.ndim == 4 and example.shape[1] == 3]
        sizes.extend(f"{count} of {side}" for count, _, side, _ in images if side > 8)  # not filters
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda call, **named: real(call, backend=as_written, **named))
    return sizes


def test_a_compiled_training_ends_in_the_same_bits_when_it_is_resumed_and_names_its_weights_as_always(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = compile_without_compiler(monkeypatch)
    settings = {"fit": {"compile": True, "epochs": 2, "batch_size": 19}, "augment": {"scales": [0.5, 1]}}
    whole = sightline.train(recipe=finished.run / "recipe.yaml", settings=settings, run=tmp_path / "whole")
    assert set(sizes) == {"19 of 16", "19 of 32"}  # 57 images are three batches; validation and test are not compiled
    with monkeypatch.context() as patch:
        interrupt(patch, module.ClassifierLearner, "training_step", 4, Killed)
        with pytest.raises(Killed):
            sightline.train(recipe=finished.run / "recipe.yaml", settings=settings, run=tmp_path / "run")
    resumed = sightline.train(run=tmp_path / "run", resume=True)
    settings["fit"]["compile"] = False
    plain = sightline.train(recipe=finished.run / "recipe.yaml", settings=settings, run=tmp_path / "plain")
    assert whole is not None
    assert resumed is not None
    assert plain is not None
    assert same_bits(whole, resumed)
    assert weights(whole).keys() == weights(plain).keys()
    for name, tensor in weights(plain).items():
        assert torch.allclose(tensor, weights(whole)[name], rtol=1e-3, atol=1e-4), name


def test_compiling_where_there_is_no_compiler_is_refused_before_the_images_are_read(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_, **__):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", missing)
    wanted = r"--fit.compile cannot be used here: a trial was not compiled \(No working C\+\+ compiler found\); install"
    with pytest.raises(ConfigError, match=wanted):
        sightline.train(colours, recipe="small", settings={"fit": {"compile": True}}, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


def test_half_precision_is_refused_on_a_processor(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--fit.precision float16 needs a GPU; choose bfloat16 or float32"):
        sightline.train(colours, settings={"fit": {"precision": "float16"}}, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_and_an_archive_of_it_train_the_same_weights(colours: Path, tmp_path: Path) -> None:
    import shutil

    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", colours)
    quick = QUICK | {"fit": {"epochs": 1, "batch_size": 16}}
    one = sightline.train(colours, recipe="small", settings=quick, run=tmp_path / "one")
    two = sightline.train(archive, recipe="small", settings=quick, run=tmp_path / "two")
    assert one is not None
    assert two is not None
    assert same_bits(one, two)


def test_evaluate_none_reads_no_test_image(colours: Path, tmp_path: Path) -> None:
    quick = QUICK | {"fit": {"epochs": 1, "batch_size": 16}, "evaluation": {"on": "none"}}
    run = sightline.train(colours, recipe="small", settings=quick, run=tmp_path / "run")
    assert run is not None
    assert json.loads((run / "model.json").read_text())["test_readings"] == 0
    assert not (run / "evaluation.json").exists()


def test_a_dry_run_describes_and_makes_nothing(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115 - closed with the process
    assert sightline.train(colours, settings=QUICK, dry_run=True, on_event=Lines(console)) is None
    text = console.export_text()
    for wanted in (
        "3 classes",
        "train 39",
        "validation 9",
        "test 12",
        "recipe: small",
        "speednet",
        "total",
        "estimate:",
    ):
        assert wanted in text
    assert not (tmp_path / "runs").exists()


def test_auto_takes_no_probe_for_a_network_that_starts_from_nothing(tmp_path: Path) -> None:
    for index in range(8):
        path = tmp_path / "photos" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (90, 90, 3), np.uint8)).save(path)
    plan = preparation.prepare_training(tmp_path / "photos", "auto", {"network": "speednet"}, ignore)
    assert plan.recipe.name == "small"
    assert "photographs" in plan.why
    assert plan.why.endswith("but speednet starts from nothing")
    settings = {"network": "speednet", "probe": {"minutes": 1}}
    with pytest.raises(ConfigError, match="train it by --recipe small or --probe none"):
        preparation.prepare_training(tmp_path / "photos", "auto", settings, ignore)


@pytest.mark.parametrize(
    ("images", "side", "name"),
    [(60_000, 32, "fast"), (2_000, 32, "small"), (2_000, 65, "photos"), (50_000, 128, "photos")],
)
def test_auto_chooses_by_number_and_size(images: int, side: int, name: str) -> None:
    assert choosing.choose_recipe(images, (side, side))[0] == name
    assert choosing.choose_recipe(images, (side, side), 0.1)[0] == ("small" if side <= 64 else "photos")


MIXED = {
    "rotation": {"degrees": 20},
    "policy": {"kind": "trivial_augment"},
    "color": {"kind": "color_jitter"},
    "cutout": {"size": 8},
}


def test_a_picture_that_fails_is_reported_and_changes_no_bit(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        torch.rand(1)
        raise ValueError("no such\nfont")

    monkeypatch.setattr(fitting, "draw_batch", broken)
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115 - closed with the process
    run = sightline.train(recipe=finished.run / "recipe.yaml", run=tmp_path / "run", on_event=Lines(console))
    assert run is not None
    assert "no batch.png: no such font\n" in console.export_text()
    assert not (run / "batch.png").exists()
    assert (run / "DONE").exists()
    assert same_bits(finished.run, run)


@pytest.mark.parametrize("mix", [{"kind": "mixup", "alpha": 0.5}, {"kind": "cutmix"}], ids=["mixup", "cutmix"])
def test_a_training_with_every_augmentation_ends_in_the_same_bits_after_a_kill(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mix: dict[str, object]
) -> None:
    settings = QUICK | {"fit": {"epochs": 2, "batch_size": 16}, "augment": MIXED | {"mix": mix}}
    whole = sightline.train(colours, recipe="small", settings=settings, run=tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, module.ClassifierLearner, "training_step", 4, Killed)
        with pytest.raises(Killed):
            sightline.train(colours, recipe="small", settings=settings, run=tmp_path / "run")
    picture = (tmp_path / "run" / "batch.png").read_bytes()
    resumed = sightline.train(run=tmp_path / "run", resume=True)
    assert whole is not None
    assert resumed is not None
    assert same_bits(whole, resumed)
    assert epochs_of(whole) == epochs_of(resumed)
    assert picture == (resumed / "batch.png").read_bytes() == (whole / "batch.png").read_bytes()


# ── resume ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """Stands for a kill: nothing in the code may catch it."""


def interrupt(
    monkeypatch: pytest.MonkeyPatch, place: object, name: str, occasion: int, error: type[BaseException]
) -> None:
    """Raise an error when a function is called for the ``occasion``-th time, counted from 0."""
    call, count = getattr(place, name), -1

    def wrapped(*arguments, **named):
        nonlocal count
        count += 1
        if count == occasion:
            raise error
        return call(*arguments, **named)

    monkeypatch.setattr(place, name, wrapped)


@pytest.mark.parametrize(
    ("place", "name", "occasion"),
    [
        pytest.param(module.ClassifierLearner, "training_step", 1, id="before the first checkpoint"),
        pytest.param(module.ClassifierLearner, "training_step", 6, id="within an epoch"),
        pytest.param(module.ClassifierLearner, "validation_step", 2, id="in validation"),
        pytest.param(checkpoints.os, "fsync", 5, id="in a checkpoint"),
        pytest.param(finish, "evaluate_rows", 0, id="in the final evaluation"),
        pytest.param(finish, "write_weights", 0, id="before the weights are written"),
        pytest.param(finish, "mark_done", 0, id="before DONE"),
    ],
)
def test_a_training_that_was_stopped_anywhere_ends_in_the_same_bits(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: object, name: str, occasion: int
) -> None:
    settings = {"fit": {"checkpoint_seconds": 0.0}}
    whole = sightline.train(recipe=finished.run / "recipe.yaml", settings=settings, run=tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, place, name, occasion, Killed)
        with pytest.raises(Killed):
            sightline.train(recipe=finished.run / "recipe.yaml", settings=settings, run=tmp_path / "run")
    assert not (tmp_path / "run" / "DONE").exists()
    resumed = sightline.train(run=tmp_path / "run", resume=True)
    assert resumed == tmp_path / "run"
    assert whole is not None
    assert same_bits(whole, resumed)
    assert epochs_of(whole) == epochs_of(resumed)


# 50 images or some more in batches of 8: 7 batches an epoch or more, 4 epochs or 5
VARIANTS: dict[str, dict] = {
    "ema": {"averaging": {"kind": "ema", "decay": 0.9, "start": 0.3}, "optimizer": {"kind": "adam"}},
    "swa": {"averaging": {"kind": "swa", "start": 0.4}, "fit": {"accumulate": {0: 3, 2: 2, 3: 1}, "keep": "val_loss"}},
    "plateau": {
        "schedule": {"kind": "plateau", "patience": 0, "monitor": "val_acc", "factor": 0.5},
        "data": {"sampling": "balanced", "size": 16, "validation": 6},  # a half: better three times at most
        "fit": {"epochs": 5},
    },
    "early stopping": {
        "early_stopping": {"kind": "patience", "patience": 1, "min_delta": 0.5},  # stops after two epochs
        "averaging": {"kind": "ema", "decay": 0.9},
        "clip": {"kind": "value", "limit": 0.01},
    },
}


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes, one of which is rare."""
    folder = coloured_folder(tmp_path_factory.mktemp("unequal") / "colours")
    for image in sorted((folder / "grass").iterdir())[18:]:
        image.unlink()
    return folder


@pytest.fixture(scope="module")
def whole_runs(unequal: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a variant that nothing stopped, made once."""
    folder = tmp_path_factory.mktemp("whole")

    def run_of(variant: str) -> Path:
        if not (folder / variant).exists():
            sightline.train(unequal, recipe="small", settings=variant_settings(variant), run=folder / variant)
        return folder / variant

    return run_of


def variant_settings(variant: str) -> dict:
    fit = {"epochs": 4, "batch_size": 8, "checkpoint_seconds": 0.0} | VARIANTS[variant].get("fit", {})
    return QUICK | {"data": {"size": 16}} | VARIANTS[variant] | {"fit": fit}


@pytest.mark.parametrize(
    ("place", "name", "occasion"),
    [
        pytest.param(module.ClassifierLearner, "training_step", 12, id="within an epoch"),
        pytest.param(module.ClassifierLearner, "validation_step", 1, id="in validation"),
        pytest.param(fitting, "put_in_chosen", 0, id="after the last step"),
    ],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_way_of_fitting_that_was_stopped_anywhere_ends_in_the_same_bits(
    variant: str,
    whole_runs: Callable[[str], Path],
    unequal: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: object,
    name: str,
    occasion: int,
) -> None:
    whole = whole_runs(variant)
    with monkeypatch.context() as patch:
        interrupt(patch, place, name, occasion, Killed)
        with pytest.raises(Killed):
            sightline.train(unequal, recipe="small", settings=variant_settings(variant), run=tmp_path / "run")
    resumed = sightline.train(run=tmp_path / "run", resume=True)
    assert resumed is not None
    assert same_bits(whole, resumed)
    assert epochs_of(whole) == epochs_of(resumed)
    kept = runs.read_model(resumed).get("kept")
    assert runs.read_model(whole).get("kept") == kept
    assert (kept or {}).get("stopped_after", 0) == (2 if variant == "early stopping" else 0)
    if variant == "plateau":
        assert min(float(row["learning_rate"]) for row in epochs_of(resumed)) < 0.1  # the peak was left


def test_a_real_kill_in_the_middle_ends_in_the_same_bits(finished: Finished, tmp_path: Path) -> None:
    code = (
        "import os, signal, sightline; from sightline.training import module as learners; step = learners.ClassifierLearner.training_step\n"
        "def dying(self, batch, index):\n"
        "    if (batch.epoch, batch.position) == (2, 2): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, batch, index)\n"
        "learners.ClassifierLearner.training_step = dying\n"
        f"sightline.train(recipe={str(finished.run / 'recipe.yaml')!r}, run={str(tmp_path / 'run')!r})\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "last.ckpt").exists()
    resumed = sightline.train(run=tmp_path / "run", resume=True)
    assert resumed is not None
    assert same_bits(finished.run, resumed)


def test_resume_finds_the_newest_unfinished_run_of_the_same_settings(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        interrupt(patch, module.ClassifierLearner, "training_step", 3, Killed)
        with pytest.raises(Killed):
            sightline.train(colours, recipe="small", settings=QUICK)
    with pytest.raises(RunError, match="no unfinished run of colours with these settings"):
        sightline.train(colours, recipe="small", settings=QUICK | {"data": {"split_seed": 5}}, resume=True)
    assert sightline.train(colours, recipe="small", settings=QUICK, resume=True) == Path("runs/colours-small-1")


def test_resuming_a_finished_run_ends_at_once(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "fit", None)  # would fail if it were called
    assert sightline.train(run=finished.run, resume=True) == finished.run


def test_resume_refuses_changed_settings_by_name(finished: Finished) -> None:
    with pytest.raises(ConfigError, match=r"fit\.epochs was 4 and is 9"):
        sightline.train(run=finished.run, resume=True, settings={"fit": {"epochs": 9}})


def test_resume_refuses_images_that_have_changed(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, module.ClassifierLearner, "training_step", 3, Killed)
        with pytest.raises(Killed):
            sightline.train(colours, recipe="small", settings=QUICK, run=tmp_path / "run")
    (colours / "grass" / "000.png").unlink()
    with pytest.raises(DataError, match="have changed since it began"):
        sightline.train(run=tmp_path / "run", resume=True)


def test_resume_of_a_run_that_never_began_begins_it(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()  # killed right after the folder was made
    quick = QUICK | {"fit": {"epochs": 1, "batch_size": 16}}
    for run in ("run", "new"):
        assert sightline.train(colours, recipe="small", settings=quick, run=tmp_path / run, resume=True)


def test_resume_leaves_a_folder_alone_that_is_no_run(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "thesis.docx").write_text("dear")
    with pytest.raises(RunError, match="no run that could be continued"):
        sightline.train(colours, run=tmp_path / "photos", resume=True)
    assert (tmp_path / "photos" / "thesis.docx").read_text() == "dear"


def test_a_broken_checkpoint_falls_back_to_the_one_before(finished: Finished, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, module.ClassifierLearner, "training_step", 13, Killed)
        with pytest.raises(Killed):
            sightline.train(recipe=finished.run / "recipe.yaml", run=tmp_path / "run")
    (tmp_path / "run" / "last.ckpt").write_bytes(b"half of it")
    assert resume_point.checkpoint_to_resume(tmp_path / "run") == tmp_path / "run" / "previous.ckpt"
    resumed = sightline.train(run=tmp_path / "run", resume=True)
    assert resumed is not None
    assert same_bits(finished.run, resumed)


# ── the end of an epoch, as a caller sees it ─────────────────────────────────────────────────────────────────────────


def test_a_caller_hears_of_each_epoch_before_its_checkpoint_and_may_end_the_training_there(
    finished: Finished, tmp_path: Path
) -> None:
    heard: list[tuple[int, dict[str, float]]] = []

    def hear(epoch: int, numbers: dict[str, float]) -> None:
        heard.append((epoch, numbers))
        if len(heard) == 2:
            raise Killed

    run, recipe = tmp_path / "run", finished.run / "recipe.yaml"
    with pytest.raises(Killed):
        sightline.train(recipe=recipe, run=run, after_epoch=hear)
    assert torch.load(run / "last.ckpt", weights_only=True)["epoch"] == 0  # the first, counted from 0
    assert sightline.train(run=run, resume=True, after_epoch=hear) == run
    assert [epoch for epoch, _ in heard] == [1, 2, 2, 3, 4]
    assert heard[1][1]["val_acc"] == heard[2][1]["val_acc"]
    assert [str(numbers["val_loss"]) for _, numbers in heard[2:]] == [row["val_loss"] for row in epochs_of(run)[1:]]
    assert same_bits(finished.run, run)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes need two cores")
def test_the_end_of_an_epoch_is_not_waited_for_by_several_processes(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--fit.processes must be 1 where the end of an epoch is waited for"):
        sightline.train(
            recipe=finished.run / "recipe.yaml",
            settings={"fit": {"processes": 2}},
            run=tmp_path / "run",
            after_epoch=lambda epoch, numbers: None,
        )
    assert not (tmp_path / "run").exists()


# ── what stops a training ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_folder_that_exists_is_refused_and_kept(finished: Finished) -> None:
    before = (finished.run / "model.json").read_bytes()
    with pytest.raises(RunError, match=r"exists; choose another --run, or continue"):
        sightline.train(finished.data, run=finished.run)
    assert (finished.run / "model.json").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_advice(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = module.classification_loss, 0

    def poisoned(network, batch, *more, **named):
        nonlocal calls
        calls += network.training
        value, logits = loss(network, batch, *more, **named)
        return (value * float("nan") if calls > 5 and network.training else value), logits

    monkeypatch.setattr(module, "classification_loss", poisoned)
    with pytest.raises(TrainingError) as caught:
        sightline.train(colours, recipe="small", settings=QUICK, run=tmp_path / "run")
    sentence = str(caught.value)
    assert "not finite from step 5 on (epoch 2, batch 3, learning rate" in sentence  # 39 images are three batches
    assert "--optimizer.learning-rate" in sentence
    assert f"last good state is {tmp_path / 'run' / 'last.ckpt'}." in sentence
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    assert all(torch.isfinite(tensor).all() for tensor in kept["state_dict"].values())


def test_ctrl_c_names_the_run_that_can_be_continued(colours: Path, tmp_path: Path, monkeypatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupt(monkeypatch, module.ClassifierLearner, "training_step", 4, KeyboardInterrupt)
    with pytest.raises(Interrupted) as caught:
        sightline.train(colours, recipe="small", settings=QUICK, run=tmp_path / "run")
    assert caught.value.run == tmp_path / "run"
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_within_the_writing_of_a_checkpoint_is_still_ctrl_c(colours: Path, tmp_path: Path, monkeypatch) -> None:
    class PressedInTheThirdWrite:
        """A file in whose third write the key is pressed; torch.save turns that into an error of its own."""

        def __init__(self, file):
            self.file, self.writes = file, 0

        def write(self, data):
            self.writes += 1
            if self.writes == 3:
                raise KeyboardInterrupt
            return self.file.write(data)

    save, count = torch.save, 0

    def pressed(checkpoint, file):
        nonlocal count
        count += 1
        save(checkpoint, PressedInTheThirdWrite(file) if count == 2 else file)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(checkpoints.torch, "save", pressed)
    with pytest.raises(Interrupted):
        sightline.train(colours, recipe="small", settings=QUICK, run=tmp_path / "run")
    signal.signal(signal.SIGINT, before)
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["epoch"] == 0
    assert not list((tmp_path / "run").glob(".*partial*"))


def test_a_full_disk_is_an_error_that_says_so(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(StorageError, match=r"disk of .* is full; free space"):
        sightline.train(colours, recipe="small", settings=QUICK, run=tmp_path / "run")


def test_a_checkpoint_on_a_disk_that_fills_keeps_the_one_before(colours: Path, tmp_path: Path, monkeypatch) -> None:
    save, count = torch.save, 0

    def filling(checkpoint, file):
        nonlocal count
        count += 1
        if count == 3:
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
        save(checkpoint, file)

    monkeypatch.setattr(checkpoints.torch, "save", filling)
    with pytest.raises(StorageError):
        sightline.train(colours, recipe="small", settings=QUICK, run=tmp_path / "run")
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 1  # the second of the epochs
    assert not list((tmp_path / "run").glob(".*partial*"))


def test_an_unwritable_run_folder_is_an_error_that_says_so(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        sightline.train(colours, recipe="small", settings=QUICK, run=tmp_path / "file" / "run")


def test_a_hole_larger_than_the_images_is_refused_before_training(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--augment.cutout.size \(40\) is larger than the images \(32 px\)"):
        sightline.train(colours, settings={"augment": {"cutout": {"size": 40}}}, run=tmp_path / "run")


def test_images_that_would_shrink_below_what_a_network_can_read_are_refused(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--augment.scales 0.4 makes 13 px of 32 px; .* choose 0.50 or more"):
        sightline.train(colours, settings={"augment": {"scales": (0.4, 1)}}, run=tmp_path / "run")


def test_smaller_images_that_no_epoch_would_show_are_refused_and_a_recipes_are_left_out(
    colours: Path, tmp_path: Path
) -> None:
    one = QUICK | {"fit": {"epochs": 1, "batch_size": 16}}
    with pytest.raises(ConfigError, match=r"--augment.scales 0.5 1 has no effect with --fit.epochs 1: every epoch is"):
        sightline.train(colours, settings=one | {"augment": {"scales": (0.5, 1)}}, run=tmp_path / "run")
    fast = resolve(read_recipe("fast"), {"fit": {"epochs": 1}})
    assert preparation.settle_scales(fast, {}, 32).augment.scales == ()
    longer = resolve(read_recipe("fast"), {"fit": {"epochs": 2}})
    assert preparation.settle_scales(longer, {"augment": {"scales": longer.augment.scales}}, 32) is longer


def test_a_scale_that_rounds_to_the_full_side_is_refused(colours: Path, tmp_path: Path) -> None:
    sentence = (
        r"--augment.scales 0.98 has no effect: .* nearest to 31.4 px is the full one, 32 px; choose 0.94 or less, or 1"
    )
    with pytest.raises(ConfigError, match=sentence):
        sightline.train(colours, settings=QUICK | {"augment": {"scales": (0.98, 1)}}, run=tmp_path / "run")


def test_padding_that_is_lost_in_what_larger_images_are_cached_with_is_refused(in_memory) -> None:
    def cropped(padding: int, cached: int, size: int) -> None:
        images = in_memory([0, 1], size=(size, size), pixels=np.zeros((2, cached, cached, 3), np.uint8))
        recipe = resolve({"augment": {"crop": {"kind": "pad_crop", "padding": padding}}})
        image_conflicts.refuse_small_padding(recipe, images)

    with pytest.raises(
        ConfigError, match=r"--augment.crop.padding \(4\) has no effect: .* up to 9 px; choose 9 or more"
    ):
        cropped(4, 147, 128)
    cropped(9, 147, 128)
    cropped(1, 32, 32)


def test_a_split_seed_is_refused_where_nothing_is_cut(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        coloured_folder(tmp_path / "set" / split, images=8)
    settings = QUICK | {"data": {"split_seed": 3}}
    with pytest.raises(
        ConfigError, match=r"--data.split-seed has no effect: set brings its test and validation splits"
    ):
        sightline.train(tmp_path / "set", settings=settings, dry_run=True)
    for used in ({"split_seed": 3, "fraction": 0.5}, {"split_seed": 0}):  # a part of train is cut; the default
        assert sightline.train(tmp_path / "set", settings=QUICK | {"data": used}, dry_run=True) is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"fit": {"class_weights": "balanced"}},
            "--fit.class-weights balanced has no effect: every class of colours has 13",
        ),
        ({"data": {"sampling": "balanced"}}, "--data.sampling balanced has no effect: every class of colours has 13"),
        (
            {"fit": {"accumulate": 4, "batch_size": 16}},
            "--fit.accumulate 4 is more than the 3 batches of an epoch \\(39 images in batches of 16\\); choose at most 3.",
        ),
    ],
)
def test_what_would_have_no_effect_on_these_images_is_refused_before_training(
    colours: Path, tmp_path: Path, settings: dict, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        sightline.train(colours, recipe="small", settings=settings, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("side", "scales"), [(32, None), (20, (0.8, 0.8, 0.8, 0.8, 0.8125, 0.8125, 1, 1, 1)), (16, ())]
)
def test_a_recipe_chosen_by_auto_shows_no_image_too_small_to_read(side: int, scales: tuple[float, ...] | None) -> None:
    fast = resolve(read_recipe("fast"))
    fitted = preparation.settle_scales(fast, {}, side)
    assert fitted.augment.scales == (fast.augment.scales if scales is None else scales)
    image_conflicts.refuse_conflicts_with_size(fitted, side)


def test_without_data_the_embedded_photographs_are_trained_on_and_that_is_said() -> None:
    console = Console(file=io.StringIO(), width=200)
    assert sightline.train(settings={"data": {"size": 16}}, dry_run=True, on_event=Lines(console)) is None
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert printed.startswith("No image set was named: this trains on groceries, the embedded photographs.")
    assert "images: train 300, validation 0, test 0 (too few to set any aside: cross-validation measures" in printed


def test_a_recipe_that_names_its_image_set_keeps_it(colours: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    sightline.train(
        recipe=read_recipe("small") | QUICK | {"image_set": str(colours)}, dry_run=True, on_event=Lines(console)
    )
    assert "groceries" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_where_training_is_only_prepared_an_image_set_is_asked_for() -> None:
    with pytest.raises(DataError, match=r"no image set was named; give a folder, .* such as groceries"):
        sightline.plan()


def test_images_below_16_px_are_trained_at_16_by_a_recipe_that_would_show_them_smaller() -> None:
    console = Console(file=io.StringIO(), width=200)
    sightline.train("digits", recipe="fast", dry_run=True, on_event=Lines(console))
    assert "speednet on 16×16 px" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_saturation_of_grey_images_is_not_varied_and_asking_for_it_is_refused(
    colours: Path, tmp_path: Path
) -> None:
    color = {"kind": "color_jitter", "brightness": 0.4, "contrast": 0}
    with pytest.raises(ConfigError, match=r"saturation \(0.4\) has no effect: .* digits are gray; set it to 0."):
        sightline.train("digits", recipe="small", settings={"augment": {"color": color}}, run=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"are gray; leave --augment.color out."):
        sightline.train("digits", settings={"augment": {"color": color | {"brightness": 0}}}, dry_run=True)
    sightline.train("digits", settings={"augment": {"color": color | {"saturation": 0}}}, dry_run=True)
    sightline.train(colours, settings={"augment": {"color": color}}, dry_run=True)


def test_one_coloured_pixel_in_the_last_image_makes_a_set_coloured() -> None:
    pixels = np.full((2_500, 2, 2, 3), 7, np.uint8)
    assert image_conflicts.is_gray(pixels, np.arange(2_500))
    pixels[2_499, 1, 1, 2] = 8
    assert not image_conflicts.is_gray(pixels, np.arange(2_500))
    assert image_conflicts.is_gray(pixels, np.arange(2_499))
