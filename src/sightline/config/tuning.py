"""The settings of a tuning, and its ``study.yaml``: what is tuned, in which space, and how it is searched."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sightline.config.building import Block, build
from sightline.config.checks import Count, ZeroOrMore
from sightline.config.resolving import named_recipes, read_recipe, refuse_unless_one_fits, resolve, to_mapping
from sightline.config.settings import Recipe
from sightline.config.space_files import build_space
from sightline.config.spaces import Space
from sightline.config.yaml_texts import parse_yaml, read_text, yaml_text
from sightline.errors import ConfigError, RunError

__all__ = ["Study", "TuneConfig", "begun_study", "choose_pruner", "refuse_hopeless_space", "study_text"]

STUDY = "study.yaml"
STUDY_FORMAT = 1  # rises when an older sightline could misread study.yaml


class TuneConfig(Block, frozen=True, kw_only=True):
    """Settings of the search of a space."""

    trials: Count = 20
    """Trials in all, those included that are ended early or fail."""
    judge: Literal["val_acc", "val_loss"] = "val_acc"
    """What is best: the highest accuracy or the lowest loss on validation, of the weights that a trial saves."""
    pruner: Literal["median", "halving", "hyperband", "none"] | None = None
    """Which trials are ended early, by validation after their epochs: those that have never been better than half of
    the finished ones were by then, once five are finished (median); all but the best third after 1, 3, 9, ... epochs
    (halving); the same, with some spared at first (hyperband); or none. null: median, where trials are validated before
    they end."""
    seed: ZeroOrMore = 42
    """Seed of the drawing; the trials are all trained with that of the recipe."""


def choose_pruner(config: TuneConfig, recipe: Recipe, space: Space) -> str:
    """Return the pruner that is meant: one needs trials that can be compared before they end.

    Raises:
        ConfigError: one was named, and they cannot.
    """
    every, epochs = recipe.fit.validate_every, recipe.fit.epochs
    reason = ""
    if "fit.epochs" in space.places:
        reason = "trials of different lengths are not equally far after the same epoch"
    elif not 0 < every < epochs:
        reason = f"--fit.validate-every {every} with --fit.epochs {epochs} validates no trial before its end"
    if reason and config.pruner not in (None, "none"):
        raise ConfigError(f"--pruner {config.pruner} has nothing to compare: {reason}; leave it out.")
    return "none" if reason else config.pruner or "median"


def refuse_hopeless_space(
    written: Mapping[str, Any], named: Mapping[str, Any], fixed: Mapping[str, Any], config: TuneConfig
) -> None:
    """Refuse a space, before any image is read, that fits the recipe that was named, or where none was, any that may be
    chosen.

    Args:
        written: the space as its YAML has it.
        named: a recipe as its YAML has it; empty where it will be chosen by the images.
        fixed: what is set over it.
        config: how the space is searched.
    Raises:
        ConfigError: what the last recipe says.
    """

    def attempt(base: Mapping[str, Any]) -> None:
        recipe = resolve(base, fixed)
        choose_pruner(config, recipe, build_space(written, recipe, fixed))

    refuse_unless_one_fits([named] if named else map(read_recipe, named_recipes()), attempt)


# ── study.yaml ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Study:
    """The recipe, space and settings that a tuning was begun with."""

    recipe: Recipe
    space: Mapping[str, Any]
    """As its YAML has it."""
    config: TuneConfig
    fingerprint: str
    """Of the images."""


def study_text(study: Study) -> str:
    """Return the text of ``study.yaml``."""
    content = {
        "format": STUDY_FORMAT,
        **to_mapping(study.config),
        "fingerprint": study.fingerprint,
        "space": dict(study.space),
        "recipe": to_mapping(study.recipe),
    }
    return yaml_text(content)


def begun_study(folder: str | os.PathLike[str] | None, resume: bool) -> Study | None:
    """Return what the study of a folder was begun with; None where a new one is to be made.

    Raises:
        ConfigError: no folder was named to resume.
        RunError: the folder holds something, and is not to be resumed or is no study.
    """
    if folder is None:
        if resume:
            raise ConfigError("--resume continues a study; name its folder with --study.")
        return None
    path = Path(folder)
    if path.exists() and not resume:
        raise RunError(
            f"{folder} exists; choose another --study, or continue it with: sightline tune --resume --study {folder}"
        )
    file = path / STUDY
    if not file.exists():  # killed before anything was kept
        if path.exists() and not (path.is_dir() and all(item.name.startswith(".") for item in path.iterdir())):
            raise RunError(f"{folder} is no study that could be continued: it has no {STUDY}; choose another --study.")
        return None
    try:
        content = parse_yaml(read_text(file), str(file))
        if content["format"] > STUDY_FORMAT:
            raise RunError(f"{file} was written by a newer sightline; upgrade sightline to read it.")
        config = {name: content[name] for name in TuneConfig.__struct_fields__}
        recipe = resolve(content["recipe"])
        return Study(recipe, content["space"], build(TuneConfig, config, "study"), content["fingerprint"])
    except (KeyError, TypeError, ConfigError) as error:
        raise RunError(f"{file} cannot be read ({error}); copy the study again from where it was made.") from error
