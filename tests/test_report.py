"""The report of a finished run: one page that holds all it shows, and shows what was measured."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import sightline
from browsing import SCHEMES, chromium, in_browser, look_over
from conftest import QUICK, Finished
from sightline.cli.main import main
from sightline.data.cache import CachedImages
from sightline.data.thumbnails import Thumbnails, affordable
from sightline.display.lines import Lines
from sightline.errors import ConfigError, RunError
from sightline.evaluation.answers import Answers, read_answers
from sightline.measures.metrics import confusion_matrix, per_class, wilson_interval
from sightline.reports import mistakes, report
from sightline.runs.writing import plain_text, safe_cell, write_csv
from sightline.training import finish
from test_pages import read

Array = np.ndarray[Any, Any]
TRUST = {
    "n": 2500,
    "views": "six",
    "reliability": [
        {"low": 0.6, "high": 0.667, "n": 0, "confidence": None, "accuracy": None},
        {"low": 0.933, "high": 1.0, "n": 1200, "confidence": 0.97, "accuracy": 0.96},
    ],
    "calibration_error": 0.0081,
    "calibration_error_unscaled": 0.0912,
    "sets": {"score": "raps", "coverages": {"0.9": {"threshold": 0.87, "mean_size": 1.13}}},
    "unknown": {
        "score": "energy",
        "threshold": -4.2,
        "share_of_own": 0.0513,
        "rates": {"digits": {"n": 1797, "rate": 0.7123}},
    },
    "corruptions": {
        "n": 1000,
        "views": "one",
        "clean": 0.9017,
        "accuracy": {"noise": [0.8018, 0.7, 0.6, 0.5, 0.4], "blur": [0.8519, 0.8, 0.7, 0.6, 0.5]},
    },
}


def change(file: Path, **values: Any) -> None:
    """Set entries of a JSON file; None takes one out."""
    found = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))


def answer(run: Path, files: list[str], labels: list[int], chances_NK: Array) -> None:
    """Give a run other answers, as if it had been measured on these images."""
    model = json.loads((run / "model.json").read_text())
    classes = model["classes"]
    predicted = chances_NK.argmax(1)
    rows = []
    for file, label, chances in zip(files, labels, chances_NK, strict=True):
        order = np.argsort(-chances, kind="stable")[:5]
        ranked = [cell for index in order for cell in (classes[index], f"{chances[index]:.6f}")]
        rows.append([file, classes[label], *ranked, *[""] * (10 - len(ranked)), f"{chances[label]:.6f}"])
    header = ["file", "true_class", "class", "probability"]
    header += [f"{name}_{rank}" for rank in range(2, 6) for name in ("class", "probability")]
    write_csv(run / "predictions.csv", [*header, "true_probability"], rows)
    confusion = confusion_matrix(predicted, np.array(labels), len(classes))
    right = int(np.trace(confusion))
    change(
        run / "evaluation.json",
        n=len(labels),
        accuracy=right / len(labels),
        accuracy_interval=list(wilson_interval(right, len(labels))),
        classes=dict(zip(classes, per_class(confusion), strict=True)),
        confusion_matrix=confusion.tolist(),
    )


@pytest.fixture
def copy(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run, whose images are decoded already."""
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    return Path(shutil.copytree(finished.run, tmp_path / "run"))


def mistake(run: Path) -> Path:
    """Make a run one that took three images of blood for grass; of one it was so sure that the label looks wrong."""
    model = json.loads((run / "model.json").read_text())
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    files = [row["file"].removeprefix("'") for row in rows]
    labels = [[safe_cell(name) for name in model["classes"]].index(row["true_class"]) for row in rows]
    chances_NK = np.eye(3)[labels] * 0.9 + 0.1 / 3
    chances_NK[:3] = [[0.3, 0.6, 0.1], [0.01, 0.98, 0.01], [0.4, 0.5, 0.1]]
    assert labels[:3] == [0, 0, 0]
    answer(run, files, labels, chances_NK)
    return run


@pytest.fixture
def mistaken(copy: Path) -> Path:
    """The finished run with three mistakes."""
    return mistake(copy)


def page_of(run: Path, **options: Any) -> str:
    return sightline.report(run, **options).read_text("utf-8")


def numbers_in_matrix(page: str) -> list[list[int]]:
    body = page[page.index('<table class="matrix') : page.index("</table>")]
    rows = body.split("<tr>")[2:]
    cells = [re.findall(r"<td.*?</td>", row, re.DOTALL) for row in rows]
    return [[int(re.sub(r"<.*?>|,", "", cell).replace("·", "0")) for cell in row] for row in cells]


