"""Which images to label next: the rule on planted points, what is left out, and rounds of answers that a training takes."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sightline
from conftest import QUICK, Finished
from sightline.checks.active import copied, spread_out
from sightline.checks.check import Check, check
from sightline.cli.main import main
from sightline.config.labeling import UnlabeledConfig
from sightline.data.sources.find_source import find_source
from sightline.errors import ConfigError, DataError, RunError, SightlineError
from test_duplicates import jpeg, scene

Array = np.ndarray[Any, Any]


def pixels(channel: int, number: int, other: int | None = None) -> Array:
    """One of the colors that ``finished`` knows, or a mixture of two."""
    random = np.random.default_rng(77_000 + 1000 * channel + number)
    image = random.integers(20, 120, (32, 32, 3), np.uint8)
    image[..., channel] += 100
    if other is not None:
        image[..., other] += 100
    return image


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Twelve plain images, six mixtures, a copy, a broken file and a note."""
    root = tmp_path / "pool"
    (root / "more").mkdir(parents=True)
    for channel in range(3):
        for number in range(4):
            Image.fromarray(pixels(channel, number)).save(root / f"plain {channel}{number}.png")
        for number in range(2):
            mixed = pixels(channel, number + 50, (channel + 1) % 3)
            Image.fromarray(mixed).save(root / "more" / f"=mixed {channel}{number}.png")
    shutil.copy(root / "more" / "=mixed 00.png", root / "again.png")
    (root / "broken.png").write_bytes(b"\x89PNG no more")
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def known(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """The finished run, with the cache of its images."""
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    return finished


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fill_in(path: Path, label_of: Callable[[dict[str, str]], str]) -> None:
    table = rows(path)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0].keys())
        writer.writeheader()
        writer.writerows(row | {"label": label_of(row)} for row in table)


def chosen(pool: Path, run: Path, out: Path, count: int = 5) -> Check:
    return check(choose=UnlabeledConfig(unlabeled=str(pool), run=str(run), count=count), out=out)


# ── the rule ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def planted() -> tuple[Array, Array]:
    """A thousand images of which the classifier is sure, and between them four groups of ten of which it is not."""
    random = np.random.default_rng(1)
    features = random.normal(0, 0.05, (1040, 8)).astype(np.float32)
    features[:, 0] += 3
    probabilities = np.full((1040, 3), 0.001)
    probabilities[:, 0] = 0.998
    for group in range(4):
        part = slice(1000 + 10 * group, 1010 + 10 * group)
        features[part, 1 + group] += 3
        probabilities[part] = [0.5, 0.5, 0] if group % 2 else [0, 0.5, 0.5]
    return features, probabilities


