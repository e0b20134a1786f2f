"""A set that has grown since a run: what the run had stays on its side, and only new images are dealt."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest

from sightline.config.resolving import resolve
from sightline.data.cache import open_images
from sightline.data.seen import Kept, numbers_of, read_kept, read_own_kept, write_seen_file
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split, split_as
from sightline.errors import ConfigError, RunError


def sides(images, splits) -> dict[str, str]:
    """The side of each image, by the hash of its pixels."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {images.hashes[row]: name for name, rows in parts.items() for row in rows.tolist()}


def noted(images, splits, run: str = "OLD") -> Kept:
    """What a run on these splits notes of its images."""
    return Kept(
        run,
        *(numbers_of(images.hashes[row] for row in rows) for rows in (splits.train, splits.validation, splits.test)),
    )


def names(*numbers: range) -> list[str]:
    return [hashlib.md5(f"image {number}".encode()).hexdigest() for part in numbers for number in part]


@pytest.fixture
def grown(in_memory):
    """A set, and the same with more images of its two classes and with a third class."""
    before = in_memory([0, 1] * 100, hashes=names(range(200)))
    after = in_memory([0, 1] * 150 + [2] * 40, hashes=names(range(340)))
    return before, after


@pytest.mark.parametrize("seed", range(4))
def test_every_image_that_the_run_had_stays_on_its_side_and_the_new_ones_are_dealt(grown, seed):
    before, after = grown
    old = sides(before, first := split(before, seed=seed))
    now = split(after, seed=seed, kept=noted(before, first))
    new = sides(after, now)
    assert {name: new[name] for name in old} == old
    assert now.counts() == {"train": 218, "validation": 54, "test": 68}  # a fifth of 340, a fifth of the rest
    assert np.bincount(after.labels[now.test]).tolist() == [30, 30, 8]
    assert now.notes[0] == "as OLD had them: train 128, validation 32, test 40; dealt anew: 140"


def test_without_it_old_images_move_from_one_side_to_the_other(grown):
    before, after = grown
    old, new = sides(before, split(before)), sides(after, split(after))
    assert {name: new[name] for name in old} != old


