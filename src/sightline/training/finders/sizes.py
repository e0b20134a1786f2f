"""Batch sizes that fit into memory, and that are fast: a search over sizes that are really tried. No torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sightline.errors import ConfigError

__all__ = ["SizeSearch", "Tried", "fastest", "search_sizes"]

NEARLY = 0.95  # of the best speed: what a smaller batch must reach to be preferred
PATIENT = 2  # doublings in a row that bring no speed, until a search for speed ends
FINE = 30  # binary search ends where the bounds lie a thirtieth apart


@dataclass(frozen=True)
class Tried:
    """The time and memory of a training step with one batch size."""

    batch_size: int
    images: int
    """Of the largest batch of an epoch: batches are cut evenly, so none may have the full size."""
    memory: float
    """Bytes that a process held at once, at most; infinite where the memory ran out."""
    speed: float
    """Images a second of a process; 0 where the step was not taken to its end, or not tried."""
    measured: bool = True
    """Whether the step was tried; else the memory is what the straight line through the two sizes before expects."""


@dataclass(frozen=True)
class SizeSearch:
    """The outcome of a search."""

    tried: list[Tried]
    """In the order in which they were."""
    limit: float
    """Bytes that a step may hold."""
    bound: Literal["memory", "images", "speed"]
    """What kept it from larger batches: the limit, the number of training images, or that they are not faster."""

    @property
    def fitting(self) -> list[Tried]:
        """The sizes that fit, rising."""
        fitting = [size for size in self.tried if size.measured and size.memory <= self.limit]
        return sorted(fitting, key=lambda size: size.batch_size)

    @property
    def largest(self) -> Tried:
        """The largest size that fits."""
        return self.fitting[-1]


def search_sizes(
    measure: Callable[[int], Tried],
    images_of: Callable[[int], int],
    smallest: int,
    most: int,
    limit: float,
    how: Literal["power", "binary"] = "power",
    *,
    careful: bool = True,
    for_speed: bool = False,
) -> SizeSearch:
    """Try ever larger batches.

    Args:
        measure: takes a training step with a batch size and tells what it took.
        images_of: images that the largest batch of an epoch really has.
        smallest, most: sizes to keep between; doubled from the first on.
        limit: bytes that a step may hold.
        how: ``power`` doubles; ``binary`` then also halves the distance between what fits and what does not.
        careful: do not try a size of which the two before say that it will not fit: where memory is the processor's,
            the system ends who takes too much. Memory grows with a batch as a straight line, so little is lost.
        for_speed: stop where two doublings in a row were not faster.
    Raises:
        ConfigError: not even the smallest fits.
    """
    tried: list[Tried] = []

    def fits(size: int) -> bool:
        images = images_of(size)
        known = next((one for one in tried if one.images == images), None)
        if known is None:
            expected = _expected(tried, images) if careful else 0.0
            known = Tried(size, images, expected, 0.0, False) if expected > limit else measure(size)
            tried.append(known)
        return known.memory <= limit

    low, high, size = 0, most + 1, smallest
    while size <= most and low < size < high:
        low, high = (size, high) if fits(size) else (low, size)
        if for_speed and low and _slower(tried):
            return SizeSearch(tried, limit, "speed")
        size *= 2
    if low == 0:
        needed = f"{tried[0].memory / 1e9:.2f} GB" if tried[0].memory < float("inf") else "more than there is"
        raise ConfigError(
            f"a batch of {smallest} images, the smallest, takes {needed}, and the limit is {limit / 1e9:.2f} GB; raise"
            " --memory-limit, or choose a smaller network or --data.size."
        )
    if how == "binary" and high > most:
        low, high = (most, high) if fits(most) else (low, most)
    while how == "binary" and high - low > max(1, low // FINE):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return SizeSearch(tried, limit, "images" if high > most else "memory")


def fastest(fitting: Sequence[Tried]) -> Tried:
    """Return the smallest size that is nearly as fast as any; more steps an epoch then cost no time."""
    best = max(size.speed for size in fitting)
    return next(size for size in fitting if size.speed >= NEARLY * best)


def _expected(tried: Sequence[Tried], images: int) -> float:
    """Expect the memory by the straight line through the two largest smaller ones measured; 0 where there are none."""
    known = sorted({one.images: one.memory for one in tried if one.measured and one.images < images}.items())[-2:]
    if len(known) < 2:
        return 0.0
    (one, less), (two, more) = known
    return more + max(0.0, more - less) / (two - one) * (images - two)


def _slower(tried: Sequence[Tried]) -> bool:
    """Tell whether the last two doublings brought no more speed."""
    if len(tried) <= PATIENT:
        return False
    return max(size.speed for size in tried[-PATIENT:]) * NEARLY < max(size.speed for size in tried[:-PATIENT])
