"""Checks of single settings, in the user's spelling."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

from sightline.errors import ConfigError, shortened

__all__ = ["INFINITY", "nearest", "shown", "within"]

INFINITY = float("inf")
LONGEST_WORD = 200  # letters of a word that is compared with known ones; the time grows with their product
_DIGITS = 40  # of a whole number in a sentence


def within(flag: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuse a number outside [low, high], or (low, high] with ``open_low``. NaN and infinity are outside of all."""
    if not ((low < value if open_low else low <= value) and value <= high) or value == INFINITY:
        wanted = f"above {low:g}" if open_low else f"at least {low:g}"
        if high != float("inf"):
            wanted += f" and at most {_shown(high)}"
        elif value == INFINITY:
            wanted += " and finite"
        raise ConfigError(f"--{flag} is {_shown(value)}; it must be {wanted}.")


def nearest(word: str, known: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """End of a sentence that names the known word most like ``word``, or where none is like it all that are listed."""
    word, known = word[:LONGEST_WORD], list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(listed or known)}."


def shown(value: Any) -> str:
    """A value in a sentence, as Python writes it; the middle of a long one is left out."""
    return _SHORT.repr(value)


class _Shortened(reprlib.Repr):
    """Values as Python writes them, at most a line of each."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 4, 6, 12, 12, 12
        self.maxstring, self.maxother = 300, 300

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write a number of some thousand digits, and YAML's hexadecimal numbers may have them."""
        return str(x) if abs(x) < 10**_DIGITS else f"a number of more than {_DIGITS} digits"

    def repr1(self, x: Any, level: int) -> str:
        return shortened(super().repr1(x, level), 400)


_SHORT = _Shortened()


def _shown(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else shown(value)  # whole numbers keep their digits
