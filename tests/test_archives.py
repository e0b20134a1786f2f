"""Archives from strangers: what they claim and unpack to is bounded, and what they lack is said."""

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data.cache import open_images
from sightline.data.sources import archive as archives
from sightline.data.sources.find_source import find_source
from sightline.data.sources.unlabeled import plain_files
from sightline.errors import DataError, SightlineError

MEGABYTE = 1 << 20


def member(name: str, data: bytes = b"", **fields: object) -> bytes:
    """One member of a tar, as its blocks."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    for field, value in fields.items():
        setattr(header, field, value)
    return header.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def pack(path: Path, *members: bytes) -> Path:
    path.write_bytes(b"".join(members) + bytes(1024))
    return path


def zip_of(path: Path, contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, data in contents.items():
            packed.writestr(name, data)
    return path


def patch(path: Path, *, local: dict[int, bytes], central: dict[int, bytes]) -> None:
    """Write over fields of all headers of a zip, by their place in the header."""
    data = bytearray(path.read_bytes())
    for mark, fields in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        place = data.find(mark)
        while place >= 0:
            for offset, value in fields.items():
                data[place + offset : place + offset + len(value)] = value
            place = data.find(mark, place + 4)
    path.write_bytes(data)


# ── zip: names, passwords, methods ───────────────────────────────────────────────────────────────────────────────────


def test_names_in_utf_8_without_the_flag_are_read_as_utf_8_and_others_as_of_old(tmp_path, files):
    contents = {f"{name}/0.png": data for name, data in zip(["café", "花"], files("a").values(), strict=True)}
    path = zip_of(tmp_path / "set.zip", contents)
    patch(path, local={6: b"\0\0"}, central={8: b"\0\0"})  # the flags: as the packer of macOS leaves them
    source = find_source(path)
    assert [entry.label for entry in source.scan().entries] == ["café", "花"]
    assert dict(source.read(source.scan().entries)) == dict(enumerate(contents.values()))
    path = zip_of(tmp_path / "dos.zip", {"caf#/0.png": b"1", "tea/0.png": b"2"})
    path.write_bytes(path.read_bytes().replace(b"caf#", b"caf\x82"))
    assert [entry.label for entry in find_source(path).scan().entries] == ["café", "tea"]


def test_a_zip_with_a_password_is_refused_with_the_way_out(tmp_path, files):
    path = zip_of(tmp_path / "set.zip", files("a", "b"))
    patch(path, local={6: b"\1\0"}, central={8: b"\1\0"})
    with pytest.raises(
        DataError, match=r"member 'a/00\.png' is protected by a password; unpack it and name the folder"
    ):
        find_source(path).scan()
    with pytest.raises(DataError, match="password"):
        plain_files(path)


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (93, "Zstandard"), (99, "AES"), (1234, "method 1234")])
def test_a_zip_of_a_method_that_cannot_be_read_is_refused_by_its_name(tmp_path, files, method, name):
    path = zip_of(tmp_path / "set.zip", files("a", "b"))
    patch(path, local={8: struct.pack("<H", method)}, central={10: struct.pack("<H", method)})
    with pytest.raises(
        DataError, match=rf"'a/00\.png' is packed by {name}, which cannot be read here; unpack it and name"
    ):
        find_source(path).scan()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_method_of_the_library_is_read(tmp_path, files, method):
    contents = files("a", "b")
    source = find_source(zip_of(tmp_path / "set.zip", contents, method))
    assert dict(source.read(source.scan().entries)) == dict(enumerate(contents.values()))


@pytest.mark.parametrize("name", ["", ".", "./."])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_without_a_name_is_refused(tmp_path, files, kind, name):
    path = tmp_path / f"set.{kind}"
    if kind == "zip":
        zip_of(path, files("a", "b") | {"###"[: len(name)] or "#": b"x"})
        if name:
            path.write_bytes(path.read_bytes().replace(b"###"[: len(name)], name.encode()))
        else:
            data = path.read_bytes()
            data = data.replace(b"#x", b"x").replace(b"#PK\x05\x06", b"PK\x05\x06")
            path.write_bytes(data)
            patch_last_name(path)
    else:
        pack(path, *(member(*pair) for pair in files("a", "b").items()), member(name, b"x"))
    with pytest.raises(DataError, match=r"is refused: its member '.*' has no name; pack plain files below one folder"):
        find_source(path).scan()


def patch_last_name(path: Path) -> None:
    """Take the length of the name from the last member, and what it took from the central directory."""
    data = bytearray(path.read_bytes())
    local, central, end = data.rindex(b"PK\x03\x04"), data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    data[local + 26 : local + 28] = data[central + 28 : central + 30] = b"\0\0"
    size, start = struct.unpack("<II", data[end + 12 : end + 20])
    data[end + 12 : end + 20] = struct.pack("<II", size - 1, start - 1)
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_nul_in_a_path_is_refused(tmp_path, files, kind):
    path = tmp_path / f"set.{kind}"
    if kind == "zip":
        zip_of(path, files("a", "b") | {"a/nul#.png": b"x"})
        path.write_bytes(path.read_bytes().replace(b"nul#", b"nul\0"))
    else:
        record = b"19 path=a/nul\0.png\n"
        pack(
            path,
            *(member(*pair) for pair in files("a", "b").items()),
            member("pax", record, type=tarfile.XHDTYPE),
            member("other.png", b"x"),
        )
    with pytest.raises(DataError, match=r"its member 'a/nul\\x00\.png' has a NUL in its name; pack plain files"):
        find_source(path).scan()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_or_a_pipe_in_a_tar_is_refused(tmp_path, files, kind):
    path = pack(
        tmp_path / "set.tar", *(member(*pair) for pair in files("a", "b").items()), member("a/9.png", type=kind)
    )
    with pytest.raises(DataError, match=r"its member 'a/9\.png' is a device or a pipe; pack plain files"):
        find_source(path).scan()


def test_a_device_in_a_zip_is_refused(tmp_path, files):
    path = zip_of(tmp_path / "set.zip", files("a", "b"))
    with zipfile.ZipFile(path, "a") as packed:
        odd = zipfile.ZipInfo("a/9.png")
        odd.external_attr = 0o010644 << 16  # a pipe
        packed.writestr(odd, b"")
    with pytest.raises(DataError, match=r"its member 'a/9\.png' is a device or a pipe"):
        find_source(path).scan()


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("loose", ["cover.jpg", "photos/cover.jpg"])
@pytest.mark.parametrize("wrapper", ["", "set/"])
def test_a_loose_picture_beside_the_top_folder_does_no_harm(archive, files, kind, loose, wrapper):
    contents = {f"photos/{path}": data for path, data in files("cats", "dogs").items()} | {loose: b"x"}
    listing = find_source(archive({wrapper + path: data for path, data in contents.items()}, kind)).scan()
    assert [entry.label for entry in listing.entries] == ["cats", "cats", "dogs", "dogs"]
    assert listing.ignored == {"images outside the class folders": 1}


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def bomb(path: Path, unpacked: int, folder: str = "a") -> Path:
    """A zip whose last member is all zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name in ("a/0.png", "b/0.png"):
            packed.writestr(name, b"x")
        with packed.open(f"{folder}/zeros.bmp", "w", force_zip64=True) as file:
            for _ in range(unpacked // MEGABYTE):
                file.write(bytes(MEGABYTE))
    return path


def test_a_zip_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path):
    path = bomb(tmp_path / "set.zip", 400 * MEGABYTE)
    with pytest.raises(
        DataError, match=r"its [\d,]+ bytes unpack to 419,430,402 or more, over 100 times .* name the folder"
    ):
        find_source(path).scan()


