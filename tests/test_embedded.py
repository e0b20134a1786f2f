"""The image sets in the package: what they hold, that no scene is on both sides of a split, and that they need nothing else."""

import io
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.checks.duplicates import exact_duplicates, near_duplicates
from sightline.data.cache import open_images
from sightline.data.folds import deal_folds
from sightline.data.sources import embedded
from sightline.data.sources.embedded import EMBEDDED, PHOTOGRAPHS, GroceriesSource
from sightline.data.sources.find_source import always_labeled, find_source
from sightline.data.splits import split
from sightline.errors import DataError

LARGEST = 3_000_000  # bytes of the photographs in the package


@pytest.fixture(scope="module")
def groceries(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("SIGHTLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield open_images(find_source("groceries"))
    patch.undo()


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_set_is_found_by_name_and_lists_what_it_reads(name):
    source = find_source(name)
    assert (source.name, source.location) == (name, name)
    assert always_labeled(name)
    entries = source.scan().entries
    contents = dict(source.read(entries))
    assert sorted(contents) == list(range(len(entries)))
    some = dict(source.read(entries[5:7]))
    assert sorted(some) == [0, 1]
    assert all(np.array_equal(data, contents[5 + index]) for index, data in some.items())


def test_groceries_are_ten_classes_of_thirty_photographs_that_all_can_be_read(groceries):
    assert len(groceries.classes) == 10
    assert set(np.bincount(groceries.labels)) == {30}
    assert not groceries.left_out
    assert not groceries.ignored


def test_no_scene_and_no_picture_is_on_both_sides_of_a_split(groceries):
    splits_of = {group: set() for group in groceries.groups}
    for name, group in zip(groceries.splits, groceries.groups, strict=True):
        splits_of[group].add(name)
    assert None not in splits_of
    assert all(len(names) == 1 for names in splits_of.values())
    rows = groceries.readable
    assert exact_duplicates(groceries.hashes, rows) == []
    pairs = near_duplicates(groceries.pixels, rows)
    across = [
        (groceries.paths[one], groceries.paths[other])
        for one, other in zip(pairs.first_P, pairs.second_P, strict=True)
        if groceries.groups[one] != groceries.groups[other]
    ]
    assert across == []


def test_groceries_bring_no_splits_and_scenes_stay_together_in_every_fold(groceries):
    assert set(groceries.splits) == {None}
    cut = split(groceries, few=500)
    assert cut.cross_validated
    assert len(cut.train) == 300
    folds = deal_folds(groceries, cut.train, 10, seed=0)
    for group in set(groceries.groups):
        assert len({fold for row, fold in zip(cut.train, folds, strict=True) if groceries.groups[row] == group}) == 1


def test_the_fingerprint_of_groceries_is_that_of_its_bytes_wherever_and_whenever_it_was_installed(
    tmp_path, monkeypatch
):
    before = GroceriesSource().fingerprint()
    moved = Path(shutil.copyfile(PHOTOGRAPHS, tmp_path / "groceries.zip"))  # of another time
    monkeypatch.setattr(embedded, "PHOTOGRAPHS", moved)
    assert GroceriesSource().fingerprint() == before
    moved.write_bytes(moved.read_bytes() + b"\0")
    assert GroceriesSource().fingerprint() != before


def test_the_archive_is_small_stored_and_holds_its_license_and_nothing_that_the_manifest_does_not_list():
    assert PHOTOGRAPHS.stat().st_size <= LARGEST
    with zipfile.ZipFile(PHOTOGRAPHS) as archive:
        members = archive.infolist()
        assert {member.compress_type for member in members} == {zipfile.ZIP_STORED}  # JPEG files do not shrink
        license_ = archive.read("LICENSE")
        some = Image.open(io.BytesIO(archive.read(GroceriesSource().scan().entries[0].path)))
    assert license_.startswith(b"MIT License")
    assert PHOTOGRAPHS.with_name("LICENSE-groceries.txt").read_bytes() == license_
    listed = {entry.path for entry in GroceriesSource().scan().entries}
    assert {member.filename for member in members} == listed | {"README.txt", "LICENSE", "manifest.csv"}
    assert min(some.size) == 256
    assert not some.getexif()


def test_a_folder_called_groceries_is_reached_by_its_path(folder, files, tmp_path, monkeypatch):
    folder(files("cats", "dogs"), "groceries")
    monkeypatch.chdir(tmp_path)
    found = find_source("./groceries").scan()
    assert Counter(entry.label for entry in found.entries) == {"cats": 2, "dogs": 2}


def test_a_misspelt_grocery_is_answered_with_the_name():
    with pytest.raises(DataError, match=r"no image set at 'grocerys'.*groceries"):
        find_source("grocerys")
