"""Units: images that must stay together, since they are of one group or of the same pixels."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from sightline.data.cache import CachedImages

__all__ = ["group_numbers", "grouped", "joined", "unit_count", "unit_numbers", "units_of"]

Array = np.ndarray[Any, Any]


def grouped(images: CachedImages, rows: Array) -> bool:
    """Return whether some of the rows are of a group."""
    return any(images.groups[row] is not None for row in rows)


def units_of(images: CachedImages, rows: Array) -> dict[str, list[int]]:
    """Group rows by what must stay together: joined by a group, by the same pixels, or by a chain of both."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for row in rows.tolist():
        if images.groups[row] is not None:
            pair = sorted((root(f"group {images.groups[row]}"), root(f"pixels {images.hashes[row]}")))
            parent[pair[1]] = pair[0]  # the same name whatever the order of the rows
    units: dict[str, list[int]] = defaultdict(list)
    for row in rows.tolist():
        units[root(f"pixels {images.hashes[row]}")].append(row)
    return units


def unit_numbers(images: CachedImages, rows: Array) -> Array:
    """Number the units of some rows, (n,), from 0 in the order of their first rows; as ``units_of`` joins them."""
    number_of: dict[str, int] = {}
    units_N = np.array([number_of.setdefault(images.hashes[row], len(number_of)) for row in rows.tolist()], np.int64)
    if not grouped(images, rows):
        return units_N
    first_of: dict[str, int] = {}
    pairs = [
        (first_of.setdefault(group, unit), unit)
        for row, unit in zip(rows.tolist(), units_N.tolist(), strict=True)
        if (group := images.groups[row]) is not None
    ]
    return joined(units_N, pairs)


def joined(units_N: Array, pairs: Iterable[tuple[int, int]], most_N: Array | None = None) -> Array:
    """Join units by pairs of them; returns their new numbers, (n,), from 0 in the order of their first rows.

    Args:
        units_N: the unit of each row, numbered from 0.
        pairs: of units; where not all fit together, the first ones are joined.
        most_N: for each row, how many rows may be joined with it; None: any number. A unit is never parted.
    """
    sizes = np.bincount(units_N).tolist()
    parent = list(range(len(sizes)))
    most = [len(units_N)] * len(sizes)
    if most_N is not None:
        least = np.full(len(sizes), len(units_N))
        np.minimum.at(least, units_N, most_N)
        most = least.tolist()

    def root(unit: int) -> int:
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        if low != high and sizes[low] + sizes[high] <= min(most[low], most[high]):
            parent[high] = low
            sizes[low] += sizes[high]
            most[low] = min(most[low], most[high])
    roots_N = np.array([root(unit) for unit in range(len(parent))], np.int64)[units_N]
    _, first, number = np.unique(roots_N, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbers_N: Array = rank[number]
    return numbers_N


def unit_count(images: CachedImages, rows: Array) -> float:
    """Count groups, and images by themselves, as if all were of one size: n² over the sum of their squared sizes."""
    return float(len(rows) ** 2 / (np.bincount(unit_numbers(images, rows)) ** 2).sum())


def group_numbers(images: CachedImages, rows: Array) -> Array | None:
    """Number the units of some rows, (n,), from 0 in the order of their first row; None where no row is of a group."""
    return unit_numbers(images, rows) if grouped(images, rows) else None
