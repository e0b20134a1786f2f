"""Tune settings: an image set and a space in, the best recipe out, over trials that are ordinary runs.

study.yaml   the recipe that is tuned, the space, and how it is searched
tuning.db    what was drawn and how it was judged: Optuna's file, of SQLite
trials/      a run folder for each trial, by its number
trials.csv   a line for each trial that has ended
best.yaml    the recipe of the best one, complete

Trials are judged by validation, and the best of many is so by luck, too: what ``best.yaml`` is worth, only the test
split says, which no trial reads.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sightline.config.checks import within
from sightline.config.resolving import flatten, to_mapping
from sightline.config.space_files import read_space
from sightline.config.trust import without_trust
from sightline.config.tuning import TuneConfig, begun_study, refuse_hopeless_space
from sightline.display.reporting import Listener, ignore, reporting
from sightline.errors import ConfigError
from sightline.machine.extras import require
from sightline.training.request import read_request

__all__ = ["tune"]


@reporting
def tune(
    data: str | os.PathLike[str] | None = None,
    *,
    space: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    recipe: str | os.PathLike[str] | Mapping[str, Any] = "auto",
    settings: Mapping[str, Any] | None = None,
    study: str | os.PathLike[str] | None = None,
    trials: int | None = None,
    judge: Literal["val_acc", "val_loss"] | None = None,
    pruner: Literal["median", "halving", "hyperband", "none"] | None = None,
    seed: int | None = None,
    workers: int = 1,
    resume: bool = False,
    on_event: Listener = ignore,
) -> Path:
    """Search a space of settings for the recipe with the best validation (Optuna).

    With one worker the same seed draws the same settings, interrupted or not; with several it depends on which trial
    ends first. Twelve parameters because they are the flags of the command: what is tuned, how, and where.

    Args:
        data: An image set, as train has it. No trial reads its test split.
        space: A YAML file of the settings that vary, each in its block with how it is drawn: choices, as in augment:
            {flip: [none, random]}; a range, as in optimizer: {learning_rate: {low: 0.001, high: 1, log: true}}, or with
            step: 0.1; blocks, as in optimizer: [sgd, {kind: adamw, weight_decay: [0, 0.01]}]. The page
            "Settings" of the docs has all of it.
        recipe: What is tuned: a recipe's name, a YAML file of one, or auto to choose by the images.
        settings: What to set over the recipe, nested as in its YAML.
        study: Folder to make, with best.yaml, trials.csv and a run for each trial; tunings/DATA-RECIPE-N unless
            named.
        trials: Trials in all, those included that end early or fail; 20, or as many as the space has.
        judge: What is best: the highest val_acc, or the lowest val_loss. The best of many is so by luck, too: expect
            less on other images.
        pruner: Which trials end early, by their validation so far: median (those worse than half of the others were by
            then), halving, hyperband, or none; median unless named, where trials are validated before they end.
        seed: Seed of the drawing, 42 unless named; all trials are trained with --fit.seed.
        workers: Processes that train trials side by side.
        resume: Continue --study as it was begun; only --trials and --workers may be others.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Returns:
        The folder of the study, with ``best.yaml`` in it.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do.
        Interrupted: Ctrl-C; the study can be resumed.
    """
    require("optuna", "tune", "sightline tune")
    within("workers", workers, 1, os.cpu_count() or 1)
    begun = begun_study(study, resume)
    search = {"trials": trials, "judge": judge, "pruner": pruner, "seed": seed}
    search = {name: value for name, value in search.items() if value is not None}
    config = TuneConfig(**((to_mapping(begun.config) if begun else {}) | search))
    written = read_space(space) if isinstance(space, str | os.PathLike) else space
    if begun is not None:
        written = begun.space if written is None else written
        recipe = to_mapping(begun.recipe) if data is None and recipe == "auto" and _trusts_only(settings) else recipe
    request = read_request(data, recipe, settings, say=on_event)
    if written is None:
        raise ConfigError("no space was named; give a YAML file of the settings that vary with --space.")
    if begun is None:
        refuse_hopeless_space(written, request.named or {}, request.settings, config)
    from sightline.studies.tuning import search_space

    return search_space(
        *(request, written, config),
        begun=begun,
        study=study,
        most=trials,
        workers=workers,
        on_event=on_event,
    )


def _trusts_only(settings: Mapping[str, Any] | None) -> bool:
    """Return whether settings say no more than that code is trusted, as they must of a study that is continued."""
    return not flatten(without_trust(settings or {}))
