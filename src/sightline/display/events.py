"""What a verb reports while it works: sentences and numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Epoch", "Event", "Measured", "Progress", "Serving", "Table", "Trial"]


@dataclass(frozen=True)
class Progress:
    """Progress of a stage of work."""

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
    """Progress of an epoch of a training; where it has ended, its measures, before its checkpoint is written."""

    epoch: int
    """Counted from 1."""
    epochs: int
    done: int
    """Batches of this epoch."""
    total: int
    metrics: Mapping[str, float]
    """``train_loss`` and ``train_acc`` so far; at its end the line of ``metrics.csv``."""
    learning_rate: float
    images_per_second: float
    seconds_left: float
    """Of the training."""
    ended: bool = False


@dataclass(frozen=True)
class Measured:
    """Measures of a classifier, as ``evaluation.json`` has them."""

    measures: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of texts, of a screen or of a page; a cell of two lines has its main thing in the first."""

    columns: Sequence[str]
    """Empty names: a table without a heading."""
    rows: Sequence[Sequence[object]]
    texts: int = 1
    """How many of the first columns are words; the others are numbers."""
    look: str = ""
    """On a page: ``matrix`` for a confusion matrix, ``matrix long`` where names stand upright over their columns."""
    title: str = ""
    """On a screen."""


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


@dataclass(frozen=True)
class Serving:
    """A server lets callers in."""

    address: str
    about: str
    """Who answers there, in a sentence."""
    service: bool = True
    """Whether programs can ask, too, below ``api``."""


Event = str | Progress | Epoch | Measured | Table | Trial | Serving
"""A str is a sentence, or a line of a list."""
