"""Suspected label errors by confident learning. N images, D features, K classes.

A linear head learns from four fifths of the features and is asked about the last fifth, five times over, so every
image is judged by a head that did not see it. Where the answers disagree with the labels more than the heads' own
doubts explain, the label is suspect (Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in
dataset labels", JAIR 2021; cleanlab computes it).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

__all__ = ["FOLDS", "Suspects", "folds_of", "label_quality", "out_of_fold", "suspects"]

FOLDS = 5
DECAY = 1e-3  # of the squared weights, beside the mean loss, on features of unit variance
STEPS = 100  # of L-BFGS, which has converged long before

Array = np.ndarray[Any, Any]


class Suspects(NamedTuple):
    """Images whose labels look wrong, the most suspect first."""

    places: Array
    """Places of the images among those judged, (S,)."""
    suggested: Array
    """Indices of the classes that they get instead, (S,)."""
    quality: Array
    """Quality of their labels, from 0 to 1, (S,)."""


def folds_of(hashes: Sequence[str]) -> Array:
    """The fold of each image, (N,), by its hash: identical images share one, whatever else is in the set."""
    return np.array([int(digest[:8], 16) % FOLDS for digest in hashes], np.int64)


def out_of_fold(
    features_ND: Array,
    labels_N: Array,
    folds_N: Array,
    classes: int,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """Probabilities of the classes, (N, K), each image's by a head that was fitted without its fold."""
    features = torch.from_numpy(features_ND).float()
    labels = torch.from_numpy(labels_N)
    found = np.empty((len(labels_N), classes), np.float32)
    for fold in range(FOLDS):
        held = torch.from_numpy(folds_N == fold)
        if held.any() and not held.all():
            weights_DK, bias_K, mean_D, scale_D = _fit(features[~held], labels[~held], classes)
            logits = (features[held] - mean_D) / scale_D @ weights_DK + bias_K
            found[held.numpy()] = logits.softmax(1).numpy()
        else:
            found[held.numpy()] = 1 / classes  # one image only, or its copies: nothing to judge it by
        if progress:
            progress(fold + 1, FOLDS)
    return found


def _fit(
    features_ND: torch.Tensor, labels_N: torch.Tensor, classes: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A linear head by L-BFGS: (weights, bias, mean and scale of the features)."""
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


def label_quality(labels_N: Array, probabilities_NK: Array) -> Array:
    """Quality of each label, (N,): its probability less that of the best other class, brought to 0 to 1."""
    from cleanlab.rank import get_label_quality_scores

    scores: Array = get_label_quality_scores(labels_N, probabilities_NK, method="normalized_margin")
    return scores


def suspects(labels_N: Array, probabilities_NK: Array) -> Suspects:
    """The images whose labels are wrong by confident learning.

    Args:
        labels_N: given classes; every class has an image.
        probabilities_NK: by heads that did not see the image.
    """
    from cleanlab.filter import find_label_issues

    places: Array = find_label_issues(
        labels_N,
        probabilities_NK,
        filter_by="prune_by_noise_rate",
        return_indices_ranked_by="normalized_margin",
        n_jobs=1,
    ).astype(np.int64)
    suggested = probabilities_NK[places].argmax(axis=1)
    doubted = suggested != labels_N[places]
    places, suggested = places[doubted], suggested[doubted]
    return Suspects(places, suggested, label_quality(labels_N, probabilities_NK)[places])
