"""The trials that a tuning has drawn and judged, and the next one: Optuna, with its file of SQLite."""

import math
import random
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.config.settings import Recipe
from sightline.config.spaces import Choice, Dimension, Space
from sightline.config.tuning import TuneConfig
from sightline.data.batches import derived_seed
from sightline.errors import StorageError
from sightline.studies.trials import Outcome

if TYPE_CHECKING:
    import optuna

__all__ = ["Search", "Trial"]

NAME = "tuning"  # of the study in Optuna's file
WAIT_SECONDS = 60.0  # for another program that reads or writes the file
RANDOM = 10  # trials that are drawn at random, before the finished ones say where to look
STARTUP = 5  # finished trials before the median ends any
ETA = 3  # halving: one of so many goes on


@dataclass(frozen=True)
class Trial:
    """One drawing of a space."""

    number: int
    """Counted from 1."""
    drawn: dict[str, Any]
    """A number, or what an option is called, by the names of what was drawn."""
    settings: dict[str, Any]
    """What that sets over the recipe, nested as in its YAML."""
    outcome: Outcome | None = None
    """None while it is trained."""
    same_as: int | None = None
    """An earlier trial with the same settings, whose outcome is taken over: it would be trained to the same bits."""

    @property
    def ended(self) -> Outcome:
        """The outcome of a trial that has ended."""
        assert self.outcome is not None
        return self.outcome


