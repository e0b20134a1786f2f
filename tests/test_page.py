"""The web page of a server, driven in a real browser as a person would; what it lets in, and what it never does.

One process serves two pages, with every way beyond this machine refused and noted: a run with right and wrong answers, by
``serve``; and its weights alone, which forget after four seconds.
"""

import csv
import http.client
import io
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sightline
from browsing import SCHEMES, WIDTHS, chromium, faults, focused_unseen, in_browser, look_over, stays_within
from conftest import QUICK, coloured_folder
from sightline.config.serving import AddressConfig
from sightline.data.corrections import CorrectionsFile
from sightline.runs.writing import plain_text

pytest.importorskip("gradio", reason="the page needs gradio: pip install '.[app]'")
from sightline.serving.reviewing.server import may_be_reviewed_at

pytestmark = in_browser

EVIL = "<img src=x onerror=alert(1)>"
SERVER = """
import ipaddress, json, os, socket, sys, threading, time
from pathlib import Path

tried = open(sys.argv[1], "a", buffering=1)
connect, lookup = socket.socket.connect, socket.getaddrinfo

def is_here(host):
    try:
        return host in (None, "", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

def guarded_connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not is_here(address[0]):
        tried.write(f"connect {address}\\n")
        raise OSError("the network is cut")
    return connect(self, address)

def guarded_lookup(host, *rest, **more):
    if not is_here(host):
        tried.write(f"look up {host}\\n")
        raise OSError("the network is cut")
    return lookup(host, *rest, **more)

socket.socket.connect, socket.getaddrinfo = guarded_connect, guarded_lookup
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)  # so that the tests know that it would be seen
except OSError:
    pass

import uvicorn
from fastapi import FastAPI
from sightline import serve
from sightline.config.serving import ServeConfig
from sightline.inference.predict import load
from sightline_runtime.serving.worker import Asker
from sightline.serving.page.mount import mount_page
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
import gradio

run, began = Path(sys.argv[2]), time.time()
limits = ServeConfig(port=0, max_megabytes=0.5, max_megapixels=2.0)

def tell(address):
    facts = {"address": address, "folder": os.environ["GRADIO_TEMP_DIR"], "began": began}
    print(json.dumps(facts), flush=True)

def tell_whole(event):
    tell(event.address.rstrip("/"))
    from sightline.serving.page import layout
    layout.KEPT = 4
    weights = run / "model.safetensors"
    app = FastAPI(openapi_url=None)
    mount_page(app, Asker(load(weights)), weights, limits, os.environ["GRADIO_TEMP_DIR"])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    tell("http://127.0.0.1:%d" % listener.getsockname()[1])

serve(run, settings=limits, on_event=tell_whole)
"""


