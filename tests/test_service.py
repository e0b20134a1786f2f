"""The service: what it answers, what it refuses and how, and that nothing that is sent to it harms it."""

import asyncio
import base64
import json
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Finished

pytest.importorskip("fastapi")

import uvicorn
from fastapi.openapi.models import OpenAPI
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

import sightline
from sightline.config.serving import ServeConfig
from sightline.errors import ConfigError
from sightline.inference.classifier import Classifier
from sightline.inference.predict import load
from sightline.serving import service
from sightline.serving.schemas import Answers, Model, describe_model
from sightline.serving.service import build_service
from sightline_runtime.decoding.decode import decode
from sightline_runtime.decoding.preprocessing import DEFAULT
from sightline_runtime.serving import service as runtime_service
from sightline_runtime.serving.connections import Connection
from sightline_runtime.serving.forms import base_name
from sightline_runtime.serving.limits import UNFINISHED_LINES, BodyLimit, RequestLog, is_loopback
from sightline_runtime.serving.schemas import Health
from sightline_runtime.serving.service import in_words_of_a_form
from sightline_runtime.serving.worker import Asker, BusyError

Array = np.ndarray[Any, Any]
HERE = "http://127.0.0.1"
TOKEN = "eight letters or more"


@pytest.fixture(scope="module")
def classifier(finished: Finished) -> Classifier:
    return load(finished.run)


@pytest.fixture(scope="module")
def asker(classifier: Classifier) -> Iterator[Asker]:
    asker = Asker(classifier)
    yield asker
    asker.close()


@pytest.fixture(scope="module")
def log() -> list[str]:
    """The lines that the server of ``client`` has written."""
    return []


@pytest.fixture(scope="module")
def client(asker: Asker, log: list[str]) -> TestClient:
    limits = ServeConfig(max_megabytes=4, max_megapixels=1, max_images=20)
    return TestClient(build_service(asker, limits, log.append), base_url=HERE)


@pytest.fixture(scope="module")
def guarded(asker: Asker) -> TestClient:
    """A server with a token."""
    app = build_service(asker, ServeConfig(token=TOKEN), lambda _: None)
    app.add_api_route("/", lambda: "the page")
    return TestClient(app, base_url=HERE, follow_redirects=False)


@pytest.fixture(scope="module")
def images(finished: Finished) -> list[Path]:
    """Eighteen images of three classes."""
    return [path for folder in sorted(finished.data.iterdir()) for path in sorted(folder.iterdir())[:6]]


def form(*files: Path | tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """Images as a form that httpx sends."""
    return [
        ("images", (file.name, file.read_bytes()) if isinstance(file, Path) else (file[0], file[1])) for file in files
    ]


def refusal(answer: Any, status: int) -> str:
    """The sentence of an error, which must have that status and the form of all errors."""
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert set(found) == {"error", "request_id"}
    assert found["request_id"] == answer.headers["x-request-id"]
    assert "\n" not in found["error"]
    assert "--" not in found["error"], "there are no flags here"
    return str(found["error"])


# ── what it answers ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_answers_are_those_of_predict_in_the_order_in_which_images_were_sent(
    client: TestClient, finished: Finished, images: list[Path]
) -> None:
    shuffled = [images[index] for index in np.random.default_rng(1).permutation(len(images))]
    found = client.post("/api/predict", files=form(*shuffled)).json()
    expected = sightline.predict(finished.run, shuffled).predictions
    assert [image["file"] for image in found["images"]] == [path.name for path in shuffled]
    assert [image["class"] for image in found["images"]] == [prediction.label for prediction in expected]
    assert [image["none_of_these"] for image in found["images"]] == [prediction.unknown for prediction in expected]
    for image, prediction in zip(found["images"], expected, strict=True):
        assert image["probability"] == pytest.approx(prediction.probability, abs=1e-6)
        assert {item["class"]: item["probability"] for item in image["classes"]} == pytest.approx(
            prediction.probabilities, abs=1e-6
        )
    Answers.model_validate(found)


