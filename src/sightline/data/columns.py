"""Columns of text beside the pixels of a cache, read from the disk as they are asked for.

As Python objects the paths and hashes of a million images would fill 300 MB of every process; as mapped files they are
pages that the system drops when it needs the room.
"""

import mmap
import operator
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

__all__ = ["Texts", "read_texts", "write_texts"]

TEXTS, ENDS = "texts.utf8", "ends.npy"
_NOTHING = b"\xff"  # stands for None; never a byte of UTF-8

Array = np.ndarray[Any, Any]
Value = TypeVar("Value", bound=str | None)


class Texts(Sequence[Value]):
    """A column of texts, or of texts and None, that is read from a mapped file; equal to any sequence of the same."""

    def __init__(self, data: mmap.mmap, ends: Array, first: int, count: int) -> None:
        """
        Args:
            data: the texts of all columns, one after another.
            ends: where each of them ends in ``data``.
            first: index in ``ends`` of this column's first text.
            count: texts of this column.
        """
        self._data, self._ends, self._first, self._count = data, ends, first, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> list[Value]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._count))]
        row = operator.index(index)
        if not -self._count <= row < self._count:
            raise IndexError(f"row {row} of {self._count}")
        place = self._first + row % self._count
        start = int(self._ends[place - 1]) if place else 0
        return _text(self._data[start : int(self._ends[place])])

    def __iter__(self) -> Iterator[Value]:
        ends = self._ends[self._first : self._first + self._count].tolist()
        start = int(self._ends[self._first - 1]) if self._first else 0
        for end in ends:
            yield _text(self._data[start:end])
            start = end

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]


def write_texts(folder: Path, columns: Iterable[Sequence[str | None]]) -> None:
    """Write columns of equal length into a folder."""
    ends: list[int] = []
    end = 0
    with (folder / TEXTS).open("wb") as file:
        for column in columns:
            for text in column:
                end += file.write(_NOTHING if text is None else text.encode("utf-8", "surrogatepass"))
                ends.append(end)
    np.save(folder / ENDS, np.array(ends, np.int64))


def read_texts(folder: Path, count: int) -> list[Texts[Any]]:
    """Return the columns of a folder, ``count`` texts each."""
    ends = np.load(folder / ENDS, mmap_mode="r")
    with (folder / TEXTS).open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return [Texts(data, ends, first, count) for first in range(0, len(ends), count)]


def _text(data: bytes) -> Any:
    return None if data == _NOTHING else data.decode("utf-8", "surrogatepass")
