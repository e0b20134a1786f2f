"""Every set is decoded once; a kill, a full disk or a second process never spoils a cache."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sightline.data import building, cache
from sightline.data.cache import CachedImages, cached, clear, open_images
from sightline.data.sizing import training_size
from sightline.data.sources.find_source import find_source
from sightline.errors import StorageError
from sightline.machine.folders import cache_folder
from sightline_runtime.decoding.decode import decode, in_parallel, read_image, resize

DiskUsage = namedtuple("DiskUsage", "total used free")


@pytest.fixture
def image_set(folder, files) -> Path:
    """Two classes of five images of 20 px."""
    return folder(files("cats", "dogs", images=5, side=20))


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The lengths of the files that were decoded, one a call."""
    calls: list[int] = []

    def counting(data: bytes, *how: object, hashed: bool):
        calls.append(len(data))
        return read_image(data, *how, hashed=hashed)

    monkeypatch.setattr(building, "read_image", counting)
    return calls


def _same(one: CachedImages, other: CachedImages) -> bool:
    stored, stored_too = ({file.name: file.read_bytes() for file in images.folder.iterdir()} for images in (one, other))
    return stored == stored_too


# ── what is in it ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_small_images_are_kept_as_they_are(image_set):
    images = open_images(find_source(image_set))
    assert images.size == (20, 20)
    for row, path in enumerate(images.paths):
        assert np.array_equal(images.pixels[row], decode((image_set / path).read_bytes()))
    assert (images.name, images.location) == ("set", str(image_set))
    assert images.labels.tolist() == [0] * 5 + [1] * 5


def test_large_images_are_kept_somewhat_larger_than_they_are_trained_on(folder, files):
    root = folder(files("a", "b", side=150))
    images = open_images(find_source(root))
    assert images.size == (128, 128)
    assert images.pixels.shape == (4, 147, 147, 3)
    assert np.array_equal(images.pixels[3], resize(decode((root / "b/01.png").read_bytes()), 147, 147))


def test_the_digits_are_enlarged_to_16_pixels():
    images = open_images(find_source("digits"))
    assert images.pixels.shape == (1797, 16, 16, 3)
    assert len(images.readable) == 1797
    assert images.tiny == []  # 8 px are enlarged four times, not more


@pytest.mark.parametrize(
    ("sizes", "wanted", "trained", "cached_at"),
    [
        ([(32, 32)] * 3, None, (32, 32), (32, 32)),
        ([(28, 28)], None, (28, 28), (28, 28)),
        ([(64, 48)], None, (64, 48), (64, 48)),
        ([(8, 8)], None, (16, 16), (16, 16)),
        ([(8, 12)], None, (16, 24), (16, 24)),
        ([(1, 1)], None, (16, 16), (16, 16)),
        ([(2, 40)], None, (16, 64), (16, 64)),
        ([(30, 200)], None, (32, 32), (37, 37)),
        ([(32, 32)], 48, (48, 48), (48, 48)),
        ([(500, 375), (333, 500), (400, 400)], None, (128, 128), (147, 147)),
        ([(500, 500)], 224, (224, 224), (258, 258)),
        ([(96, 96)], None, (80, 80), (92, 92)),
        ([(32, 32), (32, 32), (4000, 4000)], None, (32, 32), (32, 32)),
    ],
)
def test_the_training_size_is_decided_by_the_median(sizes, wanted, trained, cached_at):
    assert training_size(sizes, wanted) == (trained, cached_at)


def test_another_size_is_another_cache(image_set):
    source = find_source(image_set)
    assert open_images(source, 48).pixels.shape == (10, 48, 48, 3)
    assert open_images(source).pixels.shape == (10, 20, 20, 3)
    assert open_images(source, exactly=((16, 16), (18, 18))).pixels.shape == (10, 18, 18, 3)
    assert len(cached()) == 3


