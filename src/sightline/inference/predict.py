"""Load a finished classifier, and classify image files. B images, height H, width W.

Nothing here loads Lightning, nor torch before there is an image to classify.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sightline.data.seen import about_learned, learned_files
from sightline.data.sources.entries import LeftOut
from sightline.data.sources.unlabeled import PlainFiles, plain_files
from sightline.display.events import Table
from sightline.display.notebook import show_in_cell
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.errors import ConfigError, DataError
from sightline.runs.folder import (
    BOX,
    read_model_of_finished,
    read_weights,
    read_weights_and_reference,
    refuse_other_kind,
)
from sightline.runs.hub import weights_of
from sightline.runs.writing import write_csv
from sightline_runtime.batches import HELD, decoded_batches
from sightline_runtime.inputs import paths_of
from sightline_runtime.predictions import Prediction, csv_header, csv_rows

if TYPE_CHECKING:
    from sightline.inference.classifier import Classifier
    from sightline.models.base import Network
    from sightline_runtime.exported import ExportedClassifier

__all__ = [
    "Predictions",
    "about_box",
    "decoded_batches",
    "is_exported",
    "load",
    "load_exported",
    "predict",
    "sources_of",
]

SHOWN = 20  # predictions in the cell of a notebook
Precision = Literal["float32", "auto", "bfloat16", "float16"]


def load(
    run: str | os.PathLike[str] | None = None,
    *,
    network: "Callable[[int], Network] | None" = None,
    device: str | None = None,
    trust_code: bool = False,
    precision: Precision | None = None,
) -> "Classifier":
    """Load the classifier of a finished run, or of a ``model.safetensors`` alone.

    Args:
        run: the run's folder, or its weights file, or ``hf:OWNER/NAME[@REVISION]`` of the hub; None for the example
            classifier, which tells CIFAR-10's classes apart.
        network: makes the network from the number of classes, for a network that is not one of sightline's.
        device: ``cpu``, ``cuda``, ...; None takes the best there is.
        trust_code: run the code of the repository that a network of ``torch.hub`` is built by.
        precision: number format of the answers; None takes that which the classifier was calibrated in, float32 unless
            the recipe named another. ``auto`` is bfloat16 where the device computes it fast.
    Raises:
        ConfigError: a library is missing, or the network needs code that is not trusted.
        RunError: no run, not finished, not to be had from the hub, made by a newer sightline, damaged, or its weights
            do not fit its network.
    """
    path = BOX if run is None else weights_of(run)
    alone = path.suffix == ".safetensors"
    model = {} if alone else read_model_of_finished(path)
    weights = path if alone else path / "model.safetensors"
    tensors, parts, inside = read_weights_and_reference(weights)
    model = model or inside
    refuse_other_kind(model, path)
    from sightline.inference.architecture import build_trained, fill
    from sightline.inference.classifier import Classifier
    from sightline.inference.ood import reference_in, refuse_other_layer
    from sightline.machine.devices import choose_device

    if network is None:
        filled = build_trained(model, tensors, str(weights), trust_code=trust_code)
    else:
        filled = fill(network(len(model["classes"])), tensors, str(weights))
    reference = reference_in(parts, model, str(weights))
    if reference is not None:
        refuse_other_layer(filled, reference, str(weights))
    return Classifier(filled, model, choose_device(device), precision, reference)


def is_exported(run: str | os.PathLike[str] | None) -> bool:
    """Tell whether a classifier is named by the file that it was exported to."""
    return run is not None and os.fspath(run).endswith(".onnx")


def load_exported(
    file: str | os.PathLike[str], *, trust_code: bool = False, precision: Precision | None = None
) -> "ExportedClassifier":
    """Load a classifier from the file that it was exported to, without torch.

    Raises:
        ConfigError: onnxruntime is missing, or a setting has no effect on such a file.
        RunError: no such file, not ours, damaged, or written by a newer sightline.
    """
    if precision is not None:
        raise ConfigError(
            f"--precision {precision} has no effect on an exported file, whose number format is in it; leave it out."
        )
    if trust_code:
        raise ConfigError("--trust-code has no effect on an exported file, which holds no code; leave it out.")
    from sightline_runtime.exported import load

    return load(file)


def about_box() -> str:
    """Return a sentence on the example classifier, for whoever is answered by it."""
    _, model = read_weights(BOX)
    classes, metrics = model["classes"], model["metrics"]
    return (
        f"no run was named, so the example classifier answers: {model['data']['name']}, {len(classes)} classes"
        f" ({', '.join(classes)}), accuracy {metrics['accuracy']:.4f}, n = {metrics['n']:,}."
    )


@dataclass(frozen=True)
class Predictions:
    """Answers for files, in the order they were found."""

    files: list[str]
    predictions: list[Prediction]
    unreadable: list[tuple[str, str]]
    """(file, reason) of each that could not be read."""
    left_out: list[str] = field(default_factory=list)
    """Lines on files that were found and are no images, by reason and suffix."""
    learned: list[str] = field(default_factory=list)
    """Files that the run has learned from, pixel for pixel: its answers to them are no evidence."""

    def _ipython_display_(self) -> None:
        answers = list(zip(self.files, self.predictions, strict=True))
        rows = [
            (file, "none of these" if answer.unknown else answer.label, f"{answer.label} {answer.probability:.1%}")
            for file, answer in answers[:SHOWN]
        ]
        notes = [*self.left_out, *(f"left out {file}: {reason}" for file, reason in self.unreadable)]
        notes += about_learned(self.learned, len(self.files))
        if len(answers) > SHOWN:
            notes.append(f"{len(answers) - SHOWN:,} more are in predictions")
        show_in_cell(Table(("file", "answer", "most probable"), rows, texts=3), *notes)


@reporting
def predict(
    run: str | os.PathLike[str] | None,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | PlainFiles],
    *,
    out: str | os.PathLike[str] | None = None,
    views: Literal["one", "flip", "six", "adaptive"] | None = None,
    sets: float | None = None,
    precision: Precision | None = None,
    trust_code: bool = False,
    on_event: Listener = ignore,
) -> Predictions:
    """Classify images.

    Args:
        run: Folder of a finished run, its model.safetensors alone, its exported model.onnx, which is asked without
            torch, or hf:OWNER/NAME[@REVISION] of the hub. Where none is named the example classifier answers, which
            tells the ten classes of CIFAR-10 apart.
        images: Files, folders (searched to the bottom), archives, manifests (CSV, TSV, JSON lines, Parquet), patterns
            such as 'photos/*.jpg', and - for a list of paths on standard input, one a line.
        out: CSV file to write: file, class, probability, the next four classes with theirs, and whether it looks like
            none of the classes.
        views: Views of each image to average; those of the recipe unless named. One view is fastest; adaptive, of a
            classifier that was trained with them, shows further views only of images that it is unsure of.
        sets: Also give for each image the classes among which the true one is, in this share of all images: 0.8 to
            0.99. A set may be empty where the classifier is right more often than that.
        precision: Number format of the arithmetic; that which the classifier was calibrated in unless named. auto takes
            bfloat16 where it is fast; probabilities then differ by some hundredths.
        trust_code: Run the code of the repository that a network of torch.hub is built by.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Raises:
        ConfigError: the classifier was not calibrated for these views, or has no sets of this coverage.
        DataError: a path is missing, or nothing could be read.
        RunError: no run, or not finished.
    """
    with stage(on_event, "Predicting", brief=True) as progress:
        sources, left_out = sources_of(images)
        fetched = None if run is None else weights_of(run, on_event)
        classifier = _load_any(fetched, trust_code=trust_code, precision=precision)  # refuses before torch is loaded
        if sets is not None:
            classifier.limit(views or classifier.views, sets)
        total = sum(len(source.names) for source in sources)
        files: list[str] = []
        predictions: list[Prediction] = []
        unreadable: list[tuple[str, str]] = []
        hashes: list[str] = []
        reading = (classifier.resize, HELD, unreadable, classifier.preprocessing, hashes)
        for names, pixels in decoded_batches(sources, *reading):
            predictions.extend(classifier.answers(pixels, views, coverage=sets))
            files.extend(names)
            progress(len(files) + len(unreadable), total)
        if out is not None:
            write_csv(Path(out), csv_header(sets), csv_rows(files, predictions))
        return Predictions(files, predictions, unreadable, left_out, learned_files(fetched, files, hashes))


def _load_any(
    run: str | os.PathLike[str] | None, *, trust_code: bool, precision: Precision | None
) -> "Classifier | ExportedClassifier":
    if run is not None and is_exported(run):
        return load_exported(run, trust_code=trust_code, precision=precision)
    classifier = load(run, trust_code=trust_code, precision=precision)
    from sightline.machine.devices import keep_freed_memory

    keep_freed_memory()
    return classifier


def sources_of(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | PlainFiles],
) -> tuple[list[PlainFiles], list[str]]:
    """Return what is to be read of the paths that were named, and lines on what of it is no image.

    Raises:
        DataError: none was named, one is missing, or holds no image.
    """
    paths = paths_of(images)
    if not paths:
        raise DataError("no images were named; give files, folders or archives.")
    sources, left_out = [plain_files(path) for path in paths], LeftOut()
    for source in sources:
        left_out.add_all(source.left_out)
    return sources, left_out.sentences()
