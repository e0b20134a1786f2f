"""An exported file answers as its run does, or there is none."""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402

import sightline  # noqa: E402
from conftest import Finished  # noqa: E402
from sightline.errors import ConfigError, DataError, RunError, StorageError  # noqa: E402
from sightline.evaluation.exporting import export as exporting  # noqa: E402
from sightline.evaluation.exporting import gate, graph, integers  # noqa: E402
from sightline.evaluation.exporting.answers import Answers  # noqa: E402
from sightline.evaluation.exporting.export import Exported, export  # noqa: E402
from sightline.inference.classifier import Classifier  # noqa: E402
from sightline_runtime.metadata import KEY, Metadata, parse_metadata  # noqa: E402
from untrained import NETWORKS, SPEEDNET, untrained  # noqa: E402

Array = np.ndarray[Any, Any]
WEIGHTS = "network.groups.1.conv2.weight"


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The file of the finished run, in float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(finished.cache))
        return export(finished.run, out=tmp_path_factory.mktemp("exported") / "model.onnx")


@pytest.fixture(scope="module")
def plain(exported: Exported) -> onnx.ModelProto:
    """The model of that file, as the exporter gives it."""
    model = onnx.load(exported.path)
    del model.graph.initializer[[tensor.name for tensor in model.graph.initializer].index("views")]
    del model.metadata_props[:]
    return model


@pytest.fixture
def again(
    finished: Finished, plain: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Exported]:
    """Export the run once more, with some part of the model changed on its way."""
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))

    def run(change: Callable[[onnx.ModelProto], None] = lambda _: None, **options: Any) -> Exported:
        def changed(_: Classifier) -> onnx.ModelProto:
            model = onnx.ModelProto()
            model.CopyFrom(plain)
            change(model)
            return model

        monkeypatch.setattr(graph, "to_onnx", changed)
        return export(finished.run, out=tmp_path / "again.onnx", **options)

    return run


@pytest.fixture(scope="module")
def pixels(finished: Finished) -> Array:
    """Some images of the set, and noise."""
    from PIL import Image

    files = sorted(finished.data.rglob("*.png"))[::9]
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    return np.concatenate([np.stack([np.asarray(Image.open(file)) for file in files]), noise])


