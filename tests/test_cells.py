"""In the cell of a notebook events are drawn in place, results show themselves, and a server can be interrupted."""

import asyncio
import os
import re
import signal
import socket
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sightline
from conftest import Finished
from sightline.display import notebook
from sightline.display.events import Epoch, Measured, Progress, Serving, Table
from sightline.display.notebook import MOST_ROWS, Notebook, show_in_cell
from sightline.display.reporting import ignore, reporting, stage
from sightline_runtime.serving.listening import answer_at


class Output:
    """An output of a cell: all that was drawn there."""

    def __init__(self, bundle: dict[str, Any]) -> None:
        self.drawn = [bundle]

    def update(self, bundle: dict[str, Any], *, raw: bool) -> None:
        assert raw
        self.drawn.append(bundle)

    @property
    def text(self) -> str:
        return str(self.drawn[-1]["text/plain"])

    @property
    def html(self) -> str:
        return str(self.drawn[-1]["text/html"])


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[Output]:
    """What a cell shows, beside what is printed."""
    shown: list[Output] = []

    def display(bundle: dict[str, Any], **_: Any) -> Output:
        shown.append(Output(bundle))
        return shown[-1]

    monkeypatch.setattr(notebook, "_display", display)
    return shown


@pytest.fixture
def clock() -> Any:
    """Time in seconds, which the test moves."""

    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    return Clock()


def epoch(number: int, epochs: int = 3, *, ended: bool = True, **metrics: float) -> Epoch:
    metrics = metrics or {"train_loss": 1.0, "train_acc": 0.5, "val_loss": 2.0, "val_acc": 0.25}
    return Epoch(number, epochs, 10 if ended else 4, 10, metrics, 0.1, 1234.5, 30.0, ended)


# ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stage_is_one_output_whose_bar_moves_and_which_ends_as_a_line(outputs, clock) -> None:
    with stage(Notebook(clock), "Reading <pets>") as progress:
        assert "<progress></progress> Reading &lt;pets&gt;" in outputs[0].html
        clock.now = 2.0
        progress(20, 100)
        assert '<progress value="20" max="100"></progress>' in outputs[0].html
        assert outputs[0].text == "Reading <pets>: 20 of 100, 8 s left"
        for done in range(21, 100):  # all within one moment
            progress(done, 100)
        assert len(outputs[0].drawn) == 2
        clock.now = 10.0
    (output,) = outputs
    assert output.text == "Reading <pets>: 10 s"
    assert "<progress" not in output.html


def test_a_stage_that_ends_at_once_leaves_nothing_unless_it_takes_long(outputs, clock) -> None:
    with stage(Notebook(clock), "Predicting", brief=True) as progress:
        progress(1, 2)
    assert outputs == []
    with stage(Notebook(clock), "Predicting", brief=True) as progress:
        clock.now = 4.0
        progress(1, 2)
    assert outputs[0].text == "Predicting: 4 s"


def test_the_epochs_of_a_training_are_one_table_that_grows(outputs) -> None:
    draw = Notebook()
    draw(epoch(1))
    draw(epoch(2, ended=False, train_loss=0.5))
    assert "epoch 2/3  train loss 0.500  1,234 images/s  30 s left" in outputs[0].text
    assert '<progress value="4" max="10">' in outputs[0].html
    draw(epoch(2, train_loss=0.5, val_loss=1.5))
    draw(Progress("Calibrating"))
    (table, _) = outputs
    assert "<progress" not in table.html
    rows = [line.split() for line in table.text.splitlines()]
    assert rows[0] == ["epoch", "train", "loss", "train", "acc", "val", "loss", "val", "acc", "rate", "images/s"]
    assert rows[2:] == [
        ["1/3", "1.000", "0.500", "2.000", "0.250", "0.1", "1,234"],
        ["2/3", "0.500", "1.500", "0.1", "1,234"],
    ]
    draw(epoch(1))  # of another training
    assert len(outputs) == 3


def test_a_bar_does_not_outlive_a_training_that_ends_early(outputs) -> None:
    draw = Notebook()
    draw(epoch(1))
    draw(epoch(2, ended=False))
    draw.close()
    assert "<progress" not in outputs[0].html
    assert "1/3" in outputs[0].text


def test_a_table_of_hundreds_of_epochs_shows_every_nth_and_the_last(outputs) -> None:
    draw = Notebook()
    for number in range(1, 522):
        draw(epoch(number, 521, train_loss=1.0))
    (table,) = outputs
    shown = [int(found) for found in re.findall(r"(\d+)/521", table.text)]
    assert len(shown) <= MOST_ROWS + 1
    assert shown[0] == 27
    assert shown[-1] == 521
    assert "every 27th epoch; all stand in metrics.csv" in table.html


