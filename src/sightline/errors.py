"""Errors that a user can act on.

    SightlineError
    ├── ConfigError       a setting is unknown, wrong, or has no effect here
    ├── DataError         an image set cannot be used
    ├── RunError          a run folder is missing, unfinished, in the way, or not ours
    ├── ShapeError        tensors do not fit together
    ├── TrainingError     a training cannot go on (a loss that is not finite)
    └── StorageError      a disk is full or a folder cannot be written

``Interrupted`` is a KeyboardInterrupt that knows what can be continued.

Those that a classifier without torch meets too are defined in ``sightline_runtime.errors``.

Every message says what was found, what was wanted and what to do now, in one sentence.
Libraries raise; only ``cli/`` prints.
"""

from pathlib import Path

from sightline_runtime.errors import (
    LONGEST,
    ConfigError,
    DataError,
    RunError,
    SightlineError,
    StorageError,
    shortened,
)
from sightline_runtime.sentences import quoted

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


class ShapeError(SightlineError):
    """Tensors do not fit together."""


class TrainingError(SightlineError):
    """A training cannot go on."""


class Interrupted(KeyboardInterrupt):
    """The user stopped a training; its run can be continued, by a command unless it is that of the run itself."""

    def __init__(self, run: Path, command: str | None = None) -> None:
        super().__init__(str(run))
        self.run = run
        self.command = command or f"sightline train --resume --run {quoted(str(run))}"
