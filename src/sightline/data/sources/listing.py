"""Lists every folder once while a command runs. Nothing here loads anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["LISTED", "listed_once"]

LISTED: ContextVar[dict[str, Any] | None] = ContextVar("LISTED", default=None)
"""What was found in each folder so far, by its location; None outside of a command."""


@contextmanager
def listed_once() -> Iterator[None]:
    """List every folder once: what a command writes must not change the image set that it reads there."""
    if LISTED.get() is not None:  # a verb within a command
        yield
        return
    token = LISTED.set({})
    try:
        yield
    finally:
        LISTED.reset(token)
