"""Cross-fitting: networks that are trained without some of the images judge those. N images, K classes.

Fixed features know little of images of 32 pixels. Networks of the recipe ``fast`` learn what the set shows, and since
each is asked only about the third that it was trained without, none has learned a wrong label by heart that it judges.
They cost minutes, which are announced, and their probabilities are kept on disk.
"""

import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.checks.problems import FEWEST_TO_JUDGE
from sightline.config.networks import SpeednetConfig
from sightline.config.resolving import read_recipe, resolve, to_yaml
from sightline.data.cache import CachedImages
from sightline.data.folds import deal_folds
from sightline.data.splits import Splits
from sightline.errors import StorageError
from sightline.inference.predict import load
from sightline.machine.folders import cache_folder
from sightline.measures.metrics import cross_entropy
from sightline.models.build import build_network
from sightline.runs.writing import create_folder, write_atomically, write_csv
from sightline.training.estimates import estimate_training
from sightline.training.train import train

__all__ = ["LEAST", "MOST_SECONDS", "NETWORKS", "Dealt", "cross_fit", "deal", "estimated_seconds", "kept", "pool"]

FORMAT = 2  # rises when what is kept changes its meaning
NETWORKS = 3  # each trained without one of as many folds
EPOCHS = 6  # of the nine of the recipe; docs/results/labels.md
LEAST = 10_000  # images that such a network wants: those of the recipe fast
MOST_SECONDS = 20 * 60  # that are spent without being asked to
VALIDATION = 1000  # images that calibrate a network, at most
BLOCK = 500  # images that are asked about at a time
WEIGHTS = np.linspace(0, 1, 11)  # of the networks, in a pool of two judges

Array = np.ndarray[Any, Any]
Count = Callable[[int, int], None]


def estimated_seconds(images: CachedImages) -> float:
    """Estimate how long cross-fitting takes; a step of a training is timed."""
    recipe = resolve(read_recipe("fast"), {"fit": {"epochs": EPOCHS}})
    assert isinstance(recipe.network, SpeednetConfig)
    network = build_network(recipe.network, len(images.classes), images.size)
    fitted = len(images.readable) * (NETWORKS - 1) // NETWORKS
    return NETWORKS * estimate_training(recipe, network, images.size, fitted, 0).seconds


@dataclass(frozen=True)
class Dealt:
    """Which network judges which of the readable images of a set."""

    fold_N: Array
    """The network that is trained without the image, and alone judges it, (N,); -1: the mean of all judges it."""
    learned_N: Array
    """Whether the other networks are trained on it, (N,): they are not on images of test."""


def deal(images: CachedImages, splits: Splits | None, alike: tuple[Array, Array] | None = None) -> Dealt:
    """Deal the readable images of a set to the networks.

    What is in test is judged by all, or by the one that was trained without its copies. Images of a class that is too
    small to be judged are left out of no training, so that none goes without the class.

    Args:
        images: the set.
        splits: as a training cuts it; None: it cannot be cut.
        alike: pairs of rows that show one picture, the most alike first: none is judged by a network that was trained
            on the other, as far as ``deal_folds`` keeps them together.
    """
    rows = images.readable
    learned_N = np.ones(len(rows), bool) if splits is None else ~np.isin(rows, splits.test)
    fold_N = np.full(len(rows), -1)
    fold_N[learned_N] = deal_folds(images, rows[learned_N], NETWORKS, 0, alike)
    counts_K = np.bincount(images.labels[rows[learned_N]], minlength=len(images.classes))
    fold_N[learned_N & (counts_K < FEWEST_TO_JUDGE)[images.labels[rows]]] = -1
    places = np.flatnonzero(learned_N)
    fold_of = {images.hashes[rows[place]]: int(fold_N[place]) for place in places.tolist()}
    copied = dict(fold_of)
    for one, other in zip(*(part.tolist() for part in alike), strict=True) if alike is not None else ():
        for test, twin in ((one, other), (other, one)):
            if (fold := fold_of.get(images.hashes[twin])) is not None:
                copied.setdefault(images.hashes[test], fold)
    for place in np.flatnonzero(~learned_N).tolist():
        fold_N[place] = copied.get(images.hashes[rows[place]], -1)
    return Dealt(fold_N, learned_N)


def cross_fit(
    data: str | os.PathLike[str],
    images: CachedImages,
    dealt: Dealt,
    settings: Mapping[str, Any],
    progress: Count | None = None,
) -> Array:
    """Compute probabilities of the classes of all readable images, (N, K), by networks that were trained without them.

    Args:
        data: the image set, as ``sightline.train`` takes it.
        images: the same set, as it is judged.
        dealt: which network is trained without which of them.
        settings: of data, with which a training reads the set as it is judged: ``classes``, ``corrections``.
        progress: called with (epochs done, epochs in all).
    Raises:
        SightlineError: as ``sightline.train`` raises it.
    """
    rows, folds = images.readable, dealt.fold_N
    path = _kept(images, dealt)
    if (found := _read(path, (len(rows), len(images.classes)))) is not None:
        return found
    probabilities_NK = np.zeros((len(rows), len(images.classes)), np.float32)
    for fold in range(NETWORKS):
        asked = np.flatnonzero((folds == fold) | (folds < 0))
        share = np.where(folds[asked] < 0, 1 / NETWORKS, 1).astype(np.float32)
        without = rows[dealt.learned_N & (folds == fold)].tolist()
        left_out = [images.paths[row] for row in [*without, *_decided_out(images)]]
        layer = _changing(images, rows[dealt.learned_N & (folds != fold)], settings)
        count = _later(progress, fold)
        probabilities_NK[asked] += share[:, None] * _of_one(data, images, rows[asked], left_out, layer, fold, count)
    with suppress(StorageError):  # the next check computes them anew
        create_folder(path.parent)
        content = io.BytesIO()
        np.save(content, probabilities_NK)
        write_atomically(path, content.getvalue())
    return probabilities_NK


