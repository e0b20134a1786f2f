"""Measure a finished classifier. N images, V views, K classes."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.data.cache import CachedImages, open_as_trained, open_images
from sightline.data.corrections import read_corrections
from sightline.data.remarks import remarks
from sightline.data.seen import trained_rows
from sightline.data.sources.downloads import Progress
from sightline.data.sources.find_source import find_like_run, find_source, source_of_run
from sightline.data.sources.source import ImageSource
from sightline.data.splits import Splits, split_as
from sightline.data.units import group_numbers
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.errors import ConfigError, DataError
from sightline.evaluation.already_learned import about_learned
from sightline.evaluation.as_labeled import (
    accuracy_as_labeled,
    class_indices,
    correct_as_trained,
    correct_to_measure,
)
from sightline.evaluation.inception import Inception, StandardFid, fetch_weights, native_size, standard_fid
from sightline.evaluation.results import Measures
from sightline.inference.predict import load
from sightline.measures import metrics
from sightline.measures.fidelity import Fidelity, fidelity_of
from sightline.measures.significance import measure_accuracy
from sightline.runs.folder import read_model_of_finished, read_run_recipe
from sightline.runs.hub import fetched, on_hub
from sightline.runs.writing import create_folder, write_csv, write_json
from sightline_runtime.conformal import class_scores, image_uniforms
from sightline_runtime.decoding.preprocessing import preprocessing_of
from sightline_runtime.predictions import csv_header, csv_rows

if TYPE_CHECKING:
    from sightline.inference.classifier import Classifier, Outputs
    from sightline.inference.views import Views

__all__ = ["evaluate", "evaluate_rows", "evaluate_unknown", "measures"]

Array = np.ndarray[Any, Any]
Shape = tuple[int, int]
NO_GENERATED = "--generated measures a set of generated images: name the set, and leave --unknown away."
WITHOUT_IMAGES = (
    " was published without the images that it was trained on, and nothing is written to it: name an image set, and"
    " leave --unknown and --generated away."
)
TOP = 5  # top-5 accuracy says nothing of 5 classes or fewer


@reporting
def evaluate(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    corrections: str | None = None,
    unknown: bool = False,
    generated: bool = False,
    fid: bool = False,
    trust_code: bool = False,
    on_event: Listener = ignore,
) -> dict[str, Any]:
    """Measure a finished classifier on labeled images.

    Args:
        run: Folder of a finished run, or hf:OWNER/NAME[@REVISION] of the hub, whose own test split is not there.
        data: An image set: its test split where it brings one, else every image. Without it the run's own test split is
            read again, and the reading is counted in ``model.json``.
        out: Folder to write evaluation.json and predictions.csv to.
        corrections: Measure by the labels that a corrections file decides, without the images that it leaves out; the
            accuracy as labeled stands beside.
        unknown: The images of DATA show other things than the classes: measure how often they are called none of these,
            and note it in the run.
        generated: DATA was made by a generator: also measure how near its images are to those that RUN was trained on,
            in RUN's own features, with as many of each.
        fid: With --generated: also the standard FID, which compares with papers: the distance in the features of their
            Inception network (96 MB, downloaded once), of all images of DATA and all that RUN was trained on. Papers
            take 50,000 of each. Without a GPU that is slow: a few images a second.
        trust_code: Run the code of the repository that a network of torch.hub is built by.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Returns:
        The measures, as in ``evaluation.json``; for ``unknown`` those of ``evaluate_unknown``.
    Raises:
        ConfigError: two of these do not go together, or torch-fidelity or its weights are missing.
        RunError: no finished run.
        DataError: no such image set, a class that the classifier does not know, or the run's own set has changed.
        StorageError: ``out`` cannot be made or written.
    """
    if on_hub(run) and (data is None or unknown or generated):
        raise ConfigError(f"{run}{WITHOUT_IMAGES}")
    with stage(on_event, "Evaluating", brief=True) as progress:
        run = fetched(run, on_event)
        if unknown:
            if data is None or out is not None:
                raise ConfigError(
                    "--unknown measures an image set of other things and writes into the run: name the set, and leave"
                    " --out away."
                )
            if generated:
                raise ConfigError(NO_GENERATED)
            if corrections is not None:
                raise ConfigError(
                    "--data.corrections has no effect with --unknown, which asks for no class; leave it out."
                )
            return evaluate_unknown(run, data, trust_code=trust_code, progress=progress)
        if generated and data is None:
            raise ConfigError(NO_GENERATED)
        if fid and not generated:
            raise ConfigError("--fid measures generated images: say --generated as well.")
        if corrections is not None:
            read_corrections(corrections)
        model = read_model_of_finished(run)
        source = source_of_run(model) if data is None else find_like_run(data, model)
        if data is not None:
            source.least = 1  # a classifier can be measured on one of its classes
        weights = fetch_weights(progress) if fid else None
        classifier = _loaded(run, trust_code)
        if data is None:
            exactly, preprocessing = (classifier.size, classifier.resize), classifier.preprocessing
            images = open_as_trained(source, read_run_recipe(run).data.size, exactly, progress, preprocessing)
            images, rows = _own_test(Path(run), model, images, again=corrections is None)
        else:
            images = _opened_for(classifier, source, progress)
            rows = _foreign_test(images)
        said = remarks(images)
        if corrections is not None:
            images, rows, notes = correct_to_measure(images, rows, corrections, classifier.classes)
            said += notes
        if out is not None:
            create_folder(Path(out))  # before the work, and before a reading is counted
        if data is None:
            model["test_readings"] += 1  # before the reading: one that is interrupted has been read, too
            write_json(Path(run) / "model.json", model)
        measured, table = evaluate_rows(classifier, images, rows, progress)
        if data is not None and not generated:
            said += about_learned(Path(run), images, rows, [line[1] == line[2] for line in table[1]])
        measured["data"] = {"name": images.name, "location": images.location, "left_out": len(images.left_out)}
        measured["data"]["remarks"] = said
        if generated:
            measured["fidelity"] = asdict(_fidelity(classifier, Path(run), model, images.pixels, rows))
        if weights is not None:
            network = Inception(weights, classifier.device)
            fid_of = _standard_fid(network, Path(run), model, source, images, rows, progress)
            measured["fidelity"]["standard_fid"] = asdict(fid_of)
        if out is not None:
            write_json(Path(out) / "evaluation.json", measured)
            write_csv(Path(out) / "predictions.csv", *table)
        return Measures(measured)


def _loaded(run: str | os.PathLike[str], trust_code: bool) -> "Classifier":
    """Load a classifier for a long use."""
    from sightline.machine.devices import keep_freed_memory  # loads torch

    keep_freed_memory()
    return load(run, trust_code=trust_code)


def _fidelity(classifier: "Classifier", run: Path, model: dict[str, Any], pixels_NHWC: Array, rows: Array) -> Fidelity:
    """Return how near made images are to as many of those that a classifier was trained on, in its features."""
    from sightline.inference.encoder import Encoder

    own, train = _trained_on(run, model, (classifier.size, classifier.resize))
    count = min(len(rows), len(train))
    encoder = Encoder(classifier)
    made, real = (
        encoder.encode_rows(pixels, of[np.linspace(0, len(of) - 1, count).astype(np.int64)])
        for pixels, of in ((pixels_NHWC, rows), (own.pixels, train))
    )
    return fidelity_of(made, real)


def _standard_fid(
    network: Inception,
    run: Path,
    model: dict[str, Any],
    source: ImageSource,
    images: CachedImages,
    rows: Array,
    progress: Progress | None,
) -> StandardFid:
    """Measure the FID of rows of a made set, at its size, against all training images of a classifier."""
    size = native_size(source, images.paths[rows[0]])
    made = open_images(source, None, progress, exactly=(size, size), preprocessing=preprocessing_of(model))
    real, train = _trained_on(run, model, (size, size), progress)
    return standard_fid(made, rows, real, train, network, progress)


def _trained_on(
    run: Path, model: dict[str, Any], exactly: tuple[Shape, Shape], progress: Progress | None = None
) -> tuple[CachedImages, Array]:
    """Open the set that a classifier was trained on, at some size, and list the rows of its training images."""
    own = open_images(source_of_run(model), None, progress, exactly=exactly, preprocessing=preprocessing_of(model))
    if own.fingerprint != model["data"]["fingerprint"]:
        raise DataError(
            f"the images in {own.location} are not those that {run} was trained on, so made images cannot be compared"
            " with them; bring them back, or leave --generated out."
        )
    return own, trained_rows(run, own, _splits(run, model, own).train)


def evaluate_unknown(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure how often images of none of a classifier's classes are called so, and note it in ``model.json``.

    Args:
        run: the run's folder.
        data: an image set of other things: its test split where it brings one, else every image; its classes are
            ignored.
        trust_code, progress: as ``evaluate`` has them.
    Returns:
        ``n`` images and the ``rate``, the share of them that is called none of the classes.
    Raises:
        ConfigError: the classifier has no threshold for it.
        DataError: no such image set, or it has a class of the classifier's.
        RunError: no finished run.
    """
    model = read_model_of_finished(run)
    source = find_source(data)
    source.least = 1
    classifier = _loaded(run, trust_code)
    if classifier.trust is None:
        raise ConfigError(f"{run} was trained before classifiers knew what is unknown to them; train it again.")
    from sightline.evaluation.ood import unknown_share

    images = _opened_for(classifier, source, progress)
    known = class_indices(classifier.classes, images.classes)
    shared = [name for name in images.classes if name in known]
    if shared:
        raise DataError(
            f"class {shared[0]!r} of {images.name} is one of the classifier's own; images of none of its classes were"
            " wanted."
        )
    rows = _foreign_test(images)
    views = classifier.views
    scores = _outputs(classifier, images, rows, progress).unknown_scores(views)
    measured = {"n": len(rows), "rate": unknown_share(scores, model["trust"]["unknown"]["thresholds"][views])}
    model["trust"]["unknown"]["rates"][images.name] = measured
    write_json(Path(run) / "model.json", model)
    return measured


