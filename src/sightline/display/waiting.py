"""How far a stage of work is, in the plain lines of a log."""

import signal
import threading
import time
from collections.abc import Callable

__all__ = ["Waiting", "spoken_seconds"]

LINE_EVERY = 30.0  # seconds between two lines of a stage in a log
LOOK_EVERY = 3.0  # seconds between two looks at the clock, for work that does not report how far it is


class Waiting:
    """Say in a log what is done: a line when a stage starts, and one every 30 s while it lasts.

    They come whether or not the work reports anything, from a thread that ``end`` ends.

    Args:
        title: what is done, such as ``Reading flowers``.
        say: takes a line.
        patience: seconds before the first line, for work that is mostly done at once.
        clock: the time in seconds.
    """

    def __init__(
        self,
        title: str,
        say: Callable[[str], None],
        *,
        patience: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._say, self._patience, self._clock = title, say, patience, clock
        self._counted, self._started = "", clock()
        self._said: float | None = None  # when the last line was said
        self._lock, self._over = threading.Lock(), threading.Event()
        self._say_if_due()
        self._watch = threading.Thread(target=self._watch_clock, daemon=True)
        self._watch.start()

    def note(self, done: int, total: int) -> None:
        """Note how much of the stage is done."""
        self._counted = f"{done:,} of {total:,}, "
        self._say_if_due()

    def end(self) -> None:
        """Say no more."""
        self._over.set()
        self._watch.join()

    def _watch_clock(self) -> None:
        if hasattr(signal, "pthread_sigmask"):  # Ctrl-C is for the main thread, which may be holding it back
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._over.wait(LOOK_EVERY):
            self._say_if_due()

    def _say_if_due(self) -> None:
        with self._lock:  # the work and the watch may look at once
            now = self._clock()
            lasted = now - self._started
            if self._said is None and lasted >= self._patience:
                self._said = now
                self._say(self._title)
            elif self._said is not None and now - self._said >= LINE_EVERY:
                self._said = now
                self._say(f"{self._title}: {self._counted}{spoken_seconds(lasted)} so far")


def spoken_seconds(seconds: float) -> str:
    """Say a length of time as a person does: ``48 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
