"""Where the events of a verb go: to its listener; unless there is one, to the cell of a notebook, or nowhere."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

from sightline.display.events import Event, Listener, Progress, ignore
from sightline.display.terminal import in_notebook

__all__ = ["reporting"]

F = TypeVar("F", bound=Callable[..., Any])


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
        if on_event is None and (console is not None or in_notebook()):
            from rich.console import Console

            from sightline.display.lines import Lines

            # in lines, as in a log: the bars of rich need a package of their own in a notebook
            console = console or Console(force_terminal=False, force_jupyter=False, width=110)
            on_event = ignore if console.quiet else Lines(console)
        return verb(*args, on_event=on_event or ignore, **named)

    return cast(F, call)


def _count(progress: Callable[[int, int], None], event: Event) -> None:
    if isinstance(event, Progress) and event.total is not None:
        progress(event.done, event.total)