def pictures_of_self_contained(path: Path) -> int:
    """How many pictures a page shows, which loads nothing, runs nothing, and whose references are to itself."""
    page = re.sub(r"(?<=base64,)[^\"]+", "", path.read_text("utf-8"))  # in which any four letters may stand
    assert "http" not in page
    assert not re.search(r"url\((?!#)|@import", page)
    reader = read(path)
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "iframe", "object", "embed"}
    pictures = 0
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "xlink:href"):
                assert (value or "").startswith("#")
            if name in ("src", "srcset"):
                assert tag == "img"
                assert (value or "").startswith("data:image/webp;base64,")
                pictures += 1
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(names)
    return pictures


# ── in a browser ─────────────────────────────────────────────────────────────────────────────────────────────────────


@in_browser
def test_in_every_width_light_and_dark_axe_finds_nothing_against_wcag_aa(mistaken: Path) -> None:
    change(mistaken / "model.json", trust=TRUST)
    page_of(mistaken)
    with chromium() as browser:
        assert look_over(browser, (mistaken / "report.html").as_uri()) == []


@in_browser
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_the_first_screen_says_whether_to_use_it_for_what_and_what_it_will_get_wrong(
    mistaken: Path, size: tuple[int, int]
) -> None:
    model = json.loads((mistaken / "model.json").read_text())
    data = model["data"] | {"shared_with_test": 3, "left_out": 12, "name": "a name that is too long for any screen"}
    change(mistaken / "model.json", trust=TRUST, data=data)  # more to say than most have
    page_of(mistaken)
    width, height = size
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto((mistaken / "report.html").as_uri())
        assert page.locator(".verdict h2").all_inner_texts() == [
            "May I use it?", "For what?", "What will it get wrong?", "When should I not use it?"
        ]  # fmt: skip
        box = page.locator(".verdict").bounding_box()
        assert box["y"] + box["height"] <= height
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # the link that skips the contents
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('#where-it-is-wrong') !== null")


@in_browser
def test_what_is_behind_a_cell_opens_and_closes_by_keys_and_charts_are_drawn_in_the_scheme(mistaken: Path) -> None:
    page_of(mistaken)
    inks = set()
    with chromium() as browser:
        for scheme in SCHEMES:
            page = browser.new_page(color_scheme=scheme)
            page.goto((mistaken / "report.html").as_uri())
            inks.add(page.evaluate("getComputedStyle(document.querySelector('.charts text')).fill"))
            page.focus("#from-cell-0-1")
            page.keyboard.press("Enter")
            assert page.is_visible("#cell-0-1")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")  # close
            assert not page.is_visible("#cell-0-1")
    assert len(inks) == 2


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_page_loads_nothing_runs_nothing_and_every_reference_finds_its_own(mistaken: Path) -> None:
    page_of(mistaken)
    pictures = pictures_of_self_contained(mistaken / "report.html")
    assert pictures == 18 + 2 * 3 + 1  # behind cells; mistakes, each explained; the suspected label


def test_the_numbers_on_the_page_are_those_that_were_measured(mistaken: Path) -> None:
    page, measured = page_of(mistaken), json.loads((mistaken / "evaluation.json").read_text())
    low, high = measured["accuracy_interval"]
    assert f"Accuracy {15 / 18:.4f} on 18 test images" in page
    assert f"95 % interval {low:.4f} to {high:.4f}" in page
    assert "The test images were read once." in page
    assert "Of its 3 mistakes, it most often took =blood for grass (3 of 6)." in page
    assert "of the 16 answers with a probability of 0.9 or more, 0.9375 are right" in page.lower()
    assert "of the 2 answers with a probability below 0.9, 0.0000 are right" in page
    assert f"{measured['calibration_error']:.4f} (calibration error)" in page
    assert numbers_in_matrix(page) == measured["confusion_matrix"] == [[3, 3, 0], [0, 6, 0], [0, 0, 6]]
    for row in measured["classes"].values():
        assert f"<td>6</td>\n<td>{row['precision']:.4f}</td>\n<td>{row['recall']:.4f}</td>" in page


def test_the_page_says_what_was_trained_and_how_to_repeat_it(copy: Path) -> None:
    page, model = page_of(copy), json.loads((copy / "model.json").read_text())
    assert "trained on colours: 57 images to learn from, 15 for validation, 18 for the test; 3 classes" in page
    assert "10,888 parameters" in page
    assert model["data"]["fingerprint"] in page
    assert "sightline train DATA --config recipe.yaml --run ANOTHER" in page
    assert "batch_size: 16" in page
    for version in model["versions"].values():
        assert version in page
    assert f"{model['cost']['fit_seconds']:,.1f}" in page
    assert model["cost"]["device"] in page


