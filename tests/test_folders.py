"""What lies in a folder besides the images of classes: links, and what sightline itself has written there."""

import os
from collections import Counter

import pytest

from sightline.data.cache import open_images
from sightline.data.remarks import remarks
from sightline.data.sources.entries import OWN
from sightline.data.sources.find_source import find_source, source_of_run
from sightline.data.sources.folder import CIRCLES, DANGLING, SPECIAL, TWICE
from sightline.data.sources.listing import listed_once
from sightline.data.sources.unlabeled import plain_files
from sightline.errors import DataError


def classes(listing) -> dict[str, int]:
    return dict(Counter(entry.label for entry in listing.entries))


# ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_linked_class_folder_is_a_class(folder, files):
    root, elsewhere = folder(files("cats", "dogs")), folder(files("birds"), "elsewhere")
    (root / "birds").symlink_to(elsewhere / "birds")
    source = find_source(root)
    assert classes(source.scan()) == {"cats": 2, "dogs": 2, "birds": 2}
    assert open_images(source).paths[0] == "birds/00.png"


def test_a_linked_split_is_a_split(folder, files):
    root = folder({f"train/{path}": data for path, data in files("cats", "dogs").items()})
    (root / "val").symlink_to(folder(files("cats", "dogs", images=1), "elsewhere"))
    listing = find_source(root).scan()
    assert Counter(entry.split for entry in listing.entries) == {"train": 4, "val": 2}


def test_a_set_behind_a_link_is_that_set(folder, files, tmp_path):
    (tmp_path / "link").symlink_to(folder(files("cats", "dogs")))
    assert classes(find_source(tmp_path / "link").scan()) == {"cats": 2, "dogs": 2}


def test_links_to_single_images_are_images(folder, files):
    root = folder(files("cats", "dogs"))
    (root / "cats" / "more.png").symlink_to(root / "dogs" / "00.png")
    assert classes(find_source(root).scan()) == {"cats": 3, "dogs": 2}


def test_links_to_nothing_are_counted(folder, files):
    root = folder(files("cats", "dogs"))
    (root / "cats" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "birds").symlink_to("/nowhere/at/all")
    listing = find_source(root).scan()
    assert classes(listing) == {"cats": 2, "dogs": 2}
    assert listing.ignored == {DANGLING: 2}


@pytest.mark.parametrize("target", ["..", ".", "../..", "../../.."])
def test_a_link_that_leads_up_is_counted_and_not_followed(folder, files, target):
    root = folder(files("cats", "dogs"))
    (root / "cats" / "again").symlink_to(target)
    listing = find_source(root).scan()
    assert classes(listing) == {"cats": 2, "dogs": 2}
    assert listing.ignored == {CIRCLES: 1}


def test_links_that_lead_to_each_other_are_counted(folder, files):
    root = folder(files("cats", "dogs"))
    (root / "one").symlink_to("other")
    (root / "other").symlink_to("one")
    (root / "itself").symlink_to("itself")
    listing = find_source(root).scan()
    assert classes(listing) == {"cats": 2, "dogs": 2}
    assert listing.ignored == {CIRCLES: 3}


def test_two_folders_that_link_into_each_other_are_each_read_once(folder, files):
    root = folder(files("cats", "dogs"))
    (root / "cats" / "to dogs").symlink_to("../dogs")
    (root / "dogs" / "to cats").symlink_to("../cats")
    listing = find_source(root).scan()
    assert classes(listing) == {"cats": 2, "dogs": 2}
    assert listing.ignored == {TWICE: 2}


def test_a_folder_is_read_under_its_own_name_and_not_under_that_of_a_link_to_it(folder, files):
    root = folder(files("cats", "dogs"))
    (root / "a link to cats").symlink_to("cats")
    assert classes(find_source(root).scan()) == {"cats": 2, "dogs": 2}


def test_two_links_to_one_folder_are_one(folder, files):
    root, elsewhere = folder(files("cats", "dogs")), folder(files("birds"), "elsewhere")
    for name in ("birds", "more birds"):
        (root / name).symlink_to(elsewhere / "birds")
    listing = find_source(root).scan()
    assert classes(listing) == {"cats": 2, "dogs": 2, "birds": 2}
    assert listing.ignored == {TWICE: 1}


