"""What a verb reports while it works: sentences and numbers, to a listener that draws them, or computes with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Epoch",
    "Event",
    "Listener",
    "Measured",
    "Message",
    "Progress",
    "Table",
    "TrainingEnded",
    "Trial",
    "ignore",
    "stage",
]


@dataclass(frozen=True)
class Message:
    """A sentence, or a line of a list."""

    text: str


@dataclass(frozen=True)
class Progress:
    """How far a stage of work is."""

    stage: str
    """What is done, such as ``Reading flowers``."""
    done: int = 0
    total: int | None = None
    """None until it is known."""
    ended: bool = False
    brief: bool = False
    """It mostly ends at once, so that a log need not hear of it before 10 s."""


@dataclass(frozen=True)
class Epoch:
    """How far an epoch of a training is; where it has ended, what it reached, before its checkpoint is written."""

    epoch: int
    """Counted from 1."""
    epochs: int
    done: int
    """Batches of this epoch."""
    total: int
    metrics: Mapping[str, float]
    """``train_loss``, ``train_acc``; at the end of a validated epoch also ``val_loss``, ``val_acc``."""
    learning_rate: float
    images_per_second: float
    seconds_left: float
    """Of the training."""
    ended: bool = False


@dataclass(frozen=True)
class TrainingEnded:
    """The last step was taken, or the training was stopped; ``epochs`` have ended."""

    epochs: int


@dataclass(frozen=True)
class Measured:
    """What a classifier was measured at, as ``evaluation.json`` has it."""

    measures: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    texts: int = 1
    """How many of the first columns are words; the others are numbers."""


@dataclass(frozen=True)
class Trial:
    """Where a trial of a search stands."""

    number: int
    """Counted from 1."""
    trials: int
    state: str
    """``running``, ``finished``, ``pruned`` or ``failed``."""
    value: float | None
    """What it is judged by, so far."""
    epochs: int
    text: str
    """All of it in words."""


Event = Message | Progress | Epoch | TrainingEnded | Measured | Table | Trial
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Take an event that nobody waits for."""


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
