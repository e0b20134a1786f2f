"""Progress of a training: a live bar on a terminal, a plain line an epoch in a log."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from sightline.display.terminal import show
from sightline.display.waiting import spoken_seconds
from sightline.training.module import validated
from sightline.training.optimizers import main_rate

__all__ = ["EpochBar"]

READ_EVERY = 50  # steps between two looks at the loss on a GPU, where a look waits for it
REFRESH_SECONDS = 0.5


class EpochBar(Callback):
    """Epoch, loss and accuracy of train and validation, learning rate, images a second, time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self._validation = ""

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._started = time.perf_counter()
        self.on_train_epoch_start(trainer, pl_module)  # Lightning calls no start of an epoch that is resumed within
        self._batches_before = trainer.fit_loop.epoch_loop.total_batch_idx + 1  # of a resumed run
        if self.console.is_terminal and trainer.is_global_zero:
            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[text]}", markup=False),
                console=self.console,
            )
            self.task = self.bar.add_task("", text="")
            self.bar.start()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._epoch_started, self._images, self._refreshed = time.perf_counter(), 0, 0.0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._rate = main_rate(trainer.optimizers[0])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        self._images += len(batch.labels) * trainer.world_size
        self._speed = self._images / (now - self._epoch_started)
        if self.bar is None:
            return
        look = pl_module.device.type == "cpu" or batch_idx % READ_EVERY == 0
        if look and now - self._refreshed >= REFRESH_SECONDS:
            loss, right, images = pl_module.training_totals.sums
            accuracy = right / max(images, 1) if "acc" in pl_module.measures else None
            text = _numbers("train", loss / max(images, 1), accuracy) + self._validation
            text += f"  rate {self._rate:.3g}  {self._speed:,.0f} images/s  {self._left(trainer)} left"
            self._show(trainer, text, batch_idx + 1)
            self._refreshed = now

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        text = _numbers("train", metrics["train_loss"], metrics.get("train_acc"))
        if validated(trainer):
            self._validation = "  " + _numbers("val", metrics["val_loss"], metrics.get("val_acc"))
            text += self._validation
        if self.bar is None:
            done = trainer.current_epoch + 1
            show(
                f"epoch {done}/{trainer.max_epochs}  {text}  rate {self._rate:.3g}"
                f"  {self._speed:,.0f} images/s  {self._left(trainer)} left",
                self.console,
            )
        else:
            self._show(trainer, text, trainer.num_training_batches)  # type: ignore[arg-type]

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._stop()

    def _show(self, trainer: L.Trainer, text: str, done: int) -> None:
        assert self.bar is not None
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.bar.update(self.task, description=epoch, completed=done, total=trainer.num_training_batches, text=text)

    def _left(self, trainer: L.Trainer) -> str:
        """Time left at the pace so far, validation included."""
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        assert trainer.max_epochs is not None
        total = trainer.num_training_batches * trainer.max_epochs
        fresh = max(done - self._batches_before, 1)
        return spoken_seconds((time.perf_counter() - self._started) / fresh * (total - done))

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _numbers(name: str, loss: float | Tensor, accuracy: float | Tensor | None) -> str:
    return f"{name} loss {float(loss):.3f}" + ("" if accuracy is None else f" acc {float(accuracy):.3f}")
