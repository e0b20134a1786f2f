"""The steps from the pixels of a file to those that a network sees, beyond their size; a run keeps them for every verb.

Nothing here loads Pillow, numpy or torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["DEFAULT", "Fit", "Intensity", "Preprocessing", "preprocessing_of"]

Fit = Literal["crop", "squash", "pad"]
Intensity = Literal["upper bits", "own"] | tuple[float, float]


@dataclass(frozen=True)
class Preprocessing:
    """The steps that are applied to every image of a set, and to every image that its classifier is asked about."""

    fit: Fit = "crop"
    """How an image of another shape becomes square."""
    intensity: Intensity = "own"
    """Which values of files with more than 8 bits a channel are shown as 0 and as 255: those of train, (low, high); or
    those of each file alone (own), where train has no such files; or all that 16 bits can hold (upper bits), as before
    these were measured."""

    def kept(self) -> dict[str, Any]:
        """Return what ``model.json`` keeps; read back by ``preprocessing_of``."""
        return {"fit": self.fit, "intensity": list(self.intensity) if isinstance(self.intensity, tuple) else None}


DEFAULT = Preprocessing()


def preprocessing_of(model: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing of the run of a ``model.json``; of an older run, what was done then."""
    if "intensity" not in model:
        return Preprocessing(intensity="upper bits")
    low_high = model["intensity"]
    return Preprocessing(model.get("fit", "crop"), "own" if low_high is None else (low_high[0], low_high[1]))
