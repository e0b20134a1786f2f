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
from sightline.checks import active, unlabeled
from sightline.checks.active import spread_out, uncertainties
from sightline.checks.check import Check, check
from sightline.checks.unlabeled import choose_unlabeled, open_labeling
from sightline.cli.main import main
from sightline.config.labeling import UnlabeledConfig
from sightline.config.serving import AddressConfig
from sightline.data.sources.find_source import find_source
from sightline.errors import ConfigError, DataError, RunError, SightlineError, StorageError
from sightline.inference.vectors import Vectors
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
    """Sixty images of which the classifier is sure, and three groups of which it is not, of 30, 20 and 10 images."""
    random = np.random.default_rng(1)
    centers = np.repeat(np.eye(4, 8), [60, 30, 20, 10], axis=0)
    features = (centers + random.normal(0, 0.03, (120, 8))).astype(np.float32)
    probabilities = np.array([[1.0, 0, 0]] * 60 + [[0.5, 0.5, 0]] * 60)
    return features, probabilities


def group_of(place: int) -> str:
    return "sure" if place < 60 else "large" if place < 90 else "middle" if place < 110 else "small"


def test_margins_are_read_off_the_two_most_probable_classes() -> None:
    found = uncertainties(np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0.2, 0.7, 0.1]]))
    assert np.allclose(found, [0, 1, 0.5])
    assert uncertainties(np.ones((2, 1))).tolist() == [0, 0]


def test_one_image_of_each_group_that_is_unsure_comes_first_the_largest_group_first() -> None:
    places, copies = spread_out(*planted(), 3)
    assert [group_of(place) for place in places] == ["large", "middle", "small"]
    assert copies == 0


def test_what_is_like_labeled_images_comes_last() -> None:
    features, probabilities = planted()
    places, _ = spread_out(features, probabilities, 3, labeled_MD=features[60:90])
    assert [group_of(place) for place in places[:2]] == ["middle", "small"]


def test_the_first_image_of_a_group_is_the_most_typical() -> None:
    features = np.array([[1, angle] for angle in (-0.5, -0.3, 0.0, 0.3, 0.5)], np.float32)
    assert spread_out(features, np.full((5, 2), 0.5), 1, labeled_MD=np.array([[-1.0, 0.2]]))[0] == [2]


def test_the_same_images_come_in_the_same_order_each_once() -> None:
    features, probabilities = planted()
    first, _ = spread_out(features, probabilities, 500)
    assert sorted(first) == list(range(120))
    assert first[:50] == spread_out(features, probabilities, 50)[0]


def test_a_greedy_step_takes_what_adds_most_to_the_coverage() -> None:
    """Against the sum written out for every image."""
    random = np.random.default_rng(5)
    features, labeled = random.normal(size=(40, 6)), random.normal(size=(7, 6))
    probabilities = random.dirichlet(np.ones(4), 40)
    units, known = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (features, labeled))
    near = ((units[:, None] - known[None]) ** 2).sum(axis=2).min(axis=1)
    kernel = np.exp(-((units[:, None] - units[None]) ** 2).sum(axis=2) / np.median(near))
    covered, wanted = np.exp(-near / np.median(near)), []
    for _ in range(6):
        gains = [(np.maximum(row - covered, 0) * uncertainties(probabilities)).sum() for row in kernel]
        wanted.append(int(np.argmax([-1 if place in wanted else gain for place, gain in enumerate(gains)])))
        covered = np.maximum(covered, kernel[wanted[-1]])
    assert spread_out(features, probabilities, 6, labeled)[0] == wanted


def test_copies_are_passed_over_and_counted() -> None:
    features, probabilities = planted()
    places, copies = spread_out(features, probabilities, 4, is_copy=lambda place, chosen: place % 10 != 3)
    assert [place % 10 for place in places[1:]] == [3, 3, 3]  # the first is compared with none
    assert copies > 0


def test_of_a_large_pool_images_are_drawn_and_sure_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.checks.active.MOST", 50)
    places, _ = spread_out(*planted(), 3)
    assert sorted(group_of(place) for place in places) == ["large", "middle", "small"]


def test_of_many_images_few_vectors_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(Vectors):
        read = 0

        def __getitem__(self, places_n: Any) -> Any:
            Counted.read += len(places_n)
            return super().__getitem__(places_n)

    monkeypatch.setattr(active, "MOST", 50)
    random = np.random.default_rng(0)
    features = Counted([random.normal(size=(20_000, 8)).astype(np.float32)])
    probabilities = random.dirichlet([1, 1, 1], 20_000).astype(np.float32)
    places, _ = spread_out(features, probabilities, 20)
    assert len(set(places)) == 20
    assert Counted.read == 50


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


