"""How far a training is, as events: within an epoch twice a second, and at its end."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from sightline.display.events import Epoch
from sightline.display.reporting import Listener
from sightline.training.callbacks.epochs import EpochLog
from sightline.training.optimizers import main_rate

__all__ = ["EpochProgress"]

READ_EVERY = 50  # steps between two looks at the loss on a GPU, where a look waits for it
REFRESH_SECONDS = 0.5


class EpochProgress(Callback):
    """Reports epoch, loss and accuracy of train and validation, learning rate, images a second, time left.

    It comes before the checkpoint, so an epoch that a resumed training does not repeat was told and borne.
    """

    def __init__(self, log: EpochLog, on_event: Listener) -> None:
        self.epochs, self.on_event = log, on_event  # Lightning gives a callback a ``log`` of its own

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._started = time.perf_counter()
        self.on_train_epoch_start(trainer, pl_module)  # Lightning calls no start of an epoch that is resumed within
        self._batches_before = trainer.fit_loop.epoch_loop.total_batch_idx + 1  # of a resumed run

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._epoch_started, self._images, self._refreshed = time.perf_counter(), 0, 0.0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._rate = main_rate(trainer.optimizers[0])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        self._images += len(batch.labels) * trainer.world_size
        self._speed = self._images / (now - self._epoch_started)
        look = pl_module.device.type == "cpu" or batch_idx % READ_EVERY == 0
        if look and now - self._refreshed >= REFRESH_SECONDS:
            loss, right, images = (float(total) for total in pl_module.training_totals.sums)
            metrics = {"train_loss": loss / max(images, 1)}
            if "acc" in pl_module.measures:
                metrics["train_acc"] = right / max(images, 1)
            self._report(trainer, metrics, batch_idx + 1)
            self._refreshed = now

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.refuse_non_finite()
        self._report(trainer, self.epochs.rows[-1], int(trainer.num_training_batches), ended=True)

    def _report(self, trainer: L.Trainer, metrics: dict[str, float], done: int, *, ended: bool = False) -> None:
        if not trainer.is_global_zero:
            return
        assert trainer.max_epochs is not None
        self.on_event(
            Epoch(
                epoch=trainer.current_epoch + 1,
                epochs=trainer.max_epochs,
                done=done,
                total=int(trainer.num_training_batches),
                metrics=metrics,
                learning_rate=self._rate,
                images_per_second=self._speed,
                seconds_left=self._left(trainer),
                ended=ended,
            )
        )

    def _left(self, trainer: L.Trainer) -> float:
        """Seconds left at the pace so far, validation included."""
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        assert trainer.max_epochs is not None
        total = trainer.num_training_batches * trainer.max_epochs
        fresh = max(done - self._batches_before, 1)
        return (time.perf_counter() - self._started) / fresh * (total - done)