def test_a_member_of_a_zip_that_expands_too_far_is_left_out_by_name(tmp_path):
    source = find_source(bomb(tmp_path / "set.zip", 20 * MEGABYTE))
    found = dict(source.read(source.scan().entries))
    assert "to 20,971,520, over 100 times as many" in str(found[1])
    assert found[0] == found[2] == b"x"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_of_a_zip_that_is_longer_than_it_claims_takes_no_more_than_it_claims(tmp_path, method):
    path = zip_of(tmp_path / "set.zip", {"a/0.png": bytes(150 * MEGABYTE), "b/0.png": b"x"}, method)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(mark) + offset
        data[place : place + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)
    source = find_source(path)
    entries = source.scan().entries
    tracemalloc.start()
    found = dict(source.read(entries))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(found[0]).startswith("cannot be unpacked: ")
    assert found[1] == b"x"
    assert peak < 100 * MEGABYTE


def test_a_sparse_file_in_a_tar_is_as_long_as_it_stores_and_not_as_it_says(tmp_path, files):
    path = tmp_path / "set.tar"
    pack(path, *(member(*pair) for pair in files("a", "b").items()), sparse("a/9.png", b"x" * 512, 2_000_000_000))
    assert path.stat().st_size < 20_000
    source = find_source(path)
    tracemalloc.start()
    found = dict(source.read(source.scan().entries))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "unpacks to 2,000,000,000 bytes, more than 536,870,912" in [str(data) for data in found.values()]
    assert peak < 10 * MEGABYTE


def sparse(name: str, data: bytes, length: int) -> bytes:
    """A sparse file of GNU tar, with its bytes at the beginning."""
    block = bytearray(member(name, data, type=tarfile.GNUTYPE_SPARSE))
    block[386:410] = b"%011o\0%011o\0" % (0, len(data))
    block[483:495] = b"%011o\0" % length
    return signed(block)


def signed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def test_a_small_sparse_file_is_read_with_its_holes(tmp_path):
    path = pack(tmp_path / "set.tar", member("a/0.png", b"1"), sparse("b/0.png", b"x" * 512, 2_000))
    source = find_source(path)
    assert dict(source.read(source.scan().entries)) == {0: b"1", 1: b"x" * 512 + bytes(1488)}


