"""No minute is silent: a log hears of a stage when it starts, and again while it lasts."""

import io
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from sightline.cli.bars import Bars
from sightline.display.lines import PATIENCE, Lines
from sightline.display.reporting import stage
from sightline.display.waiting import LINE_EVERY


class Clock:
    """A time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def log(**options: Any) -> tuple[Console, Callable[[], list[str]]]:
    """A console that is no terminal, and the lines that it was given."""
    file = io.StringIO()
    return Console(file=file, width=40, **options), lambda: file.getvalue().splitlines()


def test_a_log_gets_a_line_when_a_stage_starts_and_at_most_one_every_thirty_seconds() -> None:
    console, lines = log()
    clock = Clock()
    with stage(Lines(console, clock), "Testing") as progress:
        assert lines() == ["Testing"]
        for done in range(121):  # a report every second for two minutes
            progress(10 * done, 12000)
            clock.now += 1
    assert lines() == [
        "Testing",
        "Testing: 300 of 12,000, 30 s so far",
        "Testing: 600 of 12,000, 60 s so far",
        "Testing: 900 of 12,000, 90 s so far",
        "Testing: 1,200 of 12,000, 2 min so far",
    ]


def test_work_that_reports_nothing_is_not_silent_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.display.waiting.LOOK_EVERY", 0.001)
    console, lines = log()
    clock = Clock()
    with stage(Lines(console, clock), "Calibrating"):
        clock.now += LINE_EVERY
        until = time.monotonic() + 20
        while len(lines()) < 2 and time.monotonic() < until:
            time.sleep(0.001)
    assert lines() == ["Calibrating", "Calibrating: 30 s so far"]


def test_work_that_is_mostly_done_at_once_is_announced_only_when_it_is_not() -> None:
    console, lines = log()
    clock = Clock()
    with stage(Lines(console, clock), "Predicting", brief=True) as progress:
        progress(1, 2)
        assert lines() == []
        clock.now += PATIENCE
        progress(2, 2)
    assert lines() == ["Predicting"]


def test_a_title_is_printed_as_it_is() -> None:
    console, lines = log()
    with stage(Lines(console), "Reading [red]pets[/red]"):
        pass
    assert lines() == ["Reading [red]pets[/red]"]


def fail(console: Console, clock: Clock) -> None:
    with stage(Lines(console, clock), "Testing") as progress:
        clock.now += 100
        progress(1, 2)
        raise ZeroDivisionError


def test_a_quiet_console_stays_quiet() -> None:
    console, lines = log(quiet=True)
    clock = Clock()
    with pytest.raises(ZeroDivisionError):
        fail(console, clock)
    assert lines() == []


def test_work_that_fails_leaves_no_thread_behind() -> None:
    console, _ = log()
    clock = Clock()
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        fail(console, clock)
    assert threading.active_count() == before


def test_a_terminal_gets_a_bar_and_no_lines() -> None:
    console, lines = log(force_terminal=True)
    clock = Clock()
    with stage(Bars(console), "Testing") as progress:
        clock.now += 100
        progress(3, 8)
        progress(8, 8)
    assert "so far" not in "".join(lines())
    assert "8/8" in "".join(lines())
