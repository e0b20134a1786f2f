"""Which folders are splits, which are classes, and which are neither: by names alone, without a file."""

import random
from collections import Counter

import pytest

from sightline.data.sources.entries import class_folder, lay_out
from sightline.data.sources.layout import OUTSIDE
from sightline.data.sources.split_names import is_split_name, split_of_name, splits_among
from sightline.errors import DataError


def listing(*folders: str, each: int = 2, empty: tuple[str, ...] = (), **options):
    """Lay out so many images of each folder; a name with a dot is a file of its own."""
    files = [
        name
        for folder in folders
        for name in ([folder] if "." in folder else [f"{folder}/{index}.jpg" for index in range(each)])
    ]
    return lay_out(sorted(files), list(empty), "SET", **options)


def table(found) -> dict[str, str]:
    """Class and split of each folder."""
    return {entry.path.rpartition("/")[0]: f"{entry.label} {entry.split}" for entry in found.entries}


def classes(found) -> list[str]:
    return sorted({entry.label for entry in found.entries})


def splits(found) -> dict[str | None, int]:
    return dict(Counter(entry.split for entry in found.entries))


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            "train Training TRAIN seg_train train_images training-set train2017 TrainImages trainset x_train train.1 trainval",
        ),
        (
            "val",
            "val valid validation Validation_Set x-val dev dev_set eval evaluation val2014 valset ValData images-eval",
        ),
        ("test", "test testing images_test seg_test TestSet test_data holdout hold-out held_out_set PublicTest tests"),
        ("unlabeled", "seg_pred predictions unlabeled unlabelled_images"),
    ],
)
def test_names_of_splits_are_known_with_their_usual_affixes(split, names):
    assert {name: split_of_name(name) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize(
    "name",
    [
        "trains",
        "contest",
        "latest",
        "interval",
        "device",
        "retrain",
        "medieval",
        "crash_test",
        "train_test_split",
        "data",
    ],
)
def test_names_that_only_hold_the_letters_of_a_split_are_none(name):
    assert split_of_name(name) is None


def test_any_affix_is_one_where_two_folders_have_it_and_are_two_splits():
    assert splits_among(["asl_alphabet_train", "asl_alphabet_test"]) == {
        "asl_alphabet_train": "train",
        "asl_alphabet_test": "test",
    }
    assert splits_among(["crash_test", "steam_train", "car"]) == {}


# ── splits with classes in them ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "dev", "holdout"),
        ("seg_train", "seg_val", "seg_test"),
        ("train_images", "validation_images", "images_test"),
        ("x-train", "x-val", "x-test"),
        ("train_set", "validation_set", "TestSet"),
        ("birds_train", "birds_eval", "birds_test"),
        ("my set/train2017", "my set/val2017", "my set/test2017"),
    ],
)
def test_splits_under_their_usual_names_are_splits_and_never_classes(train, val, test):
    found = listing(*(f"{part}/{name}" for part in (train, val, test) for name in ("cat", "dog")))
    assert classes(found) == ["cat", "dog"]
    assert splits(found) == {"train": 4, "val": 4, "test": 4}


@pytest.mark.parametrize("other", ["eval", "dev", "valid", "holdout", "testing"])
def test_train_beside_one_other_split_makes_no_classes_of_the_two(other):
    found = listing(*(f"{part}/{name}" for part in ("train", other) for name in ("cat", "dog")))
    assert classes(found) == ["cat", "dog"]


def test_doubled_folders_of_splits_are_looked_through_and_unlabeled_ones_beside_them_are_counted():
    found = listing(
        *(f"{part}/{part}/{name}" for part in ("seg_train", "seg_test") for name in ("sea", "street", "glacier")),
        "seg_pred/seg_pred",
    )
    assert classes(found) == ["glacier", "sea", "street"]
    assert splits(found) == {"train": 6, "test": 6}
    assert found.ignored == {"images in seg_pred/, which has no class folders": 2}
    assert found.suffixes == {"images in seg_pred/, which has no class folders": {".jpg": 2}}
    assert found.notes == ["folders taken for splits: train seg_train; test seg_test"]


