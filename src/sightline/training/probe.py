"""Photographs: a linear probe on kept features first, then fine-tuning within the time that there is, if it helps.

N images, K classes. Nothing here loads Lightning; the fit that may follow does.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from sightline.config import resolve
from sightline.config.probing import MOST_SECONDS, TIMES_FEATURES
from sightline.config.resolving import to_mapping
from sightline.data.splits import deal_folds
from sightline.display.terminal import show
from sightline.errors import ConfigError
from sightline.inference.classifier import Classifier
from sightline.inference.feature_store import FeatureStore
from sightline.inference.views import combine
from sightline.measures.metrics import cross_entropy, wilson_interval
from sightline.measures.significance import paired_interval
from sightline.training.estimates import estimate_training, features_per_second
from sightline.training.finetune_costs import Candidate, candidates
from sightline.training.job import Plan
from sightline.training.linear_probe import CrossValidation, Head, choose_head, cross_validate, solve_head
from sightline.training.prepare import prepare_training
from sightline.training.summary import Progress, spoken_seconds

__all__ = [
    "Probed",
    "compare_rival",
    "keep_better",
    "plan_finetuning",
    "prepare_rival",
    "rival_fits",
    "run_probe",
]

FEW_VALIDATION = 100  # validation images, below which the penalty is chosen by cross-validation within train
TELLING = 50  # validation images, below which they cannot tell whether fine-tuning helped
FOLDS = 5  # where cross-validation chooses the penalty
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of train, on the learning curve
DRAWS = 2  # of each share
CURVE_ITERATIONS = 30  # of L-BFGS, for a point of the curve
LEAST_EPOCHS, MOST_EPOCHS = 3, 30
PLANNED = 0.9  # of the time that is left: the speed of machines that are shared drifts
START_UP, WRITE = 5.0, 15.0  # seconds: until the verb is called; to load Lightning, and to write the run

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Probed:
    """A solved probe, and what it says of validation."""

    store: FeatureStore
    head: Head
    crossed: CrossValidation | None
    logits_NK: Array
    """Of the validation images; empty where cross-validation measures."""
    facts: dict[str, Any]
    seconds: float
    """Of the features and the solution."""
    images_per_second: float
    """Of a forward pass; infinite where nobody asks."""

    def ask(self, rows: Array, progress: Any = None) -> Array:
        """Logits of rows of the set by the probe, (1, n, K)."""
        return self.head.logits(self.store.features(rows, progress))[None]


def run_probe(plan: Plan, console: Console) -> Probed:
    """Solve for the head on the features of the plan's network, and put it in.

    Args:
        plan: whose network is frozen, with the weights that it starts from.
        console: where progress is drawn, and what it reached is said.
    """
    start = time.perf_counter()
    images, splits, classes = plan.images, plan.splits, len(plan.images.classes)
    rows = np.union1d(splits.train, splits.validation)
    store = FeatureStore(plan.network, images, plan.normalization, plan.recipe.fit.precision)
    with Progress(console, "Computing features") as progress:
        store.features(rows, progress)
    seconds = time.perf_counter() - start
    train_ND, labels_N = store.features(splits.train), torch.from_numpy(images.labels[splits.train])
    weights_N = _weights(plan, labels_N)
    crossed, held_out, penalty = None, None, plan.recipe.probe.penalty if plan.recipe.probe else None
    if splits.cross_validated:
        with Progress(console, "Cross-validating") as progress:
            crossed = cross_validate(
                train_ND,
                labels_N,
                classes,
                lambda folds, seed: deal_folds(images, splits.train, folds, seed),
                penalty,
                progress,
                weights_N=weights_N,
            )
    else:
        held_out = store.features(splits.validation), torch.from_numpy(images.labels[splits.validation])
    if penalty is None:
        telling = held_out if held_out is not None and len(held_out[1]) >= FEW_VALIDATION else None
        folds_N = deal_folds(images, splits.train, FOLDS, plan.recipe.data.split_seed)
        head = choose_head(train_ND, labels_N, folds_N, telling, classes, weights_N)
    else:
        (head,) = solve_head(train_ND, labels_N, classes, (penalty,), weights_N)
    logits_NK = head.logits(held_out[0]) if held_out is not None else np.zeros((0, classes), np.float32)
    _put_in(plan, head)
    facts: dict[str, Any] = {"penalty": head.penalty, "features_computed": store.computed, "feature_seconds": seconds}
    if held_out is not None:
        facts["validation"] = _measured(logits_NK, held_out[1].numpy())
    facts["solve_seconds"] = time.perf_counter() - start - seconds
    facts["learning_curve"] = _learning_curve(plan, train_ND, labels_N, held_out, head)
    if store.computed >= FEW_VALIDATION:
        speed = store.computed / seconds
    elif plan.recipe.probe is None or plan.recipe.probe.then == "nothing":
        speed = float("inf")
    else:  # kept: what follows is timed by itself
        speed = features_per_second(plan.network, images.size, plan.recipe.fit.precision)
    probed = Probed(store, head, crossed, logits_NK, facts, time.perf_counter() - start, speed)
    _say(console, plan, probed)
    return probed


def plan_finetuning(plan: Plan, probed: Probed, started: float, console: Console) -> tuple[Plan, dict[str, Any]]:
    """Decide how many epochs of how many layers follow the probe within the time, or none.

    Args:
        plan: whose recipe may leave it open (``probe.then`` auto).
        probed: the probe.
        started: by ``time.monotonic``, when the command was called.
        console: where the decision is said.
    Returns:
        The plan with everything settled, and what was found, for ``model.json``.
    """
    probe = plan.recipe.probe
    assert probe is not None
    if probe.then != "auto":
        return plan, {}
    options, why = _options(plan)
    if probe.minutes is not None:
        measure = (len(plan.splits.test) + len(plan.splits.validation)) / probed.images_per_second
        left = probe.minutes * 60 - (time.monotonic() - started) - START_UP - measure - WRITE
    else:
        left = min(TIMES_FEATURES * probed.facts["feature_seconds"], MOST_SECONDS)
    chosen = None
    if options:
        chosen, why = _choose(options, left)
    settings: dict[str, Any] = {"probe": {"then": "nothing", "minutes": None}}
    if chosen is not None:
        epochs = min(MOST_EPOCHS, int((left * PLANNED - chosen.once) / chosen.epoch))
        settings = {
            "probe": {"then": "finetune", "minutes": None},
            "fit": {"epochs": epochs},
            "finetune": None if chosen.after is None else {"kind": "upper", "after": chosen.after},
        }
        if chosen.after is not None:
            settings["augment"] = {"crop": None, "policy": None}
        layers = "all layers" if chosen.after is None else f"the layers behind {chosen.after.removeprefix('body.')}"
        why = (
            f"fine-tuning: {epochs} epochs of {layers}, about {spoken_seconds(chosen.once + epochs * chosen.epoch)}; it is kept"
            " only if it is better on validation"
        )
    show(why, console)
    found = {"from": {"probe.then": "auto", "probe.minutes": probe.minutes}, "settings": settings}
    recipe = resolve(to_mapping(plan.recipe), settings)
    if recipe.finetune is not None:
        plan.network.cut_after(recipe.finetune.after)  # type: ignore[union-attr]
    return replace(plan, recipe=recipe, searches=()), {"fit.epochs": found}


def prepare_rival(plan: Plan, settings: Mapping[str, Any]) -> Plan | None:
    """Settle the recipe that is tried besides a probe, on the same images; None where the settings do not suit it."""
    own = {name: value for name, value in settings.items() if name != "probe"}
    own["data"] = {**(own.get("data") or {}), "fit": plan.recipe.data.fit}  # which may have been chosen by the images
    try:
        return prepare_training(plan.source.location, plan.rival, own, None, Console(quiet=True))
    except ConfigError:
        return None


def rival_fits(rival: Plan, plan: Plan, probed: Probed, started: float, console: Console) -> bool:
    """Whether there is time to train the rival of a probe; it is said either way."""
    probe = plan.recipe.probe
    assert probe is not None
    if probe.then != "auto":
        return False
    train, held_out = len(rival.splits.train), len(rival.splits.validation)
    seconds = estimate_training(rival.recipe, rival.network, rival.images.size, train, held_out).seconds
    left = MOST_SECONDS
    if probe.minutes is not None:
        left = probe.minutes * 60 - (time.monotonic() - started) - START_UP - WRITE
    name = rival.recipe.name
    line = (
        f"recipe {name} next, from nothing, on images of {max(rival.images.size)} px: about {spoken_seconds(seconds)}"
    )
    line += "; it is kept only if it is better on validation"
    if seconds > left:
        line = f"recipe {name} would take {spoken_seconds(seconds)} and there are {spoken_seconds(left)}: not tried"
    show(line, console)
    return seconds <= left


def compare_rival(plan: Plan, probed: Probed, rival: Plan, console: Console) -> dict[str, Any]:
    """Compare a rival that was trained with the probe, on the validation images that both kept out."""
    rows = rival.splits.validation
    if [rival.images.paths[row] for row in rows] != [plan.images.paths[row] for row in plan.splits.validation]:
        raise AssertionError("the rival of a probe validates on other images")
    model = _plain_model(rival)
    classifier = Classifier(rival.network, model, probed.store.device)
    logits_NK = combine(classifier.view_logits(rival.images.pixels, model["views"], rows=rows), model["views"])
    return _compared(plan, probed, logits_NK, f"recipe {rival.recipe.name}", console)


def keep_better(plan: Plan, probed: Probed, before: dict[str, Tensor], console: Console) -> dict[str, Any]:
    """Compare the fine-tuned network with the probe on validation, and put the better one into the plan's network.

    Args:
        plan: whose network is fine-tuned.
        probed: the probe.
        before: tensors of the network with the probe's head.
        console: where the outcome is said.
    Returns:
        Both, their paired difference, and which was ``kept``, for ``model.json``.
    """
    rows = plan.splits.validation
    classifier = Classifier(plan.network, _plain_model(plan), probed.store.device)
    with Progress(console, "Comparing on validation") as progress:
        tuned_NK = classifier.view_logits(
            plan.images.pixels, "one", rows=rows, progress=lambda done: progress(done, len(rows))
        )[0]
    compared = _compared(plan, probed, tuned_NK, "fine-tuned", console)
    if compared["kept"] == "probe":
        plan.network.load_state_dict(before)
    return compared


def _plain_model(plan: Plan) -> dict[str, Any]:
    """What a classifier must know to give logits."""
    return {
        "classes": plan.images.classes,
        "size": plan.images.size,
        "resize": plan.images.pixels.shape[1:3],
        **plan.images.preprocessing.kept(),
        "views": plan.recipe.evaluation.views,
        "precision": plan.recipe.fit.precision,
        "normalization": {"mean": plan.normalization.mean, "std": plan.normalization.std},
    }


def _compared(plan: Plan, probed: Probed, logits_NK: Array, name: str, console: Console) -> dict[str, Any]:
    """Another classifier's logits of the validation images against the probe's."""
    labels_N = plan.images.labels[plan.splits.validation]
    right_N, other_right_N = (logits.argmax(1) == labels_N for logits in (probed.logits_NK, logits_NK))
    probe, other = _measured(probed.logits_NK, labels_N), _measured(logits_NK, labels_N)
    better = (other["accuracy"], -other["loss"]) > (probe["accuracy"], -probe["loss"])
    difference, low, high = paired_interval(other_right_N, right_N)
    show(
        f"validation, {len(labels_N):,} images: probe {probe['accuracy']:.4f}, {name} {other['accuracy']:.4f} (difference"
        f" {difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}); {name if better else 'the probe'} is kept",
        console,
    )
    return {
        "other": name,
        "finetuned": other,
        "difference": {"estimate": difference, "low": low, "high": high},
        "kept": name if better else "probe",
    }


def _options(plan: Plan) -> tuple[list[Candidate], str]:
    """The ways to fine-tune, the most layers first; or none, and why."""
    n = len(plan.splits.validation)
    if plan.splits.cross_validated:
        return [], "no fine-tuning: of so few images none could be set aside to tell whether it helps"
    if n < TELLING:
        return [], f"no fine-tuning: {n} validation images could not tell whether it helps"
    return candidates(plan), ""


def _choose(options: list[Candidate], left: float) -> tuple[Candidate | None, str]:
    """The layers to fine-tune in so many seconds: as many as get enough epochs; or none, and why."""
    for option in options:
        if option.once + LEAST_EPOCHS * option.epoch <= left * PLANNED:
            return option, ""
    needed = min(option.once + LEAST_EPOCHS * option.epoch for option in options) / PLANNED
    return None, (
        f"no fine-tuning: it would take {spoken_seconds(needed)} and there are {spoken_seconds(max(left, 0))}; --minutes allows more"
    )


def _weights(plan: Plan, labels_N: Tensor) -> Tensor | None:
    """What each image counts in the probe's loss, where rare classes are to count as much as common ones."""
    recipe = plan.recipe
    if recipe.fit.class_weights == "none" and recipe.data.sampling == "shuffle":
        return None
    counts_K = torch.bincount(labels_N, minlength=len(plan.images.classes)).float()
    return (len(labels_N) / (len(counts_K) * counts_K))[labels_N]


