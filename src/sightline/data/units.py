"""Units: images that must stay together, since they are of one group or of the same pixels."""

from collections import defaultdict
from typing import Any

import numpy as np

from sightline.data.cache import CachedImages

__all__ = ["group_numbers", "grouped", "unit_count", "units_of"]

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


def unit_count(images: CachedImages, rows: Array) -> float:
    """Count groups, and images by themselves, as if all were of one size: n² over the sum of their squared sizes."""
    return float(len(rows) ** 2 / sum(len(members) ** 2 for members in units_of(images, rows).values()))


def group_numbers(images: CachedImages, rows: Array) -> Array | None:
    """Number the units of some rows, (n,), from 0 in the order of their first row; None where no row is of a group."""
    if not grouped(images, rows):
        return None
    number_of = {row: number for number, unit in enumerate(units_of(images, rows).values()) for row in unit}
    return np.array([number_of[row] for row in rows.tolist()], np.int64)
