"""An exported classifier without torch; its graphs are made here by hand, so that every answer can be computed."""

import csv
import hashlib
import io
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sightline
import sightline_runtime
from sightline.cli.main import main as sightline_command
from sightline_runtime.batches import decoded_batches
from sightline_runtime.conformal import class_scores, image_uniforms
from sightline_runtime.decoding.decode import read_image
from sightline_runtime.errors import ConfigError, DataError, RunError
from sightline_runtime.exported import ExportedClassifier, load
from sightline_runtime.predict import images_below, main

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Array = np.ndarray[Any, Any]
CLASSES = ["red", "green", "=blue"]
SIZE = (6, 8)
LIMIT = -4.0  # of the score of unknown images
WEIGHTS = {
    "one": [4.0],
    "flip": [4.0, 8.0],
    "six": [4.0, 8.0, 2.0, 2.0, 2.0, 2.0],
}  # of logits, by view: their mean counts


def about(**changes: Any) -> dict[str, Any]:
    """What a file says of itself."""
    sets = {f"{share / 100:g}": 0.9 for share in range(80, 100)} | {"0.95": None}
    measured = {
        "data": "made",
        "split": "validation",
        "n": 10,
        "accuracy": 0.9,
        "interval": [0.6, 0.99],
        "reference_accuracy": 0.9,
        "difference": 0.0,
        "difference_interval": [0.0, 0.0],
        "equal_answers": 10,
        "largest_difference": 0.0,
    }
    described = {
        "format": 1,
        "sightline": "0.2.0",
        "classes": CLASSES,
        "height": SIZE[0],
        "width": SIZE[1],
        "fit": "crop",
        "intensity": "own",
        "views": "six",
        "temperatures": {"one": 1.0, "flip": 1.0, "six": 1.0},
        "sets": dict.fromkeys(WEIGHTS, sets),
        "unknown": dict.fromkeys(WEIGHTS, LIMIT),
        "numbers": "float32",
        "fingerprint": "f" * 16,
        "measured": measured,
    }
    return {**described, **changes}


