"""Ranges of single settings, and sentences about them in the user's spelling."""

import sys
from typing import Annotated

from msgspec import Meta

from sightline.errors import ConfigError
from sightline_runtime.sentences import nearest, shown

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


def _shown_number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else shown(value)  # whole numbers keep their digits
