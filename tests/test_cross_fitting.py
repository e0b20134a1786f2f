"""Cross-fitting: no network judges an image that it was trained on, and what was computed is kept."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from conftest import coloured_folder
from sightline.checks import cross_fitting
from sightline.checks.check import check
from sightline.checks.cross_fitting import NETWORKS, cross_fit, deal, pool
from sightline.checks.decided import as_decided
from sightline.data.cache import open_images
from sightline.data.corrections import CorrectionsFile, Decision
from sightline.data.sources.find_source import find_source
from sightline.measures.metrics import cross_entropy


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Settings of the networks that were trained, the files that each was told to leave out, and those it trained on."""
    train, told = cross_fitting.train, []

    def recorded(data: Any, *, settings: dict[str, Any], run: Path, **others: Any) -> None:
        small = {"network": {"widths": [8, 16, 16]}, "fit": {**settings["fit"], "epochs": 2, "batch_size": 16}}
        train(data, settings={**settings, **small}, run=run, **others)
        with open(settings["data"]["exclude"], newline="") as file:
            left_out = [row["file"].removeprefix("'") for row in csv.DictReader(file)]
        told.append({**settings, "left_out": left_out, "evaluated": list(run.glob("evaluation.json"))})

    monkeypatch.setattr(cross_fitting, "train", recorded)
    return told


def test_every_image_is_judged_by_a_network_that_it_was_left_out_of(tmp_path: Path, trainings: list[dict[str, Any]]):
    data = coloured_folder(tmp_path / "set", 12)
    images = open_images(find_source(data))
    counted: list[tuple[int, int]] = []
    found = cross_fit(data, images, deal(images, None), {}, lambda done, total: counted.append((done, total)))
    assert found.shape == (len(images.readable), len(images.classes))
    assert np.allclose(found.sum(axis=1), 1, atol=1e-4)
    left_out = [path for training in trainings for path in training["left_out"]]
    assert len(trainings) == NETWORKS
    assert sorted(left_out) == sorted(images.paths)  # each once
    assert counted[-1][0] <= counted[-1][1]
    again = cross_fit(data, images, deal(images, None), {})
    assert len(trainings) == NETWORKS  # kept
    assert np.array_equal(found, again)


def test_kept_answers_that_are_damaged_or_of_other_labels_are_computed_anew(
    tmp_path: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch
):
    data = coloured_folder(tmp_path / "set", 12)
    images, asked = open_images(find_source(data)), []

    def of_one(_: Any, images: Any, rows: Any, *others: Any) -> Any:
        asked.append(rows)
        return np.full((len(rows), len(images.classes)), 1 / len(images.classes), np.float32)

    monkeypatch.setattr(cross_fitting, "_of_one", of_one)
    cross_fit(data, images, deal(images, None), {})
    (path,) = cache_root.glob("*-cross-fitted-*/probabilities.npy")
    path.write_bytes(path.read_bytes()[:100])
    cross_fit(data, images, deal(images, None), {})
    assert len(asked) == 2 * NETWORKS
    cross_fit(data, images, deal(images, None), {})
    assert len(asked) == 2 * NETWORKS
    images.labels[0] = 1
    cross_fit(data, images, deal(images, None), {})
    assert len(asked) == 3 * NETWORKS


def test_images_of_test_are_judged_by_the_mean_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = coloured_folder(tmp_path / "set", 12)
    images, answers = open_images(find_source(data)), iter([0.2, 0.5, 0.8])

    def of_one(_: Any, images: Any, rows: Any, *others: Any) -> Any:
        first = next(answers)
        return np.tile(np.array([first, 1 - first, 0], np.float32), (len(rows), 1))

    monkeypatch.setattr(cross_fitting, "_of_one", of_one)
    test = np.array([0, 5])
    splits = SimpleNamespace(test=test)
    found = cross_fit(data, images, deal(images, cast(Any, splits)), {})
    assert np.allclose(found[test], [0.5, 0.5, 0])
    assert set(found[:, 0].tolist()) == {np.float32(value).item() for value in (0.2, 0.5, 0.8)}


def test_copies_are_judged_by_the_network_that_saw_none_of_them(in_memory):
    hashes = [f"{row:032x}" for row in range(90)]
    hashes[80] = hashes[0]  # of test, pixel for pixel as in train
    images = in_memory([0, 1] * 45, hashes=hashes)
    splits = cast(Any, SimpleNamespace(test=np.arange(80, 90)))
    alike = np.array([0, 2, 5, 81, 80]), np.array([1, 3, 82, 4, 6])  # 82 and 81 are of test, 80 stands for 0 and 80
    dealt = deal(images, splits, alike)
    assert dealt.fold_N[0] == dealt.fold_N[1] == dealt.fold_N[80] == dealt.fold_N[6]
    assert dealt.fold_N[2] == dealt.fold_N[3]
    assert (dealt.fold_N[82], dealt.fold_N[81]) == (dealt.fold_N[5], dealt.fold_N[4])
    assert dealt.fold_N[83:].tolist() == [-1] * 7
    assert dealt.learned_N.tolist() == [True] * 80 + [False] * 10
    assert np.bincount(dealt.fold_N[:80]).max() <= 30


