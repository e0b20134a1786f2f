"""The run that a training goes on with, and whether it may: in which settings and images it differs."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sightline.config import AnyRecipe, resolve
from sightline.config.building import AUTO
from sightline.config.resolving import flatten, to_mapping
from sightline.data.excluding import excluded_fingerprint
from sightline.data.seen import SEEN
from sightline.data.synthetic import generated_fingerprint
from sightline.errors import ConfigError, DataError, RunError
from sightline.runs.folder import list_runs, read_any_recipe, read_facts, read_model
from sightline.runs.schemas import Begun
from sightline.training.job import AnyPlan, GeneratorPlan, Plan

__all__ = ["as_found", "changes", "changes_since", "run_to_resume"]

P = TypeVar("P", bound=Plan | GeneratorPlan)


def run_to_resume(run: str | os.PathLike[str] | None, plan: AnyPlan) -> Path | None:
    """The run to continue; None where the one that was named does not exist yet."""
    if run is None:
        for summary in reversed(list_runs()):
            if not summary.finished and summary.recipe != "?" and not changes_since(summary.folder, plan):
                return summary.folder
        raise RunError(
            f"no unfinished run of {plan.source.name} with these settings in runs/; start one without --resume, or name"
            " it with --run."
        )
    folder = Path(run)
    if not folder.exists():
        return None
    if not (folder / "model.json").exists():  # killed before anything was kept
        if any(not item.name.startswith(".") and item.name not in ("recipe.yaml", SEEN) for item in folder.iterdir()):
            raise RunError(f"{folder} is no run that could be continued: it has no model.json; choose another --run.")
        return folder
    changed = changes_since(folder, plan)
    if changed:
        raise ConfigError(
            f"{folder} cannot be continued with other settings: {'; '.join(changed)}; leave them as they were, or start"
            " a new run."
        )
    if read_facts(folder, Begun).data.fingerprint != plan.images.fingerprint:
        raise DataError(
            f"{folder} cannot be continued: the images in {plan.source.location} have changed since it began; start a new run."
        )
    return folder


def as_found(plan: P, run: Path) -> P:
    """The plan with the numbers that a run's own searches found, for what the plan leaves to a search from the same start."""
    try:
        found: Mapping[str, Any] = read_model(run).get("found", {})
    except RunError:  # killed before anything was kept
        found = {}
    known = flatten(to_mapping(plan.recipe))
    settled = [
        name
        for name in plan.searches
        if name in found and all(known.get(start) == value for start, value in found[name]["from"].items())
    ]
    recipe: Any = plan.recipe
    for name in settled:
        recipe = resolve(to_mapping(recipe), found[name]["settings"])
    return replace(plan, recipe=recipe, searches=tuple(name for name in plan.searches if name not in settled))


def changes_since(run: Path, plan: AnyPlan) -> list[str]:
    """The settings in which a plan differs from those of a run; one that the run has searched for too does not differ."""
    before, now = read_any_recipe(run), as_found(plan, run)
    old = flatten(to_mapping(before))
    searched = [f"{name} was {old.get(name)} and is {AUTO}" for name in now.searches]
    listed = _other_size(run, plan) + _other_images(run, before, plan)
    return (
        searched + listed + [change for change in changes(before, now.recipe) if change.split()[0] not in now.searches]
    )


def _other_size(run: Path, plan: AnyPlan) -> list[str]:
    """Whether images are trained at another size than when a run has begun: how it is decided may have changed since."""
    try:
        (height, width), now = read_model(run).get("size") or plan.images.size, plan.images.size
    except RunError:  # killed before anything was kept
        return []
    if (height, width) == tuple(now):
        return []
    return [f"images were {height}×{width} px and are {now[0]}×{now[1]} px"]


def _other_images(run: Path, before: AnyRecipe, plan: AnyPlan) -> list[str]:
    """The lists and folders whose names are the same and whose images are others than when a run has begun."""
    if before.data.exclude is None and before.data.synthetic is None:
        return []
    try:
        data = read_facts(run, Begun).data
    except RunError:  # killed before anything was kept
        return []
    found = []
    if before.data.exclude is not None and data.excluded != excluded_fingerprint(plan.images, plan.splits):
        found.append("data.exclude lists other images")
    if before.data.synthetic is not None and data.generated != generated_fingerprint(plan.images, plan.splits):
        found.append("data.synthetic holds other images")
    return found


def changes(before: AnyRecipe, now: AnyRecipe) -> list[str]:
    """The settings that differ, as ``fit.epochs was 8 and is 10``."""
    old, new = flatten(to_mapping(before)), flatten(to_mapping(now))
    names = [name for name in {**old, **new} if name != "about" and old.get(name) != new.get(name)]
    return [f"{name} was {old.get(name)} and is {new.get(name)}" for name in names]
