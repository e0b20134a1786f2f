"""What a classifier can be asked about: manifests, patterns and lists on standard input."""

import io
import os
from pathlib import Path
from typing import Any

import pytest

from sightline.data.sources.find_source import find_source
from sightline.data.sources.unlabeled import plain_files
from sightline.errors import DataError
from test_manifests import odd_files, put


@pytest.fixture
def root(folder, files) -> Path:
    """Two images of each of two classes, and their folder."""
    made: Path = folder(files("a", "b"))
    return made


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("set.csv", "path\na/00.png\nb/00.png\n"),
        ("set.tsv", "file\tlabel\na/00.png\t\nb/00\tnan\n"),
        ("set.txt", "image;label\na/00.png;x\nb/00.png;y\n"),
        ("set.jsonl", '{"id": "a/00"}\n{"id": "b/00.png"}\n{"id": "a/00.png"}\n'),
    ],
)
def test_a_manifest_names_images_to_ask_about_with_labels_or_without(root, files, name, text):
    found = plain_files(put(root, text, name))
    contents = files("a", "b")
    assert found.names == [f"{root}/a/00.png", f"{root}/b/00.png"]
    assert dict(found.read()) == {f"{root}/{path}": contents[path] for path in ("a/00.png", "b/00.png")}


def test_a_manifest_without_a_column_of_paths_names_none(root):
    with pytest.raises(
        DataError, match=r"has no column 'path' \(found: label\); its first line must name path \(or file"
    ):
        plain_files(put(root, "label\nx\n"))


def test_a_pattern_names_the_files_that_match_it(root, files, monkeypatch):
    monkeypatch.chdir(root)
    assert plain_files("a/*.png").names == ["a/00.png", "a/01.png"]
    assert plain_files("?/0[1]*").names == ["a/01.png", "b/01.png"]
    assert plain_files("**/00.png").names == ["a/00.png", "b/00.png"]
    assert plain_files("*").names == ["a/00.png", "a/01.png", "b/00.png", "b/01.png"]
    assert dict(plain_files("b/*").read()) == {path: data for path, data in files("a", "b").items() if path[0] == "b"}
    with pytest.raises(DataError, match=r"no images match '\*\.gif'; check the spelling of the pattern"):
        plain_files("*.gif")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(root, monkeypatch):
    monkeypatch.chdir(root)
    (root / "a[1].png").write_bytes(b"x")
    assert list(plain_files("a[1].png").read()) == [("a[1].png", b"x")]


class Standard:
    """Standard input that holds some bytes."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


@pytest.mark.parametrize(
    "data",
    [
        b"a/00.png\nb/00.png\n",
        b"a/00.png\r\n\r\nb/00.png",
        b"a/00.png\0b/00.png\0",
        b"label,path\nx,a/00.png\ny,b\\00\n",
        b"\xef\xbb\xbfa/00.png\nb/00.png\n",
        "a/00.png\r\nb/00.png\r\n".encode("utf-16"),
    ],
)
def test_a_list_on_standard_input_names_images(root, files, monkeypatch, data):
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.stdin", Standard(data))
    found = plain_files("-")
    contents = files("a", "b")
    assert found.names == ["a/00.png", "b/00.png"]
    assert dict(found.read()) == {path: contents[path] for path in ("a/00.png", "b/00.png")}
    assert plain_files(found) is found  # it can be read but once


def test_a_list_keeps_odd_names_and_opens_folders_and_names_what_is_missing(root, monkeypatch):
    monkeypatch.chdir(root)
    (root / os.fsdecode(b"caf\xe9, 1.png")).write_bytes(b"x")
    monkeypatch.setattr("sys.stdin", Standard(b"caf\xe9, 1.png\na\nmissing.png\n/dev/zero\n"))
    found = dict(plain_files("-").read())
    assert list(found) == [os.fsdecode(b"caf\xe9, 1.png"), "a/00.png", "a/01.png", "missing.png", "/dev/zero"]
    assert str(found["/dev/zero"]) == "it is a device; wanted a file"
    assert isinstance(found["missing.png"], FileNotFoundError)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "standard input is empty; wanted the path of an image a line"),
        (b"\n \n", "standard input is empty"),
        (b"a/00.png\nhttps://example.org/a.png\n", "standard input, line 2: 'https://example.org/a.png' is an address"),
    ],
)
def test_a_list_that_names_no_files_is_refused(root, monkeypatch, data, sentence):
    monkeypatch.setattr("sys.stdin", Standard(data))
    with pytest.raises(DataError, match=sentence):
        plain_files("-")


@pytest.mark.parametrize(
    "text", ["https://example.org/a.png", "HTTP://example.org", "s3://bucket/a.png", "https:a.png"]
)
@pytest.mark.parametrize("what", [plain_files, find_source])
def test_an_address_is_answered_with_what_to_do(what: Any, text):
    with pytest.raises(DataError, match=rf"'{text}' is an address, and images are not fetched from there; download it"):
        what(text)


def test_a_device_is_unreadable_and_a_pipe_of_the_shell_is_read(root):
    odd = odd_files(root)
    for name in odd:
        full = name if name.startswith("/") else f"{root}/{name}"
        if name != "s.png":
            assert str(dict(plain_files(full).read())[full]).startswith("it is a ")
    reading, writing = os.pipe()
    os.write(writing, b"bytes")
    os.close(writing)
    assert dict(plain_files(f"/dev/fd/{reading}").read()) == {f"/dev/fd/{reading}": b"bytes"}
    os.close(reading)