def exported(path: Path, described: Any = None, *, pixels: str = "pixels", classes: int = 3) -> Path:
    """A file whose logits are the mean of each channel, 0 to 1, times the mean weight of the views that are asked for."""
    from onnx import TensorProto, helper

    def number(name: str, values: Any, kind: int = TensorProto.FLOAT) -> Any:
        array = np.asarray(values)
        return helper.make_tensor(name, kind, array.shape, array.ravel().tolist())

    nodes = [
        helper.make_node("Cast", [pixels], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels", "sides"], ["means"], keepdims=0),
        helper.make_node("Div", ["means", "most"], ["shares"]),
        helper.make_node("Gather", ["weights", "views"], ["asked"]),
        helper.make_node("ReduceMean", ["asked"], ["weight"], keepdims=0),
        helper.make_node("Mul", ["shares", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("ReduceLogSumExp", ["logits", "classes"], ["energies"], keepdims=0),
        helper.make_node("Neg", ["energies"], ["unknown_score"]),
    ]
    taken = [
        helper.make_tensor_value_info(pixels, TensorProto.UINT8, ["B", *SIZE, 3]),
        helper.make_tensor_value_info("views", TensorProto.INT64, ["V"]),
    ]
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", *sides])
        for name, sides in (("probabilities", [classes]), ("logits", [classes]), ("unknown_score", []))
    ]
    constants = [
        number("sides", [1, 2], TensorProto.INT64),
        number("classes", [1], TensorProto.INT64),
        number("most", 255.0),
        number("weights", WEIGHTS["six"]),
        number("views", range(6), TensorProto.INT64),
    ]
    graph = helper.make_graph(nodes, "classifier", taken, given, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if described is not False:
        text = described if isinstance(described, str) else json.dumps(about() if described is None else described)
        helper.set_model_props(model, {"sightline": text})
    path.write_bytes(model.SerializeToString())
    return path


def chances_of(pixels_HWC: Array, views: str = "six") -> Array:
    """The answer, computed by hand."""
    logits_K = pixels_HWC.mean(axis=(0, 1)) / 255 * np.mean(WEIGHTS[views])
    powers_K: Array = np.exp(logits_K)
    return powers_K / powers_K.sum()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return exported(tmp_path / "model.onnx")


def odd_files() -> Iterator[tuple[str, bytes]]:
    """Images of odd sizes, turned by a camera, with opacity, a palette, gray, and of 16 bits."""
    random = np.random.default_rng(5)

    def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    for turn in range(1, 9):
        exif = Image.Exif()
        exif[274] = turn
        height, width = 11 + 5 * turn, 60 - 3 * turn
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
        yield f"turned-{turn}.png", saved(image, exif=exif)
        yield f"turned-{turn}.jpg", saved(image, "JPEG", exif=exif)
    yield "opacity.png", saved(Image.fromarray(random.integers(0, 256, (33, 17, 4), np.uint8), "RGBA"))
    yield "gray-opacity.png", saved(Image.fromarray(random.integers(0, 256, (7, 51, 2), np.uint8), "LA"))
    yield (
        "palette.png",
        saved(Image.fromarray(random.integers(0, 256, (29, 29), np.uint8)).convert("P"), transparency=3),
    )
    yield "gray.png", saved(Image.fromarray(random.integers(0, 256, (3, 3), np.uint8)))
    yield "deep.png", saved(Image.fromarray(random.integers(0, 4000, (19, 40), np.uint16)))
    yield "wide.png", saved(Image.fromarray(random.integers(0, 256, (1, 97, 3), np.uint8)))


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_is_what_the_graph_computes_of_the_pixels(model: Path, noise: Callable[..., Array]) -> None:
    classifier = sightline_runtime.load(model)
    pixels = noise(1, *SIZE)
    answer = classifier.predict(pixels)
    expected = chances_of(pixels)
    assert answer.label == CLASSES[int(expected.argmax())]
    assert list(answer.probabilities.values()) == pytest.approx(sorted(expected, reverse=True), abs=1e-6)
    assert answer.within is None
    assert isinstance(answer, sightline_runtime.Prediction)


@pytest.mark.parametrize("views", list(WEIGHTS))
def test_the_views_that_are_asked_for_reach_the_graph(model: Path, noise: Callable[..., Array], views: Any) -> None:
    pixels = noise(2, *SIZE)
    answer = load(model).predict(pixels, views)
    assert answer.probability == pytest.approx(chances_of(pixels, views).max(), abs=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.52, 1.0])
def test_adaptive_views_call_the_graph_again_for_images_that_one_view_leaves_unsure(
    tmp_path: Path, noise: Callable[..., Array], threshold: float
) -> None:
    views = (*WEIGHTS, "adaptive")
    described = about(
        views="adaptive",
        temperatures=dict.fromkeys(views, 1.0),
        sets=dict.fromkeys(views, about()["sets"]["six"]),
        unknown=dict.fromkeys(views, LIMIT),
        adaptive=threshold,
    )
    classifier = load(exported(tmp_path / "model.onnx", described))
    pixels_BHWC = np.stack([noise(number, *SIZE) for number in range(8)])
    pixels_BHWC[::2, ..., 0] = 200  # sure of these
    pixels_BHWC[::2, ..., 1:] = 10
    one_BK, six_BK = (np.stack([chances_of(pixels, views) for pixels in pixels_BHWC]) for views in ("one", "six"))
    asked_B = (one_BK.max(1) < threshold) | (threshold == 1)
    assert asked_B.sum() == {0.0: 0, 0.52: 4, 1.0: 8}[threshold]
    expected_BK = np.where(asked_B[:, None], six_BK, one_BK)
    answers = classifier.answers(pixels_BHWC, coverage=0.9)
    for answer, expected_K in zip(answers, expected_BK, strict=True):
        assert [answer.probabilities[name] for name in CLASSES] == pytest.approx(expected_K.tolist(), abs=1e-6)
    _, scores_B = classifier.computed(pixels_BHWC, "adaptive")
    (_, one_B), (_, six_B) = (classifier.computed(pixels_BHWC, views) for views in ("one", "six"))
    assert np.allclose(scores_B, np.where(asked_B, six_B, one_B), atol=1e-6)


def test_adaptive_views_without_a_threshold_are_refused(tmp_path: Path) -> None:
    described = about(temperatures=dict.fromkeys((*WEIGHTS, "adaptive"), 1.0))
    with pytest.raises(RunError, match="adaptive, or a temperature of one or six views, is missing"):
        load(exported(tmp_path / "model.onnx", described))


def test_many_images_are_answered_in_their_order_as_one_by_one(model: Path, noise: Callable[..., Array]) -> None:
    classifier = load(model)
    images = [noise(number, 9 + number % 5, 20) for number in range(40)]
    assert classifier.predict(images) == [classifier.predict(image) for image in images]


def test_an_image_whose_score_is_above_the_limit_is_none_of_these(tmp_path: Path) -> None:
    white, black = np.full((*SIZE, 3), 255, np.uint8), np.zeros((*SIZE, 3), np.uint8)
    score = -np.log(3 * np.exp(np.mean(WEIGHTS["six"])))  # of white: all logits are the mean weight
    assert score < LIMIT < -np.log(3)
    classifier = load(exported(tmp_path / "model.onnx"))
    assert [answer.unknown for answer in classifier.predict([white, black])] == [False, True]
    silent = load(exported(tmp_path / "silent.onnx", about(unknown=None)))
    assert silent.predict(black).unknown is None


def test_a_set_holds_the_classes_whose_score_is_within_the_limit(model: Path, noise: Callable[..., Array]) -> None:
    pixels = noise(3, *SIZE)
    scores_K = class_scores(chances_of(pixels)[None], image_uniforms([pixels]))[0]
    within = load(model).predict(pixels, coverage=0.9).within
    assert within is not None
    assert set(within) == {name for name, score in zip(CLASSES, scores_K, strict=True) if score <= 0.9}
    assert len(load(model).predict(pixels, coverage=0.95).within or ()) == 3  # of None every class is within


@pytest.mark.parametrize(("coverage", "views"), [(0.5, None), (0.905, None)])
def test_a_coverage_that_is_not_kept_is_refused(model: Path, coverage: float, views: Any) -> None:
    with pytest.raises(ConfigError, match=r"wanted 0\.8 to 0\.99"):
        load(model).predict(np.zeros((*SIZE, 3), np.uint8), views, coverage=coverage)


def test_views_that_the_file_does_not_have_are_refused(tmp_path: Path) -> None:
    described = about(views="flip", sets=None)  # temperatures for six, but the graph has two views
    classifier = load(exported(tmp_path / "model.onnx", described))
    with pytest.raises(ConfigError, match=r"calibrated for one, flip;"):
        classifier.predict(np.zeros((*SIZE, 3), np.uint8), "six")


def test_an_image_that_cannot_be_read_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    with pytest.raises(DataError, match=r"broken\.jpg cannot be read: .*; leave it out or mend it"):
        load(model).predict(tmp_path / "broken.jpg")


# ── files that are not ours ──────────────────────────────────────────────────────────────────────────────────────────


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in about().items() if key != name}


@pytest.mark.parametrize(
    ("described", "said"),
    [
        (False, "was not written by sightline"),
        ("{", "metadata"),
        ("[]", "metadata"),
        (without("classes"), "classes"),
        (about(views="two"), "views"),
        (about(classes=["a", "a", "b"]), "same name"),
        (about(temperatures={"six": -1.0}), "temperatures"),
        (about(format=2), "format 2"),
        (about(height=7), "does not fit its metadata: it takes no uint8 pixels of 7 × 8"),
        (about(classes=["a", "b"]), "does not fit its metadata: it returns no probabilities of 2 classes"),
    ],
)
def test_metadata_that_were_changed_are_refused_in_one_sentence(tmp_path: Path, described: Any, said: str) -> None:
    with pytest.raises(RunError) as caught:
        load(exported(tmp_path / "model.onnx", described))
    sentence = str(caught.value)
    assert said in sentence
    assert "model.onnx" in sentence
    assert "\n" not in sentence


def test_a_graph_of_other_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="takes no uint8 pixels"):
        load(exported(tmp_path / "model.onnx", pixels="image"))


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("text.onnx", "empty.onnx"):
        with pytest.raises(RunError, match=f"{name}.*export the run again"):
            load(tmp_path / name)
    with pytest.raises(RunError, match="is not there"):
        load(tmp_path / "gone.onnx")
    with pytest.raises(RunError, match="is a folder"):
        load(tmp_path)