def _put_in(plan: Plan, head: Head) -> None:
    """Make the probe's head the network's."""
    own: Any = plan.network.head
    with torch.no_grad():
        own.weight.copy_(head.weight_KD)
        own.bias.copy_(head.bias_K)


def _measured(logits_NK: Array, labels_N: Array) -> dict[str, Any]:
    accuracy = float((logits_NK.argmax(1) == labels_N).mean())
    return {"n": len(labels_N), "accuracy": accuracy, "loss": cross_entropy(logits_NK, labels_N)}


def _learning_curve(
    plan: Plan, train_ND: Tensor, labels_N: Tensor, held_out: tuple[Tensor, Tensor] | None, whole: Head
) -> list[dict[str, float]]:
    """Accuracy by the number of training images, from the same features: on validation, or on folds left out."""
    images, rows, classes = plan.images, plan.splits.train, len(plan.images.classes)
    curve = []
    for share in SHARES:
        right, measured, used = 0, 0, 0
        draws = FOLDS if held_out is None else DRAWS if share < 1 else 1
        for draw in range(draws):
            inside_N, out = np.ones(len(rows), bool), held_out
            if out is None:  # every image is left out once
                inside_N = deal_folds(images, rows, FOLDS, 0) != draw
                out = train_ND[~inside_N], labels_N[~inside_N]
            some_n = np.flatnonzero(inside_N)
            if share < 1:
                some_n = some_n[deal_folds(images, rows[some_n], round(1 / share), draw) == 0]
            head = whole
            if share < 1 or held_out is None:
                (head,) = solve_head(
                    train_ND[some_n], labels_N[some_n], classes, (whole.penalty,), iterations=CURVE_ITERATIONS
                )
            right += int((head.logits(out[0]).argmax(1) == out[1].numpy()).sum())
            measured, used = measured + len(out[1]), used + len(some_n)
        curve.append(
            {
                "images": round(used / draws),
                "accuracy": right / measured,
                "n": len(rows) if held_out is None else len(held_out[1]),
            }
        )
    return curve


def _say(console: Console, plan: Plan, probed: Probed) -> None:
    """Say what the probe reached, and how."""
    kept = "kept from before" if not probed.store.computed else f"{probed.store.computed:,} computed"
    lines = [probed.store.note] if probed.store.note else []
    if probed.crossed is not None:
        low, high = probed.crossed.interval
        n = len(plan.splits.train)
        lines.append(
            f"probe: accuracy {probed.crossed.accuracy:.4f} by cross-validation of {n:,} images (95 % interval {low:.4f} to"
            f" {high:.4f}); features {kept}, {probed.seconds:.1f} s"
        )
    else:
        measured = probed.facts["validation"]
        low, high = wilson_interval(round(measured["accuracy"] * measured["n"]), measured["n"])
        lines.append(
            f"probe: accuracy {measured['accuracy']:.4f} on {measured['n']:,} validation images (95 % interval {low:.4f} to"
            f" {high:.4f}); features {kept}, {probed.seconds:.1f} s"
        )
    for line in lines:
        show(line, console)
