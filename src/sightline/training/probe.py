"""The linear probe of a plan: a head that is solved for on kept features of its frozen network, and how good it is.

N images, K classes. Nothing here loads Lightning.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.data.folds import deal_folds
from sightline.data.units import group_numbers, unit_count
from sightline.display.reporting import Listener, stage
from sightline.inference.feature_store import FeatureStore
from sightline.inference.logistic_regression import (
    CrossValidation,
    Examples,
    Head,
    choose_head,
    cross_validate,
    solve_head,
)
from sightline.measures.metrics import cross_entropy
from sightline.measures.significance import measure_accuracy
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.estimates import features_per_second

__all__ = ["Probed", "measure_logits", "run_probe"]

FEW_VALIDATION = 100  # validation images, below which the penalty is chosen by cross-validation within train
FOLDS = 5  # where cross-validation chooses the penalty
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of train, on the learning curve
DRAWS = 2  # of each share
CURVE_ITERATIONS = 30  # of L-BFGS, for a point of the curve

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Probed:
    """A solved probe, and what it says of validation."""

    store: FeatureStore
    """Features in the number format of the answers, so that the head has learned from what it will be given."""
    head: Head
    crossed: CrossValidation | None
    logits_NK: Array
    """Of the validation images; empty where cross-validation measures."""
    facts: dict[str, Any]
    seconds: float
    """Of the features and the solution."""
    images_per_second: float
    """Of a forward pass in the number format of the answers; infinite where nobody asks."""

    def ask(self, rows: Array, progress: Any = None) -> Array:
        """Return logits of rows of the set by the probe, (1, n, K)."""
        return self.head.logits(self.store.features(rows, progress))[None]


def run_probe(plan: ClassifierPlan, on_event: Listener) -> Probed:
    """Solve for the head on the features of the plan's network, and put it in.

    Args:
        plan: whose network is frozen, with the weights that it starts from.
        on_event: where progress is drawn, and what it reached is said.
    """
    start = time.perf_counter()
    images, splits, classes = plan.images, plan.splits, len(plan.images.classes)
    rows = np.union1d(splits.train, splits.validation)
    of_answers = plan.recipe.evaluation.precision
    store = FeatureStore(plan.network, images, plan.normalization, of_answers, pretrained=plan.pretrained)
    with stage(on_event, "Computing features") as progress:
        store.features(rows, progress)
    seconds = time.perf_counter() - start

    shift_K = torch.from_numpy(plan.answer_shift)

    def examples(rows: Array, weighted: bool = False) -> Examples:
        labels_N = torch.from_numpy(images.labels[rows])
        weights_N = _weights(plan, labels_N) if weighted else None
        return Examples(store.features(rows), labels_N, classes, weights_N, shift_K)

    train = examples(splits.train, weighted=True)
    held_out = None if splits.cross_validated else examples(splits.validation)
    crossed, penalty = None, plan.recipe.probe.penalty if plan.recipe.probe else None
    if held_out is None:
        with stage(on_event, "Cross-validating") as progress:
            deal = partial(deal_folds, images, splits.train)
            units = unit_count(images, splits.train)
            crossed = cross_validate(train, deal, penalty, progress, units=units, given_N=_given(plan))
    if penalty is None:
        telling = held_out if held_out is not None and len(held_out) >= FEW_VALIDATION else None
        head = choose_head(train, deal_folds(images, splits.train, FOLDS, plan.recipe.data.split_seed), telling)
    else:
        (head,) = solve_head(train, (penalty,))
    logits_NK = np.zeros((0, classes), np.float32)
    if held_out is not None:
        logits_NK = head.logits(held_out.features_ND) + plan.answer_shift
    _put_in(plan, head)
    facts: dict[str, Any] = {"penalty": head.penalty, "features_computed": store.computed, "feature_seconds": seconds}
    if held_out is not None:
        facts["validation"] = measure_logits(
            logits_NK, held_out.labels_N.numpy(), group_numbers(images, splits.validation)
        )
    facts["solve_seconds"] = time.perf_counter() - start - seconds
    facts["learning_curve"] = _learning_curve(plan, replace(train, weights_N=None), held_out, head)
    if store.computed >= FEW_VALIDATION:
        speed = store.computed / seconds
    elif plan.recipe.probe is None or plan.recipe.probe.then == "nothing":
        speed = float("inf")
    else:  # kept: what follows is timed by itself
        speed = features_per_second(plan.network, images.size, of_answers)
    probed = Probed(store, head, crossed, logits_NK, facts, time.perf_counter() - start, speed)
    _say(on_event, plan, probed)
    return probed


def measure_logits(logits_NK: Array, labels_N: Array, groups_N: Array | None = None) -> dict[str, Any]:
    """Measure the accuracy and the loss of logits, (N, K), of images of some groups."""
    return measure_accuracy(logits_NK.argmax(1) == labels_N, groups_N) | {"loss": cross_entropy(logits_NK, labels_N)}


def _given(plan: ClassifierPlan) -> Tensor | None:
    """Return the labels that the training images came with, (n,), where labels were corrected."""
    images, given = plan.images, plan.images.as_labeled
    if images.corrected is None:
        return None
    index_of = np.array([images.classes.index(name) for name in given.classes], np.int64)
    return torch.from_numpy(index_of[given.labels[plan.splits.train]])


def _weights(plan: ClassifierPlan, labels_N: Tensor) -> Tensor | None:
    """Return what each image counts in the probe's loss, where rare classes are to count as much as common ones."""
    recipe = plan.recipe
    if recipe.fit.class_weights == "none" and recipe.data.sampling == "shuffle":
        return None
    counts_K = torch.bincount(labels_N, minlength=len(plan.images.classes)).float()
    return (len(labels_N) / (len(counts_K) * counts_K))[labels_N]


