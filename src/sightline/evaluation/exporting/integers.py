"""The layers of an exported model in int8: weights of 7 bits, a scale per channel; the first layer in float, and those
that look at each channel by itself, with what narrows their channels again.

Per-channel int8 as the guides have it falls from an accuracy of 0.886 to 0.485 on a processor without VNNI, whose sums
of two products saturate at 16 bits. With weights of 7 bits they cannot: 2 · 255 · 64 is below 2¹⁵. Nor does a
processor with VNNI show it, so the structure of the model is checked, not its answers alone. N images, V views.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.errors import ConfigError
from sightline.evaluation.exporting.graph import INPUT, VIEWS_INPUT
from sightline.runs.writing import storage_error

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["CALIBRATION_IMAGES", "STRONGEST_WEIGHT", "quiet", "structure_problems", "to_int8"]

CALIBRATION_IMAGES = 256
STRONGEST_WEIGHT = 64  # of 7 bits: two products with a level of 255 fit into 16 bits
BATCH = 16
LAYERS = ("Conv", "Gemm", "MatMul")
WITH_LAYERS = ("MaxPool",)  # which pass int8 on, so that nothing is converted between two layers

Array = np.ndarray[Any, Any]


def to_int8(model: "ModelProto", pixels_NHWC: Array, views: int) -> "ModelProto":
    """Return a model whose layers compute in int8, but for the first ones and what int8 costs much accuracy.

    Args:
        model: of ``graph.to_onnx``, without a default for its views.
        pixels_NHWC: training images at the cached size, by which the range of each activation is set.
        views: that are calibrated with; more than the image and its mirror image say nothing new.
    Raises:
        ConfigError: it has no layer behind the first.
        StorageError: the disk of the folder for temporary files is full.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands out the calibration images."""

        def __init__(self) -> None:
            self.batches: Iterator[dict[str, Array]] = (
                {INPUT: pixels_NHWC[start : start + BATCH], VIEWS_INPUT: np.arange(min(views, 2))}
                for start in range(0, len(pixels_NHWC), BATCH)
            )

        def get_next(self) -> dict[str, Array] | None:
            return next(self.batches, None)

    try:
        with tempfile.TemporaryDirectory(prefix="sightline-") as folder, quiet():
            plain, fused, quantized = (Path(folder) / f"{name}.onnx" for name in ("plain", "fused", "int8"))
            onnx.save(model, plain)
            quant_pre_process(plain, fused, skip_symbolic_shape=True)
            layers = _layers(onnx.load(fused))
            if len(layers) < 2:
                raise ConfigError("--int8 has no effect: the network has no layer behind the first; leave it out.")
            quantize_static(
                fused,
                quantized,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*LAYERS, *WITH_LAYERS],
                nodes_to_exclude=[*layers[:1], *_others(onnx.load(fused), layers), *_sensitive(onnx.load(fused))],
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return onnx.load(quantized)
    except OSError as error:
        raise storage_error(Path(tempfile.gettempdir()), error) from error


def structure_problems(model: "ModelProto") -> list[str]:
    """List what makes the int8 of a model wrong on some processor, whatever it answers on this one."""
    import onnx

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    layers = [node for node in _reached(model) if node.op_type in LAYERS]
    problems = []
    quantized = 0
    for place, layer in enumerate(layers):
        source = makers.get(layer.input[1])
        if source is None or source.op_type != "DequantizeLinear":
            continue
        quantized += 1
        weights = onnx.numpy_helper.to_array(tensors[source.input[0]])
        scales = onnx.numpy_helper.to_array(tensors[source.input[1]])
        if place == 0:
            problems.append(f"the first layer, {layer.name}, is in int8; wanted in float")
        if weights.dtype != np.int8 or int(np.abs(weights.astype(np.int32)).max()) > STRONGEST_WEIGHT:
            problems.append(f"{layer.name} has weights of 8 bits; wanted 7, of at most {STRONGEST_WEIGHT}")
        if scales.size != (channels := _outputs(layer, weights)):
            problems.append(f"{layer.name} has {scales.size} scales for {channels} channels; wanted one each")
    return problems if quantized else ["no layer is in int8"]


def _outputs(layer: "NodeProto", weights: Array) -> int:
    """Return the output channels of a layer."""
    transposed = any(one.name == "transB" and one.i for one in layer.attribute)
    return int(weights.shape[0] if layer.op_type == "Conv" or transposed else weights.shape[-1])


def _layers(model: "ModelProto") -> list[str]:
    """Return the names of the layers with weights on the way from the pixels to the logits, in their order."""
    tensors = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in _reached(model) if node.op_type in LAYERS and node.input[1] in tensors]


def _others(model: "ModelProto", layers: list[str]) -> list[str]:
    """Return the names of what multiplies and is no layer: activations with each other, distances from a reference."""
    return [node.name for node in model.graph.node if node.op_type in LAYERS and node.name not in layers]


def _sensitive(model: "ModelProto") -> list[str]:
    """Return the names of the layers that int8 costs much accuracy: convolutions of each channel by itself, and of a
    network that has them those of one pixel that narrow, which nothing bounds (linear bottlenecks).

    Source:
        Sheng et al., "A Quantization-Friendly Separable Convolution for MobileNets", EMC2 2018; Sandler et al.,
        "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018; docs/results/export.md.
    """
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) == 4}
    layers = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in shapes]
    weights = {node.name: shapes[node.input[1]] for node in layers}
    depthwise = [name for name, (_, inputs, *_) in weights.items() if inputs == 1]
    narrowing = [name for name, (outputs, inputs, *sides) in weights.items() if sides == [1, 1] and outputs < inputs]
    return [*depthwise, *narrowing] if depthwise else []


def _reached(model: "ModelProto") -> list["NodeProto"]:
    """Return the nodes between pixels and logits, in their order."""
    forward, between = {INPUT}, []
    for node in model.graph.node:
        if forward.intersection(node.input):
            forward.update(node.output)
            between.append(node)
    needed, kept = {"logits"}, []
    for node in reversed(between):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


class quiet:  # noqa: N801 - used as a word
    """Keeps the hints of a library, which are not for users, from the screen."""

    def __enter__(self) -> None:
        self.level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self.level)
