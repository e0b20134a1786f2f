"""The time that a training was given, and the epoch at which it ends for it."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from sightline.display.terminal import show

__all__ = ["Deadline"]


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

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        trainer.should_stop = trainer.should_stop or self.stopped

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
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
