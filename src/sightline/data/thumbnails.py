"""Small pictures within a page: images of a run's own set, by their file names, as data URIs. H × W pixels."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sightline.data.cache import CachedImages, open_as_trained
from sightline.data.sources.find_source import source_of_run
from sightline.display.pages import data_uri
from sightline.runs.folder import read_run_recipe
from sightline.runs.writing import safe_cell
from sightline_runtime.decoding.preprocessing import preprocessing_of

__all__ = ["Thumbnails", "affordable", "open_own"]

LEAST_SIDE = 32  # pixels; smaller pictures show nothing

Array = np.ndarray[Any, Any]


class Thumbnails:
    """The images of a set, as a network of it sees them, by what a table calls their files."""

    def __init__(self, images: CachedImages) -> None:
        self.images = images
        """The set."""
        self._rows = {safe_cell(path): row for row, path in enumerate(images.paths)}
        self.side = max(images.size)
        """Of an image in pixels, the longer."""

    def __contains__(self, file: str) -> bool:
        return file in self._rows

    def row(self, file: str) -> int:
        """Return the row of a file in the set."""
        return self._rows[file]

    def cached(self, file: str) -> Array:
        """Return an image as it was decoded, (H, W, 3), uint8: what a classifier is asked about."""
        return np.array(self.images.pixels[self._rows[file]])

    def pixels(self, file: str) -> Array:
        """Cut out the middle of an image, (H, W, 3), uint8."""
        pixels = self.images.pixels[self._rows[file]]
        top, left = ((have - want) // 2 for have, want in zip(pixels.shape, self.images.size, strict=False))
        return np.asarray(pixels[top : top + self.images.size[0], left : left + self.images.size[1]])

    def uri(self, file: str, side: int) -> str:
        """Encode an image as a data URI, its longer side no longer than ``side`` pixels."""
        return data_uri(self.pixels(file), side)


def open_own(
    run: Path, model: Mapping[str, Any], progress: Callable[[int, int], None] | None = None
) -> Thumbnails | None:
    """Open the image set that a run was trained on; None where its images or labels are others today.

    Raises:
        DataError: it is gone, or cannot be used.
        StorageError: it must be decoded again, and the cache folder has no room for it.
    """
    source, exactly = source_of_run(model), (tuple(model["size"]), tuple(model["resize"]))
    images = open_as_trained(source, read_run_recipe(run).data.size, exactly, progress, preprocessing_of(model))
    return Thumbnails(images) if images.fingerprint == model["data"]["fingerprint"] else None


def affordable(counts: list[int], side: int, *, most: int, pixels: int) -> tuple[int, int]:
    """Choose how many pictures of each group to show, and how large, so that all of them stay within a number of
    pixels.

    Args:
        counts: pictures that each group has.
        side: of a picture in pixels, at most.
        most: pictures of a group that are shown, at most.
        pixels: of all pictures together.
    Returns:
        (pictures of a group at most, side of a picture).
    """
    while most > 1 and sum(min(count, most) for count in counts) * LEAST_SIDE**2 > pixels:
        most -= 1
    shown = max(1, sum(min(count, most) for count in counts))
    return most, min(side, max(LEAST_SIDE, int((pixels / shown) ** 0.5)))