def test_a_link_out_of_a_linked_folder_that_leads_back_in_ends(folder, files):
    root, elsewhere = folder(files("cats", "dogs")), folder(files("birds"), "elsewhere")
    (elsewhere / "birds" / "back").symlink_to(root)
    (root / "birds").symlink_to(elsewhere / "birds")
    listing = find_source(root).scan()
    assert classes(listing) == {"cats": 2, "dogs": 2, "birds": 2}
    assert listing.ignored == {TWICE: 1}


def test_pipes_are_counted_and_never_opened(folder, files):
    root = folder(files("cats", "dogs"))
    os.mkfifo(root / "cats" / "pipe.png")
    listing = find_source(root).scan()
    assert classes(listing) == {"cats": 2, "dogs": 2}
    assert listing.ignored == {SPECIAL: 1}


def test_a_change_behind_a_linked_folder_changes_the_fingerprint(folder, files):
    root, elsewhere = folder(files("cats", "dogs")), folder(files("birds"), "elsewhere")
    (root / "birds").symlink_to(elsewhere / "birds")
    before = find_source(root).fingerprint()
    (elsewhere / "birds" / "00.png").write_bytes(b"another")
    assert find_source(root).fingerprint() != before


# ── what sightline wrote ─────────────────────────────────────────────────────────────────────────────────────────────

RUN = {"recipe.yaml": b"name: x", "model.json": b"{}", "batch.png": b"", "samples/epoch-001.png": b"", "DONE": b""}
MADE = b"path,label,generator,weights,seed,guidance,steps,sampler,tell_above,kept_if\n"
OUTPUT = {
    "runs/set-fast-1": RUN,
    "runs/killed": {"recipe.yaml": b"", "seen.npz": b""},
    "checks/set-1": {"check.html": b"", "findings.csv": b"", "exclude.csv": b""},
    "studies/first-set": {
        "study.yaml": b"",
        "study.html": b"",
        **{f"runs/a-0/{name}": data for name, data in RUN.items()},
    },
    "tunings/set-1": {
        "study.yaml": b"",
        "trials.csv": b"",
        **{f"trials/001/{name}": data for name, data in RUN.items()},
    },
    "rate": {"found.json": b"", "settings.yaml": b"", "range.png": b""},
    "explained": {"explanations.csv": b"file,sheet,class\n", "0.png": b""},
    "made": {"manifest.csv": MADE, "cats/0000.png": b"", "dogs/0000.png": b""},
    "deep/er/run": RUN,
    "cats/run": RUN,
}


@pytest.mark.parametrize("place", OUTPUT)
def test_what_sightline_wrote_inside_a_set_is_left_out_and_counted(folder, files, place):
    source = find_source(folder(files("cats", "dogs")))
    before = source.fingerprint()
    folder({f"{place}/{name}": data for name, data in OUTPUT[place].items()})
    listing = source.scan()
    assert classes(listing) == {"cats": 2, "dogs": 2}
    assert listing.ignored == {OWN: len(OUTPUT[place])}
    assert source.fingerprint() == before
    assert len(plain_files(source.path).names) == 4


def test_what_sightline_wrote_is_left_out_of_an_archive_too(archive, files):
    path = archive(files("cats", "dogs") | {f"runs/one/{name}": data for name, data in RUN.items()})
    assert classes(find_source(path).scan()) == {"cats": 2, "dogs": 2}


@pytest.mark.parametrize("name", ["runs", "checks", "studies", "tunings"])
def test_an_empty_folder_for_output_is_no_class(folder, files, name):
    root = folder(files("cats", "dogs"))
    (root / name / "set-1").mkdir(parents=True)
    assert classes(find_source(root).scan()) == {"cats": 2, "dogs": 2}


