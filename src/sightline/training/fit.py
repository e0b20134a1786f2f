"""The fit of a plan by Lightning: from a run's last checkpoint, or from the beginning, to the weights that it leaves."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from sightline.data.batches import TrainingBatches, augmentation_of
from sightline.display.pictures import drawing
from sightline.display.terminal import show
from sightline.errors import ConfigError, Interrupted, RunError, TrainingError, shortened
from sightline.models.acgan import ACGAN
from sightline.runs.folder import helped, run_to_help
from sightline.training.batch_picture import draw_batch
from sightline.training.callbacks.averaging import hand_on
from sightline.training.callbacks.samples import SampleGrid
from sightline.training.checkpoints import checkpoint_to_resume
from sightline.training.datamodule import ImageData
from sightline.training.job import AnyPlan, GeneratorPlan, Plan
from sightline.training.module import ACGANLearner, ClassifierLearner, DiffusionLearner, Learner, balanced_weights
from sightline.training.network import fit_to_images
from sightline.training.phases import Phase
from sightline.training.resume import as_found, changes_since
from sightline.training.summary import show_kept
from sightline.training.trackers import Tracker
from sightline.training.trainer import CostMeter, EpochLog, build_trainer

__all__ = ["Fitted", "fit", "help_fit"]

PATIENCE = 5.0  # seconds in which a process that lost its connection sees that the other one has ended


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves behind, besides the weights in the plan's network."""

    seconds: float
    """Of the fit, those before a resumption included."""
    probe_flops: float
    """Operations a second of the machine meanwhile."""
    kept: dict[str, Any] | None
    """Which validation chose the weights; None where none did."""
    phases: Sequence[Phase]
    """In which the same parameters learned."""
    losses: dict[str, float]
    """Of the last epoch."""
    epochs: int
    """That were trained."""
    steps: int


def fit(
    plan: AnyPlan,
    run: Path,
    trackers: list[Tracker],
    console: Console,
    after_epoch: Callable[[int, dict[str, float]], None] | None = None,
    deadline: float | None = None,
) -> Fitted:
    """Train the network of a plan, from the run's last checkpoint where there is one.

    Args:
        plan: what is trained.
        run: its folder.
        trackers: what gets the numbers, too.
        console: where progress is drawn.
        after_epoch: is told each epoch, from 1, and its numbers.
        deadline: by ``time.monotonic``, when the last epoch must have ended; a fit that would pass it ends earlier.
    Raises:
        Interrupted: Ctrl-C; the run can be resumed.
        TrainingError: a loss was not finite.
    """
    more: list[Any] = [Deadline(deadline, None if console.quiet else console)] if deadline is not None else []
    if isinstance(plan, GeneratorPlan):
        more.append(SampleGrid(run, plan.images.classes, plan.images.size, len(plan.splits.train), console))
    trainer = build_trainer(plan.recipe, run, None if console.quiet else console, trackers, after_epoch, more)
    checkpoint = checkpoint_to_resume(run)
    if checkpoint is None and run_to_help() is None:
        _picture(plan, run, console)
    start = time.perf_counter()
    if checkpoint is None and isinstance(plan, Plan) and plan.built.weights is None:
        fit_to_images(plan.network, plan.images, plan.splits.train, plan.normalization)
    plan.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner = _learner(plan)
    meter = next(callback for callback in trainer.callbacks if isinstance(callback, CostMeter))  # type: ignore[attr-defined]
    meter.seconds += time.perf_counter() - start
    threads = torch.get_num_threads()
    with helped(run) if plan.recipe.fit.processes > 1 else nullcontext():
        _run_trainer(trainer, learner, ImageData(plan.source, plan.recipe, plan.normalization), checkpoint, run)
    torch.set_num_threads(threads)  # of which Lightning gives each of several processes its share
    kept = hand_on(trainer, learner)
    if kept is not None:
        show_kept(console, kept, plan.recipe.fit.epochs)
    log = next(callback for callback in trainer.callbacks if isinstance(callback, EpochLog))  # type: ignore[attr-defined]
    losses = {name: value for name, value in log.rows[-1].items() if name.endswith("_loss")}
    return Fitted(meter.seconds, meter.probe_flops, kept, learner.phases, losses, len(log.rows), trainer.global_step)


