"""An ONNX model on its way into a file: packed, run in onnxruntime, and read back."""

from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.errors import ConfigError, RunError
from sightline.evaluation.exporting.answers import Answers
from sightline.evaluation.exporting.graph import INPUT, VIEWS_INPUT
from sightline_runtime.metadata import KEY, Metadata, parse_metadata, to_text

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["OnnxDraft"]

LARGEST = 2_000_000_000  # bytes of one file; protobuf holds no more
BATCH = 32

Array = np.ndarray[Any, Any]


class OnnxDraft:
    """A model that averages all views of its run unless it is asked for others: pixels alone are enough."""

    def __init__(self, model: "ModelProto", views: int) -> None:
        from onnx import numpy_helper

        self.model = model
        model.graph.initializer.append(numpy_helper.from_array(np.arange(views, dtype=np.int64), VIEWS_INPUT))

    def packed(self, metadata: Metadata | None = None) -> bytes:
        """Return the content of the file.

        Raises:
            ConfigError: it is larger than one file can be.
        """
        from onnx import helper

        if metadata is not None:
            helper.set_model_props(self.model, {KEY: to_text(metadata)})
        if self.model.ByteSize() > LARGEST:
            raise ConfigError(
                f"the network has {self.model.ByteSize() / 1e9:.1f} GB of weights, and one .onnx file holds 2 GB;"
                " export a smaller one."
            )
        content: bytes = self.model.SerializeToString()
        return content

    def answers(self, content: bytes, pixels_NHWC: Array, rows: Array) -> Answers:
        """Ask a file in onnxruntime, with nothing but pixels.

        Raises:
            RunError: it does not run.
        """
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what fails is said below
        parts: dict[str, list[Array]] = {}
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            names = [output.name for output in session.get_outputs()]
            for start in range(0, len(rows), BATCH):
                answers = session.run(names, {INPUT: pixels_NHWC[rows[start : start + BATCH]]})
                for name, values in zip(names, answers, strict=True):
                    parts.setdefault(name, []).append(values)
        except Exception as error:  # onnxruntime has a class of its own for each status
            reason = " ".join(str(error).rpartition(" : ")[2].split())[:200]
            raise RunError(f"the exported file does not run in onnxruntime ({reason}); no file was written.") from error
        joined = {name: np.concatenate(values) for name, values in parts.items()}
        return Answers(joined["probabilities"].astype(np.float64), joined.get("unknown_score"))

    def read_back(self, content: bytes, where: str) -> Metadata:
        """Return what a file says of itself."""
        import onnx

        model = onnx.load_from_string(content)
        texts = {pair.key: pair.value for pair in model.metadata_props}
        return parse_metadata(texts[KEY], where)