@pytest.mark.parametrize("name", ["runs", "checks", "made"])
def test_a_class_is_one_whatever_its_name_where_it_has_images(folder, files, name):
    assert classes(find_source(folder(files("cats", name))).scan()) == {"cats": 2, name: 2}


def test_a_manifest_of_ones_own_makes_no_generated_images(folder, files):
    contents = files("cats", "dogs") | {"birds/manifest.csv": b"path,label\n", "birds/00.png": b""}
    assert classes(find_source(folder(contents)).scan()) == {"cats": 2, "dogs": 2, "birds": 1}


@pytest.mark.parametrize("around", ["", "made/"])
def test_generated_images_are_a_set_where_they_are_all_that_there_is(folder, files, around):
    contents = {f"{around}{path}": data for path, data in (files("cats", "dogs") | {"manifest.csv": MADE}).items()}
    assert classes(find_source(folder(contents)).scan()) == {"cats": 2, "dogs": 2}


def test_a_folder_with_nothing_but_runs_is_refused_with_a_sentence(folder):
    root = folder({f"runs/{number}/{name}": data for number in range(2) for name, data in RUN.items()})
    with pytest.raises(
        DataError, match=r"no images in .* but those that sightline itself wrote there; name the folder"
    ):
        find_source(root).scan()


def test_a_set_is_listed_once_while_a_command_runs(folder, files):
    root = folder(files("cats", "dogs"))
    with listed_once():
        before = find_source(root).fingerprint()
        (root / "cats" / "new.png").write_bytes(b"")
        assert find_source(root).fingerprint() == before
        assert classes(find_source(root).scan()) == {"cats": 2, "dogs": 2}
    assert find_source(root).fingerprint() != before


def test_what_lies_beside_the_images_is_counted_anew_though_the_cache_is_from_before(folder, files):
    source = find_source(folder(files("cats", "dogs") | {"notes.txt": b""}))
    first = open_images(source)
    folder({f"runs/one/{name}": data for name, data in RUN.items()})
    (source.path / "gone").symlink_to("/nowhere")
    second = open_images(source)
    assert first.folder == second.folder
    assert remarks(first) == ["left out: 1 other file (1 .txt)"]
    assert sorted(remarks(second)) == [
        "left out: 1 link to nothing",
        "left out: 1 other file (1 .txt)",
        "left out: 5 files that sightline wrote (2 .png, 1 without a suffix, 1 .json, 1 .yaml)",
    ]


def test_remarks_name_the_reading_of_the_folders_and_what_cannot_be_read(folder, files):
    contents = files("cats", "cats/small", "dogs", "test") | {"dogs/broken.jpg": b"", "dogs/.hidden": b""}
    assert remarks(open_images(find_source(folder(contents)))) == [
        "1 deeper folder holds images, which count for the 2 classes at the top; --data.classes leaf makes each of the 3"
        " folders that hold images a class",
        "left out: 1 unreadable image (1 .jpg)",
        "  dogs/broken.jpg: the file is empty (0 bytes)",
        "left out: 1 hidden file (1 without a suffix)",
        "left out: 2 images in test/, which has no class folders (2 .png)",
    ]


def test_a_run_is_no_image_set(folder):
    with pytest.raises(DataError, match=r"is a run of sightline, and no image set; name the folder of the images"):
        find_source(folder(RUN | {"samples/epoch-002.png": b""})).scan()


@pytest.mark.parametrize("names", [("plane", "train"), ("cat", "test"), ("dev", "train", "x")])
def test_a_run_from_before_finds_its_classes_though_they_are_called_like_splits(folder, files, names):
    root = folder(files(*names))
    source = source_of_run({"classes": sorted(names), "data": {"location": str(root)}})
    assert classes(source.scan()) == dict.fromkeys(names, 2)


def test_a_class_called_train_within_the_splits_stays_one_for_a_run(folder, files):
    root = folder(
        {f"{part}/{path}": data for part in ("train", "test") for path, data in files("train", "bus").items()}
    )
    listing = source_of_run({"classes": ["bus", "train"], "data": {"location": str(root)}}).scan()
    assert Counter(entry.split for entry in listing.entries) == {"train": 4, "test": 4}
