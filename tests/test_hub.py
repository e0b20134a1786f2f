"""Sets of the Hugging Face hub, from a hub that the test plays. Needs the extra hf."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source
from sightline.data.sources.huggingface import CONVERTED, split_of
from sightline.data.splits import split
from sightline.errors import ConfigError, DataError, StorageError
from sightline.machine import extras

EXTRA = ("huggingface_hub", "pyarrow")
needs_hub = pytest.mark.skipif(
    any(importlib.util.find_spec(library) is None for library in EXTRA), reason="needs pip install '.[hf]'"
)


class Hub:
    """Plays the hub: Parquet files in a folder for each branch. Counts what it is asked."""

    def __init__(self, root: Path) -> None:
        self.root, self.online, self.asked, self.gone = root, True, [], ""

    def put(self, revision: str | None, path: str, label: Any, images: list[bytes], **other: Any) -> None:
        import pyarrow
        import pyarrow.parquet

        names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
        columns = {"image": [{"bytes": data, "path": None} for data in images], "label": label} | other
        table = pyarrow.table({name: column for name, column in columns.items() if column is not None})
        target = self.root / self.sha(revision) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), target)

    @staticmethod
    def sha(revision: str | None) -> str:
        return "c0ffee" if revision == CONVERTED else "decade"

    def dataset_info(self, repository, *, revision=None, timeout=None, files_metadata=False):
        from huggingface_hub.errors import RevisionNotFoundError

        self.asked.append((repository, revision))
        if not self.online:
            raise ConnectionError("no route to the hub")
        branch = self.root / self.sha(revision)
        if revision == self.gone or (not branch.exists() and revision is not None):
            answer = SimpleNamespace(headers={}, request=None)
            raise RevisionNotFoundError("no such branch", response=answer)
        files = [path for path in branch.rglob("*") if path.is_file()]
        siblings = [
            SimpleNamespace(rfilename=path.relative_to(branch).as_posix(), size=path.stat().st_size) for path in files
        ]
        return SimpleNamespace(sha=self.sha(revision), siblings=siblings)

    def hf_hub_download(self, repository, path, *, repo_type, revision, etag_timeout):
        assert repo_type == "dataset"
        self.asked.append(path)
        return str(self.root / revision / path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that holds nothing yet."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("pyarrow")
    played = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, *a, **k: played.dataset_info(*a, **k))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", played.hf_hub_download)
    return played


@pytest.mark.parametrize("missing", EXTRA)
def test_without_its_libraries_the_pip_line_is_named(monkeypatch, missing):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None if name == missing else True)
    with pytest.raises(ConfigError) as refused:
        find_source("hf:someone/pets")
    assert str(refused.value) == (
        f"the set hf:someone/pets needs {missing}, which is not installed; run: pip install '.[hf]'"
    )


@pytest.mark.parametrize("name", ["hf:", "hf:mnist", "hf:a/b/c/d", "hf:../b", "hf:a/..", "hf:a b/c", "hf://a/b"])
def test_a_name_that_the_hub_cannot_have_is_refused(name):
    with pytest.raises(DataError, match=r"names no set of the hub; wanted hf:OWNER/NAME"):
        find_source(name)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("default/train/0000.parquet", "train"),
        ("plain_text/test/0001.parquet", "test"),
        ("default/validation/0000.parquet", "val"),
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/valid-00000-of-00001.parquet", "val"),
        ("test.parquet", "test"),
        ("default/extra/0000.parquet", None),
        ("data/contest.parquet", None),
    ],
)
def test_the_split_of_a_file_is_known_by_its_path(path, wanted):
    assert split_of(path) == wanted


def test_a_converted_set_brings_its_splits_and_class_names_and_is_asked_for_once(hub, files):
    cats, dogs = (list(files(name, images=6).values()) for name in ("cats", "dogs"))
    more = list(files("x", "y", "z", images=6).values())
    hub.put(CONVERTED, "default/train/0000.parquet", [0] * 6 + [1] * 6, more[:6] + more[6:12])
    hub.put(CONVERTED, "default/train/0001.parquet", [0, 1], [more[12], more[13]])
    hub.put(CONVERTED, "default/test/0000.parquet", [1, 0], [more[14], more[15]])
    assert cats == dogs  # the same pixels: files() counts its classes
    source = find_source("hf:someone/pets")
    images = open_images(source)
    assert (source.name, source.location, images.location) == ("pets", "hf:someone/pets", "hf:someone/pets")
    assert images.classes == ["cat", "dog"]
    assert split(images).counts()["test"] == 2
    assert images.paths[0] == "default/test/0000/00000000"
    assert images.labels.tolist() == [1, 0] + [0] * 6 + [1] * 6 + [0, 1]
    assert hub.asked[:2] == [("someone/pets", CONVERTED)] * 2
    asked = len(hub.asked)
    hub.online = False
    again = open_images(find_source("hf:someone/pets"))  # in a later process: the commit was kept
    assert again.fingerprint == images.fingerprint
    assert len(hub.asked) == asked


def test_other_splits_and_images_without_a_label_are_left_out_and_counted(hub, files):
    images = list(files("x", images=8).values())
    hub.put(CONVERTED, "default/train/0000.parquet", [0, 1, -1, None], images[:4])
    hub.put(CONVERTED, "default/unsupervised/0000.parquet", [-1, -1, -1], images[4:7])
    listing = find_source("hf:someone/pets").scan()
    assert [entry.label for entry in listing.entries] == ["cat", "dog"]
    assert listing.ignored == {
        "images without a label": 2,
        "images in default/unsupervised/0000.parquet, which is neither train, validation nor test": 3,
    }


def test_a_set_that_the_hub_has_not_converted_is_read_from_its_own_parquet_files(hub, files):
    hub.put(None, "data/train-00000-of-00001.parquet", [0, 1], list(files("x").values()))
    (hub.root / hub.sha(None) / "load_me.py").write_text("raise SystemExit('never run')")
    assert len(find_source("hf:someone/pets").scan().entries) == 2
    assert hub.asked[-1] == "data/train-00000-of-00001.parquet"


def test_a_version_that_the_hub_no_longer_has_is_refused_and_the_record_of_it_named(hub, cache_root):
    record = cache_root / "downloads" / "hf" / "someone--pets.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"commit": "c" * 40, "files": [["default/train/0000.parquet", 100]]}))
    hub.gone = "c" * 40
    with pytest.raises(
        DataError, match=r"no longer has the version of hf:someone/pets .* delete .*someone--pets\.json"
    ):
        find_source("hf:someone/pets").scan()


def test_a_set_that_the_hub_has_converted_only_in_part_is_read_from_its_own_parquet_files(hub, files):
    hub.put(CONVERTED, "default/partial-train/0000.parquet", [0, 1], list(files("x").values()))
    hub.put(None, "train.parquet", [0, 1, 0], list(files("x", images=3).values()))
    assert len(find_source("hf:someone/pets").scan().entries) == 3


def test_a_set_without_parquet_files_is_refused(hub):
    with pytest.raises(DataError, match=r"hf:someone/pets has no Parquet files, and the hub has not converted it;"):
        find_source("hf:someone/pets").fingerprint()


def test_of_several_subsets_one_must_be_named(hub, files):
    images = list(files("x").values())
    for subset in ("small", "large"):
        hub.put(CONVERTED, f"{subset}/train/0000.parquet", [0, 1], images)
    with pytest.raises(DataError, match=r"has several subsets: name one of large, small, as in hf:someone/pets/large"):
        find_source("hf:someone/pets").scan()
    with pytest.raises(DataError, match="has no such subset: name one of large, small"):
        find_source("hf:someone/pets/medium").scan()
    source = find_source("hf:someone/pets/small")
    assert source.location == "hf:someone/pets/small"
    assert source.scan().entries[0].path == "small/train/0000/00000000"


@pytest.mark.parametrize("column", ["labels", "fine_label"])
def test_other_usual_names_of_the_columns_are_known(hub, files, column):
    data = list(files("x").values())
    pictures = [{"bytes": image, "path": None} for image in data]
    hub.put(
        CONVERTED, "a/train/0.parquet", None, data, image=None, img=pictures, coarse_label=[0, 0], **{column: [3, 4]}
    )
    images = open_images(find_source("hf:someone/pets"))
    assert images.classes == ["3", "4"]


def test_unknown_columns_are_named(hub, files):
    hub.put(CONVERTED, "a/train/0.parquet", None, list(files("x").values()), target=[0, 1])
    with pytest.raises(
        DataError,
        match=r"a/train/0\.parquet of hf:someone/pets has no column of labels \('label' or 'labels' or 'fine_label';"
        r" found: image, target\)",
    ):
        find_source("hf:someone/pets").scan()


def test_a_disk_without_room_is_refused_before_the_download(hub, files, monkeypatch):
    from sightline.data.sources import downloads

    hub.put(CONVERTED, "a/train/0.parquet", [0, 1], list(files("x").values()))
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match=r"the download of hf:someone/pets needs .* free space or set HF_HOME"):
        find_source("hf:someone/pets").scan()
    assert not [asked for asked in hub.asked if isinstance(asked, str)]


@needs_hub
@pytest.mark.parametrize("kept", [False, True], ids=["never read", "read once, and the hub's cache was emptied"])
def test_without_a_network_it_fails_within_three_seconds_with_one_sentence(tmp_path, kept):
    if kept:
        record = tmp_path / "ours" / "downloads" / "hf" / "someone--pets.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"commit": "c" * 40, "files": [["default/train/0000.parquet", 100]]}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{free.getsockname()[1]}"
    program = (
        "import time; from huggingface_hub import HfApi\n"
        "from sightline.data.sources.find_source import find_source; from sightline.data.cache import open_images\n"
        "start = time.perf_counter()\n"
        "try: open_images(find_source('hf:someone/pets'))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "assert time.perf_counter() - start < 3\n"
    )
    settings = os.environ | {
        "HF_ENDPOINT": refusing,
        "HF_HOME": str(tmp_path),
        "SIGHTLINE_CACHE": str(tmp_path / "ours"),
    }
    found = subprocess.run(
        [sys.executable, "-c", program], env=settings, capture_output=True, text=True, check=False, timeout=60
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout == (
        "DataError hf:someone/pets could not be read from the hub (Connection refused); start again with a connection"
        " (what has arrived is kept), or download the set and name its file or folder.\n"
    )


@needs_hub
def test_a_hub_that_never_answers_is_given_up_after_three_seconds(hub, monkeypatch):
    from sightline.data.sources import huggingface as module

    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.1)
    hub.dataset_info = lambda *args, **kwargs: time.sleep(2)
    with pytest.raises(DataError, match=r"\(no answer in 0 s\)"):
        find_source("hf:someone/pets").fingerprint()
