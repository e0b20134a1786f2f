"""The one thread that asks a network: the service and the page give it their questions. B images, height H, width W.

Explanations set hooks on the network and seed the global generators, so nothing else may ask it meanwhile; and two
threads of PyTorch on few cores wait for each other.

Questions that wait when the thread is free are asked together, in one pass of the network. None is held back to wait
for others: while one pass runs, those that come in are the next one's batch.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from sightline_runtime.answering import Answering
from sightline_runtime.errors import SightlineError
from sightline_runtime.predictions import Prediction
from sightline_runtime.views import Views

__all__ = ["AT_ONCE", "Asker", "BusyError"]

AT_ONCE = 32  # images that go through the network together, at most; a longer question is best asked in parts
MOST_WAITING = 512  # questions; 64 callers, each waiting for its answer, never come near

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")
C = TypeVar("C", bound=Answering)


class BusyError(SightlineError):
    """More questions wait than an ``Asker`` takes."""


@dataclass(frozen=True)
class _Work:
    """Anything that is to be done on a thread."""

    work: Callable[[], Any]
    answer: Future[Any] = field(default_factory=Future)

    def settle(self) -> None:
        """Give the future its result, or what was raised instead."""
        try:
            self.answer.set_result(self.work())
        except BaseException as error:  # the thread must live on, and whoever waits must hear of it
            self.answer.set_exception(error)


@dataclass(frozen=True)
class _Question:
    """Images that somebody waits to have classified."""

    pixels_BHWC: Array
    views: Views | None
    coverage: float | None
    answer: Future[list[Prediction]] = field(default_factory=Future)

    def goes_with(self, other: "_Question") -> bool:
        """Return whether one pass of the network can answer both."""
        mine = (self.views, self.coverage, self.pixels_BHWC.shape[1:])
        return mine == (other.views, other.coverage, other.pixels_BHWC.shape[1:])


class Asker(Generic[C]):
    """Answers questions to a classifier on a thread of its own, in the order in which they came; one for a server.

    A future that is cancelled before its turn costs nothing. An error reaches only the one whose question raised it.
    """

    def __init__(self, classifier: C) -> None:
        """
        Args:
            classifier: from ``load``; nothing else may ask its network meanwhile.
        """
        self.classifier = classifier
        self._waiting: deque[_Question | _Work] = deque()
        self._changed = threading.Condition()
        self._asked = 0  # images that the network is looking at
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="asker", daemon=True)
        self._thread.start()

    def ask(
        self, pixels_BHWC: Array, views: Views | None = None, coverage: float | None = None
    ) -> Future[list[Prediction]]:
        """Classify uint8 images already at the cached size, as ``Classifier.answers`` does.

        Raises:
            BusyError: too many questions wait.
        """
        return self._queue(_Question(pixels_BHWC, views, coverage))

    def do(self, work: Callable[[], Result]) -> Future[Result]:
        """Run what else needs the network, such as an explanation, on its thread, in its turn.

        Raises:
            BusyError: too many questions wait.
        """
        return self._queue(_Work(work))

    @property
    def waiting_images(self) -> int:
        """Images that are not answered yet, with those that the network is looking at."""
        with self._changed:
            return self._asked + sum(len(item.pixels_BHWC) for item in self._waiting if isinstance(item, _Question))

    def close(self, seconds: float | None = None) -> bool:
        """End the thread behind what it is doing; cancel what waits, where it was told how long that may take.

        Args:
            seconds: to wait for the end; None answers all that waits.
        Returns:
            Whether the thread has ended.
        """
        with self._changed:
            self._closed = True
            for item in self._waiting if seconds is not None else ():
                item.answer.cancel()
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _queue(self, item: _Question | _Work) -> Future[Any]:
        with self._changed:
            if self._closed:
                raise BusyError("the server is stopping and takes no more questions; ask again when it is back.")
            if len(self._waiting) >= MOST_WAITING:
                raise BusyError(f"{len(self._waiting)} questions wait already; ask again in a few seconds.")
            self._waiting.append(item)
            self._changed.notify()
        return item.answer

    # ── on the thread ────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while item := self._next():
            if isinstance(item, _Work):
                item.settle()
            else:
                self._answer(item)
            self._asked = 0
            del item  # or the last question and its answer stay in memory until the next

    def _next(self) -> "list[_Question] | _Work | None":
        """Return the first that waits, and with a question all that can be asked together with it; None at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return None
                first = self._waiting.popleft()
                if not first.answer.set_running_or_notify_cancel():
                    continue  # whoever asked has gone
                if isinstance(first, _Work):
                    return first
                together = [first, *self._others(first)]
                self._asked = sum(len(question.pixels_BHWC) for question in together)
                return together

    def _others(self, first: _Question) -> list[_Question]:
        """Take the questions that go with one out of those that wait, as many as there is room for."""
        room = AT_ONCE - len(first.pixels_BHWC)
        taken: list[_Question] = []
        left: deque[_Question | _Work] = deque()
        for item in self._waiting:
            if isinstance(item, _Work) or len(item.pixels_BHWC) > room or not item.goes_with(first):
                left.append(item)
            elif item.answer.set_running_or_notify_cancel():
                taken.append(item)
                room -= len(item.pixels_BHWC)
        self._waiting = left
        return taken

    def _answer(self, together: list[_Question]) -> None:
        first = together[0]
        try:
            pixels_BHWC = np.concatenate([question.pixels_BHWC for question in together])
            predictions = self.classifier.answers(pixels_BHWC, first.views, coverage=first.coverage)
        except BaseException as error:
            if len(together) == 1:
                first.answer.set_exception(error)
            else:  # one by one, so that the error reaches only the one whose question raises it
                for question in together:
                    self._answer([question])
            return
        for question in together:
            question.answer.set_result(predictions[: len(question.pixels_BHWC)])
            predictions = predictions[len(question.pixels_BHWC) :]