def evaluate_rows(
    classifier: "Classifier",
    images: CachedImages,
    rows: Array,
    progress: Progress | None = None,
    *,
    outputs: "Outputs | None" = None,
) -> tuple[dict[str, Any], tuple[list[str], list[list[str]]]]:
    """Measure a classifier on some images of a set.

    Args:
        classifier: that is measured.
        images: the set.
        rows: of the images, (N,).
        progress: called with (images done, images in all).
        outputs: of those rows, where they are known already.
    Returns:
        The measures, and the table of predictions as (header, rows).
    Raises:
        DataError: the set has a class that the classifier does not know.
    """
    from sightline.evaluation.adaptive import passes
    from sightline.evaluation.calibration import measure_sets
    from sightline.evaluation.ood import unknown_share
    from sightline.inference.views import combine

    index_of = class_indices(classifier.classes, images.classes)
    unknown = [name for name in images.classes if name not in index_of]
    if unknown:
        raise DataError(
            f"class {unknown[0]!r} of {images.name} is unknown to the classifier, which knows"
            f" {', '.join(classifier.classes[:10])}{', ...' if len(classifier.classes) > 10 else ''}; rename the class"
            " folders."
        )
    labels = np.array([index_of[images.classes[images.labels[row]]] for row in rows], np.int64)
    views = classifier.views

    def predicted(rows: Array) -> Array:
        answers: Array = combine(_outputs(classifier, images, rows, None).logits_VNK, views).argmax(1)
        return answers

    outputs = outputs or _outputs(classifier, images, rows, progress)
    logits = combine(outputs.logits_VNK, views)
    temperatures, groups = classifier.model["temperatures"], group_numbers(images, rows)
    measured = measures(outputs.logits_VNK, labels, classifier.classes, views, temperatures, groups)
    if outputs.asked_N is not None:
        measured["passes"] = passes(outputs.asked_N)
    measured["arithmetic"] = str(classifier.dtype).removeprefix("torch.")
    if classifier.trust is not None:
        chances = metrics.probabilities(logits, classifier.model["temperatures"][views])
        uniforms = image_uniforms(images.pixels[row] for row in rows)
        limits = classifier.trust["sets"]["thresholds"][views]
        measured["sets"] = measure_sets(class_scores(chances, uniforms), labels, limits)
        limit = classifier.trust["unknown"]["thresholds"][views]
        measured["unknown_share"] = unknown_share(outputs.unknown_scores(views), limit)
    if beside := accuracy_as_labeled(images, rows, logits.argmax(1), classifier.classes, predicted):
        measured["as_labeled"] = beside
    answers = classifier.read(outputs, views)
    lines = csv_rows([images.paths[row] for row in rows], answers)
    table = []
    for (file, *cells), label, answer in zip(lines, labels, answers, strict=True):
        true = classifier.classes[label]
        table.append([file, true, *cells, f"{answer.probabilities[true]:.6f}"])
    file, *columns = csv_header()
    header = [file, "true_class", *columns, "true_probability"]
    if groups is not None:
        header.append("group")
        table = [[*line, str(group)] for line, group in zip(table, groups.tolist(), strict=True)]
    return measured, (header, table)