def test_a_folder_that_says_nothing_between_a_split_and_its_classes_is_looked_through():
    found = listing(*(f"{part}/images/{name}" for part in ("train", "test") for name in ("cat", "dog")))
    assert table(found)["test/images/dog"] == "dog test"
    assert classes(found) == ["cat", "dog"]


def test_a_class_whose_name_says_nothing_stays_a_class_of_a_split_that_has_no_other():
    found = listing("train/photos", "train/drawings", "test/photos")
    assert table(found)["test/photos"] == "photos test"


@pytest.mark.parametrize("test", ["test", "test/test", "test/images", "test/unknown", "seg_pred/seg_pred"])
def test_a_test_split_without_classes_is_left_out_and_counted(test):
    found = listing("train/cat", "train/dog", test)
    assert classes(found) == ["cat", "dog"]
    assert splits(found) == {"train": 4}
    assert sum(found.ignored.values()) == found.unlabeled == 2
    assert f"images in {test.split('/')[0]}/, which has no class folders" in found.ignored


def test_splits_without_any_class_folders_are_refused_and_said_to_be_splits():
    with pytest.raises(DataError, match=r"no labelled images in SET; .*test, train look like splits"):
        listing("train", "test")


def test_a_train_split_without_classes_beside_a_test_split_with_classes_is_refused():
    with pytest.raises(DataError, match=r"holds the split 'train' without class folders beside test with .*; sort the"):
        listing("train", "test/cat", "test/dog")


def test_the_split_and_the_class_in_one_name_are_no_classes():
    with pytest.raises(DataError, match="look like splits"):
        listing("cat_train", "dog_train", "cat_test", "dog_test")


@pytest.mark.parametrize("inner", [("train", "val"), ("val", "cat", "dog"), ("train", "test", "cat")])
def test_a_split_within_a_split_is_refused(inner):
    with pytest.raises(
        DataError, match=r"holds train/\w+/, a split within a split; as a split, \w+ has to lie beside train"
    ):
        listing(*(f"train/{name}" for name in inner), "test/cat", "test/dog")


def test_a_class_called_train_that_lies_among_others_in_every_split_is_a_class():
    found = listing(*(f"{split}/{name}" for split in ("train", "test") for name in ("train", "bus", "plane")))
    assert classes(found) == ["bus", "plane", "train"]
    assert table(found)["test/train"] == "train test"


# ── unlabeled folders beside classes ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["test", "Test", "testing", "test_images", "images_test", "holdout", "pred", "unlabeled", "external_test"]
)
def test_an_unlabeled_test_folder_beside_classes_is_no_class(name):
    found = listing("cat", "dog", name)
    assert classes(found) == ["cat", "dog"]
    assert found.ignored == {f"images in {name}/, which has no class folders": 2}


def test_a_test_folder_with_the_same_classes_as_those_beside_it_is_the_test_split():
    found = listing("cat", "dog", "emu", "test/cat", "test/dog")
    assert table(found) == {
        "cat": "cat None",
        "dog": "dog None",
        "emu": "emu None",
        "test/cat": "cat test",
        "test/dog": "dog test",
    }
    assert found.notes == ["folders taken for splits: test test; the class folders beside them train"]


@pytest.mark.parametrize(
    ("folders", "split", "others"),
    [
        (("train", "plane", "ship"), "train", "plane, ship"),
        (("valid", "invalid", "unclear"), "valid", "invalid, unclear"),
        (("dev", "cat", "dog"), "dev", "cat, dog"),
        (("train/cat", "train/dog", "test/cat", "extra"), "train", "extra"),
        (("cat", "dog", "test/emu", "test/ox"), "test", "cat, dog"),
        (("cat", "dog", "train/cat", "train/dog"), "train", "cat, dog"),
        (("train/cat", "train/dog", "masks"), "train", "masks"),
    ],
)
def test_a_split_that_does_not_fit_what_lies_beside_it_is_refused_with_both_readings(folders, split, others):
    with pytest.raises(DataError) as refused:
        listing(*folders)
    message = str(refused.value)
    assert split in message
    assert f"other folders of images ({others})" in message
    assert "move" in message
    assert "--data.classes top" in message


