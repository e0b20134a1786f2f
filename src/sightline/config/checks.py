"""Checks of single settings, in the user's spelling."""

from sightline.errors import ConfigError

__all__ = ["INFINITY", "within"]

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


def _shown(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)  # whole numbers keep all their digits
