"""A set with everything wrong in it: what is found, what is written down, and what a training then leaves out."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import sightline
from browsing import chromium, in_browser, look_over
from conftest import QUICK, Finished
from sightline.checks.check import Check, check
from sightline.checks.check_page import SHOWN
from sightline.checks.copies import copies, keeping_rank
from sightline.checks.duplicates import Pairs
from sightline.checks.oddities import Header
from sightline.checks.problems import KINDS, Finding, part_of, rare_classes, staying_in_test, suggestions
from sightline.cli.main import main
from sightline.data.splits import split
from sightline.display.lines import Lines
from sightline.errors import DataError, RunError
from test_duplicates import jpeg, scene

Array = np.ndarray[Any, Any]


def png(pixels: Array | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, kind, **options)
    return file.getvalue()


def ill_set() -> dict[str, bytes]:
    """Two classes with their splits, and one of each ailment; a name that a spreadsheet would run."""
    files = {}
    for number, (part, count) in enumerate((("train", 40), ("val", 6), ("test", 10))):
        for index in range(count):
            for label in (0, 1):
                pixels = scene(1000 * number + 2 * index + label)
                files[f"{part}/{'cat' if label else 'dog'}/{index:03d}.png"] = png(pixels)
    same, changed = scene(0), jpeg(scene(2))
    files |= {
        "test/dog/=leak.png": png(same),  # train/dog/000.png
        "test/dog/changed.png": png(changed),  # train/dog/001.png
        "train/cat/again.png": png(scene(5)),  # train/cat/002.png
        "train/cat/wrong.png": png(scene(6)),  # train/dog/003.png
        "train/dog/grey.png": png(np.full((32, 32, 3), 90, np.uint8)),
        "train/dog/inks.jpg": png(Image.fromarray(scene(90)).convert("CMYK"), "JPEG"),
        "train/dog/large.png": png(Image.fromarray(scene(91)).resize((96, 96))),
        "train/dog/wide.png": png(Image.fromarray(scene(92)).resize((66, 22))),
        "train/dog/small.png": png(Image.fromarray(scene(93)).resize((7, 7))),
        "train/dog/broken.png": png(scene(94))[:50],
    }
    return files


@pytest.fixture(scope="module")
def ill(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Check]:
    """The ill set, and a check of it."""
    root = tmp_path_factory.mktemp("ill")
    for path, data in ill_set().items():
        (root / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "set" / path).write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(root / "cache"))
        return root / "set", check(root / "set", out=root / "check")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ── what is found ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("finding", "file", "other"),
    [
        ("shared", "train/dog/000.png", "'test/dog/=leak.png"),
        ("shared", "train/dog/001.png", "test/dog/changed.png"),
        ("duplicate", "train/cat/again.png", "train/cat/002.png"),
        ("two labels", "train/dog/003.png", "train/cat/wrong.png"),
        ("blank", "train/dog/grey.png", ""),
        ("mode", "train/dog/inks.jpg", ""),
        ("size", "train/dog/large.png", ""),
        ("shape", "train/dog/wide.png", ""),
        ("tiny", "train/dog/small.png", ""),
        ("unreadable", "train/dog/broken.png", ""),
    ],
)
def test_every_ailment_is_found_once_and_nothing_else(
    ill: tuple[Path, Check], finding: str, file: str, other: str
) -> None:
    rows = [row for row in table(ill[1].folder / "findings.csv") if row["finding"] == finding]
    wanted = [(file, other.removeprefix("'"))]
    if finding == "shared":
        wanted = [("train/dog/000.png", "test/dog/=leak.png"), ("train/dog/001.png", "test/dog/changed.png")]
    if finding == "two labels":
        assert [{row["file"], row["other"]} for row in rows] == [{file, other}]
    else:
        assert sorted((row["file"], row["other"]) for row in rows) == wanted
    assert rows[0]["split"] == ("" if finding == "unreadable" else "train")
    assert rows[0]["detail"]


def test_only_copies_wrong_labels_and_blank_images_are_suggested_to_be_left_out(ill: tuple[Path, Check]) -> None:
    rows = table(ill[1].folder / "exclude.csv")
    assert {row["file"]: row["finding"] for row in rows} == {
        "train/cat/again.png": "duplicate",
        "train/cat/wrong.png": "two labels",
        "train/dog/000.png": "shared",
        "train/dog/001.png": "shared",
        "train/dog/003.png": "two labels",
        "train/dog/grey.png": "blank",
    }
    assert ill[1].excluded == [row["file"] for row in rows]
    details = {row["file"]: row["detail"] for row in rows}
    assert details["train/cat/again.png"] == "the same pixels; the other is train/cat/002.png, which stays"
    assert details["train/cat/wrong.png"] == "dog and cat: the same pixels; the other is train/dog/003.png"


def test_the_page_says_what_is_wrong_shows_it_and_loads_nothing(ill: tuple[Path, Check]) -> None:
    page = (ill[1].folder / "check.html").read_text("utf-8")
    assert "2 test images (9.1%) are also in train or validation: the accuracy on test would come out too high." in page
    assert "Stop the leak between the splits: leave out 2 copies" in page
    assert "Leave out 4 images" in page
    assert (
        "2 with two labels, of which one is wrong; 1 the same, pixel for pixel, as an image that stays; 1 of one color."
        in page
    )
    assert f"--data.exclude {ill[1].folder.absolute()}/exclude.csv" in page
    assert "A training leaves out by itself what cannot be read (1 file)." in page
    assert "train/<wbr>dog/<wbr>large.png" in page
    assert (
        page.count("data:image/webp;base64,") == 13
    )  # two pairs that are shared, one twice, one with two labels, five odd
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    for kind in ill[1].counts:
        assert KINDS[kind].title in page


@in_browser
def test_in_every_width_light_and_dark_axe_finds_nothing_against_wcag_aa(ill: tuple[Path, Check]) -> None:
    with chromium() as browser:
        assert look_over(browser, (ill[1].folder / "check.html").as_uri()) == []


def test_a_training_takes_the_suggestions(ill: tuple[Path, Check], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(ill[0].parent / "cache"))
    settings = QUICK | {"data": {"exclude": str(ill[1].folder / "exclude.csv")}}
    printed = io.StringIO()
    sightline.train(ill[0], recipe="small", settings=settings, dry_run=True, on_event=Lines(Console(file=printed)))
    assert "train 81, validation 12, test 22 (left out as listed: 6 of train, 0 of validation)" in printed.getvalue()


def test_the_command_line_counts_and_names_the_folder_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "pets"
    for path, data in ill_set().items():
        if not path.startswith("train/dog/0"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
    assert main(["check", "pets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("things are to do, the gravest first.")
    assert lines[1].startswith("1. Leave out 2 images. 1 the same, pixel for pixel")
    assert any(line.startswith("Found: files that cannot be read 1; ") for line in lines)
    assert lines[-2] == f"sightline train {tmp_path}/pets --data.exclude {tmp_path}/checks/pets-1/exclude.csv"
    assert lines[-1] == "checks/pets-1"
    assert sorted(path.name for path in Path("checks/pets-1").iterdir()) == [
        "check.html",
        "exclude.csv",
        "findings.csv",
        "suspects.json",
    ]


def test_a_set_with_nothing_wrong_says_so(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = {f"{label}/{index:03d}.png": png(scene(100 * label + index)) for label in (0, 1) for index in range(40)}
    assert main(["check", str(folder(sound)), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "80 images of 2 classes were looked at. Nothing needs to be done: train."
    assert lines[1].startswith("sightline train ")
    assert "--" not in lines[1]
    page = (tmp_path / "out" / "check.html").read_text()
    assert "Nothing needs to be done: train." in page
    assert "What to do" not in page
    assert table(tmp_path / "out" / "exclude.csv") == table(tmp_path / "out" / "findings.csv") == []


def test_more_findings_than_are_shown_are_counted(folder: Callable[..., Path], tmp_path: Path) -> None:
    twice = {
        f"{label}/{index:03d}{copy}.png": png(scene(100 * label + index))
        for label in (0, 1)
        for index in range(40)
        for copy in "ab"
    }
    found = check(folder(twice), out=tmp_path / "out")
    assert found.counts == {"duplicate": 80}
    assert f"{80 - SHOWN} more in findings.csv" in (tmp_path / "out" / "check.html").read_text()


def test_a_set_too_small_to_be_split_is_checked_all_the_same(folder: Callable[..., Path], tmp_path: Path) -> None:
    few = {f"{label}/0.png": png(scene(label)) for label in (0, 1)}
    assert check(folder(few), out=tmp_path / "out").counts == {"rare class": 2}
    assert "A training could not split the set" in (tmp_path / "out" / "check.html").read_text()


def test_few_photos_are_dealt_as_a_training_deals_them_and_their_copies_are_no_leak(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    photos = {
        f"{label}/{index:03d}.png": png(Image.fromarray(scene(100 * label + index)).resize((96, 96)))
        for label in (0, 1)
        for index in range(60)
    }
    for index in range(6):
        photos[f"0/{index:03d}-again.jpg"] = png(Image.fromarray(scene(index)).resize((96, 96)), "JPEG", quality=60)
    data = folder(photos)
    found = check(data, out=tmp_path / "out", labels="none")
    printed = io.StringIO()
    sightline.train(data, dry_run=True, on_event=Lines(Console(file=printed, width=1000)))
    assert "cross-validation measures, all 126 train" in printed.getvalue()
    assert {row["split"] for row in table(tmp_path / "out" / "findings.csv")} == {"train"}
    assert found.counts == {"near duplicate": 6}
    assert [step.title for step in found.advice] == ["Leave out 6 near copies"]
    assert (
        "Cross-validation measures so few images. 6 (4.8%) of them are nearly the same as an image that stays"
        in found.advice[0].why
    )
    page = (tmp_path / "out" / "check.html").read_text()
    assert "a training learns from all 126, and cross-validation measures" in page
    assert "leak" not in page
    assert "<th>test" not in page


def test_the_embedded_digits_are_checked(tmp_path: Path) -> None:
    found = check("digits", out=tmp_path / "out")
    assert "tiny" not in found.counts  # all of them are
    assert found.counts.get("near duplicate", 0) + found.counts.get("shared", 0) < 100


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_many_copies_each_is_told_and_only_those_outside_test_are_left_out(in_memory) -> None:
    images = in_memory(
        [0, 0, 0, 0, 1, 1, 1, 1],
        splits=["train", "train", "test", "test", "train", "val", "test", "train"],
        hashes=["a", "a", "a", "a", "b", "c", "d", "e"],
    )
    parts = part_of(images, split(images))
    found = copies(images, parts, NONE)
    assert {row for item in found for row in (item.row, item.other)} == {0, 1, 2, 3}
    assert sorted(suggestions(images, parts, found)) == [0, 1]


def test_a_near_duplicate_of_copies_is_told_for_every_split_that_has_one(in_memory) -> None:
    images = in_memory(
        [0, 0, 1, 0, 1, 1, 0],
        splits=["train", "test", "train", "val", "val", "test", "train"],
        hashes=["a", "a", "b", "c", "d", "e", "f"],
    )
    parts = part_of(images, split(images))
    pairs = Pairs(np.array([0]), np.array([6]), np.array([0.8]), np.array([True]))
    near = sorted((item for item in copies(images, parts, pairs) if not item.exact), key=lambda item: item.kind)
    assert [(item.kind, item.row, item.other, item.detail) for item in near] == [
        ("near duplicate", 6, 0, "likeness 0.80, mirrored"),
        ("shared", 6, 1, "train and test: likeness 0.80, mirrored"),
    ]


NONE = Pairs(*(np.empty(0, kind) for kind in (np.int64, np.int64, np.float32, np.bool_)))


def near(*pairs: tuple[int, int]) -> Pairs:
    first, second = np.array(pairs).T
    return Pairs(first, second, np.full(len(pairs), 0.9), np.zeros(len(pairs), bool))


def test_of_pictures_that_differ_a_little_one_of_each_pair_stays(in_memory) -> None:
    parts = ["train"] * 30
    images = in_memory([0] * 30)
    found = copies(images, parts, near((3, 4), (4, 5), (3, 9)))
    assert {item.kind for item in found} == {"near duplicate"}
    assert sorted(suggestions(images, parts, found)) == [4, 9]  # 5 is like 4 alone, which goes


def test_of_copies_the_one_of_test_stays_else_the_largest_file_else_the_first(in_memory) -> None:
    images = in_memory([0] * 30)
    sizes = {row: Header(100, 80, "RGB", "JPEG") for row in range(30)} | {5: Header(200, 160, "RGB", "JPEG")}
    for parts, stays in ((["train"] * 30, 5), (["train"] * 9 + ["test"] + ["train"] * 20, 9)):
        rank = keeping_rank(images, parts, sizes)
        found = copies(images, parts, near((3, 4), (3, 5), (3, 9), (4, 5), (4, 9), (5, 9)), rank)
        assert sorted(suggestions(images, parts, found, rank)) == sorted({3, 4, 5, 9} - {stays})
    parts = ["train"] * 30
    rank = keeping_rank(images, parts, {})
    assert sorted(suggestions(images, parts, copies(images, parts, near((3, 4), (3, 9)), rank), rank)) == [4, 9]


def test_of_a_large_cluster_each_image_is_told_with_the_one_that_stays_and_not_with_every_other(in_memory) -> None:
    parts = ["train"] * 300
    images = in_memory([0] * 300)
    pairs = [(one, other) for one in range(40) for other in range(one + 1, 40)]
    found = copies(images, parts, near(*pairs))
    assert sorted((item.other, item.row) for item in found) == [(0, row) for row in range(1, 40)]
    assert sorted(suggestions(images, parts, found)) == list(range(1, 40))


def test_in_a_cluster_every_test_image_that_is_shared_and_every_other_class_is_told(in_memory) -> None:
    parts = ["train"] * 4 + ["test"] * 3 + ["train"] * 40
    images = in_memory([0, 0, 0, 1, 0, 0, 0] + [0] * 40)
    pairs = [(one, other) for one in range(7) for other in range(one + 1, 7)]
    found = copies(images, parts, near(*pairs))
    assert {item.other for item in found if item.kind == "shared"} == {4, 5, 6}
    assert {item.row for item in found if item.kind == "shared"} == {0, 1, 2, 3}
    assert 3 in {item.row for item in found if item.kind == "two labels"}
    assert sorted(suggestions(images, parts, found)) == [0, 1, 2, 3]


def test_copies_of_three_and_more_are_shown_as_one_cluster(folder: Callable[..., Path], tmp_path: Path) -> None:
    sound = {f"{label}/{index:03d}.png": png(scene(100 * label + index)) for label in (0, 1) for index in range(40)}
    sound |= {f"0/again-{quality}.png": png(jpeg(scene(7), quality)) for quality in (40, 60, 80)}
    found = check(folder(sound), out=tmp_path / "out")
    page = (tmp_path / "out" / "check.html").read_text()
    assert "4 images of one picture" in page
    assert set(found.excluded) < {"0/007.png", "0/again-40.png", "0/again-60.png", "0/again-80.png"}
    assert len(found.excluded) >= 2


def test_where_a_fifth_of_the_images_are_near_duplicates_none_is_left_out_for_that(in_memory) -> None:
    parts = ["train"] * 20
    images = in_memory([0, 1] * 10)
    pairs = [(0, 2), (4, 6), (8, 10), (1, 3)]
    assert sorted(suggestions(images, parts, copies(images, parts, near(*pairs)))) == [2, 3, 6, 10]
    assert suggestions(images, parts, copies(images, parts, near(*pairs, (5, 7)))) == {}


def test_of_near_duplicates_with_two_labels_none_stays(in_memory) -> None:
    parts = ["train"] * 20
    images = in_memory([0, 1] * 10)
    assert sorted(suggestions(images, parts, copies(images, parts, near((0, 1))))) == [0, 1]


def test_a_placeholder_in_one_class_leaves_one_and_in_many_classes_or_copies_none(in_memory) -> None:
    for labels, kind, proposed in (
        ([0, 0, 0, 1, 1], "duplicate", [1, 2]),
        ([0, 0, 1, 1, 1], "two labels", [0, 1, 2]),
        ([0, 1, 2, 1, 1], "placeholder", [0, 1, 2]),
    ):
        parts = ["train"] * 5
        images = in_memory(labels, hashes=["same"] * 3 + ["x", "y"])
        found = copies(images, parts, NONE)
        assert kind in {item.kind for item in found}
        assert sorted(suggestions(images, parts, found)) == proposed
    parts = ["train"] * 7
    images = in_memory([0] * 7, hashes=["same"] * 5 + ["x", "y"])
    found = copies(images, parts, NONE)
    assert {item.detail for item in found} == {"there 5 times, in 1 class"}
    assert sorted(suggestions(images, parts, found)) == [0, 1, 2, 3, 4]


def test_images_that_were_all_repeated_on_purpose_are_no_placeholders(in_memory) -> None:
    parts = ["train"] * 21
    images = in_memory([0] * 20 + [1], hashes=[f"{row // 5}" for row in range(21)])
    found = copies(images, parts, NONE)
    assert {item.kind for item in found} == {"duplicate"}
    assert len(suggestions(images, parts, found)) == 16


def test_copies_within_test_are_not_listed_but_counted(in_memory) -> None:
    parts = ["test", "test", "train", "train"]
    images = in_memory([0, 0, 0, 1], hashes=["a", "a", "b", "c"])
    found = copies(images, parts, NONE)
    assert suggestions(images, parts, found) == {}
    assert staying_in_test(images, parts, found) == 1


def test_a_placeholder_twice_in_a_class_is_proposed_with_its_reason_wherever_it_lies(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sorry = png(scene(7777))
    sound = {
        f"train/{label}/{index:03d}.png": png(scene(100 * label + index)) for label in (0, 1) for index in range(40)
    }
    sound |= {
        f"test/{label}/{index:03d}.png": png(scene(900 + 100 * label + index)) for label in (0, 1) for index in range(9)
    }
    for place, title, why in (
        ("train", "Leave out 1 image", "1 the same, pixel for pixel, as an image that stays."),
        ("test", "Mend 1 test image in the set itself", "A training never leaves out any of test"),
    ):
        files = sound | {f"{place}/0/sorry-{copy}.png": sorry for copy in "ab"}
        out = tmp_path / f"check-{place}"
        assert main(["check", str(folder(files, name=place)), "--out", str(out)]) == 0
        assert f"1. {title}. {why}" in capsys.readouterr().out
        page = (out / "check.html").read_text("utf-8")
        assert title in page
        assert why in page
    assert [row["file"] for row in table(tmp_path / "check-train" / "exclude.csv")] == ["train/0/sorry-b.png"]
    assert table(tmp_path / "check-test" / "exclude.csv") == []


def test_a_class_is_rare_below_twenty_images_or_a_tenth_of_the_largest(in_memory) -> None:
    images = in_memory([0] * 300 + [1] * 29 + [2] * 31 + [3] * 19, splits=["train"] * 379)
    found = rare_classes(images, ["train"] * 379)
    assert [item.label for item in found] == [1, 3]
    assert found[0].detail == "29 training images; the largest class has 300"


def test_of_a_class_of_blank_images_none_is_left_out_for_that(in_memory) -> None:
    images = in_memory([0] * 4 + [1] * 4)
    findings = [Finding("blank", "", row, label=int(images.labels[row])) for row in (0, 1, 2, 4)]
    assert list(suggestions(images, ["train"] * 8, findings)) == [4]


def test_where_a_fifth_of_all_labels_is_suspected_none_is_left_out_for_that(in_memory) -> None:
    images = in_memory([0, 1] * 10)
    findings = [Finding("suspected label", "", row, label=0) for row in range(5)]
    assert list(suggestions(images, ["train"] * 20, findings[:4])) == [0, 1, 2, 3]
    assert list(suggestions(images, ["train"] * 20, findings)) == []


# ── labels ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_labels_changed_on_purpose_are_suspected_and_the_true_class_is_suggested(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    for channel, label in enumerate(("red", "green", "blue")):
        for index in range(60):
            pixels = np.random.default_rng(7000 + 100 * channel + index).integers(40, 120, (32, 32, 3), np.uint8)
            pixels[..., channel] += 90
            given = "green" if (label, index) in (("red", 3), ("blue", 5)) else label
            (tmp_path / "set" / given).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "set" / given / f"{label}-{index:02d}.png")
    found = check(tmp_path / "set", labels=finished.run, out=tmp_path / "out")
    rows = [row for row in table(found.folder / "findings.csv") if row["finding"] == "suspected label"]
    assert {row["file"] for row in rows} == {"green/red-03.png", "green/blue-05.png"}
    assert {row["class"] for row in rows} == {"green"}
    assert any(row["detail"].startswith("given green, suggested red") for row in rows)
    assert all(float(row["score"]) < 0.5 for row in rows)
    page = (found.folder / "check.html").read_text("utf-8")
    assert "Review 2 labels" in page
    assert re.search(r"which gave 9\d\.\d% of the images", page)


def test_labels_are_judged_by_the_backbone_in_the_box_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for channel, label in enumerate(("red", "green", "blue")):
        for index in range(40):
            pixels = np.random.default_rng(7000 + 100 * channel + index).integers(40, 120, (32, 32, 3), np.uint8)
            pixels[..., channel] += 90
            given = "green" if (label, index) in (("red", 3), ("blue", 5)) else label
            (tmp_path / "set" / given).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "set" / given / f"{label}-{index:02d}.png")
    found = check(tmp_path / "set", out=tmp_path / "out")
    rows = [row for row in table(found.folder / "findings.csv") if row["finding"] == "suspected label"]
    assert {"green/red-03.png", "green/blue-05.png"} <= {row["file"] for row in rows}
    assert "the backbone in the box at 96 px" in (found.folder / "check.html").read_text("utf-8")
    assert main(["check", str(tmp_path / "set"), "--labels", "none", "--out", str(tmp_path / "unjudged")]) == 0
    assert "suspected label" not in {row["finding"] for row in table(tmp_path / "unjudged" / "findings.csv")}
    assert "Labels that look wrong" not in capsys.readouterr().out


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_cannot_be_checked_is_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.docx").write_text("dear")
    for arguments, sentence in (
        ([str(tmp_path / "nothing")], "no such file or folder"),
        (["digits", "--labels", str(tmp_path / "nothing")], "there is no run at"),
        (["digits", "--out", str(tmp_path / "full")], "is not an empty folder"),
    ):
        assert main(["check", *arguments]) == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(DataError):
        check(tmp_path / "nothing")
    with pytest.raises(RunError):
        check("digits", out=tmp_path / "full")
    with pytest.raises(RunError):
        check("digits", labels=tmp_path)
    assert not (tmp_path / "cache").exists()
