"""Tables as people have them: read right, or refused with the line."""

import json
import os
import socket
from pathlib import Path

import pytest

from sightline.data.cache import open_images
from sightline.data.sources.find_source import always_labeled, find_source
from sightline.data.sources.unlabeled import plain_files
from sightline.errors import DataError


@pytest.fixture
def root(folder, files) -> Path:
    """Two images of each of two classes, and their folder."""
    made: Path = folder(files("a", "b"))
    return made


def put(root: Path, text: str | bytes, name: str = "set.csv") -> str:
    (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return str(root / name)


def rows(path: str) -> list[tuple[str, str]]:
    return [(entry.path, entry.label) for entry in find_source(path).scan().entries]


TWO = [("a/00.png", "x"), ("b/00.png", "y")]


# ── separators, encodings, suffixes ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_separator_and_encoding_gives_the_same_rows(root, separator, encoding):
    text = f"path{separator}label\r\na/00.png{separator}é\r\nb/00.png{separator}花\r\n"
    assert rows(put(root, text.encode(encoding))) == [("a/00.png", "é"), ("b/00.png", "花")]


@pytest.mark.parametrize("name", ["set.tsv", "set.TSV", "set.txt", "set.csv"])
def test_tabs_are_read_whatever_the_file_is_called(root, name):
    path = put(root, "path\tlabel\na/00.png\tx\nb/00.png\ty\n", name)
    assert rows(path) == TWO
    assert always_labeled(path)


def test_a_text_file_of_a_spreadsheet_in_utf_16_is_a_table(root):
    assert rows(put(root, "Path\tLabel\r\na\\00.png\tx\r\nb\\00.png\ty\r\n".encode("utf-16"), "set.txt")) == TWO


@pytest.mark.parametrize("text", ["", "a/00.png\nb/00.png\n", "dear path,\nlabel it\n", "\0\1\2", "path label\na x\n"])
def test_a_text_file_that_is_no_table_is_no_image_set(root, text):
    with pytest.raises(DataError, match=r"set\.txt' is no image set; wanted a folder"):
        find_source(put(root, text, "set.txt"))


def test_a_label_may_hold_the_other_separators(root):
    assert rows(put(root, 'path;label\na/00.png;one, two\nb/00.png;"three; four"\n')) == [
        ("a/00.png", "one, two"),
        ("b/00.png", "three; four"),
    ]


def test_the_line_in_which_excel_is_told_the_separator_is_no_header(root):
    path = put(root, "sep=;\npath;label\na/00.png;x\nb/00.png;y\n")
    assert rows(path) == TWO
    put(root, "sep=;\npath;label\na/00.png;x\n/dev/null;y\n")
    with pytest.raises(DataError, match="line 4: '/dev/null' is a device"):
        rows(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_blank_lines_and_rows_of_nothing_but_separators_are_no_rows(root, end):
    assert rows(put(root, end.join(["", "path,label", "", "a/00.png,x", ",", " , ", "b/00.png,y", "", ""]))) == TWO


def test_json_lines_are_a_manifest_too(root):
    lines = [{"file_name": "a/00.png", "label": 0, "boxes": [1, 2]}, {"file_name": "b/00.png", "label": 1.0}]
    assert rows(put(root, "\n".join(map(json.dumps, lines)), "set.jsonl")) == [("a/00.png", "0"), ("b/00.png", "1")]


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path", ["path", "File", "FILENAME", "file_name", "File Name", "image", "Image_ID", "image-id", "ID"]
)
@pytest.mark.parametrize("label", ["label", "Class", "TARGET", "Category"])
def test_columns_go_by_their_usual_names_in_any_case_and_order(root, path, label):
    assert rows(put(root, f"note,{label},{path}\n?,x,a/00.png\n?,y,b/00.png\n")) == TWO


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("id,file_name,label,class", None),
        ("id,path,image,label", None),
        (",path,label", None),
        ("file,image,label", r"has the columns 'file' and 'image', and only one can be meant; name that one 'path'"),
        ("path,class,target", r"the columns 'class' and 'target', .*; name that one 'label', or delete the others"),
        ("path,label,Label", r"the columns 'label' and 'Label'"),
        (
            "a/00.png,cat",
            r"no column 'path' and no column 'label' \(found: a/00\.png, cat\); its first line must name path",
        ),
        ("path,species", r"has no column 'label' \(found: path, species\); its first line must name path,label.*class"),
        ("name,label", r"has no column 'path' \(found: name, label\)"),
    ],
)
def test_of_several_columns_the_better_name_wins_and_a_tie_is_refused(root, header, sentence):
    names = header.split(",")
    values = {"path": ["a/00.png", "b/00.png"], "file_name": ["a/00.png", "b/00.png"], "label": ["x", "y"]}
    lines = [",".join(values.get(name, ["0", "1"])[row] for name in names) for row in range(2)]
    path = put(root, "\n".join([header, *lines]))
    if sentence is None:
        assert rows(path) == TWO
    else:
        with pytest.raises(DataError, match=sentence):
            rows(path)


