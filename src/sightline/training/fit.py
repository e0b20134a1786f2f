"""Fit a plan by Lightning: from a run's last checkpoint, or from the beginning, to the weights that it leaves."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NoReturn

import lightning as L
import torch

from sightline.display.pictures import drawing
from sightline.display.reporting import Listener, ignore
from sightline.errors import ConfigError, Interrupted, RunError, TrainingError, shortened
from sightline.runs.folder import helped, read_model, run_to_help
from sightline.training.base import Plan, Trained
from sightline.training.batch_picture import draw_batch
from sightline.training.callbacks.averaging import put_in_chosen
from sightline.training.callbacks.cost import CostMeter, Deadline
from sightline.training.callbacks.epochs import EpochLog
from sightline.training.datamodule import ImageData
from sightline.training.module import Learner
from sightline.training.resume import as_found, changes_since
from sightline.training.resume_point import checkpoint_to_resume
from sightline.training.trackers import Tracker, tracked
from sightline.training.trainer import build_trainer, callback_of

__all__ = ["fit", "fitted", "help_fit"]

PATIENCE = 5.0  # seconds in which a process that lost its connection sees that the other one has ended


@contextmanager
def fitted(
    plan: Plan,
    run: Path,
    on_event: Listener,
    deadline: float | None = None,
) -> Iterator[Trained]:
    """Fit a plan, and give its trackers what the finished run was measured at; arguments as ``fit`` has them."""
    with tracked(plan.recipe, run, on_event) as trackers:
        trained = fit(plan, run, trackers, on_event, deadline)
        yield trained
        for tracker in trackers:
            tracker.log_final(read_model(run), trained.steps)


def fit(
    plan: Plan,
    run: Path,
    trackers: list[Tracker],
    on_event: Listener,
    deadline: float | None = None,
) -> Trained:
    """Train the network of a plan, from the run's last checkpoint where there is one.

    Args:
        plan: what is trained.
        run: its folder.
        trackers: what gets the numbers, too.
        on_event: where progress is drawn.
        deadline: by ``time.monotonic``, when the last epoch must have ended; a fit that would pass it ends earlier.
    Raises:
        Interrupted: Ctrl-C; the run can be resumed.
        TrainingError: a loss was not finite.
    """
    more = [Deadline(deadline, on_event)] if deadline is not None else []
    trainer = build_trainer(plan.recipe, run, on_event, trackers, [*more, *plan.callbacks(run, on_event)])
    checkpoint = checkpoint_to_resume(run)
    if checkpoint is None and run_to_help() is None:
        _picture(plan, run, on_event)
    start = time.perf_counter()
    learner = plan.learner(fresh=checkpoint is None)
    learner.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    meter = callback_of(trainer, CostMeter)
    meter.seconds += time.perf_counter() - start
    threads = torch.get_num_threads()
    data = ImageData(plan)
    with helped(run) if plan.recipe.fit.processes > 1 else nullcontext():
        _run_trainer(trainer, learner, data, checkpoint, run)
    torch.set_num_threads(threads)  # of which Lightning gives each of several processes its share
    kept = put_in_chosen(trainer, learner)
    if kept is not None:
        epochs = plan.recipe.fit.epochs
        stopped = f"stopped early, after epoch {kept['stopped_after']} of {epochs}; " if kept["stopped_after"] else ""
        on_event(f"{stopped}weights of epoch {kept['epoch']}: best {kept['monitor']}, {kept['value']:.4f}")
    rows = callback_of(trainer, EpochLog).rows
    return Trained(
        seconds=meter.seconds,
        probe_flops=meter.probe_flops,
        phases=learner.phases,
        epochs=len(rows),
        steps=trainer.global_step,
        losses={name: value for name, value in rows[-1].items() if name.endswith("_loss")},
        facts={} if kept is None else {"kept": kept},
    )


def help_fit(plan: Plan, run: Path) -> NoReturn:
    """Take a share of every batch of a fit that another process started, and end with it.

    Where the loss is not finite all stop at the same step, and the first process says so; where the first has ended,
    whatever it ended of is its to say. Any other failure ends with a status, at which Lightning ends the others, who
    would wait for ever.
    """
    first = os.getppid()
    plan = as_found(plan, run)
    changed = changes_since(run, plan)
    if changed:
        raise ConfigError(f"{run} is trained with other settings: {'; '.join(changed)}; start one training a program.")
    try:
        with suppress(TrainingError):
            fit(plan, run, [], ignore)
    except RuntimeError as error:  # how torch.distributed reports a partner that is gone
        until = time.monotonic() + PATIENCE
        while os.getppid() == first and time.monotonic() < until:
            time.sleep(0.05)
        if os.getppid() == first:
            raise
        raise SystemExit(1) from error
    raise SystemExit(0)


def _picture(plan: Plan, run: Path, on_event: Listener) -> None:
    """Write ``batch.png``, the first batch as the network sees it."""
    with drawing("batch.png", on_event):
        batches = plan.training_batches(torch.device("cpu"), torch.float32)
        draw_batch(run / "batch.png", batches.make(0, 0, batches.order(0)), plan.normalization, plan.images.classes)


def _run_trainer(trainer: L.Trainer, learner: Learner, data: ImageData, checkpoint: Path | None, run: Path) -> None:
    """Let Lightning train, and say in a sentence how it ended where it did not end well."""
    try:
        trainer.fit(learner, data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:
        if trainer.interrupted:  # how Lightning ends after Ctrl-C
            raise Interrupted(run) from error
        raise
    except TrainingError as error:
        kept = checkpoint_to_resume(run)
        state = f"The last good state is {kept}." if kept else "No state was good enough to keep."
        raise TrainingError(f"{error} {state}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        if checkpoint is None or callback_of(trainer, CostMeter).began or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = shortened(" ".join(str(error).split()) or type(error).__name__, 200)
        raise RunError(
            f"{checkpoint} does not fit this training ({reason}); copy the run again, or add --restart to begin at its"
            " first epoch."
        ) from error
