"""Exported files against their networks: largest difference, equal answers, size, seconds to export, images a second.

A line for the classifier in the box (CIFAR-10), and for each of some small trainings: `small` and `resnet18` on digits,
every head, and a probe of the photographs that come along. Each is exported in float32 and in int8; then PyTorch
(float32), onnxruntime (float32 and int8) and OpenVINO (float32) answer the same images in turns, on one thread, in an
order that is drawn anew for each turn: medians of images a second, and the ratio to PyTorch's with its least and
greatest. Both files of the box (`all`), and of photographs of another set (`photos=DATA`), are then measured on all
test images of CIFAR-10, or of that set. With `pte` in front the file is ExecuTorch's in place of those two, in
`.venv-mobile`, and PyTorch and it are asked about one image at a time.

    python benchmarks/export.py ../shared/data/cifar10-jpeg.tar.xz [pte] [box|all|small|resnet18|photos|photos=DATA|HEAD ...]
"""

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sightline
from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_like_run, source_of_run
from sightline.inference.classifier import Classifier
from sightline.inference.views import VIEWS
from sightline.measures.significance import accuracy_interval, paired_interval

TURNS = 7
SECONDS = 0.5  # of one measure, at least
BATCH = 32  # images
SPEEDNET = {"network": {"kind": "speednet"}}
TRAININGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "small": ("digits", "small", {}),
    "resnet18": ("digits", "small", {"network": {"kind": "resnet18"}, "fit": {"epochs": 1}}),
    "photos": ("groceries", "photos", {"probe": {"minutes": 1}}),
    **{
        head: (
            "digits",
            "small",
            SPEEDNET
            | {"head": {"kind": head, "layer": "groups.1"} | ({} if head == "attention_pool" else {"patch": 1})},
        )
        for head in ("graph_attention", "self_attention", "attention_pool")
    },
    "linear": ("digits", "small", SPEEDNET | {"head": {"kind": "linear", "layer": "groups.1"}}),
}
Array = np.ndarray[Any, Any]
Answer = Callable[[Array], Array]


def main() -> None:
    archive, *names = sys.argv[1:]
    phone = names[:1] == ["pte"]
    names = names[phone:]
    torch.set_num_threads(1)
    libraries = ("torch", "executorch") if phone else ("torch", "onnxruntime", "openvino")
    print(", ".join(f"{one} {version(one)}" for one in libraries) + f"; one thread, {TURNS} turns", flush=True)
    for name in names or ["box", *TRAININGS]:
        with tempfile.TemporaryDirectory() as folder:
            if name in ("box", "all"):
                compare("box", None, archive, Path(folder), whole=name == "all", phone=phone)
                continue
            name, _, other = name.partition("=")
            data, recipe, settings = TRAININGS[name]
            if other:
                data, settings = other, {"evaluation": {"on": "none"}}
            run = sightline.train(data, recipe=recipe, settings=settings, run=Path(folder) / "run")
            compare(name, run, None, Path(folder), whole=bool(other), phone=phone)


def compare(
    name: str, run: Path | None, data: str | None, folder: Path, *, whole: bool = False, phone: bool = False
) -> None:
    """Export a classifier twice, or once for phones, and print what was measured of the files."""
    classifier = sightline.load(run, device="cpu", precision="float32")
    source = source_of_run(classifier.model) if data is None else find_like_run(data, classifier.model)
    exactly = (classifier.size, classifier.resize)
    images = open_images(source, None, exactly=exactly, preprocessing=classifier.preprocessing)
    files = {}
    for way in ["executorch float32"] if phone else ["onnxruntime float32", "onnxruntime int8"]:
        int8 = way.endswith("int8")
        out = folder / f"{way}{'.pte' if phone else '.onnx'}"
        start = time.perf_counter()
        try:
            exported = sightline.export(run, out=out, int8=int8, data=data)
        except sightline.SightlineError as error:
            print(f"{name}: {error}", flush=True)
            continue
        seconds, measured = time.perf_counter() - start, exported.metadata.measured
        files[way] = out
        print(
            f"{name} {way}: {exported.bytes / 1e6:.2f} MB, {seconds:.0f} s to export and check,"
            f" largest difference {measured.largest_difference:.2g}, {measured.equal_answers:,} of {measured.n:,} answers"
            f" equal, unknown equal in {measured.equal_unknown}; accuracy {measured.accuracy:.4f}"
            f" {interval(measured.interval)}, float32 {measured.reference_accuracy:.4f}, difference"
            f" {100 * measured.difference:+.2f} points {interval(measured.difference_interval, 100)} ({measured.split})",
            flush=True,
        )
    speeds(name, classifier, files, images.pixels[images.readable[: 1 if phone else BATCH]])
    if whole and not phone:
        accuracy_on_test(name, files, images)


