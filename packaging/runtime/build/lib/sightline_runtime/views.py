"""How many views of an image are averaged, and with which weights. V views, B images, K classes."""

from typing import Any, Literal

import numpy as np

__all__ = ["VIEWS", "Views", "combine"]

Views = Literal["one", "flip", "six"]
Array = np.ndarray[Any, Any]
VIEWS: dict[Views, int] = {"one": 1, "flip": 2, "six": 6}
"""How many views each has."""


def combine(logits_VBK: Array, views: Views) -> Array:
    """Average the logits of the first views; the four shifted ones share half of the weight. (V, B, K) → (B, K)."""
    weights = {"one": [1.0], "flip": [0.5, 0.5], "six": [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]}[views]
    mean: Array = np.tensordot(np.asarray(weights, np.float32), logits_VBK[: len(weights)], axes=1)
    return mean
