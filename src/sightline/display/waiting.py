"""Progress of a stage of work: a bar on a terminal, plain lines in a log."""

import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType

import rich.progress
from rich.console import Console

from sightline.display.terminal import readable, show

__all__ = ["PATIENCE", "Progress", "spoken_seconds"]

LINE_EVERY = 30.0  # seconds between two lines of a stage in a log
PATIENCE = 10.0  # seconds before a log hears of a verb that mostly answers, or refuses, at once
LOOK_EVERY = 3.0  # seconds between two looks at the clock, for work that does not report how far it is


class Progress:
    """Show how far a stage of work is: a bar on a terminal, plain lines in a log, nothing on a quiet console.

    A log gets a line when the stage starts, and one every 30 s while it lasts, whether or not the work reports
    anything.

    Args:
        console: where to show it.
        title: what is done, such as ``Reading flowers``.
        patience: seconds before a log gets its first line, for work that is mostly done at once.
        clock: the time in seconds.
    """

    def __init__(
        self, console: Console, title: str, *, patience: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._title, self._patience, self._clock = console, title, patience, clock
        self._in_log = not console.quiet and not console.is_terminal
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=console.quiet or self._in_log,
        )
        self._task = self._bar.add_task(
            readable(title), total=None
        )  # a bar that moves, until it is known how much there is to do
        self._counted = ""
        self._said: float | None = None  # when the last line was said
        self._lock, self._over = threading.Lock(), threading.Event()
        self._watch = threading.Thread(target=self._watch_clock, daemon=True)

    def __enter__(self) -> "Progress":
        self._bar.start()
        if self._in_log:
            self._started = self._clock()
            self._say_if_due()
            self._watch.start()
        return self

    def __call__(self, done: int, total: int) -> None:
        """Note how much of the stage is done."""
        self._bar.update(self._task, completed=done, total=total)
        self._counted = f"{done:,} of {total:,}, "
        self._say_if_due()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._in_log:
            self._watch.join()
        self._bar.stop()

    def _watch_clock(self) -> None:
        if hasattr(signal, "pthread_sigmask"):  # Ctrl-C is for the main thread, which may be holding it back
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._over.wait(LOOK_EVERY):
            self._say_if_due()

    def _say_if_due(self) -> None:
        if not self._in_log:
            return
        with self._lock:  # the work and the watch may look at once
            now = self._clock()
            lasted = now - self._started
            if self._said is None and lasted >= self._patience:
                self._say(self._title, now)
            elif self._said is not None and now - self._said >= LINE_EVERY:
                self._say(f"{self._title}: {self._counted}{spoken_seconds(lasted)} so far", now)

    def _say(self, line: str, now: float) -> None:
        self._said = now
        show(line, self._console)


def spoken_seconds(seconds: float) -> str:
    """Say a length of time as a person does: ``48 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
