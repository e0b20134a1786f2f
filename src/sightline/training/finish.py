"""Finish a classifier after its last step: calibrate it, read the test split once, write what the run saves.

N images, V views, K classes. Nothing here loads Lightning.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from sightline.data.folds import deal_folds
from sightline.data.sources.downloads import Progress
from sightline.data.units import group_numbers
from sightline.display.events import Measured
from sightline.display.pictures import drawing
from sightline.display.reporting import Listener, ignore, stage
from sightline.errors import TrainingError
from sightline.evaluation.adaptive import decided_outputs
from sightline.evaluation.calibration import calibrate
from sightline.evaluation.evaluate import evaluate_rows
from sightline.evaluation.ood import left_out_distances, measure_ood, set_threshold
from sightline.evaluation.results import about_few_calibrated, about_passes
from sightline.evaluation.robustness import measure_corruptions
from sightline.inference.classifier import Classifier, Outputs
from sightline.inference.logistic_regression import FOLDS
from sightline.inference.ood import Reference, compared_layer
from sightline.inference.views import VIEWS, Views, combine, shown
from sightline.machine.devices import choose_device, describe
from sightline.measures.significance import measure_accuracy
from sightline.reports.report import report
from sightline.runs.folder import REPORT, mark_done, read_model, write_weights
from sightline.runs.tensors import digest_of_weights, pack_tensors
from sightline.runs.writing import write_csv, write_json
from sightline.training.estimates import training_operations
from sightline_runtime.conformal import image_uniforms

if TYPE_CHECKING:
    from sightline.training.base import Trained
    from sightline.training.classifier_plan import ClassifierPlan

__all__ = ["REFERENCE_IMAGES", "finish"]

REFERENCE_IMAGES = 2_500  # of train, at most, that out-of-distribution images are compared with

Array = np.ndarray[Any, Any]


def finish(plan: "ClassifierPlan", run: Path, trained: "Trained", on_event: Listener) -> None:
    """Calibrate, measure on the test split (once) or by cross-validation, and write what is saved and shared."""
    start = time.perf_counter()
    network, recipe = plan.network, plan.recipe
    model = read_model(run) | trained.facts
    plan.refuse_bad_weights(run)
    classifier = Classifier(network, model, choose_device())
    with stage(on_event, "Calibrating and testing") as progress:
        outputs = _calibrate(classifier, plan, trained, progress)
        unanswered = _count_unanswered(outputs.logits_VNK - classifier.prior_shift(classifier.views), run)
        measured = _measure(classifier, plan, run, trained, outputs, progress)
    seconds = time.perf_counter() - start
    model["cost"] = {
        "fit_seconds": trained.seconds,
        "evaluation_seconds": seconds,
        "probe_flops": trained.probe_flops,
        "cost": (trained.seconds + seconds) * trained.probe_flops,
        "training_flops": training_operations(
            recipe, trained.phases, network, plan.images.size, len(plan.splits.train), trained.epochs
        ),
        "device": describe(classifier.device),
    }
    if recipe.evaluation.robustness and not plan.splits.cross_validated:
        model["cost"]["robustness_seconds"] = _stress(classifier, plan, on_event)
    if measured is not None:
        measured["cost"] = model["cost"]
        left_to_table = ("classes", "confusion_matrix", "reliability", "cost")
        model["metrics"] = {name: value for name, value in measured.items() if name not in left_to_table}
        write_json(run / "evaluation.json", measured)
    assert classifier.reference is not None
    model["weights_sha256"] = digest_of_weights(pack_tensors(network.state_dict(), {}))
    write_weights(run / "model.safetensors", network.state_dict() | classifier.reference.tensors(), model)
    write_json(run / "model.json", model)
    mark_done(run)
    if measured is not None:
        on_event(Measured(measured))
    for sentence in about_few_calibrated(model):
        on_event(f"warning: {sentence}")
    for sentence in about_passes(model):
        on_event(sentence)
    if unanswered:
        on_event(
            f"warning: the answers to {unanswered:,} of {outputs.logits_VNK.shape[1]:,} validation images are not"
            " finite, though the weights are, and count as the same probability for every class; try a smaller rate or"
            " --fit.precision float32"
        )
    with drawing(REPORT, on_event):
        report(run, on_event=ignore, trust_code=getattr(recipe.network, "trust_code", False))
    _report_next_steps(on_event, run, model)


def _report_next_steps(on_event: Listener, run: Path, model: dict[str, Any]) -> None:
    """Report what one may do with a finished run."""
    readings = model["test_readings"]
    if readings:
        on_event(f"The test split was read {'once' if readings == 1 else f'{readings} times'}.")
    on_event("Next:")
    if (run / REPORT).exists():
        on_event(f"  {run / REPORT}   what it was trained on, how good, where wrong, how sure")
    if (run / "predictions.csv").exists():
        on_event(f"  {run / 'predictions.csv'}   its answer to each image that it was measured on")
    on_event(f"  sightline predict {run} IMAGES...      what it sees in other images")
    on_event(f"  sightline evaluate {run} DATA          how good it is on another image set")
    on_event(f"  sightline train DATA --config {run}/recipe.yaml --run ANOTHER   the same again")


def _calibrate(classifier: Classifier, plan: "ClassifierPlan", trained: "Trained", progress: Progress) -> Outputs:
    """Set temperature, thresholds and reference into the classifier; returns the outputs they were set by."""
    recipe, images, splits, model = plan.recipe, plan.images, plan.splits, classifier.model
    rows = splits.train if splits.cross_validated else splits.calibrate
    used = recipe.evaluation.views
    layer = compared_layer(plan.network, plan.pretrained)
    train = splits.train
    some = train[np.linspace(0, len(train) - 1, min(len(train), REFERENCE_IMAGES)).astype(np.int64)]
    features_ND = _features(classifier, plan, trained.features, layer, some, progress)
    classifier.reference = Reference.fit(layer, features_ND)
    if trained.crossed is not None:  # of fewer images than a reference takes
        folds_N = deal_folds(images, some, FOLDS, recipe.data.split_seed)
        outputs = Outputs(trained.crossed.logits_NK[None], left_out_distances(layer, features_ND, folds_N))
    else:
        outputs = _outputs(classifier, plan, trained, rows, progress, shown(used))
    views = _calibrated_views(used)
    labels = images.labels[rows]
    uniforms = image_uniforms(images.pixels[row] for row in rows)
    shifts = plan.prior_shifts()
    model["temperatures"], model["trust"] = calibrate(outputs.logits_VNK, labels, uniforms, views, shifts)
    if shifts is not None and shifts.answers_K.any():
        model["prior_shift"] = shifts.answers_K.tolist()
    decided = None
    if used == "adaptive":
        shift_K = 0.0 if shifts is None else shifts.answers_K
        decided = decided_outputs(outputs, model["temperatures"], model["trust"]["adaptive"]["threshold"], shift_K)
    outputs = replace(outputs, logits_VNK=outputs.logits_VNK + classifier.prior_shift(used))
    classifier.reference, outputs, model["trust"]["unknown"] = set_threshold(
        classifier.reference, outputs, views, plan.pretrained, decided
    )
    model["calibrated_on"] = len(labels)
    answers = combine(outputs.logits_VNK, used).argmax(1)
    model["validation"] = measure_accuracy(answers == labels, group_numbers(images, rows))
    return outputs


def _calibrated_views(used: Views) -> list[Views]:
    """List the views that a classifier is calibrated for, the last those that it is used with."""
    fewer: list[Views] = [name for name, count in VIEWS.items() if count <= VIEWS[used] and name != "adaptive"]
    return [*fewer, used] if used == "adaptive" else fewer


def _features(
    classifier: Classifier,
    plan: "ClassifierPlan",
    kept: Callable[[Array, Callable[[int, int], None]], Tensor] | None,
    layer: str,
    rows: Array,
    progress: Progress,
) -> Array:
    """Return the features of rows at a layer, (n, D): kept ones of a frozen network, or computed."""
    if kept is not None:
        return kept(rows, progress).numpy()
    return classifier.features_at(layer, plan.images.pixels, rows, lambda done: progress(done, len(rows)))


def _outputs(
    classifier: Classifier,
    plan: "ClassifierPlan",
    trained: "Trained",
    rows: Array,
    progress: Progress,
    views: Views | None = None,
) -> Outputs:
    """Return the outputs for rows of the set: by kept features where the network is frozen, or by the network.

    Unless views are named, those of the recipe.
    """
    views = views or plan.recipe.evaluation.views
    reference = classifier.reference
    if trained.ask is None or reference is None:
        report = lambda done: progress(done, len(rows))  # noqa: E731
        return classifier.outputs(plan.images.pixels, views, rows=rows, progress=report)
    logits_VNK = trained.ask(rows, progress) + classifier.prior_shift(views)
    features_ND = _features(classifier, plan, trained.features, reference.layer, rows, progress)
    return Outputs(logits_VNK, reference.distances(features_ND), reference.energy_weight)


def _count_unanswered(logits_VNK: Array, run: Path) -> int:
    """Count the images to which every class is the same, as where the network's arithmetic overflows.

    Raises:
        TrainingError: there is no other.
    """
    unanswered = int((logits_VNK == logits_VNK[..., :1]).all((0, 2)).sum())
    if unanswered == logits_VNK.shape[1]:
        raise TrainingError(
            f"the network answers every validation image with no finite number, or with the same for every class; {run}"
            " is not finished. Try a smaller rate or --fit.precision float32."
        )
    return unanswered


def _measure(
    classifier: Classifier, plan: "ClassifierPlan", run: Path, trained: "Trained", outputs: Outputs, progress: Progress
) -> dict[str, Any] | None:
    """Measure on what the recipe names, or by cross-validation; None where on nothing."""
    recipe, images, splits, model = plan.recipe, plan.images, plan.splits, classifier.model
    crossed = trained.crossed
    # of validation only what chose nothing while training: all of it, or half
    rows = {"test": splits.test, "validation": splits.calibrate, "none": splits.test[:0]}[recipe.evaluation.on]
    if crossed is not None and recipe.evaluation.on != "none":
        rows = splits.train
    if not len(rows):
        return None
    if crossed is None:
        model["test_readings"] += recipe.evaluation.on == "test"
        write_json(run / "model.json", model)  # before the reading: one that is interrupted has been read, too
        outputs = _outputs(classifier, plan, trained, rows, progress)
    measured, table = evaluate_rows(classifier, images, rows, progress, outputs=outputs)
    measured["split"] = recipe.evaluation.on
    if crossed is not None:
        measured |= {
            "split": "cross-validation",
            "accuracy": crossed.accuracy,
            "accuracy_interval": list(crossed.interval),
            "folds": crossed.folds,
            "repeats": crossed.repeats,
        }
    if crossed is not None and crossed.as_labeled is not None and "as_labeled" in measured:
        accuracy, interval = crossed.as_labeled
        measured["as_labeled"] |= {"accuracy": accuracy, "accuracy_interval": list(interval)}
    write_csv(run / "predictions.csv", *table)
    return measured


def _stress(classifier: Classifier, plan: "ClassifierPlan", on_event: Listener) -> float:
    """Measure the classifier on corrupted images and on images of no class, into its ``trust``.

    Returns:
        The seconds, which are no part of the cost of a training.
    """
    start = time.perf_counter()
    pixels, rows = plan.images.pixels, plan.splits.calibrate
    trust = classifier.model["trust"]
    with stage(on_event, "Trying corrupted images") as progress:
        trust["corruptions"] = measure_corruptions(classifier, pixels, rows, plan.images.labels[rows], progress)
        trust["unknown"]["rates"] = measure_ood(classifier, pixels, rows)
    return time.perf_counter() - start