def test_all_folders_at_the_top_are_classes_where_the_user_says_so():
    found = listing("train", "plane", "ship", "test/a", classes="top")
    assert classes(found) == ["plane", "ship", "test", "train"]
    assert splits(found) == {None: 8}


def test_a_refusal_for_too_few_classes_says_what_was_taken_for_no_class():
    with pytest.raises(
        DataError, match=r"only one class, 'control'.*; test was taken for images without a class \(--data"
    ):
        listing("test", "control")


@pytest.mark.parametrize("split", ["test", "val", "train"])
def test_an_empty_split_is_no_class_without_images(split):
    found = listing("cat", "dog", empty=(split,))
    assert classes(found) == ["cat", "dog"]
    assert found.notes == [f"no images in {split}/"]


def test_an_empty_class_folder_is_still_refused_beside_a_split():
    with pytest.raises(DataError, match="class folder 'emu' in SET holds no images"):
        listing("cat", "dog", "test/cat", empty=("emu",))


def test_a_name_that_speaks_of_a_split_and_of_something_else_is_a_class_and_said():
    found = listing("crash_test", "cat", "dog")
    assert classes(found) == ["cat", "crash_test", "dog"]
    assert found.notes == ["crash_test was taken for a class; move it away, or rename it (test, val), if it is a split"]
    assert listing("steam_train", "bullet_train").notes == []


def test_splits_below_a_folder_beside_folders_without_images_are_found():
    found = listing("images/train/cat", "images/train/dog", "images/val/cat", empty=("annotations", "labels/train"))
    assert splits(found) == {"train": 4, "val": 2}


def test_splits_below_one_folder_beside_another_with_images_are_refused():
    with pytest.raises(DataError, match=r"holds set/test/, which looks like the test split"):
        listing("set/train/cat", "set/test/cat", "set/train/dog", "pictures")


# ── splits within classes ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "images_test"), ("x_train", "holdout")])
def test_splits_within_every_class_are_the_splits(train, test):
    found = listing(*(f"{name}/{part}" for name in ("cat", "dog") for part in (train, test)))
    assert table(found) == {
        f"{name}/{part}": f"{name} {split}"
        for name in ("cat", "dog")
        for part, split in ((train, "train"), (test, "test"))
    }
    assert found.notes == ["folders taken for splits: those within each class folder"]


def test_splits_at_the_bottom_of_deeper_classes_are_the_splits():
    names = ("fruit/apple/train", "fruit/apple/test", "fruit/pear/train", "vegetable/leek/train", "vegetable/leek/test")
    assert splits(listing(*names)) == {"train": 6, "test": 4}
    assert classes(listing(*names, classes="leaf")) == ["apple", "leek", "pear"]


@pytest.mark.parametrize(
    "folders",
    [("cat/train", "cat/test", "dog"), ("cat", "cat/test", "dog", "dog/test"), ("cat/test", "cat/more", "dog")],
)
def test_splits_within_some_classes_only_are_refused(folders):
    with pytest.raises(
        DataError, match=r"holds cat/test/, which looks like the test split of its class, beside images"
    ):
        listing(*folders)


def test_a_train_folder_within_one_class_loses_nothing_and_is_a_deeper_folder():
    assert classes(listing("vehicle/train", "vehicle/car", "animal/cat")) == ["animal", "vehicle"]


# ── deeper folders ───────────────────────────────────────────────────────────────────────────────────────────────────

GROCERIES = ("Fruit/Apple/Golden-Delicious", "Fruit/Apple/Red", "Fruit/Pear", "Packages/Milk", "Vegetables/Carrots")


def test_deeper_folders_count_for_the_class_at_the_top_and_are_said():
    found = listing(*GROCERIES)
    assert classes(found) == ["Fruit", "Packages", "Vegetables"]
    assert found.notes == [
        "5 deeper folders hold images, which count for the 3 classes at the top; --data.classes leaf makes each of the 5"
        " folders that hold images a class"
    ]


def test_every_folder_that_holds_images_is_a_class_where_the_user_says_so():
    found = listing(*GROCERIES, classes="leaf")
    assert classes(found) == ["Carrots", "Golden-Delicious", "Milk", "Pear", "Red"]
    assert found.notes == []


