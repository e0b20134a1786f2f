"""Features of images from a trained classifier, as a file for use elsewhere. N images, D features.

Nothing here loads Lightning.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sightline.config.checks import nearest
from sightline.data.sources.archive import ARCHIVE_SUFFIXES
from sightline.data.sources.find_source import always_labelled, find_source
from sightline.data.sources.layout import LeftOut, Listing
from sightline.data.sources.manifest import ManifestSource
from sightline.data.sources.source import ImageSource
from sightline.data.sources.unlabeled import plain_files
from sightline.errors import ConfigError, DataError
from sightline.inference.classifier import BATCH, Classifier
from sightline.inference.inputs import paths_of
from sightline.inference.predict import decoded_batches, load
from sightline.machine.devices import keep_freed_memory
from sightline.runs.writing import write_atomically

__all__ = ["FEATURES", "Encoded", "Encoder", "encode"]

FEATURES = "features"  # the layer's name for what the head reads

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


class Encoder:
    """Reads the output of one layer of a classifier's network."""

    def __init__(self, classifier: Classifier, layer: str = FEATURES) -> None:
        """
        Args:
            classifier: from ``load``.
            layer: ``features``, what the head reads, or the name of a layer.
        Raises:
            ConfigError: there is no such layer; the nearest are named.
        """
        self.classifier = classifier
        self.layer = layer
        modules = dict(classifier.network.named_modules())
        modules.pop("")
        if layer != FEATURES and layer not in modules:
            top = [name for name, _ in classifier.network.named_children()]
            raise ConfigError(f"--layer {layer}: {_hint(layer, [FEATURES, *modules], [FEATURES, *top])}")
        self._module: nn.Module | None = modules.get(layer)

    def encode(self, pixels_BHWC: Array) -> Array:
        """Return features, (B, D), in float32, of uint8 images already at the cached size.

        Raises:
            ConfigError: the layer is not called, or gives no tensor of a vector or a map an image.
        """
        with torch.inference_mode(), self.classifier.autocast():
            images = self.classifier.prepare(pixels_BHWC)
            output = self.classifier.network.features(images) if self._module is None else self._output(images)
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4) or len(output) != len(images):
            raise ConfigError(f"--layer {self.layer} gives no vector or map of each image; choose another layer.")
        if output.ndim > 2:  # a map, (B, D, h, w), or tokens, (B, N, D)
            output = output.float().mean(dim=(2, 3) if output.ndim == 4 else 1)
        pooled: Array = output.float().cpu().numpy()
        return pooled

    def encode_rows(self, pixels_NHWC: Array, rows: Array, progress: Callable[[int, int], None] | None = None) -> Array:
        """Return features, (n, D), of some rows of a cache at the classifier's size.

        Args:
            pixels_NHWC: uint8; may be memory-mapped.
            rows: which of them, (n,).
            progress: called with (images done, images in all).
        """
        features = []
        for start in range(0, len(rows), BATCH):
            features.append(self.encode(pixels_NHWC[rows[start : start + BATCH]]))
            if progress:
                progress(min(start + BATCH, len(rows)), len(rows))
        return np.concatenate(features)

    def _output(self, images: Tensor) -> Any:
        outputs: list[Any] = []
        assert self._module is not None
        hook = self._module.register_forward_hook(lambda module, _, output: outputs.append(output))
        try:
            self.classifier.network(images)
        finally:
            hook.remove()
        return outputs[-1] if outputs else None


def encode(
    run: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    layer: str = FEATURES,
    trust_code: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Take the features of image files, folders, archives and image sets.

    Args:
        run: a finished run, or its weights file.
        images: files, folders, archives or image sets. Those that hold class folders, and manifests, give labels.
        out: file to write: ``features`` (N, D) float32, ``files``, ``layer``, ``fingerprint`` (of the weights), and
            ``labels`` and ``classes`` where every image has a class; read it with ``numpy.load``.
        layer: whose output to take: ``features``, which the head reads, or a layer by its name; maps are averaged.
        trust_code: run the code of the repository that a network of ``torch.hub`` is built by.
        progress: called with (images done, images in all).
    Raises:
        ConfigError: there is no such layer.
        DataError: a path is missing, or nothing could be read.
    """
    parts = [_part(item) for item in paths_of(images)]  # refused before the weights are loaded
    keep_freed_memory()
    classifier = load(run, trust_code=trust_code)
    encoder = Encoder(classifier, layer)
    total = sum(part.count for part in parts)
    files: list[_File] = []
    unreadable: list[tuple[_File, str]] = []
    features: list[Array] = []
    for some, pixels in decoded_batches(parts, classifier.resize, BATCH, unreadable, classifier.preprocessing):
        features.append(encoder.encode(pixels))
        files += some
        if progress:
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
        _write(Path(out), encoded, layer, _fingerprint(Path(run)))
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
    needs_classes = always_labelled(text)
    if needs_classes or os.path.isdir(text) or text.lower().endswith(ARCHIVE_SUFFIXES):
        try:
            source = find_source(text)
            source.least = 1 if needs_classes else source.least  # a folder of one class may be no class at all
            listing = source.scan()
            if not listing.unlabeled:
                return _labelled(source, listing, text)
        except DataError:  # no class folders
            if needs_classes:
                raise
    plain = plain_files(text)
    return _Part(len(plain.names), lambda: ((_File(name, None), data) for name, data in plain.read()), plain.left_out)


def _labelled(source: ImageSource, listing: Listing, text: str) -> _Part:
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


def _hint(layer: str, known: list[str], top: list[str]) -> str:
    hint = nearest(layer, known)
    there = f"there are {', '.join(top)}, and the layers within, such as {known[-1]}."
    return f"there is no such layer; {hint if hint.startswith('did') else there}"
