"""Values and known words in a sentence to a user."""

import difflib
import reprlib
import shlex
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from sightline_runtime.errors import shortened

__all__ = ["nearest", "quoted", "shown"]

LONGEST_WORD = 200  # letters of a word that is compared with known ones; the time grows with their product
_DIGITS = 40  # of a whole number in a sentence


def nearest(word: str, known: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """End a sentence with the known word most like ``word``, or where none is like it with all that are listed."""
    word, known = word[:LONGEST_WORD], list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(listed or known)}."


def shown(value: Any) -> str:
    """Write a value in a sentence, as Python does; the middle of a long one is left out."""
    return _SHORT.repr(value)


def quoted(*words: str) -> str:
    """Write words of a command so that they can be pasted into this system's shell: Windows knows no single quotes."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


class _Shortened(reprlib.Repr):
    """Values as Python writes them, at most a line of each."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 4, 6, 12, 12, 12
        self.maxstring, self.maxother = 300, 300

    def repr_int(self, x: int, level: int) -> str:
        """Write a whole number unless it is too long: Python refuses some thousand digits, which YAML may hold."""
        return str(x) if abs(x) < 10**_DIGITS else f"a number of more than {_DIGITS} digits"

    def repr1(self, x: Any, level: int) -> str:
        return shortened(super().repr1(x, level), 400)


_SHORT = _Shortened()