def test_growing_step_by_step_keeps_the_shares_and_every_side(in_memory):
    known, kept = {}, None
    for count in range(100, 200, 4):
        images = in_memory([0, 1] * (count // 2), hashes=names(range(count)))
        splits = split(images, kept=kept)
        now = sides(images, splits)
        assert {name: now[name] for name in known} == known
        assert len(splits.test) == pytest.approx(count / 5, abs=2)
        known, kept = now, noted(images, splits)


def test_of_a_few_new_images_half_at_most_are_set_aside_however_little_was_before(in_memory):
    before = in_memory([0, 1] * 30, hashes=names(range(60)))
    crossed = split(before, few=100)
    after = in_memory([0, 1] * 60, hashes=names(range(120)))
    splits = split(after, few=100, kept=noted(before, crossed))
    assert set(names(range(60))) <= {after.hashes[row] for row in splits.train}
    assert len(splits.test) == 24
    assert len(splits.validation) > 0
    few = split(in_memory([0, 1] * 40, hashes=names(range(80))), few=100, kept=noted(before, crossed))
    assert few.cross_validated


def test_a_new_image_follows_the_group_that_it_belongs_to(in_memory):
    groups = [f"scene {number // 4}" for number in range(200)]
    before = in_memory([0, 1] * 100, hashes=names(range(200)), groups=groups)
    first = split(before)
    after = in_memory([0, 1] * 150, hashes=names(range(300)), groups=groups + [f"scene {n // 2}" for n in range(100)])
    now = split(after, kept=noted(before, first))
    side = {row: name for name in ("train", "validation", "test") for row in getattr(now, name).tolist()}
    for scene in set(after.groups):
        assert len({side[row] for row in range(300) if after.groups[row] == scene}) == 1
    old, new = sides(before, first), sides(after, now)
    assert {name: new[name] for name in old} == old


def test_a_new_image_of_the_same_pixels_is_on_the_side_of_the_old_one(in_memory):
    before = in_memory([0, 1] * 50, hashes=names(range(100)))
    first = split(before)
    after = in_memory([0, 1] * 100, hashes=names(range(100), range(100)))
    now = split(after, kept=noted(before, first))
    assert sides(after, now) == sides(before, first)
    assert now.shared_with_test == 0


def test_images_that_are_gone_since_are_not_missed(grown):
    before, _ = grown
    kept = noted(before, split(before))
    rows = range(0, 200, 3)
    fewer = replace(before, labels=before.labels[::3], hashes=[before.hashes[row] for row in rows])
    fewer = replace(fewer, paths=[before.paths[row] for row in rows], splits=[None] * 67, groups=[None] * 67)
    old, new = sides(before, split(before)), sides(fewer, split(fewer, kept=kept))
    assert new == {name: old[name] for name in fewer.hashes}


def test_a_test_split_of_the_sets_own_stays_and_validation_is_kept(in_memory):
    given = ["test"] * 40
    before = in_memory([0, 1] * 70, hashes=names(range(140)), splits=[None] * 100 + given)
    first = split(before)
    after = in_memory(
        [0, 1] * 100, hashes=names(range(140), range(200, 260)), splits=[None] * 100 + given + [None] * 60
    )
    now = split(after, kept=noted(before, first))
    old, new = sides(before, first), sides(after, now)
    assert {name: new[name] for name in old} == old
    assert now.counts() == {"train": 128, "validation": 32, "test": 40}


def test_keeping_is_refused_where_the_set_brings_all_its_splits(in_memory):
    images = in_memory([0, 1] * 6, splits=["train"] * 6 + ["val"] * 4 + ["test"] * 2)
    with pytest.raises(ConfigError, match=r"--data\.keep-split OLD has no effect: made brings its test and validation"):
        split(images, kept=noted(images, split(images)))


def test_keeping_is_refused_where_the_run_had_none_of_the_images(in_memory):
    images, others = in_memory([0, 1] * 50), in_memory([0, 1] * 50, hashes=names(range(100)))
    with pytest.raises(ConfigError, match=r"keep-split OLD has no effect: that run had none of the images of made"):
        split(images, kept=noted(others, split(others)))


# ── what runs note ───────────────────────────────────────────────────────────────────────────────────────────────────


def write(run, images, splits, *, tested: bool = True) -> None:
    run.mkdir()
    kept = noted(images, splits)
    content = {"trained": kept.trained, "validated": kept.validated} | ({"tested": kept.tested} if tested else {})
    write_seen_file(run, content, splits.kept)


def test_what_a_run_notes_is_read_back(grown, tmp_path):
    before, after = grown
    write(tmp_path / "old", before, first := split(before))
    recipe = resolve({"data": {"keep_split": str(tmp_path / "old")}})
    now = sides(after, split_as(recipe, after))
    assert {name: now[name] for name in before.hashes} == sides(before, first)


def test_a_run_that_kept_splits_is_cut_again_though_the_run_before_it_is_gone(grown, tmp_path):
    before, after = grown
    write(tmp_path / "old", before, split(before))
    recipe = resolve({"data": {"keep_split": str(tmp_path / "old")}})
    splits = split_as(recipe, after)
    write(tmp_path / "new", after, splits)
    (tmp_path / "old" / "seen.npz").unlink()
    assert sides(after, split_as(recipe, after, run=tmp_path / "new")) == sides(after, splits)
    assert read_own_kept(tmp_path / "new") is not None
    with pytest.raises(ConfigError, match=r"keep-split .*old: there is no seen\.npz in it"):
        split_as(recipe, after)


def test_the_test_images_of_a_run_from_before_are_known_by_its_predictions(grown, tmp_path):
    before, after = grown
    write(tmp_path / "old", before, first := split(before), tested=False)
    lines = ["file,true_class", *(f"{before.paths[row]},x" for row in first.test)]
    (tmp_path / "old" / "predictions.csv").write_text("\n".join(lines))
    now = split_as(resolve({"data": {"keep_split": str(tmp_path / "old")}}), after)
    assert {name: sides(after, now)[name] for name in before.hashes} == sides(before, first)
    assert now.kept is not None
    assert len(now.kept.tested) == 40


@pytest.mark.parametrize("place", ["nowhere", "set"])
def test_a_folder_that_is_no_run_cannot_be_kept(folder, tmp_path, place):
    folder({"a/1.png": b""})
    with pytest.raises(
        ConfigError, match=r"--data\.keep-split .*: there is no seen\.npz in it, .*; name the folder of a"
    ):
        read_kept(tmp_path / place)


def _array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"text", _array()])
def test_a_broken_note_is_refused(folder, content):
    with pytest.raises(RunError, match=r"seen\.npz cannot be read .*; copy the run again"):
        read_kept(folder({"seen.npz": content}, "run"))


def test_a_folder_that_grew_by_a_class_keeps_its_splits(folder, files, tmp_path):
    root = folder(files("a", "b", images=20))
    before = open_images(find_source(root))
    write(tmp_path / "old", before, first := split(before))
    folder(
        {path.replace("/", "/new"): data for path, data in files("x", "y", "c", images=10).items() if path[0] == "c"}
    )
    after = open_images(find_source(root))
    assert after.classes == ["a", "b", "c"]
    now = split(after, kept=read_kept(tmp_path / "old"))
    old = sides(before, first)
    assert {name: sides(after, now)[name] for name in old} == old
    assert np.bincount(after.labels[now.test]).tolist() == [4, 4, 2]
