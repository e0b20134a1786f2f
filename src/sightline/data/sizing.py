"""The size at which images are trained on and cached; ``sightline_runtime.decoding.resizing`` brings others to it."""

import statistics
from collections.abc import Sequence

from sightline_runtime.decoding.preprocessing import Fit

__all__ = [
    "DEFAULT_SIDE",
    "HIDDEN_MOST",
    "HIDDEN_MUCH",
    "MARGIN",
    "SMALLEST_SIDE",
    "SMALL_SIDE",
    "hidden_share",
    "median_size",
    "training_size",
    "warn_of_hidden",
]

SMALL_SIDE = 64  # pixels; sets up to here keep their size
DEFAULT_SIDE = 128  # pixels; training size of larger images
MARGIN = 1.15  # larger images are cached this much larger than the training size, to crop from
SMALLEST_SIDE = 16  # pixels; smaller images are enlarged to this, which every network can read
SMALLEST_SQUARE = 32  # pixels; training size of larger images, at least
HIDDEN_MUCH = 0.34  # of the median image; more is warned of. A third, and no more for photographs of 500 × 333 pixels
HIDDEN_MOST = 0.5  # more is avoided where neither a recipe nor a fit is named


def training_size(
    sizes: Sequence[tuple[int, int]], wanted: int | None, at_most: int = DEFAULT_SIDE, fit: Fit = "crop"
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Decide the size to train at and the size to cache.

    Args:
        sizes: (height, width) of a sample of the images, in pixels.
        wanted: side asked for; None decides by the medians.
        at_most: the largest side that is decided, in pixels.
        fit: how images become square; what is not to be cut has no margin to crop from either.
    Returns:
        ((height, width) to train at, (height, width) to cache).
    """
    height, width = median_size(sizes)
    shorter = min(height, width)
    if max(height, width) <= SMALL_SIDE:
        if wanted is not None:
            height = width = wanted
        elif shorter < SMALLEST_SIDE:
            height, width = (min(SMALL_SIDE, round(side * SMALLEST_SIDE / shorter)) for side in (height, width))
        return (height, width), (height, width)
    side = wanted or max(SMALLEST_SQUARE, min(at_most, int(shorter / MARGIN) // 8 * 8))
    return (side, side), (round(side * MARGIN) if fit == "crop" else side,) * 2


def median_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the median (height, width) of some images, each side on its own."""
    height, width = (round(statistics.median(side)) for side in zip(*sizes, strict=True))
    return height, width


def hidden_share(size: tuple[int, int], target: tuple[int, int]) -> float:
    """Return the share of an image that cropping it to the shape of a target hides; both are (height, width)."""
    wide, target_wide = size[1] / size[0], target[1] / target[0]
    return 1 - min(wide / target_wide, target_wide / wide)


def warn_of_hidden(size: tuple[int, int], target: tuple[int, int], fit: Fit) -> list[str]:
    """Return a sentence where the crop hides much of the median image; (height, width) in pixels."""
    share = hidden_share(size, target)
    if fit != "crop" or share <= HIDDEN_MUCH:
        return []
    height, width = size
    return [
        f"warning: the crop to the center hides {share:.0%} of the median image ({width} × {height} px); --data.fit"
        " squash or pad shows all of it"
    ]