def test_the_mistakes_come_surest_first_with_their_file_their_classes_and_their_probabilities(mistaken: Path) -> None:
    page = page_of(mistaken)
    gallery = page[page.index("<h2>The worst mistakes") : page.index("<h2>Suspected wrong labels")]
    files = [row["file"] for row in csv.DictReader((mistaken / "predictions.csv").open(newline=""))]
    assert files[0].startswith("'=blood/")  # which a spreadsheet would run without the apostrophe
    places = [gallery.index(f"<br>{files[row][1:]}<") for row in (1, 0, 2)]
    assert places == sorted(places)
    assert gallery.count("labeled =blood, answer grass") == 3
    assert "grass: 0.980 · =blood (the label): 0.010 · ünder wasser: 0.010" in gallery
    assert "what spoke for the answer (DeepLift)" in gallery
    assert gallery.count("what spoke for the answer") == 4  # three overlays, and the sentence above


def test_a_label_that_another_class_claims_is_suspected(mistaken: Path) -> None:
    page = page_of(mistaken)
    gallery = page[page.index("<h2>Suspected wrong labels") : page.index("<h2>How sure it is")]
    assert (
        "1 of 18 images is suspected to bear a wrong label" in gallery
    )  # grass has 0.933 on its own: only 0.98 is as much
    assert gallery.count("labeled =blood, answer grass") == 1


def test_an_older_table_without_the_probability_of_the_label_does_without_suspects(mistaken: Path) -> None:
    path = mistaken / "predictions.csv"
    with path.open(newline="") as file:
        rows = [list(map(plain_text, row[:-1])) for row in csv.reader(file)]
    write_csv(path, rows[0], rows[1:])
    page = page_of(mistaken)
    assert "Suspected wrong labels" not in page
    assert "The worst mistakes" in page


def test_what_users_wrote_is_shown_and_never_becomes_a_tag(mistaken: Path) -> None:
    evil = "<script>alert(1)</script>"
    for file in ("model.json", "evaluation.json", "predictions.csv"):
        text = (mistaken / file).read_text("utf-8")
        (mistaken / file).write_text(text.replace("grass", evil).replace(f"{evil}/", "grass/"), "utf-8")
    page = page_of(mistaken)
    assert evil not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "=blood" in page
    assert "ünder wasser" in page


def test_no_more_than_25_images_lie_behind_a_cell_surest_mistakes_and_unsurest_right_answers_first() -> None:
    chances_NK = np.array([[0.5 + 0.4 * row / 40, 0.5 - 0.4 * row / 40] for row in range(40)])
    answers = Answers([f"a/{row}.png" for row in range(40)], np.arange(40) % 2, np.zeros(40, int), chances_NK, True)
    links = {(true, 0): mistakes._link(["a", "b"], np.array([[400, 0], [20, 0]]), true, 0) for true in (0, 1)}
    right, wrong = mistakes._panels(answers, links, None)
    files = [[item.pictures[0].caption.split("\n")[1] for item in panel.items][:3] for panel in (wrong, right)]
    assert files == [["39.png", "37.png", "35.png"], ["0.png", "2.png", "4.png"]]
    many = Answers([str(row) for row in range(400)], np.zeros(400, int), np.zeros(400, int), np.ones((400, 2)), True)
    (panel,) = mistakes._panels(many, {(0, 0): links[0, 0]}, None)
    assert len(panel.items) == 25
    assert "25 of 400" in panel.about


def test_of_many_classes_the_most_confused_pairs_are_listed(copy: Path) -> None:
    classes = [f"class {index:02d}" for index in range(26)]
    change(copy / "model.json", classes=classes)
    labels = [index for index in range(26) for _ in range(4)]
    chances_NK = np.eye(26)[labels] * 0.9 + 0.1 / 26
    for row in (0, 1, 2, 40):  # three of class 00 for 25, one of class 10
        chances_NK[row] = np.eye(26)[25] * 0.9 + 0.1 / 26
    answer(copy, [f"{row}.png" for row in range(104)], labels, chances_NK)
    page = page_of(copy)
    assert 'table class="matrix' not in page
    assert "A matrix of 26 classes would fit no screen: these are the 2 pairs" in page
    assert "with 4 of all 4 mistakes" in page
    assert page.index("3 images of class 00, taken for class 25") < page.index(
        "1 image of class 10, taken for class 25"
    )