def test_a_split_by_another_name_counts_where_it_holds_splits_alone(root):
    path = put(root, "path,label,Subset\na/00.png,x,train\nb/00.png,y,TEST\n")
    assert [entry.split for entry in find_source(path).scan().entries] == ["train", "test"]
    put(root, "path,label,Subset\na/00.png,x,train\nb/00.png,y,7\n")
    assert [entry.split for entry in find_source(path).scan().entries] == [None, None]


def test_splits_of_a_table_go_by_the_words_of_people(root):
    words = ["Train", "TRAIN_SET", "training", "dev", "Validation", "hold-out", "Test Set", "", "nan"]
    lines = [f"{'ab'[index % 2]}/00.png,{'xy'[index % 2]},{word}" for index, word in enumerate(words)]
    entries = find_source(put(root, "\n".join(["path,label,Split", *lines]))).scan().entries
    assert [entry.split for entry in entries] == ["train"] * 3 + ["val"] * 2 + ["test"] * 2 + [None] * 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "path,label\na/00.png,x\nb/0,0.png,y\n",
            r"line 3: 3 cells, and the first line names 2 columns \('b/0,0\.png,y'\)",
        ),
        ('path,label\na/00.png,"x\nb/00.png,y\n', r"line 2: no row of CSV \(a quote that begins there does not end\)"),
        ('path,label\na/00.png,"x"y\n', r"line 2: no row of CSV \(.*\); mend or delete the line"),
        (f"path,label\na/00.png,{'x' * 200_000}\n", r"line 2: no row of CSV \(a cell of more than 131,072 letters\)"),
        (f"path,label\na/00.png,{'x' * 2_000}\n", r"line 2: the label 'x+\.\.\.x+' is too long"),
        ("path,label\na/00\0.png,x\n", r"line 2: 'a/00\\x00\.png' holds a NUL, which no path can"),
        (
            b"path,label\na/00.png,x\nb/00.png,caf\xe9\n",
            r"is no UTF-8 CSV file \(line 3 holds the byte 0xe9\); save it as one",
        ),
        ("path,label\nhttps://example.org/a.png,x\n", r"line 2: 'https://example\.org/a\.png' is an address; download"),
        ("path,label\nC:\\photos\\a.png,x\n", r"line 2: 'C:/photos/a\.png' is a path of Windows, which is not on this"),
        ("path,label\n\\\\server\\a.png,x\n", r"line 2: '//server/a\.png' is a path of Windows"),
        ("path,label\na,x\n", r"line 2: 'a' is a folder; wanted an image file"),
        ("path,label\na/00.png,x\n,y\n", r"line 3: the path is empty; fill it in or delete the line"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_its_line(root, text, sentence):
    with pytest.raises(DataError, match=sentence):
        rows(put(root, text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"path": "a/00.png", "label": "x"}\n{"path"\n', r"line 2: no JSON \(.*\); mend or delete the line"),
        ('["a/00.png", "x"]\n', r"line 1: .* is no JSON object; wanted \{\.\.\.\} a line"),
        ('{"path": "a/00.png", "label": ["x"]}\n', r"line 1: .* is no text and no number; wanted one value a row"),
        ("[" * 100_000 + "\n", r"line 1: no JSON"),
    ],
)
def test_a_line_of_json_that_cannot_be_used_is_refused_with_its_number(root, text, sentence):
    with pytest.raises(DataError, match=sentence):
        rows(put(root, text, "set.jsonl"))


# ── labels ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_without_a_label_are_left_out_and_counted_and_those_of_a_test_apart(root):
    text = "path,label,split\na/00.png,x,\na/01.png,nan,\na/01.png,,train\nb/00.png,y,\nb/01.png, NaN ,test\nb/01.png,,test\n"
    listing = find_source(put(root, text)).scan()
    assert [entry.path for entry in listing.entries] == ["a/00.png", "b/00.png"]
    assert listing.ignored == {"rows without a label": 2, "test rows without a label": 2}
    assert open_images(find_source(put(root, text))).ignored == dict(listing.ignored)


def test_a_row_that_ends_before_its_label_has_none(root):
    listing = find_source(put(root, "path,label\na/00.png,x\nb/00.png,y\nb/01.png\n")).scan()
    assert listing.ignored == {"rows without a label": 1}


@pytest.mark.parametrize("word", ["None", "null", "NA", "n/a", "none"])
def test_a_word_that_may_be_a_class_is_one(root, word):
    assert rows(put(root, f"path,label\na/00.png,{word}\nb/00.png,y\n")) == [("a/00.png", word), ("b/00.png", "y")]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["0", "0.0", "1", "1.0"], ["0", "0", "1", "1"]),
        (["0.0", "1.0", "2.0", "0.0"], ["0", "1", "2", "0"]),
        (["0.000e+00", "1.000e+00", "0", "1"], ["0", "1", "0", "1"]),
        (["1", "1.0", "1.5", "1.50"], ["1", "1", "1.5", "1.5"]),
        (["1.0", "1.1", "2.0", "1.0"], ["1.0", "1.1", "2.0", "1.0"]),  # versions
        (["007", "7", "07", "7.0"], ["007", "7", "07", "7"]),
        (["1E2", "100", "A1", "1E2"], ["1E2", "100", "A1", "1E2"]),  # wells of a plate
        (["cafe\u0301", "caf\u00e9", "tea", "tea"], ["café", "café", "tea", "tea"]),
    ],
)
def test_numbers_that_are_equal_are_one_class(root, labels, classes):
    paths = ["a/00.png", "a/01.png", "b/00.png", "b/01.png"]
    text = "path,label\n" + "\n".join(map(",".join, zip(paths, labels, strict=True)))
    assert [label for _, label in rows(put(root, text))] == classes