def test_folders_of_one_name_below_different_ones_are_different_classes():
    found = listing("apple/red", "apple/green", "pepper/red", classes="leaf")
    assert classes(found) == ["apple/red", "green", "pepper/red"]


def test_deeper_classes_below_splits_have_the_splits():
    found = listing("train/fruit/apple", "test/fruit/apple", "train/fruit/pear", "train/nut", classes="leaf")
    assert table(found)["test/fruit/apple"] == "apple test"
    assert classes(found) == ["apple", "nut", "pear"]


def test_images_above_deeper_folders_are_of_a_class_of_their_own():
    assert classes(listing("cat", "cat/summer", "dog", classes="leaf")) == ["cat", "dog", "summer"]


def test_one_folder_within_each_class_is_not_worth_a_word():
    assert listing("cat/images", "dog/images").notes == []
    assert listing("cat/cat", "dog/dog").notes == []


def test_a_split_at_the_bottom_of_some_classes_only_never_becomes_a_class():
    with pytest.raises(DataError, match=r"holds a folder 'train' that looks like a split"):
        listing("vehicle/train", "vehicle/car", "animal/cat", classes="leaf")


def test_an_empty_deeper_folder_is_refused_where_it_would_be_a_class():
    with pytest.raises(DataError, match="class folder 'fruit/kiwi' in SET holds no images"):
        listing("fruit/apple", "nut", empty=("fruit", "fruit/kiwi"), classes="leaf")


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

FOLDERS = [
    *("train", "test", "val", "dev", "seg_train", "seg_test", "seg_pred", "a_train", "a_test", "images", "predictions"),
    *("cat", "dog", "emu", "runs", "Cat2", "train_test", "data", "%74rain"),
]
FILES = ["notes.txt", ".hidden", "recipe.yaml", "model.json", "study.yaml", "trials.csv", "manifest.csv"]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_lies_there_is_an_image_of_a_class_or_counted_and_no_class_is_called_like_a_split(seed):
    draw = random.Random(seed)
    taken = 0
    for _ in range(1500):
        words = draw.sample(FOLDERS, draw.randint(2, 6))
        places = ["/".join(draw.choices(words, k=draw.randint(0, 4))) for _ in range(draw.randint(1, 14))]
        files = {
            f"{place}/{draw.choice(FILES) if draw.random() < 0.2 else f'{number}.jpg'}".lstrip("/")
            for number, place in enumerate(places)
        }
        empty = [place for place in places if place and draw.random() < 0.1]
        try:
            found = lay_out(sorted(files), empty, "SET", classes=draw.choice([None, "leaf"]))
        except DataError:
            continue
        taken += 1
        assert len(found.entries) + sum(found.ignored.values()) == len(files)
        assert {reason: sum(counts.values()) for reason, counts in found.suffixes.items()} == found.ignored
        bad = {
            entry.label
            for entry in found.entries
            if entry.split is None and is_split_name(entry.label.rpartition("/")[2])
        }
        assert not bad, sorted(files)
    assert taken > 100


# ── what stays as it was ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["eval", "dev", "seg_train", "images"])
def test_a_single_folder_around_the_classes_is_looked_through_whatever_its_name(name):
    found = listing(f"{name}/cat", f"{name}/dog")
    assert splits(found) == {None: 4}


def test_a_single_test_split_stays_one():
    assert splits(listing("test/cat", "test/dog")) == {"test": 4}


def test_images_beside_the_class_folders_are_counted():
    found = listing("train/cat", "train/dog", "test/cat", "test/1.jpg", "2.png")
    assert found.ignored == {OUTSIDE: 2}
    assert found.suffixes == {OUTSIDE: {".jpg": 1, ".png": 1}}


@pytest.mark.parametrize("name", ["train", "Dev", "seg_test", "x-val", "unlabeled", "holdout"])
def test_a_class_of_a_splits_name_gets_a_folder_that_is_read_back_as_a_class(name):
    found = listing(class_folder(name), class_folder("cat"))
    assert len(classes(found)) == 2
    assert splits(found) == {None: 4}
