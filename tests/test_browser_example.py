"""The example of a classifier in the browser: its pixels against those of Python, and the whole page, in chromium."""

import base64
import functools
import http.server
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sightline
import sightline_runtime
from browsing import chromium, in_browser
from conftest import Finished
from sightline_runtime.decoding.decode import decode
from sightline_runtime.decoding.resizing import resize

pytestmark = in_browser

EXAMPLE = Path(__file__).parents[1] / "examples" / "browser"
BY_DECODER = 3  # levels by which the browser's pixels of a JPEG file may differ
PROBABILITY = 1e-4  # by which an answer may differ, of the same pixels

Array = np.ndarray[Any, Any]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A function that serves a folder on loopback, and gives its address."""
    servers = []

    def serve(folder: Path) -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def page(browser: Any, served: Any) -> Iterator[Any]:
    """A page that may import the modules of the example."""
    opened = browser.new_page()
    opened.goto(f"{served(EXAMPLE)}/resize.js")
    yield opened
    opened.close()


RESIZE = """async ([data, height, width, wantedHeight, wantedWidth, fit]) => {
  const { resize } = await import("./resize.js");
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const found = resize({ data: bytes, height, width }, wantedHeight, wantedWidth, fit);
  return [Array.from(found.data), found.height, found.width];
}"""
DECODE = """async (data) => {
  const { decode } = await import("./decode.js");
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const found = await decode(new Blob([bytes]));
  return [Array.from(found.data), found.height, found.width];
}"""


def as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def as_pixels(found: list[Any]) -> Array:
    data, height, width = found
    return np.array(data, np.uint8).reshape(height, width, 3)


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_pixels_are_resized_as_in_python_to_the_bit(page: Any, fit: Any) -> None:
    random = np.random.default_rng(0)
    for height, width, wanted in (
        (33, 47, (32, 32)),
        (20, 9, (32, 32)),
        (301, 211, (24, 40)),  # so much larger that blocks are averaged first
        (97, 403, (64, 64)),
        (45, 45, (45, 45)),
        (5, 300, (32, 16)),
    ):
        coarse = random.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), np.uint8)
        sharp = np.ascontiguousarray(coarse.repeat(5, 0).repeat(5, 1)[:height, :width])  # over- and undershoots
        for pixels in (sharp, random.integers(0, 256, sharp.shape, np.uint8)):
            found = page.evaluate(RESIZE, [as_text(pixels.tobytes()), height, width, *wanted, fit])
            assert np.array_equal(as_pixels(found), resize(pixels, *wanted, fit)), (height, width, wanted)


def test_files_are_decoded_as_in_python_upright_and_on_white(page: Any) -> None:
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (9, 7, 3), np.uint8)).resize((70, 90), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    alpha = Image.fromarray(np.linspace(0, 255, 6300).astype(np.uint8).reshape(90, 70))
    clear = Image.merge("RGBA", [*smooth.split(), alpha])
    for image, kind, options, levels in (
        (smooth, "PNG", {}, 0),
        (smooth.convert("L"), "PNG", {}, 0),
        (smooth.quantize(16), "PNG", {}, 0),
        (clear, "PNG", {}, 2),  # the browser mixes colors that it has multiplied and rounded
        (smooth, "JPEG", {"quality": 90}, BY_DECODER),
        (smooth, "JPEG", {"quality": 90, "exif": turned}, BY_DECODER),
        (smooth, "WEBP", {"lossless": True}, 0),
    ):
        file = io.BytesIO()
        image.save(file, kind, **options)
        found, wanted = as_pixels(page.evaluate(DECODE, as_text(file.getvalue()))), decode(file.getvalue())
        assert found.shape == wanted.shape
        assert np.abs(found.astype(int) - wanted).max() <= levels, (image.mode, kind)


def test_the_whole_page_answers_as_the_runtime_does(
    finished: Finished, browser: Any, served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    model = sightline.export(finished.run, out=tmp_path / "model.onnx").path
    built = subprocess.run(
        [sys.executable, EXAMPLE / "build.py", model, tmp_path / "site"], check=False, capture_output=True, text=True
    )
    if "could not be fetched" in built.stderr:
        pytest.skip("npm's registry, which has onnxruntime-web, is not to be reached")
    assert built.returncode == 0, built.stderr
    address, asked = served(tmp_path / "site"), []
    opened = browser.new_page()
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(address)
    opened.wait_for_selector("#file:enabled", timeout=60_000)
    classifier = sightline_runtime.load(model)
    for file in sorted(finished.data.rglob("*.png"))[::40]:
        opened.set_input_files("#file", file)
        opened.wait_for_function("name => document.getElementById('shown').alt.endsWith(name)", arg=file.name)
        rows = opened.locator("#answers tr").all()
        wanted = classifier.predict(file)
        assert rows[0].locator("td").first.inner_text() == wanted.label
        assert float(rows[0].locator("meter").get_attribute("value")) == pytest.approx(
            wanted.probability, abs=PROBABILITY
        )
        assert ("none of the classes" in opened.locator("#state").inner_text()) == wanted.unknown
    (broken := tmp_path / "broken.png").write_bytes(b"no image")
    opened.set_input_files("#file", broken)
    opened.wait_for_function("() => document.getElementById('state').textContent.includes('choose another file')")
    assert all(url.startswith((address, "blob:")) for url in asked), "asked another host"
    opened.close()


def test_a_folder_is_not_built_of_something_else(tmp_path: Path) -> None:
    (other := tmp_path / "other.onnx").write_bytes(b"nothing")
    built = subprocess.run(
        [sys.executable, EXAMPLE / "build.py", other, tmp_path / "site"], check=False, capture_output=True, text=True
    )
    assert built.returncode != 0
    assert "is no ONNX file" in built.stderr
    assert not (tmp_path / "site").exists()
