"""The answers of a run as galleries show them; and images that visitors bring."""

import base64
import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Finished
from sightline.config.serving import ServeConfig
from sightline.data.cache import CachedImages
from sightline.data.thumbnails import Thumbnails
from sightline.errors import DataError
from sightline.evaluation.answers import Answers
from sightline.serving.exhibits import Exhibits, Opening, Selection
from sightline.serving.html import draw, draw_answer, draw_grid, draw_sentence, draw_viewer, percent, picture
from sightline.serving.uploads import most_bytes, read_upload
from sightline_runtime.decoding.decode import decode, resize
from sightline_runtime.predictions import Prediction

LABELS = [0, 0, 0, 1, 1, 2]
CHANCES = [[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.6, 0.4, 0], [0.55, 0.45, 0], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1]]


@pytest.fixture
def exhibits(in_memory: Callable[..., CachedImages]) -> Exhibits:
    """Six images: of class 0 two are recognised, of class 1 one, of class 2 none."""
    images = in_memory(LABELS, pixels=np.zeros((6, 4, 4, 3), np.uint8))
    chances_NK = np.array(CHANCES)
    answers = Answers(list(images.paths), np.array(LABELS), chances_NK.argmax(1), chances_NK, complete=True)
    return Exhibits(answers, ["a", "b", "c"], "test", Thumbnails(images))


def test_answers_are_filtered_by_both_classes_and_come_in_either_order(exhibits: Exhibits) -> None:
    assert exhibits.rows(Selection(right=False)).tolist() == [1, 5, 3]  # 0.7, 0.6, 0.55
    assert exhibits.rows(Selection(right=False, surest_first=False)).tolist() == [3, 5, 1]
    assert exhibits.rows(Selection(right=True)).tolist() == [0, 4, 2]
    assert exhibits.rows(Selection(right=False, true=0)).tolist() == [1]
    assert exhibits.rows(Selection(right=False, predicted=1)).tolist() == [1, 5]
    assert exhibits.rows(Selection(right=False, true=2, predicted=0)).tolist() == []


def test_a_filter_offers_what_occurs_with_how_often(exhibits: Exhibits) -> None:
    assert exhibits.true_classes(right=False) == [(0, 1), (1, 1), (2, 1)]
    assert exhibits.true_classes(right=True) == [(0, 2), (1, 1)]
    assert exhibits.predicted_classes(right=False) == [(0, 1), (1, 2)]
    assert exhibits.predicted_classes(right=False, true=2) == [(1, 1)]


def test_an_answer_is_told_by_names(exhibits: Exhibits) -> None:
    assert (exhibits.true(1), exhibits.predicted(1), exhibits.probability(1)) == ("a", "b", 0.7)
    assert exhibits.likeliest(3, 2) == [("a", 0.55), ("b", 0.45)]
    assert exhibits.name(1) == "00001.png"


def test_examples_are_a_right_answer_of_each_class_up_to_ten(
    exhibits: Exhibits, in_memory: Callable[..., CachedImages]
) -> None:
    assert exhibits.examples() == [2, 4]
    labels = np.repeat(np.arange(25), 3)
    chances_NK = np.eye(25)[labels] * np.tile([0.9, 0.5, 0.7], 25)[:, None]
    answers = Answers([str(row) for row in range(75)], labels, labels, chances_NK, complete=True)
    many = Exhibits(answers, [str(index) for index in range(25)], "test", exhibits.thumbnails)
    found = many.examples()
    assert len(found) == len({labels[row] for row in found}) == 10
    assert {row % 3 for row in found} == {2}  # neither the surest nor the least sure


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def opened(run: Path | None, cache: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Opening:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(cache))
    model = {} if run is None else json.loads((run / "model.json").read_text("utf-8")) | changes
    opening = Opening(run, model)
    opening.start()
    opening.wait(30)
    assert opening.done
    return opening