def test_what_is_known_of_its_trust_is_on_the_page_and_what_is_not_is_left_out(mistaken: Path) -> None:
    titles = ("Prediction sets", "Images of no class", "On worse images", "Confidence and right answers")
    page = page_of(mistaken)
    assert [title for title in titles if title in page] == list(titles)
    change(mistaken / "model.json", trust=None)  # as a run from before there was any
    change(mistaken / "evaluation.json", reliability=None, sets=None, unknown_share=None)
    page = page_of(mistaken)
    assert not [title for title in titles if title in page]
    change(mistaken / "model.json", trust=TRUST)
    change(
        mistaken / "evaluation.json",
        reliability=TRUST["reliability"],
        sets={"0.9": {"coverage": 0.9034, "mean_size": 1.1435}},
        unknown_share=0.0535,
    )
    page = page_of(mistaken)
    assert [title for title in titles if title in page] == list(titles)
    numbers = ("0.0081", "0.0912", "0.9034", "1.14", "1.13", "0.0513", "0.0535", "0.7123", "0.9017", "0.8018", "0.8519")
    assert [number for number in numbers if number not in page] == []
    for part in ("sets", "unknown", "corruptions"):
        change(mistaken / "model.json", trust={name: value for name, value in TRUST.items() if name != part})
        page_of(mistaken)


# ── what may be missing ──────────────────────────────────────────────────────────────────────────────────────────────


def test_where_the_images_are_gone_or_others_the_page_is_without_pictures_and_says_so(
    mistaken: Path, finished: Finished, tmp_path: Path
) -> None:
    model = json.loads((mistaken / "model.json").read_text())

    def page_with(**data: Any) -> str:
        change(mistaken / "model.json", data=model["data"] | data)
        page = page_of(mistaken)
        assert "<img" not in page
        assert "The worst mistakes" in page
        return page

    assert "cannot be opened, so the page is without pictures. No image set at" in page_with(location="/gone")
    assert "is not what the run was trained on any more" in page_with(fingerprint="0" * 16)
    renamed = Path(shutil.copytree(finished.data, tmp_path / "renamed"))
    for path in renamed.glob("grass/*.png"):
        path.rename(path.with_name(f"new-{path.name}"))
    assert "has other names than when the run was measured (no grass/" in page_with(location=str(renamed))


