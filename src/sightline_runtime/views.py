"""How many views of an image are averaged, and with which weights. V views, B images, K classes.

Adaptive views are one view, and the other five only of images of which one view leaves the classifier unsure.
"""

from typing import Any, Literal

import numpy as np

__all__ = ["VIEWS", "Views", "combine", "decide", "shown", "unsure"]

Views = Literal["one", "flip", "six", "adaptive"]
Array = np.ndarray[Any, Any]
VIEWS: dict[Views, int] = {"one": 1, "flip": 2, "six": 6, "adaptive": 6}
"""How many views each has at most."""


def combine(logits_VBK: Array, views: Views) -> Array:
    """Average the logits of the first views; the four shifted ones share half of the weight. (V, B, K) → (B, K).

    Of adaptive views there are two rows: the first view, and what ``decide`` made of them.
    """
    weights = {
        "one": [1.0],
        "flip": [0.5, 0.5],
        "six": [0.25, 0.25, 0.125, 0.125, 0.125, 0.125],
        "adaptive": [0.0, 1.0],
    }[views]
    mean: Array = np.tensordot(np.asarray(weights, np.float32), logits_VBK[: len(weights)], axes=1)
    return mean


def shown(views: Views) -> Views:
    """Return the views whose logits decide, where every image is shown all of them."""
    return "six" if views == "adaptive" else views


def unsure(chances_BK: Array, threshold: float) -> Array:
    """Tell which images are shown again, bool, (B,): those whose most probable class is below a threshold; at 1 all."""
    below_B: Array = (chances_BK.max(axis=1) < threshold) | (threshold >= 1)
    return below_B


def decide(one_BK: Array, six_BK: Array, asked_B: Array, temperature_of_one: float, temperature_of_six: float) -> Array:
    """Return the logits of adaptive views, (B, K), to be scaled by the temperature of six views.

    Those of one view are scaled so that their probabilities at that temperature are those that they have at their own.

    Args:
        one_BK, six_BK: logits of the first view, and of all six.
        asked_B: which images were shown again.
        temperature_of_one, temperature_of_six: of the calibration.
    """
    scale = np.float32(temperature_of_six / temperature_of_one)
    decided_BK: Array = np.where(asked_B[:, None], six_BK, one_BK * scale)
    return decided_BK
