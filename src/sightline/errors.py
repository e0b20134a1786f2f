"""Errors that a user can act on.

    SightlineError
    ├── ConfigError       a setting is unknown, wrong, or has no effect here
    ├── DataError         an image set cannot be used
    ├── RunError          a run folder is missing, unfinished, in the way, or not ours
    ├── ShapeError        tensors do not fit together
    ├── TrainingError     a training cannot go on (a loss that is not finite)
    └── StorageError      a disk is full or a folder cannot be written

``Interrupted`` is a KeyboardInterrupt that knows what can be continued.

Every message says what was found, what was wanted and what to do now, in one sentence.
Libraries raise; only ``cli/`` prints.
"""

import shlex
from pathlib import Path

__all__ = [
    "LONGEST",
    "ConfigError",
    "DataError",
    "Interrupted",
    "RunError",
    "ShapeError",
    "SightlineError",
    "StorageError",
    "TrainingError",
    "shortened",
]

LONGEST = 1200  # letters of a sentence; a user's value, or a list of what is known, may have a million


class SightlineError(Exception):
    """Base class of every error that sightline raises on purpose; its sentence is short, whatever value it names."""

    def __init__(self, sentence: str = "", *more: object) -> None:
        super().__init__(shortened(sentence, LONGEST), *more)


def shortened(text: str, most: int) -> str:
    """A text of at most so many letters: the middle of a longer one is left out, and its length said."""
    if len(text) <= most:
        return text
    gap = f" … ({len(text):,} letters) … "
    kept = max(most - len(gap), 2)
    return text[: kept * 2 // 3] + gap + text[len(text) - (kept - kept * 2 // 3) :]


class ConfigError(SightlineError):
    """A setting is unknown, has a wrong value, or would have no effect."""


class DataError(SightlineError):
    """An image set cannot be used."""


class RunError(SightlineError):
    """A run folder is missing, unfinished, in the way, or was made by something else."""


class ShapeError(SightlineError):
    """Tensors do not fit together."""


class TrainingError(SightlineError):
    """A training cannot go on."""


class StorageError(SightlineError):
    """A disk is full or a folder cannot be written."""


class Interrupted(KeyboardInterrupt):
    """The user stopped a training; its run can be continued, by a command unless it is that of the run itself."""

    def __init__(self, run: Path, command: str | None = None) -> None:
        super().__init__(str(run))
        self.run = run
        self.command = command or f"sightline train --resume --run {shlex.quote(str(run))}"