class Search:
    """Draws trials, judges their epochs, and keeps how they ended. Used by one process at a time.

    Every number is drawn by a sampler of its own, seeded by the trial's number and its name: so a search that is
    continued draws what it would have drawn, even where it was killed between two numbers of a trial.
    """

    def __init__(self, path: Path, space: Space, config: TuneConfig, pruner: str, recipe: Recipe) -> None:
        self.path, self.space, self.config = path, space, config
        self.total = int(min(config.trials, space.size))
        self.epochs = recipe.fit.epochs
        self._open: dict[int, Any] = {}  # Optuna's own of the trials that are trained
        with self._optuna() as optuna:
            self._study = optuna.create_study(
                # its own way from a URL to a file does not take every path
                storage=optuna.storages.RDBStorage("sqlite://", {"creator": self._connect}),
                study_name=NAME,
                direction="maximize" if config.judge == "val_acc" else "minimize",
                pruner={
                    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
                    "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(1, ETA),
                    "hyperband": lambda: optuna.pruners.HyperbandPruner(1, recipe.fit.epochs, ETA),
                    "none": optuna.pruners.NopPruner,
                }[pruner](),
                load_if_exists=True,
            )
            self._enqueue(recipe)
            running = self._study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
            self._left = [trial._trial_id for trial in running]  # of a process that is gone

    def next(self) -> Trial | None:
        """Return the next trial, first those that an earlier process left; None after the last.

        One that ended at once has its outcome.
        """
        with self._optuna() as optuna:
            if self._left:
                optuna_trial = optuna.Trial(self._study, self._left.pop(0))
            else:
                begun = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.name != "WAITING"]
                if len(begun) >= self.total:
                    return None
                optuna_trial = self._study.ask()
            self._seed(optuna_trial.number)
            _ = optuna_trial.relative_params  # draws what is drawn together, before the sampler of any single one
            drawn: dict[str, Any] = {}

            def draw(dimension: Dimension) -> Any:
                self._seed(optuna_trial.number, dimension.name)
                drawn[dimension.name] = _draw(optuna_trial, dimension)
                return drawn[dimension.name]

            trial = Trial(optuna_trial.number + 1, drawn, self.space.settings(draw))
            self._open[trial.number] = optuna_trial
            return self._take_over(trial) or trial

    def go_on(self, trial: Trial, epoch: int, value: float) -> bool:
        """Tell whether a trial is worth another epoch after this one, counted from 1, at which it was judged.

        After its last there is nothing left to save: it counts as finished.
        """
        with self._optuna():
            optuna_trial = self._open[trial.number]
            optuna_trial.report(
                value, epoch
            )  # an epoch that is repeated after an interruption is known, with the same value
            return epoch == self.epochs or not optuna_trial.should_prune()

    def end(self, trial: Trial, outcome: Outcome, same_as: int | None = None) -> Trial:
        """Keep how a trial ended; one that cannot be judged has failed."""
        if outcome.state == "finished" and (outcome.value is None or not math.isfinite(outcome.value)):
            reason = f"its {self.config.judge} is not finite"
            outcome = Outcome("failed", None, outcome.epochs, outcome.seconds, reason)
        with self._optuna() as optuna:
            optuna_trial = self._open.pop(trial.number)
            for name, value in {**asdict(outcome), "same_as": same_as}.items():
                optuna_trial.set_user_attr(name, value)
            states = optuna.trial.TrialState
            state = {"finished": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[outcome.state]
            self._study.tell(optuna_trial, outcome.value if outcome.state == "finished" else None, state)
        return Trial(trial.number, trial.drawn, trial.settings, outcome, same_as)

    @property
    def begins_with_recipe(self) -> bool:
        """True where the first trial is the recipe as it is."""
        return self._first is not None

    def trials(self) -> list[Trial]:
        """Return all trials that have ended, by their numbers."""
        with self._optuna():
            return [self._ended(trial) for trial in self._study.get_trials() if trial.state.is_finished()]

    def ranked(self) -> list[Trial]:
        """Return the finished trials, best first; of equals the earlier."""
        finished = [trial for trial in self.trials() if trial.ended.state == "finished"]
        sign = -1 if self.config.judge == "val_acc" else 1
        return sorted(finished, key=lambda trial: sign * (trial.ended.value or 0.0))

    def _ended(self, trial: "optuna.trial.FrozenTrial") -> Trial:
        kept = dict(trial.user_attrs)
        same_as = kept.pop("same_as")
        settings = self.space.settings(lambda dimension: trial.params[dimension.name])
        return Trial(trial.number + 1, trial.params, settings, Outcome(**kept), same_as)

    def _seed(self, *what: int | str) -> None:
        from optuna.samplers import TPESampler

        seed = derived_seed(self.config.seed, *what) % 2**32
        self._study.sampler = TPESampler(seed=seed, n_startup_trials=RANDOM, multivariate=True, constant_liar=True)

    def _enqueue(self, recipe: Recipe) -> None:
        """Put first what leaves the recipe as it is; and where there is a trial for every drawing, all the others."""
        self._first = self.space.drawing_of(recipe)
        if self._first is not None:
            self._study.enqueue_trial(self._first, skip_if_exists=True)
        if self.space.size <= self.config.trials:
            drawings = list(self.space.drawings())
            random.Random(self.config.seed).shuffle(drawings)
            for drawing in drawings:
                self._study.enqueue_trial(drawing, skip_if_exists=True)

    def _take_over(self, trial: Trial) -> Trial | None:
        """Give a trial the outcome of an earlier one that it repeats, if there is one."""
        for earlier in self.trials():
            if earlier.settings == trial.settings and earlier.number < trial.number:
                return self.end(trial, earlier.ended, same_as=earlier.number)
        return None

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=WAIT_SECONDS, check_same_thread=False)

    @contextmanager
    def _optuna(self) -> Iterator[Any]:
        """Lend Optuna, which says nothing by itself meanwhile."""
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="optuna")
                yield optuna
        except (optuna.exceptions.StorageInternalError, SQLAlchemyError, sqlite3.Error) as error:
            reason = " ".join(str(error.__cause__ or error).split("[SQL")[0].split())
            raise StorageError(
                f"{self.path} cannot be read or written ({reason}); end whatever else uses it, or mend the disk, and"
                " continue."
            ) from error
        finally:
            optuna.logging.set_verbosity(before)


def _draw(trial: "optuna.Trial", dimension: Dimension) -> Any:
    """Draw a number, or the name of an option; what was drawn before an interruption is drawn again."""
    name = dimension.name
    if isinstance(dimension, Choice):
        return trial.suggest_categorical(name, list(dimension.options))
    low, high, step, log = dimension.low, dimension.high, dimension.step, dimension.log
    if dimension.whole:
        return trial.suggest_int(name, int(low), int(high), step=int(step or 1), log=log)
    return trial.suggest_float(name, low, high, step=step, log=log)
