"""Vectors of many images that stay on disk: what is asked for is read, and nothing else is held. N images, D numbers.

A set of 600,000 images has 3.5 GB of them. No torch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Vectors"]

BLOCK = 8192  # vectors gathered at a time

Array = np.ndarray[Any, Any]


class Vectors:
    """One vector for each of some images, in float32, gathered from arrays that may be memory-mapped."""

    def __init__(self, arrays_MD: Sequence[Array], rows_N: Array | None = None) -> None:
        """
        Args:
            arrays_MD: whose rows stand beside each other in a vector, (M, ·) each; float32.
            rows_N: of each image, its row in them, (N,); None: all, in their order.
        """
        self._arrays_MD = tuple(arrays_MD)
        self._rows_N = np.arange(len(arrays_MD[0])) if rows_N is None else rows_N

    def __len__(self) -> int:
        return len(self._rows_N)

    @property
    def shape(self) -> tuple[int, int]:
        """Return (images, numbers of a vector)."""
        return len(self), sum(array_MD.shape[1] for array_MD in self._arrays_MD)

    def __getitem__(self, places_n: Array) -> Array:
        """Read the vectors at some places, (n, D), into an array of their own."""
        rows_n = self._rows_N[places_n]
        vectors_nD = np.empty((len(rows_n), self.shape[1]), np.float32)
        for start in range(0, len(rows_n), BLOCK):
            some, column = rows_n[start : start + BLOCK], 0
            for array_MD in self._arrays_MD:
                width = array_MD.shape[1]
                vectors_nD[start : start + len(some), column : column + width] = array_MD[some]
                column += width
        return vectors_nD

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Read all of them: for sets that memory holds."""
        return self[np.arange(len(self))].astype(dtype or np.float32, copy=False)

    def part(self, places_n: Array) -> "Vectors":
        """Return those at some places, unread."""
        return Vectors(self._arrays_MD, self._rows_N[places_n])

    def beside(self, other: "Vectors") -> "Vectors":
        """Return the same images with the numbers of both, unread.

        Args:
            other: of the same images, from arrays with the same rows.
        """
        assert np.array_equal(self._rows_N, other._rows_N)
        return Vectors((*self._arrays_MD, *other._arrays_MD), self._rows_N)
