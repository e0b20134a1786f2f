"""Image sets by name, downloaded once: CIFAR-10 and CIFAR-100, MNIST and Fashion-MNIST. N images, height H, width W.

torchvision knows the same sets, but takes seconds to import, and unpickles CIFAR. The binary archives of CIFAR hold
plain bytes, so a table of addresses and checksums and two readers are all that is needed; torch is never loaded.

Source:
    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; LeCun et al., "Gradient-Based Learning
    Applied to Document Recognition", 1998; Xiao et al., "Fashion-MNIST", 2017. The checksums are those of TensorFlow
    Datasets (``url_checksums``); CIFAR's agree with the MD5 sums that its authors publish.
"""

import gzip
import hashlib
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sightline.data.sources.downloads import Progress, PublishedFile, fetch
from sightline.data.sources.entries import Entry, Listing
from sightline.data.sources.source import ImageSource
from sightline.errors import DataError
from sightline.machine.folders import cache_folder

__all__ = ["NAMED", "Cifar", "Idx", "NamedSource"]

_CHUNK = 1000  # images turned to RGB at once
_BROKEN = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error)  # what a damaged archive raises

Array = np.ndarray[Any, Any]
Part = tuple[str, Array, Array]  # split; class indices, (N,); pixels, (N, 3, H, W) or gray (N, H, W)


@dataclass(frozen=True)
class Cifar:
    """A binary archive of CIFAR: records of label bytes and 3 × 32 × 32 pixels, and the names of the classes."""

    file: PublishedFile
    label_bytes: int
    """Before the pixels of an image; the last one counts (CIFAR-100: the coarse class, then the fine one)."""
    names: str
    """Member with the name of a class in each line."""

    @property
    def files(self) -> tuple[PublishedFile, ...]:
        return (self.file,)

    def classes(self, folder: Path) -> list[str]:
        """Return the names in index order."""
        for name, file in self._members(folder):
            if name == self.names:
                return [line.strip() for line in file.read().decode("utf-8").splitlines() if line.strip()]
        raise _foreign(folder / self.file.name, f"it has no {self.names}")

    def parts(self, folder: Path) -> Iterator[Part]:
        """Yield the images, in the archive's order."""
        record = self.label_bytes + 3 * 32 * 32
        for name, file in self._members(folder):
            while name.endswith(".bin") and (block := file.read(_CHUNK * record)):
                if len(block) % record:
                    raise _foreign(folder / self.file.name, f"{name} is no whole number of images")
                rows = np.frombuffer(block, np.uint8).reshape(-1, record)
                pixels = rows[:, self.label_bytes :].reshape(-1, 3, 32, 32)
                yield "test" if name.startswith("test") else "train", rows[:, self.label_bytes - 1], pixels

    def _members(self, folder: Path) -> Iterator[tuple[str, "_Member"]]:
        path = folder / self.file.name
        with _whole(path), tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.isfile():
                    yield PurePosixPath(member.name).name, _Member(path, archive.extractfile(member))


@dataclass(frozen=True)
class _Member:
    """A file in an archive that may be damaged."""

    path: Path
    file: Any

    def read(self, size: int = -1) -> bytes:
        with _whole(self.path):
            return bytes(self.file.read(size))


