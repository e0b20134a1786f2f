"""Checks of single settings, in the user's spelling."""

import difflib
from collections.abc import Iterable

from sightline.errors import ConfigError

__all__ = ["INFINITY", "nearest", "within"]

INFINITY = float("inf")


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
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(listed or known)}."


def _shown(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)  # whole numbers keep all their digits
