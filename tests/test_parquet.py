"""Parquet files: as manifests of paths, and with the images inside. Needs the extra parquet."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source
from sightline.data.sources.unlabeled import plain_files
from sightline.data.splits import split
from sightline.errors import ConfigError, DataError
from sightline.machine import extras
from sightline_runtime.decoding.decode import decode

needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pip install '.[parquet]'")


def write(path: Path, columns: dict[str, Any], names: list[str] | None = None, rows_in_a_group: int = 5) -> str:
    """Write a table; ``names`` makes its label a ClassLabel of Hugging Face's."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(columns)
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path, row_group_size=rows_in_a_group, use_dictionary=["label"])
    return str(path)


def as_struct(images: list[bytes | None]) -> list[dict[str, Any]]:
    return [{"bytes": data, "path": f"{index}.png"} for index, data in enumerate(images)]


def test_without_pyarrow_the_pip_line_is_named_before_anything_is_read(tmp_path, monkeypatch):
    (tmp_path / "set.parquet").write_bytes(b"")
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as refused:
        find_source(tmp_path / "set.parquet")
    assert str(refused.value) == (
        f"the Parquet file {tmp_path / 'set.parquet'} needs pyarrow, which is not installed;"
        " run: pip install '.[parquet]'"
    )


@needs_pyarrow
@pytest.mark.parametrize("form", ["paths", "bytes", "structs"])
def test_a_table_gives_the_same_pixels_labels_and_splits_as_the_files(folder, files, tmp_path, form):
    contents = files("cats", "dogs", images=12)
    root = folder(contents)
    columns: dict[str, Any] = {
        "label": [path.split("/")[0] for path in contents],
        "split": [("train", "validation", "test")[index % 3] for index in range(24)],
        "group": list(range(24)),
    }
    if form == "paths":
        columns["path"] = list(contents)
    else:
        columns["image"] = list(contents.values()) if form == "bytes" else as_struct(list(contents.values()))
    source = find_source(write(root / "set.parquet", columns))
    images = open_images(source)
    assert (source.name, source.location) == ("set", str(root / "set.parquet"))
    assert images.classes == ["cats", "dogs"]
    assert images.groups[:3] == ["0", "1", "2"]
    assert split(images).counts() == {"train": 8, "validation": 8, "test": 8}
    for row, (path, data) in enumerate(contents.items()):
        assert images.hashes[row] == open_images(find_source(root)).hashes[row]
        assert images.classes[images.labels[row]] == path.split("/")[0]
        assert images.paths[row] == (path if form == "paths" else f"set.parquet/{row:08d}")
        assert decode(data).shape == (8, 8, 3)


@needs_pyarrow
def test_some_rows_are_read_as_they_are_among_all_and_other_row_groups_are_left_alone(files, tmp_path):
    contents = list(files("a", "b", images=20).values())
    path = write(tmp_path / "set.parquet", {"label": ["a", "b"] * 20, "image": as_struct(contents)}, None, 7)
    source = find_source(path)
    entries = source.scan().entries
    assert dict(source.read(entries)) == dict(enumerate(contents))
    assert dict(source.read(entries[3::9])) == dict(enumerate(contents[3::9]))
    assert dict(source.read(entries[::-1])) == dict(enumerate(contents[::-1]))


@needs_pyarrow
def test_whole_numbers_get_the_names_of_their_class_label(files, tmp_path):
    images = list(files("x", images=4).values())
    path = tmp_path / "set.parquet"
    source = find_source(write(path, {"label": [1, 0, 1, 0], "image": images}, ["cat", "dog"]))
    assert [entry.label for entry in source.scan().entries] == ["dog", "cat", "dog", "cat"]
    source = find_source(write(path, {"label": [1, 0, 1, 0], "image": images}))
    assert [entry.label for entry in source.scan().entries] == ["1", "0", "1", "0"]


@needs_pyarrow
def test_a_row_without_bytes_is_left_out_and_named(files, tmp_path):
    images: list[bytes | None] = list(files("x", images=6).values())
    images[2] = None
    found = open_images(
        find_source(write(tmp_path / "set.parquet", {"label": list("ababab"), "image": as_struct(images)}))
    )
    assert found.left_out == [("set.parquet/00000002", "row 2 holds no bytes")]
    assert len(found.readable) == 5


@needs_pyarrow
def test_a_changed_table_changes_its_fingerprint(files, tmp_path):
    images = list(files("x", images=4).values())
    path = write(tmp_path / "set.parquet", {"label": list("abab"), "image": images})
    before = find_source(path).fingerprint()
    assert find_source(path).fingerprint() == before
    write(tmp_path / "set.parquet", {"label": list("ababa"), "image": [*images, images[0]]})
    assert find_source(path).fingerprint() != before


PNG = b"\x89PNG"


