"""Tune settings: an image set and a space in, the best recipe out, over trials that are ordinary runs.

study.yaml   the recipe that is tuned, the space, and how it is searched
tuning.db    what was drawn and how it was judged: Optuna's file, of SQLite
trials/      a run folder for each trial, by its number
trials.csv   a line for each trial that has ended
best.yaml    the recipe of the best one, complete

Trials are judged by validation, and the best of many is so by luck, too: what ``best.yaml`` is worth, only the test split
says, which no trial reads.
"""

import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from sightline.config import Recipe, resolve, to_yaml
from sightline.config.checks import within
from sightline.config.resolving import to_mapping
from sightline.config.space_files import build_space, read_space
from sightline.config.tuning import STUDY, Study, TuneConfig, begun_study, choose_pruner, study_text
from sightline.display.terminal import reporting_console
from sightline.display.waiting import spoken_seconds
from sightline.errors import ConfigError, DataError, Interrupted, TrainingError
from sightline.machine.extras import require
from sightline.runs.folder import create_run
from sightline.runs.locking import alone
from sightline.runs.writing import create_folder, write_atomically, write_csv
from sightline.studies.search import Search, Trial
from sightline.studies.trials import Job, Outcome, Workers, train_trial
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.preparation import prepare_training
from sightline.training.resume import changes
from sightline.training.summary import TrialLines, describe_tuning, show_tuning

__all__ = ["tune"]

TUNINGS = Path("tunings")
TUNED = "-tuned"  # what the name of the best recipe ends with
SHOWN = 10  # trials in the table at the end


def tune(
    data: str | os.PathLike[str] | None = None,
    *,
    space: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    recipe: str | os.PathLike[str] | Mapping[str, Any] = "auto",
    settings: Mapping[str, Any] | None = None,
    study: str | os.PathLike[str] | None = None,
    resume: bool = False,
    trials: int | None = None,
    judge: Literal["val_acc", "val_loss"] | None = None,
    pruner: Literal["median", "halving", "hyperband", "none"] | None = None,
    seed: int | None = None,
    workers: int = 1,
    console: Console | None = None,
) -> Path:
    """Search a space of settings for the best recipe.

    With one worker the same seed draws the same settings, interrupted or not; with several it depends on which trial ends
    first.

    Args:
        data, recipe, settings: as ``sightline.train`` has them.
        space: a YAML file, or its content: settings, each with how it is drawn (``sightline.config.spaces.NOTATION``).
        study: folder to make; None for ``tunings/<data>-<recipe>-<n>``.
        resume: continue ``study`` as it was begun; only ``trials`` and ``workers`` may be others.
        trials, judge, pruner, seed: see ``sightline.config.tuning.TuneConfig``.
        workers: processes that train trials side by side.
        console: where to report; None reports nothing.
    Returns:
        The folder of the study, with ``best.yaml`` in it.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do.
        Interrupted: Ctrl-C; the study can be resumed.
    """
    require("optuna", "tune", "tuning")
    console = reporting_console(console)
    within("workers", workers, 1, os.cpu_count() or 1)
    begun = begun_study(study, resume)
    given = {"trials": trials, "judge": judge, "pruner": pruner, "seed": seed}
    config = TuneConfig(
        **(to_mapping(begun.config) if begun else {})
        | {name: value for name, value in given.items() if value is not None}
    )
    written = read_space(space) if isinstance(space, str | os.PathLike) else space
    if begun is not None and written is None:
        written = begun.space
    if begun is not None and data is None and recipe == "auto" and not settings:
        recipe = to_mapping(begun.recipe)
    if written is None:
        raise ConfigError("no space was named; give a YAML file of the settings that vary with --space.")
    plan = prepare_training(data, recipe, settings or {}, console)
    asked = Study(plan.recipe, written, config, plan.images.fingerprint)
    if begun is not None:
        _refuse_changes(Path(study or ""), begun, asked)
    varied = build_space(written, plan.recipe, settings or {})
    if trials is not None and trials > varied.size:
        raise ConfigError(
            f"--trials {trials} is more than the {varied.size:.0f} drawings of the space; choose at most that."
        )
    ended_by = choose_pruner(config, plan.recipe, varied)
    folder = _make_folder(study, resume, plan)
    with alone(folder, "tuned"):
        write_atomically(folder / STUDY, study_text(asked).encode())
        search = Search(folder / "tuning.db", varied, config, ended_by, plan.recipe)
        tuning = _Tuning(folder, asked, search, plan)
        facts = [*tuning.facts(ended_by, workers), *([plan.replaced] if plan.replaced else [])]
        describe_tuning(console, plan.images, plan.splits, facts)
        del plan  # its network, which each trial builds for itself
        try:
            with TrialLines(console, search.total) as lines:
                tuning.train(lines, workers)
        except KeyboardInterrupt as error:
            raise Interrupted(folder, f"sightline tune --resume --study {shlex.quote(str(folder))}") from error
        tuning.report(console)
    return folder