def test_a_long_question_is_asked_in_parts_so_that_others_have_their_turn(
    client: TestClient, asker: Asker, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = client.post("/api/predict", files=form(*images)).json()["images"]
    monkeypatch.setattr(runtime_service, "AT_ONCE", 4)
    asked: list[int] = []
    ask = asker.ask
    monkeypatch.setattr(asker, "ask", lambda pixels, *more: (asked.append(len(pixels)), ask(pixels, *more))[1])
    parts = client.post("/api/predict", files=form(*images)).json()["images"]
    assert asked == [4, 4, 4, 4, 2]
    assert [image["class"] for image in parts] == [image["class"] for image in whole]
    assert [image["probability"] for image in parts] == pytest.approx(
        [image["probability"] for image in whole], abs=1e-6
    )


def test_sets_and_views_are_those_of_predict(client: TestClient, finished: Finished, images: list[Path]) -> None:
    found = client.post("/api/predict?views=one", files=form(*images), data={"coverage": "0.90"}).json()
    expected = sightline.predict(finished.run, images, views="one", sets=0.9).predictions
    assert found["views"] == "one"
    assert [image["set"] for image in found["images"]] == [list(prediction.within or ()) for prediction in expected]


def test_top_names_so_many_classes_and_never_more_than_there_are(client: TestClient, images: list[Path]) -> None:
    for top, named in (("1", 1), ("2", 2), ("999999999", 3)):
        found = client.post("/api/predict", files=form(images[0]), data={"top": top}).json()
        assert len(found["images"][0]["classes"]) == named


def test_an_explanation_is_an_overlay_on_the_image_as_the_network_sees_it(
    client: TestClient, images: list[Path], classifier: Classifier
) -> None:
    asked = {"explain": "grad_cam", "layer": "groups.0", "target": "grass"}
    found = client.post("/api/predict", files=form(*images[:2]), data=asked).json()
    Answers.model_validate(found)
    explanations = [image["explanation"] for image in found["images"]]
    assert [item["class"] for item in explanations] == ["grass", "grass"]
    kind, _, data = explanations[0]["overlay"].partition(",")
    assert kind == "data:image/png;base64"
    assert decode(base64.b64decode(data)).shape == (*classifier.size, 3)
    own = client.post("/api/predict", files=form(images[0]), data={"explain": "grad_cam"}).json()["images"][0]
    assert own["explanation"]["class"] == own["class"]
    assert own["explanation"]["overlay"] != explanations[0]["overlay"]


def test_a_name_is_reduced_to_its_last_part_on_one_line(client: TestClient, images: list[Path]) -> None:
    names = ["../../etc/passwd.png", "C:\\temp\\a.png", "a\tb\x1b[31m.png", "", "ü\u202e.png", "x" * 1000]
    assert [base_name(name) for name in names[:5]] == ["passwd.png", "a.png", "a?b?[31m.png", "", "ü?.png"]
    files = form(*((name, images[0].read_bytes()) for name in names if name))
    found = client.post("/api/predict", files=files).json()["images"]
    assert [image["file"] for image in found[:2]] == ["passwd.png", "a.png"]
    assert len(found[-1]["file"]) == 200


def test_each_of_many_callers_gets_the_answer_to_its_own_image(
    client: TestClient, finished: Finished, images: list[Path]
) -> None:
    expected = [prediction.probabilities for prediction in sightline.predict(finished.run, images).predictions]
    barrier = threading.Barrier(8)

    def call(number: int) -> None:
        barrier.wait(10)
        for index in range(number, number + 12):
            row = index % len(images)
            answer = client.post("/api/predict", files=form(images[row])).json()["images"][0]
            assert answer["file"] == images[row].name
            found = {item["class"]: item["probability"] for item in answer["classes"]}
            assert found == pytest.approx(expected[row], abs=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(8)))


def test_health_and_model_say_what_the_contract_says(client: TestClient, classifier: Classifier) -> None:
    health = client.get("/api/health").json()
    Health.model_validate(health)
    assert (health["status"], health["waiting_images"]) == ("ok", 0)
    found = client.get("/api/model").json()
    Model.model_validate(found)
    assert found["classes"] == classifier.classes
    metrics = classifier.model["metrics"]
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (metrics["accuracy"], metrics["n"])
    assert found["limits"] == {"megabytes": 4, "images": 20, "megapixels": 1, "explained_images": 16}
    assert "grad_cam" in found["methods"]
    assert "attention" not in found["methods"], "this network has none"


def test_a_classifier_that_was_never_measured_says_so(classifier: Classifier) -> None:
    model = {name: value for name, value in classifier.model.items() if name not in ("metrics", "trust")}
    found = describe_model(model, ServeConfig(), ["grad_cam"])
    Model.model_validate(found | {"request_id": "a"})
    assert (found["accuracy"], found["unknown"], found["coverages"]) == (None, None, [])
    old = model | {"metrics": {"accuracy": 0.5, "n": 10}}
    Model.model_validate(describe_model(old, ServeConfig(), []) | {"request_id": "a"})