def test_measures_and_tables_are_tables_and_a_server_says_how_it_ends(outputs, capsys) -> None:
    draw = Notebook()
    draw(Table(("class", "n"), [("<b>\nsmall", 3)], title="by class"))
    assert '<td style="text-align:left;vertical-align:top">&lt;b&gt;<br><small>small</small></td>' in outputs[0].html
    assert '<td style="text-align:right;vertical-align:top">3</td>' in outputs[0].html
    measures = {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6], "n": 10, "views": "one", "loss": 1.0}
    measures |= {"calibration_error": 0.1, "calibration_error_unscaled": 0.2, "classes": {}}
    draw(Measured(measures))
    assert "measured on 10 images" in outputs[1].html
    assert ">&nbsp;&nbsp;95 % interval" in outputs[1].html
    draw(Serving("http://127.0.0.1:1/", "a classifier"))
    assert capsys.readouterr().out == "a classifier\nhttp://127.0.0.1:1/  (interrupting the cell ends it)\n"


def test_a_verb_draws_in_a_notebook_and_stops_when_it_raises(outputs, monkeypatch) -> None:
    class Shell:
        kernel = object()

    class IPython:
        get_ipython = staticmethod(Shell)

    @reporting
    def verb(on_event: Any = ignore) -> None:
        on_event(Progress("Working"))
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    with pytest.raises(KeyboardInterrupt):
        verb()
    assert outputs[0].text == "Working: 0 s"


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_results_show_themselves(finished: Finished, tmp_path: Path, outputs, capsys, monkeypatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    images = sorted(finished.data.rglob("*.png"))[:22]
    sightline.predict(finished.run, images)._ipython_display_()
    assert str(images[0]) in outputs[-1].text
    said = capsys.readouterr().out
    assert said.startswith("the run has learned from 13 of these 22 images"), said
    assert said.endswith("\n2 more are in predictions\n")
    sightline.explain(finished.run, images[:6], out=tmp_path / "maps", methods=["grad_cam"])._ipython_display_()
    table, *sheets = outputs[1:]
    assert "deletion (low is good)" in table.html
    assert [sheet.drawn[0]["image/png"][:4] for sheet in sheets] == [b"\x89PNG"] * 4
    assert capsys.readouterr().out.endswith(f"\n2 more are in {tmp_path / 'maps'}\n")
    measured = sightline.evaluate(finished.run, finished.data)
    assert measured["n"] == 90
    measured._ipython_display_()  # type: ignore[attr-defined]
    assert "measured on 90 images" in outputs[-2].html
    check = sightline.check(finished.data, labels="none", out=tmp_path / "check")
    capsys.readouterr()
    check._ipython_display_()
    assert check.command in capsys.readouterr().out
    assert check.suspects == []


def test_a_picture_is_shown_as_one_and_a_large_one_by_fewer_bytes(tmp_path: Path, outputs) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (250, 250, 3), np.uint8)
    Image.fromarray(noise[:2, :2]).save(tmp_path / "a.gif")
    Image.fromarray(noise).save(tmp_path / "b.png")
    show_in_cell(tmp_path / "a.gif", tmp_path / "b.png")
    assert [next(iter(output.drawn[0])) for output in outputs] == ["image/gif", "image/jpeg"]
    assert len(outputs[1].drawn[0]["image/jpeg"]) < (tmp_path / "b.png").stat().st_size / 2


def test_a_mistake_is_one_sentence_in_a_notebook() -> None:
    with pytest.raises(sightline.SightlineError) as raised:
        sightline.train("no such folder")
    assert raised.value._render_traceback_() == [f"DataError: {raised.value}"]


# ── a server ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_answers_within_a_cell_until_it_is_interrupted() -> None:
    pytest.importorskip("uvicorn")
    from fastapi import FastAPI

    app = FastAPI()
    heard: list[str] = []

    @app.get("/")
    def answer() -> str:
        return "here"

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        def ask() -> None:
            with urllib.request.urlopen(address, timeout=30) as response:
                heard.append(response.read().decode())
            os.kill(os.getpid(), signal.SIGINT)

        async def cell() -> str:
            threading.Thread(target=ask).start()
            answer_at(listener, app)
            return "ended"

        loop = asyncio.new_event_loop()
        try:
            assert loop.run_until_complete(cell()) == "ended"
        finally:
            loop.close()
    assert heard == ['"here"']
