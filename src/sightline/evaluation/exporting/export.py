"""Export a finished classifier as one ONNX file that answers as it does, which is checked before it gets its name.

Nothing here loads torch before there is a classifier to export.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.errors import ConfigError, RunError
from sightline.inference.predict import load
from sightline.machine.extras import own_version, require
from sightline.runs.writing import storage_error, write_atomically
from sightline_runtime.metadata import FORMAT, KEY, Measured, Metadata, parse_metadata, to_text

if TYPE_CHECKING:
    from onnx import ModelProto

    from sightline.inference.classifier import Classifier

__all__ = ["Exported", "export"]

LARGEST = 2_000_000_000  # bytes of one file; protobuf holds no more


@dataclass(frozen=True)
class Exported:
    """An exported file, and what was measured of it."""

    path: Path
    bytes: int
    metadata: Metadata


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
    """Export a classifier as one ONNX file, and check that it answers as the run does.

    The graph takes uint8 pixels and gives calibrated probabilities; class names, sizes, thresholds and the accuracy of
    this very file are in its metadata. It is run on validation images before it gets its name.

    Args:
        run: Folder of a finished run, or its model.safetensors alone; unless named the example classifier.
        out: File to write (.onnx); it must not exist.
        int8: Compute the layers in int8: smaller and faster, and refused where it costs more than 0.5 points of
            accuracy.
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
    for library in ("onnx", "onnxscript", "onnxruntime"):
        require(library, "export", "sightline export")
    classifier = load(run, device="cpu", precision="float32", trust_code=trust_code)
    from sightline.evaluation.exporting import gate
    from sightline.evaluation.exporting.checked import images_to_check, spread
    from sightline.evaluation.exporting.graph import to_onnx
    from sightline.evaluation.exporting.integers import CALIBRATION_IMAGES, structure_problems, to_int8
    from sightline.inference.views import VIEWS

    with stage(on_event, "Reading the images to check with", brief=True) as progress:
        checked = images_to_check(run, classifier, data, progress)
    with stage(on_event, "Exporting"):
        model, views = to_onnx(classifier), VIEWS[classifier.views]
        if int8:
            model = to_int8(model, checked.images.pixels[spread(checked.others, CALIBRATION_IMAGES)], views)
            if problems := structure_problems(model):
                raise RunError(f"the int8 file would be wrong on some processors: {problems[0]}; no file was written.")
        give_default_views(model, views)
    with stage(on_event, "Checking the file"):
        pixels, rows = checked.images.pixels, checked.rows
        reference = gate.answers_of_classifier(classifier, pixels, rows)
        answers = gate.answers_of_file(packed(model), pixels, rows)
        measured = gate.measure(answers, reference, checked, classifier)
        content = packed(model, describe(classifier, "int8" if int8 else "float32", measured))
        metadata = read_back(content, str(path))
        gate.refuse_drift(metadata, answers, reference, classifier, checked)
        gate.refuse_other_pixels(metadata, classifier, checked)
    write_atomically(path, content)
    return Exported(path, len(content), metadata)


def _refuse_path(path: Path) -> None:
    """Refuse a file that cannot be written, before the work."""
    if path.suffix != ".onnx":
        raise ConfigError(f"--out {path}: wanted the name of an .onnx file.")
    if os.path.lexists(path):
        raise ConfigError(f"--out {path} is there already; delete it, or name another file.")
    try:
        os.listdir(path.parent)
    except OSError as error:
        raise storage_error(path.parent, error) from error


def describe(classifier: "Classifier", numbers: Literal["float32", "int8"], measured: Measured) -> Metadata:
    """Return what the file of a classifier says of itself.

    Args:
        classifier: that is exported.
        numbers: number format of the layers.
        measured: of the file.
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
    )


def give_default_views(model: "ModelProto", count: int) -> None:
    """Let a model average all views of its run unless it is asked for others: pixels alone are enough."""
    import numpy as np
    from onnx import numpy_helper

    from sightline.evaluation.exporting.graph import VIEWS_INPUT

    model.graph.initializer.append(numpy_helper.from_array(np.arange(count, dtype=np.int64), VIEWS_INPUT))


def packed(model: Any, metadata: Metadata | None = None) -> bytes:
    """Return the content of the file of a model.

    Raises:
        ConfigError: it is larger than one file can be.
    """
    from onnx import helper

    if metadata is not None:
        helper.set_model_props(model, {KEY: to_text(metadata)})
    if model.ByteSize() > LARGEST:
        raise ConfigError(
            f"the network has {model.ByteSize() / 1e9:.1f} GB of weights, and one .onnx file holds 2 GB; export a"
            " smaller one."
        )
    content: bytes = model.SerializeToString()
    return content


def read_back(content: bytes, where: str) -> Metadata:
    """Return what the content of a file says of itself."""
    import onnx

    model = onnx.load_from_string(content)
    texts = {pair.key: pair.value for pair in model.metadata_props}
    return parse_metadata(texts[KEY], where)