def test_no_answer_holds_a_folder_of_the_machine(
    client: TestClient, finished: Finished, images: list[Path], classifier: Classifier, log: list[str]
) -> None:
    assert str(finished.data) in json.dumps(classifier.model), "or this test sees nothing"
    broken = form(("../a.png", b"no image"))
    answers = [
        client.get(path) for path in ("/api/model", "/api/health", "/api", "/openapi.json", "/api/nothing", "/x")
    ]
    answers.append(client.post("/api/predict", files=form(images[0]), data={"explain": "grad_cam"}))
    answers += [client.post("/api/predict", files=broken), client.post("/api/predict", content=b"x")]
    answers.append(client.post("/api/predict", files=form(images[0]), data={"explain": "grad_cam", "layer": "x"}))
    secrets = [
        str(finished.run),
        str(finished.data),
        str(finished.cache),
        tempfile.gettempdir(),
        str(Path.home()),
        "/src/",
    ]
    for answer in answers:
        everything = f"{answer.text} {answer.headers}"
        assert not [secret for secret in secrets if secret in everything], answer.url
    assert not [line for line in log for secret in secrets if secret in line]


def test_the_contract_is_valid_and_knows_every_path(client: TestClient, classifier: Classifier) -> None:
    found = client.get("/openapi.json").json()
    OpenAPI(**found)
    assert found["openapi"].startswith("3.1")
    assert {(path, method) for path, item in found["paths"].items() for method in item} == {
        ("/api/predict", "post"),
        ("/api/health", "get"),
        ("/api/model", "get"),
    }
    predict = found["paths"]["/api/predict"]["post"]
    assert set(predict["responses"]) >= {"200", "400", "408", "413", "415", "422", "503"}
    for item in predict["responses"].values():
        reference = item["content"]["application/json"]["schema"]["$ref"]
        assert reference.rpartition("/")[2] in found["components"]["schemas"]
    form = found["components"]["schemas"]["PredictForm"]
    assert predict["requestBody"]["content"]["multipart/form-data"]["schema"]["$ref"].endswith("/PredictForm")
    assert form["required"] == ["images"]
    assert form["properties"]["target"]["enum"] == classifier.classes
    assert "security" not in predict


def test_schemathesis_finds_nothing_that_the_contract_promises_and_the_server_refuses_or_the_reverse(
    asker: Asker,
) -> None:
    pytest.importorskip("schemathesis")
    tool = [Path(sys.executable).with_name("schemathesis"), "run", "--max-examples", "4", "--seed", "1"]
    with listening(build_service(asker, ServeConfig(), lambda _: None)) as port:
        done = subprocess.run(
            [*tool, f"http://127.0.0.1:{port}/openapi.json"],
            cwd=Path(__file__).parents[1],  # where schemathesis.toml is
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout[-5000:]


def test_the_page_loads_nothing_from_elsewhere_and_shows_how_to_ask(client: TestClient, guarded: TestClient) -> None:
    for text in (client.get("/api").text, guarded.get("/api", headers={"Authorization": f"Bearer {TOKEN}"}).text):
        assert not re.search(r"(src|href)=.?(https?:)?//", text)
        assert "curl" in text
        assert f"{HERE}/api/predict" in text
        assert TOKEN not in text


# ── what it refuses ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"top": "0"}, "top is '0'; wanted a whole number"),
        ({"top": "9" * 4000}, "wanted a whole number"),
        ({"top": "-1"}, "top is '-1'"),
        ({"views": "seven"}, "views is 'seven'; wanted one of one, flip, six"),
        ({"coverage": "0.5"}, "coverage is '0.5'; wanted 0.8 to 0.99"),
        ({"coverage": "nan"}, "wanted 0.8 to 0.99"),
        ({"explain": "grad_cm"}, "explain is 'grad_cm'; did you mean 'grad_cam'?"),
        ({"explain": "attention"}, "has no attention"),
        (
            {"explain": "grad_cam", "target": "gras"},
            "target gras: the classifier knows no such class; did you mean 'grass'?",
        ),
        (
            {"explain": "grad_cam", "layer": "group.0"},
            "layer group.0: there is no such layer; did you mean 'groups.0'?",
        ),
        ({"explain": "saliency", "layer": "groups.0"}, "layer has no effect on saliency"),
        ({"target": "grass"}, "target without explain has no effect"),
    ],
)
def test_a_field_of_an_unknown_value_is_refused_in_the_words_of_a_form(
    client: TestClient, images: list[Path], data: dict[str, str], sentence: str
) -> None:
    assert sentence in refusal(client.post("/api/predict", files=form(images[0]), data=data), 422)


