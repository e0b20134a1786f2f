"""Export a finished classifier as one file that answers as it does, which is checked before it gets its name.

Nothing here loads torch before there is a classifier to export.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sightline.display.notebook import show_in_cell
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.errors import ConfigError, RunError
from sightline.inference.predict import load
from sightline.machine.extras import own_version, require
from sightline.measures.metrics import wilson_interval
from sightline.runs.writing import storage_error, write_atomically
from sightline_runtime.metadata import FORMAT, HeldOut, Measured, Metadata

if TYPE_CHECKING:
    from sightline.evaluation.exporting.answers import Draft
    from sightline.evaluation.exporting.checked import Checked
    from sightline.inference.classifier import Classifier

__all__ = ["Exported", "export"]

LIBRARIES = {  # by the end of the file's name: the extra, and what it brings
    ".onnx": ("export", ("onnx", "onnxscript", "onnxruntime")),
    ".pte": ("mobile", ("executorch",)),
}
AGAIN = 8  # images that are asked about again, of the file as it is written


@dataclass(frozen=True)
class Exported:
    """An exported file, and what was measured of it."""

    path: Path
    bytes: int
    metadata: Metadata

    def sentences(self) -> Iterator[str]:
        """Yield how accurate the run is, how near the file is to it, and on which images that was seen."""
        metadata, measured, learned = self.metadata, self.metadata.measured, self.metadata.learned
        accuracy = "not measured by the run" if metadata.run is None else f"of the run {metadata.run}"
        yield f"{metadata.numbers}, {self.bytes / 1e6:.1f} MB: accuracy {accuracy}"
        low, high = measured.interval
        right = "" if learned else f", accuracy {measured.accuracy:.4f} ({low:.4f} to {high:.4f})"
        yield (
            f"checked on {measured.n:,} images ({measured.split} of {measured.data}): {measured.equal_answers:,}"
            f" answers as the run gives them, probabilities within {measured.largest_difference:.1g}{right}"
        )
        if metadata.numbers != "float32":
            low, high = (100 * end for end in measured.difference_interval)
            yield f"against float32: {100 * measured.difference:+.2f} points ({low:+.2f} to {high:+.2f}, paired, 95 %)"
        if learned:
            which = "these" if learned == measured.n else f"{learned:,} of these"
            cost = "" if metadata.numbers == "float32" else ", nor what int8 costs"
            yield (
                f"the run learned from {which} images: they show that the file answers as the run does, not how good it"
                f" is{cost}; for that name other labeled images (--data SET), or train with --data.validation N"
            )

    def _ipython_display_(self) -> None:
        show_in_cell(*self.sentences(), str(self.path))


@reporting
def export(
    run: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str],
    int8: bool = False,
    data: str | os.PathLike[str] | None = None,
    trust_code: bool = False,
    on_event: Listener = ignore,
) -> Exported:
    """Export a classifier as one ONNX or ExecuTorch file, and check that it answers as the run does.

    The graph takes uint8 pixels and gives calibrated probabilities; class names, sizes, thresholds and the accuracy of
    this very file are in its metadata. It is run on validation images before it gets its name.

    Args:
        run: Folder of a finished run, or its model.safetensors alone; unless named the example classifier.
        out: File to write: .onnx, or .pte for ExecuTorch on phones; it must not exist.
        int8: Compute the layers in int8: a smaller file, faster of most networks but not of the photos recipe's;
            refused where it costs more than 0.5 points of accuracy; of .onnx files.
        data: Labeled images to check the file with; the run's own validation images unless named.
        trust_code: Run the code of the repository that a network of torch.hub is built by.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Raises:
        ConfigError: a library is missing, the file is named otherwise or there, or the network cannot be exported.
        DataError: the images to check with are not there.
        RunError: no run, not finished, or the file would answer otherwise.
        StorageError: the disk is full, or the folder is missing.
    """
    path = Path(out)
    _refuse_path(path)
    if int8 and path.suffix == ".pte":
        raise ConfigError("--int8 is of .onnx files; a .pte file is in float32, so leave it out.")
    extra, libraries = LIBRARIES[path.suffix]
    for library in libraries:
        require(library, extra, f"sightline export to {path.suffix}")
    classifier = load(run, device="cpu", precision="float32", trust_code=trust_code)
    from sightline.evaluation.exporting import gate
    from sightline.evaluation.exporting.checked import images_to_check

    with stage(on_event, "Reading the images to check with", brief=True) as progress:
        checked = images_to_check(run, classifier, data, progress)
    with stage(on_event, "Exporting"):
        draft = _program(classifier) if path.suffix == ".pte" else _model(classifier, checked, int8)
    with stage(on_event, "Checking the file"):
        pixels, rows = checked.images.pixels, checked.rows
        reference = gate.answers_of_classifier(classifier, pixels, rows)
        answers = draft.answers(draft.packed(), pixels, rows)
        measured = gate.measure(answers, reference, checked, classifier)
        content = draft.packed(describe(classifier, "int8" if int8 else "float32", measured, checked.learned))
        metadata = draft.read_back(content, str(path))
        gate.refuse_drift(metadata, answers, reference, classifier, checked)
        gate.refuse_another(draft.answers(content, pixels, rows[:AGAIN]), answers)
        gate.refuse_other_pixels(metadata, classifier, checked)
    write_atomically(path, content)
    return Exported(path, len(content), metadata)


def _program(classifier: "Classifier") -> "Draft":
    from sightline.evaluation.exporting.program import ProgramDraft

    return ProgramDraft(classifier)


def _model(classifier: "Classifier", checked: "Checked", int8: bool) -> "Draft":
    from sightline.evaluation.exporting.checked import spread
    from sightline.evaluation.exporting.graph import to_onnx
    from sightline.evaluation.exporting.integers import CALIBRATION_IMAGES, structure_problems, to_int8
    from sightline.evaluation.exporting.onnx_model import OnnxDraft
    from sightline.inference.views import VIEWS

    model, views = to_onnx(classifier), VIEWS[classifier.views]
    if int8:
        model = to_int8(model, checked.images.pixels[spread(checked.others, CALIBRATION_IMAGES)], views)
        if problems := structure_problems(model):
            raise RunError(f"the int8 file would be wrong on some processors: {problems[0]}; no file was written.")
    return OnnxDraft(model, views)


def _refuse_path(path: Path) -> None:
    """Refuse a file that cannot be written, before the work."""
    if path.suffix not in LIBRARIES:
        raise ConfigError(f"--out {path}: wanted the name of an {' or '.join(LIBRARIES)} file.")
    if os.path.lexists(path):
        raise ConfigError(f"--out {path} is there already; delete it, or name another file.")
    try:
        os.listdir(path.parent)
    except OSError as error:
        raise storage_error(path.parent, error) from error


def describe(
    classifier: "Classifier", numbers: Literal["float32", "int8"], measured: Measured, learned: int | None
) -> Metadata:
    """Return what the file of a classifier says of itself.

    Args:
        classifier: that is exported.
        numbers: number format of the layers.
        measured: of the file.
        learned: images of these that the classifier learned from; None where that is not known.
    """
    model, trust = classifier.model, classifier.trust
    return Metadata(
        format=FORMAT,
        sightline=own_version(),
        classes=classifier.classes,
        height=classifier.resize[0],
        width=classifier.resize[1],
        fit=classifier.preprocessing.fit,
        intensity=classifier.preprocessing.intensity,
        views=classifier.views,
        temperatures=model["temperatures"],
        prior_shift=model.get("prior_shift"),
        sets=trust["sets"]["thresholds"] if trust else None,
        unknown=trust["unknown"]["thresholds"] if trust else None,
        adaptive=classifier.adaptive_threshold,
        numbers=numbers,
        fingerprint=model["data"]["fingerprint"],
        measured=measured,
        learned=learned,
        run=_held_out(model),
    )


def _held_out(model: Mapping[str, Any]) -> HeldOut | None:
    """Return what a run measured of itself; None where nothing."""
    metrics = model.get("metrics")
    if not metrics:
        return None
    accuracy, n = metrics["accuracy"], metrics["n"]
    low, high = metrics.get("accuracy_interval") or wilson_interval(round(accuracy * n), n)
    split = metrics.get("split") or "test"
    return HeldOut(data=model["data"]["name"], split=split, n=n, accuracy=accuracy, interval=(low, high))
