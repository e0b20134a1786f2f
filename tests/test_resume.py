"""A run that is trained twice at once, or whose checkpoints are damaged: said, and never begun again in silence."""

import csv
import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import sightline
from conftest import Finished
from sightline.cli.main import main
from sightline.display.lines import Lines
from sightline.display.reporting import ignore
from sightline.errors import ConfigError, RunError
from sightline.runs import folder
from sightline.runs.locking import alone


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


def test_a_run_of_an_earlier_version_goes_on_with_the_crops_of_today_and_says_so(begun: Path) -> None:
    model = json.loads((begun / "model.json").read_text())
    assert model["data"].pop("batch_rule") == 2
    screens = []
    for _ in range(2):
        screens.append(screen := io.StringIO())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sightline.training.execution._train", lambda *_: None)
            sightline.train(run=begun, resume=True, on_event=Lines(Console(file=screen, width=1000)))
        (begun / "model.json").write_text(json.dumps(model))
    today, earlier = (screen.getvalue() for screen in screens)
    assert "earlier sightline" not in today
    assert f"Continuing {begun}. It was begun by an earlier sightline: from here on random crops are drawn" in earlier


def test_a_second_training_of_one_run_is_refused_and_the_run_stays_as_it_is(begun: Path, capsys) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in begun.iterdir()}
    with alone(begun, "trained"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sightline.training.execution.prepare_any", None)  # would fail if it were called
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
    one, other = (folder.read_weights(run / "model.safetensors")[0] for run in (finished.run, begun))
    assert all(one[name].equal(other[name]) for name in one)


def test_an_older_checkpoint_is_taken_aloud(begun: Path) -> None:
    (begun / "last.ckpt").write_bytes(b"half of it")
    text = io.StringIO()
    assert sightline.train(run=begun, resume=True, on_event=Lines(Console(file=text, width=500)))
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


# ── numbers that are not finite, and disks that are full ─────────────────────────────────────────────────────────────


def strict(path: Path) -> Any:
    """The content of a JSON file, as a reader has it that knows no NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{path} holds {word}")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def refuse_words(run: Path) -> None:
    assert (run / "report.html").exists()
    for path in (run / "model.json", run / "evaluation.json"):
        strict(path)
    for name in ("metrics.csv", "predictions.csv"):
        assert not {"nan", "inf", "-inf"} & set((run / name).read_text("utf-8").replace("\n", ",").split(","))
    assert folder.read_weights(run / "model.safetensors")[1] == folder.read_model(run)


def test_a_loss_on_validation_that_is_not_finite_is_an_empty_cell(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline.training import module

    loss = module.classification_loss

    def poisoned(network: Any, batch: Any, *more: Any, **named: Any) -> Any:
        value, logits = loss(network, batch, *more, **named)
        return (value if network.training else value * math.nan), logits

    monkeypatch.setattr(module, "classification_loss", poisoned)
    run = tmp_path / "run"
    settings = {"track": {"to": ["csv"]}}
    assert sightline.train(recipe=finished.run / "recipe.yaml", settings=settings, run=run) == run
    refuse_words(run)
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["val_loss"], float(row["val_acc"]) > 0) for row in rows] == [("", True)] * 4
    assert folder.read_model(run)["metrics"]["accuracy"] == 1.0


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_answers_that_overflow_end_in_finite_numbers_or_in_a_sentence(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    from sightline.errors import TrainingError
    from sightline.inference import classifier

    views = classifier.logits_of_views

    def overflowing(network: Any, images: torch.Tensor, names: Any, first: int) -> torch.Tensor:
        logits = views(network, images, names, first)
        count = math.ceil(share * len(images))
        logits[:, :count] = torch.tensor([math.nan, math.inf, -math.inf])
        return logits

    monkeypatch.setattr(classifier, "logits_of_views", overflowing)
    run, text = tmp_path / "run", io.StringIO()

    def train() -> object:
        console = Console(file=text, width=500)
        return sightline.train(recipe=finished.run / "recipe.yaml", run=run, on_event=Lines(console))

    if share == 1:
        with pytest.raises(TrainingError, match=r"every validation image with no finite number.* is not finished"):
            train()
        return
    assert train() == run
    refuse_words(run)
    assert "warning: the answers to 5 of 15 validation images are not finite" in text.getvalue()
    assert main(["report", str(run)]) == 0
    assert main(["evaluate", str(run), "--out", str(tmp_path / "out")]) == 0
    strict(tmp_path / "out" / "evaluation.json")


# ── notebooks ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel of Jupyter looks like from within."""

    class Shell:
        kernel = object()

    class IPython:
        get_ipython = staticmethod(Shell)

    monkeypatch.setitem(sys.modules, "IPython", IPython)


@pytest.mark.usefixtures("notebook")
def test_a_training_in_a_notebook_shows_its_progress(
    finished: Finished, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    class Output:
        def update(self, bundle: dict[str, str], *, raw: bool) -> None:
            shown.append(bundle["text/plain"])

    def display(bundle: dict[str, str], **_: bool) -> Output:
        shown.append(bundle["text/plain"])
        return Output()

    monkeypatch.setattr("sightline.display.notebook._display", display)
    sightline.train(recipe=finished.run / "recipe.yaml", run=tmp_path / "run")
    words = [line.split()[0] for text in shown for line in text.splitlines() if line.strip()]
    assert list(dict.fromkeys(word for word in words if word.endswith("/4"))) == ["1/4", "2/4", "3/4", "4/4"]
    assert any("accuracy" in text for text in shown)
    assert "\x1b" not in capsys.readouterr().out + "".join(shown)
    sightline.train(recipe=finished.run / "recipe.yaml", run=tmp_path / "quiet", on_event=ignore)
    assert capsys.readouterr().out == ""


def test_outside_of_a_notebook_a_training_reports_nothing_unless_asked(
    finished: Finished, tmp_path: Path, capsys
) -> None:
    sightline.train(recipe=finished.run / "recipe.yaml", run=tmp_path / "run")
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("notebook")
def test_several_processes_in_a_notebook_are_refused_before_an_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.training.preparation.prepare_classifier", None)  # would fail if it were called
    monkeypatch.setattr("sightline.training.preparation.prepare_generator", None)
    for recipe in ("small", "ddpm", "auto", {"fit": {"processes": 2}}):
        settings = {} if isinstance(recipe, dict) else {"fit": {"processes": 2}}
        with pytest.raises(
            ConfigError, match=r"--fit.processes 2 starts this program again, and it has no file \(a notebook"
        ):
            sightline.train("digits", recipe=recipe, settings=settings, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_continued_is_cut_by_the_rule_that_it_noted(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = json.loads((begun / "model.json").read_text())
    assert model["data"]["split_rule"] == 3
    model["data"]["split_rule"] = 2
    (begun / "model.json").write_text(json.dumps(model))
    rules = []

    def prepare_any(request: Any, console: Console) -> None:
        rules.append(request.split_rule)
        raise Killed

    monkeypatch.setattr("sightline.training.execution.prepare_any", prepare_any)
    with pytest.raises(Killed):
        sightline.train(run=begun, resume=True)
    assert rules == [2]