def test_a_copy_that_was_encoded_anew_is_not_asked_about_beside_the_other(
    known: Finished, tmp_path: Path, image_file: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unlabeled, "STRANGE", -1)  # how many look like none depends on the machine that trained
    root = tmp_path / "pool"
    root.mkdir()
    for number in range(6):
        (root / f"{number}.png").write_bytes(image_file(scene(number)))
        (root / f"{number} again.png").write_bytes(image_file(jpeg(scene(number))))
    result = chosen(root, known.run, tmp_path / "out", 12)
    names = [Path(row["path"]).name for row in rows(tmp_path / "out" / "chosen.csv")]
    assert len({name[0] for name in names}) == len(names) == 6
    assert "6 copies of chosen images" in " ".join(result.notes)
    assert any("look like none of the classes" in note for note in result.notes)


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
    assert result.command == f"sightline check --unlabeled {pool} --run {run} --review"


def test_answers_on_the_review_page_are_in_the_manifest_at_once_and_can_be_taken_back(
    pool: Path, known: Finished, tmp_path: Path
) -> None:
    pytest.importorskip("fastapi", reason="the page needs fastapi: pip install '.[app]'")
    from fastapi.testclient import TestClient

    from sightline.serving.reviewing.server import build_review

    config = UnlabeledConfig(unlabeled=str(pool), run=str(known.run), count=3)
    out = tmp_path / "out"
    shown = open_labeling(choose_unlabeled(config, out, False, None))
    client = TestClient(build_review(shown, AddressConfig()), base_url="http://127.0.0.1:7860")
    assert "not labeled" in client.get("/review/grid").text
    first = {"item": "1", "view": "one", "seen": ""}
    assert client.post("/review/decide", data=first | {"action": "accept"}).status_code == 200
    by_digest = shown.sink.read()
    assert [by_digest[shown.items[0].digest].after] == [shown.items[0].suggestion]
    assert len(rows(out / "manifest.csv")) == 91
    assert client.post("/review/decide", data={"item": "2", "seen": "", "action": "out"}).status_code == 200
    assert len(rows(out / "manifest.csv")) == 91
    again = choose_unlabeled(config, out, False, None)  # neither is asked about again
    assert not {shown.items[0].digest, shown.items[1].digest} & {again.images.hashes[row] for row in again.rows}
    decision = shown.sink.read()[shown.items[0].digest]
    assert shown.sink.undo(decision, None)
    assert len(rows(out / "manifest.csv")) == 90


def test_a_label_in_the_table_does_not_take_the_place_of_an_answer_on_the_page(
    pool: Path, known: Finished, tmp_path: Path
) -> None:
    config = UnlabeledConfig(unlabeled=str(pool), run=str(known.run), count=3)
    shown = open_labeling(choose_unlabeled(config, tmp_path / "out", False, None))
    shown.sink.decide(shown.items[0], "grass")
    fill_in(tmp_path / "out" / "chosen.csv", lambda row: "=blood")
    result = chosen(pool, known.run, tmp_path / "out", 3)
    assert shown.sink.read()[shown.items[0].digest].after == "grass"
    assert sum(answer.after == "=blood" for answer in shown.sink.read().values()) == 2
    assert "2 answers taken" in result.notes[0]
    assert "1 label in" in result.notes[1]


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


def test_a_generator_is_no_run_to_choose_by(pool: Path, known: Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.json").write_text('{"format": 1, "kind": "diffusion"}')
    (run / "DONE").touch()
    with pytest.raises(RunError, match=r"is a generator \(diffusion\), not a classifier"):
        chosen(pool, run, tmp_path / "out")


@pytest.mark.skipif(not Path("/sys/kernel").exists(), reason="a folder that even root cannot write to")
def test_a_folder_that_cannot_be_written_is_refused(pool: Path, known: Finished) -> None:
    with pytest.raises(StorageError, match=r"/sys/kernel.* cannot be "):
        chosen(pool, known.run, Path("/sys/kernel/out"))


def test_a_manifest_names_the_images_as_well_as_a_folder(pool: Path, known: Finished, tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("path,label\npool/plain 00.png,\npool/plain 10.png,grass\npool/more/=mixed 00.png,\n")
    chosen(table, known.run, tmp_path / "out", 2)
    asked = [row["path"] for row in rows(tmp_path / "out" / "chosen.csv")]
    assert len(asked) == 2
    assert all(Path(path).is_file() for path in asked)


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
