"""What Lightning trains: one short LightningModule a kind. The arithmetic is plain functions. B images, K classes."""

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.config import Recipe, SpeednetConfig
from sightline.devices import seed_generators
from sightline.errors import TrainingError
from sightline.images.batches import Batch, derived_seed
from sightline.nets import Network
from sightline.optimizers import build_optimizer
from sightline.schedules import falling, schedule

__all__ = ["ClassifierLearner", "Totals", "classification_loss"]

COUNT_EVERY = 50  # batches; their logits are kept until then


def classification_loss(network: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of a batch, in float32.

    Returns:
        The loss, a scalar, and the logits, (B, K).
    """
    logits = network(batch.images).float()
    return functional.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing), logits


class Totals:
    """Loss, right answers and images of an epoch.

    Batches are set aside and counted ``COUNT_EVERY`` at a time: counting each takes ten small operations a step, and on
    a GPU it would wait for the device. They are added in their order, so when one looks changes no digit.
    """

    def __init__(self) -> None:
        self._loss, self._right, self._images = 0.0, 0, 0
        self._first_bad_step: int | None = None
        self._waiting: list[tuple[Tensor, Tensor, Tensor, int]] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, step: int) -> None:
        """Count a batch: its mean loss, the logits, (B, K), and the classes, (B,), of step ``step``."""
        self._waiting.append((loss.detach(), logits.detach(), labels, step))
        if len(self._waiting) == COUNT_EVERY:
            self._count()

    @property
    def first_bad_step(self) -> int | None:
        """The first step whose loss was not finite; waits for the device."""
        self._count()
        return self._first_bad_step

    @property
    def sums(self) -> tuple[float, int, int]:
        """(sum of the losses, right answers, images) since the last ``take``; waits for the device."""
        self._count()
        return self._loss, self._right, self._images

    def take(self) -> tuple[float, int, int]:
        """The sums, which start again from zero."""
        sums = self.sums
        self._loss, self._right, self._images = 0.0, 0, 0
        return sums

    def state_dict(self) -> dict[str, Any]:
        return {"sums": list(self.sums), "first_bad_step": self.first_bad_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loss, self._right, self._images = state["sums"]
        self._first_bad_step = state["first_bad_step"]

    def _count(self) -> None:
        if not self._waiting:
            return
        losses, logits, labels, steps = zip(*self._waiting, strict=True)
        self._waiting = []
        self._right += int((torch.cat(logits).argmax(1) == torch.cat(labels)).sum())
        for loss, classes, step in zip(torch.stack(losses).tolist(), labels, steps, strict=True):
            self._loss += loss * len(classes)
            self._images += len(classes)
            if self._first_bad_step is None and not math.isfinite(loss):
                self._first_bad_step = step


class ClassifierLearner(L.LightningModule):
    """Trains a network to tell classes apart."""

    def __init__(self, network: Network, recipe: Recipe, steps_per_epoch: int) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.training_totals, self.validation_totals = Totals(), Totals()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        seed = derived_seed(self.recipe.fit.seed, batch.epoch, batch.position, self.global_rank)
        seed_generators(self.device, seed)
        self.network.train_whitening(self._whitening_learns(batch.epoch))
        loss, logits = classification_loss(self.network, batch, self.recipe.fit.label_smoothing)
        self.training_totals.add(loss, logits, batch.labels, batch.epoch * self.steps_per_epoch + batch.position)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss, logits = classification_loss(self.network, batch)
        self.validation_totals.add(loss, logits, batch.labels, -1)

    def on_validation_epoch_end(self) -> None:
        self._log_totals("val", self.validation_totals)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.trainer.is_last_batch:  # callbacks read it at the end of the epoch, before the module's own hook
            self._log_totals("train", self.training_totals)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.recipe.optimizer, self.network)
        curve = schedule(self.recipe.schedule, self.recipe.fit.epochs * self.steps_per_epoch, self.steps_per_epoch)
        whitening = falling(self._whitening_epochs(), self.steps_per_epoch)
        curves = [whitening if group["part"] == "whitening" else curve for group in optimizer.param_groups]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, curves)
        parts = [group["part"] for group in optimizer.param_groups]
        for index, group in enumerate(optimizer.param_groups):  # what the rates are called in trackers
            group["name"] = group["part"] if parts.count(group["part"]) == 1 else f"{group['part']}-{index}"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "rate"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["training_totals"] = self.training_totals.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_totals.load_state_dict(checkpoint["training_totals"])

    def refuse_non_finite(self) -> None:
        """Stop where a loss was not finite; waits for the device.

        Raises:
            TrainingError: with the step, the rate, and what to try.
        """
        step = self.training_totals.first_bad_step
        if step is not None:
            epoch, batch = divmod(step, self.steps_per_epoch)
            rate = self.recipe.optimizer.learning_rate
            shape = schedule(self.recipe.schedule, self.recipe.fit.epochs * self.steps_per_epoch, self.steps_per_epoch)
            raise TrainingError(
                f"the loss is not finite from step {step} on (epoch {epoch + 1}, batch {batch + 1}, learning rate"
                f" {rate * shape(step):.3g}); try --optimizer.learning-rate {rate / 10:g} or --fit.precision float32."
            )

    def _log_totals(self, stage: str, totals: Totals) -> None:
        sums = torch.tensor(totals.take(), dtype=torch.float32 if self.device.type == "mps" else torch.float64)
        over_processes = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
        loss, right, images = over_processes.tolist()
        means = {f"{stage}_loss": loss / max(images, 1), f"{stage}_acc": right / max(images, 1)}
        self.log_dict(means, logger=False)  # trackers get them from EpochLog, before the checkpoint is written

    def _whitening_epochs(self) -> float:
        network = self.recipe.network
        return network.whiten_bias_epochs if isinstance(network, SpeednetConfig) else 0.0

    def _whitening_learns(self, epoch: int) -> bool:
        # with several processes Lightning's ddp expects every parameter to take part; the rate is zero by then
        return epoch < self._whitening_epochs() or self.trainer.world_size > 1