def test_a_form_that_is_none_or_holds_something_else_is_refused(client: TestClient, images: list[Path]) -> None:
    one = form(images[0])
    data = images[0].read_bytes()
    post = client.post
    assert "wanted multipart/form-data" in refusal(post("/api/predict", json={"images": []}), 415)
    assert "of no named type" in refusal(post("/api/predict", content=b"x"), 415)
    kind = {"content-type": "multipart/form-data"}
    assert "boundary" in refusal(post("/api/predict", content=b"x", headers=kind), 400)
    kind = {"content-type": "multipart/form-data; boundary=b; charset=idna"}
    assert "no image in the form" in refusal(post("/api/predict", content=b"--b--\r\n", headers=kind), 400)
    assert "in the field 'image'" in refusal(post("/api/predict", files=[("image", ("a.png", data))]), 400)
    assert "images is text" in refusal(post("/api/predict", files=[*one, ("images", (None, b"text"))]), 400)
    assert "unknown field 'tip'; did you mean 'top'?" in refusal(
        post("/api/predict", files=one, data={"tip": "1"}), 400
    )
    assert "top is there twice" in refusal(post("/api/predict?top=1", files=one, data={"top": "1"}), 400)
    assert "unknown field" in refusal(post("/api/predict?x=1", files=one), 400)
    assert "the query" in refusal(post("/api/predict?images=a", files=one), 400)
    assert "exceeded maximum size" in refusal(post("/api/predict", files=one, data={"layer": "x" * 5000}), 400)