@needs_pyarrow
@pytest.mark.parametrize(
    ("columns", "names", "sentence"),
    [
        (
            {"picture": [PNG] * 2, "kind": ["a", "b"]},
            None,
            r"no column of labels \('label' or .*; found: picture, kind\)",
        ),
        (
            {"pixels": [PNG] * 2, "label": ["a", "b"]},
            None,
            r"no column of images .*\('image' or 'path'; found: pixels,",
        ),
        ({"image": [PNG] * 2, "path": ["a", "b"], "label": ["a", "b"]}, None, "columns image and path; leave one"),
        ({"image": [PNG] * 2, "label": [0.0, 0.5]}, None, r"row 1: label 0\.5 is no whole number; wanted words or"),
        ({"image": [PNG] * 2, "label": [[0], [1]]}, None, "'label' of .* holds list.*; wanted words or whole numbers"),
        (
            {"image": [PNG] * 2, "label": [0, 2]},
            ["a", "b"],
            r"row 1: label 2 has no name among the 2 of its ClassLabel",
        ),
        ({"image": [PNG] * 2, "label": ["a", "a"]}, None, "only one class, 'a'"),
        ({"image": [PNG] * 2, "label": ["a", "b"], "split": ["train", "odd"]}, None, "row 1: unknown split 'odd'"),
        ({"path": ["../a.png", "b.png"], "label": ["a", "b"]}, None, r"row 0: there is no file '.*a\.png', nor any"),
        ({"path": ["/dev/zero", "b.png"], "label": ["a", "b"]}, None, r"row 0: '/dev/zero' is a device; wanted"),
        ({"path": ["", "b.png"], "label": ["a", "b"]}, None, "row 0: the path is empty"),
    ],
)
def test_a_table_that_is_no_image_set_is_refused(tmp_path, columns, names, sentence):
    source = find_source(write(tmp_path / "set.parquet", columns, names))
    with pytest.raises(DataError, match=sentence):
        source.scan()


@needs_pyarrow
def test_images_of_another_kind_than_bytes_are_refused(tmp_path):
    source = find_source(write(tmp_path / "set.parquet", {"image": [1, 2], "label": ["a", "b"]}))
    with pytest.raises(DataError, match=r"column 'image' of .* holds int64; wanted the bytes of image files"):
        open_images(source)


@needs_pyarrow
@pytest.mark.parametrize("broken", [b"", b"PAR1 no table", "the first half"])
def test_a_file_that_is_no_parquet_file_is_refused(tmp_path, files, broken):
    path = tmp_path / "set.parquet"
    write(path, {"label": list("ab"), "image": list(files("x").values())})
    path.write_bytes(path.read_bytes()[:100] if isinstance(broken, str) else broken)
    with pytest.raises(
        DataError, match=r"manifest .*set\.parquet cannot be read as a Parquet file \(.*\); download or"
    ):
        open_images(find_source(path))


@needs_pyarrow
def test_of_a_table_a_few_row_groups_at_most_are_in_memory(tmp_path):
    image = np.random.default_rng(0).bytes(100_000)
    path = write(tmp_path / "set.parquet", {"label": ["a", "b"] * 200, "image": as_struct([image] * 400)}, None, 20)
    program = (
        "import pyarrow\n"
        "from sightline.data.sources.find_source import find_source\n"
        f"source = find_source({path!r})\n"
        "assert sum(len(data) for _, data in source.read(source.scan().entries)) == 40_000_000\n"
        "print(pyarrow.default_memory_pool().max_memory())\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 15_000_000  # of 40 MB in 20 groups


@needs_pyarrow
def test_rows_without_a_label_are_left_out_and_counted_and_those_of_a_test_apart(files, tmp_path):
    images = list(files("x", images=6).values())
    path = tmp_path / "set.parquet"
    columns = {"image": images, "label": ["a", "b", None, "a", "nan", ""], "split": [None] * 4 + ["test"] * 2}
    listing = find_source(write(path, columns)).scan()
    assert [entry.path for entry in listing.entries] == [f"set.parquet/{row:08d}" for row in (0, 1, 3)]
    assert listing.ignored == {"rows without a label": 1, "test rows without a label": 2}
    listing = find_source(write(path, {"image": images, "label": [0, 1, -1, 0, 1, -1]}, ["cat", "dog"])).scan()
    assert [entry.label for entry in listing.entries] == ["cat", "dog", "cat", "dog"]
    assert listing.ignored == {"rows without a label": 2}


@needs_pyarrow
def test_whole_numbers_that_a_column_with_gaps_made_fractions_of_are_whole_again(files, tmp_path):
    images = list(files("x", images=4).values())
    listing = find_source(
        write(
            tmp_path / "set.parquet",
            {"image": images, "label": [0.0, 1.0, float("nan"), 0.0], "group": [1.0, 2.0, 3.0, 2.0]},
        )
    ).scan()
    assert [(entry.label, entry.group) for entry in listing.entries] == [("0", "1"), ("1", "2"), ("0", "2")]


@needs_pyarrow
@pytest.mark.parametrize(
    "names", [("image", "Label"), ("File", "class"), ("file_name", "TARGET"), ("image_id", "Category")]
)
def test_columns_of_paths_go_by_their_usual_names(folder, files, tmp_path, names):
    root = folder(files("a", "b"))
    path = write(root / "set.parquet", {names[0]: ["a/00.png", "b/00"], names[1]: ["x", "y"]})
    assert [(entry.path, entry.label) for entry in find_source(path).scan().entries] == [
        ("a/00.png", "x"),
        ("b/00.png", "y"),
    ]


@needs_pyarrow
def test_one_file_with_two_labels_in_a_table_is_refused_with_both(folder, files):
    root = folder(files("a", "b"))
    path = write(root / "set.parquet", {"path": ["a/00.png", "b/00.png", "./a/00.png"], "label": ["x", "y", "y"]})
    with pytest.raises(DataError, match=r"gives 'a/00\.png' two labels, 'x' \(row 0\) and 'y' \(row 2\)"):
        find_source(path).scan()


@needs_pyarrow
def test_a_classifier_can_be_asked_about_a_table_with_or_without_labels(folder, files):
    contents = files("a", "b")
    root = folder(contents)
    found = plain_files(write(root / "paths.parquet", {"path": list(contents)}))
    assert dict(found.read()) == {f"{root}/{path}": data for path, data in contents.items()}
    found = plain_files(write(root / "images.parquet", {"image": list(contents.values())}))
    assert list(found.read()) == [
        (f"{root}/images.parquet/{row:08d}", data) for row, data in enumerate(contents.values())
    ]
