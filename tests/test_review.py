"""The review page: what a decision writes, who may make one, and that none is lost; by requests and in a real browser."""

import csv
import html
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sightline
from browsing import SCHEMES, WIDTHS, chromium, faults, focused_unseen, in_browser, stays_within
from sightline.checks.check import check
from sightline.checks.opening import open_set
from sightline.checks.problems import Finding, part_of
from sightline.checks.review import open_review
from sightline.checks.suspects import read_suspects, suspects_of, write_suspects
from sightline.cli.main import main
from sightline.config.serving import AddressConfig
from sightline.data.cache import CachedImages
from sightline.data.corrections import CorrectionsFile
from sightline.data.seen import number_of, read_kept
from sightline.data.sources.find_source import find_source
from sightline.errors import RunError

pytest.importorskip("fastapi", reason="the page needs fastapi: pip install '.[app]'")
from fastapi.testclient import TestClient

from sightline.serving.reviewing.items import Corrections, Item, Review
from sightline.serving.reviewing.server import build_review

EVIL = "<img src=x onerror=alert(1)>"
CLASSES = [EVIL, "=blood", "ünder wasser"]
OWN = "http://127.0.0.1:7860"


def write_set(root: Path, each: int) -> Path:
    """Three classes of small images, no two the same; the names of two would do harm where they are taken for code."""
    for channel, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(each):
            pixels = np.random.default_rng(1000 * channel + index).integers(0, 160, (32, 32, 3), np.uint8)
            pixels[..., channel] += 90
            Image.fromarray(pixels).save(root / name / f"{index:03d}.png")
    return root


def plant(data: Path, folder: Path, count: int) -> CachedImages:
    """Write the folder of a check that suspects the first images of the set, each of the class behind its own."""
    images, splits, _ = open_set(find_source(data), None)
    findings = []
    for place, row in enumerate(images.readable[:count].tolist()):
        label = int(images.labels[row])
        other = (label + 1) % len(images.classes)
        near = tuple(np.flatnonzero(images.labels == other)[:2].tolist())
        findings.append(
            Finding(
                "suspected label",
                "",
                row,
                label=label,
                score=place / 1000,
                suggested=other,
                certainty=0.9,
                neighbors=near,
            )
        )
    folder.mkdir()
    parts = part_of(images, splits)
    write_suspects(folder, images, None, suspects_of(images, parts, findings))
    return images


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, CachedImages, Path]]:
    """The folder of a check of 120 images with 100 suspects, its images, and its cache; copy the folder to decide."""
    root = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(root / "cache"))
        yield root / "check", plant(write_set(root / "set", 40), root / "check", 100), root / "cache"


class Window:
    """A tab without a browser: it sends back what the page that it shows holds."""

    def __init__(self, review: Review, address: AddressConfig | None = None) -> None:
        app = build_review(review, address or AddressConfig(), log=lambda line: None)
        self.client = TestClient(app, base_url=OWN, headers={"Origin": OWN})
        self.status, self.page = 0, ""
        self.undos: list[dict[str, str]] = []
        self.look()

    def _take(self, answer: Any) -> "Window":
        self.status, self.page = answer.status_code, answer.text
        if state := self.part("undo-state"):
            self.undos.append({"item": self.part("undo-item"), "token": self.part("undo-token"), "state": state})
        return self

    @property
    def added(self) -> list[str]:
        """The classes that the page offers beside those of the set."""
        found = re.search(r"data-added='([^']*)'", self.page)
        assert found is not None
        return [str(name) for name in json.loads(found[1])]

    def look(self, where: str = "/review") -> "Window":
        return self._take(self.client.get(where))

    def part(self, name: str) -> str:
        found = re.search(rf'data-{name}="([^"]*)"', self.page)
        return "" if found is None else found[1]

    @property
    def number(self) -> int:
        return int(self.part("item") or 0)

    def hidden(self, name: str) -> str:
        found = re.search(rf'name="{name}" value="([^"]*)"', self.page)
        assert found, self.page
        return found[1]

    def decide(self, action: str, **fields: Any) -> "Window":
        shown = {name: self.hidden(name) for name in ("item", "seen", "view")}
        return self._take(self.client.post("/review/decide", data=shown | {"action": action} | fields))

    def undo(self, which: dict[str, str] | None = None) -> "Window":
        return self._take(self.client.post("/review/undo", data=which or self.undos.pop()))


