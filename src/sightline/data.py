"""The LightningDataModule over ``images/``."""

import lightning as L
import torch

from sightline.config import Recipe
from sightline.devices import arithmetic
from sightline.images.batches import Array, Batch, EvaluationBatches, Normalization, TrainingBatches, prepare
from sightline.images.cache import open_images
from sightline.images.sources import ImageSource

__all__ = ["ImageData"]

VALIDATION_BATCH = 256  # images; larger batches fall out of the processor's cache


class ImageData(L.LightningDataModule):
    """Batches of an image set, made on the device that trains."""

    def __init__(self, source: ImageSource, recipe: Recipe, normalization: Normalization | None = None) -> None:
        """
        Args:
            source: the image set.
            recipe: every setting of the training.
            normalization: of the weights that the training starts from; None for the set's own.
        """
        super().__init__()
        self.source = source
        self.recipe = recipe
        self._given = normalization

    def prepare_data(self) -> None:
        """Decode the set into its cache; runs in one process of a machine and assigns nothing."""
        open_images(self.source, self.recipe.data.size)

    def setup(self, stage: str) -> None:
        """Open the cache and cut the splits; runs in every process."""
        self.images, self.splits, measured = prepare(self.source, self.recipe)
        self.normalization = self._given or measured

    def train_dataloader(self) -> TrainingBatches:
        assert self.trainer is not None
        fit = self.recipe.fit
        batches = TrainingBatches(
            self.images,
            self.splits.train,
            self.normalization,
            self.recipe.augment,
            batch_size=fit.batch_size,
            epochs=fit.epochs,
            seed=fit.seed,
            device=self._device,
            dtype=arithmetic(fit.precision, self._device),
            balanced=self.recipe.data.sampling == "balanced",
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        # Lightning restores a loader's state only within an epoch; between two, the epoch is the loop's to say
        batches.epoch = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        return batches

    def val_dataloader(self) -> EvaluationBatches:
        return self._as_they_are(self.splits.select if self.recipe.selects else self.splits.validation)

    def sample(self, images: int) -> EvaluationBatches:
        """At least so many training images (all, where there are fewer), as validation would see them."""
        train = self.splits.train
        return self._as_they_are(train[:: max(1, len(train) // images)])

    def _as_they_are(self, rows: Array) -> EvaluationBatches:
        assert self.trainer is not None
        return EvaluationBatches(
            self.images,
            rows,
            self.normalization,
            batch_size=VALIDATION_BATCH,
            device=self._device,
            dtype=arithmetic(self.recipe.fit.precision, self._device),
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch  # it was made there

    @property
    def _device(self) -> torch.device:
        assert self.trainer is not None
        return self.trainer.strategy.root_device
