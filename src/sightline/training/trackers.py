"""Trackers: TensorBoard, Weights & Biases, MLflow and CSV. One that fails never costs a training.

All but MLflow, which has a store of its own, write below ``logs/`` in the run. A resumed training goes on in the same
TensorBoard folder, the same CSV file and the same run of W&B and MLflow; what was tracked after the checkpoint that it
continues from is tracked again, and taken out of the first two before.
"""

import csv
import io
import logging
import netrc
import os
import re
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from sightline.config.fitting import TrackConfig
from sightline.config.generating import AnyRecipe
from sightline.config.resolving import flatten, to_mapping
from sightline.data.sources.downloads import reachable
from sightline.display.reporting import Listener
from sightline.errors import shortened
from sightline.runs.writing import rename, write_atomically
from sightline.training.resume_point import steps_done

__all__ = ["TRACKERS", "Tracker", "final_numbers", "tracked"]

PROJECT = "sightline"  # of Weights & Biases, and experiment of MLflow, where none is named
REACH_SECONDS = 3.0  # for a host to take a connection; the libraries would try again and again by themselves
INIT_SECONDS = 20.0  # for Weights & Biases to answer; then the run stays in its folder
REASON = 200  # letters of what the library says
FINISH_SECONDS = 60.0  # for it to upload what is left at the end; then the rest stays in the folder, too
HURRY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""How often MLflow tries a request again, and for how many seconds, unless its user has said so; its own defaults would
hold a training up for minutes."""


@dataclass(frozen=True)
class Place:
    """The place that a tracker writes to, and from where it goes on."""

    run: Path
    step: int
    """Steps before the checkpoint that is continued from; 0: from the beginning."""
    settings: TrackConfig
    say: Callable[[str], None]
    """Takes what is good to know."""
    warn: Callable[[str], None]
    """Takes what went otherwise than asked."""

    @property
    def logs(self) -> Path:
        return self.run / "logs"


@contextmanager
def tracked(recipe: AnyRecipe, run: Path, on_event: Listener) -> Iterator[list["Tracker"]]:
    """Open the trackers of a recipe, give them its settings, and close them however the training ends.

    Args:
        recipe: names the trackers.
        run: folder of the run.
        on_event: where to say that one failed.
    """

    def warn(sentence: str) -> None:
        on_event(f"warning: {sentence}")

    place = Place(run, steps_done(run) if recipe.track.to else 0, recipe.track, on_event, warn)
    trackers = [Tracker(name, place) for name in recipe.track.to]
    settings = flatten(to_mapping(recipe))
    ended = 1
    try:
        for tracker in trackers:
            tracker.log_hyperparams(settings)
        yield trackers
        ended = 0
    finally:
        for tracker in trackers:
            tracker.close(ended)


class Tracker(Logger):
    """Hands on to a logger of Lightning's until that fails, which is said once; the training goes on without it."""

    def __init__(self, name: str, place: Place) -> None:
        super().__init__()
        self._name, self._place = name, place
        self._settings: dict[str, Any] = {}
        self._logger: Logger | None = None
        self._safely(self._open)

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._safely(lambda logger: logger.log_metrics(dict(metrics), step))

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        self._settings = dict(params)
        self._safely(lambda logger: logger.log_hyperparams(dict(params)))

    @rank_zero_only
    def save(self) -> None:
        self._safely(lambda logger: logger.save())

    def finalize(self, status: str) -> None:
        """Lightning calls this at the end of the fit; the final numbers are still to come."""
        self.save()

    @rank_zero_only
    def log_final(self, model: Mapping[str, Any], step: int) -> None:
        """Log what a finished run was measured at, from its ``model.json``, after ``step`` steps."""
        numbers = final_numbers(model)

        def work(logger: Logger) -> None:
            if isinstance(logger, TensorBoardLogger):  # shows the settings beside the numbers that they reached
                logger.log_hyperparams(self._settings, numbers, step)
            else:
                logger.log_metrics(numbers, step)

        self._safely(work)

    @rank_zero_only
    def close(self, status: int) -> None:
        """Write what is left; ``status`` is that of the process: 0 where all went well."""

        def work(logger: Logger) -> None:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=status)
            else:
                logger.finalize("failed" if status else "success")

        self._safely(work)
        self._logger = None

    @rank_zero_only
    def _open(self, _: None) -> None:
        self._logger = TRACKERS[self._name](self._place)

    def _safely(self, work: Callable[[Any], None]) -> None:
        if self._logger is None and work != self._open:
            return
        try:
            with _as_mlflow_needs() if self._name == "mlflow" else nullcontext():
                work(self._logger)
        except Exception as error:  # whatever a tracker raises: it must never cost a training
            self._logger = None
            reason = shortened(_without_password(" ".join(f"{type(error).__name__}: {error}".split())), REASON)
            self._place.warn(
                f"the tracker {self._name} failed and is left out from here on ({reason}); the training goes on, and"
                " metrics.csv gets its numbers."
            )


def final_numbers(model: Mapping[str, Any]) -> dict[str, float]:
    """Return the accuracy, interval, loss, calibration error and cost of a finished run, from its ``model.json``."""
    measured, cost = model.get("metrics", {}), model["cost"]
    numbers = {name: measured[name] for name in ("accuracy", "loss", "calibration_error") if name in measured}
    if "accuracy_interval" in measured:
        numbers["accuracy_low"], numbers["accuracy_high"] = measured["accuracy_interval"]
    numbers |= {name: value for name, value in cost.items() if isinstance(value, int | float)}
    return {f"final/{name}": float(value) for name, value in numbers.items()}


