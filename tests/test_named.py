"""Image sets by name, read from small archives of the same form. The real ones are not downloaded here."""

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sightline.cli.main import main
from sightline.data.cache import open_images
from sightline.data.sources import cifar_mnist, downloads
from sightline.data.sources.cifar_mnist import NAMED, Cifar
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split
from sightline.errors import DataError
from sightline_runtime.decoding.decode import pixel_hash

TRAIN, TEST = 24, 8  # images of the small sets


def pixels_of(number: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def cifar_archive(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(f"inside/{name}")
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return file.getvalue()


def cifar_record(number: int, *labels: int) -> bytes:
    return bytes(labels) + pixels_of(number, 3, 32, 32).tobytes()


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return gzip.compress(head + values.tobytes())


def small_files(name: str) -> list[bytes]:
    """The files of a set that holds (i mod 2) as the label of image i; image i of test is number 1000 + i."""
    numbers = [range(TRAIN), range(1000, 1000 + TEST)]
    if name == "cifar10":
        names = b"airplane\nautomobile\n\n"
        batches = [b"".join(cifar_record(i, i % 2) for i in part) for part in (range(10), range(10, TRAIN), numbers[1])]
        members = zip(("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"), batches, strict=True)
        return [cifar_archive({"readme.html": b"<html>", **dict(members), "batches.meta.txt": names})]
    if name == "cifar100":
        parts = [b"".join(cifar_record(i, 7, i % 2) for i in part) for part in numbers]
        fine, coarse = b"apple\naquarium_fish\n", b"aquatic_mammals\n"
        texts = {"fine_label_names.txt": fine, "coarse_label_names.txt": coarse}
        return [cifar_archive({**texts, "train.bin": parts[0], "test.bin": parts[1]})]
    files = []
    for part in numbers:
        files += [idx(np.stack([pixels_of(i, 28, 28) for i in part])), idx(np.array([i % 2 for i in part], np.uint8))]
    return files


@pytest.fixture
def put(monkeypatch, cache_root):
    """Put a set's files where the download would, and their checksums into the table."""

    def make(name: str, contents: list[bytes] | None = None) -> Path:
        contents = small_files(name) if contents is None else contents
        folder = cache_root / "downloads" / name
        folder.mkdir(parents=True, exist_ok=True)
        known = NAMED[name]
        files = []
        for file, data in zip(known.files, contents, strict=True):
            (folder / file.name).write_bytes(data)
            files.append(replace(file, size=len(data), sha256=hashlib.sha256(data).hexdigest(), urls=()))
        changed = replace(known, file=files[0]) if isinstance(known, Cifar) else replace(known, files=tuple(files))
        monkeypatch.setitem(NAMED, name, changed)
        return folder

    return make


CLASSES = {
    "cifar10": ["airplane", "automobile"],
    "cifar100": ["apple", "aquarium_fish"],
    "mnist": ["0", "1"],
    "fashion-mnist": ["T-shirt/top", "Trouser"],
}


@pytest.mark.parametrize("name", NAMED)
def test_every_named_set_brings_its_splits_its_class_names_and_its_pixels(put, name):
    put(name)
    source = find_source(name)
    assert source.name == source.location == name  # what a recipe repeats and a run resumes
    images = open_images(source)
    assert images.classes == CLASSES[name]
    assert split(images).counts()["test"] == TEST
    assert images.splits == ["test"] * TEST + ["train"] * TRAIN  # in the order of the paths
    assert images.paths[:2] == ["test/00000.png", "test/00001.png"]
    assert images.labels.tolist() == [0, 1] * ((TEST + TRAIN) // 2)
    for row, number in enumerate([*range(1000, 1000 + TEST), *range(TRAIN)]):
        if name.startswith("cifar"):
            wanted = pixels_of(number, 3, 32, 32).transpose(1, 2, 0)
        else:
            wanted = np.stack([pixels_of(number, 28, 28)] * 3, axis=2)  # grey: three equal channels
        assert np.array_equal(images.pixels[row], wanted)
        assert images.hashes[row] == pixel_hash(wanted).hex()


@pytest.mark.parametrize("name", NAMED)
def test_every_named_set_hands_out_some_entries_as_it_hands_out_all(put, monkeypatch, name):
    put(name)
    monkeypatch.setattr(cifar_mnist, "_CHUNK", 7)  # ends within the files of the small sets
    source = find_source(name)
    entries = source.scan().entries
    every = dict(source.read(entries))
    assert sorted(every) == list(range(TRAIN + TEST))
    some = entries[3::5]
    found = dict(find_source(name).read(some))
    assert all(np.array_equal(found[i], every[3 + 5 * i]) for i in range(len(some)))


@pytest.mark.parametrize("name", NAMED)
def test_every_named_set_is_known_without_its_files(name, cache_root):
    assert len(find_source(name).fingerprint()) == 64
    assert not cache_root.exists()


def test_the_table_names_each_file_once_with_size_checksum_and_address():
    files = [file for known in NAMED.values() for file in known.files]
    assert [len(known.files) for known in NAMED.values()] == [1, 1, 4, 4]
    assert len({file.sha256 for file in files}) == len(files) == 10
    for file in files:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.size > 4_000
        assert file.urls
        assert all(url.endswith(f"/{file.name}") for url in file.urls)


def test_a_folder_of_the_same_name_is_meant_by_its_path(folder, files, monkeypatch):
    root = folder(files("cats", "dogs"), "mnist")
    monkeypatch.chdir(root.parent)
    assert find_source("./mnist").location == str(root)
    assert find_source("mnist").location == "mnist"


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(DataError, match=r"no image set at 'cifar-10'.*did you mean 'cifar10'"):
        find_source("cifar-10")


def test_an_archive_that_changed_after_its_download_is_refused(put):
    folder = put("cifar10")
    with (folder / "cifar-10-binary.tar.gz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is not the published file: .* delete it"):
        open_images(find_source("cifar10"))


@pytest.mark.parametrize(
    ("name", "contents", "sentence"),
    [
        ("cifar10", [small_files("cifar10")[0][:5000]], "cannot be read: .*; delete it and start again"),
        (
            "cifar10",  # the names come first, the images break off
            [cifar_archive({"batches.meta.txt": b"a\nb", "test_batch.bin": cifar_record(0, 1) * 9})[:-3000]],
            "cannot be read: .*; delete it and start again",
        ),
        ("cifar10", [cifar_archive({"data_batch_1.bin": bytes(3073)})], r"it has no batches\.meta\.txt"),
        (
            "cifar100",
            [cifar_archive({"fine_label_names.txt": b"a\nb", "train.bin": bytes(3073)})],
            r"train\.bin is no whole number of images",
        ),
        (
            "cifar10",
            [cifar_archive({"batches.meta.txt": b"a\nb", "data_batch_1.bin": cifar_record(0, 2)})],
            "class 2 has no name among 2",
        ),
        ("mnist", [b"no gzip", *small_files("mnist")[1:]], "train-images-idx3-ubyte.gz cannot be read"),
        ("mnist", [*small_files("mnist")[1::-1], *small_files("mnist")[2:]], "it is no idx file"),
        (
            "mnist",
            [small_files("mnist")[2], *small_files("mnist")[1:]],
            f"{TEST} images and {TRAIN} labels",
        ),
    ],
)
def test_an_archive_in_another_form_is_refused(put, name, contents, sentence):
    put(name, contents)
    with pytest.raises(DataError, match=sentence):
        open_images(find_source(name))


def test_a_set_that_is_decoded_needs_its_archive_no_more(put):
    folder = put("mnist")
    before = open_images(find_source("mnist"))
    for file in folder.iterdir():
        file.unlink()
    after = open_images(find_source("mnist"))
    assert after.fingerprint == before.fingerprint
    assert json.loads((after.folder / "index.json").read_text())["location"] == "mnist"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["cifar10", "--fit.epoks", "3"], ["cifar10", "--recipe", "fats"], ["cifar10", "--fit.epochs", "0"]],
)
def test_help_and_a_wrong_flag_download_nothing(arguments, monkeypatch, cache_root, capsys):
    monkeypatch.setattr(downloads.urllib.request, "urlopen", lambda *args, **named: pytest.fail("it went online"))
    assert main(["train", *arguments]) == (0 if arguments == ["--help"] else 2)
    assert not cache_root.exists()
    said = "".join(capsys.readouterr())
    assert "cifar100" in said if arguments == ["--help"] else "fit.epo" in said or "fats" in said


def test_a_training_by_name_can_be_repeated_by_its_recipe_and_evaluated(put, tmp_path):
    import sightline

    put("mnist")
    quick = {"fit": {"epochs": 1, "batch_size": 8}, "network": {"kind": "speednet", "widths": [8, 16, 16]}}
    run = sightline.train("mnist", recipe="small", settings=quick, run=tmp_path / "run")
    assert run is not None
    assert "image_set: mnist" in (run / "recipe.yaml").read_text()
    assert sightline.train(run=run, resume=True) == run
    assert sightline.evaluate(run, "mnist")["n"] == TEST