def test_broken_images_are_named_counted_and_left_out(image_set, noise, image_file):
    (image_set / "cats/text.jpg").write_text("no image")
    (image_set / "cats/none.png").write_bytes(b"")
    (image_set / "dogs/half.jpg").write_bytes(image_file(noise(1, 40, 40), "JPEG")[:500])
    images = open_images(find_source(image_set))
    assert [path for path, _ in images.left_out] == ["cats/none.png", "cats/text.jpg", "dogs/half.jpg"]
    reasons = [reason for _, reason in images.left_out]
    assert reasons[:2] == ["the file is empty (0 bytes)", "no image in any known format"]
    assert reasons[2].startswith("broken: ")
    assert len(images.paths) == 13
    assert len(images.readable) == 10
    assert all(images.labels[row] == -1 and images.hashes[row] == "" for row in set(range(13)) - {*images.readable})


def test_an_image_of_one_pixel_is_used_and_listed_as_tiny(image_set, image_file):
    (image_set / "cats/dot.png").write_bytes(image_file(np.full((1, 1, 3), 200, np.uint8)))
    images = open_images(find_source(image_set))
    row = images.paths.index("cats/dot.png")
    assert images.tiny == ["cats/dot.png"]
    assert row in images.readable
    assert (images.pixels[row] == 200).all()


def test_progress_ends_at_all_images(image_set):
    told: list[tuple[int, int]] = []
    open_images(find_source(image_set), progress=lambda done, total: told.append((done, total)))
    assert told == [(10, 10)]


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(image_set, folder, files):
    here = open_images(find_source(image_set))
    moved = open_images(find_source(folder(files("cats", "dogs", images=5, side=20), "elsewhere/other")))
    assert moved.fingerprint == here.fingerprint
    shutil.move(image_set / "cats/00.png", image_set / "dogs/99.png")
    assert open_images(find_source(image_set)).fingerprint != here.fingerprint


def test_whichever_thread_is_first_the_cache_is_the_same(folder, files, cache_root, monkeypatch):
    source = find_source(folder(files("a", "b", images=10, side=70)))
    one = open_images(source)

    def last_first(work, items, *, tiny):
        yield from reversed(list(in_parallel(work, items, tiny=tiny, workers=4)))

    monkeypatch.setattr(building, "in_parallel", last_first)
    monkeypatch.setenv("SIGHTLINE_CACHE", str(cache_root / "other"))
    assert _same(one, open_images(source))


def test_the_size_does_not_depend_on_how_a_set_is_packed(folder, archive, noise, image_file):
    contents = {f"{'ab'[n % 2]}/{n:03d}.png": image_file(noise(n, 20 + n % 3, 20 + n % 3)) for n in range(200)}
    contents |= {f"b/{n}.png": image_file(noise(n, 30, 30)) for n in range(200, 400)}
    one = open_images(find_source(folder(contents)))
    order = np.random.default_rng(0).permutation(sorted(contents))
    other = open_images(find_source(archive({name: contents[name] for name in order}, "tar")))
    assert one.size == other.size
    assert np.array_equal(one.pixels, other.pixels)


# ── once ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_second_opening_decodes_nothing(image_set, monkeypatch):
    first = open_images(find_source(image_set))
    monkeypatch.setattr(building, "read_image", lambda *_, **__: pytest.fail("decoded again"))
    assert _same(open_images(find_source(image_set)), first)


def test_a_changed_file_is_decoded_again(image_set, noise, image_file):
    before = open_images(find_source(image_set))
    (image_set / "cats/00.png").write_bytes(image_file(noise(777, 20, 20)))
    after = open_images(find_source(image_set))
    assert np.array_equal(after.pixels[0], noise(777, 20, 20))
    assert np.array_equal(after.pixels[1:], before.pixels[1:])


def test_a_file_that_is_only_touched_a_removed_one_and_a_new_one_are_noticed(image_set, decoded):
    open_images(find_source(image_set))
    os.utime(image_set / "cats/00.png", ns=(1, 1))
    counts = [len(decoded)]
    open_images(find_source(image_set))
    counts.append(len(decoded))
    shutil.move(image_set / "cats/00.png", image_set / "dogs/99.png")
    assert np.bincount(open_images(find_source(image_set)).labels).tolist() == [4, 6]
    assert counts == [20, 40]  # 10 to sample the sizes, 10 to decode


