"""Arithmetic on several cores: numpy lets other threads run while it computes."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

__all__ = ["in_threads"]

Part = TypeVar("Part")
Result = TypeVar("Result")


def in_threads(compute: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
    """Compute parts side by side, as many as there are cores, and yield what each gives, in their order.

    BLAS has one thread meanwhile: its own would only wait for each other.
    """
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(compute, parts)