@pytest.fixture
def folder(planted: tuple[Path, CachedImages, Path], tmp_path: Path) -> Path:
    """A check's folder of its own, with 100 suspects."""
    return Path(shutil.copytree(planted[0], tmp_path / "check"))


@pytest.fixture
def opened(planted: tuple[Path, CachedImages, Path], folder: Path) -> Review:
    images = planted[1]
    return open_review(folder, images, read_suspects(folder).items(images))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "corrections.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_decision_is_in_the_file_when_it_is_answered(opened: Review, folder: Path) -> None:
    window, items = Window(opened), opened.items
    names = opened.classes
    for action, fields, after in (
        ("accept", {}, items[0].suggestion),
        ("keep", {}, items[1].given),
        ("other", {"label": 2}, names[2]),
        ("out", {}, None),
    ):
        number = window.number
        assert window.decide(action, **fields).status == 200
        decision = CorrectionsFile(folder / "corrections.csv").read()[items[number - 1].digest]
        assert (decision.file, decision.before, decision.after) == (items[number - 1].file, names[0], after)
        assert decision.why == f"suspected label: quality {(number - 1) / 1000:.3f}"
        assert window.number == number + 1
    assert "4 of 100 decided (2 changed, 1 kept, 1 left out)" in window.page
    assert [row["to"] for row in rows(folder)] == ["'=blood", EVIL, "ünder wasser", ""]  # what no spreadsheet runs
    assert re.search(r"<small>.*\d{4}-\d\d-\d\d \d\d:\d\d UTC</small>", window.look("/review?item=1").page)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", rows(folder)[0]["when"])


def test_opened_anew_it_goes_on_at_the_first_undecided(opened: Review) -> None:
    window = Window(opened)
    for _ in range(3):
        window.decide("keep")
    window.look("/review?item=6").decide("out")
    assert Window(opened).number == 4
    assert Window(opened).look("/review/grid").number == 4
    for _ in range(2):
        window = Window(opened).decide("keep")
    assert window.number == 7


def test_when_all_are_decided_it_says_so_and_how_to_train(opened: Review, folder: Path) -> None:
    window = Window(opened)
    for _ in range(99):
        window.decide("keep")
    assert "All 100 are decided" not in window.page
    window.decide("accept")
    assert "All 100 are decided" in window.page
    assert f"--data.corrections {folder / 'corrections.csv'}" in window.page
    assert window.look("/review?item=3").number == 3  # and they can be looked at again


def test_undo_brings_back_what_held_before(opened: Review, folder: Path) -> None:
    window = Window(opened)
    window.decide("keep")
    window.look("/review?item=1").decide("out")
    assert rows(folder)[0]["to"] == ""
    assert "it is kept as &lt;img" in window.undo().part("text")
    assert window.number == 1
    assert rows(folder)[0]["to"] == EVIL
    assert "undecided again" in window.undo().part("text")
    assert rows(folder) == []


def test_undo_works_after_the_server_was_started_anew(opened: Review, folder: Path) -> None:
    window = Window(opened).decide("accept")
    later = Window(opened)
    assert later.undo(window.undos[0]).status == 200
    assert rows(folder) == []
    assert later.undo(window.undos[0]).status == 409
    assert "nothing to take back" in later.part("trouble")


def test_two_windows_see_each_other_and_overwrite_nothing_unseen(opened: Review, folder: Path) -> None:
    one, other = Window(opened), Window(opened)
    one.decide("accept")
    assert other.decide("keep").status == 409
    assert "decided meanwhile" in other.part("trouble")
    assert other.number == 1
    assert rows(folder)[0]["to"] == "'=blood"
    assert other.decide("keep").status == 200  # seen by now, so it is meant
    assert rows(folder)[0]["to"] == EVIL
    assert one.undo().status == 409
    assert "not taken back" in one.part("trouble")
    assert rows(folder)[0]["to"] == EVIL
    again, third = Window(opened), Window(opened)
    again.decide("out")
    assert third.decide("out").status == 200  # both say the same
    assert "Decided already: left out" in third.part("text")


