"""The cost of a training, the cores that it shares with other programs, and the epoch at which its time is up."""

import statistics
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from sightline.display.reporting import Listener
from sightline.machine.cores import adjust_threads, current_share
from sightline.machine.devices import convolution_flops
from sightline.training.module import agreed

__all__ = ["CostMeter", "Deadline", "SharedCores"]

PROBE_WORTH = 15.0  # seconds an epoch must take before another probe of 0.3 s is worth it


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

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.began = True  # all that a checkpoint holds is restored
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._count()
        adjust_threads()
        if agreed(trainer, self._epoch_seconds >= PROBE_WORTH):  # all take part, or none
            own = torch.tensor(convolution_flops(pl_module.device, self.dtype), device=pl_module.device)
            self.probes.append(float(trainer.strategy.reduce(own, reduce_op="sum")))  # of all processes together
        self._since = time.perf_counter()
        self._epoch_seconds = 0.0

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
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

    def __init__(self, on_event: Listener) -> None:
        self.on_event = on_event

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._say()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if adjust_threads():
            self._say()

    def _say(self) -> None:
        share = current_share()
        if share is not None and share.programs > 1:
            threads = torch.get_num_threads()
            self.on_event(
                f"{share.programs} programs of sightline share the cores: {threads} thread{'s' * (threads > 1)}"
                " for this one; its last digits depend on that"
            )


class Deadline(Callback):
    """Ends a training before the epoch that would pass the time it was given; that it did travels in checkpoints."""

    def __init__(self, at: float, on_event: Listener) -> None:
        """
        Args:
            at: by ``time.monotonic``, when the last epoch must have ended; infinity of a training that is resumed.
            on_event: where it is said.
        """
        self.at = at
        self.on_event = on_event
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
            self.on_event(
                f"stopped after epoch {done} of {trainer.max_epochs}: the machine has become slower, and the time is"
                " used up"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stopped = state_dict["stopped"]
