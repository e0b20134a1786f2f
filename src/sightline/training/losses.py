"""Losses of a classifier. B images, K classes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sightline.data.batches import Batch
from sightline.models.base import Network

__all__ = ["balanced_weights", "classification_loss", "generalized_cross_entropy"]

ROBUSTNESS = 0.7  # q of the generalized cross-entropy, that of the paper

Array = np.ndarray[Any, Any]


def classification_loss(
    network: Network,
    batch: Batch,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    answer_shift: Tensor | None = None,
    kind: str = "cross_entropy",
) -> tuple[Tensor, Tensor]:
    """Return the mean loss of a batch, in float32; of a mixed one, of both labels by their shares.

    With weights of the classes, (K,), that of each image times its class's weight: the weights are one on average over
    the training images, so the mean is divided by the images, and is the same for every number of processes. ``kind``
    is that of ``fit.loss``.

    Returns:
        The loss, a scalar, and the logits, (B, K).
    """
    logits = (network.classify(batch.images) if batch.features else network(batch.images)).float()
    if answer_shift is not None:  # of a classifier that was trained for other frequencies of the classes
        logits = logits + answer_shift
    if batch.shares is None and class_weights is None and kind == "cross_entropy":
        return functional.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing), logits

    def losses(labels: Tensor) -> Tensor:
        if kind == "cross_entropy":
            plain = functional.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
        else:
            plain = generalized_cross_entropy(logits, labels)
        # not by the loss's own weight=: with label smoothing that weighs the classes that are smoothed to as well, and
        # every image is pushed towards the rare class (recall 1.00 at an accuracy of 0.52 in bench-unbalanced)
        return plain if class_weights is None else plain * class_weights[labels]

    if batch.shares is None or batch.partner_labels is None:
        return losses(batch.labels).mean(), logits
    return torch.lerp(losses(batch.partner_labels), losses(batch.labels), batch.shares).mean(), logits


def generalized_cross_entropy(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Return (1 - p^q) / q of the probability p of each label, (B,): cross-entropy at q = 0, absolute error at q = 1.

    Source:
        Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels",
        NeurIPS 2018, eq. 6.
    """
    log_p_B = -functional.cross_entropy(logits_BK, labels_B, reduction="none")
    return -torch.expm1(ROBUSTNESS * log_p_B) / ROBUSTNESS


def balanced_weights(labels: Array, classes: int) -> Tensor:
    """Return weights that let every class count the same in all: images / (classes · images of the class), (K,)."""
    counts = torch.bincount(torch.from_numpy(labels), minlength=classes)
    return len(labels) / (classes * counts.float())
