"""The steps of ``sightline.tune``: draw a trial, train it, write what it was. Loads torch."""

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sightline.config.resolving import resolve, to_mapping, to_yaml
from sightline.config.settings import Recipe
from sightline.config.space_files import build_space
from sightline.config.tuning import STUDY, Study, TuneConfig, choose_pruner, study_text
from sightline.display import events
from sightline.display.events import Table
from sightline.display.reporting import Listener
from sightline.display.waiting import spoken_seconds
from sightline.errors import ConfigError, DataError, Interrupted, TrainingError
from sightline.measures.metrics import wilson_interval
from sightline.runs.folder import create_run
from sightline.runs.locking import alone
from sightline.runs.writing import create_folder, write_atomically, write_csv
from sightline.studies.search import Search, Trial
from sightline.studies.trials import Job, Outcome, Workers, train_trial
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.preparation import prepare_classifier
from sightline.training.request import Request
from sightline.training.resume import changes
from sightline.training.summary import odd_images
from sightline_runtime.sentences import quoted

__all__ = ["search_space"]

TUNINGS = Path("tunings")
TUNED = "-tuned"  # what the name of the best recipe ends with
SHOWN = 10  # trials in the table at the end
ENDS = {
    "median": "those worse than the median end early",
    "halving": "two of three end early, by halving",
    "hyperband": "most end early, by hyperband",
    "none": "each to its end",
}


def search_space(
    request: Request,
    written: Mapping[str, Any],
    config: TuneConfig,
    *,
    begun: Study | None,
    study: str | os.PathLike[str] | None,
    most: int | None,
    workers: int,
    on_event: Listener,
) -> Path:
    """Search as ``sightline.tune`` has it, which has read the space and the folder.

    Args:
        request: the recipe that is tuned, and its images.
        written: the space as its YAML has it.
        config: how it is searched.
        begun: what the study to continue was begun with.
        study: its folder, or the one to make.
        most: trials that were asked for.
        workers: processes that train them.
        on_event: where to report.
    """
    plan = prepare_classifier(request, on_event)
    tuned = Study(plan.recipe, written, config, plan.images.fingerprint)
    if begun is not None:
        _refuse_changes(Path(study or ""), begun, tuned)
    space = build_space(written, plan.recipe, request.settings)
    if most is not None and most > space.size:
        raise ConfigError(
            f"--trials {most} is more than the {space.size:.0f} drawings of the space; choose at most that."
        )
    pruner = choose_pruner(config, plan.recipe, space)
    if begun is not None or (
        study is not None and os.path.exists(study)
    ):  # one that was killed before it was begun, too
        folder = Path(study or "")
        create_folder(folder)
    else:
        folder = create_run(f"{plan.source.name}-{plan.recipe.name}", study, below=TUNINGS, flag="--study")
    with alone(folder, "tuned"):
        write_atomically(folder / STUDY, study_text(tuned).encode())
        tuning = _Tuning(
            folder, tuned, Search(folder / "tuning.db", space, config, pruner, plan.recipe), plan, on_event
        )
        side_by_side = f", {workers} side by side" if workers > 1 else ""
        facts = [
            f"tuning {plan.recipe.name}: {', '.join(space.names)}",
            f"{tuning.search.total} trials by {config.judge} on {tuning.images:,} validation images,"
            f" {ENDS[pruner]}{side_by_side}; in {folder}",
            *([plan.replaced] if plan.replaced else []),
        ]
        counts = plan.splits.counts()
        about = (
            f"{plan.images.name}: {len(plan.images.classes)} classes; train {counts['train']:,}, validation"
            f" {counts['validation']:,} images; no trial reads the test split"
        )
        for line in (about, *odd_images(plan.images, plan.splits), *facts):
            on_event(line)
        del plan  # its network, which each trial builds for itself
        try:
            tuning.train(workers)
        except KeyboardInterrupt as error:
            raise Interrupted(folder, f"sightline tune --resume --study {quoted(str(folder))}") from error
        tuning.report()
    return folder


def _refuse_changes(folder: Path, begun: Study, now: Study) -> None:
    """Refuse to continue a study with anything that would make its trials incomparable."""
    changed = changes(begun.recipe, now.recipe)
    if dict(begun.space) != dict(now.space):
        changed.append("the space was another")
    for name in ("judge", "pruner", "seed"):
        before, after = getattr(begun.config, name), getattr(now.config, name)
        if before != after:
            changed.append(f"{name} was {before} and is {after}")
    if changed:
        raise ConfigError(
            f"{folder} cannot be continued with other settings: {'; '.join(changed)}; leave them as they were, or start"
            " a new study."
        )
    if begun.fingerprint != now.fingerprint:
        raise DataError(f"{folder} cannot be continued: its images have changed since it began; start a new study.")