def test_one_image_of_each_group_that_is_unsure_comes_first_and_no_sure_one() -> None:
    places, copies = spread_out(*planted(), 4)
    assert sorted((place - 1000) // 10 for place in places) == [0, 1, 2, 3]
    assert copies == 0


def test_the_same_images_come_in_the_same_order_each_once() -> None:
    features, probabilities = planted()
    first, _ = spread_out(features, probabilities, 1040)
    assert sorted(first) == list(range(1040))
    assert first == spread_out(features, probabilities, 1040)[0]
    assert first[:50] == spread_out(features, probabilities, 50)[0]


def test_distances_are_those_of_the_gradients_written_out() -> None:
    """Of two images with the same features it is the answers that tell how far apart they are, and the other way."""
    random = np.random.default_rng(3)
    features = random.normal(size=(30, 5)).astype(np.float32)
    probabilities = random.dirichlet(np.ones(4), 30)
    errors = probabilities - np.eye(4)[probabilities.argmax(axis=1)]
    gradients = (errors[:, :, None] * features[:, None, :]).reshape(30, -1)
    assert spread_out(features, probabilities, 1)[0] == [int(np.square(gradients).sum(axis=1).argmax())]
    far = np.array([[1.0, 0, 0, 0, 0]] * 29 + [[-50, 0, 0, 0, 0]], np.float32)
    same = np.tile([0.4, 0.3, 0.2, 0.1], (30, 1))
    places, _ = spread_out(far, same, 30)  # once two are drawn, the rest are copies of one of them
    assert places[0] == 29
    assert places[2:] == sorted(places[2:])


def test_copies_are_passed_over_and_counted() -> None:
    features, probabilities = planted()
    places, copies = spread_out(features, probabilities, 4, lambda place, chosen: place % 10 != 3)
    assert [place % 10 for place in places[1:]] == [3, 3, 3]  # the first is compared with none
    assert copies > 0


def test_a_picture_moved_and_encoded_anew_is_a_copy_and_another_one_with_like_features_is_none() -> None:
    one, moved = scene(1), jpeg(np.roll(scene(1), 1, axis=1))
    pictures = np.stack([one, moved, scene(2), one[:, ::-1]])
    alike = np.ones((2, 4), np.float32)
    assert copied(pictures, 0, np.array([1]), alike)
    assert copied(pictures, 0, np.array([3]), alike)
    assert not copied(pictures, 0, np.array([2]), alike)
    assert not copied(pictures, 0, np.array([1]), np.eye(2, 4, dtype=np.float32))  # by features far apart


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_images_are_chosen_shown_and_written_with_a_suggestion(pool: Path, known: Finished, tmp_path: Path) -> None:
    result = chosen(pool, known.run, tmp_path / "out")
    table = rows(tmp_path / "out" / "chosen.csv")
    assert len(table) == 5
    assert result.counts == {"to label": 5}
    assert len({row["path"] for row in table}) == 5
    assert all(Path(row["path"].removeprefix("'")).is_file() for row in table)
    assert {row["label"] for row in table} == {""}
    classes = {"=blood", "grass", "ünder wasser"}
    assert {row["suggestion"].removeprefix("'") for row in table} <= classes
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in table)
    page = (tmp_path / "out" / "check.html").read_text("utf-8")
    assert page.count("data:image/webp;base64,") == 5
    assert "broken.png" in page
    assert f"sightline train {tmp_path / 'out' / 'manifest.csv'}" in page


def test_what_cannot_be_asked_is_counted_and_named(pool: Path, known: Finished, tmp_path: Path) -> None:
    for number, image in enumerate(sorted((known.data / "grass").iterdir())[:3]):
        shutil.copy(image, pool / f"known {number}.png")
    result = chosen(pool, known.run, tmp_path / "out", 100)
    said = " ".join([result.lead, *result.notes])
    assert f"18 of 23 images in {pool} were chosen" in said
    assert "fewer than --count 100" in said
    assert "1 unreadable; 1 the same, pixel for pixel, as another; 3 among the images of the run" in said
    assert "broken.png" in said
    assert "1 other file (1 .txt)" in said


def test_the_same_images_are_chosen_again(pool: Path, known: Finished, tmp_path: Path) -> None:
    first, again = (chosen(pool, known.run, tmp_path / name) for name in ("one", "two"))
    assert (first.folder / "chosen.csv").read_bytes() == (again.folder / "chosen.csv").read_bytes()


# ── rounds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_answers_become_a_manifest_with_the_images_of_the_run_on_their_sides(
    pool: Path, known: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    chosen(pool, known.run, out)
    asked = {row["path"] for row in rows(out / "chosen.csv")}
    before = rows(out / "manifest.csv")
    assert len(before) == 90
    counts = {side: sum(row["split"] == side for row in before) for side in ("train", "val", "test")}
    model = sightline.load(known.run).model["data"]["counts"]
    assert counts == {"train": model["train"], "val": model["validation"], "test": model["test"]}
    fill_in(out / "chosen.csv", lambda row: "grass")
    result = chosen(pool, known.run, out)
    assert any(sentence.startswith("5 answers taken") for sentence in result.notes)
    after = rows(out / "manifest.csv")
    new = [row for row in after if row["path"] in asked]
    assert len(after) == 95
    assert [(row["label"], row["split"]) for row in new] == [("grass", "train")] * 5
    assert not asked & {row["path"] for row in rows(out / "chosen.csv")}  # none is asked about twice
    find_source(out / "manifest.csv").scan()