def _put_in(plan: ClassifierPlan, head: Head) -> None:
    """Make the probe's head the network's."""
    own: Any = plan.network.head
    with torch.no_grad():
        own.weight.copy_(head.weight_KD)
        own.bias.copy_(head.bias_K)


def _learning_curve(
    plan: ClassifierPlan, train: Examples, held_out: Examples | None, whole: Head
) -> list[dict[str, float]]:
    """Measure accuracy by the number of training images, from the same features: on validation, or on folds."""
    images, rows = plan.images, plan.splits.train
    curve = []
    for share in SHARES:
        right, measured, used = 0, 0, 0
        draws = FOLDS if held_out is None else DRAWS if share < 1 else 1
        for draw in range(draws):
            inside_N, out = np.ones(len(rows), bool), held_out
            if out is None:  # every image is left out once
                inside_N = deal_folds(images, rows, FOLDS, 0) != draw
                out = train.part(~inside_N)
            some_n = np.flatnonzero(inside_N)
            if share < 1:
                some_n = some_n[deal_folds(images, rows[some_n], round(1 / share), draw) == 0]
            head = whole
            if share < 1 or held_out is None:
                (head,) = solve_head(train.part(some_n), (whole.penalty,), CURVE_ITERATIONS)
            right += int(head.right(out).sum())
            measured, used = measured + len(out), used + len(some_n)
        n = len(rows) if held_out is None else len(held_out)
        curve.append({"images": round(used / draws), "accuracy": right / measured, "n": n})
    return curve


def _say(on_event: Listener, plan: ClassifierPlan, probed: Probed) -> None:
    """Say what the probe reached, and how."""
    kept = "kept from before" if not probed.store.computed else f"{probed.store.computed:,} computed"
    if probed.crossed is not None:
        accuracy, (low, high) = probed.crossed.accuracy, probed.crossed.interval
        where = f"by cross-validation of {len(plan.splits.train):,} images"
    else:
        measured = probed.facts["validation"]
        accuracy, (low, high), where = (measured[name] for name in ("accuracy", "accuracy_interval", "n"))
        where = f"on {where:,} validation images"
    if probed.store.note:
        on_event(probed.store.note)
    on_event(
        f"probe: accuracy {accuracy:.4f} {where} (95 % interval {low:.4f} to {high:.4f}); features {kept},"
        f" {probed.seconds:.1f} s"
    )