def kept(images: CachedImages, dealt: Dealt) -> bool:
    """Say whether the probabilities lie on disk; ``cross_fit`` computes them where they are damaged."""
    return _kept(images, dealt).exists()


def _decided_out(images: CachedImages) -> list[int]:
    """Return the rows that a corrections file leaves out."""
    return [] if images.corrected is None else images.corrected.left_out.tolist()


def _changing(images: CachedImages, fitted: Array, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without a corrections file that changes no label of some rows: a training refuses such."""
    if images.corrected is None:
        return dict(settings)
    before = images.corrected
    rows = np.intersect1d(before.decided, fitted).tolist()
    changed = any(images.classes[images.labels[row]] != before.classes[before.labels[row]] for row in rows)
    return {name: value for name, value in settings.items() if name != "corrections" or changed}


def _of_one(
    data: str | os.PathLike[str],
    images: CachedImages,
    asked: Array,
    left_out: Sequence[str],
    settings: Mapping[str, Any],
    fold: int,
    count: Callable[[int, Mapping[str, float]], None],
) -> Array:
    """Train a network without some images; returns its probabilities of the rows that it is asked about, (n, K)."""
    with tempfile.TemporaryDirectory(prefix="sightline-cross-fitting-", ignore_cleanup_errors=True) as folder:
        exclude, run = Path(folder) / "fold.csv", Path(folder) / "run"
        write_csv(exclude, ["file"], [[path] for path in left_out])
        validation = min(VALIDATION, max(1, (len(images.readable) - len(left_out)) // 10))
        layer = {
            "data": {**settings, "exclude": str(exclude), "validation": validation},
            "fit": {"epochs": EPOCHS, "seed": fold},
            "evaluation": {"on": "none", "precision": "auto", "robustness": False},
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # such as those on its calibration: it is nobody's classifier
            train(data, recipe="fast", settings=layer, run=run, after_epoch=count)
        classifier = load(run)
        columns = [images.classes.index(name) for name in classifier.classes]
        probabilities_nK = np.zeros((len(asked), len(images.classes)), np.float32)
        for start in range(0, len(asked), BLOCK):
            block = slice(start, start + BLOCK)
            probabilities_nK[block, columns] = classifier.probabilities(images.pixels[asked[block]], "flip")
    return probabilities_nK


def _later(progress: Count | None, networks: int) -> Callable[[int, Mapping[str, float]], None]:
    """Report epochs of a network after those before it."""

    def count(epoch: int, _: Mapping[str, float]) -> None:
        if progress:
            progress(networks * EPOCHS + epoch, NETWORKS * EPOCHS)

    return count


def pool(heads_NK: Array, networks_NK: Array, labels_N: Array) -> Array:
    """Pool two judges: the normalized weighted geometric mean of their probabilities, (N, K).

    The weight is the one by which the labels are most probable.

    Source:
        Genest and Zidek, "Combining Probability Distributions: A Critique and an Annotated Bibliography", Statistical
        Science 1986: the logarithmic opinion pool.
    """
    first_NK, second_NK = (np.log(np.maximum(one_NK, 1e-9)) for one_NK in (heads_NK, networks_NK))
    pools = ((1 - weight) * first_NK + weight * second_NK for weight in WEIGHTS)
    logits_NK = min(pools, key=lambda pooled_NK: cross_entropy(pooled_NK, labels_N))
    shares_NK: Array = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    shares_NK /= shares_NK.sum(axis=1, keepdims=True)
    return shares_NK.astype(np.float32, copy=False)


def _kept(images: CachedImages, dealt: Dealt) -> Path:
    """Return where the probabilities of such networks are kept: by the decoded set, the labels, folds and recipe."""
    recipe = resolve(read_recipe("fast"), {"fit": {"epochs": EPOCHS}, "about": ""})
    parts = [FORMAT, images.folder.name, ",".join(images.classes), to_yaml(recipe)]
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogateescape"))
    for array in (images.readable, images.labels[images.readable], dealt.fold_N, dealt.learned_N):
        digest.update(np.ascontiguousarray(array, np.int64).tobytes())
    name = f"{images.folder.name[:-21]}-cross-fitted-{digest.hexdigest()[:20]}"
    return cache_folder() / name / "probabilities.npy"


def _read(path: Path, shape: tuple[int, int]) -> Array | None:
    """Read kept probabilities; None where there are none, or they are damaged."""
    try:
        found: Array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 and np.isfinite(found).all() else None
