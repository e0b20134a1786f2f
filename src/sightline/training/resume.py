"""The run that a training goes on with, and whether it may: in which settings and images it differs."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sightline.config.augmentation import RandomResizedCropConfig
from sightline.config.building import AUTO
from sightline.config.generating import AnyRecipe
from sightline.config.resolving import flatten, merge, read_recipe, resolve, to_mapping
from sightline.config.trust import TRUST
from sightline.data.batches import BATCH_RULE
from sightline.data.correcting import corrections_fingerprint
from sightline.data.excluding import excluded_fingerprint
from sightline.data.seen import SEEN
from sightline.data.splits import RULE
from sightline.data.synthetic import generated_fingerprint
from sightline.errors import ConfigError, DataError, RunError
from sightline.runs.folder import list_runs, read_any_recipe, read_facts, read_model
from sightline.runs.schemas import Begun
from sightline.training.base import Plan, with_settings
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.resume_point import steps_done

__all__ = [
    "as_found",
    "changes",
    "changes_since",
    "note_on_batches",
    "note_on_images",
    "run_to_resume",
    "split_rule_of",
]

P = TypeVar("P", bound=Plan)


def run_to_resume(run: str | os.PathLike[str] | None, plan: P) -> tuple[Path | None, P]:
    """Find the run to continue.

    Returns:
        Its folder, None where the one that was named does not exist yet; and the plan with the numbers that it found.
    Raises:
        RunError: there is none, or the one that was named cannot be continued.
        ConfigError: it was trained with other settings.
        DataError: its images have changed.
    """
    if run is None:
        for summary in reversed(list_runs()):
            if not summary.finished and summary.recipe != "?":
                settled = as_found(plan, summary.folder)
                if not changes_since(summary.folder, settled):
                    return summary.folder, settled
        raise RunError(
            f"no unfinished run of {plan.source.name} with these settings in runs/; start one without --resume, or name"
            " it with --run."
        )
    folder = Path(run)
    if not folder.exists():
        return None, plan
    if not (folder / "model.json").exists():  # killed before anything was kept
        if any(not item.name.startswith(".") and item.name not in ("recipe.yaml", SEEN) for item in folder.iterdir()):
            raise RunError(f"{folder} is no run that could be continued: it has no model.json; choose another --run.")
        return folder, plan
    plan = as_found(plan, folder)
    changed = changes_since(folder, plan)
    if changed:
        raise ConfigError(
            f"{folder} cannot be continued with other settings: {'; '.join(changed)}; leave them as they were, or start"
            " a new run."
        )
    if read_facts(folder, Begun).data.fingerprint != plan.images.fingerprint:
        raise DataError(
            f"{folder} cannot be continued: the images in {plan.source.location} have changed since it began; start a"
            " new run."
        )
    return folder, plan


def split_rule_of(run: Path) -> int:
    """Return the rule that a run's images were dealt by; today's where it has noted nothing yet."""
    data = _model_of(run).get("data")
    return RULE if data is None else int(data.get("split_rule", 1))


def as_found(plan: P, run: Path) -> P:
    """Return the plan with the numbers that a run's own searches found from the same start, and mirrored as it was."""
    plan = _mirrored_as(plan, run)
    searched = _model_of(run).get("found", {})
    known = flatten(to_mapping(plan.recipe))
    settled = [
        name
        for name in plan.searches
        if name in searched and all(known.get(start) == value for start, value in searched[name]["from"].items())
    ]
    if not settled:
        return plan
    settings: dict[str, Any] = {}
    for name in settled:
        settings = merge(settings, searched[name]["settings"])
    recipe: Any = resolve(to_mapping(plan.recipe), settings)
    return replace(plan, recipe=recipe, searches=tuple(name for name in plan.searches if name not in settled))