def test_the_images_of_a_run_are_opened_beside_and_say_nothing_more(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = opened(finished.run, finished.cache, monkeypatch)
    assert opening.exhibits is not None
    assert len(opening.exhibits.rows(Selection(right=True))) == 18
    assert opening.says == ""
    row = opening.exhibits.examples()[0]
    file = finished.data / opening.exhibits.name(row)
    cached = opening.exhibits.thumbnails.cached(opening.exhibits.answers.files[row])
    assert np.array_equal(
        cached, resize(decode(file.read_bytes()), *cached.shape[:2])
    )  # what predict makes of the file


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metrics": None}, "measured on no images"),
        ({"data": {"location": "/gone/for good"}}, "image set cannot be opened any more"),
        ({"data": {"fingerprint": "0" * 16}}, "not what the run was trained on any more"),
        ({"classes": ["other"]}, "answers of the run cannot be read any more"),
    ],
)
def test_what_cannot_be_opened_is_told_in_a_sentence_without_a_path(
    changes: dict[str, Any], told: str, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = json.loads((finished.run / "model.json").read_text("utf-8"))
    if "data" in changes:
        changes = {"data": model["data"] | changes["data"]}
    opening = opened(finished.run, finished.cache, monkeypatch, **changes)
    assert opening.exhibits is None
    assert told in opening.says
    assert "/" not in opening.says


def test_weights_alone_and_renamed_images_have_nothing_to_show(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "came without their run" in opened(None, finished.cache, monkeypatch).says
    renamed = Path(shutil.copytree(finished.data, tmp_path / "renamed"))
    for path in renamed.glob("grass/*.png"):
        path.rename(path.with_name(f"new-{path.name}"))
    data = json.loads((finished.run / "model.json").read_text("utf-8"))["data"]
    opening = opened(finished.run, finished.cache, monkeypatch, data=data | {"location": str(renamed)})
    assert "other names than when the run was measured (6 files are missing)" in opening.says


# ── images that visitors bring ───────────────────────────────────────────────────────────────────────────────────────


def sent(content: bytes, name: str = "a.png", **more: Any) -> dict[str, Any]:
    return {"name": name, "bytes": len(content), "data": base64.b64encode(content).decode()} | more


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (9, 80, 200)).save(file, "PNG")
    return file.getvalue()


def test_an_upload_is_read_as_predict_reads_the_file() -> None:
    content = png(50, 30)
    name, pixels_HWC = read_upload(sent(content), ServeConfig(), (32, 32))
    assert name == "a.png"
    assert np.array_equal(pixels_HWC, resize(decode(content), 32, 32))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({}, "the image cannot be read: the file is empty"),
        (sent(b"text"), "a.png cannot be read: no image in any known format"),
        (sent(b"", bytes=3_000_000), r"a.png has 3.0 MB; at most 1 MB are read"),
        (sent(bytes(1_200_000), bytes=4), r"a.png has 1.2 MB"),  # whatever the page says of it
        (sent(png(2000, 1100)), r"a.png has more than 2 megapixels \(2000×1100\); send a smaller one"),
        (sent(b"", data="no base64!"), "a.png did not arrive whole"),
        (sent(b"", bytes="many"), "a.png did not arrive whole"),
        (sent(b"text", name="x" * 500), "^x{80} cannot be read"),
    ],
)
def test_an_upload_that_is_wrong_is_refused_in_a_sentence(found: dict[str, Any], told: str) -> None:
    limits = ServeConfig(max_megabytes=1.0, max_megapixels=2.0)
    assert most_bytes(limits) == 1_000_000
    with pytest.raises(DataError, match=told):
        read_upload(found, limits, (32, 32))


# ── how they are drawn ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_files_and_classes_are_called_is_never_read_as_html(exhibits: Exhibits) -> None:
    evil = "<img src=x onerror=alert(1)>"
    named = dataclasses.replace(exhibits, classes=[evil, '" onclick="alert(1)', "{{value}}"])
    grid = draw_grid(named, [1, 5], [np.ones((4, 4)), np.zeros((4, 4))])
    viewer = draw_viewer(named, 1, None)
    answer = draw_answer(evil, Prediction(evil, 1.0, {evil: 1.0}, True, (evil,)), 5, 0.9)
    for drawn in (
        grid,
        viewer,
        answer,
        draw_sentence(evil),
        draw("examples", title=evil, items=[(0, picture(np.zeros((4, 4, 3), np.uint8), evil, 96))]),
    ):
        assert "<img src=x" not in drawn
        assert '" onclick="' not in drawn
        assert "&lt;img src=x" in drawn
    assert grid.count('class="heat"') == 2
    assert 'class="heat"' not in viewer


@pytest.mark.parametrize(
    ("share", "told"),
    [(1.0, "100.0 %"), (0.99995, "> 99.9 %"), (0.973, "97.3 %"), (0.0004, "< 0.1 %"), (0.0, "0.0 %")],
)
def test_a_probability_is_never_rounded_to_certainty(share: float, told: str) -> None:
    assert percent(share) == told


def test_an_empty_set_and_one_that_was_not_asked_for_are_told_apart() -> None:
    without = Prediction("a", 0.6, {"a": 0.6, "b": 0.4})
    assert "A set that holds" not in draw_answer("a.png", without, 2, None)
    assert "<b>no class</b>" in draw_answer("a.png", dataclasses.replace(without, within=()), 2, 0.8)
    assert "80 in 100" in draw_answer("a.png", dataclasses.replace(without, within=("a",)), 2, 0.8)
    assert "none of these" not in draw_answer("a.png", without, 2, None)