def help_fit(plan: AnyPlan, run: Path) -> NoReturn:
    """Take a share of every batch of a fit that another process started, and end with it.

    Where the loss is not finite all stop at the same step, and the first process says so; where the first has ended,
    whatever it ended of is its to say. Any other failure ends with a status, at which Lightning ends the others, who
    would wait for ever.
    """
    first = os.getppid()
    changed = changes_since(run, plan)
    if changed:
        raise ConfigError(f"{run} is trained with other settings: {'; '.join(changed)}; start one training a program.")
    try:
        with suppress(TrainingError):
            fit(as_found(plan, run), run, [], Console(quiet=True))
    except RuntimeError as error:  # how torch.distributed reports a partner that is gone
        until = time.monotonic() + PATIENCE
        while os.getppid() == first and time.monotonic() < until:
            time.sleep(0.05)
        if os.getppid() == first:
            raise
        raise SystemExit(1) from error
    raise SystemExit(0)


class Deadline(Callback):
    """Ends a training before the epoch that would pass the time it was given; that it did travels in checkpoints."""

    def __init__(self, at: float, console: Console | None) -> None:
        """
        Args:
            at: by ``time.monotonic``, when the last epoch must have ended; infinity of a training that is resumed.
            console: where it is said.
        """
        self.at = at
        self.console = console
        self.stopped = False
        self._began = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.stopped

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ClassifierLearner)
        assert trainer.max_epochs
        now, done = time.monotonic(), trainer.current_epoch + 1
        if done == trainer.max_epochs:
            return
        scale, after = (pl_module.recipe.augment.scale(epoch, trainer.max_epochs) for epoch in (done - 1, done))
        if now + (now - self._began) * (after / scale) ** 2 > self.at:
            self.stopped = trainer.should_stop = True
            if self.console is not None:
                show(
                    f"stopped after epoch {done} of {trainer.max_epochs}: the machine has become"
                    " slower, and the time is used up",
                    self.console,
                )

    def state_dict(self) -> dict[str, Any]:
        return {"stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stopped = state_dict["stopped"]


def _learner(plan: AnyPlan) -> Learner:
    """What Lightning trains."""
    batches = -(-len(plan.splits.train) // plan.recipe.fit.batch_size)
    if isinstance(plan, GeneratorPlan):
        if isinstance(plan.network, ACGAN):
            return ACGANLearner(plan.network, plan.recipe, batches)
        return DiffusionLearner(plan.network, plan.recipe, batches)
    weighted = plan.recipe.fit.class_weights == "balanced"
    weights = balanced_weights(plan.images.labels[plan.splits.train], len(plan.images.classes)) if weighted else None
    return ClassifierLearner(plan.network, plan.recipe, batches, weights)


def _picture(plan: AnyPlan, run: Path, console: Console) -> None:
    """Write ``batch.png``, the first batch as the network sees it."""
    fit = plan.recipe.fit
    with drawing("batch.png", console):
        batches = TrainingBatches(
            plan.images,
            plan.splits.train,
            plan.normalization,
            augmentation_of(plan.recipe),
            batch_size=fit.batch_size,
            epochs=fit.epochs,
            seed=fit.seed,
            device=torch.device("cpu"),
            dtype=torch.float32,
            balanced=plan.recipe.data.sampling == "balanced",
        )
        draw_batch(run / "batch.png", batches.make(0, 0, batches.order(0)), plan.normalization, plan.images.classes)


def _run_trainer(trainer: L.Trainer, learner: Learner, data: ImageData, checkpoint: Path | None, run: Path) -> None:
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
        meter = next(callback for callback in trainer.callbacks if isinstance(callback, CostMeter))  # type: ignore[attr-defined]
        if checkpoint is None or meter.began or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = shortened(" ".join(str(error).split()) or type(error).__name__, 200)
        raise RunError(
            f"{checkpoint} does not fit this training ({reason}); copy the run again, or add --restart to begin at its first"
            " epoch."
        ) from error