def test_a_file_may_be_listed_again_with_the_same_label_and_with_no_other(root):
    assert rows(put(root, "path,label\na/00.png,0\nb/00.png,1\n./a/00.png,0.0\n")) == [
        ("a/00.png", "0"),
        ("b/00.png", "1"),
        ("a/00.png", "0"),
    ]
    text = "path,label\na/00.png,x\nb/00.png,y\na\\00,y\nb/00.png,y\nb/00.png,x\n"
    with pytest.raises(
        DataError,
        match=r"'a/00\.png' two labels, 'x' \(line 2\) and 'y' \(line 4\) \(and 1 more such files\); .* delete",
    ):
        rows(put(root, text))


# ── where files lie ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_path_without_its_suffix_is_the_one_file_of_that_stem(root):
    (root / "a" / "00.txt").write_text("about it")
    (root / "b" / "7.scan").write_bytes((root / "b" / "00.png").read_bytes())
    assert rows(put(root, "id,label\na/00,x\nb/7,y\n")) == [("a/00.png", "x"), ("b/7.scan", "y")]
    (root / "a" / "00.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"line 2: '00' may be '00\.jpg' or '00\.png'; write the name in full"):
        rows(put(root, "id,label\na/00,x\nb/00,y\n"))


def test_a_folder_of_the_same_name_does_not_hide_a_file_without_its_suffix(root):
    (root / "a.png").write_bytes((root / "a" / "00.png").read_bytes())
    assert rows(put(root, "id,label\na,x\nb/00,y\n")) == [("a.png", "x"), ("b/00.png", "y")]


def test_a_suffix_that_is_written_is_meant(root):
    listing = find_source(put(root, "path,label\na/00.png,x\na/01.jpg,x\nb/00.png,y\n")).scan()
    assert [entry.path for entry in listing.entries] == ["a/00.png", "a/01.jpg", "b/00.png"]


def test_names_in_another_case_or_composed_otherwise_are_found(root):
    (root / "a" / "Cafe\u0301.PNG").write_bytes((root / "a" / "00.png").read_bytes())
    assert rows(put(root, "path,label\na/caf\u00e9.png,x\nb/00.PNG,y\n")) == [
        ("a/Cafe\u0301.PNG", "x"),
        ("b/00.png", "y"),
    ]


def test_files_elsewhere_are_read_from_where_they_are(root, tmp_path):
    other = tmp_path / "elsewhere" / "tables"
    other.mkdir(parents=True)
    text = f"path,label\n{root}/a/00.png,x\n{os.path.relpath(root, other)}/b/00.png,y\n"
    path = put(other, text)
    images = open_images(find_source(path))
    assert images.left_out == []
    assert images.classes == ["x", "y"]
    assert sorted(images.paths) == sorted([f"{root}/a/00.png", f"../../{root.name}/b/00.png"])
    before = find_source(path).fingerprint()
    os.utime(root / "b" / "00.png", ns=(1, 1))
    assert find_source(path).fingerprint() != before


def test_an_absolute_path_below_the_table_is_the_relative_one(root):
    assert rows(put(root, f"path,label\n{root}/a/00.png,x\nb/00.png,y\n")) == TWO


def test_a_name_with_a_backslash_that_is_there_is_that_file(root):
    (root / "a\\b.png").write_bytes((root / "a" / "00.png").read_bytes())
    assert rows(put(root, "path,label\na\\b.png,x\nb\\00.png,y\n")) == [("a\\b.png", "x"), ("b/00.png", "y")]


def odd_files(root: Path) -> dict[str, str]:
    os.mkfifo(root / "pipe.png")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "link to a pipe.png").symlink_to(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(root / "s.png"))
    return {
        "/dev/zero": "a device",
        "zero.png": "a device",
        "pipe.png": "a pipe",
        "link to a pipe.png": "a pipe",
        "s.png": "a socket",
    }