def test_a_decision_of_another_server_in_the_same_instant_is_told_and_not_lost(opened: Review, folder: Path) -> None:
    class Late(Corrections):
        def read(self) -> Any:
            return {}  # what the file held before the other server wrote

    window = Window(Review("", opened.images, opened.items, Late(folder / "corrections.csv"), lambda decided: ""))
    Window(opened).decide("out")
    window.decide("keep")
    assert "In place of another window" in window.part("text")
    assert "left out; undo brings that back" in window.part("text")


def test_what_cannot_be_decided_is_said(opened: Review, folder: Path) -> None:
    window = Window(opened)
    assert window.decide("other", label=3).status == 422
    assert "there is no class 3" in window.part("trouble")
    assert window.decide("other").status == 422
    assert window.decide("keep", item="101").status == 422
    assert "there is no image 101" in window.part("trouble")
    assert not (folder / "corrections.csv").exists()


def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_pretended(opened: Review) -> None:
    nowhere = Review(
        opened.title, opened.images, opened.items, Corrections(Path("/proc/nowhere/x.csv")), lambda decided: ""
    )
    window = Window(nowhere)
    assert "cannot be written" in window.page
    assert window.decide("keep").status == 507
    assert "/proc/nowhere cannot be written" in window.part("trouble")
    assert window.number == 1
    assert "0 of 100 decided" in window.page


def test_a_file_of_decisions_that_is_something_else_is_said_and_kept(opened: Review, folder: Path) -> None:
    (folder / "corrections.csv").write_text("recipe\neggs\n")
    window = Window(opened)
    assert window.status == 500
    assert "has no column" in window.page
    assert (folder / "corrections.csv").read_text() == "recipe\neggs\n"


def test_a_class_that_the_set_does_not_have_is_added_once_and_only_where_that_is_asked_for(
    opened: Review, folder: Path
) -> None:
    window = Window(opened)
    assert window.decide("other", name="moss").status == 422
    assert "there is no class &#39;moss&#39;; add it, or choose another" in window.page
    assert (window.added, (folder / "corrections.csv").exists()) == ([], False)
    assert window.decide("other", name="  moss\t and  fern ", add="true").status == 200
    assert window.part("text").startswith("Decided: moss and fern, was ")
    assert window.added == ["moss and fern"]
    assert Window(opened).decide("other", name="moss and fern").status == 200  # it is known by now
    window.look().decide("keep")
    decided = list(CorrectionsFile(folder / "corrections.csv").read().values())
    assert [(one.after, one.new_class) for one in decided[:2]] == [("moss and fern", True)] * 2
    assert not decided[2].new_class
    window.look("/review?item=2").undo({"item": "2", "state": window.hidden("seen")})
    assert window.added == ["moss and fern"]
    window.look("/review?item=1").undo({"item": "1", "state": window.hidden("seen")})
    assert window.added == []  # no image has it any more
    assert [row["new_class"] for row in rows(folder)] == [""]


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("u\u0308nder wasser", "ünder wasser"),  # another spelling of a class that is there
        (" =blood ", "=blood"),
        ("7.0", "7"),  # as a table of labels would be read
        ("Ünder wasser", "Ünder wasser"),
        ("", None),
        (" \t", None),
        ("NaN", None),  # no label, in a table
        ("a\u202eb", None),
        ("x" * 201, None),
    ],
)
def test_the_name_of_an_added_class_is_one_that_is_read_back(
    opened: Review, folder: Path, name: str, taken: str | None
) -> None:
    window = Window(opened).decide("other", name=name, add="true")
    assert window.status == (422 if taken is None else 200)
    if taken is None:
        assert "is no name of a class; wanted 1 to 200 letters that can be printed" in window.page
    else:
        assert [row["to"].removeprefix("'") for row in rows(folder)] == [taken]
    assert window.added == ([taken] if taken in ("7", "Ünder wasser") else [])


