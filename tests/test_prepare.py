"""A Trainer of one's own trains what ``sightline.train`` trains, to the bit, and leaves a run like any other."""

import csv
import json
from pathlib import Path
from typing import Any

import lightning
import pytest
from lightning.pytorch.callbacks import Callback

import sightline
from conftest import QUICK, coloured_folder
from sightline.errors import ConfigError
from sightline.runs.folder import read_weights

SHORT = QUICK | {"fit": {"epochs": 2, "batch_size": 16}}
RICH = {
    "averaging": {"kind": "ema", "start": 0.5},
    "clip": {"kind": "norm", "limit": 1.0},
    "finetune": {"kind": "gradual", "phases": 2},
}
"""Settings that are callbacks or arguments of the Trainer, which could be forgotten."""


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_folder(tmp_path_factory.mktemp("images") / "colours", images=20)


class Steps(Callback):
    """Counts the steps."""

    count = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.count += 1


def trainer_of(prepared: Any, *callbacks: Callback, **other: Any) -> lightning.Trainer:
    plain = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return lightning.Trainer(**prepared.trainer, callbacks=[*prepared.callbacks, *callbacks], **plain | other)


def bits_of(run: Path) -> dict[str, Any]:
    return read_weights(run / "model.safetensors")[0]


@pytest.mark.parametrize("more", [{}, RICH], ids=["plain", "rich"])
def test_a_trainer_of_ones_own_ends_in_the_same_bits_and_the_same_measures(
    colours: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    ours = sightline.train(colours, recipe="small", settings=SHORT | more, run=tmp_path / "ours")
    prepared = sightline.prepare(colours, recipe="small", settings=SHORT | more)
    steps = Steps()
    trainer = trainer_of(prepared, steps)
    trainer.fit(prepared.module, prepared.datamodule)
    theirs = prepared.finish(trainer, tmp_path / "theirs")
    assert ours is not None
    left, right = bits_of(ours), bits_of(theirs)
    assert left.keys() == right.keys()
    assert all(left[name].equal(right[name]) for name in left)
    assert steps.count == trainer.global_step > 0
    measured = [json.loads((run / "evaluation.json").read_text())["accuracy"] for run in (ours, theirs)]
    assert measured[0] == measured[1]
    rows = [list(csv.DictReader((run / "metrics.csv").open())) for run in (ours, theirs)]
    assert [row["val_loss"] for row in rows[0]] == [row["val_loss"] for row in rows[1]]
    assert {path.name for path in theirs.iterdir()} == {path.name for path in ours.iterdir()} - {"batch.png"}
    assert json.loads((theirs / "model.json").read_text())["trainer"] == "the caller's own"
    assert prepared.classes == sorted(folder.name for folder in colours.iterdir())


def test_loggers_of_the_trainer_get_the_numbers_of_each_epoch_and_a_checkpoint_goes_on(
    colours: Path, tmp_path: Path
) -> None:
    from lightning.pytorch.loggers import CSVLogger

    prepared = sightline.prepare(colours, recipe="small", settings=SHORT)
    trainer = trainer_of(prepared, logger=CSVLogger(tmp_path / "logs", version=""))
    trainer.fit(prepared.module, prepared.datamodule)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    with (tmp_path / "logs" / "lightning_logs" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val_loss"]]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    again = sightline.prepare(colours, recipe="small", settings=SHORT)
    trainer = trainer_of(again)
    trainer.fit(again.module, again.datamodule, ckpt_path=tmp_path / "end.ckpt", weights_only=True)
    run = again.finish(trainer, tmp_path / "run")
    with (run / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_what_was_not_fitted_by_this_trainer_is_not_finished(colours: Path, tmp_path: Path) -> None:
    prepared = sightline.prepare(colours, recipe="small", settings=SHORT)
    trainer = trainer_of(prepared)
    with pytest.raises(ConfigError, match="the Trainer has not fitted this training with its callbacks for an epoch"):
        prepared.finish(trainer, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "settings", "sentence"),
    [
        ("photos", {}, r"recipe photos solves for its head and decides by time what follows, which no Trainer does"),
        (
            "small",
            {"optimizer": {"learning_rate": "auto"}},
            r"optimizer.learning_rate is auto, and nothing is searched",
        ),
        ("small", {"track": {"to": ["csv"]}}, r"track.to has no effect on a Trainer of your own"),
    ],
)
def test_what_is_no_fit_is_refused(colours: Path, recipe: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        sightline.prepare(colours, recipe=recipe, settings=settings)