def _refuse_changes(folder: Path, begun: Study, asked: Study) -> None:
    """Refuse to continue a study with anything that would make its trials incomparable."""
    changed = changes(begun.recipe, asked.recipe)
    if dict(begun.space) != dict(asked.space):
        changed.append("the space was another")
    for name in ("judge", "pruner", "seed"):
        before, now = getattr(begun.config, name), getattr(asked.config, name)
        if before != now:
            changed.append(f"{name} was {before} and is {now}")
    if changed:
        raise ConfigError(
            f"{folder} cannot be continued with other settings: {'; '.join(changed)}; leave them as they were, or start a"
            " new study."
        )
    if begun.fingerprint != asked.fingerprint:
        raise DataError(f"{folder} cannot be continued: its images have changed since it began; start a new study.")


def _make_folder(study: str | os.PathLike[str] | None, resume: bool, plan: ClassifierPlan) -> Path:
    if study is not None and resume:
        folder = Path(study)
        create_folder(folder)
        return folder
    return create_run(f"{plan.source.name}-{plan.recipe.name}", study, below=TUNINGS, flag="--study")


# ── the trials ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Tuning:
    """Trains the trials of a search, and writes what they were."""

    def __init__(self, folder: Path, study: Study, search: Search, plan: ClassifierPlan) -> None:
        self.folder, self.study, self.search = folder, study, search
        self.judge = study.config.judge
        self.names = _shortened(search.space.names)
        self.images = len(plan.splits.select if plan.recipe.selects else plan.splits.validation)

    def facts(self, ended_by: str, workers: int) -> list[str]:
        """What is tuned, and how."""
        ends = {
            "median": "those worse than the median end early",
            "halving": "two of three end early, by halving",
            "hyperband": "most end early, by hyperband",
            "none": "each to its end",
        }[ended_by]
        side_by_side = f", {workers} side by side" if workers > 1 else ""
        return [
            f"tuning {self.study.recipe.name}: {', '.join(self.search.space.names)}",
            f"{self.search.total} trials by {self.judge} on {self.images:,} validation images, {ends}{side_by_side}; in {self.folder}",
        ]

    def train(self, lines: TrialLines, workers: int) -> None:
        """Train all trials that are left."""
        self._write()  # of trials whose lines were not written before an interruption
        if workers == 1:
            while (trial := self._next(lines)) is not None:
                self._end(lines, trial, train_trial(self._job(trial), self._go_on_of(lines, trial)))
            return
        busy: dict[int, Trial] = {}
        with Workers(workers) as crew:
            while True:
                for worker in sorted(set(range(workers)) - set(busy)):
                    trial = self._next(lines)
                    if trial is not None:
                        busy[worker] = trial
                        crew.start(worker, self._job(trial))
                if not busy:
                    return
                worker, heard = crew.hear()
                if worker not in busy:  # one that had nothing to do was ended from outside
                    continue
                if isinstance(heard, Outcome):
                    self._end(lines, busy.pop(worker), heard)
                else:
                    crew.tell(worker, self._go_on_of(lines, busy[worker])(*heard))

    def _next(self, lines: TrialLines) -> Trial | None:
        """The next trial that must be trained."""
        while (trial := self.search.next()) is not None and trial.outcome is not None:
            self._show(lines, trial)
        if trial is not None:
            lines.running(trial.number, "begins")
        return trial

    def _job(self, trial: Trial) -> Job:
        run = self.folder / "trials" / f"{trial.number:03d}"
        return Job(str(run), to_mapping(self.study.recipe), trial.settings, self.judge)

    def _go_on_of(self, lines: TrialLines, trial: Trial) -> Callable[[int, float], bool]:
        def go_on(epoch: int, value: float) -> bool:
            lines.running(trial.number, f"epoch {epoch}, {self.judge} {value:.4f}")
            return self.search.go_on(trial, epoch, value)

        return go_on

    def _end(self, lines: TrialLines, trial: Trial, outcome: Outcome) -> None:
        self._show(lines, self.search.end(trial, outcome))

    def _show(self, lines: TrialLines, trial: Trial) -> None:
        assert trial.outcome is not None
        lines.ended(trial.number, f"{_ending(trial, self.judge)}  {self._drawn(trial)}")
        self._write()

    def _drawn(self, trial: Trial) -> str:
        """What was drawn for a trial, in words."""
        return ", ".join(f"{self.names[name]} {_short(value)}" for name, value in trial.drawn.items())

    # ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────

    def _write(self) -> None:
        """Write ``trials.csv`` and ``best.yaml`` of all that has ended so far."""
        names = self.search.space.names
        rows, trials = [], self.search.trials()
        for trial in trials:
            outcome = trial.outcome
            assert outcome is not None
            value = "" if outcome.value is None else outcome.value
            seconds = round(outcome.seconds, 3)
            told = [trial.number, outcome.state, value, outcome.epochs, seconds, trial.same_as or "", outcome.reason]
            rows.append([*told, *(trial.drawn.get(name, "") for name in names)])
        header = ["trial", "state", self.judge, "epochs", "seconds", "same_as", "reason", *names]
        write_csv(self.folder / "trials.csv", header, rows)
        ranked = self.search.ranked()
        if ranked:
            write_atomically(self.folder / "best.yaml", to_yaml(self._recipe(ranked[0], len(trials))).encode())

    def _recipe(self, best: Trial, count: int) -> Recipe:
        base = self.study.recipe
        assert best.outcome is not None
        assert best.outcome.value is not None
        about = (
            f"{base.name}, tuned in {count} trials on {base.image_set}: {self.judge} {best.outcome.value:.4f} on"
            f" {self.images:,} validation images, by which it was chosen, so expect less on others."
        )
        name = base.name if base.name.endswith(TUNED) else base.name + TUNED
        return resolve(to_mapping(base), best.settings, {"name": name, "about": about})

    def report(self, console: Console) -> None:
        """Print the best trials.

        Raises:
            TrainingError: not one was finished.
        """
        trials, ranked = self.search.trials(), self.search.ranked()
        states = [trial.outcome.state for trial in trials if trial.outcome is not None]
        if not ranked:
            reasons = [trial.outcome.reason for trial in trials if trial.outcome is not None and trial.outcome.reason]
            why = reasons[-1] if reasons else "it was ended early"
            raise TrainingError(f"none of the {len(trials)} trials in {self.folder} was finished; of the last: {why}")
        rows = []
        for trial in [trial for trial in ranked if trial.same_as is None][:SHOWN]:
            assert trial.outcome is not None
            value, epochs, seconds = trial.outcome.value, trial.outcome.epochs, trial.outcome.seconds
            rows.append([str(trial.number), f"{value:.4f}", str(epochs), f"{seconds:.0f}", self._drawn(trial)])
        facts = [
            f"{len(trials)} trials: {states.count('finished')} finished, {states.count('pruned')} ended early,"
            f" {states.count('failed')} failed",
            f"best: trial {ranked[0].number}, {self._value(ranked[0])}, chosen by it: expect less on others",
        ]
        if self.search.begins_with_recipe and trials[0] in ranked:
            facts.append(f"the recipe as it was: trial 1, {self._value(trials[0])}")
        facts += ["Next:", f"  sightline train --config {self.folder}/best.yaml   trains it, and reads the test split"]
        show_tuning(console, ["trial", self.judge, "epochs", "seconds", "settings"], rows, facts)

    def _value(self, trial: Trial) -> str:
        """What a trial is judged by, and how far that may be off by the choice of images alone."""
        assert trial.outcome is not None
        value = trial.outcome.value
        assert value is not None
        text = f"{self.judge} {value:.4f} on {self.images:,} validation images"
        if self.judge == "val_acc":
            text += f" (standard error {math.sqrt(value * (1 - value) / self.images):.4f})"
        return text


def _ending(trial: Trial, judge: str) -> str:
    """How a trial ended, in words."""
    outcome = trial.outcome
    assert outcome is not None
    if outcome.state == "failed":
        return f"failed: {outcome.reason}"
    text = f"{judge} {math.nan if outcome.value is None else outcome.value:.4f}"
    text += f"  ended early after epoch {outcome.epochs}" if outcome.state == "pruned" else f"  {outcome.epochs} epochs"
    return f"{text}  " + (f"as trial {trial.same_as}" if trial.same_as else spoken_seconds(outcome.seconds))


def _shortened(names: Sequence[str]) -> dict[str, str]:
    """The end of each name that none of the others has: ``learning_rate`` for ``optimizer.learning_rate``."""
    short = {}
    for name in names:
        parts = name.split(".")
        ends = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        others = [f".{other}" for other in names if other != name]
        short[name] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), name)
    return short


def _short(value: Any) -> str:
    """A drawn value as it is shown."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
