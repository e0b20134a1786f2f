"""Errors that a user can act on; ``sightline.errors`` has more of the same family.

    SightlineError
    ├── ConfigError       a setting is unknown, wrong, or has no effect here
    ├── DataError         an image set cannot be used
    ├── RunError          a classifier's file is missing, unfinished, in the way, or not ours
    └── StorageError      a disk is full or a folder cannot be written

Every message says what was found, what was wanted and what to do now, in one sentence.
"""

__all__ = ["LONGEST", "ConfigError", "DataError", "RunError", "SightlineError", "StorageError", "shortened"]

LONGEST = 1200  # letters of a sentence; a user's value, or a list of what is known, may have a million


class SightlineError(Exception):
    """Base class of every error that sightline raises on purpose; its sentence is short, whatever value it names."""

    def __init__(self, sentence: str = "", *more: object) -> None:
        super().__init__(shortened(sentence, LONGEST), *more)

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows of it: the sentence, since the mistake is not in the lines that raised it."""
        return [f"{type(self).__name__}: {self}"]


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
    """A run folder or a classifier's file is missing, unfinished, in the way, or was made by something else."""


class StorageError(SightlineError):
    """A disk is full or a folder cannot be written."""