def _outputs(classifier: "Classifier", images: CachedImages, rows: Array, progress: Progress | None) -> "Outputs":
    report = (lambda done: progress(done, len(rows))) if progress else None
    return classifier.outputs(images.pixels, classifier.views, rows=rows, progress=report)


def measures(
    logits_VNK: Array,
    labels_N: Array,
    classes: list[str],
    views: "Views",
    temperatures: dict[str, float],
    groups_N: Array | None = None,
) -> dict[str, Any]:
    """Compute every measure of a classifier, from the logits of its views, the true classes and the images' groups."""
    from sightline.inference.views import combine

    logits, temperature = combine(logits_VNK, views), temperatures[views]
    chances, predicted = metrics.probabilities(logits, temperature), logits.argmax(1)
    confusion = metrics.confusion_matrix(predicted, labels_N, len(classes))
    measured: dict[str, Any] = {
        **measure_accuracy(predicted == labels_N, groups_N),
        "accuracy_one_view": float((combine(logits_VNK, "one").argmax(1) == labels_N).mean()),
        "views": views,
        "loss": metrics.cross_entropy(logits, labels_N, temperature),
        "loss_unscaled": metrics.cross_entropy(logits, labels_N),
        "calibration_error": metrics.calibration_error(chances, labels_N),
        "classwise_calibration_error": metrics.classwise_calibration_error(chances, labels_N),
        "calibration_error_unscaled": metrics.calibration_error(metrics.probabilities(logits), labels_N),
        "temperature": temperature,
        "reliability": metrics.reliability(chances, labels_N),
    }
    if len(classes) > TOP:
        measured["top_5_accuracy"] = metrics.top_k_accuracy(logits, labels_N, TOP)
    measured["classes"] = dict(zip(classes, metrics.per_class(confusion), strict=True))
    measured["confusion_matrix"] = confusion.tolist()
    return measured