# ── the trackers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _tensorboard(place: Place) -> Logger:
    """Open event files in logs/tensorboard, for `tensorboard --logdir runs`; settings stand beside results."""
    goes_on: dict[str, Any] = (
        {"purge_step": place.step} if place.step else {}
    )  # hides what was tracked after the checkpoint
    return TensorBoardLogger(place.logs, name="tensorboard", version="", default_hp_metric=False, **goes_on)


def _wandb(place: Place) -> Logger:
    """Open a run of Weights & Biases, its files in logs/wandb; offline where asked, or without key or network."""
    import wandb

    known = place.logs / "wandb" / "id"
    known.parent.mkdir(parents=True, exist_ok=True)
    if not known.exists():
        write_atomically(known, secrets.token_hex(4).encode())
    account = wandb.setup().settings
    settings = wandb.Settings(
        console="off",  # it would put itself between us and the terminal
        silent=True,
        disable_code=True,
        disable_git=True,
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
    )

    def start(mode: str) -> WandbLogger:
        logger = WandbLogger(
            project=place.settings.project or PROJECT,
            name=place.run.name,
            save_dir=place.logs,
            id=known.read_text(),
            mode=mode,  # Lightning's own switch would set a variable of the whole process
            reinit="create_new",  # a run that the caller has open stays as it is
            settings=settings,
            config={"run": str(place.run)},
        )
        logger._wandb_init.pop("anonymous", None)  # wandb warns of it
        assert logger.experiment
        return logger

    later = f"upload it with `wandb sync {place.logs}/wandb/offline-run-*`"
    if place.settings.offline or os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        logger = start("offline")
        place.say(f"wandb: the run stays in its folder; {later}.")
    elif not _has_wandb_key(account):
        logger = start("offline")
        place.warn(f"wandb: there is no key (`wandb login` asks for one), so the run stays in its folder; {later}.")
    elif not reachable(account.base_url, REACH_SECONDS):
        logger = start("offline")
        host = urlsplit(account.base_url).hostname
        place.warn(f"wandb: {host} cannot be reached, so the run stays in its folder; {later}.")
    else:
        try:
            logger = start("online")
            place.say(f"wandb: {logger.experiment.url}")
        except Exception as error:  # a wrong key, a server that is down
            reason = " ".join(str(error).split())[:REASON]
            wandb.teardown()  # its service still holds the id of the run that could not begin
            logger = start("offline")
            place.warn(f"wandb: there was no connection ({reason}), so the run stays in its folder; {later}.")
    return logger


def _mlflow(place: Place) -> Logger:
    """Open a run of MLflow in the store that MLFLOW_TRACKING_URI names; without it in mlflow.db of the folder where you
    are.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # is read when mlflow is loaded
    import mlflow

    store, named = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    host = urlsplit(store)
    if host.scheme in ("http", "https") and not reachable(store, REACH_SECONDS):
        raise ConnectionError(f"{host.hostname} cannot be reached")
    known = place.logs / "mlflow" / "id"
    project = place.settings.project or PROJECT
    client, shown = mlflow.MlflowClient(store), _without_password(store)
    goes_on = known.read_text() if known.exists() else None
    if goes_on is not None and not _is_in_store(client, goes_on):
        place.warn(f"mlflow: {shown} has no run {goes_on}, which was begun; a new one goes on.")
        goes_on = None
    logger = MLFlowLogger(project, run_name=place.run.name, tracking_uri=store, run_id=goes_on)
    try:
        run = str(logger.run_id)
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # Lightning sets it for the whole process
        if named is not None:
            os.environ["MLFLOW_TRACKING_URI"] = named
    known.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(known, run.encode())
    client.update_run(run, status="RUNNING")
    client.set_tag(run, "sightline.run", str(place.run))
    place.say(f"mlflow: run {place.run.name} of the experiment {project} in {shown}")
    return logger


def _csv(place: Place) -> Logger:
    """Open a table in logs/csv/metrics.csv: a line for each step that is tracked, each epoch, and the final numbers."""
    path = place.logs / "csv" / "metrics.csv"
    before = path.with_name("before.csv")  # Lightning's logger deletes the rows of an earlier start
    if path.exists():
        rename(path, before)
    header, rows = _rows_before(before, place.step)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        logger = CSVLogger(place.logs, name="csv", version="", flush_logs_every_n_steps=1)
        writer: Any = logger.experiment
    if rows:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        write_atomically(path, text.getvalue().encode())
        writer.metrics_keys = header
    before.unlink(missing_ok=True)
    return logger


TRACKERS: dict[str, Callable[[Place], Logger]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "csv": _csv,
}


def _rows_before(path: Path, step: int) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a tracked table, as far as they were tracked before a step."""
    if not path.exists():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    column = header.index("step") if "step" in header else -1
    return header, [row for row in rows if len(row) == len(header) and column >= 0 and int(row[column]) < step]


def _has_wandb_key(settings: Any) -> bool:
    """Tell whether Weights & Biases would find a key by itself; where not, it would ask for one on a terminal."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or settings.api_key:
        return True
    try:
        return (
            netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(settings.base_url).hostname or "") is not None
        )
    except (OSError, netrc.NetrcParseError):
        return False


@contextmanager
def _as_mlflow_needs() -> Iterator[None]:
    """Have MLflow give up a store that does not answer within seconds, and tell nothing of a store that it makes."""
    added = {name: value for name, value in HURRY.items() if name not in os.environ}
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "lightning.pytorch.loggers.mlflow")]
    levels = [logger.level for logger in loggers]
    os.environ.update(added)
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in added:
            os.environ.pop(name, None)


def _is_in_store(client: Any, run: str) -> bool:
    """Tell whether a store of MLflow holds a run that can be written to."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _without_password(text: str) -> str:
    """Return text without what stands before the host of an address."""
    return re.sub(r"//[^/\s@]+@", "//", text)
