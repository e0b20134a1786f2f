"""Open an image set as a check looks at it: with its splits, and large enough to compare images."""

from sightline.config.resolving import read_recipe, resolve
from sightline.data.cache import CachedImages, open_images
from sightline.data.ranges import with_range_of
from sightline.data.sources.downloads import Progress
from sightline.data.sources.source import ImageSource
from sightline.data.splits import Splits, split_as
from sightline.errors import DataError
from sightline.training.choosing import choose_recipe

__all__ = ["open_set"]

COMPARED = 32  # pixels of the shorter side, at least, at which images are compared: smaller ones all look alike


def open_set(source: ImageSource, progress: Progress | None) -> tuple[CachedImages, Splits | None, list[str]]:
    """Open an image set.

    Returns:
        The images; the splits that a training would have by default, None where it could not split; and sentences on
        how those came about.
    Raises:
        DataError, StorageError: as ``open_images`` raises them.
    """
    images = open_images(source, None, progress)
    size = images.median or images.size
    if min(images.size) < COMPARED:
        height, width = (round(side * COMPARED / min(images.size)) for side in images.size)
        images = open_images(source, None, progress, exactly=((height, width), (height, width)))
    splits, notes = _split(images, size)
    learned = splits.train if splits is not None else images.readable
    return with_range_of(source, images, learned, progress), splits, notes


def _split(images: CachedImages, size: tuple[int, int]) -> tuple[Splits | None, list[str]]:
    """Cut the splits that a training would have by default, and say how they came about.

    Args:
        images: the set.
        size: (height, width) of the median image, in pixels, by which a training chooses its recipe.
    """
    recipe = resolve(read_recipe(choose_recipe(len(images.paths), size)[0]), {})
    try:
        splits = split_as(recipe, images)
    except DataError as error:
        return None, [f"A training could not split the set: {error}"]
    if splits.cross_validated:
        return splits, [
            f"The set brings no splits, and has too few images to set any aside: a training learns from all"
            f" {len(splits.train):,}, and cross-validation measures."
        ]
    own = {name for name in images.splits if name is not None}
    if {"test", "val"} <= own:
        return splits, ["The set brings its splits."]
    cut = "validation is" if {"test", "val"} & own else "test and validation are"
    return splits, [
        f"The set brings {'no splits' if not own else 'a part of its splits'}: {cut} cut as a training cuts by default."
    ]