def test_a_network_without_a_map_is_shown_without_what_spoke_for_its_answers(
    mistaken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ConfigError("the layer gives no map of the image; choose another layer.")

    monkeypatch.setattr("sightline.explanation.requirements.refuse_without_rules", refuse)
    monkeypatch.setattr("sightline.explanation.attribution.grad_cam", refuse)
    page = page_of(mistaken)
    assert "What spoke for the wrong answers is not shown: the layer gives no map" in page
    assert page.count("<img") == 18 + 3 + 1


def test_the_code_of_a_repository_runs_only_where_it_is_trusted(finished: Finished, tmp_path: Path) -> None:
    hub = {"kind": "hub", "repo": str(Path(__file__).parent / "hub_clone"), "name": "tiny", "trust_code": True}
    settings = {"fit": {"epochs": 1, "batch_size": 16}, "network": hub}
    run = sightline.train(finished.data, recipe="small", settings=settings, run=tmp_path / "hub")
    assert run is not None
    assert (run / "report.html").exists()
    mistake(run)
    with pytest.raises(ConfigError, match="trust-code"):
        sightline.report(run)
    assert page_of(run, trust_code=True).count('alt="what spoke for the answer"') == 3


def test_a_run_that_was_measured_on_nothing_says_so(copy: Path) -> None:
    change(copy / "model.json", metrics=None, test_readings=0)
    (copy / "evaluation.json").unlink()
    (copy / "predictions.csv").unlink()
    page = page_of(copy)
    assert "It was measured on nothing, as asked." in page
    assert "The test images were never read." in page
    assert "Where it is wrong" not in page
    assert "How it learned" in page


def test_a_run_that_was_measured_on_validation_names_the_split(copy: Path) -> None:
    change(copy / "evaluation.json", split="validation")
    change(copy / "model.json", test_readings=0)
    assert "Accuracy 1.0000 on 18 validation images by which its probabilities were set as well" in page_of(copy)


def cut_off(run: Path) -> None:
    path = run / "predictions.csv"
    path.write_bytes(path.read_bytes()[:-30])


def other_answers(run: Path) -> None:
    path = run / "predictions.csv"
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")


def other_class(run: Path) -> None:
    path = run / "predictions.csv"
    path.write_text(path.read_text("utf-8").replace("grass,0.", "weed,0."), "utf-8")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_off, r"predictions\.csv cannot be read \(line 19 is cut off\); copy the run again"),
        (other_answers, r"has 17 answers that are not those of evaluation\.json \(18 images\)"),
        (other_class, r"it has no column or class 'weed'"),
        (lambda run: (run / "predictions.csv").unlink(), r"predictions\.csv cannot be read \(.*No such file"),
        (lambda run: (run / "evaluation.json").write_text("{"), r"evaluation\.json cannot be read"),
        (
            lambda run: (run / "evaluation.json").write_text("{}"),
            r"evaluation\.json: accuracy is missing; copy the run again",
        ),
        (lambda run: (run / "DONE").unlink(), r"is not a finished run: it has no DONE file"),
        (lambda run: (run / "metrics.csv").unlink(), r"metrics\.csv cannot be read"),
        (lambda run: shutil.rmtree(run), r"there is no run at"),
    ],
)
def test_a_damaged_run_is_refused_in_one_sentence_and_status_2(
    damage: Callable[[Path], None], told: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "report.html").unlink()
    damage(copy)
    with pytest.raises(RunError, match=told):
        sightline.report(copy)
    assert not (copy / "report.html").exists()
    assert main(["report", str(copy)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1


def test_the_command_writes_where_it_is_told_and_only_pages(
    finished: Finished, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert main(["report", str(copy), "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert (tmp_path / "page.html").read_bytes() == (finished.run / "report.html").read_bytes()  # as training wrote it
    assert main(["report", str(copy), "--out", str(tmp_path / "page.pdf")]) == 2
    assert "must end in .html" in capsys.readouterr().err


# ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_report_that_fails_costs_a_line_and_no_training(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no room\nfor a page")

    monkeypatch.setattr(finish, "report", fail)
    console = Console(file=io.StringIO(), width=200)
    settings = QUICK | {"fit": {"epochs": 1, "batch_size": 16}}
    run = sightline.train(
        finished.data, recipe="small", settings=settings, run=tmp_path / "new", on_event=Lines(console)
    )
    assert run is not None
    assert (run / "DONE").exists()
    assert not (run / "report.html").exists()
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "no report.html: no room for a page" in printed
    assert "new/report.html " not in printed
    monkeypatch.undo()
    assert sightline.report(run).exists()


@pytest.mark.parametrize(
    ("counts", "most", "side"),
    [
        ([980, 20, 0, 3], 25, 64),  # 48 images
        ([1000] * 100, 25, 34),  # all cells of ten classes: 2,500 images of 34² are 2.9 million pixels
        ([30] * 625, 4, 34),  # of 25 classes
        ([], 25, 64),
    ],
)
def test_images_behind_cells_become_smaller_then_fewer_so_that_a_page_stays_small(
    counts: list[int], most: int, side: int
) -> None:
    assert affordable(counts, 64, most=25, pixels=3_000_000) == (most, side)
    assert sum(min(count, most) for count in counts) * side**2 <= 3_000_000


def test_a_page_of_10000_images_of_noise_half_of_them_wrong_is_under_5_megabytes(
    copy: Path, in_memory: Callable[..., CachedImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(10_000) % 10
    pixels = random.integers(0, 256, (10_000, 32, 32, 3), np.uint8)  # which no format makes small
    images = in_memory(labels.tolist(), pixels=pixels)
    change(copy / "model.json", classes=[f"class {index}" for index in range(10)])
    chances_NK = random.dirichlet(np.full(10, 0.2), 10_000)
    answer(copy, list(images.paths), labels.tolist(), chances_NK)
    monkeypatch.setattr(report, "open_own", lambda *_: Thumbnails(images))
    monkeypatch.setattr(
        mistakes, "_explained", lambda facts, answers, thumbnails, rows, trust: ([pixels[0]] * len(rows), "")
    )
    page = page_of(copy)
    assert page.count("<img") == 100 * 25 + 24 * 2 + 24
    assert len(page.encode()) < 5_000_000


def test_answers_are_read_back_as_they_were_written(copy: Path) -> None:
    classes = json.loads((copy / "model.json").read_text())["classes"]
    random = np.random.default_rng(1)
    chances_NK = random.dirichlet(np.ones(3), 50)
    labels = random.integers(0, 3, 50)
    answer(copy, [f"=a/{row}" for row in range(50)], labels.tolist(), chances_NK)
    found = read_answers(copy, classes, json.loads((copy / "evaluation.json").read_text()))
    assert found.files[0] == "'=a/0"
    assert found.labels_N.tolist() == labels.tolist()
    assert found.predicted_N.tolist() == chances_NK.argmax(1).tolist()
    assert np.abs(found.probabilities_NK - chances_NK).max() < 1e-6
    assert found.complete
