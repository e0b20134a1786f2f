"""What a classifier, or a file of it, answers to N images of K classes."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sightline_runtime.metadata import Metadata

__all__ = ["Answers", "Draft"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Answers:
    """Answers of a classifier, or of its file, to N images."""

    probabilities_NK: Array
    scores_N: Array | None
    """Of images of no class; None of a classifier without a threshold for it."""


class Draft(Protocol):
    """An exported classifier of some format, before it gets its name."""

    def packed(self, metadata: Metadata | None = None) -> bytes:
        """Return the content of its file."""

    def answers(self, content: bytes, pixels_NHWC: Array, rows: Array) -> Answers:
        """Ask such a file for its answers to some images, with all views of the run."""

    def read_back(self, content: bytes, where: str) -> Metadata:
        """Return what such a file says of itself."""