def test_threads_at_once_build_once(image_set, decoded):
    together = threading.Barrier(4)

    def work(_: int) -> CachedImages:
        together.wait(timeout=30)
        return open_images(find_source(image_set))

    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(work, range(4)))
    assert len(decoded) == 20
    assert all(_same(opened[0], images) for images in opened)


COUNTING = """
import sys
from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source
print("ready", flush=True)
sys.stdin.readline()
calls = []
open_images(find_source(sys.argv[1]), progress=lambda done, total: calls.append(done))
print(len(calls), flush=True)
"""


def _start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_build_once(image_set):
    processes = [_start(COUNTING, image_set) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert sorted(told) == ["0\n", "1\n"]
    assert len(cached()) == 1


# ── half a cache ─────────────────────────────────────────────────────────────────────────────────────────────────────


HANGING = """
import sys, threading
from sightline.data import building, cache
from sightline.machine.folders import cache_folder
from sightline.data.sources.find_source import find_source
whole = building.read_image
def read_image(*arguments, **named):
    if list(cache_folder().glob("*.partial-*")):
        print("building", flush=True)
        threading.Event().wait()
    return whole(*arguments, **named)
building.read_image = read_image
cache.open_images(find_source(sys.argv[1]))
"""


def test_a_kill_half_way_leaves_nothing_that_is_taken_for_a_cache(image_set, cache_root):
    process = _start(HANGING, image_set)
    assert process.stdout.readline() == "building\n"
    process.kill()
    process.communicate(timeout=60)
    (left,) = cache_root.glob("*.partial-*")
    assert (left / "pixels.u8").exists()
    assert cached() == []
    images = open_images(find_source(image_set))
    assert np.array_equal(images.pixels[9], decode((image_set / "dogs/04.png").read_bytes()))
    assert not left.exists()


def test_what_a_kill_just_before_the_renaming_left_is_no_cache(image_set, cache_root, decoded):
    images = open_images(find_source(image_set))
    images.folder.rename(f"{images.folder}.partial-4242")
    assert cached() == []
    assert len(decoded) == 20
    open_images(find_source(image_set))
    assert len(decoded) == 40
    assert [path.name for path in cache_root.glob("*/")] == [images.folder.name]


def _broken_while_building(whole):
    def read(data: bytes, size: object, *how: object, hashed: bool):
        return 1 // 0 if hashed else whole(data, size, *how, hashed=hashed)

    return read


def test_an_error_half_way_leaves_nothing_behind(image_set, cache_root, monkeypatch):
    monkeypatch.setattr(building, "read_image", _broken_while_building(building.read_image))
    with pytest.raises(ZeroDivisionError):
        open_images(find_source(image_set))
    assert list(cache_root.glob("*/")) == []


def test_an_interrupt_half_way_leaves_nothing_behind(image_set, cache_root):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_images(find_source(image_set), progress=interrupt)
    assert list(cache_root.glob("*/")) == []
    assert len(open_images(find_source(image_set)).paths) == 10


# ── disks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_disk_that_is_too_full_is_noticed_before_anything_is_decoded(image_set, cache_root, monkeypatch):
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: DiskUsage(10**12, 10**12 - 10**6, 10**6))
    with pytest.raises(
        StorageError, match=r"the cache of set needs .* GB and .* has 0\.0 GB free; free space, set SIGHT"
    ):
        open_images(find_source(image_set))
    assert list(cache_root.glob("*/")) == []


def test_a_disk_that_fills_up_meanwhile_is_named_so(image_set, cache_root, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(building.np, "memmap", full)
    with pytest.raises(
        StorageError, match=r"the disk of the cache folder .* is full; free space or set SIGHTLINE_CACHE"
    ):
        open_images(find_source(image_set))
    assert list(cache_root.glob("*/")) == []


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_cache_folder_that_cannot_be_written_is_named_so(image_set, tmp_path, monkeypatch, below):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "file" / below))
    with pytest.raises(
        StorageError, match=r"the cache folder .* cannot be written \(.*\); set SIGHTLINE_CACHE to one that"
    ):
        open_images(find_source(image_set))


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGHTLINE_CACHE", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("SIGHTLINE_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "sightline"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "sightline"