def _opened_for(classifier: "Classifier", source: ImageSource, progress: Progress | None) -> CachedImages:
    """Open an image set as a classifier reads it."""
    exactly = (classifier.size, classifier.resize)
    return open_images(source, None, progress, exactly=exactly, preprocessing=classifier.preprocessing)


def _foreign_test(images: CachedImages) -> Array:
    """List the test split of an image set that brings one, else every image."""
    test = [row for row in images.readable.tolist() if images.splits[row] == "test"]
    return np.array(test or images.readable.tolist(), np.int64)


def _own_test(run: Path, model: dict[str, Any], images: CachedImages, *, again: bool) -> tuple[CachedImages, Array]:
    """Return the set of a run and the rows of its test split; ``again``: with the labels that it was measured by."""
    if images.fingerprint != model["data"]["fingerprint"]:
        raise DataError(
            f"the images in {images.location} are not those that {run} was trained on, so its test split cannot be"
            " cut again; name the image set to evaluate on."
        )
    splits = _splits(run, model, images)
    if splits.cross_validated:
        raise DataError(
            f"{run} was measured by cross-validation, of too few images to set any aside, so it has no test split; name"
            " another image set to evaluate on."
        )
    if again:
        noted = (model["data"].get("corrections") or {}).get("test")
        images, splits = correct_as_trained(images, splits, read_run_recipe(run).data, noted)
    return images, splits.test


def _splits(run: Path, model: dict[str, Any], images: CachedImages) -> Splits:
    """Cut the splits that a run was trained with."""
    return split_as(read_run_recipe(run), images, model["data"].get("split_rule", 1), run)
