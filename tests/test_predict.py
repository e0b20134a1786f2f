"""Ask a finished classifier about images."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
import sightline_runtime.predictions
from conftest import Finished
from sightline.cli.main import main
from sightline.data.seen import read_seen
from sightline.errors import ConfigError, DataError, RunError
from sightline.inference.views import combine, logits_of_views
from sightline.models.speednet import Speednet
from sightline.runs.folder import BOX, read_weights, write_weights
from sightline.runs.writing import plain_text


@pytest.fixture
def classifier(finished: Finished) -> sightline.Classifier:
    return sightline.load(finished.run, device="cpu")


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    """A run that may be changed."""
    return Path(shutil.copytree(finished.run, tmp_path / "copy"))


def solid(channel: int, height: int = 32, width: int = 32) -> np.ndarray:
    pixels = np.full((height, width, 3), 80, np.uint8)
    pixels[..., channel] = 200
    return pixels


# ── the classifier in the box ────────────────────────────────────────────────────────────────────────────────────────


def test_the_classifier_in_the_box_is_small_whole_and_knows_no_machine() -> None:
    assert BOX.stat().st_size <= 6_000_000
    tensors, model = read_weights(BOX)
    assert {str(tensor.dtype) for tensor in tensors.values() if tensor.is_floating_point()} == {"torch.float16"}
    assert model["metrics"]["n"] == 10_000
    assert "location" not in model["data"]
    assert "/" not in json.dumps(model)


def test_it_answers_in_full_precision_and_has_sets(classifier) -> None:
    boxed = sightline.load(device="cpu")
    assert {tensor.dtype for tensor in boxed.network.parameters()} == {torch.float32}
    (answer,) = boxed.predict([solid(1)], coverage=0.9)
    assert sorted(answer.probabilities) == boxed.classes
    assert answer.within is not None
    assert sum(answer.probabilities.values()) == pytest.approx(1)


# ── load and predict from Python ─────────────────────────────────────────────────────────────────────────────────────


def test_paths_arrays_and_pillow_images_get_the_same_answer(classifier, finished: Finished) -> None:
    path = finished.data / "grass" / "003.png"
    image = Image.open(path)
    answers = classifier.predict([path, str(path), np.asarray(image), image])
    assert {answer.label for answer in answers} == {"grass"}
    assert len({answer.probability for answer in answers}) == 1


def test_probabilities_of_all_classes_sum_to_one_and_fall(classifier) -> None:
    (answer,) = classifier.predict([solid(2)])
    chances = list(answer.probabilities.values())
    assert sum(chances) == pytest.approx(1)
    assert chances == sorted(chances, reverse=True)
    assert answer.probabilities[answer.label] == answer.probability == chances[0]


def test_an_image_of_another_size_or_in_grey_is_read_too(classifier) -> None:
    (large,) = classifier.predict([solid(0, 300, 200)])
    assert large.label == "=blood"
    assert classifier.predict([np.zeros((10, 10), np.uint8)])[0].probability > 0


def test_the_answer_for_an_image_does_not_depend_on_the_others(classifier) -> None:
    together = classifier.predict([solid(channel) for channel in (0, 1, 2)])
    alone = [classifier.predict([solid(channel)])[0] for channel in (0, 1, 2)]
    assert [answer.label for answer in together] == ["=blood", "grass", "ünder wasser"]
    for one, other in zip(together, alone, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=2e-3)  # bfloat16


def test_one_image_gets_one_answer_by_whatever_way_it_comes_and_many_get_a_list(classifier, finished: Finished) -> None:
    path = finished.data / "grass" / "003.png"
    expected = classifier.predict(path)
    assert isinstance(expected, sightline_runtime.predictions.Prediction)
    assert expected.label == "grass"
    with path.open("rb") as file:
        ways = [str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), file, Image.open(path)]
        assert [classifier.predict(way) for way in [*ways, np.asarray(Image.open(path))]] == [expected] * 6
    assert classifier.predict(path, coverage=0.9).within is not None
    assert classifier.predict([path]) == classifier.predict(iter([path])) == [expected]
    assert classifier.predict(np.stack([solid(0), solid(1)])) == classifier.predict([solid(0), solid(1)])


def test_the_verb_takes_one_path_too(finished: Finished) -> None:
    path = finished.data / "grass" / "003.png"
    assert sightline.predict(finished.run, str(path)) == sightline.predict(finished.run, [path])


def test_the_image_of_many_that_cannot_be_read_is_named_by_its_place(classifier) -> None:
    with pytest.raises(
        DataError, match=r"image bytes 2 of 3 cannot be read: the file is empty .*; leave it out or mend it"
    ):
        classifier.predict([solid(0), b"", solid(1)])
    with pytest.raises(DataError, match=r"image nowhere.png cannot be read: No such file or directory; leave"):
        classifier.predict("nowhere.png")
    with pytest.raises(DataError, match="NoneType is no image; wanted a path, bytes"):
        classifier.predict(None)


def test_no_images_get_no_answers(classifier) -> None:
    assert classifier.predict([]) == []


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 4, 3), np.float32), "an array of float32; wanted uint8"),
        (np.zeros((4, 4, 5), np.uint8), r"an array of shape \(4, 4, 5\); wanted"),
        ("nowhere.png", "image nowhere.png cannot be read"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(classifier, image, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        classifier.predict([image])


def test_the_weights_file_alone_is_a_classifier(finished: Finished, tmp_path: Path, classifier) -> None:
    shutil.copy(finished.run / "model.safetensors", tmp_path / "mailed.safetensors")
    mailed = sightline.load(tmp_path / "mailed.safetensors", device="cpu")
    assert mailed.classes == classifier.classes
    assert mailed.predict([solid(1)]) == classifier.predict([solid(1)])


def test_a_network_of_ones_own_is_made_by_a_factory(finished: Finished, classifier) -> None:
    made = sightline.load(
        finished.run, network=lambda classes: Speednet(classes, (32, 32), widths=(8, 16, 16)), device="cpu"
    )
    assert made.predict([solid(1)]) == classifier.predict([solid(1)])


def test_views_that_were_not_calibrated_are_refused(classifier) -> None:
    assert classifier.views == "flip"
    with pytest.raises(ConfigError, match="--views six: this classifier was calibrated for one, flip; choose"):
        classifier.predict([solid(1)], views="six")


# ── views ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def corner(images: torch.Tensor) -> torch.Tensor:
    """A network that reads the four corners of the first channel."""
    return images[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]


def test_the_six_views_are_the_image_shifted_up_left_and_down_right_each_with_its_mirror_image() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    #  0  1  2  3
    #  4  5  6  7
    #  8  9 10 11
    # 12 13 14 15
    seen = logits_of_views(corner, image, "six")[:, 0]
    assert seen.tolist() == [
        [0, 3, 12, 15],
        [3, 0, 15, 12],
        [5, 6, 9, 10],  # up-left: pixel 5 is in the near corner; of the far border, row and column 2 are reflected
        [6, 5, 10, 9],
        [5, 6, 9, 10],  # down-right: row and column 1 are reflected into the near corner, 10 is in the far one
        [6, 5, 10, 9],
    ]


def test_the_shifted_views_share_half_of_the_weight() -> None:
    logits_VBK = np.array([8, 0, 0, 0, 0, 0], np.float32).reshape(6, 1, 1)
    assert combine(logits_VBK, "one").item() == 8
    assert combine(logits_VBK, "flip").item() == 4
    assert combine(logits_VBK, "six").item() == 2
    shifted = np.array([0, 0, 8, 0, 0, 0], np.float32).reshape(6, 1, 1)
    assert combine(shifted, "six").item() == 1


def test_a_symmetric_network_answers_alike_whatever_the_views() -> None:
    images = torch.rand(3, 3, 8, 8)
    views = {name: logits_of_views(lambda batch: batch.mean((2, 3)), images, name) for name in ("one", "flip")}
    assert np.allclose(combine(views["one"].numpy(), "one"), combine(views["flip"].numpy(), "flip"), atol=1e-6)


# ── what is no classifier ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unfinished_run_is_refused_with_the_command_that_continues_it(copy: Path) -> None:
    (copy / "DONE").unlink()
    with pytest.raises(
        RunError, match=r"is not a finished run: it has no DONE file. Continue it with `sightline train"
    ):
        sightline.load(copy)


def test_a_model_of_a_newer_version_is_refused(copy: Path) -> None:
    model = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(model | {"format": 99}))
    with pytest.raises(RunError, match=r"has format 99, and this sightline reads up to 1; upgrade"):
        sightline.load(copy)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "integers"])
def test_weights_that_do_not_fit_are_refused_by_name(copy: Path, change: str) -> None:
    tensors, model = read_weights(copy / "model.safetensors")
    if change == "missing":
        del tensors["head.weight"]
    elif change == "extra":
        tensors["tail.weight"] = torch.zeros(1)
    elif change == "integers":
        tensors["head.weight"] = torch.zeros(3, 16, dtype=torch.int64)
    else:
        tensors["head.weight"] = torch.zeros(3, 99)
    write_weights(copy / "model.safetensors", tensors, model)
    wanted = {
        "missing": r"head\.weight is missing",
        "extra": r"tail\.weight is not in the network",
        "integers": r"head\.weight is of torch\.int64 and the network's of torch\.float32",
        "shape": r"head\.weight is \(3, 99\) and the network has \(3, 16\)",
    }[change]
    with pytest.raises(RunError, match=rf"do not fit the network of the run: {wanted}"):
        sightline.load(copy)


def test_a_file_that_asks_for_a_network_of_another_size_is_refused_before_memory_is_taken(copy: Path) -> None:
    tensors, model = read_weights(copy / "model.safetensors")
    model["network"]["widths"] = [8192, 8192, 8192]  # 5 GB
    write_weights(copy / "model.safetensors", tensors, model)
    (copy / "model.json").write_text(json.dumps(model))
    for path in (copy, copy / "model.safetensors"):
        with pytest.raises(RunError, match=r"groups.0.conv1.weight is .* and the network has \(8192"):
            sightline.load(path)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (None, "network is missing"),
        ({"kind": "run", "folder": "."}, "its network is that of another run"),
        ({"kind": "speednet", "widths": [1, 2]}, "its network cannot be built again: .*widths"),
        ({"kind": "nothing"}, "its network cannot be built again: .*nothing"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_with_its_file(copy: Path, network: object, told: str) -> None:
    model = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(model | {"network": network}))
    with pytest.raises(RunError, match=rf"model.safetensors: {told}"):
        sightline.load(copy)


def test_a_run_of_another_kind_is_refused(copy: Path) -> None:
    model = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(model | {"kind": "diffusion"}))
    with pytest.raises(RunError, match=r"is a generator \(diffusion\), not a classifier"):
        sightline.load(copy)


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_is_predicted_to_the_bottom_and_unreadable_files_are_named(finished: Finished, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "deep" / "er").mkdir(parents=True)
    Image.fromarray(solid(0)).save(photos / "a.png")
    Image.fromarray(solid(1)).save(photos / "deep" / "er" / "b.jpg")
    (photos / "broken.jpg").write_text("no image")
    (photos / "notes.txt").write_text("no image either, and not asked about")
    found = sightline.predict(finished.run, [photos], out=tmp_path / "answers.csv")
    assert found.files == [f"{photos}/a.png", f"{photos}/deep/er/b.jpg"]
    assert [answer.label for answer in found.predictions] == ["=blood", "grass"]
    assert found.unreadable == [(f"{photos}/broken.jpg", "no image in any known format")]
    rows = list(csv.DictReader((tmp_path / "answers.csv").open(encoding="utf-8")))
    assert [row["class"] for row in rows] == ["'=blood", "grass"]  # no spreadsheet runs it as a formula
    assert rows[0]["class_4"] == rows[0]["probability_5"] == ""  # of three classes


def test_images_that_the_run_has_learned_from_are_named_and_one_line_says_so(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = sightline.predict(finished.run, finished.data)
    with (finished.run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        tested = {plain_text(row["file"]) for row in csv.DictReader(file)}
    learned = {Path(name).relative_to(finished.data).as_posix() for name in answered.learned}
    assert len(learned) == len(read_seen(finished.run).trained) > 0
    assert learned.isdisjoint(tested)
    capsys.readouterr()
    assert main(["predict", str(finished.run), answered.learned[0]]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("the run has learned from this very image") == 1
    assert "learned" not in printed.out
    assert main(["predict", str(finished.run), str(finished.data / min(tested))]) == 0
    assert "learned" not in capsys.readouterr().err
    shutil.copy(finished.run / "model.safetensors", tmp_path)  # handed on, it tells of no images
    assert sightline.predict(tmp_path / "model.safetensors", finished.data).learned == []


def test_an_archive_and_its_folder_get_the_same_answers(finished: Finished, tmp_path: Path) -> None:
    packed = shutil.make_archive(str(tmp_path / "packed"), "gztar", finished.data)
    loose = sightline.predict(finished.run, [finished.data])
    found = sightline.predict(finished.run, [packed])
    answers = [dict(zip(map(Path, item.files), item.predictions, strict=True)) for item in (loose, found)]
    assert {path.relative_to(finished.data): answer for path, answer in answers[0].items()} == {
        Path(*path.relative_to(packed).parts): answer for path, answer in answers[1].items()
    }


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (None, None, "no image, folder or archive at"),
        ("empty", "folder", "no images in"),
        ("broken.jpg", b"", r"none of the 1 images can be read \(the first, .*broken.jpg: the file is empty"),
    ],
)
def test_what_cannot_be_predicted_at_all_is_refused(
    finished: Finished, tmp_path: Path, name, content, sentence
) -> None:
    path = tmp_path / (name or "missing")
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        sightline.predict(finished.run, [path])
