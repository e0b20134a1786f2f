"""The Lightning Trainer: devices, precision, checkpoints that survive a kill, the log of epochs, the live bar."""

import errno
import logging
import os
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, GradientAccumulationScheduler, LearningRateMonitor
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import PassThroughProfiler
from rich.console import Console

from sightline.config import AnyRecipe, Recipe, phase_epochs
from sightline.display.terminal import show
from sightline.machine.cores import adjust_threads, current_share
from sightline.machine.devices import arithmetic, choose_device, convolution_flops
from sightline.runs.writing import storage_error, write_csv
from sightline.training.callbacks.averaging import Averaging, Chosen
from sightline.training.callbacks.freezing import Finetuning, SteadyNorms
from sightline.training.callbacks.progress import EpochBar
from sightline.training.checkpoints import LAST, PREVIOUS
from sightline.training.module import Learner, validated
from sightline.training.optimizers import main_rate

__all__ = [
    "AfterEpoch",
    "AtomicCheckpoints",
    "CompiledSteps",
    "CostMeter",
    "EpochLog",
    "build_trainer",
]

CHECK_EVERY = 50  # steps between two looks at whether the loss is finite
TRACK_EVERY = 50  # steps between two learning rates in the trackers
SIZES = 64  # of images and batches that may be compiled for
NO_ROOM = 1 << 20  # bytes; with fewer left, a write that failed has filled the disk
PROBE_WORTH = 15.0  # seconds an epoch must take before another probe of 0.3 s is worth it

_NOTHING: AbstractContextManager[Any] = nullcontext()


