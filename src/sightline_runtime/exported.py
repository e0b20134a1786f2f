"""A classifier in an ONNX file, as ``sightline export`` writes it. B images, height H, width W, K classes.

The graph takes uint8 pixels and returns calibrated probabilities; what it does not do stands in its metadata: how
images are read and resized, class names, thresholds.
"""

import importlib.util
import os
from typing import Any

import numpy as np

from sightline_runtime.answering import Answering
from sightline_runtime.conformal import image_uniforms
from sightline_runtime.decoding.preprocessing import Preprocessing
from sightline_runtime.errors import ConfigError, RunError
from sightline_runtime.metadata import KEY, Metadata, parse_metadata
from sightline_runtime.predictions import Prediction
from sightline_runtime.views import VIEWS, Views, unsure

__all__ = ["ExportedClassifier", "load"]

BATCH = 32  # views that go through the graph together: larger batches gain little and take more memory
PIXELS, VIEWS_INPUT, PROBABILITIES, SCORE = "pixels", "views", "probabilities", "unknown_score"
ERRORS_ONLY = 3  # what onnxruntime writes to the standard error

Array = np.ndarray[Any, Any]


class ExportedClassifier(Answering):
    """A classifier of an ONNX file with everything it needs to read an image; made by ``load``."""

    def __init__(self, session: Any, metadata: Metadata) -> None:
        """
        Args:
            session: of onnxruntime, on a graph that fits the metadata.
            metadata: of its file.
        """
        self.session = session
        self.metadata = metadata
        self.classes = metadata.classes
        self.views = metadata.views
        self.resize = (metadata.height, metadata.width)
        self.preprocessing = Preprocessing(metadata.fit, metadata.intensity)
        limits = [part for part in (metadata.sets, metadata.unknown) if part is not None]
        self._temperatures = {
            views: temperature
            for views, temperature in metadata.temperatures.items()
            if VIEWS[views] <= VIEWS[metadata.views] and all(views in part for part in limits)
        }

    @property
    def temperatures(self) -> dict[Views, float]:
        """By the views that the graph has, and limits are known for."""
        return self._temperatures

    @property
    def set_limits(self) -> dict[Views, dict[str, float | None]] | None:
        """Limits of prediction sets, by views and coverage."""
        return self.metadata.sets

    @property
    def unknown_limits(self) -> dict[Views, float] | None:
        """Scores above which an image is none of the classes, by views."""
        return self.metadata.unknown

    def answers(
        self, pixels_BHWC: Array, views: Views | None = None, *, coverage: float | None = None
    ) -> list[Prediction]:
        """Return the predictions for uint8 images already at the cached size; arguments as ``predict`` has them."""
        views = self.calibrated(views)
        if coverage is not None:
            self.limit(views, coverage)  # refused before anything is computed
        uniforms_B = None if coverage is None else image_uniforms(pixels_BHWC)
        chances_BK, scores_B = self.computed(pixels_BHWC, views)
        return self.judged(chances_BK, scores_B, views, coverage, uniforms_B)

    def computed(self, pixels_BHWC: Array, views: Views) -> tuple[Array, Array | None]:
        """Return what the graph does: calibrated probabilities, (B, K), and of a classifier that has one the score of
        images of no class, (B,). Of adaptive views it is called once more, for the images that one view leaves unsure.
        """
        if views == "adaptive":
            return self._adaptive(pixels_BHWC)
        names = [PROBABILITIES] if self.unknown_limits is None else [PROBABILITIES, SCORE]
        places_V = np.arange(VIEWS[views], dtype=np.int64)
        step = max(1, BATCH // VIEWS[views])
        parts = [
            self.session.run(names, {PIXELS: pixels_BHWC[start : start + step], VIEWS_INPUT: places_V})
            for start in range(0, len(pixels_BHWC), step)
        ]
        chances_BK, *scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return chances_BK, scores[0] if scores else None

    def _adaptive(self, pixels_BHWC: Array) -> tuple[Array, Array | None]:
        chances_BK, scores_B = self.computed(pixels_BHWC, "one")
        assert self.metadata.adaptive is not None  # where there is a temperature for it
        asked_B = unsure(chances_BK, self.metadata.adaptive)
        if asked_B.any():
            chances_BK[asked_B], scores = self.computed(pixels_BHWC[asked_B], "six")
            if scores_B is not None:
                scores_B[asked_B] = scores
        return chances_BK, scores_B


def load(file: str | os.PathLike[str], *, threads: int | None = None) -> ExportedClassifier:
    """Load an exported classifier.

    Args:
        file: that ``sightline export`` has written.
        threads: of the processor to compute on; None takes one a core, or ``OMP_NUM_THREADS`` where that is set.
    Raises:
        ConfigError: onnxruntime is not installed, or there are no threads.
        RunError: there is no such file, it is no ONNX file, was not written by sightline or by a newer one, or its
            metadata were changed.
    """
    path = os.fspath(file)
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "is not there"
        raise RunError(f"{path!r} {what}; wanted the ONNX file of an exported classifier.")
    if importlib.util.find_spec("onnxruntime") is None:
        raise ConfigError(f"{path!r} needs onnxruntime, which is not installed; run: pip install onnxruntime")
    session = _session(path, _threads() if threads is None else threads)
    pairs = session.get_modelmeta().custom_metadata_map
    if KEY not in pairs:
        raise RunError(f"{path!r} was not written by sightline: it has no {KEY!r} in its metadata; export a run to it.")
    metadata: Metadata = parse_metadata(pairs[KEY], repr(path))
    _refuse_unfit(session, metadata, path)
    return ExportedClassifier(session, metadata)


def _threads() -> int:
    """Return what ``OMP_NUM_THREADS`` says, by which onnxruntime does not go; 0 for one a core."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() else 0


def _session(path: str, threads: int) -> Any:
    """Open a graph on the processor.

    Raises:
        ConfigError: there are no threads.
        RunError: it is no graph, or one that onnxruntime does not run.
    """
    import onnxruntime

    if threads < 0:
        raise ConfigError(f"{threads} threads; wanted 1 or more, or 0 for one a core.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each status
        reason = " ".join(str(error).rpartition(" : ")[2].split())[:200]
        raise RunError(f"{path!r} is no ONNX file that can be run ({reason}); export the run again.") from error


def _refuse_unfit(session: Any, metadata: Metadata, path: str) -> None:
    """Refuse a graph that takes or returns something else than its metadata say.

    Raises:
        RunError: it does.
    """
    taken = {one.name: one for one in (*session.get_inputs(), *session.get_overridable_initializers())}
    given = {one.name: one for one in session.get_outputs()}
    pixels, chances = taken.get(PIXELS), given.get(PROBABILITIES)
    wanted = [metadata.height, metadata.width, 3]
    problem = ""
    if pixels is None or pixels.type != "tensor(uint8)" or list(pixels.shape)[1:] != wanted:
        problem = f"it takes no uint8 {PIXELS} of {metadata.height} × {metadata.width}"
    elif VIEWS_INPUT not in taken:
        problem = f"it takes no {VIEWS_INPUT}"
    elif chances is None or list(chances.shape)[1:] != [len(metadata.classes)]:
        problem = f"it returns no {PROBABILITIES} of {len(metadata.classes)} classes"
    elif metadata.unknown is not None and SCORE not in given:
        problem = f"it returns no {SCORE}"
    if problem:
        raise RunError(f"the graph of {path!r} does not fit its metadata: {problem}; export the run again.")