class _Tuning:
    """Trains the trials of a search, and writes what they were."""

    def __init__(self, folder: Path, study: Study, search: Search, plan: ClassifierPlan, on_event: Listener) -> None:
        self.on_event = on_event
        self.folder, self.study, self.search = folder, study, search
        self.judge = study.config.judge
        self.names = _shortened(search.space.names)
        self.images = len(plan.splits.select if plan.recipe.selects else plan.splits.validation)

    def train(self, workers: int) -> None:
        """Train all trials that are left."""
        self._write()  # of trials whose lines were not written before an interruption
        if workers == 1:
            while (trial := self._next()) is not None:
                outcome = train_trial(self._job(trial), partial(self._go_on, trial))
                self._report_end(self.search.end(trial, outcome))
            return
        busy: dict[int, Trial] = {}
        with Workers(workers) as crew:
            while True:
                for worker in sorted(set(range(workers)) - set(busy)):
                    if (trial := self._next()) is not None:
                        busy[worker] = trial
                        crew.start(worker, self._job(trial))
                if not busy:
                    return
                worker, heard = crew.hear()
                if worker not in busy:  # one that had nothing to do was ended from outside
                    continue
                if isinstance(heard, Outcome):
                    self._report_end(self.search.end(busy.pop(worker), heard))
                else:
                    crew.tell(worker, self._go_on(busy[worker], *heard))

    def _next(self) -> Trial | None:
        """Return the next trial that must be trained."""
        while (trial := self.search.next()) is not None and trial.outcome is not None:
            self._report_end(trial)
        if trial is not None:
            self._report(trial, "running", None, 0, "begins")
        return trial

    def _job(self, trial: Trial) -> Job:
        run = self.folder / "trials" / f"{trial.number:03d}"
        return Job(str(run), to_mapping(self.study.recipe), trial.settings, self.judge)

    def _go_on(self, trial: Trial, epoch: int, value: float) -> bool:
        self._report(trial, "running", value, epoch, f"epoch {epoch}, {self.judge} {value:.4f}")
        return self.search.go_on(trial, epoch, value)

    def _report_end(self, trial: Trial) -> None:
        """Print how a trial ended and what was drawn for it, and write it down."""
        end = trial.ended
        if end.state == "failed":
            text = f"failed: {end.reason}"
        else:
            text = f"{self.judge} {math.nan if end.value is None else end.value:.4f}  "
            text += f"ended early after epoch {end.epochs}" if end.state == "pruned" else f"{end.epochs} epochs"
            text += f"  as trial {trial.same_as}" if trial.same_as else f"  {spoken_seconds(end.seconds)}"
        self._report(trial, end.state, end.value, end.epochs, f"{text}  {self._drawn(trial)}")
        self._write()

    def _report(self, trial: Trial, state: str, value: float | None, epochs: int, text: str) -> None:
        self.on_event(events.Trial(trial.number, self.search.total, state, value, epochs, text))

    def _drawn(self, trial: Trial) -> str:
        """Return what was drawn for a trial, in words."""
        shown = {name: f"{it:.4g}" if isinstance(it, float) else str(it) for name, it in trial.drawn.items()}
        return ", ".join(f"{self.names[name]} {value}" for name, value in shown.items())

    # ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────

    def _write(self) -> None:
        """Write ``trials.csv`` and ``best.yaml`` of all that has ended so far."""
        names, trials = self.search.space.names, self.search.trials()
        rows = [
            [
                *(trial.number, end.state, "" if end.value is None else end.value, end.epochs, round(end.seconds, 3)),
                *(trial.same_as or "", end.reason, *(trial.drawn.get(name, "") for name in names)),
            ]
            for trial in trials
            for end in [trial.ended]
        ]
        header = ["trial", "state", self.judge, "epochs", "seconds", "same_as", "reason", *names]
        write_csv(self.folder / "trials.csv", header, rows)
        if ranked := self.search.ranked():
            write_atomically(self.folder / "best.yaml", to_yaml(self._recipe(ranked[0], len(trials))).encode())

    def _recipe(self, best: Trial, count: int) -> Recipe:
        base = self.study.recipe
        about = (
            f"{base.name}, tuned in {count} trials on {base.image_set}: {self.judge} {best.ended.value:.4f} on"
            f" {self.images:,} validation images, by which it was chosen, so expect less on others."
        )
        name = base.name if base.name.endswith(TUNED) else base.name + TUNED
        return resolve(to_mapping(base), best.settings, {"name": name, "about": about})

    def report(self) -> None:
        """Print the best trials.

        Raises:
            TrainingError: not one was finished.
        """
        trials, ranked = self.search.trials(), self.search.ranked()
        states = [trial.ended.state for trial in trials]
        if not ranked:
            why = next((trial.ended.reason for trial in reversed(trials) if trial.ended.reason), "it was ended early")
            raise TrainingError(f"none of the {len(trials)} trials in {self.folder} was finished; of the last: {why}")
        rows = [
            [str(trial.number), f"{end.value:.4f}", str(end.epochs), f"{end.seconds:.0f}", self._drawn(trial)]
            for trial in [trial for trial in ranked if trial.same_as is None][:SHOWN]
            for end in [trial.ended]
        ]
        facts = [
            f"{len(trials)} trials: {states.count('finished')} finished, {states.count('pruned')} ended early,"
            f" {states.count('failed')} failed",
            f"best: trial {ranked[0].number}, {self._value(ranked[0])}, chosen by it: expect less on others",
        ]
        if self.search.begins_with_recipe and trials[0] in ranked:
            facts.append(f"the recipe as it was: trial 1, {self._value(trials[0])}")
        facts += ["Next:", f"  sightline train --config {self.folder}/best.yaml   trains it, and reads the test split"]
        columns = ["trial", self.judge, "epochs", "seconds", "settings"]
        self.on_event(Table(columns, rows, texts=len(columns), title="the best trials"))
        for fact in facts:
            self.on_event(fact)

    def _value(self, trial: Trial) -> str:
        """Return what a trial is judged by, and how far that may be off by the choice of images alone."""
        value = trial.ended.value or 0.0
        text = f"{self.judge} {value:.4f} on {self.images:,} validation images"
        if self.judge == "val_acc":
            low, high = wilson_interval(round(value * self.images), self.images)
            text += f" (95 % interval {low:.4f} to {high:.4f})"
        return text


def _shortened(names: Sequence[str]) -> dict[str, str]:
    """Return the end of each name that no other has: ``learning_rate`` for ``optimizer.learning_rate``."""
    short = {}
    for name in names:
        parts = name.split(".")
        ends = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        others = [f".{other}" for other in names if other != name]
        short[name] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), name)
    return short
