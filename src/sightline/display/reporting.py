"""How a verb reports: to a listener that draws the events, or computes with them.

Unless one is named that is the cell of a notebook, or nobody.
"""

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any, TypeVar, cast

from sightline.display.events import Event, Progress
from sightline.display.lines import Lines
from sightline.display.notebook import Notebook
from sightline.display.terminal import in_notebook

__all__ = ["Listener", "ignore", "reporting", "stage"]

PACKAGE = __name__.partition(".")[0]
F = TypeVar("F", bound=Callable[..., Any])
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Take an event that nobody waits for; a warning becomes one of Python's, of the line that called sightline."""
    if isinstance(event, str) and event.startswith("warning: "):
        warnings.warn(event.removeprefix("warning: "), stacklevel=_level_of_caller())


def _level_of_caller() -> int:
    """Return how many frames above the caller of this function the code lies that called sightline first."""
    frame: FrameType | None = sys._getframe(1)
    level = outermost = 1
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] == PACKAGE or (module == contextlib.__name__ and outermost == level - 1):
            outermost = level  # a verb, or the decorator around it
        frame, level = frame.f_back, level + 1
    return outermost + 1


@contextmanager
def stage(on_event: Listener, name: str, *, brief: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Report a stage of work from its begin to its end, whatever ends it.

    Args:
        on_event: hears of it.
        name: what is done, such as ``Reading flowers``.
        brief: it mostly ends at once.
    Yields:
        A function to call with how much is done of how much.
    """
    on_event(Progress(name, brief=brief))
    try:
        yield lambda done, total: on_event(Progress(name, done, total, brief=brief))
    finally:
        on_event(Progress(name, ended=True, brief=brief))


def reporting(verb: F) -> F:
    """Let a verb report, as ``on_event``; ``console`` and ``progress`` of 0.2.0 are taken once more, with a warning."""

    @functools.wraps(verb)
    def call(*args: Any, on_event: Listener | None = None, **named: Any) -> Any:
        console, progress = named.pop("console", None), named.pop("progress", None)
        if console is not None or progress is not None:
            old = "console" if progress is None else "progress"
            warnings.warn(f"{old}= is deprecated; use on_event=.", DeprecationWarning, stacklevel=2)
        if on_event is None and progress is not None:
            on_event = functools.partial(_count, progress)
        if on_event is None and console is not None:
            on_event = Lines(console)
        if on_event is None and in_notebook():
            with closing(Notebook()) as drawn:
                return verb(*args, on_event=drawn, **named)
        return verb(*args, on_event=on_event or ignore, **named)

    return cast(F, call)


def _count(progress: Callable[[int, int], None], event: Event) -> None:
    if isinstance(event, Progress) and event.total is not None:
        progress(event.done, event.total)