def note_on_batches(run: Path, plan: Plan) -> str:
    """Say that a run goes on with steps other than it began with; empty where it does not."""
    data, fit = _model_of(run).get("data", {}), plan.recipe.fit
    crops = isinstance(getattr(plan.recipe.augment, "crop", None), RandomResizedCropConfig)
    accumulates = any(fit.batches_a_step(epoch) > 1 for epoch in range(fit.epochs))
    if data.get("batch_rule", 1) == BATCH_RULE or not steps_done(run) or not (crops or accumulates):
        return ""
    changed = [
        *(["random crops are drawn"] if crops else []),
        *(["a last, shorter step is averaged"] if accumulates else []),
    ]
    return (
        f"It was begun by an earlier sightline: from here on {' and '.join(changed)} in another way, so it ends"
        " otherwise than it would have; --restart begins at the first epoch."
    )


def note_on_images(run: Path, plan: Plan) -> str:
    """Say whether a training by the recipe of a run sees the images that the run saw."""
    data, now = _model_of(run).get("data") or {}, plan.images.fingerprint
    if data.get("fingerprint") == now:
        return f"The images are those of {run}: both have the fingerprint {now}."
    return (
        f"warning: the images are not those of {run}, whose fingerprint is {data.get('fingerprint')} (here {now}, of"
        f" {len(plan.images.labels):,} images; there {sum((data.get('counts') or {}).values()):,} were used): the"
        " result will be another."
    )


def _mirrored_as(plan: P, run: Path) -> P:
    """Return the plan with what a run decided on mirroring, where it was left open: an older one did not ask."""
    if not isinstance(plan, ClassifierPlan) or not plan.mirrored.open or not (run / "recipe.yaml").exists():
        return plan
    before, recipe = flatten(read_recipe(run / "recipe.yaml")), plan.recipe
    for name in plan.mirrored.open:
        block, setting = name.split(".")
        recipe = with_settings(recipe, block, **{setting: before.get(name, getattr(getattr(recipe, block), setting))})
    return replace(plan, recipe=recipe)


def changes_since(run: Path, plan: Plan) -> list[str]:
    """List the settings in which a plan differs from a run; one that the run has searched for too does not differ."""
    before, now = read_any_recipe(run), as_found(plan, run)
    old = flatten(to_mapping(before))
    searched = [f"{name} was {old.get(name)} and is {AUTO}" for name in now.searches]
    listed = _other_size(run, plan) + _other_images(run, before, plan)
    return (
        searched + listed + [change for change in changes(before, now.recipe) if change.split()[0] not in now.searches]
    )


def _other_size(run: Path, plan: Plan) -> list[str]:
    """Say that images are trained at another size than when a run began: how it is decided may have changed since."""
    (height, width), now = _model_of(run).get("size") or plan.images.size, plan.images.size
    if (height, width) == tuple(now):
        return []
    return [f"images were {height}×{width} px and are {now[0]}×{now[1]} px"]


def _other_images(run: Path, before: AnyRecipe, plan: Plan) -> list[str]:
    """List the lists and folders whose names are the same and whose images are others than when a run began."""
    data, others = _model_of(run).get("data"), []
    if data is None:
        return []
    if before.data.exclude is not None and data.get("excluded") != excluded_fingerprint(plan.images, plan.splits):
        others.append("data.exclude lists other images")
    corrections = data.get("corrections") or {}
    if before.data.corrections is not None and corrections.get("digest") != corrections_fingerprint(plan.images):
        others.append("data.corrections decides otherwise")
    if before.data.synthetic is not None and data.get("generated") != generated_fingerprint(plan.images, plan.splits):
        others.append("data.synthetic holds other images")
    return others


def _model_of(run: Path) -> dict[str, Any]:
    """Return what a run knows of itself; nothing where it was killed before anything was kept."""
    try:
        return read_model(run)
    except RunError:
        return {}


def changes(before: AnyRecipe, now: AnyRecipe) -> list[str]:
    """List the settings that differ, as ``fit.epochs was 8 and is 10``."""
    old, new = flatten(to_mapping(before)), flatten(to_mapping(now))
    names = [
        name
        for name in {**old, **new}
        if name != "about" and not name.endswith(TRUST) and old.get(name) != new.get(name)
    ]
    return [f"{name} was {old.get(name)} and is {new.get(name)}" for name in names]