def test_devices_pipes_and_links_to_them_are_refused_and_not_read(root):
    for name, kind in odd_files(root).items():
        with pytest.raises(DataError, match=rf"line 3: '{name}' is {kind}; wanted an image file"):
            rows(put(root, f"path,label\na/00.png,x\n{name},y\n"))


def test_a_file_that_became_a_pipe_after_it_was_listed_is_left_out(root):
    source = find_source(put(root, "path,label\na/00.png,x\nb/00.png,y\n"))
    entries = source.scan().entries
    (root / "a" / "00.png").unlink()
    os.mkfifo(root / "a" / "00.png")
    assert str(dict(source.read(entries))[0]) == "it is a pipe; wanted a file"


def test_a_manifest_that_is_a_pipe_is_refused_and_not_waited_for(root):
    os.mkfifo(root / "set.csv")
    for name in ("set.csv", "set.zip", "set.tar.gz", "set.txt"):
        (root / name).unlink(missing_ok=True)
        os.mkfifo(root / name)
        with pytest.raises(DataError, match=rf"{name}' is a pipe; wanted a folder, an archive or a manifest"):
            find_source(root / name)
    with pytest.raises(DataError, match=r"set\.zip' is a pipe; wanted a folder, an archive"):
        plain_files(root / "set.zip")
    put(root, "path,label\n", "was.csv")
    source = find_source(root / "was.csv")
    os.rename(root / "set.csv", root / "was.csv")
    with pytest.raises(DataError, match=r"was\.csv cannot be read \(it is a pipe; wanted a file\)"):
        source.fingerprint()


def test_a_table_of_which_no_file_is_there_is_refused_with_the_first(root):
    with pytest.raises(
        DataError, match=r"line 2: there is no file '.*/train/00\.png', nor any other .* relative to the table"
    ):
        rows(put(root, "path,label\ntrain/00.png,x\ntrain/01.png,y\n"))


# ── metadata of Hugging Face ─────────────────────────────────────────────────────────────────────────────────────────

LABELLED = "file_name,label,note\n0.png,cat,1\n1.png,dog,2\n2.png,,3\n"


@pytest.fixture
def beside(files) -> dict[str, bytes]:
    """Four images that lie in no class folder."""
    return dict(zip(["0.png", "1.png", "2.png", "3.png"], files("a", images=4).values(), strict=True))


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_metadata_beside_images_labels_them(folder, archive, beside, kind, name):
    lines = [dict(zip(["file_name", "label"], row.split(",")[:2], strict=True)) for row in LABELLED.splitlines()[1:]]
    table = LABELLED if name.endswith("csv") else "\n".join(map(json.dumps, lines))
    contents = beside | {name: table.encode()}
    source = find_source(folder(contents) if kind == "folder" else archive(contents, kind))
    listing = source.scan()
    assert [(entry.path, entry.label) for entry in listing.entries] == [("0.png", "cat"), ("1.png", "dog")]
    assert listing.ignored == {"rows without a label": 1, "images that no row of the metadata labels": 2}
    assert open_images(source).left_out == []


