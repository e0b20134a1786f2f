"""What DATA names: folders, archives and manifests, read in place."""

import io
import os
import stat
import tarfile
import zipfile
from collections import Counter

import numpy as np
import pytest

from sightline.data.cache import open_images
from sightline.data.sources.entries import is_image_name
from sightline.data.sources.find_source import always_labeled, find_source
from sightline.data.sources.unlabeled import plain_files
from sightline.data.splits import split
from sightline.errors import DataError, SightlineError
from sightline_runtime.decoding.decode import decode, pixel_hash

ARCHIVES = ["zip", "tar", "tar.gz", "tar.xz"]
KINDS = ["folder", *ARCHIVES, "manifest"]


def _manifest(rows: list[tuple[str, ...]], header: str = "path,label") -> bytes:
    lines = [header, *(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture
def put(folder, archive):
    """Lay the same files down as each kind of source."""

    def make(contents: dict[str, bytes], kind: str) -> str:
        if kind == "folder":
            return str(folder(contents, "as folder"))
        if kind == "manifest":
            root = folder(contents, "as manifest")
            splits = {"train", "val", "test"}
            rows = []
            for path in contents:
                parts = path.split("/")
                rows.append((path, parts[-2], parts[0] if parts[0] in splits else ""))
            (root / "set.csv").write_bytes(_manifest(rows, "path,label,split"))
            return str(root / "set.csv")
        return str(archive(dict(reversed(contents.items())), kind))  # in another order

    return make


def _classes(listing) -> dict[str, int]:
    return dict(Counter(entry.label for entry in listing.entries))


# ── the contract of every kind ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_classes_paths_hashes_splits_and_pixels(put, files, noise, image_file, kind):
    contents = files("cats", "dogs", "ölige Enten", images=10, side=9)
    contents["cats/broken.png"] = b""
    contents["dogs/other.jpg"] = image_file(noise(99, 12, 15), "JPEG")
    images = open_images(find_source(put(contents, kind)))
    assert images.classes == ["cats", "dogs", "ölige Enten"]
    assert images.paths == sorted(contents)
    assert images.left_out == [("cats/broken.png", "the file is empty (0 bytes)")]
    assert len(images.readable) == 31
    for row in images.readable:
        pixels = decode(contents[images.paths[row]])
        assert images.hashes[row] == pixel_hash(pixels).hex()
        assert images.paths[row].startswith(images.classes[images.labels[row]] + "/")
    assert images.size == (16, 16)  # 9 px are enlarged
    reference = open_images(find_source(put(contents, "folder")))
    assert np.array_equal(images.pixels, reference.pixels)
    assert images.fingerprint == reference.fingerprint
    ours, theirs = split(images), split(reference)
    for part in ("train", "calibrate", "test"):
        assert getattr(ours, part).tolist() == getattr(theirs, part).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_the_splits_that_it_brings(put, files, kind):
    contents = {f"{part}/{path}": data for part in ("train", "val", "test") for path, data in files("a", "b").items()}
    images = open_images(find_source(put(contents, kind)))
    assert images.classes == ["a", "b"]
    assert [path.split("/")[0] for path in images.paths] == images.splits
    assert split(images).counts() == {"train": 4, "validation": 4, "test": 4}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_hands_out_each_entry_once_with_its_own_bytes(put, files, kind):
    contents = files("a", "b", images=5)
    source = find_source(put(contents, kind))
    entries = source.scan().entries
    found = dict(source.read(entries))
    assert {entries[index].path: data for index, data in found.items()} == contents
    some = entries[1::3]
    assert {some[index].path: data for index, data in source.read(some)} == {
        entry.path: contents[entry.path] for entry in some
    }


STRANGE = ["=1+1", "-dash", "@at", "with space", "quo\"te'", "日本", "é", "comma,semi;", "#1 100%", "null", "{x}[y]*?"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_takes_labels_of_any_characters(put, files, kind):
    images = open_images(find_source(put(files(*STRANGE), kind)))
    assert images.classes == sorted(STRANGE)
    assert np.bincount(images.labels).tolist() == [2] * len(STRANGE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_its_fingerprint_when_a_file_changes(put, files, kind):
    contents = files("a", "b")
    before = find_source(put(contents, kind)).fingerprint()
    contents["a/00.png"] += b"\0"
    path = put(contents, kind)
    assert find_source(path).fingerprint() != before
    assert find_source(path).fingerprint() == find_source(path).fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_refuses_one_class(put, files, kind):
    with pytest.raises(DataError, match=r"only one class, 'cats', in .*; a classifier needs at least two\."):
        find_source(put(files("cats"), kind)).scan()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_refuses_classes_that_differ_only_in_case(put, files, kind):
    with pytest.raises(DataError, match=r"classes 'Cats' and 'cats' in .* differ only in case; name both 'cats'"):
        find_source(put(files("cats", "Cats", "dogs"), kind)).scan()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_refuses_a_set_of_which_nothing_can_be_read(put, kind):
    contents = {f"{label}/{index}.jpg": b"text" for label in "ab" for index in range(2)}
    source = find_source(put(contents, kind))
    with pytest.raises(
        DataError, match=r"none of the 4 images in .* can be read .*'a/0\.jpg': no image.*; wanted JPEG"
    ):
        open_images(source)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_refuses_a_class_of_which_nothing_can_be_read(put, files, kind):
    contents = files("a", "b") | {"c/0.png": b"", "c/1.png": b"GIF89a"}
    with pytest.raises(
        DataError, match=r"class 'c' in .* has no readable image \(the first, 'c/0\.png': .*\); mend its files"
    ):
        open_images(find_source(put(contents, kind)))


# ── folders, and what lies about in them ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["folder", *ARCHIVES])
def test_a_stray_licence_beside_the_classes_is_no_class(put, files, kind):
    stray = {
        "LICENSE": b"MIT",
        "README.md": b"#",
        ".DS_Store": b"x",
        "cats/.DS_Store": b"x",
        "cats/notes.txt": b"x",
        "__MACOSX/cats/._00.png": b"x",
        ".git/a/b.png": b"x",
        "top.png": b"x",
    }
    listing = find_source(put(files("cats", "dogs") | stray, kind)).scan()
    assert _classes(listing) == {"cats": 2, "dogs": 2}
    assert listing.ignored == {"other files": 3, "hidden files": 4, "images outside the class folders": 1}


@pytest.mark.parametrize("kind", ["folder", *ARCHIVES])
@pytest.mark.parametrize("wrapper", ["flowers/", "a/b/", "./flowers/"])
def test_folders_that_merely_wrap_the_set_are_looked_through(put, files, kind, wrapper):
    contents = {wrapper + path: data for path, data in files("cats", "dogs").items()}
    contents |= {wrapper + "LICENSE": b"", "__MACOSX/" + wrapper + "cats/._00.png": b""}
    listing = find_source(put(contents, kind)).scan()
    assert _classes(listing) == {"cats": 2, "dogs": 2}
    assert all("./" not in entry.path for entry in listing.entries)


@pytest.mark.parametrize("kind", ["folder", *ARCHIVES])
def test_splits_are_found_below_a_wrapper_and_under_their_other_names(put, files, kind):
    contents = {
        f"set/{part}/{path}": data for part in ("Training", "valid", "TEST") for path, data in files("a", "b").items()
    }
    listing = find_source(put(contents, kind)).scan()
    assert Counter(entry.split for entry in listing.entries) == {"train": 4, "val": 4, "test": 4}
    assert _classes(listing) == {"a": 6, "b": 6}


def test_deeper_folders_belong_to_the_class_above_them(folder, files):
    contents = files("cats", "dogs") | {"cats/summer/june/9.png": files("x")["x/00.png"]}
    assert _classes(find_source(folder(contents)).scan()) == {"cats": 3, "dogs": 2}


def test_the_name_of_a_split_among_classes_is_refused_with_both_readings_unless_all_are_called_classes(folder, files):
    root = folder(files("train", "plane", "ship"))
    with pytest.raises(DataError, match=r"holds train beside .* \(plane, ship\);.* --data\.classes top"):
        find_source(root).scan()
    assert _classes(find_source(root, classes="top").scan()) == {"train": 2, "plane": 2, "ship": 2}


@pytest.mark.parametrize("kind", ["folder", *ARCHIVES])
def test_splits_beside_other_class_folders_are_refused(put, files, kind):
    contents = {f"{part}/{path}": data for part in ("train", "test") for path, data in files("a", "b").items()}
    contents |= files("extra")
    with pytest.raises(
        DataError, match=r"holds test, train beside other folders of images \(extra\); wanted either .*move"
    ):
        find_source(put(contents, kind)).scan()


@pytest.mark.parametrize("kind", ["folder", *ARCHIVES])
def test_a_class_folder_without_images_is_refused(put, files, kind):
    with pytest.raises(DataError, match=r"class folder 'birds' in .* holds no images; add some or delete the folder\."):
        find_source(put(files("cats", "dogs") | {"birds/notes.txt": b""}, kind)).scan()


def test_a_class_folder_without_any_file_is_refused(folder, files):
    root = folder(files("cats", "dogs"))
    (root / "birds").mkdir()
    (root / "worms").mkdir()
    with pytest.raises(DataError, match=r"'birds' .* holds no images \(2 such folders\)"):
        find_source(root).scan()


def test_an_empty_folder_in_an_archive_is_refused_too(archive, files):
    path = archive(files("cats", "dogs"))
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("birds/", b"")
    with pytest.raises(DataError, match="class folder 'birds'"):
        find_source(path).scan()


@pytest.mark.parametrize("contents", [{}, {"notes.txt": b"x"}, {".hidden/cats/1.png": b"x"}])
def test_a_folder_without_images_is_refused(folder, contents):
    with pytest.raises(
        DataError, match=rf"no images in .* \({len(contents)} other files\); wanted folders named after"
    ):
        find_source(folder(contents)).scan()


def test_images_without_class_folders_are_refused(folder, files):
    contents = {path.replace("/", "-"): data for path, data in files("a", "b").items()}
    with pytest.raises(DataError, match=r"no labelled images in .*; wanted at least two classes"):
        find_source(folder(contents)).scan()


def test_a_link_to_a_folder_is_not_followed(folder, files):
    root = folder(files("cats", "dogs"))
    (root / "cats" / "again").symlink_to(root)  # would never end
    assert _classes(find_source(root).scan()) == {"cats": 2, "dogs": 2}


def test_a_class_whose_name_is_no_utf8_can_be_used(folder, files, tmp_path):
    root = folder(files("cats", "dogs"))
    os.rename(root / "dogs", os.fsencode(root) + b"/caf\xe9")
    images = open_images(find_source(root))
    assert [os.fsencode(name) for name in images.classes] == [b"caf\xe9", b"cats"]
    assert len(images.fingerprint) == 16


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_name_digits_is_the_embedded_set_and_a_path_to_a_folder_of_that_name_is_the_folder(
    folder, files, tmp_path, monkeypatch
):
    root = folder(files("cats", "dogs"), "digits")
    monkeypatch.chdir(tmp_path)
    embedded = find_source("digits").scan()
    assert len(embedded.entries) == 1797
    assert sorted(_classes(embedded)) == list("0123456789")
    for named in ("./digits", "digits/", str(root)):
        assert _classes(find_source(named).scan()) == {"cats": 2, "dogs": 2}


def test_nothing_at_a_path_is_an_error_that_repeats_it():
    with pytest.raises(
        DataError, match=r"no image set at 'no/where': there is no such file or folder; check the spelling"
    ):
        find_source("no/where")


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(DataError, match=r"no image set at 'digit'.*digits"):
        find_source("digit")


def test_a_file_that_is_neither_archive_nor_manifest_is_refused(tmp_path):
    (tmp_path / "set.rar").write_bytes(b"Rar!")
    with pytest.raises(
        DataError, match=r"is no image set; wanted a folder of class folders, an archive \(\.zip, \.tar,"
    ):
        find_source(tmp_path / "set.rar")


def test_names_of_images_end_in_any_case():
    assert all(map(is_image_name, ["a.jpg", "a.JPEG", "b/c.Png", "a.webp", "a.bmp", "a.gif", "a.tif", "a.tiff"]))
    assert not any(map(is_image_name, ["a.txt", "png", "a.png.txt", "a"]))


# ── archives ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_is_never_unpacked_to_disk(archive, files, tmp_path, monkeypatch, cache_root, kind):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = archive(files("cats", "dogs", images=9), kind)
    images = open_images(find_source(path))
    found = {file for file in tmp_path.rglob("*") if file.is_file()}
    lock = cache_root / f"{images.folder.name}.lock"
    assert found - {lock} == {path, *images.folder.iterdir()}


@pytest.mark.parametrize("end", ["zip", "tar", "tar.gz", "tgz", "tar.xz", "txz", "TAR.GZ", "Zip"])
def test_an_archive_is_named_without_its_ending(tmp_path, end):
    (tmp_path / f"my.flowers.{end}").write_bytes(b"")
    assert find_source(tmp_path / f"my.flowers.{end}").name == "my.flowers"


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize(
    "member", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "a\\..\\evil.png", "\\evil.png", "C:\\evil.png"]
)
def test_an_archive_with_a_member_that_points_outside_is_refused(archive, files, kind, member):
    path = archive(files("a", "b") | {member: b""}, kind)
    with pytest.raises(
        DataError, match=r"is refused: its member .* points outside the archive; pack plain files below"
    ):
        find_source(path).scan()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_tar_with_a_link_is_refused(archive, files, kind):
    path = archive(files("a", "b"), "tar")
    with tarfile.open(path, "a") as packed:
        link = tarfile.TarInfo("a/link.png")
        link.type, link.linkname = kind, "/etc/passwd"
        packed.addfile(link)
    with pytest.raises(DataError, match=r"its member 'a/link\.png' is a link; pack plain files"):
        find_source(path).scan()


def test_a_zip_with_a_link_is_refused(archive, files):
    path = archive(files("a", "b"))
    with zipfile.ZipFile(path, "a") as packed:
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"its member 'a/link\.png' is a link; pack plain files"):
        find_source(path).scan()


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("content", [b"", b"this is no archive", bytes(100)])
def test_a_file_that_is_no_archive_is_refused(tmp_path, kind, content):
    (tmp_path / f"set.{kind}").write_bytes(content)
    with pytest.raises(SightlineError):
        find_source(tmp_path / f"set.{kind}").scan()


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_truncated_archive_is_refused_wherever_it_was_cut(archive, files, kind):
    contents = files("a", "b", images=6)
    path = archive(contents, kind)
    whole = path.read_bytes()
    refused = []
    for kept in range(0, len(whole), max(128, len(whole) // 100)):  # on the edges of a tar's blocks, too
        path.write_bytes(whole[:kept])
        try:
            listing = find_source(path).scan()
        except DataError as error:
            refused.append(str(error))
        else:
            assert len(listing.entries) == len(contents)  # only the padding at the end was lost
    assert len(refused) > 20
    assert all("cannot be read" in message and "download or pack it again" in message for message in refused)


def test_a_tar_with_a_broken_header_is_refused_and_not_taken_for_shorter(archive, files):
    path = archive(files("a", "b"), "tar")
    data = bytearray(path.read_bytes())
    data[data.index(b"b/00.png")] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"cannot be read \(bad checksum.*download or pack it again"):
        find_source(path).scan()


def test_a_damaged_member_of_a_zip_is_left_out_by_name(archive, files):
    path = archive(files("a", "b", images=3))
    with zipfile.ZipFile(path) as packed:
        place = packed.getinfo("a/01.png").header_offset + 30 + len("a/01.png")
    data = bytearray(path.read_bytes())
    data[place : place + 8] = b"\xff" * 8  # no beginning of a deflated block
    path.write_bytes(data)
    images = open_images(find_source(path))
    assert [name for name, _ in images.left_out] == ["a/01.png"]
    assert images.left_out[0][1].startswith("cannot be unpacked: ")


def test_a_member_that_a_zip_names_twice_is_one_image(archive, files):
    path = archive(files("a", "b"))
    with zipfile.ZipFile(path, "a") as packed, pytest.warns(UserWarning, match="Duplicate name"):
        packed.writestr("a/00.png", files("c")["c/00.png"])
    assert _classes(find_source(path).scan()) == {"a": 2, "b": 2}


def test_a_member_that_a_tar_names_twice_is_one_image(archive, files):
    path = archive(files("a", "b"), "tar")
    with tarfile.open(path, "a") as packed:
        packed.addfile(tarfile.TarInfo("a/00.png"), io.BytesIO())
    assert _classes(find_source(path).scan()) == {"a": 2, "b": 2}


# ── manifests ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def manifest(folder, files):
    """Write a manifest beside the images of classes a and b."""

    def make(text: str | bytes) -> str:
        root = folder(files("a", "b"))
        (root / "set.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(root / "set.csv")

    return make


def test_a_manifest_gives_label_split_and_group(manifest):
    path = manifest(
        "path,label,split,group\na/00.png,cat,train,anna\nb/00.png,dog,Validation,\n./b/01.png, dog ,,ben\n"
    )
    entries = find_source(path).scan().entries
    assert [(e.path, e.label, e.split, e.group) for e in entries] == [
        ("a/00.png", "cat", "train", "anna"),
        ("b/00.png", "dog", "val", None),
        ("b/01.png", "dog", None, "ben"),
    ]


def test_a_label_in_quotes_may_hold_a_comma_and_a_newline(manifest):
    images = open_images(find_source(manifest('path,label\na/00.png,"one, or\nthe other"\nb/00.png,=2\n')))
    assert images.classes == ["=2", "one, or\nthe other"]


def test_a_manifest_of_a_spreadsheet_with_mark_and_returns_is_read(manifest):
    path = manifest("\ufeffpath,label\r\na\\00.png,x\r\nb\\00.png,y\r\n")
    assert [entry.path for entry in find_source(path).scan().entries] == ["a/00.png", "b/00.png"]


def test_a_file_that_a_manifest_names_and_that_is_missing_is_left_out_by_name(manifest):
    images = open_images(find_source(manifest("path,label\na/00.png,x\nb/00.png,y\na/99.png,x\n")))
    assert images.left_out == [("a/99.png", "No such file or directory")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has no column 'path' and no column 'label' \(found: nothing\); its first line must name path,label"),
        ("path,label\n", r"no labelled images in .*; wanted at least two classes"),
        ("path,label\n,x\n", r"line 2: the path is empty"),
        ("path,label,split\na/00.png,x,left\n", r"line 2: unknown split 'left'; wanted train, val, test or nothing"),
        (b"path,label\na/00.png,caf\xe9\n", r"is no UTF-8 CSV file .*; save it as one"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_by_line(manifest, text, message):
    with pytest.raises(DataError, match=message):
        find_source(manifest(text)).scan()


@pytest.mark.parametrize("kind", ["zip", "tar", "manifest"])
def test_a_source_that_cannot_be_opened_is_not_blamed_on_the_cache(put, files, monkeypatch, kind):
    source = find_source(put(files("a", "b"), kind))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    for opened in ("zipfile.ZipFile", "tarfile.open", "pathlib.Path.open"):
        monkeypatch.setattr(opened, refuse)
    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(.*Permission denied"):
        source.scan()


# ── images without classes ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["folder", *ARCHIVES])
def test_plain_files_are_found_wherever_they_lie(put, files, kind):
    contents = files("a", "b") | {"top.png": b"x", "LICENSE": b"", ".hidden.png": b"", "lone/deep/er.gif": b"y"}
    path = put(contents, kind)
    found = plain_files(path)
    wanted = {f"{path}/{name}": contents[name] for name in [*files("a", "b"), "top.png", "lone/deep/er.gif"]}
    assert sorted(found.names) == sorted(wanted)
    assert dict(found.read()) == wanted


def test_one_file_is_plain_files_under_the_name_it_was_given(folder, files, monkeypatch):
    monkeypatch.chdir(folder(files("a")))
    found = plain_files("a/00.png")
    assert found.names == ["a/00.png"]
    assert list(found.read()) == [("a/00.png", files("a")["a/00.png"])]


def test_plain_files_that_are_not_there_are_refused(folder):
    with pytest.raises(DataError, match="no image, folder or archive at 'nowhere'; check the spelling"):
        plain_files("nowhere")
    with pytest.raises(DataError, match=r"no images in .*; wanted JPEG, PNG, .* or HEIC files"):
        plain_files(folder({"notes.txt": b""}))


@pytest.mark.parametrize(
    "text", ["digits", "groceries", "mnist", "cifar10", "hf:owner/name", "set.CSV", "folder/set.parquet"]
)
def test_published_sets_and_manifests_have_classes_in_any_case(text):
    assert always_labeled(text)


@pytest.mark.parametrize("text", ["photos", "./digits", "photos.zip", "mnist/photo.png"])
def test_folders_archives_and_files_may_have_none(text):
    assert not always_labeled(text)