class Answers:
    """Decisions on images without a label, in memory."""

    path = Path("/tmp/answers.csv")

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        return self.answers

    def decide(self, item: Item, after: str | None, new_class: bool) -> tuple[Any, Any]:
        from types import SimpleNamespace

        earlier = self.answers.get(item.digest)
        answer = SimpleNamespace(after=after, decided_by="", when="now", new_class=new_class)
        self.answers = self.answers | {item.digest: answer}
        return self.answers[item.digest], earlier

    def undo(self, decision: Any, earlier: Any) -> bool:
        self.answers = {key: value for key, value in self.answers.items() if value is not decision}
        return True


def test_images_without_a_label_are_reviewed_on_the_same_page(opened: Review) -> None:
    items = [Item(one.row, one.file, one.digest, None, "=blood", 0.4) for one in opened.items[:2]]
    answers = Answers()
    window = Window(Review("Label", opened.images, items, answers, lambda decided: "sightline train x"))
    assert window.decide("keep").status == 422
    assert window.decide("accept").part("text") == "Decided: =blood."
    window.decide("other", label=2)
    assert [one.after for one in answers.answers.values()] == ["=blood", "ünder wasser"]
    assert "2 of 2 decided (2 labeled)" in window.page
    window.undo()
    assert len(answers.answers) == 1


# ── who may decide ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Origin": OWN}, 200),
    ],
)
def test_a_page_of_another_site_decides_nothing(
    opened: Review, folder: Path, headers: dict[str, str], status: int
) -> None:
    client = TestClient(build_review(opened, AddressConfig(), log=lambda line: None), base_url=OWN)
    for path, data in (("decide", {"item": "1", "action": "keep"}), ("undo", {"item": "1"})):
        assert client.post(f"/review/{path}", data=data, headers=headers).status_code in (status, 409)
        assert (folder / "corrections.csv").exists() == (status == 200)
    if "Host" in headers:
        assert client.get("/review", headers=headers).status_code == 403


def test_with_a_token_only_who_knows_it_sees_anything(opened: Review, folder: Path) -> None:
    address = AddressConfig(host="0.0.0.0", token="open sesame")
    client = TestClient(build_review(opened, address, log=lambda line: None), base_url="http://box:7860")
    for path in ("/", "/review", "/review/grid", "/review/review.js"):
        assert client.get(path).status_code == 401
    assert client.post("/review/decide", data={"item": "1", "action": "keep"}).status_code == 401
    assert not (folder / "corrections.csv").exists()
    assert client.get("/?token=open+sesame").url.path == "/review"
    assert client.post("/review/decide", data={"item": "1", "action": "keep"}).status_code == 200


@pytest.mark.parametrize("verb", [["review", "x"], ["check", "x", "--review"]])
def test_an_address_open_to_everyone_is_refused(verb: list[str], capsys: Any) -> None:
    assert main([*verb, "--host", "0.0.0.0"]) == 2
    assert "--host 0.0.0.0 without --token would let anyone who reaches it change labels" in capsys.readouterr().err


def test_an_address_without_a_review_is_refused(tmp_path: Path, capsys: Any) -> None:
    assert main(["check", str(tmp_path), "--port", "0"]) == 2
    assert "have no effect without --review" in capsys.readouterr().err


def test_the_page_takes_no_name_for_code_and_loads_nothing_from_elsewhere(opened: Review) -> None:
    window = Window(opened)
    for where in ("/review", "/review/grid?item=50"):
        answer = window.client.get(where)
        assert "<img src=x" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r'(?:src|href)="(?!/review|data:)', answer.text)
    found = re.search(r'<script type="application/json" id="classes">(.*?)</script>', window.page)
    assert found is not None
    assert json.loads(found[1]) == opened.classes