def test_a_bad_map_of_a_sparse_file_is_a_sentence(tmp_path):
    record = b"GNU.sparse.map=0,x,7\n"
    pax = b"%d " % (len(record) + 3) + record
    size = b"22 GNU.sparse.size=10\n"
    path = pack(
        tmp_path / "set.tar",
        member("a/0.png", b"1"),
        member("pax", size + pax, type=tarfile.XHDTYPE),
        member("b/0.png", b"2"),
    )
    with pytest.raises(DataError, match=r"archive .*set\.tar cannot be read \(.*\); download or pack it again"):
        find_source(path).scan()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz"])
@pytest.mark.parametrize("header", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
@pytest.mark.parametrize("claimed", [10**11, 8**11, 2**62])
def test_a_header_that_claims_more_than_there_is_ends_at_once(tmp_path, kind, header, claimed):
    data = member("a/0.png", b"1") + member("a/1.png", type=header, size=claimed) + bytes(1024)
    path = tmp_path / f"set.{kind}"
    path.write_bytes({"tar": bytes, "tar.gz": gzip.compress, "tar.xz": lzma.compress}[kind](data))
    start = time.process_time()
    with pytest.raises(DataError, match=r"cannot be read|is refused"):
        find_source(path).scan()
    assert time.process_time() - start < 2


@pytest.mark.parametrize("size", [b"100000000000", b"-1000", b"x", b"9" * 30])
def test_a_size_in_a_pax_header_that_is_not_there_is_refused(tmp_path, size):
    record = b" size=" + size + b"\n"
    record = b"%d" % (len(record) + 2) + record
    path = pack(tmp_path / "set.tar", member("pax", record, type=tarfile.XHDTYPE), member("a/0.png", b"1"))
    start = time.process_time()
    with pytest.raises(DataError):
        find_source(path).scan()
    assert time.process_time() - start < 2


def test_a_compressed_tar_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "TOTAL_FREE_BYTES", 4 * MEGABYTE)
    path = tmp_path / "set.tar.gz"
    zeros = bytes(3 * MEGABYTE)
    path.write_bytes(gzip.compress(b"".join(member(f"{name}/0.bmp", zeros) for name in "abc") + bytes(1024)))
    with pytest.raises(
        DataError, match=r"set\.tar\.gz is refused: its [\d,]+ bytes unpack to [\d,]+ or more, over 100 times"
    ):
        find_source(path).scan()
    path.write_bytes(gzip.compress(b"".join(member(f"{name}/0.bmp", zeros[:MEGABYTE]) for name in "abc") + bytes(1024)))
    assert len(find_source(path).scan().entries) == 3


@pytest.mark.parametrize(
    ("pack", "name"), [(bz2.compress, "bzip2"), (lambda data: b"\x28\xb5\x2f\xfd" + data, "Zstandard")]
)
def test_a_tar_of_a_packer_that_cannot_be_bounded_is_refused_by_its_name(tmp_path, pack, name):
    (tmp_path / "set.tar").write_bytes(pack(member("a/0.png", b"1") + bytes(1024)))
    with pytest.raises(DataError, match=rf"set\.tar is packed by {name}; pack it as \.tar\.gz or \.tar\.xz, or name"):
        find_source(tmp_path / "set.tar").scan()


def test_a_tar_that_breaks_off_within_a_member_is_a_sentence_when_it_is_read(tmp_path, files):
    path = pack(tmp_path / "set.tar", *(member(*pair) for pair in files("a", "b").items()))
    source = find_source(path)
    entries = source.scan().entries
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"cannot be read \(.*\); download or pack it again"):
        list(source.read(entries))


def test_flat_drawings_of_every_usual_size_are_no_bomb(tmp_path):
    contents = {}
    for index in range(6):
        file = io.BytesIO()
        Image.fromarray(np.full((600, 800, 3), 40 * index, np.uint8)).save(file, "BMP")
        contents[f"{'ab'[index % 2]}/{index}.bmp"] = file.getvalue()
    path = zip_of(tmp_path / "set.zip", contents)
    assert sum(map(len, contents.values())) > 200 * path.stat().st_size
    assert open_images(find_source(path)).left_out == []


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_damaged_archive_is_read_or_refused_whatever_was_damaged(archive, files, kind):
    path = archive(files("a", "b", images=3), kind)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refused = []
    for _ in range(300):
        data = bytearray(whole)
        for place in random.integers(0, len(data), random.integers(1, 6)):
            data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            source = find_source(path)
            for _, found in source.read(source.scan().entries):
                assert isinstance(found, bytes | OSError)
        except SightlineError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in refused)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_the_memory_of_a_process_that_reads_a_hostile_zip_is_bounded(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for index in range(15):
            packed.writestr(f"{'ab'[index % 2]}/{index}.bmp", bytes(16 * MEGABYTE))
    program = (
        "from pathlib import Path\n"
        "from sightline.errors import DataError\n"
        "from sightline.data.cache import open_images\n"
        "from sightline.data.sources.find_source import find_source\n"
        "try:\n"
        f"    open_images(find_source({str(path)!r}))\n"
        "except DataError as error:\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))\n"  # its own, not its parent's
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 600_000  # kB
