"""Outcomes of finished runs: what they reached and cost, and the settings in which they differ. Nothing here loads
torch.
"""

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from sightline.config.networks import RunConfig
from sightline.config.resolving import flatten, to_mapping
from sightline.config.settings import Recipe
from sightline.errors import ConfigError, RunError
from sightline.runs.folder import read_facts, read_model_of_finished, read_run_recipe
from sightline.runs.hub import kept, on_hub
from sightline.runs.schemas import CROSSED, Classifier, Corrections, Cost, Facts, Measured

__all__ = [
    "CURVE_COLUMNS",
    "MISSING",
    "RUN_COLUMNS",
    "Measured",
    "Outcome",
    "curve_rows",
    "measured_on",
    "read_curves",
    "read_outcome",
    "run_rows",
    "settings_rows",
    "settings_that_differ",
    "spoken_value",
    "unlike_images",
]

MISSING = "–"  # shown where a recipe has no such setting, or a run no such number
RUN_COLUMNS = (
    "name",
    "seed",
    "run",
    "image_set",
    "fingerprint",
    "validation_accuracy",
    "validation_n",
    "test_accuracy",
    "test_n",
    "test_low",
    "test_high",
    "seconds",
    "cost",
    "training_flops",
    "backbone_flops",
    "backbone_seconds",
    "parameters",
    "device",
)
CURVE_COLUMNS = ("name", "seed", "measure", "epoch", "value")

CURVES = ("train_loss", "train_acc", "val_loss", "val_acc")
NO_COST = Cost(fit_seconds=None)  # of a run that did not note it
SHORT = 2  # equal values in a row that are all written out
NO_SETTINGS = ("name", "about", "image_set")  # of a recipe


@dataclass(frozen=True)
class Outcome:
    """A finished run. Numbers that its sightline did not write down yet are None."""

    name: str
    run: Path
    recipe: Recipe
    image_set: str
    fingerprint: str
    counts: dict[str, int]
    """Images by split."""
    validation: Measured | None
    """On the validation images that chose nothing while training."""
    test: Measured | None
    """None, too, where the run was not measured on test."""
    seconds: float | None
    """Of fit and evaluation."""
    cost: float | None
    """Those seconds × the FLOP/s of a probe meanwhile."""
    flops: float | None
    """Floating-point operations of the training."""
    backbone_flops: float | None
    """Of the earlier runs whose weights it started from, together; 0 where there were none."""
    backbone_seconds: float | None
    parameters: int | None
    device: str | None
    """What it was trained on, in words, with the threads of a processor."""
    versions: dict[str, str]
    """Of Python, sightline, PyTorch and Lightning."""
    curves: dict[str, list[tuple[int, float]]]
    """(epoch, value) of the columns of ``metrics.csv`` that are measured."""
    corrections: Corrections | None = None
    """How its labels were corrected."""
    crossed: bool = False
    """True where cross-validation measured: what stands for validation is of all its images."""

    def labels_of(self, split: str) -> str | None:
        """Return the digest of the corrected labels that measured a split; None where they are those of the set."""
        return getattr(self.corrections, "digest" if self.crossed else split, None)

    @property
    def all_flops(self) -> float | None:
        """Return the operations with those of the runs that it started from."""
        return _sum(self.flops, self.backbone_flops)

    @property
    def all_seconds(self) -> float | None:
        """Return the seconds with those of the runs that it started from."""
        return _sum(self.seconds, self.backbone_seconds)


def read_outcome(run: str | os.PathLike[str], name: str | None = None) -> Outcome:
    """Read what a run reached.

    Args:
        run: the run's folder.
        name: what it is called; None for the folder's name.
    Raises:
        RunError: no run, not finished, or it cannot be read.
    """
    read_model_of_finished(run)  # or refuse it
    folder, facts = Path(run), read_facts(run, Classifier)
    recipe, cost = read_run_recipe(folder), facts.cost or NO_COST
    before_flops, before_seconds = _of_backbones(recipe)
    measured = {} if facts.metrics is None else {facts.metrics.split: facts.metrics}
    return Outcome(
        name=folder.name if name is None else name,
        run=folder,
        recipe=recipe,
        image_set=facts.data.name,
        fingerprint=facts.data.fingerprint,
        corrections=facts.data.corrections,
        counts=asdict(facts.data.counts),
        validation=measured.get(CROSSED) or facts.validation or measured.get("validation"),
        test=measured.get("test"),
        seconds=cost.seconds,
        cost=cost.cost,
        flops=cost.training_flops,
        backbone_flops=before_flops,
        backbone_seconds=before_seconds,
        parameters=facts.parameters,
        device=cost.device,
        versions=facts.versions,
        curves=read_curves(folder),
        crossed=CROSSED in measured,
    )


def read_curves(run: Path, columns: Sequence[str] = CURVES) -> dict[str, list[tuple[int, float]]]:
    """Read (epoch, value) of columns of a run's ``metrics.csv``, of the epochs that have one.

    Raises:
        RunError: it is missing or damaged.
    """
    path = run / "metrics.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)] for name in columns}
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path} cannot be read ({error}); copy the run again from where it was made.") from error


