"""Leave mirroring out where mirrored images of a class no longer look like it, unless it was asked for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sightline.config.resolving import flatten, named_recipes, read_recipe
from sightline.config.settings import Recipe
from sightline.data.cache import CachedImages
from sightline.data.splits import Splits, split_as
from sightline.training.base import with_settings
from sightline.training.mirroring import measure_mirroring

__all__ = ["MIRRORING", "Mirrored", "set_aside", "settle_mirroring"]

MIRRORING = ("augment.flip", "evaluation.views")
LEAST_ASIDE = 20  # validation images, of which a comparison of two classifiers says anything


class Mirrored(NamedTuple):
    """Decision on mirroring."""

    open: tuple[str, ...] = ()
    """Settings of ``MIRRORING`` that the user left to the test."""
    left_out: bool = False
    """Whether images are not mirrored because of the test."""
    line: str = ""
    """For the user: why not, or a warning that it was asked for; empty where nothing speaks against it."""


def settle_mirroring(
    recipe: Recipe, named: Mapping[str, Any], settings: Mapping[str, Any], images: CachedImages, splits: Splits
) -> tuple[Recipe, Mirrored]:
    """Leave out flips and mirrored views where mirrored training images look like other classes, or unlike their own.

    What the user set stays, with a warning. A complete recipe of a run is not tested again.

    Args:
        recipe: every setting.
        named: the recipe as it was named or chosen.
        settings: what the user set over it.
        images: the set.
        splits: of it; train alone is looked at.
    """
    now = {"augment.flip": recipe.augment.flip, "evaluation.views": recipe.evaluation.views}
    mirrors = [name for name, value in now.items() if value not in ("none", "one")]
    asked = _asked(named, settings)
    open_names = tuple(name for name in MIRRORING if name not in asked)
    if not mirrors or named.get("image_set") or settings.get("image_set"):
        return recipe, Mirrored(open_names)
    reason = measure_mirroring(images, splits.train).reason(images.classes)
    if not reason:
        return recipe, Mirrored(open_names)
    kept = [f"--{name} {now[name]}" for name in mirrors if name in asked]
    if "augment.flip" in open_names:
        recipe = with_settings(recipe, "augment", flip="none")
    if "evaluation.views" in open_names:
        recipe = with_settings(recipe, "evaluation", views="one")
    if kept:
        return recipe, Mirrored(
            open_names, False, f"warning: {reason}; {' and '.join(kept)} mirrors them as asked: better left out"
        )
    return recipe, Mirrored(
        open_names, True, f"not mirrored: {reason}; --augment.flip random shows them mirrored all the same"
    )


def set_aside(recipe: Recipe, images: CachedImages, rule: int) -> tuple[Recipe, Splits] | None:
    """Cut the splits of a set that would be cross-validated, so that validation can choose between two recipes.

    Args:
        recipe: every setting.
        images: the set.
        rule: that images are dealt by.
    Returns:
        The recipe, which says how many are validated on, and the splits; None where they would be too few to tell.
    """
    left = len(images.readable) - round(len(images.readable) / 5)
    count = round(left / 5)
    if count < LEAST_ASIDE:
        return None
    recipe = with_settings(recipe, "data", validation=count)
    return recipe, split_as(recipe, images, rule)


def _asked(named: Mapping[str, Any], settings: Mapping[str, Any]) -> set[str]:
    """Return which of ``MIRRORING`` the user set: by a flag or file, or in a recipe other than sightline's own."""
    shipped: Mapping[str, Any] = {}
    if named.get("name") in named_recipes():
        shipped = flatten(read_recipe(str(named["name"])))
    own = {name: value for name, value in flatten(named).items() if shipped.get(name) != value}
    return {name for name in MIRRORING if name in own or name in flatten(settings)}
