"""Averages of the weights, and the weights of the best validation: what is saved in place of the last step's."""

from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sightline.config.fitting import EMAConfig, SWAConfig
from sightline.config.settings import Recipe
from sightline.data.batches import Batch, derived_seed
from sightline.errors import TrainingError
from sightline.machine.devices import seed_generators
from sightline.training.module import Learner, validated
from sightline.training.schedules import Best, Steps

__all__ = ["Averaging", "Chosen", "measure_norms", "put_in_chosen"]

NORM_IMAGES = 2_000  # training images by which batch-norm's statistics of averaged weights are measured


class Averaging(WeightAveraging):
    """Keeps a mean of the weights beside them, and validates it.

    EMA mixes the weights in at every step, and batch-norm's statistics with them: they are running means themselves.
    SWA takes them at the ends of epochs, which lie far apart: no mean of their statistics fits the mean of the
    weights, so those are measured anew, on some training images.
    """

    def __init__(self, config: EMAConfig | SWAConfig, epochs: int) -> None:
        self.config = config
        self._first_epoch = config.start * epochs
        self._updates = 0  # of the mean, as the host counts them
        ema = isinstance(config, EMAConfig)
        # the count of updates stays on the processor: on the device, each step would wait for it
        super().__init__(device="cpu", use_buffers=ema, multi_avg_fn=self._mix if ema else None)

    @property
    def network(self) -> nn.Module | None:
        """The averaged network; None before the averaging begins."""
        average = self._average_model
        return None if average is None or not average.n_averaged else average.module.network  # type: ignore[union-attr, return-value]

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._steps: Steps = pl_module.steps
        before = self._latest_update_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if isinstance(self.config, SWAConfig) and self._latest_update_step > before:
            self._measure_norms(trainer, pl_module)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        if step_idx is None:
            return False
        first = self._steps.at(self._first_epoch)
        self._updates = int(step_idx - first)
        if isinstance(self.config, EMAConfig):
            return step_idx >= first
        return step_idx >= first and step_idx + 1 in self._steps.starts  # the last step of an epoch

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.network is not None:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.network is not None:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Nothing: ``put_in_chosen`` does it, as a training that resumes after its last epoch never gets here."""

    def _mix(self, averaged: Any, current: Any, _: Any) -> None:
        assert isinstance(self.config, EMAConfig)
        decay = min(self.config.decay, (1 + self._updates) / (10 + self._updates))
        get_ema_multi_avg_fn(decay)(averaged, current, None)  # type: ignore[no-untyped-call]

    def _measure_norms(self, trainer: L.Trainer, learner: Learner) -> None:
        assert self.network is not None
        seed_generators(
            learner.device, derived_seed(learner.recipe.fit.seed, "averaging", trainer.global_step)
        )  # dropout
        for module, own in zip(self.network.modules(), learner.network.modules(), strict=True):
            module.training = own.training  # what is frozen keeps its statistics
        with trainer.precision_plugin.forward_context():
            measure_norms(self.network, trainer.datamodule.sample(NORM_IMAGES))  # type: ignore[attr-defined]


@torch.no_grad()
def measure_norms(network: nn.Module, batches: Iterable[Batch]) -> None:
    """Set the statistics of every batch-norm in training mode to the means of those of some batches.

    As ``torch.optim.swa_utils.update_bn``, which would bring what is frozen into training mode.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.training]
    memories = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    for batch in batches if norms else ():
        network(batch.images)
    for norm, momentum in zip(norms, memories, strict=True):
        norm.momentum = momentum


class BestWeights:
    """The weights of the best validation so far, averaged where an average has begun.

    They travel in the checkpoint, as one file: no kill can come between the two.
    """

    def __init__(self, monitor: str, averaging: Averaging | None) -> None:
        self.averaging = averaging
        self.best = Best(monitor)
        self.epoch = 0  # of the best validation, counted from 1
        self.weights: dict[str, Tensor] = {}

    def look(self, trainer: L.Trainer, learner: Learner) -> float:
        """Look at a validation that has ended, and keep the weights where it is the best; returns what was measured."""
        learner.refuse_non_finite()
        value = float(trainer.callback_metrics[self.best.monitor])
        if self.best.see(value):
            self.epoch = trainer.current_epoch + 1
            network = (self.averaging and self.averaging.network) or learner.network
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        return value

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best.state_dict(), "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best.load_state_dict(state["best"])
        self.epoch, self.weights = state["epoch"], state["weights"]


class Chosen(Callback):
    """Keeps the weights of the best validation, and stops a training that has not improved for a while."""

    def __init__(self, recipe: Recipe, averaging: Averaging | None) -> None:
        stopping = recipe.early_stopping
        self.kept = BestWeights(stopping.monitor if stopping else recipe.fit.keep, averaging)
        self.improved = Best(stopping.monitor, stopping.min_delta) if stopping else None
        self.patience = stopping.patience if stopping else 0
        self.stopped_after = 0  # epochs; 0: not stopped early

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        trainer.should_stop = bool(self.stopped_after)  # of a training that was killed after it had stopped

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not validated(trainer):
            return
        value = self.kept.look(trainer, pl_module)
        if self.improved is not None and not self.improved.see(value) and self.improved.since >= self.patience:
            self.stopped_after = trainer.current_epoch + 1
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        improved = self.improved.state_dict() if self.improved else None
        return self.kept.state_dict() | {"improved": improved, "stopped_after": self.stopped_after}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.kept.load_state_dict(state_dict)
        if self.improved:
            self.improved.load_state_dict(state_dict["improved"])
        self.stopped_after = state_dict["stopped_after"]


def put_in_chosen(trainer: L.Trainer, learner: Learner) -> dict[str, Any] | None:
    """Put the weights that a training hands on into its network: the best, or the averaged, or those it has.

    Returns:
        Where a validation chose them: its ``epoch`` (from 1), the ``monitor``, its ``value``, and after how many
            epochs the training ``stopped_after`` because of it (0: it did not).
    Raises:
        TrainingError: no validation was finite.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, Chosen):
            kept = callback.kept
            if not kept.weights:
                raise TrainingError(
                    f"no validation had a finite {kept.best.monitor}, so there are no best weights; try a smaller rate"
                    " or --fit.precision float32."
                )
            learner.network.load_state_dict(kept.weights)
            return {
                "epoch": kept.epoch,
                "monitor": kept.best.monitor,
                "value": kept.best.value,
                "stopped_after": callback.stopped_after,
            }
    for callback in callbacks:
        if isinstance(callback, Averaging) and callback.network is not None:
            learner.network.load_state_dict(callback.network.state_dict())
    return None
