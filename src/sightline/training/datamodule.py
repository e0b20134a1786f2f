"""The LightningDataModule: batches of an opened image set, made on the device that trains."""

from typing import Any

import lightning as L
import torch

from sightline.config.settings import Recipe
from sightline.data.batches import Array, Batch, EvaluationBatches, TrainingBatches
from sightline.machine.devices import arithmetic
from sightline.models.base import Network
from sightline.training.base import Plan
from sightline.training.kept_features import Backbone, FeatureBatches, KeptEvaluation

__all__ = ["ImageData"]

VALIDATION_BATCH = 256  # images; larger batches fall out of the processor's cache


class ImageData(L.LightningDataModule):
    """Batches of an image set, made on the device that trains."""

    def __init__(self, plan: Plan) -> None:
        """
        Args:
            plan: of the training, whose images are opened; of several processes each has opened them by itself.
        """
        super().__init__()
        self.plan, self.recipe, self.splits, self.normalization = plan, plan.recipe, plan.splits, plan.normalization

    def train_dataloader(self) -> TrainingBatches:
        assert self.trainer is not None
        dtype = arithmetic(self.recipe.fit.precision, self._device)
        place: dict[str, Any] = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        backbone = self._frozen_backbone()
        if backbone is None:
            batches = self.plan.training_batches(self._device, dtype, **place)
        else:
            every = self._as_they_are(self.splits.train, shared=False)
            batches = self.plan.training_batches(
                self._device, dtype, kind=FeatureBatches, as_they_are=every, backbone=backbone, **place
            )
        # Lightning restores a loader's state only within an epoch; between two, the epoch is the loop's to say
        batches.epoch = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        return batches

    def val_dataloader(self) -> EvaluationBatches | KeptEvaluation:
        batches = self._as_they_are(self.splits.select if self.recipe.selects else self.splits.validation)
        backbone = self._frozen_backbone()
        return batches if backbone is None else KeptEvaluation(batches, backbone)

    def sample(self, images: int) -> EvaluationBatches:
        """Return at least so many training images (all, where there are fewer), as validation would see them."""
        train = self.splits.train
        return self._as_they_are(train[:: max(1, len(train) // images)])

    def _frozen_backbone(self) -> Backbone | None:
        """Return what computes the features that are kept; None where none are."""
        if not isinstance(self.recipe, Recipe) or not self.recipe.keeps_features:
            return None
        assert self.trainer is not None
        network: Network = self.trainer.lightning_module.network  # type: ignore[assignment]
        return Backbone(network, self.trainer.precision_plugin.forward_context)

    def _as_they_are(self, rows: Array, shared: bool = True) -> EvaluationBatches:
        """Return batches without augmentation: of this process's share of the images, or of all."""
        assert self.trainer is not None
        return EvaluationBatches(
            self.plan.images,
            rows,
            self.normalization,
            batch_size=VALIDATION_BATCH,
            device=self._device,
            dtype=arithmetic(self.recipe.fit.precision, self._device),
            rank=self.trainer.global_rank if shared else 0,
            world_size=self.trainer.world_size if shared else 1,
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch  # it was made there

    @property
    def _device(self) -> torch.device:
        assert self.trainer is not None
        return self.trainer.strategy.root_device
