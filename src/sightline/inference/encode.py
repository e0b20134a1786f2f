"""Features of images from a trained classifier, as a file for use elsewhere. N images, D features.

Nothing here loads Lightning, nor torch before there is an image to encode.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sightline.data.sources.archive import ARCHIVE_SUFFIXES
from sightline.data.sources.entries import LeftOut, Listing
from sightline.data.sources.find_source import always_labeled, find_source
from sightline.data.sources.manifest import ManifestSource
from sightline.data.sources.source import ImageSource
from sightline.data.sources.unlabeled import plain_files
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.errors import ConfigError, DataError
from sightline.inference.predict import decoded_batches, load
from sightline.runs.hub import weights_of
from sightline.runs.writing import write_atomically
from sightline_runtime.inputs import paths_of

__all__ = ["Encoded", "encode"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Encoded:
    """Features of images, in the order in which they were found."""

    features: Array
    """(N, D), float32."""
    files: list[str]
    labels: Array | None
    """Indices into ``classes``, (N,); None where some of the images have no class."""
    classes: list[str] | None
    unreadable: list[tuple[str, str]]
    """(file, reason) of each that could not be read."""
    left_out: list[str] = field(default_factory=list)
    """Lines on files that were found and are no images, by reason and suffix."""


@reporting
def encode(
    run: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    layer: str = "features",
    trust_code: bool = False,
    on_event: Listener = ignore,
) -> Encoded:
    """Write what a classifier makes of images, one vector an image, for use elsewhere.

    Args:
        run: Folder of a finished run, its model.safetensors alone, or hf:OWNER/NAME[@REVISION] of the hub.
        images: Files, folders and archives; labels are kept of those that are image sets with classes.
        out: File to write (.npz), for ``numpy.load``: features, files, layer, fingerprint (of the weights file with
            what it says of the run, so that of another training is another), and labels and classes where all images
            have them.
        layer: Whose output to take: features, which the last layer reads, or a layer by its name; maps are averaged.
        trust_code: Run the code of the repository that a network of torch.hub is built by.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Raises:
        ConfigError: there is no such layer, or the file is named otherwise.
        DataError: a path is missing, or nothing could be read.
        RunError: no run, or not finished.
    """
    paths = paths_of(images)
    if not paths:
        raise DataError("no images were named; give files, folders, archives or image sets.")
    if out is not None and Path(out).suffix != ".npz":
        raise ConfigError(f"--out {out} must end in .npz, the format of the features.")
    with stage(on_event, "Encoding", brief=True) as progress:
        parts = [_part(path) for path in paths]
        run = weights_of(run, on_event)
        classifier = load(run, trust_code=trust_code)  # refuses before torch is loaded
        from sightline.inference.classifier import BATCH
        from sightline.inference.encoder import Encoder
        from sightline.machine.devices import keep_freed_memory

        keep_freed_memory()
        encoder = Encoder(classifier, layer)
        total = sum(part.count for part in parts)
        files: list[_File] = []
        unreadable: list[tuple[_File, str]] = []
        features: list[Array] = []
        for some, pixels in decoded_batches(parts, classifier.resize, BATCH, unreadable, classifier.preprocessing):
            features.append(encoder.encode(pixels))
            files += some
            progress(len(files) + len(unreadable), total)
        labels = [file.label for file in files]
        names = sorted({label for label in labels if label is not None})
        known = None not in labels
        encoded = Encoded(
            features=np.concatenate(features),
            files=[file.name for file in files],
            labels=np.array([names.index(label) for label in labels if label is not None], np.int64) if known else None,
            classes=names if known else None,
            unreadable=[(file.name, reason) for file, reason in unreadable],
            left_out=[line for part in parts for line in part.left_out.sentences()],
        )
        if out is not None:
            _write(Path(out), encoded, layer, _fingerprint(run))
        return encoded


# ── what is encoded ──────────────────────────────────────────────────────────────────────────────────────────────────


class _File(NamedTuple):
    name: str
    label: str | None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class _Part:
    """The images of one path."""

    count: int
    read: Callable[[], Iterator[tuple[_File, bytes | Array | OSError]]]
    left_out: LeftOut


def _part(path: str | os.PathLike[str]) -> _Part:
    """Open the images of an image set, with their classes, or of a file, a folder or an archive, without."""
    text = os.fspath(path)
    needs_classes = always_labeled(text)
    if needs_classes or os.path.isdir(text) or text.lower().endswith(ARCHIVE_SUFFIXES):
        try:
            source = find_source(text)
            source.least = 1 if needs_classes else source.least  # a folder of one class may be no class at all
            listing = source.scan()
            if not listing.unlabeled:
                return _labeled(source, listing, text)
        except DataError:  # no class folders
            if needs_classes:
                raise
    plain = plain_files(text)
    return _Part(len(plain.names), lambda: ((_File(name, None), data) for name, data in plain.read()), plain.left_out)


def _labeled(source: ImageSource, listing: Listing, text: str) -> _Part:
    entries = listing.entries
    manifest = isinstance(source, ManifestSource)
    root = os.path.dirname(text) if manifest else text.rstrip("/")

    def read() -> Iterator[tuple[_File, bytes | Array | OSError]]:
        for index, data in source.read(entries):
            yield _File(os.path.join(root, entries[index].path), entries[index].label), data

    return _Part(len(entries), read, LeftOut(listing.ignored, listing.suffixes))


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────────


def _write(path: Path, encoded: Encoded, layer: str, fingerprint: str) -> None:
    columns: dict[str, Any] = {
        "features": encoded.features,
        "files": _texts(encoded.files),
        "layer": np.array(layer),
        "fingerprint": np.array(fingerprint),
    }
    if encoded.labels is not None and encoded.classes is not None:
        columns |= {"labels": encoded.labels, "classes": _texts(encoded.classes)}
    file = io.BytesIO()
    np.savez(file, **columns)
    write_atomically(path, file.getvalue())


def _texts(texts: list[str]) -> Array:
    """Return texts as numpy holds them without pickles; bytes that are not UTF-8 become escapes."""
    return np.array([text.encode("utf-8", "backslashreplace").decode() for text in texts], np.str_)


def _fingerprint(run: Path) -> str:
    """Return a digest of the weights: the same for every copy of a run."""
    weights = run if run.suffix == ".safetensors" else run / "model.safetensors"
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
