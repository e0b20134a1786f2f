"""Embed an image set: one vector for each readable image, that no label of the set has shaped. N images, D features.

By default it is made by the backbone in the box, which has never seen the set; small images are enlarged for it. The
vectors are kept on disk as those of a probe of photographs are, and shared with it: photographs are shown at the same
size. They are read as they are asked for.
"""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sightline.config.backbones import BACKBONES, BOX, BOX_NETWORK
from sightline.config.networks import TimmConfig
from sightline.data.batches import Normalization
from sightline.data.cache import open_images
from sightline.data.sizing import SMALL_SIDE
from sightline.data.sources.downloads import Progress
from sightline.data.sources.source import ImageSource
from sightline.display.reporting import Listener, ignore
from sightline.inference.feature_store import BATCH, FeatureStore
from sightline.inference.predict import load
from sightline.inference.vectors import Vectors
from sightline.models.build import build_network
from sightline.models.pretrained import load_weights
from sightline_runtime.decoding.preprocessing import DEFAULT, Preprocessing

__all__ = ["SMALL_SHOWN", "Embedding", "embed"]

SMALL_SHOWN = 96  # pixels of the shorter side that images of up to 64 px are enlarged to; docs/results/labels.md
WORTH_SAYING = 20  # seconds, from which on the cost is announced
TIMED = 4  # batches that tell what the rest will cost
PART, LARGEST_PART = 8192, 65_536  # images, at least and at most, after which what was computed is put on disk

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Embedding:
    """The vectors of an image set, and where they come from."""

    rows: Array
    """Of the images, (N,), ascending: those of the set that can be read."""
    features_ND: Vectors
    """In float32."""
    late_ND: Vectors
    """Channel means of a late map of the same pass: judging labels by both was better than by either alone."""
    name: str
    """What made them, such as ``the backbone in the box at 96 px``."""
    computed: int
    """Images that were embedded now; the vectors of the others were kept from before."""
    note: str = ""
    """Why kept vectors could not be used, or these not be kept; empty where all went well."""

    def places(self, rows_n: Array) -> Array:
        """Return where some rows of the set stand among the vectors, (n,)."""
        return np.searchsorted(self.rows, rows_n)


def embed(
    source: ImageSource,
    run: str | os.PathLike[str] | None,
    trust_code: bool = False,
    progress: Progress | None = None,
    *,
    preprocessing: Preprocessing = DEFAULT,
    on_event: Listener = ignore,
) -> Embedding:
    """Compute a vector for each readable image of a set, or find those that are kept.

    Args:
        source: the image set.
        run: finished run whose features are taken; None takes the backbone in the box.
        trust_code: run the code of the repository that a network of torch.hub is built by.
        progress: called with (images done, images in all).
        preprocessing: how images of other shapes and depths are shown to the backbone in the box.
        on_event: is told what it will cost, before most of it is spent.
    Raises:
        DataError: the set cannot be used.
        RunError: the run cannot be read.
    """
    if run is None:
        store, name = _by_box(source, preprocessing, progress)
    else:
        store, name = _by_run(source, run, trust_code, progress)
    rows = store.images.readable
    _compute(store, name, progress, on_event)
    return Embedding(rows, *store.vectors(rows), name, store.computed, store.note)


def _by_box(source: ImageSource, preprocessing: Preprocessing, progress: Progress | None) -> tuple[FeatureStore, str]:
    """Open the features of the backbone in the box: of small images enlarged, of others as a probe reads them."""
    images = open_images(source, None, progress, preprocessing=preprocessing)
    shown = None
    if max(images.size) <= SMALL_SIDE:
        height, width = (round(side * SMALL_SHOWN / min(images.size)) for side in images.size)
        shown = height, width
    else:
        images = open_images(source, BACKBONES[BOX].side, progress, preprocessing=preprocessing)
    config = TimmConfig(name=BOX_NETWORK, weights=BOX)
    network = build_network(config, len(images.classes), shown or images.size)
    weights = load_weights(network, config, shown or images.size)
    assert weights is not None  # the box has them, with their normalization
    assert weights.mean is not None
    assert weights.std is not None
    normalization = Normalization(weights.mean, weights.std)
    name = f"the backbone in the box at {min(shown or images.size)} px"
    return FeatureStore(network, images, normalization, shown=shown), name


def _by_run(
    source: ImageSource, run: str | os.PathLike[str], trust_code: bool, progress: Progress | None
) -> tuple[FeatureStore, str]:
    """Open the features that the head of a run reads."""
    classifier = load(run, trust_code=trust_code)
    exactly = (classifier.size, classifier.resize)
    images = open_images(source, None, progress, exactly=exactly, preprocessing=classifier.preprocessing)
    normalization = Normalization(**classifier.model["normalization"])
    precision = {torch.float32: "float32", torch.bfloat16: "bfloat16"}.get(classifier.dtype, "float16")
    store = FeatureStore(classifier.network, images, normalization, precision, pretrained=False)
    return store, f"the features of {os.fspath(run)}"


def _compute(store: FeatureStore, name: str, progress: Progress | None, on_event: Listener) -> None:
    """Compute what is not kept, part by part, each put on disk when it is done; say what it will cost by the first.

    A part is at least half as large as all before it, as far as memory holds that, so that writing remains a small
    share of the work.
    """
    missing = store.missing(store.images.readable)
    total, done = len(missing), 0
    for size in (BATCH, TIMED * BATCH):  # the first also pays for what happens once
        start = time.perf_counter()
        part = missing[done : done + size]
        store.compute(part, _shifted(progress, done, total))
        done += len(part)
    seconds = (time.perf_counter() - start) / (TIMED * BATCH) * (total - done)
    if seconds > WORTH_SAYING:
        duration = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
        on_event(f"{total:,} images are embedded by {name}: about {duration}; kept for the next time")
    while done < total:
        part = missing[done : done + min(max(PART, done // 2), LARGEST_PART)]
        store.compute(part, _shifted(progress, done, total))
        done += len(part)


def _shifted(progress: Progress | None, done: int, total: int) -> Progress | None:
    """Report progress within a part as that of all."""
    return None if progress is None else lambda now, _: progress(done + now, total)