def test_other_paths_and_methods_are_refused(client: TestClient) -> None:
    assert "/api/predict" in refusal(client.get("/api/predicts"), 404)
    assert refusal(client.get("/api/"), 404)
    assert refusal(client.put("/api/nothing"), 404)
    assert refusal(client.get("/"), 404)
    answer = client.get("/api/predict")
    assert "does not take GET; wanted POST" in refusal(answer, 405)
    assert answer.headers["allow"] == "POST"
    for path, allowed in (("/api/predict", "POST"), ("/api/model", "GET"), ("/api", "GET"), ("/openapi.json", "GET")):
        answer = client.patch(path)
        assert f"does not take PATCH; wanted {allowed}." in refusal(answer, 405)
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_images_that_cannot_be_read_are_named_by_place_and_name(
    client: TestClient, images: list[Path], image_file: Callable[..., bytes]
) -> None:
    good = images[0]
    jpeg = image_file(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")
    png, tag = image_file(Image.new("RGB", (8, 8))), b"II*\0\x08\0"  # metadata of 6 bytes, which Pillow cannot unpack
    damaged = struct.pack(">I", len(tag)) + b"eXIf" + tag + struct.pack(">I", zlib.crc32(b"eXIf" + tag))
    for name, data, reason in (
        ("a.jpg", b"", "empty (0 bytes)"),
        ("a.jpg", b"this is text, whatever its name says", "no image in any known format"),
        ("b.jpg", jpeg[: len(jpeg) // 2], "broken"),
        ("d.png", png[:33] + damaged + png[33:], "broken"),
        ("c.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image in any known format"),
    ):
        sentence = refusal(client.post("/api/predict", files=form(good, (f"../{name}", data))), 422)
        assert sentence.startswith(f"image 2 of 2 ({name}) cannot be read: ")
        assert reason in sentence


def test_a_bomb_is_refused_by_its_header_and_costs_nothing(client: TestClient, images: list[Path]) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 40_000
    lines = zlib.compressobj(9)
    content = b"".join(lines.compress(bytes(side // 8 + 1)) for _ in range(side)) + lines.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    assert len(bomb) < 500_000
    start = time.perf_counter()
    sentence = refusal(client.post("/api/predict", files=form(images[0], ("bomb.png", bomb))), 413)
    assert "image 2 of 2 (bomb.png) has more than 1 megapixels" in sentence
    assert time.perf_counter() - start < 1


def test_too_many_images_and_too_many_bytes_are_refused(client: TestClient, images: list[Path]) -> None:
    assert "at most 20" in refusal(client.post("/api/predict", files=form(*[images[0]] * 1000)), 422)
    assert client.post("/api/predict", files=form(*[images[0]] * 20)).status_code == 200
    explained = client.post("/api/predict", files=form(*[images[0]] * 17), data={"explain": "grad_cam"})
    assert "at most 16 are explained" in refusal(explained, 422)
    sentence = refusal(client.post("/api/predict", files=form(("a.jpg", bytes(5_000_000)))), 413)
    assert "5.0 MB; at most 4 MB" in sentence
    assert refusal(client.post("/event-of-the-page", content=bytes(5_000_000)), 404), "in base64 a file is longer"
    assert refusal(client.post("/event-of-the-page", content=bytes(6_000_000)), 413)


def test_a_body_of_unknown_length_is_counted_while_it_comes(client: TestClient) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(50):
            sent += 1_000_000
            yield bytes(1_000_000)

    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert "at most 4 MB" in refusal(client.post("/api/predict", content=chunks(), headers=kind), 413)


def test_the_library_says_flags_and_the_service_says_fields() -> None:
    assert in_words_of_a_form("--method x is unknown") == "explain x is unknown"
    assert in_words_of_a_form("--window 9 is larger") == "window 9 is larger"


# ── who may ask ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_asked_for_everywhere_but_at_health(guarded: TestClient, images: list[Path]) -> None:
    assert guarded.get("/api/health").status_code == 200
    for path in ("/", "/api", "/api/model", "/openapi.json", "/api/nothing"):
        answer = guarded.get(path)
        assert "a token is needed" in refusal(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    wrong = {"Authorization": f"Bearer {TOKEN}!"}
    assert "the token is wrong" in refusal(guarded.post("/api/predict", files=form(images[0]), headers=wrong), 401)
    assert refusal(guarded.get("/api/model", headers={"Authorization": f"Basic {TOKEN}"}), 401)
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.post("/api/predict", files=form(images[0]), headers=right).status_code == 200
    found = guarded.get("/openapi.json", headers=right).json()
    asking = {path: operation.get("security") for path, item in found["paths"].items() for operation in item.values()}
    assert asking["/api/predict"] == asking["/api/model"] == [{"token": []}]
    assert asking["/api/health"] is None


def test_a_browser_opens_the_page_with_the_token_once(guarded: TestClient) -> None:
    assert "the token is wrong" in refusal(guarded.get("/?token=wrong"), 401)
    assert refusal(guarded.get("/api/model", params={"token": TOKEN}), 401), "a query may be written down on its way"
    answer = guarded.get("/", params={"token": TOKEN, "theme": "dark"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?theme=dark")
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert guarded.get("/").json() == "the page"
    guarded.cookies.clear()
    assert guarded.get("/", headers={"cookie": f"{cookie.partition('=')[0]}=x; a[]=1"}).status_code == 401


def test_a_page_of_another_site_may_not_ask(client: TestClient, images: list[Path]) -> None:
    def ask(**headers: str) -> Any:
        return client.post("/api/predict", files=form(images[0]), headers=headers)

    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://[", "http://localhost"):
        assert "may not ask" in refusal(ask(origin=origin), 403)
    for origin in ("http://127.0.0.1", "http://127.0.0.1:80", "https://127.0.0.1"):
        assert ask(origin=origin).status_code == 200
    assert client.get("/api/health", headers={"origin": "https://evil.example"}).status_code == 200


def test_a_name_that_was_pointed_at_this_machine_is_refused_where_no_token_is_asked_for(
    client: TestClient, guarded: TestClient
) -> None:
    evil = {"host": "evil.example:7860", "origin": "http://evil.example:7860"}
    assert "its own machine only" in refusal(client.get("/api/health", headers=evil), 403)
    for host in ("localhost:7860", "[::1]:7860", "127.0.0.2", "app.localhost"):
        assert client.get("/api/health", headers={"host": host}).status_code == 200
    assert guarded.get("/api/health", headers=evil).status_code == 200
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("localhost.example")


def test_every_request_has_an_id_and_a_plain_line_in_the_log(
    client: TestClient, log: list[str], images: list[Path]
) -> None:
    log.clear()
    own = client.post("/api/predict?top=1", files=form(*images[:3]), headers={"x-request-id": "mine-1"})
    assert own.headers["x-request-id"] == own.json()["request_id"] == "mine-1"
    other = client.get("/api/health%0Aforged", headers={"x-request-id": "no\tgood " + "x" * 99})
    assert re.fullmatch(r"[0-9a-f]{8}-\d+", other.headers["x-request-id"])
    first, second = log
    assert re.fullmatch(r"\S+Z mine-1 POST /api/predict 200 [\d.]+ ms \d+ B 3 images", first)
    assert "forged 404" in second
    assert not [path.name for path in images if path.name in first]


# ── one thread that asks ─────────────────────────────────────────────────────────────────────────────────────────────


class _Slow:
    """A classifier that waits to be let go, and notes what it is asked together."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.asked: list[list[int]] = []

    def answers(self, pixels_BHWC: Array, views: Any = None, *, coverage: float | None = None) -> list[Any]:
        numbers = pixels_BHWC[:, 0, 0, 0].tolist()
        self.asked.append(numbers)
        self.begun.release()
        assert self.go.acquire(timeout=10)
        if 13 in numbers:
            raise ConfigError("13 is refused")
        return [f"{number}{views or ''}" for number in numbers]


def pixels(*numbers: int, side: int = 2) -> Array:
    return np.stack([np.full((side, side, 3), number, np.uint8) for number in numbers])


@pytest.fixture
def slow() -> Iterator[tuple[_Slow, Asker]]:
    classifier = _Slow()
    asker = Asker(classifier)  # type: ignore[arg-type]
    asker.ask(pixels(0))
    assert classifier.begun.acquire(timeout=10)
    yield classifier, asker
    classifier.go.release(100)
    asker.close()


def test_what_waits_is_asked_together_and_everyone_gets_the_own_answer(slow: tuple[_Slow, Asker]) -> None:
    classifier, asker = slow
    order: list[str] = []
    answers = [asker.ask(pixels(1)), asker.ask(pixels(2, 3))]
    work = asker.do(lambda: order.append("work"))
    others = [
        asker.ask(pixels(4), "one"),
        asker.ask(pixels(5, side=3)),
        asker.ask(pixels(6)),
        asker.ask(pixels(7), "one"),
    ]
    assert asker.waiting_images == 8
    classifier.go.release(100)
    assert [answer.result(10) for answer in answers] == [["1"], ["2", "3"]]
    assert [answer.result(10) for answer in others] == [["4one"], ["5"], ["6"], ["7one"]]
    assert work.result(10) is None
    assert classifier.asked == [[0], [1, 2, 3, 6], [4, 7], [5]]
    assert order == ["work"]


def test_an_error_reaches_only_the_one_who_asked_for_it(slow: tuple[_Slow, Asker]) -> None:
    classifier, asker = slow
    answers = [asker.ask(pixels(number)) for number in (1, 13, 2)]
    classifier.go.release(100)
    assert answers[0].result(10) == ["1"]
    assert answers[2].result(10) == ["2"]
    with pytest.raises(ConfigError, match="13 is refused"):
        answers[1].result(10)
    failed = asker.do(lambda: 1 // 0)
    assert isinstance(failed.exception(10), ZeroDivisionError)
    assert asker.ask(pixels(3)).result(10) == ["3"], "the thread lives on"


def test_what_nobody_waits_for_is_not_computed(slow: tuple[_Slow, Asker]) -> None:
    classifier, asker = slow
    gone, also, here = (asker.ask(pixels(number)) for number in (1, 2, 3))
    assert gone.cancel()
    assert also.cancel()
    classifier.go.release(100)
    assert here.result(10) == ["3"]
    assert classifier.asked == [[0], [3]]


def test_no_more_questions_wait_than_there_is_room_for(
    slow: tuple[_Slow, Asker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline_runtime.serving.worker.MOST_WAITING", 2)
    classifier, asker = slow
    answers = [asker.ask(pixels(1)), asker.ask(pixels(2))]
    with pytest.raises(BusyError, match="2 questions wait already"):
        asker.ask(pixels(3))
    classifier.go.release(100)
    assert [answer.result(10) for answer in answers] == [["1"], ["2"]]


def test_a_server_that_has_too_much_to_do_says_when_to_come_again(
    client: TestClient, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_service, "MOST_REQUESTS", 0)
    answer = client.post("/api/predict", files=form(images[0]))
    assert "ask again in 2 s" in refusal(answer, 503)
    assert answer.headers["retry-after"] == "2"
    assert client.get("/api/health").status_code == 200


def test_what_nothing_else_caught_becomes_an_error_without_its_cause(
    client: TestClient, images: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime_service, "_answer", lambda *_: 1 // 0)
    answer = client.post("/api/predict", files=form(images[0]), headers={"x-request-id": "here"})
    assert "in the server's log" in refusal(answer, 500)
    assert "request here failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_what_strangers_send_writes_nothing_but_the_line_of_the_request(
    client: TestClient, image_file: Callable[..., bytes], log: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    log.clear()
    tiff = bytearray(image_file(Image.new("RGB", (8, 8)), "TIFF"))
    tiff[-9:] = b"\xff" * 9
    jpeg = image_file(Image.new("RGB", (8, 8)), "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x09\x00")
    with warnings.catch_warnings(record=True) as warned:  # as pytest has its own rules for warnings
        warnings.simplefilter("always")
        runtime_service._keep_quiet()
        client.post("/api/predict", files=form(("a.jpg", jpeg), ("a.tif", bytes(tiff))))
    client.post("/api/predict", content=b"--b\r\nx=y\r\n", headers={"content-type": "multipart/form-data; boundary=b"})
    assert len(log) == 2
    assert (warned, capfd.readouterr().err) == ([], "")


# ── over sockets ─────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def listening(app: Any, http: Any = "h11") -> Iterator[int]:
    """A server in a thread, on a port of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server = uvicorn.Server(uvicorn.Config(app, http=http, log_level="critical", access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def port(asker: Asker) -> Iterator[int]:
    limits = ServeConfig(max_megabytes=1, max_megapixels=1, max_images=20)
    with listening(build_service(asker, limits, lambda _: None)) as port:
        yield port


def request(*parts: bytes, length: int | None = None, head: str = "") -> bytes:
    """The bytes of a form with images."""
    begin = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    body = b"".join(begin + part + b"\r\n" for part in parts) + b"--b--\r\n"
    lines = f"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}Content-Length: {length or len(body)}\r\n"
    return lines.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body


def reply(port: int, *sent: bytes, seconds: float = 10) -> bytes:
    """The first answer to bytes, or what there is of it when the server closes or says nothing for a while."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        try:
            for part in sent:
                connection.sendall(part)
            while (data := connection.recv(65536)) and not whole(found := found + data):
                pass
        except (TimeoutError, ConnectionError):
            pass
    return found


def whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return length is not None and len(body) >= int(length[1])


def test_fifty_megabytes_are_refused_early_and_the_reason_can_be_read(port: int) -> None:
    for head in (b"Content-Length: 50000000\r\n", b"Transfer-Encoding: chunked\r\n"):
        lines = b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        start = request(b"").partition(b"\r\n\r\n")[2].removesuffix(b"\r\n--b--\r\n")
        pieces = [start, *[bytes(1_000_000)] * 50]
        if b"Transfer" in head:
            pieces = [b"%X\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b"")]
        found = reply(port, lines + head + b"\r\n", *pieces)
        assert found.startswith(b"HTTP/1.1 413"), found[:200]
        assert b"at most 1 MB are taken" in found
        assert b"200 OK" in reply(port, b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")


def test_one_who_hangs_up_leaves_nothing_behind(port: int, asker: Asker, images: list[Path]) -> None:
    data = images[0].read_bytes()
    full = request(data)
    for sent in (full[:20], full[:-40], full, request(*[data] * 20), request(data, length=900_000)):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(sent)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
    end = time.monotonic() + 5
    while asker.waiting_images and time.monotonic() < end:
        time.sleep(0.01)
    assert asker.waiting_images == 0
    assert b"200 OK" in reply(port, full)


def test_a_caller_who_leaves_before_the_answer_costs_no_forward_pass(
    slow: tuple[_Slow, Asker], images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, asker = slow
    lines: list[str] = []
    monkeypatch.setattr(service, "Maps", lambda _: SimpleNamespace(methods=[], left_out={}, layers=[]))
    monkeypatch.setattr(service, "describe_model", lambda *_: {})
    for name, value in (
        ("model", {}),
        ("classes", ["a"]),
        ("resize", (2, 2)),
        ("preprocessing", DEFAULT),
        ("views", "one"),
    ):
        monkeypatch.setattr(classifier, name, value, raising=False)
    app = build_service(asker, ServeConfig(), lines.append)
    with listening(app) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request(images[0].read_bytes()))
            until(lambda: asker.waiting_images == 2)
        until(lambda: bool(lines))
    assert " 499 " in lines[0]
    assert lines[0].endswith("1 images")
    classifier.go.release(100)
    assert asker.ask(pixels(7)).result(10) == ["7"]
    assert classifier.asked[-1] == [7]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


@pytest.mark.parametrize("answers", [True, False])
def test_a_body_that_stops_coming_is_not_waited_for_whatever_the_page_makes_of_it(answers: bool) -> None:
    async def page(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        try:
            while (await receive())["more_body"]:
                pass
        except Exception:
            if answers:
                await send({"type": "http.response.start", "status": 500, "headers": []})
                await send({"type": "http.response.body", "body": b"the page's own words"})
            raise

    lines: list[str] = []
    app = RequestLog(BodyLimit(page, 100, patience=0.2), lines.append)
    begin = b"POST / HTTP/1.1\r\nHost: a\r\n"
    with listening(app) as port:
        slow = reply(port, begin + b"Content-Length: 100\r\n\r\n" + b"only this")
        long = reply(port, begin + b"Transfer-Encoding: chunked\r\n\r\n" + b"FFFFF\r\n" + bytes(0xFFFFF))
    assert slow.startswith(b"HTTP/1.1 408")
    assert b"9 bytes in 0 s" in slow
    assert long.startswith(b"HTTP/1.1 413")
    assert [line.split()[4] for line in lines] == ["408", "413"]


def test_a_stream_of_events_passes_piece_by_piece(asker: Asker) -> None:
    app = build_service(asker, ServeConfig(), lambda _: None)
    go = threading.Event()

    def events() -> Iterator[bytes]:
        yield b"data: first\n\n"
        assert go.wait(10)
        yield b"data: last\n\n"

    app.add_api_route("/stream", lambda: StreamingResponse(events(), media_type="text/event-stream"))
    with listening(app) as port, socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        found = b""
        while b"first" not in found:
            found += connection.recv(65536)
        go.set()
        while b"last" not in found:
            found += connection.recv(65536)


def test_an_image_above_a_megabyte_stays_in_memory(
    client: TestClient, image_file: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a file was opened")

    large = image_file(Image.effect_noise((900, 900), 90).convert("RGB"), "BMP")
    assert len(large) > 2_000_000
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    assert client.post("/api/predict", files=form(("a.bmp", large))).status_code == 200


def test_bodies_that_are_held_together_are_bounded() -> None:
    async def page(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        while (await receive())["more_body"]:
            pass
        await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    app = RequestLog(BodyLimit(page, 1_000_000), lambda _: None)
    whole = b"POST /api/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000)
    with listening(app) as port, ThreadPoolExecutor(80) as pool:
        answers = list(pool.map(lambda _: reply(port, whole), range(80)))
        assert b"200 OK" in reply(port, whole), "what was held is let go"
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
    assert 1 <= len(refused) <= 16
    assert b"retry-after: 2" in refused[0]
    assert sum(answer.startswith(b"HTTP/1.1 200") for answer in answers) == 80 - len(refused)


@pytest.mark.parametrize("half", [b"POST /api/pre", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"])
def test_many_requests_that_never_come_whole_shut_nobody_out(
    half: bytes, asker: Asker, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline_runtime.serving.connections.MOST_CONNECTIONS", 20)
    lines: list[str] = []
    body = request(images[0].read_bytes())
    with listening(build_service(asker, ServeConfig(), lines.append), Connection) as port, ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(half)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: reply(port, body), range(16)))
    assert all(b"200 OK" in answer for answer in answers)
    assert sum(" 200 " in line for line in lines) == 16
    assert len(lines) <= 16 + UNFINISHED_LINES


def test_an_answer_before_the_rest_of_a_request_makes_no_other_connection_the_one_that_waited_longest(
    asker: Asker, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline_runtime.serving.connections.MOST_CONNECTIONS", 2)
    with listening(build_service(asker, ServeConfig(), lambda _: None), Connection) as port, ExitStack() as stack:
        unfinished, slow = (
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(2)
        )
        unfinished.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        answer = b""
        while not whole(answer):
            answer += unfinished.recv(65536)
        assert b" 403 " in answer
        assert b" 200 " in reply(port, b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        slow.sendall(request(images[0].read_bytes()))
        assert b" 200 " in slow.recv(65536)


def test_a_head_that_does_not_come_is_not_waited_for(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline_runtime.serving.connections.HEAD_SECONDS", 0.3)
    app = build_service(asker, ServeConfig(), lambda _: None)
    health = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with listening(app, Connection) as port:
        assert reply(port, b"GET /api/hea", seconds=5) == b""
        with socket.create_connection(("127.0.0.1", port), 5) as connection:  # nor behind an answer
            connection.sendall(health)
            answer = b""
            while not whole(answer):
                answer += connection.recv(65536)
            connection.sendall(b"G")
            assert connection.recv(65536) == b""


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Bytes of which some are changed, cut out, repeated or put in."""
    found = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        place, length = int(rng.integers(len(found))), int(rng.integers(1, 40))
        match rng.integers(4):
            case 0:
                found[place] = int(rng.integers(256))
            case 1 if len(found) > 2 * length:
                del found[place : place + length]
            case 2:
                found[place:place] = found[place : place + length]
            case _:
                found[place:place] = rng.bytes(length)
    return bytes(found)


def test_no_mutation_of_a_request_breaks_the_server(port: int, images: list[Path]) -> None:
    rng = np.random.default_rng(7)
    valid = request(images[0].read_bytes())
    head, _, body = valid.partition(b"\r\n\r\n")
    statuses: dict[bytes, int] = {}
    for number in range(200):
        if number % 10:
            new = mutated(rng, body)
            sent = re.sub(rb"Length: \d+", b"Length: %d" % len(new), head) + b"\r\n\r\n" + new
        else:
            sent = mutated(rng, head) + b"\r\n\r\n" + body
        found = reply(port, sent, seconds=0.5)
        statuses[found[9:12]] = statuses.get(found[9:12], 0) + 1
    assert not [status for status in statuses if status.startswith(b"5")], statuses
    assert {b"200", b"400", b"422"} <= set(statuses), statuses
    assert b"200 OK" in reply(port, valid)
