"""The picture of a batch as the network sees it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sightline.data.batches import Batch, Normalization
from sightline.display.pictures import SIDE, draw_labeled

__all__ = ["draw_batch"]


def draw_batch(path: Path, batch: Batch, normalization: Normalization, classes: Sequence[str]) -> None:
    """Write a picture of the first images of a batch, as the network sees them, each with its class.

    Args:
        path: of the PNG file.
        batch: up to 64 of its images are shown; a mixed one with both classes and their shares.
        normalization: of the images.
        classes: names in the order of their indices.
    Raises:
        StorageError: the file cannot be written.
    """
    images = batch.images[: SIDE * SIDE].float().cpu().permute(0, 2, 3, 1).numpy()
    levels = images * np.maximum(normalization.std, 1 / 255) + normalization.mean  # as they were divided
    pixels = (levels * 255).round().clip(0, 255).astype(np.uint8)
    names = [classes[label] for label in batch.labels[: SIDE * SIDE].tolist()]
    labels = [[(name, 1.0)] for name in names]
    if batch.shares is not None and batch.partner_labels is not None:
        mixed = zip(names, batch.partner_labels.tolist(), batch.shares.tolist(), strict=False)  # of the images shown
        labels = [[(name, share), (classes[partner], 1 - share)] for name, partner, share in mixed]
    heading = (
        f"epoch {batch.epoch + 1}, batch {batch.position + 1}: {len(pixels)} of {len(batch.labels)} images,"
        f" {pixels.shape[2]}×{pixels.shape[1]} px, as the network sees them"
    )
    draw_labeled(path, pixels, labels, heading)