def test_a_missing_onnxruntime_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        load(model)


def test_errors_are_those_of_sightline() -> None:
    import sightline.errors

    for name in ("SightlineError", "ConfigError", "DataError", "RunError", "StorageError"):
        assert getattr(sightline_runtime, name) is getattr(sightline.errors, name)


# ── the same pixels ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_a_training_and_the_runtime_see_the_same_pixels(tmp_path: Path, folder: Callable[..., Path], fit: Any) -> None:
    """Of files of odd sizes, turned, with opacity: what a training caches, and what reaches the graph."""
    from sightline.data.cache import open_as_trained
    from sightline.data.sources.find_source import find_source
    from sightline_runtime.decoding.preprocessing import Preprocessing

    root = folder({f"{'ab'[number % 2]}/{name}": data for number, (name, data) in enumerate(odd_files())})
    images = open_as_trained(find_source(str(root)), None, (SIZE, SIZE), None, Preprocessing(fit=fit))
    seen: dict[str, Array] = {}

    class Noting(ExportedClassifier):
        def computed(self, pixels_BHWC: Array, views: Any) -> tuple[Array, Array | None]:
            seen[str(len(seen))] = pixels_BHWC.copy()
            return super().computed(pixels_BHWC, views)

    loaded = load(exported(tmp_path / "model.onnx", about(fit=fit)))
    classifier = Noting(loaded.session, loaded.metadata)
    classifier.predict([root / path for path in images.paths])
    (given_BHWC,) = seen.values()
    assert len(given_BHWC) == len(list(odd_files()))
    np.testing.assert_array_equal(given_BHWC, images.pixels[: len(given_BHWC)])
    source = images_below(str(root))
    ((names, read_BHWC),) = decoded_batches([source], classifier.resize, 100, [], classifier.preprocessing)
    by_name = dict(zip(names, read_BHWC, strict=True))
    for path, pixels_HWC in zip(images.paths, given_BHWC, strict=True):
        np.testing.assert_array_equal(by_name[str(root / path)], pixels_HWC)


