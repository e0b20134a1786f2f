"""The numbers of each epoch: in ``metrics.csv`` and in the trackers."""

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from sightline.runs.writing import write_csv
from sightline.training.module import validated
from sightline.training.optimizers import main_rate

__all__ = ["EpochLog"]


class EpochLog(Callback):
    """Writes ``metrics.csv``, a line an epoch. The lines travel in the checkpoint, so resuming repeats none."""

    def __init__(self, run: Path | None) -> None:
        """
        Args:
            run: folder of the run; None where it is made behind the fit, by ``write``.
        """
        self.path = None if run is None else run / "metrics.csv"
        self.rows: list[dict[str, float]] = []
        self._columns: list[str] = []  # none before the first epoch of this process
        self._start = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            self._rate = main_rate(trainer.optimizers[0])  # of the epoch's last step; the next may begin a phase

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._train_seconds = time.perf_counter() - self._start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
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
        self._columns = ["epoch", *phase, *losses, "learning_rate", *speed]
        if trainer.is_global_zero and self.path is not None:
            self.write(self.path)
        for tracker in trainer.loggers:
            tracker.log_metrics(self.rows[-1], step=trainer.global_step - 1)  # the epoch's last step

    def write(self, path: Path) -> None:
        """Write a line for each epoch that has ended; there is at least one."""
        columns = self._columns or list(self.rows[-1])
        write_csv(path, columns, [[row.get(name, "") for name in columns] for row in self.rows])

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