@dataclass(frozen=True)
class Served:
    """The pages that the process serves, and what is known of it."""

    run: Path
    addresses: list[str]
    folders: list[Path]
    began: float
    """When the imports were done, in seconds of the clock."""
    tried: Path
    log: Path

    def answers(self) -> list[dict[str, str]]:
        with (self.run / "predictions.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    data = coloured_folder(root / "colours", images=110)
    (data / "grass").rename(data / EVIL)
    for index in range(0, 110, 8):  # some images lie in the folder of another class, so that there are mistakes
        one, other = data / "=blood" / f"{index:03d}.png", data / EVIL / f"{index:03d}.png"
        one.rename(root / "held.png")
        other.rename(one)
        (root / "held.png").rename(other)
    env = os.environ | {"SIGHTLINE_CACHE": str(root / "cache"), "PYTHONPATH": str(Path(sightline.__file__).parents[1])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", env["SIGHTLINE_CACHE"])
        run = sightline.train(data, recipe="small", settings=QUICK, run=root / "run")
    assert run is not None
    log = root / "log"
    command = [sys.executable, "-c", SERVER, str(root / "tried"), str(run)]
    with log.open("w") as errors:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert all(lines), log.read_text()
        facts = [json.loads(line) for line in lines]
        addresses, folders = [one["address"] for one in facts], [Path(one["folder"]) for one in facts]
        yield Served(run, addresses, folders, facts[0]["began"], root / "tried", log)
    finally:
        process.terminate()
        process.wait(20)
    assert not folders[0].exists()  # gone with the server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    flags = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    with chromium(*flags) as found:
        yield found.new_context(reduced_motion="reduce")  # whose tabs share what they have loaded, as a person's do


class Visit:
    """A tab of the browser at one of the pages."""

    def __init__(self, browser: Any, address: str, width: int = 1280, scheme: str = "light") -> None:
        self.troubles: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_page()
        self.page.set_viewport_size({"width": width, "height": 844})
        self.page.emulate_media(color_scheme=scheme)
        self.page.set_default_timeout(60_000)  # a shared machine may be slow
        self.page.on("request", lambda request: self._note(address, request.url))
        self.page.on("console", lambda message: self._hear(message))
        self.page.on("response", lambda answer: answer.ok or self.troubles.append(f"{answer.status} {answer.url}"))
        self.page.on("pageerror", lambda error: self.troubles.append(f"error {error}"))
        self.page.on("dialog", lambda dialog: self.troubles.append(f"dialog {dialog.message}"))
        self.page.goto(address)
        self.page.wait_for_selector(".sl-drop")

    def _note(self, address: str, url: str) -> None:
        self.asked.append(url)
        if not url.startswith((address, "data:", "blob:")):
            self.troubles.append(f"asked {url}")

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.troubles.append(f"console {message.text}")

    def open_tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def drop(self, name: str, content: bytes) -> None:
        self.page.set_input_files("#drop input", {"name": name, "mimeType": "image/png", "buffer": content})

    def hand_over(self, how: str, name: str, content: bytes) -> None:
        """Drop a file onto the zone with the mouse, or paste it."""
        self.page.evaluate(
            """([how, name, bytes]) => {
                const carried = new DataTransfer();
                carried.items.add(new File([new Uint8Array(bytes)], name, {type: 'image/png'}));
                const zone = document.querySelector('.sl-drop');
                const [event, data] = how === 'drop' ? [DragEvent, 'dataTransfer'] : [ClipboardEvent, 'clipboardData'];
                zone.dispatchEvent(new event(how, {bubbles: true, cancelable: true, [data]: carried}));
            }""",
            [how, name, list(content)],
        )

    def answered(self, name: str) -> None:
        """Wait for the answer to an image, and for its explanation."""
        self.page.wait_for_selector(f".sl-answer .sl-file:has-text('{name}')")
        self.page.wait_for_selector("#explanation .heat")

    def choose(self, where: str, label: str) -> None:
        """Choose from a list by what one reads."""
        self.page.click(f"#{where} input")
        self.page.get_by_role("option", name=label, exact=True).click()
        self.page.locator(f"#{where} input").blur()
        self.page.get_by_role("option").first.wait_for(state="detached")

    def choices(self, where: str) -> list[str]:
        self.page.click(f"#{where} input")
        found = self.page.get_by_role("option").all_inner_texts()
        self.page.locator(f"#{where} input").blur()
        self.page.get_by_role("option").first.wait_for(state="detached")
        return [text.removeprefix("✓").strip() for text in found]

    def slide(self, where: str, value: float) -> None:
        field = self.page.locator(f"#{where} input[type=number]")
        field.fill(f"{value:g}")
        field.press("Enter")

    def shares(self, within: str = "#answer") -> dict[str, str]:
        bars = self.page.locator(f"{within} .sl-bars li")
        names = bars.locator(".name").all_text_contents()
        return dict(zip(names, [bar.get_attribute("title") for bar in bars.all()], strict=True))

    def tiles(self, gallery: str) -> list[str]:
        return self.page.locator(f"#{gallery} .sl-title").all_text_contents()


@pytest.fixture
def visit(browser: Any, served: Served) -> Iterator[Callable[..., Visit]]:
    """Open a page; what went wrong on any is told at the end."""
    visits = []

    def open_page(which: int = 0, **how: Any) -> Visit:
        visits.append(Visit(browser, served.addresses[which], **how))
        return visits[-1]

    yield open_page
    for one in visits:
        one.page.close()
        assert one.troubles == []


def file_of(pixels: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def plain(red: int, green: int, blue: int, side: int = 60) -> bytes:
    return file_of(np.full((side, side + 20, 3), (red, green, blue), np.uint8))


def keep(visit: Visit, name: str) -> None:
    """Keep a screenshot where the environment names a folder for them."""
    if folder := os.environ.get("SIGHTLINE_SHOTS"):
        visit.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


# ── classify ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_image_that_is_dropped_is_answered_as_predict_answers_it(
    served: Served, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    random = np.random.default_rng(3)
    content = file_of(random.integers(0, 255, (70, 110, 3), np.uint8) // np.array([1, 3, 4], np.uint8), "JPEG")
    (tmp_path / "some red.jpg").write_bytes(content)
    (expected,) = sightline.predict(served.run, [tmp_path / "some red.jpg"], sets=0.95).predictions
    page = visit()
    page.drop("some red.jpg", content)
    page.answered("some red.jpg")
    assert page.shares() == {name: f"{share:.6f}" for name, share in expected.probabilities.items()}
    assert page.page.inner_text("#answer h2").startswith(expected.label)
    assert page.page.locator(".sl-set").count() == 0
    page.choose("coverage", "95 %")
    page.page.wait_for_selector(".sl-set")
    assert expected.within is not None
    assert page.page.locator(".sl-set b").all_text_contents() == list(expected.within or ("no class",))
    page.slide("most", 1)
    page.page.wait_for_function("document.querySelectorAll('#answer .sl-bars li').length === 1")
    assert page.shares() == {expected.label: f"{expected.probability:.6f}"}
    keep(page, "classify")


def test_none_of_these_stands_there_when_the_classifier_says_so(
    served: Served, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    grey = plain(128, 128, 128)
    red = (
        Path(json.loads((served.run / "model.json").read_text())["data"]["location"]) / "=blood" / "001.png"
    ).read_bytes()
    for name, content in (("grey.png", grey), ("red.png", red)):
        (tmp_path / name).write_bytes(content)
    found = sightline.predict(served.run, [tmp_path / "grey.png", tmp_path / "red.png"]).predictions
    assert [one.unknown for one in found] == [True, False]
    page = visit()
    page.drop("grey.png", grey)
    page.answered("grey.png")
    assert "none of these" in page.page.inner_text(".sl-unknown")
    page.drop("red.png", red)
    page.answered("red.png")
    assert page.page.locator(".sl-unknown").count() == 0


def test_an_example_is_clicked_and_explained_by_every_choice(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.page.wait_for_selector("#examples button")
    assert page.page.locator("#examples button").count() == 3
    page.page.click("#examples button[title='=blood']")
    page.answered("which shows =blood")
    caption = page.page.locator("#explanation figcaption >> nth=1")
    assert "DeepLift: what speaks for =blood" in caption.inner_text()

    page.asked.clear()
    heat = page.page.locator("#explanation .heat")
    assert float(heat.evaluate("one => getComputedStyle(one).opacity")) == pytest.approx(0.7)
    for percent in (0, 85, 100):
        page.slide("transparency", percent)
        page.page.wait_for_function(
            f"Math.abs(getComputedStyle(document.querySelector('#explanation .heat')).opacity - {1 - percent / 100}) < .001"
        )
    assert page.asked == []  # the browser alone moved it

    page.page.wait_for_selector("#layer", state="hidden")
    page.choose("method", "Grad-CAM")
    page.page.wait_for_selector("#explanation figcaption:has-text('Grad-CAM')")
    layers = page.choices("layer")
    assert len(layers) == 3
    assert [int(one.split("(")[1].split("×")[0]) for one in layers] == sorted(
        int(one.split("(")[1].split("×")[0]) for one in layers
    )
    before = heat.get_attribute("src")
    page.choose("layer", layers[-1])
    page.page.wait_for_function("src => document.querySelector('#explanation .heat')?.src !== src", arg=before)
    page.choose("target", EVIL)
    page.page.wait_for_selector(f"#explanation figcaption:has-text('what speaks for {EVIL}')")
    page.choose("method", "saliency")
    page.page.wait_for_selector("#explanation figcaption:has-text('saliency')")
    page.page.wait_for_selector("#layer", state="hidden")
    page.choose("method", "integrated gradients")
    page.page.wait_for_selector("#explanation figcaption:has-text('integrated gradients')")
    assert "against it" in page.page.inner_text("#explanation")
    assert "Left out: attention" in page.page.inner_text("#left-out")


def test_what_cannot_be_read_is_told_in_a_sentence_and_the_next_image_is_answered(
    visit: Callable[..., Visit], served: Served
) -> None:
    bomb = file_of(np.zeros((1500, 2000, 3), np.uint8))
    page = visit()
    for name, content, told in (
        ("text.jpg", b"this is no image", "text.jpg cannot be read: no image in any known format."),
        ("empty.png", b"", "empty.png cannot be read: the file is empty (0 bytes)."),
        ("cut.png", plain(1, 2, 3)[:60], "cut.png cannot be read: broken"),
        ("large.png", bytes(600_000), "large.png has 0.6 MB; at most 0.5 MB are read: send a smaller one."),
        ("bomb.png", bomb, "bomb.png has more than 2 megapixels (2000×1500); send a smaller one."),
    ):
        page.drop(name, content)
        page.page.wait_for_selector(f"#answer .sl-trouble:has-text('{told}')")
    page.drop("red.png", plain(200, 60, 60))
    page.answered("red.png")
    assert "Traceback" not in served.log.read_text()


def test_two_tabs_at_once_do_not_mix_their_images(visit: Callable[..., Visit]) -> None:
    one, other = visit(), visit()
    one.hand_over("drop", "red.png", plain(200, 60, 60))
    other.hand_over("paste", "blue.png", plain(60, 60, 200))
    one.answered("red.png")
    other.answered("blue.png")
    for page, name, label in ((one, "red.png", "=blood"), (other, "blue.png", "ünder wasser")):
        page.slide("most", 1)
        page.page.wait_for_function("document.querySelectorAll('#answer .sl-bars li').length === 1")
        assert page.page.inner_text(".sl-answer .sl-file") == name
        assert list(page.shares()) == [label]


# ── galleries ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_mistakes_are_those_of_the_run_filtered_and_in_order(served: Served, visit: Callable[..., Visit]) -> None:
    wrong = [row for row in served.answers() if row["class"] != row["true_class"]]
    assert 2 <= len(wrong) <= 24
    page = visit()
    page.open_tab("Mistakes")
    page.page.wait_for_selector("#mistakes .heat")
    assert f"{len(wrong)} of its 66 answers to test images are wrong." in page.page.inner_text("#mistakes-says")
    by_share = sorted(wrong, key=lambda row: -float(row["probability"]))
    expected = [f"{row['true_class']} → {row['class']}".replace("'=", "=") for row in by_share]
    assert sorted(page.tiles("mistakes")) == sorted(expected)
    assert page.page.locator("#mistakes small").first.inner_text().endswith(Path(by_share[0]["file"]).name)
    assert page.page.locator("#mistakes .heat").count() == len(wrong)

    page.page.get_by_label("least sure first").first.click()
    last = Path(by_share[-1]["file"]).name
    page.page.wait_for_function("name => document.querySelector('#mistakes small').innerText.endsWith(name)", arg=last)
    trues = page.choices("mistakes-true")
    assert trues[0] == f"any class ({len(wrong)})"
    assert sum(int(text.rsplit("(", 1)[1][:-1]) for text in trues[1:]) == len(wrong)
    bloody = [row for row in wrong if row["true_class"].endswith("=blood")]
    page.choose("mistakes-true", f"=blood ({len(bloody)})")
    page.page.wait_for_function(
        "count => document.querySelectorAll('#mistakes .sl-card').length === count", arg=len(bloody)
    )
    answers = page.choices("mistakes-predicted")
    assert len(answers) == 1 + len({row["class"] for row in bloody})
    page.choose("mistakes-predicted", answers[1])
    kept = int(answers[1].rsplit("(", 1)[1][:-1])
    page.page.wait_for_function("count => document.querySelectorAll('#mistakes .sl-card').length === count", arg=kept)
    assert set(page.tiles("mistakes")) == {f"=blood → {answers[1].rsplit(' (', 1)[0]}"}
    keep(page, "mistakes")


def test_the_right_answers_come_in_pages_and_are_shown_as_image_map_or_both(
    served: Served, visit: Callable[..., Visit]
) -> None:
    right = [row for row in served.answers() if row["class"] == row["true_class"]]
    assert len(right) > 48
    page = visit()
    page.open_tab("Correct")
    page.page.wait_for_selector("#correct .heat")
    assert page.page.get_by_role("tab").all_inner_texts() == ["Classify", "Mistakes", "Correct", "About"]
    assert page.page.inner_text("#correct-where").strip() == f"1 to 24 of {len(right)}"
    assert page.page.is_disabled("#correct-before")
    seen = []
    for first in range(1, len(right) + 1, 24):
        last = min(first + 23, len(right))
        page.page.wait_for_selector(f"#correct-where:has-text('{first} to {last} of {len(right)}')")
        seen += page.page.locator("#correct small").all_inner_texts()
        if last < len(right):
            page.page.click("#correct-after")
    assert sorted(text.split(" · ")[1] for text in seen) == sorted(Path(row["file"]).name for row in right)
    assert page.page.is_disabled("#correct-after")
    page.page.click("#correct-before")
    page.page.wait_for_selector("#correct .heat")
    for shown, plains, overs in (("the image", True, False), ("the map", False, True), ("both", True, True)):
        page.page.get_by_label(shown, exact=True).click()
        for part, visible in ((".sl-plain", plains), (".sl-over", overs)):
            page.page.wait_for_selector(f"#correct {part} >> nth=0", state="visible" if visible else "hidden")
    assert not page.page.is_visible("#correct-predicted")  # it would have no effect


def test_a_click_enlarges_an_image_and_a_class_is_never_read_as_html(
    served: Served, visit: Callable[..., Visit]
) -> None:
    page = visit()
    page.open_tab("Mistakes")
    page.page.wait_for_selector("#mistakes .heat")
    page.page.click(f"#mistakes .sl-card:has-text('{EVIL}') >> nth=0")
    page.page.wait_for_selector(".sl-viewer .heat")
    assert EVIL in page.page.inner_text(".sl-viewer h2")
    assert sorted(page.shares(".sl-viewer")) == sorted(["=blood", EVIL, "ünder wasser"])
    keep(page, "larger")
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector(".sl-viewer", state="detached")
    page.page.click("#mistakes .sl-card >> nth=1")
    page.page.click(".sl-close")
    page.page.wait_for_selector(".sl-viewer", state="detached")
    assert page.page.locator("img[src=x]").count() == 0


# ── about ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_model_card_says_how_good_it_is_and_names_no_path(served: Served, visit: Callable[..., Visit]) -> None:
    page = visit()
    page.open_tab("About")
    page.page.wait_for_selector(".sl-about")
    told = page.page.inner_text("#about")
    model = json.loads((served.run / "model.json").read_text("utf-8"))
    assert f"Accuracy {model['metrics']['accuracy']:.4f} on 66 test images" in told
    for part in (
        "What it is not for",
        "Class by class",
        "What it takes for what",
        "How sure it is",
        "Images of no class",
    ):
        assert part in told
    assert EVIL in told
    assert str(served.run.parent) not in page.page.content()
    keep(page, "about")


# ── review ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_labels_of_the_run_that_look_wrong_are_reviewed_beside_the_page(
    served: Served, visit: Callable[..., Visit]
) -> None:
    wrong = {row["file"] for row in served.answers() if row["class"] != row["true_class"]}
    file = served.run / "corrections.csv"
    page = visit()
    page.page.wait_for_selector("#examples button")  # the images are open
    try:
        page.page.click("a:has-text('Review labels that look wrong')")
        page.page.wait_for_selector("#decide")
        assert page.page.inner_text("figcaption").split(" · ")[0] in {plain_text(name) for name in wrong}
        given, suggested = (page.page.inner_text(f"[data-part={part}]") for part in ("given", "suggestion"))
        assert f"sightline evaluate {served.run} --data.corrections {file}" in page.page.inner_text("#command")
        page.page.keyboard.press("a")
        page.page.wait_for_selector("#done:has-text('Decided')")
        (decision,) = CorrectionsFile(file).read().values()
        assert (decision.file in {plain_text(name) for name in wrong}, decision.before) == (True, given)
        assert decision.after == suggested
        assert decision.why.endswith(" by run")
        where = http.client.HTTPConnection(served.addresses[0].removeprefix("http://"))
        form = {"content-type": "application/x-www-form-urlencoded", "origin": "http://evil.example"}
        where.request("POST", "/review/decide", b"item=2&action=keep", form)
        assert where.getresponse().status == 403
        assert len(CorrectionsFile(file).read()) == 1
        page.page.click("a:has-text('Back to the classifier')")
        page.page.wait_for_selector(".sl-drop")
    finally:
        file.unlink(missing_ok=True)


def test_weights_alone_and_a_server_open_to_everyone_have_no_review(
    served: Served, visit: Callable[..., Visit]
) -> None:
    alone = visit(1)
    assert alone.page.locator("a:has-text('Review')").count() == 0
    assert may_be_reviewed_at(AddressConfig())
    assert may_be_reviewed_at(AddressConfig(host="0.0.0.0", token="open sesame"))
    assert not may_be_reviewed_at(AddressConfig(host="0.0.0.0"))
    where = http.client.HTTPConnection(served.addresses[1].removeprefix("http://"))
    where.request("GET", "/review")
    assert where.getresponse().status == 404


def test_weights_alone_say_what_they_cannot_show(visit: Callable[..., Visit]) -> None:
    alone = visit(1)
    alone.page.wait_for_selector("#examples button")
    assert alone.page.locator("#examples button").count() == 4  # pictures that come with gradio
    alone.open_tab("Mistakes")
    assert "came without their run" in alone.page.inner_text("#mistakes-says")
    assert not alone.page.is_visible("#mistakes-filters")
    alone.open_tab("About")
    alone.page.wait_for_selector(".sl-about")
    assert "Accuracy 0." in alone.page.inner_text("#about")


# ── what it never does ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_image_is_forgotten_when_its_time_is_over_and_none_is_ever_written(
    served: Served, visit: Callable[..., Visit]
) -> None:
    page = visit(1)  # which forgets after four seconds
    page.page.click("#examples button >> nth=0")
    page.answered("a lion")
    page.slide("most", 2)
    page.page.wait_for_function("document.querySelectorAll('#answer .sl-bars li').length === 2")
    time.sleep(5.5)
    page.choose("method", "saliency")
    page.page.wait_for_selector("#explanation .heat", state="detached")
    assert [path for folder in served.folders for path in folder.rglob("*") if path.is_file()] == []


def test_nothing_beyond_this_machine_was_tried(served: Served, visit: Callable[..., Visit]) -> None:
    page = visit()
    page.drop("red.png", plain(200, 60, 60))
    page.answered("red.png")
    assert served.tried.read_text().splitlines() == ["look up 192.0.2.1"]  # the server's own, to be sure


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/gradio_api/upload", b"", 404),
        ("/gradio_api/file=/etc/passwd", None, 404),
        ("/gradio_api/info", None, 404),
        ("/gradio_api/openapi.json", None, 404),
        ("/gradio_api/call/turn", b"{}", 404),
        ("/monitoring", None, 404),
        ("/assets/../../routes.py", None, 404),
        ("/gradio_api/queue/join", b"no json", 422),
        (
            "/gradio_api/queue/join",
            b'{"fn_index": 0, "session_hash": "a1", "data": [{"path": "http://192.0.2.1"}]}',
            422,
        ),
        ("/gradio_api/queue/join", b'{"fn_index": 0, "session_hash": "../a", "data": []}', 422),
        ("/gradio_api/queue/join", b'{"fn_index": 999, "session_hash": "a1", "data": []}', 422),
        ("/gradio_api/queue/join", b'{"fn_index": 0, "session_hash": "a1", "data": [], "request": {}}', 422),
        ("/gradio_api/queue/join", b'{"data": ["' + b"a" * 900_000 + b'"]}', 413),
        ("/gradio_api/queue/data?session_hash=nobody", None, 200),
        ("/favicon.ico", None, 200),
    ],
)
def test_the_library_behind_the_page_is_reached_for_the_page_alone(
    path: str, body: bytes | None, status: int, served: Served
) -> None:
    where = http.client.HTTPConnection(served.addresses[0].removeprefix("http://"))
    where.request("GET" if body is None else "POST", path, body, {"content-type": "application/json"})
    answer = where.getresponse()
    assert answer.status == status
    assert str(served.run.parent) not in answer.read().decode()
    assert "Traceback" not in served.log.read_text()


def test_the_page_names_no_place_elsewhere_and_forbids_the_browser_to_go_there(served: Served) -> None:
    with urllib.request.urlopen(served.addresses[0]) as answer:
        text, policy = answer.read().decode(), answer.headers["content-security-policy"]
    head = text[: text.index("window.gradio_config")]
    assert "http://" not in head
    assert "https://" not in head
    assert "default-src 'self'" in policy
    assert str(served.run.parent) not in text


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_tab_fits_its_window_and_axe_finds_nothing_against_wcag_aa(
    visit: Callable[..., Visit], width: int, scheme: str
) -> None:
    page = visit(width=width, scheme=scheme)
    page.page.wait_for_selector("#examples button")
    page.drop("red.png", plain(200, 60, 60))
    page.answered("red.png")
    for name, shown in (("Classify", "#answer"), ("Mistakes", "#mistakes .sl-card"), ("About", ".sl-about")):
        page.open_tab(name)
        page.page.wait_for_selector(shown)
        assert stays_within(page.page, width), name
        assert faults(page.page) == [], name
    back = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 27)"}[scheme]  # those of look.css


def test_the_page_is_used_by_keys_and_the_focus_is_seen(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.page.wait_for_selector("#examples button")
    assert focused_unseen(page.page, 12) == []
    page.page.focus("#examples button >> nth=1")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector("#explanation .heat")
    page.open_tab("Mistakes")
    page.page.wait_for_selector("#mistakes .heat")
    card = page.page.locator("#mistakes .sl-card").nth(1)
    card.focus()
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector(".sl-close:focus")
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("document.activeElement.className") == "sl-close"  # the view is all there is
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector(".sl-viewer", state="detached")
    assert card.evaluate("one => one === document.activeElement")


def test_the_page_for_programs_has_the_look_of_every_page(served: Served, browser: Any) -> None:
    assert look_over(browser, f"{served.addresses[0]}/api") == []


def test_it_is_there_soon_after_its_imports(served: Served, browser: Any, record_property: Callable[..., None]) -> None:
    began = time.time()
    page = Visit(browser, served.addresses[0])
    opened = time.time() - began
    page.page.close()
    record_property("seconds to open", opened)
    print(f"the page opens in {opened:.2f} s")
    assert opened < 10  # about 1.2 s on two cores that do nothing else
