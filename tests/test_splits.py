"""Who is trained on and who tests: never by the run's seed, never the same pixels on two sides."""

import hashlib
import itertools
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest

from sightline.config.settings import Recipe
from sightline.data.cache import open_images
from sightline.data.folds import deal_folds
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split, split_as, statistics
from sightline.errors import DataError


def _sides(splits) -> dict[int, str]:
    """The side of every row."""
    return {row: name for name in ("train", "select", "calibrate", "test") for row in getattr(splits, name).tolist()}


def _counts(images, rows) -> list[int]:
    return np.bincount(images.labels[rows], minlength=len(images.classes)).tolist()


# ── how many ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fifth_of_each_class_is_for_test(in_memory):
    images = in_memory([0] * 100 + [1] * 50 + [2] * 10)
    assert _counts(images, split(images).test) == [20, 10, 2]


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (10, 2),  # a fifth of train, for 500 would be too many
        (1_000, 200),
        (2_500, 500),
        (4_000, 500),  # at least 500
        (6_000, 600),  # a tenth
        (50_000, 5_000),
        (70_000, 5_000),  # at most 5,000
    ],
)
def test_a_tenth_of_train_validates_at_least_500_at_most_5000_and_never_more_than_a_fifth(in_memory, train, validation):
    images = in_memory([0, 1] * (train // 2) + [0, 1], splits=["train"] * train + ["test"] * 2)
    assert split(images).counts() == {"train": train - validation, "validation": validation, "test": 2}


def test_validation_is_taken_class_by_class(in_memory):
    images = in_memory([0] * 600 + [1] * 400 + [0], splits=["train"] * 1000 + ["test"])
    assert _counts(images, split(images, validation=100).calibrate) == [60, 40]


def test_as_many_images_validate_as_are_asked_for(in_memory):
    assert split(in_memory([0, 1] * 500), validation=40).counts() == {"train": 760, "validation": 40, "test": 200}


def test_half_of_validation_selects_where_something_is_selected(in_memory):
    images = in_memory([0, 1] * 500)
    plain, selecting = split(images, validation=100), split(images, validation=100, selects=True)
    assert (len(plain.select), len(plain.calibrate)) == (0, 100)
    assert (len(selecting.select), len(selecting.calibrate)) == (50, 50)
    assert selecting.validation.tolist() == plain.calibrate.tolist()
    assert _counts(images, selecting.select) == [25, 25]


def test_the_two_halves_of_validation_are_told(in_memory):
    images = in_memory([0, 1] * 500)
    assert "validation: 50 choose, 50 calibrate" in split(images, validation=100, selects=True).notes
    assert not any("choose" in note for note in split(images, validation=100).notes)


def test_a_validation_of_which_no_half_can_choose_is_refused(in_memory):
    images = in_memory([0, 1] * 50)
    split(images, validation=2)
    with pytest.raises(DataError, match=r"too few validation images \(2 in 2 classes\) to choose by one half of them"):
        split(images, validation=2, selects=True)


def test_something_of_every_class_is_left_to_train_on(in_memory):
    images = in_memory([0] * 50 + [1])
    splits = split(images)
    assert _counts(images, splits.train)[1] == 1
    assert splits.notes[1:] == ["test has no image of 'class 1'", "validation has no image of 'class 1'"]


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", range(12))
def test_every_readable_image_is_on_exactly_one_side(in_memory, number):
    random = np.random.default_rng(number)
    count, classes = int(random.integers(60, 400)), int(random.integers(2, 6))
    labels = [*range(classes)] * 5 + random.integers(-1, classes, count).tolist()  # -1: unreadable
    count = len(labels)
    hashes = [f"{value:032x}" for value in random.integers(0, 1000, count)]  # some images are the same
    groups = [None if value > 30 else f"person {value}" for value in random.integers(0, 40, count)]
    images = in_memory(
        labels,
        hashes=hashes,
        groups=groups if number % 3 == 0 else None,
        splits=[[None, "train", "test"][value] for value in random.integers(0, 3, count)] if number % 4 == 1 else None,
    )
    splits = split(images, seed=number, selects=number % 2 == 0)
    parts = [splits.train, splits.select, splits.calibrate, splits.test]
    assert sorted(itertools.chain.from_iterable(part.tolist() for part in parts)) == images.readable.tolist()
    assert all((np.diff(part) > 0).all() for part in parts)
    if number % 4 != 1:  # the set brings no splits
        assert splits.shared_with_test == 0
        side_of_pixels = defaultdict(set)
        for row, side in _sides(splits).items():
            side_of_pixels[hashes[row]].add(side)
        assert all(len(sides) == 1 for sides in side_of_pixels.values())


def test_the_order_of_the_images_does_not_matter(in_memory):
    random = np.random.default_rng(1)
    labels, names = [0, 1, 2] * 100, [f"{row:032x}" for row in range(300)]
    groups = [f"g{row // 7}" if row % 3 else None for row in range(300)]
    for given in (None, groups):
        one = _sides(split(in_memory(labels, hashes=names, groups=given), selects=True))
        order = random.permutation(300)
        moved = in_memory(
            [labels[row] for row in order],
            hashes=[names[row] for row in order],
            groups=[given[row] for row in order] if given else None,
        )
        other = _sides(split(moved, selects=True))
        assert {names[row]: side for row, side in one.items()} == {
            names[order[row]]: side for row, side in other.items()
        }


def test_a_set_that_is_moved_and_renamed_is_cut_the_same_way(folder, files):
    contents = files("a", "b", images=20)
    here = open_images(find_source(folder(contents)))
    there = open_images(find_source(folder({path.replace("/", "/x"): data for path, data in contents.items()}, "else")))
    assert _sides(split(here)) == _sides(split(there))


def test_another_process_cuts_the_same_way(folder, files):
    root = folder(files("a", "b", images=20))
    script = (
        "import sys; from sightline.data.cache import open_images; from sightline.data.sources.find_source import find_source;"
        " from sightline.data.splits import split; print(split(open_images(find_source(sys.argv[1]))).test.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(split(open_images(find_source(root))).test.tolist())


def test_the_digits_are_always_cut_like_this():
    splits = split(open_images(find_source("digits")))
    digest = hashlib.sha256(splits.test.tobytes() + splits.calibrate.tobytes()).hexdigest()
    assert splits.counts() == {"train": 1151, "validation": 287, "test": 359}
    assert digest[:16] == "6121f83d31956e7b"  # whoever changes this makes every published number incomparable


def test_another_split_seed_is_another_split(in_memory):
    images = in_memory([0, 1] * 100)
    one, other = split(images, seed=0), split(images, seed=1)
    assert one.counts() == other.counts()
    assert 0 < len(np.intersect1d(one.test, other.test)) < 20  # of 40; 8 are expected by chance


def test_test_does_not_move_with_the_size_of_validation_or_train(in_memory):
    images = in_memory([0, 1] * 100)
    tests = [split(images, **options).test.tolist() for options in ({}, {"validation": 50}, {"fraction": 0.3})]
    assert tests[0] == tests[1] == tests[2]


# ── what stays together ──────────────────────────────────────────────────────────────────────────────────────────────


def test_identical_images_stay_on_one_side_even_with_different_labels(in_memory):
    labels = [0, 1] * 60
    hashes = [f"{row // 4:032x}" for row in range(120)]  # four of each, two of either class
    for seed in range(5):
        sides = _sides(split(in_memory(labels, hashes=hashes), seed=seed, selects=True))
        assert all(len({sides[row] for row in range(first, first + 4)}) == 1 for first in range(0, 120, 4))
        assert len(set(sides.values())) == 4


def test_a_group_stays_on_one_side(in_memory):
    groups = [f"patient {row % 20}" for row in range(200)]
    images = in_memory([0, 1] * 100, groups=groups)
    for seed in range(5):
        splits = split(images, seed=seed)
        sides = _sides(splits)
        assert all(len({sides[row] for row in range(200) if row % 20 == person}) == 1 for person in range(20))
        assert len(splits.test) == 40  # four of twenty patients
        assert splits.notes[:2] == [
            "test: whole groups, 40 of 200 images (20.0%; a fifth wanted)",
            "validation: whole groups, 30 of 160 images (18.8%; 32 wanted)",
        ]


def test_large_groups_are_dealt_toward_the_wanted_share(in_memory):
    random = np.random.default_rng(0)
    shares = []
    for seed in range(200):
        sizes = np.maximum(1, random.lognormal(2.0, 1.2, 15)).astype(int)
        groups = [f"patient {person}" for person, size in enumerate(sizes) for _ in range(size)]
        images = in_memory([row % 2 for row in range(len(groups))], groups=groups)
        shares.append(len(split(images, seed=seed).test) / len(groups))
    assert max(shares) < 0.3
    assert np.mean(np.abs(np.array(shares) - 0.2)) < 0.01


def test_of_three_large_groups_the_one_that_comes_nearest_tests_and_its_share_is_told(in_memory):
    groups = ["large"] * 50 + ["middle"] * 30 + ["small"] * 20
    for seed in range(5):
        splits = split(in_memory([0, 1] * 50, groups=groups), seed=seed)
        assert splits.counts() == {"train": 50, "validation": 30, "test": 20}
        assert splits.notes[1] == "validation: whole groups, 30 of 80 images (37.5%; 16 wanted)"


def test_groups_of_a_run_before_rule_3_are_dealt_as_they_were(in_memory):
    """Digests of the splits of commit fb63afd."""
    random = np.random.default_rng(1)
    groups = [f"patient {value}" for value in random.integers(0, 12, 300)]
    images = in_memory(random.integers(0, 3, 300).tolist(), groups=groups)
    splits = split(images, selects=True, rule=2)
    parts = (splits.train, splits.select, splits.calibrate, splits.test)
    assert hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16] == "d72751787ce4da3a"
    assert split(images, selects=True).rule == 3


def test_a_chain_of_groups_and_same_pixels_stays_on_one_side(in_memory):
    """Anna's second image is Ben's first, Ben's second is Carl's first, and so on."""
    hashes, groups = [], []
    for chain in range(15):
        for link in range(4):
            hashes += [f"{chain * 100 + link:032x}", f"{chain * 100 + link + 1:032x}"]
            groups += [f"person {chain}-{link}"] * 2
    hashes += [f"{chain * 100 + 4:032x}" for chain in range(15)]  # without a group, of the same pixels as the last
    groups += [None] * 15
    for seed in range(5):
        sides = _sides(split(in_memory([0, 1] * 60 + [0] * 15, hashes=hashes, groups=groups), seed=seed))
        for chain in range(15):
            assert len({sides[row] for row in [*range(chain * 8, chain * 8 + 8), 120 + chain]}) == 1
        assert len(set(sides.values())) == 3


# ── splits that the set brings ───────────────────────────────────────────────────────────────────────────────────────


def test_splits_that_a_set_brings_are_kept(in_memory):
    given = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    splits = split(in_memory([0, 1] * 6, splits=given))
    assert (splits.train.tolist(), splits.calibrate.tolist()) == ([0, 1, 2, 3, 4, 5], [6, 7])
    assert (splits.test.tolist(), splits.shared_with_test, splits.notes) == ([8, 9, 10, 11], 0, [])


def test_test_images_that_are_also_in_train_or_validation_are_counted(in_memory):
    given = ["train"] * 4 + ["val"] * 2 + ["test"] * 4
    hashes = list("abcd") + list("ef") + list("aexy")  # one is in train, one in val
    assert split(in_memory([0, 1] * 5, splits=given, hashes=hashes)).shared_with_test == 2


def test_a_validation_size_is_refused_where_the_set_brings_a_validation(in_memory):
    images = in_memory([0, 1] * 6, splits=["train"] * 6 + ["val"] * 4 + ["test"] * 2)
    with pytest.raises(
        DataError, match=r"--data\.validation 2 has no effect: made brings .* of 4 images; leave the option"
    ):
        split(images, validation=2)


def test_images_without_a_split_beside_a_given_test_are_trained_on(in_memory):
    splits = split(in_memory([0, 1] * 10, splits=[None] * 16 + ["test"] * 4), validation=4)
    assert splits.counts() == {"train": 12, "validation": 4, "test": 4}
    assert splits.test.tolist() == [16, 17, 18, 19]


# ── a fraction ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fraction_is_drawn_class_by_class_and_leaves_validation_and_test_whole(in_memory):
    images = in_memory([0] * 300 + [1] * 100)
    whole, part = split(images), split(images, fraction=0.25)
    assert part.test.tolist() == whole.test.tolist()
    assert part.calibrate.tolist() == whole.calibrate.tolist()
    assert set(part.train) < set(whole.train)
    assert [4 * count for count in _counts(images, part.train)] == _counts(images, whole.train) == [192, 64]


def test_a_smaller_fraction_is_part_of_a_larger_one(in_memory):
    images = in_memory([0, 1, 2] * 100)
    drawn = [set(split(images, fraction=fraction).train.tolist()) for fraction in (0.1, 0.4, 0.7, 1.0)]
    assert drawn[0] < drawn[1] < drawn[2] < drawn[3]


def test_a_fraction_is_drawn_by_the_split_seed(in_memory):
    given = ["train"] * 200 + ["val", "test"]
    images = in_memory([0, 1] * 101, splits=given)
    one, again, other = (split(images, fraction=0.5, seed=seed).train.tolist() for seed in (0, 0, 1))
    assert one == again != other


def test_the_smallest_fraction_keeps_an_image_of_every_class(in_memory):
    images = in_memory([0, 1, 2] * 100)
    assert _counts(images, split(images, fraction=1e-9).train) == [1, 1, 1]


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_validation_that_leaves_nothing_to_train_on_is_refused(in_memory):
    with pytest.raises(
        DataError, match=r"--data\.validation 80 leaves nothing of the 80 training images; choose a smaller"
    ):
        split(in_memory([0, 1] * 50), validation=80)


def test_a_class_that_only_the_test_split_has_is_refused(in_memory):
    images = in_memory([0, 0, 0, 1, 0, 1], splits=["train"] * 3 + ["val", "test", "test"])
    with pytest.raises(DataError, match=r"class 'class 1' of made has no training image; add some, or split the set"):
        split(images)


def test_a_set_of_nothing_but_test_images_is_refused(in_memory):
    with pytest.raises(DataError, match=r"made has no training images, only val and test; add a train split\."):
        split(in_memory([0, 1] * 4, splits=["val", "val", "test", "test"] * 2))


def test_one_image_a_class_is_too_few_to_test_on(in_memory):
    with pytest.raises(DataError, match=r"made has too few images a class \(2 in 2 classes\) .* for test; add images"):
        split(in_memory([0, 1]))


def test_two_images_a_class_are_too_few_to_validate_on(in_memory):
    with pytest.raises(
        DataError, match=r"too few images a class \(2 training images in 2 classes\) to keep any for val"
    ):
        split(in_memory([0, 1] * 2))


def test_three_images_a_class_are_one_for_each_purpose(in_memory):
    parts = split(in_memory([0, 1] * 3))
    assert parts.counts() == {"train": 2, "validation": 2, "test": 2}


def test_no_image_of_a_group_that_the_set_validates_on_is_cut_into_test(in_memory):
    groups = ["shared" if row % 4 == 0 else f"group {row}" for row in range(40)]
    splits = ["val" if row in (0, 1) else None for row in range(40)]
    images = in_memory([row % 2 for row in range(40)], splits=splits, groups=groups)
    parts = split(images, rule=1)
    assert len(parts.test) == 6  # a fifth of the 30 that are free to move
    assert not {row for row in parts.test.tolist() if groups[row] == "shared"}


def test_a_validation_split_without_a_test_split_is_the_test_and_validation_is_cut_from_train(in_memory):
    images = in_memory([0, 1] * 60, splits=["train"] * 100 + ["val"] * 20)
    parts = split(images)
    assert parts.counts() == {"train": 80, "validation": 20, "test": 20}
    assert parts.test.tolist() == list(range(100, 120))
    assert "test: the set's val split, as it brings no other; validation is cut from train" in parts.notes


def test_a_run_of_the_rule_before_keeps_its_test(in_memory):
    images = in_memory([0, 1] * 60, splits=["train"] * 100 + ["val"] * 20)
    before = split_as(Recipe(), images, 1)
    assert before.validation.tolist() == list(range(100, 120))
    assert set(before.test) <= set(range(100))
    assert split_as(Recipe(), images).test.tolist() == list(range(100, 120))


def test_few_images_without_a_test_split_are_cross_validated_where_that_is_asked_for(in_memory):
    images = in_memory([0, 1] * 30)
    parts = split(images, few=61)
    assert parts.cross_validated
    assert parts.counts() == {"train": 60, "validation": 0, "test": 0}
    assert not split(images, few=60).cross_validated
    assert not split(images, few=61, validation=10).cross_validated  # the user wants some set aside
    assert not split(in_memory([0, 1] * 30, splits=["train"] * 50 + ["test"] * 10), few=100).cross_validated


def test_folds_hold_every_image_once_and_each_class_evenly(in_memory):
    images = in_memory([0, 1, 2] * 20 + [3])
    folds = deal_folds(images, images.readable, 5, seed=0)
    for label in range(3):
        assert np.bincount(folds[images.labels == label], minlength=5).tolist() == [4] * 5
    assert max(np.bincount(folds)) - min(np.bincount(folds)) <= 1
    assert deal_folds(images, images.readable, 5, seed=0).tolist() == folds.tolist()
    assert deal_folds(images, images.readable, 5, seed=1).tolist() != folds.tolist()


def test_a_group_is_never_in_two_folds(in_memory):
    groups = [f"scene {row // 3}" for row in range(60)]
    images = in_memory([row % 2 for row in range(60)], groups=groups)
    folds = deal_folds(images, images.readable, 4, seed=0)
    for scene in set(groups):
        assert len({fold for fold, group in zip(folds.tolist(), groups, strict=True) if group == scene}) == 1


def test_pictures_that_are_alike_are_in_one_fold_up_to_the_share_of_a_fold(in_memory):
    images = in_memory([row % 2 for row in range(100)])
    chain = np.arange(0, 98, 2)  # all of a class, in one chain
    alone = deal_folds(images, images.readable, 5, seed=0)
    folds = deal_folds(images, images.readable, 5, 0, (np.array([1, 5]), np.array([3, 7])))
    assert folds[1] == folds[3]
    assert folds[5] == folds[7]
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 3
    folds = deal_folds(images, images.readable, 5, 0, (chain, chain + 2))
    assert np.bincount(folds[images.labels == 0], minlength=5).tolist() == [10] * 5  # in pieces of a fifth of the class
    assert sum(folds[one] == folds[one + 2] for one in chain.tolist()) >= 45
    nobody = np.array([], np.int64)
    assert deal_folds(images, images.readable, 5, 0, (nobody, nobody)).tolist() == alone.tolist()


def test_of_pictures_that_are_alike_the_most_alike_stay_together(in_memory):
    images = in_memory([0] * 10)
    folds = deal_folds(images, images.readable, 5, 0, (np.array([0, 1, 2]), np.array([1, 2, 3])))
    assert folds[0] == folds[1] != folds[2] == folds[3]
    some = np.array([3, 2, 7])  # in whatever order, and some of the pairs are of other rows
    folds = deal_folds(images, some, 2, 0, (np.array([0, 2]), np.array([1, 3])))
    assert folds[0] == folds[1] != folds[2]


# ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [1, 7, 50])
def test_statistics_are_those_of_numpy_in_float64(in_memory, count):
    random = np.random.default_rng(count)
    pixels = (random.integers(0, 256, (50, 9, 5, 3)) * [1.0, 0.5, 0.1]).astype(np.uint8)
    rows = np.sort(random.choice(50, count, replace=False))
    mean, std = statistics(in_memory([0, 1] * 25, pixels=pixels), rows)
    scaled = pixels[rows].reshape(-1, 3).astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=0), rtol=1e-12)


def test_statistics_of_large_sets_are_taken_in_blocks(in_memory, monkeypatch):
    pixels = np.zeros((9, 4096, 1024, 3), np.uint8)  # 12 MB each, 64 MB a block
    pixels[:4, :, :, 1] = 255
    mean, std = statistics(in_memory([0] * 9, pixels=pixels), np.arange(1, 9))
    np.testing.assert_allclose((mean, std), ([0, 3 / 8, 0], [0, (15 / 64) ** 0.5, 0]), rtol=1e-12)


def test_one_colour_deviates_by_nothing(in_memory):
    pixels = np.full((4, 3, 3, 3), 51, np.uint8)
    mean, std = statistics(in_memory([0, 1] * 2, pixels=pixels), np.arange(4))
    assert mean == pytest.approx([0.2] * 3)
    assert std == pytest.approx([0.0] * 3, abs=1e-12)
