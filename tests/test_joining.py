"""Generated images beside a real set: in train alone, and nothing else moves."""

from pathlib import Path

import numpy as np
import pytest

import sightline
from conftest import QUICK, coloured_folder
from sightline.cli.main import main
from sightline.config.resolving import resolve
from sightline.data.batches import prepare
from sightline.data.cache import CachedImages, cached, open_images
from sightline.data.sources.find_source import find_source
from sightline.data.splits import Splits, split
from sightline.data.synthetic import generated_fingerprint, join_train
from sightline.errors import ConfigError
from sightline.runs.folder import read_model
from sightline.training import module


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return coloured_folder(tmp_path / "real", 20)


@pytest.fixture
def made(tmp_path: Path, noise, image_file) -> Path:
    """Ten generated images of two of the classes each, of another size, and the table beside them."""
    root = tmp_path / "made"
    for name, first in (("grass", 0), ("ünder wasser", 50)):
        (root / name).mkdir(parents=True)
        for index in range(10):
            (root / name / f"{index:04d}.png").write_bytes(image_file(noise(first + index, 24, 24)))
    (root / "manifest.csv").write_text("file,seed\n")
    return root


def opened(folder: Path) -> tuple[CachedImages, Splits]:
    images = open_images(find_source(folder))
    return images, split(images)


def test_they_join_train_and_the_real_images_stay_where_they_are(real: Path, made: Path) -> None:
    images, before = opened(real)
    joined, after = join_train(images, before, str(made), None, 0)
    for name in ("select", "calibrate", "test"):
        assert getattr(after, name).tolist() == getattr(before, name).tolist()
    count = len(images.labels)
    assert after.train[: len(before.train)].tolist() == before.train.tolist()
    assert after.train[len(before.train) :].tolist() == list(range(count, count + 20))
    assert np.array_equal(joined.pixels[:count], images.pixels)
    assert list(joined.paths[:count]) == list(images.paths)
    assert joined.classes == images.classes
    names = [joined.classes[label] for label in joined.labels[count:]]
    assert names == ["grass"] * 10 + ["ünder wasser"] * 10
    assert joined.paths[count] == "generated/grass/0000.png"
    assert joined.pixels.shape[1:] == (32, 32, 3)
    assert after.notes[-1] == "train also has 20 generated images of 2 classes (34% of it)"


def test_a_joined_set_is_the_real_one_to_all_who_ask_for_its_fingerprint(real: Path, made: Path) -> None:
    images, splits = opened(real)
    joined, after = join_train(images, splits, str(made), None, 0)
    assert joined.fingerprint == images.fingerprint
    assert generated_fingerprint(images, splits) is None
    mark = generated_fingerprint(joined, after)
    (made / "grass" / "0000.png").unlink()
    assert generated_fingerprint(*join_train(images, splits, str(made), None, 0)) not in (None, mark)


def test_a_share_takes_the_same_part_of_every_class_and_always_the_same_images(real: Path, made: Path) -> None:
    images, splits = opened(real)
    joined, after = join_train(images, splits, str(made), 0.2, 0)
    taken = after.train[len(splits.train) :]
    assert len(taken) / len(after.train) == pytest.approx(0.2, abs=0.01)
    assert np.ptp(np.bincount(joined.labels[taken], minlength=3)[1:]) <= 1
    assert join_train(images, splits, str(made), 0.2, 0)[1].train.tolist() == after.train.tolist()
    assert join_train(images, splits, str(made), 0.2, 1)[1].train.tolist() != after.train.tolist()


def test_too_large_a_share_says_which_is_possible(real: Path, made: Path) -> None:
    images, splits = opened(real)
    with pytest.raises(ConfigError, match=r"has 20; generate more, or choose a share of at most 0\.\d+") as refused:
        join_train(images, splits, str(made), 0.5, 0)
    most = float(str(refused.value).rpartition(" ")[2].rstrip("."))
    assert len(join_train(images, splits, str(made), most, 0)[1].train) > len(splits.train)


def test_a_class_that_the_set_has_not_is_refused(real: Path, made: Path) -> None:
    (made / "grass").rename(made / "gras")
    with pytest.raises(ConfigError, match="has a class 'gras' that real has not; did you mean 'grass'"):
        join_train(*opened(real), str(made), None, 0)


def test_the_statistics_are_those_of_the_real_images(real: Path, made: Path) -> None:
    source = find_source(real)
    plain = prepare(source, resolve())[2]
    assert prepare(source, resolve({"data": {"synthetic": str(made)}}))[2] == plain


def test_alone_they_are_all_that_is_trained_on_and_measured(real: Path, made: Path, noise, image_file) -> None:
    source = find_source(real)
    with pytest.raises(ConfigError, match=r"alone, and .* has none of class '=blood'; generate every class"):
        prepare(source, resolve({"data": {"synthetic": str(made), "synthetic_share": 1.0}}))
    (made / "=blood").mkdir()
    (made / "=blood" / "0000.png").write_bytes(image_file(noise(99, 24, 24)))
    before = prepare(source, resolve())
    _, splits, normalization = prepare(source, resolve({"data": {"synthetic": str(made), "synthetic_share": 1}}))
    assert splits.train.tolist() == list(range(60, 81))
    assert splits.test.tolist() == before[1].test.tolist()
    assert splits.notes[-1] == "train has 21 generated images of 3 classes, and no real ones"
    assert normalization != before[2]


def test_the_cache_of_both_is_listed_and_made_once(real: Path, made: Path) -> None:
    images, splits = opened(real)
    first = join_train(images, splits, str(made), None, 0)[0]
    assert join_train(images, splits, str(made), None, 0)[0].folder == first.folder
    assert sorted(row["images"] for row in cached()) == [20, 60, 80]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--data.synthetic", "nowhere"], "--data.synthetic nowhere: there is no such folder; make one with"),
        (["--data.synthetic-share", "0.3"], "--data.synthetic-share 0.3 has no effect without --data.synthetic"),
    ],
)
def test_what_cannot_be_is_refused_before_torch(flags: list[str], sentence: str, capsys) -> None:
    assert main(["train", "digits", *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_a_training_says_so_remembers_them_and_goes_on_with_no_others(
    real: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    step = module.ClassifierLearner.training_step
    monkeypatch.setattr(
        module.ClassifierLearner,
        "training_step",
        lambda self, batch, index: (seen.append(len(batch.labels)), step(self, batch, index))[1],
    )

    settings = QUICK | {
        "data": {"synthetic": str(made)},
        "fit": QUICK["fit"] | {"epochs": 1},
        "augment": {"scales": []},
    }
    run = sightline.train(real, recipe="small", settings=settings, run=tmp_path / "run")
    assert run is not None
    data = read_model(run)["data"]
    assert sum(seen) == data["counts"]["train"] == len(opened(real)[1].train) + 20
    assert data["fingerprint"] == opened(real)[0].fingerprint
    sightline.evaluate(run)  # the images are those of the run still
    (run / "DONE").unlink()
    (made / "grass" / "0000.png").unlink()
    with pytest.raises(ConfigError, match=r"data\.synthetic holds other images"):
        sightline.train(real, recipe="small", settings=settings, run=run, resume=True)