def test_a_class_that_is_too_small_to_be_judged_goes_into_every_training(in_memory):
    dealt = deal(in_memory([0, 1] * 40 + [2] * 9), None)
    assert dealt.fold_N[80:].tolist() == [-1] * 9
    assert dealt.learned_N.all()
    assert dealt.fold_N[:80].min() == 0


def test_a_check_names_the_networks_and_finds_what_they_find(tmp_path: Path, trainings: list[dict[str, Any]]):
    data = coloured_folder(tmp_path / "set", 15)
    check(data, labels="trained", out=tmp_path / "out")
    assert (
        "and by 3 networks, each trained on other images, which gave" in (tmp_path / "out" / "check.html").read_text()
    )
    assert len(trainings) == NETWORKS
    assert not any(training["evaluated"] for training in trainings)  # no test image is read


@pytest.mark.parametrize(("seconds", "trained"), [(1190.0, True), (1210.0, False)])
def test_auto_trains_them_for_many_small_images_where_it_takes_20_minutes_at_most(
    seconds: float, trained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = coloured_folder(tmp_path / "set", 12)
    monkeypatch.setattr(cross_fitting, "LEAST", 20)
    monkeypatch.setattr(cross_fitting, "estimated_seconds", lambda images: seconds)
    said: list[Any] = []
    fitted: list[Any] = []

    def fake(data: Any, images: Any, *others: Any) -> Any:
        fitted.append(data)
        return np.eye(3, dtype=np.float32)[images.labels[images.readable]]

    monkeypatch.setattr(cross_fitting, "cross_fit", fake)
    check(data, out=tmp_path / "out", on_event=said.append)
    assert bool(fitted) == trained
    texts = " ".join(text for text in said if isinstance(text, str))
    assert ("Labels are judged by 3 networks" in texts) == trained
    assert ("--labels trained finds more" in texts) == (not trained)


def test_few_images_and_box_train_nothing(
    tmp_path: Path, trainings: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    data = coloured_folder(tmp_path / "set", 12)
    check(data, out=tmp_path / "few")
    monkeypatch.setattr(cross_fitting, "LEAST", 20)
    check(data, labels="box", out=tmp_path / "box")
    assert trainings == []


def test_the_cost_is_counted_for_all_networks(tmp_path: Path):
    data = coloured_folder(tmp_path / "set", 12)
    assert 0 < cross_fitting.estimated_seconds(open_images(find_source(data))) < 600


def test_a_pool_follows_the_judge_that_knows_and_is_better_than_either_where_both_do():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 2000)

    def judge(sharpness: float) -> Any:
        logits = random.normal(size=(2000, 4)) + sharpness * np.eye(4)[labels]
        return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)

    def loss(chances: Any) -> float:
        return cross_entropy(np.log(chances), labels)

    nothing, first, second = np.full((2000, 4), 1 / 4, np.float32), judge(2.0), judge(2.0)
    assert np.allclose(pool(nothing, first, labels), first, atol=1e-5)
    assert np.allclose(pool(first, nothing, labels), first, atol=1e-5)
    both = pool(first, second, labels)
    assert loss(both) < min(loss(first), loss(second))
    assert np.allclose(both.sum(axis=1), 1, atol=1e-5)


def test_a_corrections_file_is_told_to_those_trainings_alone_whose_labels_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = coloured_folder(tmp_path / "set", 12)
    images = open_images(find_source(data))
    file = CorrectionsFile(tmp_path / "corrections.csv")
    for row, after in ((0, "grass"), (7, None)):
        facts = {"file": images.paths[row], "digest": images.hashes[row]}
        file.decide(Decision(**facts, before=images.classes[images.labels[row]], after=after))
    images, _, _ = as_decided(images, None, str(file.path))
    told: list[tuple[list[str], bool]] = []

    def of_one(_: Any, images: Any, rows: Any, left_out: Any, settings: Any, *others: Any) -> Any:
        told.append((left_out, "corrections" in settings))
        return np.full((len(rows), len(images.classes)), 1 / len(images.classes), np.float32)

    monkeypatch.setattr(cross_fitting, "_of_one", of_one)
    cross_fit(data, images, deal(images, None), {"corrections": str(file.path)})
    assert all(images.paths[7] in left_out for left_out, _ in told)  # in no training
    assert [named for _, named in told] == [images.paths[0] not in left_out for left_out, _ in told]
    assert sorted(named for _, named in told) == [False, True, True]
