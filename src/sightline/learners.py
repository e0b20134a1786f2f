"""What Lightning trains: one short LightningModule a kind. The arithmetic is plain functions. B images, K classes."""

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


def classification_loss(network: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of a batch, in float32.

    Returns:
        The loss, a scalar, and the logits, (B, K).
    """
    logits = network(batch.images).float()
    return functional.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing), logits


class Totals:
    """Loss, right answers and images of an epoch, kept on the device so that no step waits for it."""

    def __init__(self) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64)
        self.first_bad_step = torch.tensor(-1)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, step: int) -> None:
        """Count a batch; remember the first step whose loss was not finite."""
        if self.sums.device != loss.device:
            double = torch.float32 if loss.device.type == "mps" else torch.float64
            self.sums = self.sums.to(loss.device, double)
            self.first_bad_step = self.first_bad_step.to(loss.device)
        loss = loss.detach()
        right = (logits.detach().argmax(1) == labels).sum()
        self.sums += torch.stack([loss.double() * len(labels), right.double(), right.new_tensor(len(labels)).double()])
        bad = ~torch.isfinite(loss) & (self.first_bad_step < 0)
        self.first_bad_step = torch.where(bad, step, self.first_bad_step)

    def take(self) -> tuple[float, float]:
        """(mean loss, accuracy) since the last call; waits for the device."""
        loss, right, images = self.sums.tolist()
        self.sums = torch.zeros_like(self.sums)
        return loss / max(images, 1), right / max(images, 1)

    def state_dict(self) -> dict[str, Tensor]:
        return {"sums": self.sums.cpu(), "first_bad_step": self.first_bad_step.cpu()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.sums, self.first_bad_step = state["sums"], state["first_bad_step"]


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
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["training_totals"] = self.training_totals.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_totals.load_state_dict(checkpoint["training_totals"])

    def refuse_non_finite(self) -> None:
        """Stop where a loss was not finite; waits for the device.

        Raises:
            TrainingError: with the step, the rate, and what to try.
        """
        step = int(self.training_totals.first_bad_step)
        if step >= 0:
            epoch, batch = divmod(step, self.steps_per_epoch)
            rate = self.recipe.optimizer.learning_rate
            shape = schedule(self.recipe.schedule, self.recipe.fit.epochs * self.steps_per_epoch, self.steps_per_epoch)
            raise TrainingError(
                f"the loss is not finite from step {step} on (epoch {epoch + 1}, batch {batch + 1}, learning rate"
                f" {rate * shape(step):.3g}); try --optimizer.learning-rate {rate / 10:g} or --fit.precision float32."
            )

    def _log_totals(self, stage: str, totals: Totals) -> None:
        totals.sums = self.trainer.strategy.reduce(totals.sums, reduce_op="sum")  # over all processes
        loss, accuracy = totals.take()
        self.log_dict({f"{stage}_loss": loss, f"{stage}_acc": accuracy})

    def _whitening_epochs(self) -> float:
        network = self.recipe.network
        return network.whiten_bias_epochs if isinstance(network, SpeednetConfig) else 0.0

    def _whitening_learns(self, epoch: int) -> bool:
        # with several processes Lightning's ddp expects every parameter to take part; the rate is zero by then
        return epoch < self._whitening_epochs() or self.trainer.world_size > 1
