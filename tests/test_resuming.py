"""A run that is trained twice at once, or whose checkpoints are damaged: said, and never begun again in silence."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import sightline
from conftest import Finished
from sightline import runs
from sightline.cli import main
from sightline.errors import ConfigError, RunError
from sightline.locking import alone


class Killed(BaseException):
    """Ends a training as a kill would: without a word to it."""


@pytest.fixture
def begun(finished: Finished, tmp_path: Path) -> Path:
    """A run of the finished one's settings that was killed in its third epoch."""

    def kill(epoch: int, _: dict[str, float]) -> None:
        if epoch == 3:
            raise Killed

    run = tmp_path / "run"
    with pytest.raises(Killed):
        sightline.train(recipe=finished.run / "recipe.yaml", run=run, after_epoch=kill)
    return run


def damage(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        content = torch.load(run / name, weights_only=True)
        change(content)
        torch.save(content, run / name)


def test_a_second_training_of_one_run_is_refused_and_the_run_stays_as_it_is(begun: Path, capsys) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in begun.iterdir()}
    with alone(begun, "trained"):
        assert main(["train", "--resume", "--run", str(begun)]) == 2
    assert f"sightline: {begun} is being trained by another process; wait" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in begun.iterdir() if path.name != ".lock"} == {
        name: time for name, time in before.items() if name != ".lock"
    }


def test_damaged_checkpoints_are_said_and_only_restart_begins_at_the_first_epoch(
    finished: Finished, begun: Path
) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        (begun / name).write_bytes(b"half of it")
    with pytest.raises(RunError, match=r"cannot be continued: neither last.ckpt .* nor previous.ckpt .*--restart"):
        sightline.train(run=begun, resume=True)
    heard: list[int] = []
    assert (
        sightline.train(run=begun, resume=True, restart=True, after_epoch=lambda epoch, _: heard.append(epoch)) == begun
    )
    assert heard == [1, 2, 3, 4]
    one, other = (runs.read_weights(run / "model.safetensors")[0] for run in (finished.run, begun))
    assert all(one[name].equal(other[name]) for name in one)


def test_an_older_checkpoint_is_taken_aloud(begun: Path) -> None:
    (begun / "last.ckpt").write_bytes(b"half of it")
    text = io.StringIO()
    assert sightline.train(run=begun, resume=True, console=Console(file=text, width=500))
    assert f"Continuing {begun}. last.ckpt cannot be read (" in text.getvalue()
    assert "): going on from previous.ckpt, which is older." in text.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["state_dict"].popitem(),
        lambda content: content["state_dict"].update({next(iter(content["state_dict"])): torch.ones(1)}),
        lambda content: content.update(optimizer_states=3),
        lambda content: content.update(loops={"fit_loop": 3}),
        lambda content: content.update(training_totals=3),
    ],
)
def test_a_checkpoint_of_another_training_is_a_sentence(
    begun: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    damage(begun, change)
    with pytest.raises(RunError, match=r"last.ckpt does not fit this training \(.*--restart"):
        sightline.train(run=begun, resume=True)


@pytest.mark.parametrize("part", ["optimizer_states", "callbacks", "loops"])
def test_a_checkpoint_that_would_be_continued_without_a_part_is_not(begun: Path, part: str) -> None:
    damage(begun, lambda content: content.update({part: type(content[part])()}))
    with pytest.raises(RunError, match=rf"cannot be continued: .*it lacks {part}"):
        sightline.train(run=begun, resume=True)


def test_restart_without_resume_has_no_effect_and_is_refused(capsys) -> None:
    with pytest.raises(ConfigError, match="no effect without --resume"):
        sightline.train("digits", restart=True)
    assert main(["train", "digits", "--restart"]) == 2
    assert "no effect without --resume" in capsys.readouterr().err