def test_metadata_in_the_folders_of_splits_keeps_the_splits(folder, beside):
    contents = {f"{part}/{name}": data for part in ("train", "test") for name, data in beside.items()}
    for part in ("train", "test"):
        contents[f"{part}/metadata.csv"] = b"file_name,label\n0.png,cat\n1,dog\n2.png,dog\n3.png,cat\n"
    listing = find_source(folder(contents)).scan()
    assert [(entry.path, entry.label, entry.split) for entry in listing.entries] == [
        (f"{part}/{index}.png", label, part)
        for part in ("test", "train")
        for index, label in enumerate(["cat", "dog", "dog", "cat"])
    ]
    assert not listing.ignored


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("outside", ["../0.png", "/etc/a.png", "a/../../0.png", "..\\0.png", "C:\\a.png"])
def test_metadata_that_names_files_outside_the_set_is_refused(folder, archive, beside, kind, outside):
    contents = beside | {"metadata.csv": f"file_name,label\n0.png,cat\n{outside},dog\n".encode()}
    source = find_source(folder(contents) if kind == "folder" else archive(contents, kind))
    with pytest.raises(
        DataError, match=r"metadata\.csv of .*, line 3: .* lies outside the set; only a table that is named"
    ):
        source.scan()


OTHER_TABLES = {
    "captions": b"file_name,text\na/00.png,a cat\n",
    "classes": b"id,label\n0,cat\n1,cat\n",
    "unreadable": b"file_name,label\na/00.png,caf\xe9\n",
    "ambiguous": b"file_name,class,category\na/00.png,x,y\n",
    "agreeing": b"file_name,label\na/00.png,a\nb/00.png,b\n",
}


@pytest.mark.parametrize("table", OTHER_TABLES.values(), ids=OTHER_TABLES)
def test_class_folders_stay_classes_whatever_else_a_table_beside_them_says(folder, files, table):
    listing = find_source(folder(files("a", "b") | {"metadata.csv": table})).scan()
    assert [entry.label for entry in listing.entries] == ["a", "a", "b", "b"]
    assert listing.ignored == {"other files": 1}


def test_class_folders_and_metadata_that_disagree_are_refused_with_both_readings(folder, files):
    root = folder(files("a", "b") | {"metadata.csv": b"file_name,label\na/00.png,cat\nb/00.png,dog\n"})
    with pytest.raises(
        DataError,
        match=r"in two ways: 'a/00\.png' is 'cat' by metadata\.csv, and 'a' by its folder; name the table itself",
    ):
        find_source(root).scan()
    assert rows(str(root / "metadata.csv")) == [("a/00.png", "cat"), ("b/00.png", "dog")]


@pytest.mark.parametrize("where", ["images", ""])
def test_metadata_of_images_in_one_folder_labels_them(folder, files, where):
    contents = {f"{where}/{index}.png".lstrip("/"): data for index, data in enumerate(files("a", images=4).values())}
    table = f"file_name,label\n{where}/0.png,cat\n{where}/1.png,dog\n".replace("\n/", "\n").encode()
    listing = find_source(folder(contents | {"metadata.csv": table})).scan()
    assert [entry.label for entry in listing.entries] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            b"file_name,text\n0.png,a cat\n",
            r"no labelled images in .* \(nor has metadata\.csv of .* columns file_name and label\)",
        ),
        (
            b"file_name,label\n7.png,cat\n8.png,dog\n",
            r"metadata\.csv of .* names no file that is there \(the first, '7\.png'\)",
        ),
        (b"file_name,label\n0.png,cat\n0.png,dog\n", r"metadata\.csv of .* gives '0\.png' two labels"),
    ],
)
def test_metadata_that_labels_nothing_is_refused_where_there_are_no_class_folders(folder, beside, table, sentence):
    with pytest.raises(DataError, match=sentence):
        find_source(folder(beside | {"metadata.csv": table})).scan()