# ── which images ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_most_likely_wrong_come_first_and_identical_images_once(planted: tuple[Path, CachedImages, Path]) -> None:
    images = planted[1]
    row, twin, near = 3, 50, 90
    findings = [
        Finding("suspected label", "", 10, label=0, score=0.5, suggested=1),
        Finding("two labels", "likeness 0.93", row, near, label=0, score=0.93),
        Finding("two labels", "the same pixels", row, twin, label=0, exact=True),
        Finding("suspected label", "", 11, label=0, score=0.1, suggested=2),
        Finding("duplicate", "the same pixels", 7, 8, label=0),
    ]
    items = suspects_of(images, [""] * len(images.paths), findings)
    assert [item.row for item in items] == [11, 10, row, twin, near]
    assert [item.suggestion for item in items[:2]] == [images.classes[2], images.classes[1]]
    assert items[2].suggestion == images.classes[int(images.labels[twin])]  # the exact pair comes before the other
    assert list(items[2].neighbors) == [twin]
    assert items[2].why == "two labels: the same pixels"


def test_the_list_goes_on_with_a_set_that_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    data = write_set(tmp_path / "set", 12)
    images = plant(data, tmp_path / "check", 10)
    before = read_suspects(tmp_path / "check").items(images)
    first = data / EVIL
    (first / "000.png").unlink()
    (first / "001.png").rename(first / "moved.png")
    (first / "002.png").rename(data / "ünder wasser" / "mended.png")
    events: list[Any] = []
    monkeypatch.setattr("sightline.checks.review.serve_items", lambda *arguments: events.append(arguments))
    sightline.review(tmp_path / "check", on_event=events.append)
    assert "2 of 10 suspects are gone: their images or labels are others today" in events
    items = events[-1][2]
    assert [item.digest for item in items] == [
        item.digest for item in before if item.file[-7:] not in ("000.png", "002.png")
    ]
    assert items[0].file == f"{EVIL}/moved.png"
    assert images.classes == events[-1][1].classes