# ── listing and clearing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_caches_are_listed_by_name_images_and_bytes(image_set):
    images = open_images(find_source(image_set))
    (row,) = cached()
    assert row == {
        "name": "set",
        "location": str(image_set),
        "images": 10,
        "bytes": sum(file.stat().st_size for file in images.folder.iterdir()),
        "folder": str(images.folder),
    }


def test_clearing_frees_what_was_listed_and_touches_nothing_else(image_set, cache_root):
    open_images(find_source(image_set))
    open_images(find_source(image_set), 32)
    others = {"page/index.json": "{}", "poetry.lock": "x", "work.partial-1/note": "x", "notes.txt": "x"}
    for name, text in others.items():
        (cache_root / name).parent.mkdir(exist_ok=True)
        (cache_root / name).write_text(text)
    before = sorted(image_set.rglob("*"))
    listed = sum(row["bytes"] for row in cached())
    assert len(cached()) == 2
    assert clear() == listed
    assert {str(path.relative_to(cache_root)) for path in cache_root.rglob("*") if path.is_file()} == set(others)
    assert sorted(image_set.rglob("*")) == before
    assert (cached(), clear()) == ([], 0)


def test_clearing_takes_what_a_kill_left(image_set, cache_root):
    images = open_images(find_source(image_set))
    size = sum(file.stat().st_size for file in images.folder.iterdir())
    images.folder.rename(f"{images.folder}.partial-4242")
    assert clear() == size
    assert list(cache_root.iterdir()) == []


def test_clearing_half_way_leaves_no_half_cache(image_set, cache_root, monkeypatch):
    images = open_images(find_source(image_set))

    def killed(folder: Path, **_: object) -> None:
        (folder / "pixels.u8").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cache.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            clear()
    assert len(open_images(find_source(image_set)).paths) == len(images.paths)


def test_clearing_where_there_is_no_cache_frees_nothing():
    assert (clear(), cached()) == (0, [])


def test_what_is_stored_is_plain_text_and_pixels(image_set):
    folder = open_images(find_source(image_set)).folder
    assert sorted(file.name for file in folder.iterdir()) == [
        "ends.npy",
        "index.json",
        "labels.npy",
        "pixels.u8",
        "texts.utf8",
    ]
    assert json.loads((folder / "index.json").read_text())["classes"] == ["cats", "dogs"]


# ── a damaged cache ──────────────────────────────────────────────────────────────────────────────────────────────────


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _turn_into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "cut off": _cut,
    "a bit flipped": _flip,
    "emptied": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "overwritten": lambda path: path.write_bytes(b"[[[[" * 60_000),
    "a folder": _turn_into_a_folder,
}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name in ("index.json", "labels.npy", "ends.npy", "texts.utf8", "pixels.u8")
        for damage in DAMAGES
        if (name, damage) != ("pixels.u8", "a bit flipped")  # pixels are not read to open a cache
    ],
)
def test_a_damaged_cache_is_built_anew(image_set, cache_root, name, damage):
    images = open_images(find_source(image_set))
    whole = {file.name: file.read_bytes() for file in images.folder.iterdir()}
    del images
    (folder,) = cache_root.glob("*/")
    DAMAGES[damage](folder / name)
    again = open_images(find_source(image_set))
    assert {file.name: file.read_bytes() for file in again.folder.iterdir()} == whole


@pytest.mark.parametrize("text", ["{}", "[]", "null", "1", '{"digest": 1}', '{"images": -1}', "{" * 100_000])
def test_a_header_of_something_else_is_damage(image_set, cache_root, text):
    before = open_images(find_source(image_set))
    (before.folder / "index.json").write_text(text)
    assert list(open_images(find_source(image_set)).paths) == list(before.paths)


def test_a_damaged_cache_is_listed_and_can_be_cleared(image_set):
    images = open_images(find_source(image_set))
    (images.folder / "index.json").write_text("no header")
    (row,) = cached()
    assert row["name"] == "set (damaged)"
    assert clear() > 0
    assert cached() == []


def test_a_file_in_the_place_of_a_cache_gives_way(image_set):
    folder = open_images(find_source(image_set)).folder
    shutil.rmtree(folder)
    folder.write_text("in the way")
    assert len(open_images(find_source(image_set)).paths) == 10
