"""Do mirrored images of a class still look like their class? Left and right arrows do not, nor do letters and digits.

N images, K classes, P positions of patches, F filters. A linear classifier on the parts of small gray pictures, and on
their colors, is asked about images that it did not learn from, as they are and mirrored. No torch: a second or two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.data.cache import CachedImages
from sightline.data.folds import deal_folds
from sightline.measures.alignment import LUMA, shrink

__all__ = ["SWAPPED", "UNLIKE", "Mirroring", "measure_mirroring"]

SWAPPED = 1 / 2  # of the images of each of two classes, that look like the other one when mirrored: they are a pair
UNLIKE = 1 / 2  # of the recall that is lost by mirroring: the images look unlike their own
IMAGES, A_CLASS, MOST = 400, 10, 1000  # that are sampled: in all, of a class at least, and in all at most
SIDES = (32, 16)  # pixels of the pictures whose parts are looked at, with the steps between two of them
STEPS = (2, 1)
PATCH = 6  # pixels of a part; every position of a picture is the mirror image of another one
FILTERS = 64  # of each side
CONTRAST = 10.0  # levels of 255: parts with less contrast are noise
LEVELS = 4  # of each channel, of the histogram of colors
PENALTY = 0.3  # of the ridge regression, as a share of the mean squared length
FOLDS, PERMUTATIONS = 5, 1000

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Mirroring:
    """Measures of a sample of training images, as they are and mirrored."""

    images: int
    accuracy: float
    """Of images that were not learned from, as they are: mean over the classes."""
    mirrored: float
    """The same, of their mirror images."""
    swapped: float
    """Share of images, in both directions, that change from a class to another one; of the pair with the largest
    share."""
    chance: float
    """The largest such share in 1,000 permutations, each of which mirrors half of the images at random."""
    pairs: tuple[tuple[int, int], ...]
    """Classes that look like one another when mirrored."""
    unlike: tuple[int, ...]
    """Classes whose mirrored images look unlike their own, where that is so of the set as a whole."""

    @property
    def lost(self) -> float:
        """The share of the recall that mirroring loses."""
        return 1 - self.mirrored / self.accuracy if self.accuracy else 0.0

    @property
    def harmless(self) -> bool:
        """Whether nothing speaks against showing images mirrored."""
        return not self.pairs and not self.unlike

    def reason(self, classes: Sequence[str]) -> str:
        """Say what speaks against showing images mirrored; empty where nothing does."""
        parts = []
        if self.pairs:
            shown = [f"{classes[one]} and {classes[other]}" for one, other in self.pairs[:5]]
            parts.append(f"mirrored, {', '.join(shown)} look like one another")
        if self.unlike:
            names = [classes[label] for label in self.unlike]
            shown = [", ".join(names[:10]) + (", ..." if len(names) > 10 else "")]
            parts.append(f"mirrored images of {shown[0]} look unlike their own class")
        if not parts:
            return ""
        return (
            f"{'; '.join(parts)} (n = {self.images}: a simple classifier recognizes {self.accuracy:.0%} as they are and"
            f" {self.mirrored:.0%} mirrored)"
        )


def measure_mirroring(images: CachedImages, rows: Array) -> Mirroring:
    """Test on a sample of images whether mirroring turns classes into one another, or into what is unlike any.

    Every image is asked about by a classifier of the other folds, as it is and mirrored. A pair of classes is swapped
    where of either at least half change into the other, and more than in any of 1,000 permutations that mirror at
    random. Mirrored images look unlike their own where at least half of the recall is lost over all classes, and more
    than in any permutation: photographs lose some, since those of one scene are told by where things stand.

    Args:
        images: the set.
        rows: its training images, (n,), ascending.
    Source:
        The parts: Coates and Ng, "The Importance of Encoding Versus Training with Sparse Coding and Vector
        Quantization", ICML 2011 (random patches as filters).
    """
    random = np.random.default_rng(0)
    rows_N = _sample(images.labels, rows, random)
    labels_N = np.unique(images.labels[rows_N], return_inverse=True)[1]
    present = np.unique(images.labels[rows_N])
    if len(present) < 2:
        return Mirroring(len(rows_N), 1.0, 1.0, 0.0, 0.0, (), ())
    plain_ND, mirrored_ND = _features(_pictures(images.pixels, rows_N), random)
    folds_N = deal_folds(images, rows_N, FOLDS, 0)
    answers_N, mirrored_N = _answers(plain_ND, mirrored_ND, labels_N, folds_N)
    swapped_KK, lost_K = _changes(answers_N, mirrored_N, labels_N)
    recall_K = np.bincount(labels_N, answers_N == labels_N) / np.bincount(labels_N)
    swapped_chance, lost_chance = 0.0, 0.0
    for _ in range(PERMUTATIONS):
        flip_N = random.random(len(rows_N)) < 0.5
        drawn_KK, drawn_K = _changes(
            np.where(flip_N, mirrored_N, answers_N), np.where(flip_N, answers_N, mirrored_N), labels_N
        )
        swapped_chance, lost_chance = max(swapped_chance, drawn_KK.max()), max(lost_chance, drawn_K.mean())
    pairs = np.argwhere(np.triu((swapped_KK >= SWAPPED) & (swapped_KK > swapped_chance)))
    unlike_K = np.zeros(len(present), bool)
    if lost_K.mean() >= UNLIKE * recall_K.mean() and lost_K.mean() > lost_chance:
        unlike_K = lost_K >= UNLIKE * recall_K.mean()
        unlike_K[pairs.ravel()] = False
    return Mirroring(
        len(rows_N),
        float(recall_K.mean()),
        float((recall_K - lost_K).mean()),
        float(swapped_KK.max()),
        float(swapped_chance),
        tuple((int(present[one]), int(present[other])) for one, other in pairs),
        tuple(present[unlike_K].tolist()),
    )


def _sample(labels: Array, rows: Array, random: np.random.Generator) -> Array:
    """Draw as many images of each class, of at least A_CLASS where it has them; of random classes where they are
    many.
    """
    classes = random.permutation(np.unique(labels[rows]))[: MOST // A_CLASS]
    each = max(A_CLASS, IMAGES // len(classes))
    return np.sort(np.concatenate([random.permutation(rows[labels[rows] == label])[:each] for label in classes]))


def _changes(answers_N: Array, mirrored_N: Array, labels_N: Array) -> tuple[Array, Array]:
    """Compare answers to images and to their mirror images.

    Returns:
        Shares that change into one another when mirrored, (K, K), the smaller of both directions; recall that is lost,
        (K,).
    """
    classes = labels_N.max() + 1
    counts_KK, mirrored_KK = (
        np.bincount(labels_N * classes + given_N, minlength=classes**2).reshape(classes, classes)
        for given_N in (answers_N, mirrored_N)
    )
    more_KK = (mirrored_KK - counts_KK) / np.bincount(labels_N)[:, None]
    lost_K = -more_KK.diagonal()
    both_KK = np.minimum(more_KK, more_KK.T)
    np.fill_diagonal(both_KK, 0)
    return both_KK, lost_K


def _answers(plain_ND: Array, mirrored_ND: Array, labels_N: Array, folds_N: Array) -> tuple[Array, Array]:
    """Answer each image, as it is and mirrored, by ridge regression on the other folds: (N,), (N,)."""
    answers_N, of_mirrored_N = np.zeros_like(labels_N), np.zeros_like(labels_N)
    targets_NK = np.eye(labels_N.max() + 1, dtype=np.float32)[labels_N]
    for fold in range(FOLDS):
        learned, asked = folds_N != fold, folds_N == fold
        mean_D, mean_K = plain_ND[learned].mean(0), targets_NK[learned].mean(0)
        centered_ND = plain_ND[learned] - mean_D
        products_NN = centered_ND @ centered_ND.T
        products_NN[np.diag_indices_from(products_NN)] += (
            PENALTY * max(float(products_NN.trace()), 1e-9) / len(products_NN)
        )
        weights_DK = centered_ND.T @ np.linalg.solve(products_NN, targets_NK[learned] - mean_K)
        for features_ND, given_N in ((plain_ND, answers_N), (mirrored_ND, of_mirrored_N)):
            given_N[asked] = ((features_ND[asked] - mean_D) @ weights_DK + mean_K).argmax(1)
    return answers_N, of_mirrored_N


# ── features ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pictures(pixels_NHWC: Array, rows: Array) -> Array:
    """Shrink some images, (n, S, S, 3), a few at a time: photographs in float32 are large."""
    parts = [shrink(np.asarray(pixels_NHWC[rows[start : start + 32]]), SIDES[0]) for start in range(0, len(rows), 32)]
    return np.concatenate(parts)


def _features(pictures_NSSC: Array, random: np.random.Generator) -> tuple[Array, Array]:
    """Describe images and their mirror images by their parts, in the whole and in quarters, and by their colors."""
    plain, mirrored = [], []
    for side, step in zip(SIDES, STEPS, strict=True):
        gray_NSS = shrink(pictures_NSSC, side) @ LUMA
        parts_NPPD = _parts(gray_NSS, step)
        filters_DF = _filters(parts_NPPD, random)
        turned_DF = filters_DF.reshape(PATCH, PATCH, -1)[:, ::-1].reshape(filters_DF.shape)
        plain.append(_pooled(parts_NPPD, filters_DF))
        mirrored.append(_pooled(parts_NPPD[:, :, ::-1], turned_DF))
    plain_ND, mirrored_ND = np.concatenate(plain, 1), np.concatenate(mirrored, 1)
    mean_D, deviation_D = plain_ND.mean(0), plain_ND.std(0)
    scale_D = (deviation_D + 1e-3 * deviation_D.max() + 1e-9) * len(mean_D) ** 0.5
    colors_NL = _colors(pictures_NSSC)
    return tuple(np.concatenate([(part - mean_D) / scale_D, colors_NL], 1) for part in (plain_ND, mirrored_ND))  # type: ignore[return-value]


def _parts(gray_NSS: Array, step: int) -> Array:
    """Cut out the parts of pictures, (N, P, P, D), without their mean and about of length 1; flat ones are shorter."""
    windows = np.lib.stride_tricks.sliding_window_view(gray_NSS, (PATCH, PATCH), axis=(1, 2))[:, ::step, ::step]
    parts: Array = windows.reshape(*windows.shape[:3], PATCH * PATCH)
    parts = parts - parts.mean(-1, keepdims=True)
    parts /= np.sqrt((parts**2).sum(-1, keepdims=True) + CONTRAST**2 * PATCH**2)
    return parts


def _filters(parts_NPPD: Array, random: np.random.Generator) -> Array:
    """Choose random parts as filters, whitened, (D, F); fewer where fewer have any contrast."""
    all_MD = parts_NPPD.reshape(-1, PATCH * PATCH)
    some_MD = all_MD[random.integers(0, len(all_MD), 4000)]
    values, vectors = np.linalg.eigh(some_MD.T @ some_MD / len(some_MD))
    whiten_DD = vectors / np.sqrt(values.clip(0) + 0.1 * max(float(values.mean()), 1e-9)) @ vectors.T
    lengths_M = (some_MD**2).sum(1)
    chosen_FD = some_MD[np.argsort(-lengths_M, kind="stable")[: len(some_MD) // 2]] @ whiten_DD
    chosen_FD = chosen_FD[random.permutation(len(chosen_FD))[:FILTERS]]
    chosen_FD /= np.linalg.norm(chosen_FD, axis=1, keepdims=True) + 1e-9
    filters_DF: Array = whiten_DD @ chosen_FD.T
    return filters_DF


def _pooled(parts_NPPD: Array, filters_DF: Array) -> Array:
    """Average how strongly filters answer, of either sign, over the picture and its quarters, (N, 5F)."""
    answers_NPPF = np.abs(parts_NPPD @ filters_DF)
    answers_NPPF -= answers_NPPF.mean(-1, keepdims=True)
    np.maximum(answers_NPPF, 0, out=answers_NPPF)
    quarters = [
        part.mean((1, 2))
        for rows in np.array_split(answers_NPPF, 2, axis=1)
        for part in np.array_split(rows, 2, axis=2)
    ]
    return np.concatenate([answers_NPPF.mean((1, 2)), *quarters], 1)


def _colors(pictures_NSSC: Array) -> Array:
    """Count the colors of pictures, (N, LEVELS³), centered and of length 1 in the mean."""
    levels = (pictures_NSSC / (256 / LEVELS)).astype(np.int64).clip(0, LEVELS - 1) @ np.array([LEVELS**2, LEVELS, 1])
    places = levels.reshape(len(levels), -1) + LEVELS**3 * np.arange(len(levels))[:, None]
    counts = np.bincount(places.ravel(), minlength=len(levels) * LEVELS**3).reshape(len(levels), -1)
    roots = np.sqrt(counts / places.shape[1]).astype(np.float32)
    roots -= roots.mean(0)
    return roots / (np.sqrt((roots**2).sum(1).mean()) + 1e-9)  # type: ignore[no-any-return]
