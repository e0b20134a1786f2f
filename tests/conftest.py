"""Small image sets, made on the spot. Every test has a cache folder of its own."""

import hashlib
import io
import os
import signal
import socket
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.data.cache import CachedImages

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a background job of a shell; its children could not be stopped
    signal.signal(signal.SIGINT, signal.default_int_handler)
if not os.path.isfile(sys.argv[0]):
    sys.argv[0] = pytest.__file__  # a worker of pytest-xdist has no program that could be started again
os.environ["OMP_NUM_THREADS"] = "1"  # before torch: small tensors gain nothing from threads, and wait for each other
# sightline, imported above, has set how those wait (GOMP_SPINCOUNT), also for programs that tests start

Array = np.ndarray[Any, Any]

ARCHIVES = {"zip": "w", "tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}  # and the mode in which tarfile writes it


@pytest.fixture(autouse=True)
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test."""
    root = tmp_path / "cache"
    monkeypatch.setenv("SIGHTLINE_CACHE", str(root))
    return root


@pytest.fixture(autouse=True)
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings in this process do not measure the machine's speed, which takes up to a second of each."""
    if "sightline.training.callbacks.cost" in sys.modules:
        monkeypatch.setattr("sightline.training.callbacks.cost.convolution_flops", lambda *_: 1e9)


@pytest.fixture
def noise() -> Callable[..., Array]:
    """Make pixels that depend on a number only."""

    def make(number: int, height: int = 8, width: int = 8) -> Array:
        return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)

    return make


@pytest.fixture
def image_file() -> Callable[..., bytes]:
    """Write pixels, or a Pillow image, to the bytes of an image file."""

    def make(pixels: Array | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return make


@pytest.fixture
def files(noise: Callable[..., Array], image_file: Callable[..., bytes]) -> Callable[..., dict[str, bytes]]:
    """Make the files of a set: so many different images of each class."""

    def make(*classes: str, images: int = 2, side: int = 8) -> dict[str, bytes]:
        return {
            f"{name}/{index:02d}.png": image_file(noise(1000 * number + index, side, side))
            for number, name in enumerate(classes)
            for index in range(images)
        }

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write files below a new folder."""

    def make(contents: dict[str, bytes], name: str = "set") -> Path:
        root = tmp_path / name
        root.mkdir(parents=True, exist_ok=True)
        for path, data in contents.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        return root

    return make


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., Path]:
    """Pack files, in the order they are given."""

    def make(contents: dict[str, bytes], kind: str = "zip", name: str = "packed") -> Path:
        path = tmp_path / f"{name}.{kind}"
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
                for member, data in contents.items():
                    packed.writestr(member, data)
        else:
            with tarfile.open(path, ARCHIVES[kind]) as packed:
                for member, data in contents.items():
                    header = tarfile.TarInfo(member)
                    header.size = len(data)
                    packed.addfile(header, io.BytesIO(data))
        return path

    return make


@pytest.fixture
def in_memory(tmp_path: Path) -> Callable[..., CachedImages]:
    """Make an opened set out of columns, without any file."""

    def make(
        labels: list[int],
        *,
        splits: list[str | None] | None = None,
        groups: list[str | None] | None = None,
        hashes: list[str] | None = None,
        pixels: Array | None = None,
        size: tuple[int, int] | None = None,
    ) -> CachedImages:
        count = len(labels)
        if pixels is None:
            pixels = np.zeros((count, 1, 1, 3), np.uint8)
        return CachedImages(
            name="made",
            location="nowhere",
            folder=tmp_path,
            size=size or pixels.shape[1:3],
            classes=[f"class {index}" for index in range(max(labels) + 1)],
            paths=[f"{row:05d}.png" for row in range(count)],
            labels=np.array(labels, np.int64),
            splits=splits or [None] * count,
            groups=groups or [None] * count,
            hashes=hashes or [hashlib.md5(str(row).encode()).hexdigest() for row in range(count)],
            left_out=[],
            tiny=[],
            ignored={},
            pixels=pixels,
        )

    return make


@dataclass(frozen=True)
class Finished:
    """A finished run, and the folder of images that it was trained on."""

    run: Path
    data: Path
    cache: Path


QUICK = {
    "fit": {"epochs": 4, "batch_size": 16},
    "network": {"kind": "speednet", "widths": [8, 16, 16]},
}
"""Settings that train in a second or two."""


def coloured_folder(root: Path, images: int = 30) -> Path:
    """A folder of three classes that a tiny network tells apart: red, green and blue, each more or less noisy."""
    for channel, name in enumerate(["=blood", "grass", "ünder wasser"]):
        (root / name).mkdir(parents=True)
        for index in range(images):
            random = np.random.default_rng(1000 * channel + index)
            spread = int(random.integers(1, 81))  # from almost plain to noisy
            pixels = random.integers(80 - spread, 80 + spread, (32, 32, 3), np.uint8)
            pixels[..., channel] += 90
            Image.fromarray(pixels).save(root / name / f"{index:03d}.png")
    return root


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One training for all tests that only read a run. Copy the run before changing it."""
    import sightline

    root = tmp_path_factory.mktemp("finished")
    data = coloured_folder(root / "colours")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(root / "cache"))
        run = sightline.train(data, recipe="small", settings=QUICK, run=root / "run")
    assert run is not None
    return Finished(run, data, root / "cache")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network on which nobody answers."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def wait_for_group_to_end(group: int) -> None:
    """Fail if a process of a group is still there after a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("a process outlived the one that started it")
