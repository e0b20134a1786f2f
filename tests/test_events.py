"""What a verb reports: a Python caller receives it as numbers, a terminal draws it, a log has lines."""

import io
import json
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

import sightline
from conftest import QUICK, Finished
from sightline.cli.bars import Bars
from sightline.display.events import Epoch, Event, Measured, Progress, Table, Trial
from sightline.display.reporting import stage


def test_a_caller_receives_the_numbers_of_a_training(finished: Finished, tmp_path: Path) -> None:
    heard: list[Event] = []
    run = sightline.train(finished.data, recipe="small", settings=QUICK, run=tmp_path / "run", on_event=heard.append)
    assert run is not None
    epochs = [event for event in heard if isinstance(event, Epoch) and event.ended]
    lines = (run / "metrics.csv").read_text().splitlines()
    assert [event.epoch for event in epochs] == list(range(1, len(lines)))
    last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert epochs[-1].metrics["val_acc"] == pytest.approx(float(last["val_acc"]))
    assert epochs[-1].epochs == len(epochs)
    assert epochs[-1].seconds_left == 0
    (measured,) = (event.measures for event in heard if isinstance(event, Measured))
    assert measured["accuracy"] == json.loads((run / "evaluation.json").read_text())["accuracy"]
    (layers,) = (event for event in heard if isinstance(event, Table))
    assert layers.rows[-1][0] == "total"
    assert "Next:" in heard
    stages = {event.stage for event in heard if isinstance(event, Progress)}
    assert stages == {event.stage for event in heard if isinstance(event, Progress) and event.ended}


def test_what_a_listener_raises_ends_the_training_which_can_be_resumed(finished: Finished, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Epoch) and event.ended:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sightline.train(finished.data, recipe="small", settings=QUICK, run=tmp_path / "run", on_event=stop)
    assert sightline.train(run=tmp_path / "run", resume=True) == tmp_path / "run"


def test_a_verb_that_answers_counts_images_and_ends_its_stage_when_it_refuses(finished: Finished) -> None:
    image = next(finished.data.rglob("*.png"))
    heard: list[Event] = []
    sightline.predict(finished.run, [image], on_event=heard.append)
    assert heard == [
        Progress("Predicting", brief=True),
        Progress("Predicting", 1, 1, brief=True),
        Progress("Predicting", ended=True, brief=True),
    ]
    heard.clear()
    with pytest.raises(sightline.SightlineError):
        sightline.predict(finished.run, ["missing.png"], on_event=heard.append)
    assert heard[-1] == Progress("Predicting", ended=True, brief=True)


def test_what_0_2_0_reported_by_is_taken_once_more(finished: Finished, tmp_path: Path) -> None:
    image, counts = next(finished.data.rglob("*.png")), []
    with pytest.warns(DeprecationWarning, match="progress= is deprecated; use on_event="):
        sightline.predict(finished.run, [image], progress=lambda *count: counts.append(count))  # type: ignore[call-arg]
    assert counts == [(1, 1)]
    console = Console(file=io.StringIO(), width=200)
    with pytest.warns(DeprecationWarning, match="console= is deprecated"):
        sightline.train(finished.data, recipe="small", dry_run=True, console=console)  # type: ignore[call-arg]
    assert "recipe: small" in console.file.getvalue()  # type: ignore[attr-defined]


# ── on a terminal ────────────────────────────────────────────────────────────────────────────────────────────────────


def epoch(number: int, *, ended: bool = False, **metrics: float) -> Epoch:
    return Epoch(number, 4, 5, 10, {"train_loss": 1.0, **metrics}, 0.1, 1234.5, 48.0, ended)


def test_a_bar_shows_the_last_validation_while_the_next_epoch_runs() -> None:
    file = io.StringIO()
    console = Console(file=file, width=200, force_terminal=True)
    with closing(Bars(console)) as draw:
        draw(epoch(1, ended=True, val_loss=0.5, val_acc=0.25))
        draw(epoch(2, train_acc=0.75))
        draw("weights of epoch 1")
        with stage(draw, "Calibrating"):  # another thing moves
            pass
    text = "train loss 1.000 acc 0.750  val loss 0.500 acc 0.250  rate 0.1  1,234 images/s  48 s left"
    assert text in file.getvalue()
    assert "epoch 2/4" in file.getvalue()


def test_trials_that_ended_stand_above_those_that_run() -> None:
    file = io.StringIO()
    with closing(Bars(Console(file=file, width=200, force_terminal=True))) as draw:
        draw(Trial(1, 3, "running", None, 0, "begins"))
        draw(Trial(1, 3, "finished", 0.5, 2, "val_acc 0.5000  2 epochs"))
    assert "trial 1: begins" in file.getvalue()
    assert "trial 1/3  val_acc 0.5000  2 epochs" in file.getvalue()
