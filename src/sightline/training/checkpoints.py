"""Checkpoints that survive a kill: when they are saved, and how a file is written."""

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from sightline.runs.writing import rename, storage_error
from sightline.training.module import Learner, agreed
from sightline.training.resume_point import LAST, PREVIOUS

__all__ = ["AtomicCheckpointIO", "AtomicCheckpoints"]

CHECK_EVERY = 50  # steps between two looks at whether the loss is finite
NO_ROOM = 1 << 20  # bytes; with fewer left, a write that failed has filled the disk


class AtomicCheckpoints(Checkpoint):
    """Saves ``last.ckpt`` at each epoch's end, and within an epoch when some seconds have passed.

    Within an epoch only right after an optimizer step: gradients that accumulate are not part of a checkpoint. A
    state whose loss is not finite is never saved.
    """

    def __init__(self, run: Path, seconds: float) -> None:
        self.path = run / LAST
        self.seconds = seconds
        self.saved_at = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % CHECK_EVERY == 0:
            pl_module.refuse_non_finite()
        last = batch_idx + 1 == trainer.num_training_batches  # the end of the epoch follows
        due = agreed(trainer, time.monotonic() - self.saved_at >= self.seconds)
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if due and stepped and not last:
            self._save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._save(trainer, pl_module)

    def _save(self, trainer: L.Trainer, learner: Learner) -> None:
        learner.refuse_non_finite()
        trainer.save_checkpoint(self.path, weights_only=False)
        self.saved_at = time.monotonic()


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
                rename(path, path.with_name(PREVIOUS))
            rename(temporary, path)
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
    """Return why a write of torch failed: what the system said, or that the disk is full, or its own words."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError):
            return at
        at = at.__cause__ or at.__context__
    if shutil.disk_usage(folder).free < NO_ROOM:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(None, str(error))