def test_a_training_takes_the_manifest_and_the_next_round_goes_on_from_it(
    pool: Path, known: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    chosen(pool, known.run, out)
    asked = {row["path"] for row in rows(out / "chosen.csv")}
    fill_in(out / "chosen.csv", lambda row: row["suggestion"])
    chosen(pool, known.run, out)
    run = sightline.train(out / "manifest.csv", recipe="small", settings=QUICK, run=tmp_path / "second")
    assert run is not None
    data = sightline.load(run).model["data"]["counts"]
    assert data["train"] == sightline.load(known.run).model["data"]["counts"]["train"] + 5
    fresh = chosen(pool, run, tmp_path / "fresh", 100)  # a folder that knows of no earlier answers
    assert not asked & {row["path"] for row in rows(fresh.folder / "chosen.csv")}
    assert "6 among the images of the run" in " ".join(fresh.notes) or "5 among the images of the run" in " ".join(
        fresh.notes
    )
    assert len(rows(fresh.folder / "manifest.csv")) == 95


def test_a_label_that_is_no_class_of_the_run_is_said_and_kept(pool: Path, known: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    chosen(pool, known.run, out)
    fill_in(out / "chosen.csv", lambda row: "gras")
    result = chosen(pool, known.run, out)
    assert "'gras' is a new class; did you mean 'grass'?" in result.notes
    assert sum(row["label"] == "gras" for row in rows(out / "manifest.csv")) == 5


def test_a_run_whose_images_are_gone_leaves_the_answers_alone_in_the_manifest(
    pool: Path, known: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(known.run, run)
    text = (run / "model.json").read_text("utf-8")
    (run / "model.json").write_text(text.replace(str(known.data), str(tmp_path / "nowhere")), "utf-8")
    result = chosen(pool, run, tmp_path / "out")
    assert rows(tmp_path / "out" / "manifest.csv") == []
    assert any("lists the answers alone" in sentence for sentence in result.notes)


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda root: root.mkdir(), DataError, "no images in"),
        (lambda root: None, DataError, "no folder at"),
        (lambda root: root.write_bytes(b"x"), DataError, "name the folder that it lies in"),
        (lambda root: (root.mkdir(), (root / "a.png").write_bytes(b"x")), DataError, "none of the 1 images"),
    ],
)
def test_folders_without_images_are_refused(
    make: Callable[[Path], Any], error: type[SightlineError], sentence: str, known: Finished, tmp_path: Path
) -> None:
    make(tmp_path / "pool")
    with pytest.raises(error, match=sentence):
        chosen(tmp_path / "pool", known.run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_is_refused_since_a_manifest_cannot_name_its_images(
    archive: Callable[..., Path], files: Callable[..., dict[str, bytes]], known: Finished, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="unpack it"):
        chosen(archive(files("a")), known.run, tmp_path / "out")


def test_runs_that_are_none_and_folders_that_hold_something_else_are_refused(
    pool: Path, known: Finished, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="there is no run"):
        chosen(pool, tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(DataError, match="is a run"):
        chosen(known.run, known.run, tmp_path / "out")
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "diary.txt").write_text("mine")
    with pytest.raises(RunError, match="holds something else"):
        chosen(pool, known.run, tmp_path / "filled")
    assert [path.name for path in (tmp_path / "filled").iterdir()] == ["diary.txt"]


def test_options_that_have_no_effect_are_refused(pool: Path, known: Finished) -> None:
    config = UnlabeledConfig(unlabeled=str(pool), run=str(known.run))
    with pytest.raises(ConfigError, match="DATA has no effect with --unlabeled"):
        check(known.data, choose=config)
    with pytest.raises(ConfigError, match="--labels has no effect"):
        check(labels=known.run, choose=config)
    with pytest.raises(ConfigError, match="no image set was named"):
        check()


def test_the_command_line_has_the_spelling_of_the_issue(
    pool: Path, known: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--unlabeled", str(pool), "--run", str(known.run), "--count", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 of 20 images in ")
    assert lines[1].startswith("1. Label 3 images. ")
    assert "Found: images to label next 3" in lines
    assert lines[-2] == f"sightline train {tmp_path}/checks/pool-to-label/manifest.csv"
    assert lines[-1] == "checks/pool-to-label"
    assert sorted(path.name for path in Path("checks/pool-to-label").iterdir() if path.name[0] != ".") == [
        "check.html",
        "chosen.csv",
        "manifest.csv",
    ]
    assert main(["check", "--run", str(known.run)]) == 2
    assert "--run has no effect without --unlabeled" in capsys.readouterr().err