@dataclass(frozen=True)
class Idx:
    """Four files of MNIST's kind: gray images and labels, of train and of test."""

    files: tuple[PublishedFile, ...]
    """Images and labels of train, then of test."""
    names: tuple[str, ...]

    def classes(self, folder: Path) -> list[str]:
        """Return the names in index order."""
        return list(self.names)

    def parts(self, folder: Path) -> Iterator[Part]:
        """Yield the images, in the order of the files."""
        train_images, train_labels, test_images, test_labels = self.files
        for split, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
            pixels_NHW, labels_N = self._read(folder / images.name, 3), self._read(folder / labels.name, 1)
            if len(pixels_NHW) != len(labels_N):
                raise _foreign(folder / images.name, f"{len(pixels_NHW)} images and {len(labels_N)} labels")
            for start in range(0, len(labels_N), _CHUNK):
                yield split, labels_N[start : start + _CHUNK], pixels_NHW[start : start + _CHUNK]

    @staticmethod
    def _read(path: Path, dimensions: int) -> Array:
        """Read an idx file: two zeros, 8 for bytes, the number of dimensions, their sizes (big-endian), the values."""
        with _whole(path), gzip.open(path) as file:
            data = file.read()
        start = 4 + 4 * dimensions
        if len(data) < start or data[:4] != bytes([0, 0, 8, dimensions]):
            raise _foreign(path, "it is no idx file")
        shape = np.frombuffer(data, ">u4", dimensions, 4).astype(int)
        if len(data) != start + shape.prod():
            raise _foreign(path, f"it is shorter or longer than its {'×'.join(map(str, shape))} bytes")
        return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Make one sentence of what a damaged archive raises."""
    try:
        yield
    except _BROKEN as error:
        raise _foreign(path, str(error)) from error


def _foreign(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be read: {why}; delete it and start again.")


class NamedSource(ImageSource):
    """A published image set, downloaded to ``downloads/NAME`` in the cache folder when it is first read."""

    def __init__(self, name: str) -> None:
        self.name = self.location = name
        self.folder = cache_folder() / "downloads" / name
        self._set = NAMED[name]
        self._checked = False

    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(file.sha256 for file in self._set.files).encode()).hexdigest()

    def download(self, progress: Progress | None = None) -> None:
        """Have the files on the disk, with the right checksums; ``progress`` counts megabytes."""
        if not self._checked:
            fetch(self._set.files, self.folder, progress)
            self._checked = True

    def scan(self) -> Listing:
        self.download()
        classes = self._set.classes(self.folder)
        entries = []
        for split, start, labels, _ in self._numbered():
            if labels.max() >= len(classes):
                raise _foreign(self.folder, f"class {labels.max()} has no name among {len(classes)}")
            entries += [Entry(_path(split, start + i), classes[label], split) for i, label in enumerate(labels)]
        return Listing(entries, Counter())

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, Array]]:
        self.download()
        index_of = {entry.path: index for index, entry in enumerate(entries)}
        for split, start, labels, pixels in self._numbered():
            rows = [(index_of.get(_path(split, start + row)), row) for row in range(len(labels))]
            chosen = [(index, row) for index, row in rows if index is not None]
            if chosen:
                yield from zip((index for index, _ in chosen), _to_rgb(pixels[[row for _, row in chosen]]), strict=True)

    def _numbered(self) -> Iterator[tuple[str, int, Array, Array]]:
        """Yield the parts of the set, each with the number of its first image within its split."""
        done: Counter[str] = Counter()
        for split, labels, pixels in self._set.parts(self.folder):
            yield split, done[split], labels, pixels
            done[split] += len(labels)


def _path(split: str, number: int) -> str:
    return f"{split}/{number:05d}.png"


def _to_rgb(pixels: Array) -> Array:
    """Turn (N, 3, H, W), or gray (N, H, W), into (N, H, W, 3)."""
    if pixels.ndim == 3:
        return np.repeat(pixels[..., None], 3, axis=3)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


# ── what is published, and where ─────────────────────────────────────────────────────────────────────────────────────

_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_MNIST = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_FASHION = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)  # no https there; the checksum protects


def _idx_files(bases: tuple[str, ...], *sizes_and_sums: tuple[int, str]) -> tuple[PublishedFile, ...]:
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return tuple(
        PublishedFile(name, size, sha256, tuple(base + name for base in bases))
        for name, (size, sha256) in zip(names, sizes_and_sums, strict=True)
    )


def _cifar(name: str, size: int, sha256: str, **facts: Any) -> Cifar:
    return Cifar(PublishedFile(name, size, sha256, (_CIFAR + name,)), **facts)


NAMED: dict[str, Cifar | Idx] = {
    "cifar10": _cifar(
        "cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        label_bytes=1,
        names="batches.meta.txt",
    ),
    "cifar100": _cifar(
        "cifar-100-binary.tar.gz",
        168_513_733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        label_bytes=2,
        names="fine_label_names.txt",
    ),
    "mnist": Idx(
        _idx_files(
            _MNIST,
            (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        tuple("0123456789"),
    ),
    "fashion-mnist": Idx(
        _idx_files(
            _FASHION,
            (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