def tensor_of(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def write_tensor(model: onnx.ModelProto, name: str, value: Array) -> None:
    tensor_of(model, name).CopyFrom(numpy_helper.from_array(value, name))


def session(path: Path | bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


# ── one file that answers as the run ─────────────────────────────────────────────────────────────────────────────────


def test_pixels_alone_get_the_probabilities_and_scores_of_predict(exported: Exported, finished, pixels: Array) -> None:
    classifier = sightline.load(finished.run, device="cpu", precision="float32")
    chances_BK, logits_BK, scores_B = session(exported.path).run(None, {"pixels": pixels})
    assert chances_BK == pytest.approx(classifier.probabilities(pixels), abs=1e-5)
    outputs = classifier.outputs(pixels, classifier.views)
    expected_B = outputs.unknown_scores(classifier.views)
    assert scores_B == pytest.approx(expected_B, abs=1e-3 * np.ptp(expected_B))  # a difference of large numbers
    assert logits_BK == pytest.approx(graph.combine(outputs.logits_VNK, classifier.views), abs=1e-3)


def test_fewer_views_and_any_number_of_images_are_answered_too(exported: Exported, finished, pixels: Array) -> None:
    classifier = sightline.load(finished.run, device="cpu", precision="float32")
    asked = session(exported.path)
    for views, count in (("one", 1), ("flip", 2)):
        for some in (pixels[:1], pixels):
            inputs = {"pixels": some, "views": np.arange(count, dtype=np.int64)}
            assert asked.run(["probabilities"], inputs)[0] == pytest.approx(
                classifier.probabilities(some, views), abs=1e-5
            )


def test_the_views_of_a_second_call_complete_those_of_the_first() -> None:
    classifier, pixels = untrained(SPEEDNET, 32)
    classifier.views = classifier.model["views"] = "six"
    classifier.model["temperatures"]["six"] = 0.6
    asked = session(graph.to_onnx(classifier).SerializeToString())
    first, rest, whole = (
        asked.run(["logits"], {"pixels": pixels, "views": np.array(views, np.int64)})[0]
        for views in ([0], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])
    )
    assert pytest.approx(whole, abs=1e-4) == 0.25 * first + 0.75 * rest


def test_the_metadata_says_all_that_the_answers_need(exported: Exported, finished: Finished) -> None:
    model = json.loads((finished.run / "model.json").read_text("utf-8"))
    texts = session(exported.path).get_modelmeta().custom_metadata_map
    metadata = parse_metadata(texts[KEY], "it")
    assert metadata == exported.metadata
    assert metadata.classes == model["classes"]
    assert [metadata.height, metadata.width] == model["resize"]
    assert metadata.temperatures == model["temperatures"]
    assert metadata.sets == model["trust"]["sets"]["thresholds"]
    assert metadata.unknown == model["trust"]["unknown"]["thresholds"]
    assert (metadata.numbers, metadata.fingerprint) == ("float32", model["data"]["fingerprint"])
    measured = metadata.measured
    assert measured.split == "validation"
    assert measured.n == measured.equal_answers == model["data"]["counts"]["validation"]
    assert measured.equal_unknown in (measured.n - 1, measured.n)  # the threshold is the score of one of these images
    assert measured.accuracy == measured.reference_accuracy
    assert measured.interval[0] <= measured.accuracy <= measured.interval[1]
    assert 0 <= measured.largest_difference < 1e-4


def test_the_file_carries_what_the_run_measured_of_itself(exported: Exported, finished: Finished) -> None:
    metrics = json.loads((finished.run / "model.json").read_text("utf-8"))["metrics"]
    own = exported.metadata.run
    assert own is not None
    assert (own.split, own.n, own.accuracy) == (metrics["split"], metrics["n"], metrics["accuracy"])
    assert list(own.interval) == metrics["accuracy_interval"]
    assert exported.metadata.held_out == own
    assert exported.metadata.learned == 0  # of its validation images
    first, second = exported.sentences()
    assert f"accuracy of the run {own.accuracy:.4f} (" in first
    assert f"(validation of {finished.data.name})" in second


def test_the_file_knows_no_folder_of_this_machine(exported: Exported, finished: Finished) -> None:
    content = exported.path.read_bytes()
    for folder in (str(Path(sightline.__file__).parent), str(finished.run.parent), "site-packages", ".py"):
        assert folder.encode() not in content, folder


def test_the_runtime_answers_from_the_file_as_predict_does(exported: Exported, finished: Finished) -> None:
    import sightline_runtime

    files = sorted(finished.data.rglob("*.png"))[::7]
    ours = sightline.load(finished.run, device="cpu", precision="float32").predict(files, coverage=0.9)
    its = sightline_runtime.load(exported.path).predict(files, coverage=0.9)
    for one, other in zip(its, ours, strict=True):
        assert (one.label, one.within) == (other.label, other.within)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_openvino_reads_the_file(exported: Exported, pixels: Array) -> None:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(exported.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    chances = compiled({"pixels": pixels})[compiled.output("probabilities")]
    assert chances == pytest.approx(session(exported.path).run(["probabilities"], {"pixels": pixels})[0], abs=1e-4)


# ── every network and head ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_and_head_is_exported(name: str) -> None:
    classifier, pixels = untrained(*NETWORKS[name])
    asked = session(graph.to_onnx(classifier).SerializeToString())
    for views, count in (("one", 1), ("flip", 2)):
        inputs = {"pixels": pixels, "views": np.arange(count, dtype=np.int64)}
        chances_BK, _, scores_B = asked.run(None, inputs)
        assert chances_BK == pytest.approx(classifier.probabilities(pixels, views), abs=1e-5)
        outputs = classifier.outputs(pixels, views)
        assert scores_B == pytest.approx(outputs.unknown_scores(views), rel=1e-3)


def test_an_operator_that_onnx_does_not_have_is_named() -> None:
    class Bessel(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(maps)

    classifier, _ = untrained(SPEEDNET, 32)
    classifier.network.activation = Bessel()
    with pytest.raises(
        ConfigError, match=r"the network speednet has the operator prims.bessel_j0, which ONNX does not"
    ):
        graph.to_onnx(classifier)


def test_answers_that_overflow_are_the_same_for_every_class_in_both(plain: onnx.ModelProto) -> None:
    classifier, pixels = untrained(SPEEDNET, 32)
    classifier.reference = None
    with torch.no_grad():
        classifier.network.head.weight.fill_(3e38)
    (chances_BK, _, _) = session(graph.to_onnx(classifier).SerializeToString()).run(
        None, {"pixels": pixels, "views": np.arange(2, dtype=np.int64)}
    )
    assert chances_BK == pytest.approx(np.full((5, 5), 0.2))
    assert classifier.probabilities(pixels) == pytest.approx(chances_BK)


# ── the gate: planted drift ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_changed_passes_the_gate(again: Callable[..., Exported], exported: Exported) -> None:
    assert again().metadata == exported.metadata


def another_mean(model: onnx.ModelProto) -> None:
    shift = numpy_helper.to_array(tensor_of(model, "shift_C"))
    write_tensor(model, "shift_C", shift + np.float32(0.2))


def two_outputs_swapped(model: onnx.ModelProto) -> None:
    head = numpy_helper.to_array(tensor_of(model, "network.head.weight"))
    axis = head.shape.index(3)
    write_tensor(model, "network.head.weight", np.ascontiguousarray(np.take(head, [1, 0, 2], axis)))


def one_view_for_all(model: onnx.ModelProto) -> None:
    places = numpy_helper.to_array(tensor_of(model, "places_VP"))
    write_tensor(model, "places_VP", np.ascontiguousarray(np.repeat(places[1:2], len(places), axis=0)))


def another_temperature(model: onnx.ModelProto) -> None:
    write_tensor(model, "temperatures", numpy_helper.to_array(tensor_of(model, "temperatures")) * np.float32(1.1))


def no_number(model: onnx.ModelProto) -> None:
    write_tensor(model, "temperatures", numpy_helper.to_array(tensor_of(model, "temperatures")) * np.float32(np.nan))


@pytest.mark.parametrize(
    "change",
    [another_mean, two_outputs_swapped, one_view_for_all, another_temperature, no_number],
    ids=lambda one: one.__name__,
)
def test_a_graph_that_drifts_is_refused_and_leaves_no_file(
    again: Callable[..., Exported], tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    with pytest.raises(RunError, match=r"the exported file does not answer as the run does: .*; no file was written"):
        again(change)
    assert [path for path in tmp_path.iterdir() if path.name != "cache"] == []


def classes_swapped(metadata: Metadata) -> Metadata:
    first, second, *others = metadata.classes
    return msgspec.structs.replace(metadata, classes=[second, first, *others])


def another_resize(metadata: Metadata) -> Metadata:
    return msgspec.structs.replace(metadata, fit="squash")


def another_size(metadata: Metadata) -> Metadata:
    return msgspec.structs.replace(metadata, height=31)


def another_threshold(metadata: Metadata) -> Metadata:
    assert metadata.unknown is not None
    return msgspec.structs.replace(metadata, unknown={views: limit + 1 for views, limit in metadata.unknown.items()})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (classes_swapped, "images get another class"),
        (another_resize, "its rule of the resize is .*squash"),
        (another_size, "its size of the images is"),
        (another_threshold, "its threshold of unknown images is"),
    ],
)
def test_a_description_that_drifts_is_refused_and_leaves_no_file(
    again: Callable[..., Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Metadata], Metadata],
    what: str,
) -> None:
    right = exporting.describe
    monkeypatch.setattr(exporting, "describe", lambda *arguments: change(right(*arguments)))
    with pytest.raises(RunError, match=what):
        again()
    assert [path for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_files_that_would_be_resized_otherwise_are_refused_by_their_pixels(
    exported: Exported, finished: Finished, monkeypatch: pytest.MonkeyPatch, image_file: Callable[..., bytes]
) -> None:
    """Though every fact is right: what is compared is what is decoded, to the bit."""
    wide = image_file(np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8))

    class Checked:
        def originals(self, count: int) -> Any:
            yield "wide.png", wide

    classifier = sightline.load(finished.run, device="cpu", precision="float32")
    gate.refuse_other_pixels(exported.metadata, classifier, Checked())  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"wide.png would be resized otherwise"):
        gate.refuse_other_pixels(another_resize(exported.metadata), classifier, Checked())  # type: ignore[arg-type]