def test_decisions_go_on_in_the_file_that_a_check_was_given(
    planted: tuple[Path, CachedImages, Path], tmp_path: Path, opened: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = CorrectionsFile(tmp_path / "decided.csv")
    Corrections(file.path).decide(opened.items[0], CLASSES[2])
    served: list[Any] = []
    monkeypatch.setattr("sightline.checks.check.serve_items", lambda *arguments: served.append(arguments))
    monkeypatch.setattr("sightline.checks.review.serve_items", lambda *arguments: served.append(arguments))
    data = planted[0].parent / "set"
    check(data, corrections=str(file.path), out=tmp_path / "new", review=True)
    sightline.review(tmp_path / "new")
    assert [arguments[-1] for arguments in served] == [str(file.path)] * 2
    review = open_review(tmp_path / "new", planted[1], list(opened.items), str(file.path))
    assert "1 of 100 decided" in Window(review).page
    Window(review).decide("out")
    assert [one.after for one in file.read().values()] == [CLASSES[2], None]


def test_what_was_decided_is_proposed_to_be_left_out_no_more(
    planted: tuple[Path, CachedImages, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = planted[1]
    suspects = [Finding("suspected label", "", row, label=0, score=0.1, suggested=1) for row in (3, 4, 5)]
    monkeypatch.setattr("sightline.checks.check.copies", lambda *of: suspects)

    def decide(review: Review, *_: Any) -> None:
        path = tmp_path / "new" / "exclude.csv"
        path.write_text(path.read_text() + "my own.png,my own,\n")  # edited meanwhile
        review.sink.decide(review.items[0], EVIL)
        review.sink.decide(review.items[2], None)

    monkeypatch.setattr("sightline.serving.reviewing.server.serve_review", decide)
    events: list[Any] = []
    data = planted[0].parent / "set"
    found = check(data, labels="none", out=tmp_path / "new", review=True, on_event=events.append)
    with (tmp_path / "new" / "exclude.csv").open(newline="") as file:
        listed = [row["file"] for row in csv.DictReader(file)]
    assert listed == [*(images.paths[row] for row in (3, 4, 5)), "my own.png"]  # what people edit stays what it is
    assert [item.row for item in found.findings if item.kind == "suspected label"] == [4]
    assert found.excluded == [images.paths[4]]
    assert f"--data.corrections {tmp_path}/new/corrections.csv" in found.command
    assert f"--data.exclude {tmp_path}/new/exclude.csv" in found.command
    assert "Review 1 label" in (tmp_path / "new" / "check.html").read_text()


def test_the_command_that_is_printed_trains_with_all_that_was_accepted(
    planted: tuple[Path, CachedImages, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, splits, _ = open_set(find_source(planted[0].parent / "set"), None)
    assert splits is not None
    train = splits.train.tolist()
    kept, changed, out, new, open_still, twice = train[:6]
    labels = {row: int(images.labels[row]) for row in train}
    findings = [
        *(Finding("suspected label", "", row, label=labels[row], score=0.1, suggested=1) for row in train[:5]),
        Finding("duplicate", "the same pixels", twice, train[6], labels[twice], 1.0, True),
    ]
    monkeypatch.setattr("sightline.checks.check.copies", lambda *of: findings)
    seen: list[Window] = []

    def decide(review: Review, *_: Any) -> None:
        window, place = Window(review), {item.row: index + 1 for index, item in enumerate(review.items)}
        assert "--data.corrections" not in window.page  # nothing is decided
        for row, action, fields in (
            (kept, "keep", {}),
            (changed, "other", {"label": (labels[changed] + 1) % 3}),
            (out, "out", {}),
            (new, "other", {"name": "moss; echo", "add": "true"}),
        ):
            assert window.look(f"/review?item={place[row]}").decide(action, **fields).status == 200
        seen.append(window)

    monkeypatch.setattr("sightline.serving.reviewing.server.serve_review", decide)
    events: list[Any] = []
    data, folder = planted[0].parent / "set", tmp_path / "the check"
    checked = check(data, labels="none", out=folder, review=True, on_event=events.append)
    said = next(text for text in events if isinstance(text, str) and "train with them: " in text)
    command = said.partition("train with them: ")[2]
    assert command in html.unescape(seen[0].page)
    assert sorted(shlex.split(command)) == sorted(shlex.split(checked.command))  # the page of the check has the same
    page = html.unescape((folder / "check.html").read_text())
    assert checked.command in page
    monkeypatch.chdir(tmp_path)
    quick = ["--recipe", "small", "--fit.epochs", "1", "--fit.batch-size", "16", "--network.widths", "8", "16", "16"]
    assert main([*shlex.split(command)[1:], *quick, "--run", "run"]) == 0
    model = json.loads((tmp_path / "run" / "model.json").read_text())
    assert model["classes"] == sorted([*CLASSES, "moss; echo"])
    left = {row["to"] for row in rows(folder)}
    assert "" in left
    trained = set(read_kept(tmp_path / "run").trained.tolist())
    for row, inside in ((kept, True), (changed, True), (new, True), (out, False), (open_still, False), (twice, False)):
        assert (number_of(images.hashes[row]) in trained) == inside


def test_a_folder_that_no_check_wrote_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no suspects\.json; wanted the folder that sightline check wrote"):
        sightline.review(tmp_path)
    (tmp_path / "suspects.json").write_text('{"format": 1, "suspects": [')
    with pytest.raises(RunError, match=r"suspects\.json cannot be read .* run sightline check"):
        sightline.review(tmp_path)


def test_a_check_without_suspects_says_so_and_ends(
    planted: tuple[Path, CachedImages, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    data = planted[0].parent / "set"
    monkeypatch.setattr("sightline.checks.suspects.suspects_of", lambda *of: [])
    found = check(data, out=tmp_path / "check", review=True, on_event=events.append)
    assert "No label is suspected, so there is nothing to review." in events
    assert read_suspects(found.folder).suspects == []


# ── in a browser ─────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def serving(folder: Path, cache: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``sightline review``; gives the process and its address."""
    source = str(Path(sightline.__file__).parents[1])
    env = os.environ | {"SIGHTLINE_CACHE": str(cache), "PYTHONPATH": source, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "sightline", "review", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[2], process.stderr.read()
        yield process, lines[2].split()[0]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


class Tab:
    """A tab of the browser at the page, used by its keys."""

    def __init__(self, browser: Any, address: str, **how: Any) -> None:
        self.context = browser.new_context(**how)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)  # a shared machine may be slow
        self.troubles: list[str] = []
        self.page.on("pageerror", lambda error: self.troubles.append(f"error {error}"))
        self.page.on("dialog", lambda dialog: self.troubles.append(f"dialog {dialog.message}"))
        self.page.goto(address)
        self.page.wait_for_selector("#main")

    def item(self) -> str:
        return str(self.page.get_attribute("#main", "data-item"))

    def press(self, *keys: str) -> None:
        """Press keys, and wait for the page that the last one leads to."""
        self.page.eval_on_selector("#main", "main => main.dataset.old = 'yes'")
        for key in keys:
            self.page.keyboard.press(key)
        self.page.wait_for_selector("#main:not([data-old])")

    def said(self) -> str:
        return str(self.page.inner_text("#done"))


@in_browser
def test_a_hundred_suspects_are_decided_by_keys_alone(
    browser: Any, planted: tuple[Path, CachedImages, Path], folder: Path
) -> None:
    expected: list[str | None] = []
    with serving(folder, planted[2]) as (process, address):
        tab = Tab(browser, address)
        names = planted[1].classes
        items = read_suspects(folder).items(planted[1])
        for index, item in enumerate(items):
            assert tab.item() == str(index + 1)
            match index % 4:
                case 0:
                    tab.press("a")
                    expected.append(item.suggestion)
                case 1:
                    tab.press("k")
                    expected.append(item.given)
                case 2:
                    tab.page.keyboard.press("l")
                    tab.page.keyboard.type("WASS")
                    tab.press("Enter")
                    expected.append(names[2])
                case _:
                    tab.press("x")
                    expected.append(None)
        assert "All 100 are decided" in tab.page.inner_text("#end")
        assert tab.page.evaluate("document.activeElement.id") == "end"
        tab.press("u")
        assert tab.item() == "100"
        tab.press("x")
        process.send_signal(signal.SIGINT)
        out, log = process.communicate(timeout=30)
        assert process.returncode == 0, log
        assert "100 of 100 are decided" in out
        assert "Traceback" not in log
        assert tab.troubles == []
    decided = CorrectionsFile(folder / "corrections.csv").read()
    assert [decided[item.digest].after for item in items] == expected


@in_browser
def test_a_new_class_is_typed_and_asked_for_once(
    browser: Any, planted: tuple[Path, CachedImages, Path], folder: Path
) -> None:
    with serving(folder, planted[2]) as (_, address):
        tab = Tab(browser, address)
        tab.page.keyboard.press("l")
        tab.page.keyboard.type("<b>moss")
        tab.page.keyboard.press("Enter")
        assert tab.page.inner_text("#ask-title") == "Add the class <b>moss?"
        assert tab.page.evaluate("document.activeElement.id") == "ask-yes"
        tab.page.keyboard.press("Tab")
        tab.page.keyboard.press("Enter")  # back
        assert tab.page.evaluate("document.activeElement.id") == "label"
        tab.page.keyboard.press("Enter")
        tab.page.keyboard.press("Escape")
        assert not (folder / "corrections.csv").exists()
        tab.page.keyboard.press("l")
        tab.page.keyboard.type("<b>moss")
        tab.page.keyboard.press("Enter")
        tab.press("Enter")
        assert tab.said().startswith("Decided: <b>moss, was ")
        tab.page.keyboard.press("l")
        tab.page.keyboard.type("MOSS")
        tab.press("Enter")  # it is in the list by now, and not asked for again
        assert [row["to"] for row in rows(folder)] == ["<b>moss"] * 2
        for left in (1, 0):
            tab.press("u")
            assert len(rows(folder)) == left
        tab.page.keyboard.press("l")
        tab.page.keyboard.type("moss")
        assert tab.page.locator("#matches li").all_inner_texts() == ["Add the class moss …"]
        tab.page.keyboard.press("Escape")
        tab.page.click("#copy")
        tab.page.wait_for_selector("#done:has-text('The command is copied.')")
        assert tab.troubles == []


@in_browser
def test_the_grid_is_used_by_keys(browser: Any, planted: tuple[Path, CachedImages, Path], folder: Path) -> None:
    with serving(folder, planted[2]) as (_, address):
        tab = Tab(browser, address, viewport={"width": 1000, "height": 800})
        tab.press("g")
        assert tab.page.evaluate("document.activeElement.dataset.number") == "1"
        tab.page.keyboard.press("ArrowRight")
        tab.press("a")
        assert "Decided" in tab.said()
        assert tab.page.evaluate("document.activeElement.dataset.number") == "3"
        tab.page.keyboard.press("ArrowDown")
        below = int(tab.page.evaluate("document.activeElement.dataset.number"))
        assert below > 4
        tab.press("x")
        tab.page.keyboard.press("ArrowLeft")
        tab.press("u")  # of an image that is decided: its own decision
        assert "undecided again" in tab.said()
        assert tab.page.evaluate("document.activeElement.dataset.number") == str(below)
        tab.press("Enter")
        assert tab.page.get_attribute("#main", "data-view") == "one"
        assert tab.item() == str(below)
        tab.press("ArrowRight")
        assert tab.item() == str(below + 1)
        tab.page.uncheck("#keys")
        tab.page.keyboard.press("x")
        tab.page.check("#keys")
        assert len(rows(folder)) == 1  # keys that are turned off do nothing
        for _ in range(4):
            tab.press("g")
        assert tab.troubles == []


@in_browser
def test_two_windows_and_a_server_that_is_killed_lose_no_decision(
    browser: Any, planted: tuple[Path, CachedImages, Path], folder: Path
) -> None:
    file = CorrectionsFile(folder / "corrections.csv")
    with serving(folder, planted[2]) as (process, address):
        one, other = Tab(browser, address), Tab(browser, address)
        one.press("a")
        other.press("k")  # of the same image, which the other window shows as undecided still
        assert "decided meanwhile" in other.page.inner_text("#trouble")
        other.page.goto(f"{address}review?item=50")
        for tab in (one, other) * 10:
            tab.press("k")
        assert len(file.read()) == 21
        process.kill()
        process.wait()
        one.page.keyboard.press("x")
        one.page.wait_for_selector("#trouble:has-text('The server does not answer')")
        assert len(file.read()) == 21
    shown = one.item()
    with serving(folder, planted[2], int(address.rpartition(":")[2].strip("/"))) as (process, again):
        assert again == address
        one.press("x")  # the window that was open goes on
        assert len(file.read()) == 22
        assert Tab(browser, address).item() == str(int(shown) + 1)
        assert file.read()[read_suspects(folder).suspects[int(shown) - 1].hash].after is None
        assert one.troubles == other.troubles == []


@in_browser
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_against_wcag_aa(
    browser: Any, planted: tuple[Path, CachedImages, Path], folder: Path, scheme: str, width: int
) -> None:
    with serving(folder, planted[2]) as (_, address):
        tab = Tab(browser, address, color_scheme=scheme, viewport={"width": width, "height": WIDTHS[width]})
        tab.press("a")
        assert faults(tab.page) == []
        tab.press("x")
        tab.press("k")
        tab.press("g")
        assert faults(tab.page) == []
        tab.page.keyboard.press("l")
        tab.page.wait_for_selector("#matches li")
        assert faults(tab.page) == []
        tab.page.keyboard.type("moss")
        assert faults(tab.page) == []
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("#ask-yes:focus")
        assert faults(tab.page) == []
        assert stays_within(tab.page, width)
        tab.page.keyboard.press("Escape")
        assert focused_unseen(tab.page, 5) == []
        tab.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\">')")
        assert faults(tab.page) != []  # axe would have seen something