def settings_that_differ(outcomes: Sequence[Outcome], *left_out: str) -> list[tuple[str, list[str]]]:
    """Return the settings in which runs differ, each with its values as text in the order of the runs.

    Args:
        left_out: settings that are not shown.
    """
    flat = [flatten(to_mapping(outcome.recipe)) for outcome in outcomes]
    blocks = list(to_mapping(Recipe()))  # in whose order a recipe is written
    names = sorted(
        dict.fromkeys(name for settings in flat for name in settings),
        key=lambda name: blocks.index(name.split(".")[0]),
    )
    left_out_by_some = {name.rsplit(".", 1)[0] for name in names}  # blocks, whose settings tell it
    different = []
    for name in names:
        values = [spoken_value(settings[name]) if name in settings else MISSING for settings in flat]
        if len(set(values)) > 1 and name not in {*NO_SETTINGS, *left_out, *left_out_by_some}:
            different.append((name, values))
    return different


def spoken_value(value: Any) -> str:
    """Return a value of a setting as a person writes it: ``0.1``, ``8 16 16``, ``4 × 0.5, 1``, ``none``."""
    if isinstance(value, list):
        runs = [(one, len(list(same))) for one, same in groupby(map(spoken_value, value))]
        if any(count > SHORT for _, count in runs):
            return ", ".join(f"{count} × {one}" if count > 1 else one for one, count in runs)
        return " ".join(map(spoken_value, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def run_rows(outcomes: Sequence[Outcome]) -> Iterator[list[Any]]:
    """Yield a row per run, with the columns of ``RUN_COLUMNS``."""
    for one in outcomes:
        validation = [one.validation.accuracy, one.validation.n] if one.validation else [None, None]
        test = [one.test.accuracy, one.test.n, *one.test.interval] if one.test else [None] * 4
        costs = [one.seconds, one.cost, one.flops, one.backbone_flops, one.backbone_seconds, one.parameters, one.device]
        yield [one.name, one.recipe.fit.seed, str(one.run), one.image_set, one.fingerprint, *validation, *test, *costs]


def curve_rows(outcomes: Sequence[Outcome]) -> Iterator[list[Any]]:
    """Yield a row for every value of every learning curve, with the columns of ``CURVE_COLUMNS``."""
    for one in outcomes:
        for measure, values in one.curves.items():
            for epoch, value in values:
                yield [one.name, one.recipe.fit.seed, measure, epoch, value]


def settings_rows(outcomes: Sequence[Outcome], *left_out: str) -> Iterator[list[Any]]:
    """Yield a row for every setting that differs: its name and its values by run; empty where one has none."""
    for name, values in settings_that_differ(outcomes, *left_out):
        yield [name, *("" if value == MISSING else value for value in values)]


def unlike_images(outcomes: Sequence[Outcome]) -> list[str]:
    """Return why accuracies of these runs are not of the same images, as sentences; none where they are."""
    sets = _grouped(outcomes, lambda one: one.fingerprint)
    if len(sets) > 1:
        spoken = "; ".join(f"{_names(group)} on {group[0].image_set}" for group in sets.values())
        return [
            "These runs were not trained on the same images (the fingerprints of their sets differ):"
            f" {spoken}. Their accuracies are of other images and do not say which recipe is better."
        ]
    sentences = []
    for split in ("test", "validation"):
        measured = [one for one in outcomes if getattr(one, split) is not None]
        groups = _grouped(
            measured,
            lambda one: (one.recipe.data.split_seed, one.counts[split], getattr(one, split).n),  # noqa: B023
        )
        labels = _grouped(measured, lambda one: one.labels_of(split))  # noqa: B023
        if len(labels) > 1:
            spoken = "; ".join(f"{_names(group)} by {digest or 'those of the set'}" for digest, group in labels.items())
            sentences.append(f"These runs were not measured by the same {split} labels: {spoken}.")
        if len(groups) > 1:
            spoken = "; ".join(f"{_names(group)} on {n:,} (split {seed})" for (seed, _, n), group in groups.items())
            sentences.append(f"These runs were not measured on the same {split} images: {spoken}.")
    return sentences


def _grouped(outcomes: Sequence[Outcome], key: Callable[[Outcome], Any]) -> dict[Any, list[Outcome]]:
    groups: dict[Any, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return groups


def _names(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(outcome.name for outcome in outcomes)


def measured_on(facts: Mapping[str, Any] | None) -> Measured | None:
    """Return an accuracy of ``model.json``; None where it has none."""
    if facts is None:
        return None
    return Measured(facts["accuracy"], facts["n"], facts.get("accuracy_interval"), facts.get("groups"))


def _of_backbones(recipe: Recipe) -> tuple[float | None, float | None]:
    """Return operations and seconds of the trainings that the weights of a recipe come from; None where unknown."""
    if not isinstance(recipe.network, RunConfig):
        return (0, 0.0) if getattr(recipe.network, "weights", None) is None else (None, None)
    named = recipe.network.folder
    try:
        folder = kept(named) if on_hub(named) else Path(named)
        if folder is None:
            return None, None
        cost = read_facts(folder, Facts).cost or NO_COST
        flops, seconds = _of_backbones(read_run_recipe(folder))
    except (RunError, ConfigError):  # gone, or of another sightline
        return None, None
    return _sum(cost.training_flops, flops), _sum(cost.seconds, seconds)


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