def speeds(name: str, classifier: Classifier, files: dict[str, Path], pixels: Array) -> None:
    """Let all ways answer in turns, and print their images a second."""
    ways: dict[str, Answer] = {"torch": classifier.probabilities}
    for way, path in files.items():
        phone = path.suffix == ".pte"
        ways[way] = by_executorch(path, VIEWS[classifier.views]) if phone else by_onnxruntime(path)
    if "onnxruntime float32" in files:
        ways["openvino float32"] = by_openvino(files["onnxruntime float32"])
    repeats = {}
    for way, answer in ways.items():
        answer(pixels)
        start = time.perf_counter()
        answer(pixels)
        repeats[way] = max(1, round(SECONDS / (time.perf_counter() - start)))
    rates: dict[str, list[float]] = {way: [] for way in ways}
    order = list(ways)
    for _ in range(TURNS):
        random.shuffle(order)
        for way in order:
            start = time.perf_counter()
            for _ in range(repeats[way]):
                ways[way](pixels)
            rates[way].append(repeats[way] * len(pixels) / (time.perf_counter() - start))
    for way, values in rates.items():
        ratios = sorted(one / other for one, other in zip(values, rates["torch"], strict=True))
        print(
            f"{name} {way}: {statistics.median(values):,.0f} images/s ({classifier.views} views), times torch"
            f" {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}; n = {TURNS} turns)",
            flush=True,
        )


def by_executorch(path: Path, views: int) -> Answer:
    """Answer as a phone does; the export before has set as many threads as PyTorch has."""
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    asked, shown = program.load_method("forward"), torch.arange(views)
    return lambda pixels: asked.execute([torch.from_numpy(pixels.copy()), shown])[0].numpy()


def by_onnxruntime(path: Path) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["probabilities"], {"pixels": pixels})[0]


def by_openvino(path: Path) -> Answer:
    import openvino

    how = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(str(path), "CPU", how)
    return lambda pixels: compiled({"pixels": pixels})[compiled.output("probabilities")]


def accuracy_on_test(name: str, files: dict[str, Path], images: Any) -> None:
    """Print the accuracy of both files on all test images of a set, and their paired difference."""
    rows = np.array([row for row in images.readable.tolist() if images.splits[row] == "test"])
    right = {}
    for way, path in files.items():
        answer = by_onnxruntime(path)
        parts = [answer(images.pixels[rows[start : start + BATCH]]) for start in range(0, len(rows), BATCH)]
        right[way] = np.concatenate(parts).argmax(1) == images.labels[rows]
        low_high = accuracy_interval(right[way])
        print(
            f"{name} {way}: test accuracy {right[way].mean():.4f} {interval(low_high)}, n = {len(rows):,}",
            flush=True,
        )
    if len(right) < 2:
        return
    difference, *ends = paired_interval(right["onnxruntime int8"], right["onnxruntime float32"])
    print(
        f"{name} int8 - float32: {100 * difference:+.2f} points {interval(ends, 100)}, paired, n = {len(rows):,}",
        flush=True,
    )


def interval(ends: Any, factor: float = 1) -> str:
    low, high = (factor * end for end in ends)
    return f"[{low:.2f}, {high:.2f}]" if factor != 1 else f"[{low:.4f}, {high:.4f}]"


if __name__ == "__main__":
    main()
