"""Label errors: heads on the features of a run judge labels that they did not see. N images, D features, K classes.

A linear head learns from four fifths of the features and is asked about the last fifth, five times over. Which of its
answers make a label suspect is decided by ``measures.metrics.suspected_labels``, as in the report of a run.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

__all__ = ["FOLDS", "folds_of", "out_of_fold"]

FOLDS = 5
DECAY = 1e-3  # of the squared weights, beside the mean loss, on features of unit variance
STEPS = 100  # of L-BFGS, which has converged long before

Array = np.ndarray[Any, Any]


def folds_of(hashes: Sequence[str]) -> Array:
    """Choose the fold of each image, (N,), by its hash: identical images share one, whatever else is in the set."""
    return np.array([int(digest[:8], 16) % FOLDS for digest in hashes], np.int64)


def out_of_fold(
    features_ND: Array,
    labels_N: Array,
    folds_N: Array,
    classes: int,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """Compute probabilities of the classes, (N, K), each image's by a head that was fitted without its fold."""
    features = torch.from_numpy(features_ND).float()
    labels = torch.from_numpy(labels_N)
    probabilities = np.full((len(labels_N), classes), 1 / classes, np.float32)
    for fold in range(FOLDS):
        held = torch.from_numpy(folds_N == fold)
        if held.any() and not held.all():  # else one image only, or its copies: nothing to judge it by
            weights_DK, bias_K, mean_D, scale_D = _fit(features[~held], labels[~held], classes)
            logits = (features[held] - mean_D) / scale_D @ weights_DK + bias_K
            probabilities[held.numpy()] = logits.softmax(1).numpy()
        if progress:
            progress(fold + 1, FOLDS)
    return probabilities


def _fit(
    features_ND: torch.Tensor, labels_N: torch.Tensor, classes: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit a linear head by L-BFGS: (weights, bias, mean and scale of the features)."""
    mean_D, scale_D = features_ND.mean(0), features_ND.std(0).clamp_min(1e-6)
    standard = (features_ND - mean_D) / scale_D
    weights = torch.zeros(features_ND.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(standard @ weights + bias, labels_N) + DECAY * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach(), bias.detach(), mean_D, scale_D
