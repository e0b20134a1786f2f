"""Ranges of single settings, and sentences about them in the user's spelling."""

import difflib
import reprlib
import sys
from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import Meta

from sightline.errors import ConfigError, shortened

__all__ = [
    "FINITE",
    "INFINITY",
    "LARGEST",
    "AboveZero",
    "BelowOne",
    "Count",
    "Dropout",
    "Finite",
    "OpenShare",
    "Share",
    "ShareAboveZero",
    "Whole",
    "ZeroOrMore",
    "nearest",
    "out_of_range",
    "shown",
    "within",
]

INFINITY = float("inf")
FINITE = sys.float_info.max
LARGEST = 2**63 - 1  # the largest whole number that PyTorch and NumPy can hold
LONGEST_WORD = 200  # letters of a word that is compared with known ones; the time grows with their product
_DIGITS = 40  # of a whole number in a sentence

Whole = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
ZeroOrMore = Annotated[int, Meta(ge=0, le=LARGEST)]
Count = Annotated[int, Meta(ge=1, le=LARGEST)]
Finite = Annotated[float, Meta(ge=0, le=FINITE)]
AboveZero = Annotated[float, Meta(gt=0, le=FINITE)]
Share = Annotated[float, Meta(ge=0, le=1)]
ShareAboveZero = Annotated[float, Meta(gt=0, le=1)]
BelowOne = Annotated[float, Meta(ge=0, le=0.999999)]
OpenShare = Annotated[float, Meta(gt=0, le=0.999999)]
Dropout = Annotated[float, Meta(ge=0, le=0.9)]


def within(flag: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuse a number outside [low, high], or (low, high] with ``open_low``. NaN and infinity are outside of all."""
    if not ((low < value if open_low else low <= value) and value <= high) or value == INFINITY:
        raise ConfigError(out_of_range(f"--{flag}", value, low, high, open_low=open_low))


def out_of_range(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> str:
    """Say that the value of a setting is outside of its range."""
    limits = f"{'above' if open_low else 'at least'} {_shown_number(low)}"
    if high not in (INFINITY, FINITE):
        limits += f" and at most {_shown_number(high)}"
    elif value == INFINITY:
        limits += " and finite"
    return f"{name} is {_shown_number(value)}; it must be {limits}."


def nearest(word: str, known: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """End a sentence with the known word most like ``word``, or where none is like it with all that are listed."""
    word, known = word[:LONGEST_WORD], list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(listed or known)}."


def shown(value: Any) -> str:
    """Write a value in a sentence, as Python does; the middle of a long one is left out."""
    return _SHORT.repr(value)


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


def _shown_number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else shown(value)  # whole numbers keep their digits