def build_trainer(
    recipe: AnyRecipe,
    run: Path,
    console: Console | None,
    trackers: Sequence[Logger] = (),
    after_epoch: Callable[[int, dict[str, float]], None] | None = None,
    more: Sequence[Callback] = (),
) -> L.Trainer:
    """Make the Lightning Trainer of a run.

    Args:
        recipe: the settings.
        run: folder of the run; checkpoints and ``metrics.csv`` go there.
        console: where the live bar is drawn; None draws nothing.
        trackers: what gets the rates of the steps and the numbers of the epochs.
        after_epoch: is told each epoch, from 1, and its numbers.
        more: callbacks of a kind of learner, called before the checkpoints are written.
    """
    # of Lightning's own: about its internals, or about choices that are made here on purpose
    for room in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(room).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*recommended to use `self.log.*sync_dist.*")  # they are sums over all
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*eval mode at the start of training.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    fit, device = recipe.fit, choose_device()
    dtype = arithmetic(fit.precision, device)
    scheduled = isinstance(fit.accumulate, dict)
    averaging = None if recipe.averaging is None else Averaging(recipe.averaging, fit.epochs)
    classifier = recipe if isinstance(recipe, Recipe) else None
    chooses = classifier is not None and (classifier.early_stopping is not None or fit.keep != "last")
    log = EpochLog(run)
    return L.Trainer(
        max_epochs=fit.epochs,
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=fit.processes,
        strategy=_strategy(recipe),
        precision={  # type: ignore[arg-type]
            torch.bfloat16: "bf16-mixed",
            torch.float16: "16-mixed",
            torch.float32: "32-true",
        }[dtype],
        deterministic=fit.deterministic,
        benchmark=not fit.deterministic,
        accumulate_grad_batches=1 if scheduled else fit.accumulate,  # type: ignore[arg-type]
        gradient_clip_val=recipe.clip.limit if recipe.clip else None,
        gradient_clip_algorithm=recipe.clip.kind if recipe.clip else None,
        callbacks=[
            CostMeter(dtype),
            SharedCores(console),
            log,
            *([EpochBar(console)] if console else []),
            *([Accumulation(fit.accumulate)] if scheduled else []),  # type: ignore[arg-type]
            *([averaging] if averaging else []),
            *([Chosen(classifier, averaging)] if classifier and chooses else []),
            *([Finetuning(classifier, averaging, console)] if classifier and classifier.finetune else []),
            *([SteadyNorms()] if classifier and classifier.probe else []),
            *([LearningRateMonitor("step")] if trackers else []),
            *([CompiledSteps()] if fit.compile else []),
            *more,
            *([AfterEpoch(log, after_epoch)] if after_epoch else []),
            AtomicCheckpoints(run, fit.checkpoint_seconds),
        ],
        plugins=[AtomicCheckpointIO()],
        profiler=NoProfiler(),
        logger=trackers or False,
        log_every_n_steps=recipe.track.every or TRACK_EVERY,
        default_root_dir=run,
        check_val_every_n_epoch=fit.validate_every or fit.epochs,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _strategy(recipe: AnyRecipe) -> str:
    """How processes train together.

    What they exchange is settled before the first step; where phases change it, each step looks for the parameters that learn.
    """
    if recipe.fit.processes == 1:
        return "auto"
    phases = len(phase_epochs(recipe.finetune, recipe.fit.epochs))
    return "ddp" if phases == 1 else "ddp_find_unused_parameters_true"


class NoProfiler(PassThroughProfiler):
    """Profiles nothing, as Lightning's own does, at a sixth of its cost: every hook of a step, 37 of them, asks it."""

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return _NOTHING


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside its name, syncs, renames, and keeps the one before; reads without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        temporary = path.with_name(f".{path.name}.partial")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                os.replace(path, path.with_name(PREVIOUS))
            os.replace(temporary, path)
        except OSError as error:
            raise storage_error(path.parent, error) from error
        except RuntimeError as error:  # how torch reports whatever ended a write
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise storage_error(path.parent, _cause(error, path.parent)) from error
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return dict(torch.load(path, map_location=map_location or "cpu", weights_only=True))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def _cause(error: RuntimeError, folder: Path) -> OSError:
    """Why a write of torch failed: what the system said to it, or that the disk has no room left, or its own words."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError):
            return at
        at = at.__cause__ or at.__context__
    if shutil.disk_usage(folder).free < NO_ROOM:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(None, str(error))


class AtomicCheckpoints(Checkpoint):
    """Saves ``last.ckpt`` at each epoch's end, and within an epoch when some seconds have passed.

    Within an epoch only right after an optimizer step: gradients that accumulate are not part of a checkpoint. A state whose
    loss is not finite is never saved.
    """

    def __init__(self, run: Path, seconds: float) -> None:
        self.path = run / LAST
        self.seconds = seconds
        self.saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Learner)
        if (batch_idx + 1) % CHECK_EVERY == 0:
            pl_module.refuse_non_finite()
        last = batch_idx + 1 == trainer.num_training_batches  # the end of the epoch follows
        due = self._agreed(trainer, time.monotonic() - self.saved_at >= self.seconds)
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if due and stepped and not last:
            self._save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        self._save(trainer, pl_module)

    def _save(self, trainer: L.Trainer, learner: Learner) -> None:
        learner.refuse_non_finite()
        trainer.save_checkpoint(self.path, weights_only=False)
        self.saved_at = time.monotonic()

    @staticmethod
    def _agreed(trainer: L.Trainer, due: bool) -> bool:
        """Clocks differ between processes: rank zero decides."""
        return bool(trainer.strategy.broadcast(due)) if trainer.world_size > 1 else due


class Accumulation(GradientAccumulationScheduler):
    """Lightning's, which is not told of the start of an epoch that is resumed within."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.on_train_epoch_start(trainer)


class CompiledSteps(Callback):
    """Training steps run compiled; validation, whose batches have other sizes, and all that follows run as written.

    Every size is compiled by itself: one program for all sizes would be made for the sizes seen so far, and a resumed
    training, which sees others first, would end in other bits.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        dynamo = torch._dynamo.config
        dynamo.recompile_limit = max(dynamo.recompile_limit, SIZES)  # beyond it the network would run as written
        pl_module.network.compile(dynamic=False)
        self._compiled = pl_module.network._compiled_call_impl

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.network._compiled_call_impl = None  # type: ignore[union-attr]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.network._compiled_call_impl = self._compiled  # type: ignore[union-attr]

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.network._compiled_call_impl = None  # type: ignore[union-attr]


class CostMeter(Callback):
    """Seconds of the fit, and the speed of the machine meanwhile. Kept in checkpoints, so a resumed run counts all.

    The probes' own time is not counted.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.seconds = 0.0
        self.probes: list[float] = []
        self.began = False
        self._epoch_seconds = float("inf")
        self._since = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = True  # all that a checkpoint holds is restored
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._count()
        adjust_threads()
        if self._epoch_seconds >= PROBE_WORTH:
            own = torch.tensor(convolution_flops(pl_module.device, self.dtype), device=pl_module.device)
            self.probes.append(float(trainer.strategy.reduce(own, reduce_op="sum")))  # of all processes together
        self._since = time.perf_counter()
        self._epoch_seconds = 0.0

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._count()

    def state_dict(self) -> dict[str, Any]:
        self._count()
        return {"seconds": self.seconds, "probes": self.probes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.probes = state_dict["seconds"], list(state_dict["probes"])

    @property
    def probe_flops(self) -> float:
        """Median of the probes, in floating-point operations a second."""
        return statistics.median(self.probes)

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._since
        self._epoch_seconds += now - self._since
        self._since = now


class SharedCores(Callback):
    """Trains on a share of the cores while other programs of ours compute, and says so."""

    def __init__(self, console: Console | None) -> None:
        self.console = console

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._say()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if adjust_threads():
            self._say()

    def _say(self) -> None:
        share = current_share()
        if self.console is not None and share is not None and share.programs > 1:
            threads = torch.get_num_threads()
            show(
                f"{share.programs} programs of sightline share the cores: {threads} thread{'s' * (threads > 1)}"
                " for this one; its last digits depend on that",
                self.console,
            )


class EpochLog(Callback):
    """Writes ``metrics.csv``, a line an epoch. The lines travel in the checkpoint, so resuming repeats none."""

    def __init__(self, run: Path) -> None:
        self.path = run / "metrics.csv"
        self.rows: list[dict[str, float]] = []
        self._start = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            self._rate = main_rate(trainer.optimizers[0])  # of the epoch's last step; the next may begin a phase

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._train_seconds = time.perf_counter() - self._start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        seconds = time.perf_counter() - self._start
        measured = validated(trainer)
        losses = [f"{stage}_{measure}" for stage in ("train", "val") for measure in pl_module.measures]
        names = [name for name in losses if measured or not name.startswith("val_")]
        known = {name: float(value) for name, value in trainer.callback_metrics.items() if name in names}
        images = len(trainer.datamodule.splits.train)  # type: ignore[attr-defined]
        spent = self._train_seconds if measured else seconds
        epoch = trainer.current_epoch
        phase = {"phase": pl_module.phase_at(epoch) + 1} if len(pl_module.phases) > 1 else {}
        speed = {"seconds": round(seconds, 3), "images_per_second": round(images / spent, 1)}
        self.rows.append({"epoch": epoch + 1} | phase | known | {"learning_rate": self._rate} | speed)
        if trainer.is_global_zero:
            columns = ["epoch", *phase, *losses, "learning_rate", *speed]
            lines = [[row.get(name, "") for name in columns] for row in self.rows]
            write_csv(self.path, columns, lines)
        for tracker in trainer.loggers:
            tracker.log_metrics(self.rows[-1], step=trainer.global_step - 1)  # the epoch's last step

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


class AfterEpoch(Callback):
    """Tells each epoch and its numbers to whoever may end the training by an exception.

    It comes before the checkpoint, so an epoch that a resumed training does not repeat was told and borne.
    """

    def __init__(self, log: EpochLog, tell: Callable[[int, dict[str, float]], None]) -> None:
        self.epochs = log  # Lightning gives a callback a ``log`` of its own
        self.tell = tell

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        pl_module.refuse_non_finite()
        self.tell(trainer.current_epoch + 1, dict(self.epochs.rows[-1]))