# ── int8 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_int8_is_smaller_right_and_has_the_cures(again: Callable[..., Exported], exported: Exported) -> None:
    small = again(int8=True)
    model = onnx.load(small.path)
    assert integers.structure_problems(model) == []
    assert small.metadata.numbers == "int8"
    assert small.metadata.measured.difference >= -0.005
    kept = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    assert any("whiten" in name for name in kept)
    whole = [numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    matrices = [array for array in whole if array.ndim > 1]
    assert len(matrices) == 7  # six convolutions and the head
    assert max(int(np.abs(array.astype(int)).max()) for array in matrices) <= 64


def test_two_products_of_its_weights_fit_into_16_bits() -> None:
    """What VPMADDUBSW adds, on a processor without VNNI: 255 · w + 255 · w, saturating."""
    assert 2 * 255 * integers.STRONGEST_WEIGHT < 2**15 <= 2 * 255 * (integers.STRONGEST_WEIGHT + 1)


@pytest.mark.parametrize(
    ("kind", "expected"), [("depthwise", {"first", "depthwise", "narrowing"}), ("dense", {"first"})]
)
def test_convolutions_of_each_channel_and_what_narrows_them_again_stay_in_float(kind: str, expected: set[str]) -> None:
    random = np.random.default_rng(0)
    shapes = {"first": (8, 3, 3, 3), kind: (8, 1 if kind == "depthwise" else 8, 3, 3), "grouped": (8, 4, 3, 3)}
    shapes |= {"narrowing": (4, 8, 1, 1), "widening": (8, 4, 1, 1)}
    groups = {"depthwise": 8, "grouped": 2}
    weights = [
        onnx.numpy_helper.from_array(random.normal(size=shape).astype(np.float32), f"{name}.weight")
        for name, shape in shapes.items()
    ]
    nodes = [
        onnx.helper.make_node("Cast", [graph.INPUT], ["levels"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Transpose", ["levels"], ["x"], perm=[0, 3, 1, 2]),
    ]
    before = "x"
    for name in shapes:
        inputs = [before, f"{name}.weight"]
        nodes.append(onnx.helper.make_node("Conv", inputs, [name], name=name, group=groups.get(name, 1)))
        before = name
    nodes.append(onnx.helper.make_node("ReduceMean", [before], ["logits"], keepdims=0))
    inputs = [
        onnx.helper.make_tensor_value_info(graph.INPUT, onnx.TensorProto.UINT8, ["B", 16, 16, 3]),
        onnx.helper.make_tensor_value_info(graph.VIEWS_INPUT, onnx.TensorProto.INT64, ["V"]),
    ]
    output = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)
    whole = onnx.helper.make_graph(nodes, "tiny", inputs, [output], weights)
    model = onnx.helper.make_model(whole, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    made = integers.to_int8(model, random.integers(0, 256, (8, 16, 16, 3), np.uint8), 1)
    assert integers.structure_problems(made) == []
    makers = {name: node.op_type for node in made.graph.node for name in node.output}
    convolutions = {node.name: makers.get(node.input[1]) for node in made.graph.node if node.op_type == "Conv"}
    in_float = {name for name in shapes if convolutions[name] != "DequantizeLinear"}
    assert in_float == expected


@pytest.mark.parametrize(
    ("without", "what"),
    [
        ({"reduce_range": False}, "has weights of 8 bits; wanted 7"),
        ({"per_channel": False}, r"has 1 scales for \d+ channels"),
        ({"nodes_to_exclude": []}, "the first layer, .*, is in int8; wanted in float"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_int8_without_one_of_the_cures_is_refused_though_this_processor_may_not_show_it(
    again: Callable[..., Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: dict[str, Any], what: str
) -> None:
    import onnxruntime.quantization as quantization

    right = quantization.quantize_static
    monkeypatch.setattr(quantization, "quantize_static", lambda *a, **options: right(*a, **options | without))
    with pytest.raises(RunError, match=f"the int8 file would be wrong on some processors: .*{what}"):
        again(int8=True)
    assert [path for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_int8_that_loses_accuracy_is_refused_with_the_paired_interval(
    again: Callable[..., Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = integers.to_int8

    def damaged(*arguments: Any) -> onnx.ModelProto:
        model = right(*arguments)
        write_tensor(model, "temperatures", -numpy_helper.to_array(tensor_of(model, "temperatures")))
        return model

    monkeypatch.setattr(integers, "to_int8", damaged)
    with pytest.raises(
        RunError, match=r"in int8 its accuracy is .* points, .* to .*; n = \d+; at most 0.5 may be lost"
    ):
        again(int8=True)
    assert [path for path in tmp_path.iterdir() if path.name != "cache"] == []


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_a_file_cannot_be_written_is_said_before_the_work(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "there.onnx").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"there.onnx is there already; delete it, or name another file"):
        export(finished.run, out=tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == b"mine"
    with pytest.raises(StorageError, match="missing cannot be written"):
        export(finished.run, out=tmp_path / "missing" / "model.onnx")
    with pytest.raises(ConfigError, match=r"wanted the name of an .onnx or .pte file"):
        export(finished.run, out=tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"--int8 is of .onnx files; a .pte file is in float32, so leave it out"):
        export(finished.run, out=tmp_path / "model.pte", int8=True)


def test_a_file_for_phones_needs_the_extra_that_brings_executorch(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "executorch" else find(name))
    with pytest.raises(ConfigError, match=r"to .pte needs executorch, which is not installed; run: pip .*\[mobile\]"):
        export(finished.run, out=tmp_path / "model.pte")
    assert not (tmp_path / "model.pte").exists()


def test_a_file_that_answers_otherwise_once_it_is_described_is_refused() -> None:
    measured = Answers(np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]), None)
    gate.refuse_another(Answers(measured.probabilities_NK[:2] + 1e-7, None), measured)
    for other in (measured.probabilities_NK[1:], np.full((2, 2), np.nan)):
        with pytest.raises(RunError, match="answers otherwise than the one that was measured; no file was written"):
            gate.refuse_another(Answers(other, None), measured)


def test_a_run_that_is_none_not_finished_or_a_generator_is_refused(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(RunError):
        export(tmp_path / "nothing", out=tmp_path / "a.onnx")
    copy = Path(shutil.copytree(finished.run, tmp_path / "copy"))
    (copy / "DONE").unlink()
    with pytest.raises(RunError, match="not a finished run"):
        export(copy, out=tmp_path / "a.onnx")
    (copy / "DONE").touch()
    model = json.loads((copy / "model.json").read_text("utf-8"))
    (copy / "model.json").write_text(json.dumps(model | {"kind": "acgan"}), "utf-8")
    with pytest.raises(RunError):
        export(copy, out=tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_a_full_disk_is_said_and_leaves_nothing(
    again: Callable[..., Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match=r"the disk of .* is full"):
        again()
    assert [path for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_images_that_have_moved_are_named_by_data(
    again: Callable[..., Exported], finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(finished.run, tmp_path / "copy"))
    model = json.loads((copy / "model.json").read_text("utf-8"))
    model["data"]["location"] = str(tmp_path / "gone")
    (copy / "model.json").write_text(json.dumps(model), "utf-8")
    with pytest.raises(DataError, match=r"the images of .* are not at .*gone any more.*: --data SET"):
        export(copy, out=tmp_path / "a.onnx")
    again()  # puts the model that is there in the exporter's place
    exported = export(copy, out=tmp_path / "a.onnx", data=finished.data)
    assert exported.metadata.measured.split == "validation"  # it is the same set


def test_weights_alone_are_checked_with_a_set_that_is_named(
    again: Callable[..., Exported], finished: Finished, tmp_path: Path
) -> None:
    again()
    weights = finished.run / "model.safetensors"
    with pytest.raises(ConfigError, match=r"weights alone do not say which; name labeled ones: --data SET"):
        export(weights, out=tmp_path / "a.onnx")
    metadata = export(weights, out=tmp_path / "a.onnx", data=finished.data).metadata
    assert (metadata.measured.split, metadata.measured.n) == ("all", 90)
    counts = json.loads((finished.run / "model.json").read_text("utf-8"))["data"]["counts"]
    assert metadata.learned == counts["train"]  # it is the run's own set, and nothing is held out of it


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"classes": ["a", "a", "b"]}, "two classes have the same name"),
        ({"temperatures": {}}, "temperatures: there is none"),
        ({"height": 0}, "height"),
        ({"format": 2}, "has format 2, and this version reads up to 1; upgrade"),
        ({"unknown": {"six": "high"}}, "unknown"),
        ({"measured": None}, "measured"),
    ],
)
def test_edited_metadata_are_refused_with_what_is_wrong(exported: Exported, change: dict[str, Any], what: str) -> None:
    content = msgspec.to_builtins(exported.metadata) | change
    with pytest.raises(RunError, match=what):
        parse_metadata(json.dumps(content), "model.onnx")
    with pytest.raises(RunError, match="is not what sightline wrote"):
        parse_metadata(json.dumps(content)[:-5], "model.onnx")
