"""Wait for other machines, but not for ever, and say in their own words why they did not answer."""

import queue
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["reason_of", "within"]


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """Return the result of some work, or raise a TimeoutError.

    A connection's own limit covers neither looking a name up nor retries.
    """
    results: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def run() -> None:
        try:
            results.put((work(), None))
        except BaseException as error:  # handed to the caller
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:.0f} s") from None
    if error is not None:
        raise error
    return result


def reason_of(error: BaseException) -> str:
    """Return what the system said, where it lies below the layers of a client; else the client's first line."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return below.strerror
        below = below.__cause__ or below.__context__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