def test_the_pixels_of_lossless_files_are_those_of_every_version() -> None:
    """Otherwise files that were exported before would be asked about other pixels than they were measured with."""
    digest = hashlib.sha256()
    for name, data in odd_files():
        if name.endswith(".png"):
            digest.update(read_image(data, (32, 40)).pixels.tobytes())
    assert digest.hexdigest()[:16] == "be4b48a23477b376"


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def photos(folder: Callable[..., Path]) -> Path:
    others = {"notes.txt": b"no image", ".hidden.png": b"", "more/10.PNG": b"", "broken.jpg": b"\xff\xd8\xff no"}
    images = dict(odd_files())
    return folder({**images, **others, "more/10.PNG": images["gray.png"], "more/9.png": images["deep.png"]}, "photos")


def read_table(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text("utf-8"))))


@pytest.mark.parametrize("flags", [[], ["--sets", "0.9"], ["--views", "one"]])
def test_both_commands_write_the_same_table(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    tables = [tmp_path / "runtime.csv", tmp_path / "product.csv"]
    assert main([str(model), str(photos), "--out", str(tables[0]), *flags]) == 0
    said = capsys.readouterr()
    assert sightline_command(["predict", str(model), str(photos), "--out", str(tables[1]), *flags]) == 0
    assert tables[0].read_bytes() == tables[1].read_bytes()
    rows = read_table(tables[0])
    assert len(rows) == 1 + len(list(odd_files())) + 2
    assert {row[1] for row in rows[1:]} <= {"red", "green", "'=blue"}  # which no spreadsheet runs
    assert "left out: 1 hidden files" in said.err
    assert "broken.jpg" in said.err
    assert "predictions in" in said.out


def test_one_image_is_answered_in_a_line_and_many_as_a_table(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model), str(photos / "gray.png"), "--sets", "0.95"]) == 0
    line, in_set = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{photos / 'gray.png'}: ")
    assert in_set.startswith("  prediction set for 95%: ")
    assert main([str(model), str(photos / "gray.png"), str(photos / "more")]) == 0
    names = [row[0] for row in csv.reader(io.StringIO(capsys.readouterr().out))]
    assert names == ["file", *(str(photos / name) for name in ("gray.png", "more/9.png", "more/10.PNG"))]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.onnx", "photos"], "is not there"),
        (["model.onnx", "gone"], "check the spelling"),
        (["model.onnx", "empty"], "no images in"),
        (["model.onnx", "photos", "--sets", "0.5"], "wanted 0.8 to 0.99"),
        (["model.onnx", "photos", "--threads", "-1"], "wanted 1 or more"),
        (["model.onnx", "photos", "--out", "gone/table.csv"], "cannot be written"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.splitlines()[-1].startswith("sightline-predict: ")
    assert shown.out == ""


def test_settings_without_effect_on_an_exported_file_are_refused(model: Path, photos: Path) -> None:
    for setting in ({"precision": "bfloat16"}, {"trust_code": True}):
        with pytest.raises(ConfigError, match="has no effect on an exported file"):
            sightline.predict(model, photos, **setting)


def test_neither_command_loads_torch(model: Path, photos: Path) -> None:
    program = (
        "import sys\n"
        "from sightline.cli.main import main as product\n"
        "from sightline_runtime.predict import main as runtime\n"
        f"assert runtime([{str(model)!r}, {str(photos)!r}]) == 0\n"
        f"assert product(['predict', {str(model)!r}, {str(photos)!r}]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


def test_threads_are_those_that_are_asked_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert load(model).session.get_session_options().intra_op_num_threads == 1
    assert load(model, threads=2).session.get_session_options().intra_op_num_threads == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert load(model).session.get_session_options().intra_op_num_threads == 0


# ── the service ──────────────────────────────────────────────────────────────────────────────────────────────────────


def service_of(model: Path, **settings: Any) -> Any:
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    from sightline_runtime.serving.service import ExportedPredictor, build_service
    from sightline_runtime.serving.settings import ServeSettings
    from sightline_runtime.serving.worker import Asker

    predictor = ExportedPredictor(Asker(load(model)), ServeSettings(**settings))
    return TestClient(build_service(predictor, "0", lambda _: None), base_url="http://127.0.0.1")


def test_the_service_answers_as_predict_does(model: Path, photos: Path) -> None:
    client = service_of(model)
    paths = [photos / "opacity.png", photos / "turned-6.jpg"]
    files = [("images", (path.name, path.read_bytes())) for path in paths]
    answer = client.post("/api/predict", files=files, data={"coverage": "0.9", "views": "flip", "top": "2"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["views"] == "flip"
    expected = load(model).predict(paths, "flip", coverage=0.9)
    for found, prediction in zip(answer.json()["images"], expected, strict=True):
        assert found["class"] == prediction.label
        assert found["probability"] == prediction.probability
        assert found["none_of_these"] is prediction.unknown
        assert found["set"] == list(prediction.within or ())
        assert [one["class"] for one in found["classes"]] == list(prediction.probabilities)[:2]


def test_the_service_tells_what_the_file_says_of_itself_and_has_no_explanations(model: Path) -> None:
    client = service_of(model, max_images=3)
    told = client.get("/api/model").json()
    assert told["classes"] == CLASSES
    assert told["size"] == list(SIZE)
    assert told["accuracy"] == {"value": 0.9, "interval": [0.6, 0.99], "n": 10, "split": "validation"}
    assert told["calibration"]["temperatures"] == about()["temperatures"]
    assert client.get("/api/health").json()["status"] == "ok"
    assert "=blue" in client.get("/api").text
    fields = client.get("/openapi.json").json()["components"]["schemas"]["PredictForm"]["properties"]
    assert set(fields) == {"images", "top", "views", "coverage"}
    assert fields["images"]["maxItems"] == 3


def test_the_accuracy_that_is_told_is_of_images_that_the_classifier_did_not_learn_from(tmp_path: Path) -> None:
    from sightline_runtime.serving.serve import _about

    own = {"data": "made", "split": "cross-validation", "n": 21, "accuracy": 0.8, "interval": [0.6, 0.9]}
    learned = about()["measured"] | {"split": "train", "accuracy": 1.0}
    file = exported(tmp_path / "new.onnx", about(measured=learned, learned=10, run=own))
    client = service_of(file)
    told = client.get("/api/model").json()["accuracy"]
    assert told == {"value": 0.8, "interval": [0.6, 0.9], "n": 21, "split": "cross-validation"}
    page = client.get("/api").text
    assert "Of 21 images that it had not learned from (cross-validation) 80.0% were named right" in page
    assert _about(load(file)) == "3 classes, accuracy 0.8000 (0.6000 to 0.9000; cross-validation of made, n = 21)"
    file = exported(tmp_path / "old.onnx", about(measured=learned))  # of a version that carried nothing else
    client = service_of(file)
    assert client.get("/api/model").json()["accuracy"] is None
    assert "does not tell how good it is" in client.get("/api").text
    assert "accuracy unknown" in _about(load(file))


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        ({"explain": "grad_cam"}, 400, "unknown field 'explain'"),
        ({"coverage": "0.5"}, 422, "wanted 0.8 to 0.99"),
        ({"views": "ten"}, 422, "wanted one of one, flip, six"),
    ],
)
def test_the_service_refuses_what_it_cannot_answer(model: Path, data: Any, status: int, said: str) -> None:
    image = next(data for name, data in odd_files() if name == "turned-1.png")
    answer = service_of(model).post("/api/predict", files=[("images", ("a.png", image))], data=data)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_the_service_asks_for_its_token(model: Path) -> None:
    client = service_of(model, token="eight letters")
    assert client.get("/api/model").status_code == 401
    assert client.get("/api/model", headers={"Authorization": "Bearer eight letters"}).status_code == 200


def answering(command: list[str], environment: dict[str, str] | None = None) -> Any:
    """Ask a server that a command starts what its classifier is, and end it."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        address = next(word for line in lines for word in line.split() if word.startswith("http://"))
        with urllib.request.urlopen(f"{address}/model", timeout=30) as answer:
            return json.load(answer)
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize(
    "command", [["-m", "sightline_runtime.serving.serve"], ["-m", "sightline", "serve"]], ids=["runtime", "product"]
)
def test_both_commands_serve_the_file(model: Path, command: list[str]) -> None:
    pytest.importorskip("fastapi")
    told = answering([sys.executable, *command, str(model), "--port", "0"])
    assert told["classes"] == CLASSES


def test_a_server_whose_file_or_token_is_wrong_is_refused_in_one_sentence(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fastapi")
    from sightline_runtime.serving.serve import main as serve

    for arguments, said in (
        ([str(tmp_path / "gone.onnx")], "is not there"),
        ([str(model), "--token", "short"], "8 or"),
    ):
        assert serve([*arguments, "--port", "0"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
