"""Duplicates: images that show the same picture, pixel for pixel, or re-encoded, toned, moved, cropped or mirrored.

N images, P pairs, K neighbors, C cells of a side, D numbers of a vector.

Three steps, none of which looks at all pairs. Nearest neighbors by an inverted file are candidates, by two descriptors
that miss different copies: coarse cells of the picture and of its mirror image, and, where there are any, the vectors
of an embedding. ``align`` then judges each candidate. At last every image of a cluster is compared with the one of it
that is best kept.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from sightline.inference.vectors import Vectors
from sightline.measures.alignment import LUMA, align, shrink, thumbnails
from sightline.measures.neighbors import InvertedFile, nearest_of_all

__all__ = ["Pairs", "clusters_of", "exact_duplicates", "near_duplicates"]

CELLS = 6  # a side of the coarse descriptor
OPPONENT = np.stack([LUMA, [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]]).astype(np.float32)  # light, red-green, yellow-blue
BLANK = 4.0  # levels of 255: cells that differ by less show nothing
DIMENSIONS = 256  # principal components of an embedding, each divided by the root of its deviation
FITTED = 20_000  # vectors by which the components are found
CELL_NEIGHBORS, EMBEDDING_NEIGHBORS = 4, 8  # an image, that are candidates
CELL_COSINE, EMBEDDING_COSINE = 0.6, 0.3  # of a candidate, at least
BOTH_COSINES = 0.6  # their sum, of a candidate that only the embedding finds
LIKENESS = 0.70  # from which a pair is a near duplicate
NEIGHBOR = 10  # the neighbor by which it is judged how alike the images of a set are that are not duplicates
SAMPLED, SOUGHT = 256, 40  # images of which that neighbor is sought, and among how many that agree in their cells
STANDS_OUT = 1 / 3  # of the distance of that neighbor: how near a duplicate must be
BLOCK, ASKED = 8192, 32_768  # vectors that are projected at a time, and whose neighbors are sought
PIXELS = 2**24  # values of images that are shrunk at a time
FEW = 2000  # images that are compared with all others instead of by an index
TURNS = 3  # of comparing each image with one of its candidates
ROUNDS = 3  # of comparing the images of a cluster with the one that is kept

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]
Told = Callable[[int], None] | None
Change = Callable[[Array], Array]


class Pairs(NamedTuple):
    """Pairs of images, the most alike first."""

    first_P: Array
    """Rows, each less than its ``second_P``."""
    second_P: Array
    score_P: Array
    """Likeness, at most 1."""
    mirrored_P: Array
    """Whether one is the mirror image of the other."""


def exact_duplicates(hashes: Sequence[str], rows: Array) -> list[list[int]]:
    """Find groups of two or more rows with the same hash, each ascending, in the order of their first rows."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row in rows.tolist():
        groups[hashes[row]].append(row)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(
    pixels_NHWC: Array,
    rows: Array,
    features_ND: Array | Vectors | None = None,
    progress: Progress | None = None,
    preference_N: Array | None = None,
) -> Pairs:
    """Find the pairs that show one picture, toned, re-encoded, moved, scaled, cropped or mirrored.

    Of a set whose images are all alike (digits, X-rays) only those pairs are duplicates that stand out: a third as far
    from each other as most images are from their tenth neighbor. Blank images, without any detail, are in no pair. Of a
    large cluster not every pair is listed, but each image with the one that is preferred.

    Args:
        pixels_NHWC: uint8; may be memory-mapped.
        rows: which of them to compare, (n,), ascending; identical images are best given once.
        features_ND: an embedding of those rows, (n, D); more copies are found with it.
        progress: called with (images done, images in all).
        preference_N: of each image of the set, which of a cluster is rather kept: the least; by rows unless given.
    """
    given, (rows, thumbs_NSS, cells_ND) = rows, _describe(pixels_NHWC, rows)
    places = np.searchsorted(given, rows)
    vectors_ND = None if features_ND is None or len(rows) < 2 else _whitened(features_ND, places)
    compare = partial(_compare, thumbs_NSS, max(LIKENESS, _least_likeness(thumbs_NSS, cells_ND)))
    preference = np.arange(len(rows)) if preference_N is None else preference_N[rows]
    pairs = _pairs(*(np.empty(0, kind) for kind in (np.int64, np.int64, np.float32, np.bool_)))  # of places in rows
    left = asking = np.arange(len(rows))
    while len(left) > 1 and len(asking) > 0:
        before = len(pairs.score_P)
        first, second = _candidates(cells_ND, vectors_ND, left, asking)
        told = progress and partial(_told, progress, len(rows), len(first))
        pairs = _completed(_judged(pairs, first, second, preference, compare, told), preference, compare)
        if len(pairs.score_P) == before:
            break
        left, asking = _still_asking(pairs, preference)
    return Pairs(rows[pairs.first_P], rows[pairs.second_P], pairs.score_P, pairs.mirrored_P)


def _told(progress: Progress, images: int, pairs: int, done: int) -> None:
    """Report pairs as images: to have indexed all of them counts as half of the work."""
    progress(images // 2 + done * (images - images // 2) // max(pairs, 1), images)


def _judged(
    pairs: Pairs, first: Array, second: Array, preference: Array, compare: Callable[..., Pairs], told: Told
) -> Pairs:
    """Compare candidates: of each image first the one that is preferred among them, a few times, and then the rest.

    Two images that a large cluster already has need not be compared with each other, but with the one that is kept.
    """
    total = len(first)
    for turn in range(TURNS + 1):
        swapped = preference[first] < preference[second]
        kept, other = np.where(swapped, first, second), np.where(swapped, second, first)
        order = np.lexsort((preference[kept], other))
        leading = np.full(len(first), turn == TURNS)
        leading[order[np.diff(other[order], prepend=-1) != 0]] = True
        done = total - len(first)
        report = told and partial(lambda before, count: told(before + count), done)
        pairs = compare(pairs, first[leading], second[leading], report)
        cluster = clusters_of(pairs.first_P, pairs.second_P, len(preference))
        large = np.bincount(cluster, minlength=len(cluster))[cluster] > CELL_NEIGHBORS
        rest = ~leading & ~(large[first] & (cluster[first] == cluster[second]))
        first, second = first[rest], second[rest]
    return pairs


def clusters_of(first_P: Array, second_P: Array, count: int) -> Array:
    """Name the cluster of each of so many images by the least row that a chain of pairs leads to, (count,)."""
    least = np.arange(count)
    while True:
        before = least.copy()
        low = np.minimum(least[first_P], least[second_P])
        np.minimum.at(least, first_P, low)
        np.minimum.at(least, second_P, low)
        least = least[least]
        if np.array_equal(before, least):
            return least


def _pairs(first_P: Array, second_P: Array, score_P: Array, mirrored_P: Array) -> Pairs:
    """Put the lesser row first and keep each pair once, the most alike first."""
    low, high = np.minimum(first_P, second_P), np.maximum(first_P, second_P)
    order = np.lexsort((high, low, -score_P))
    _, kept = np.unique((low * (high.max(initial=0) + 1) + high)[order], return_index=True)
    chosen = order[np.sort(kept)]
    return Pairs(low[chosen], high[chosen], score_P[chosen], mirrored_P[chosen])


def _compare(
    thumbs_NSS: Array, least: float, pairs: Pairs, first_P: Array, second_P: Array, progress: Told = None
) -> Pairs:
    """Add to the pairs those of more places that show one picture."""
    low, high = np.minimum(first_P, second_P), np.maximum(first_P, second_P)
    new = ~_paired(pairs, low, high, len(thumbs_NSS))
    low, high = low[new], high[new]
    score, mirrored = align(thumbs_NSS, low, high, progress)
    alike = score >= least
    added = (low[alike], high[alike], score[alike], mirrored[alike])
    return _pairs(*(np.concatenate(both) for both in zip(pairs, added, strict=True)))


# ── candidates ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _describe(pixels_NHWC: Array, rows: Array) -> tuple[Array, Array, Array]:
    """Shrink images once for all that follows; what is blank is left out.

    Returns:
        The rows that are not blank, (n,); their thumbnails; the averages of their cells, without the mean of each
        channel, of length 1, (n, D), in half floats.
    """
    size = max(1, PIXELS // pixels_NHWC[0].size)
    seen_N = np.zeros(len(rows), bool)
    thumbs_NSS = np.empty((len(rows), *thumbnails(pixels_NHWC[:0]).shape[1:]), np.uint8)
    cells_ND = np.empty((len(rows), 3 * CELLS**2), np.float16)
    count = 0
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        pixels = pixels_NHWC[part]
        cells = shrink(pixels, CELLS)
        cells = ((cells - cells.mean(axis=(1, 2), keepdims=True)) @ OPPONENT.T).reshape(len(cells), -1)
        length = np.linalg.norm(cells, axis=1)
        seen = length >= BLANK * CELLS
        seen_N[start : start + size] = seen
        places = slice(count, count + int(seen.sum()))
        thumbs_NSS[places], cells_ND[places] = thumbnails(pixels)[seen], cells[seen] / length[seen, None]
        count = places.stop
    return rows[seen_N], thumbs_NSS[:count], cells_ND[:count]


def _whitened(features_ND: Array | Vectors, places: Array) -> Array:
    """Project vectors on their principal components, each divided by the root of its deviation: length 1, half floats.

    In full the first components, which tell classes apart, would decide which are neighbors; copies agree in all.
    """
    sample = features_ND[places[:: max(1, len(places) // FITTED)]].astype(np.float32)
    mean = sample.mean(axis=0)
    variance, axes = np.linalg.eigh(np.cov(sample - mean, rowvar=False).reshape(len(mean), -1))
    count = max(1, min(DIMENSIONS, int((variance > 1e-6 * variance[-1]).sum())))
    axes = axes[:, -count:] / np.maximum(variance[-count:], 1e-12) ** 0.25
    vectors_ND = np.empty((len(places), count), np.float16)
    for start in range(0, len(places), BLOCK):
        part = (features_ND[places[start : start + BLOCK]] - mean) @ axes
        vectors_ND[start : start + BLOCK] = part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-6)
    return vectors_ND


def _candidates(cells_ND: Array, vectors_ND: Array | None, left: Array, asking: Array) -> tuple[Array, Array]:
    """Find the neighbors, among the places that are left, of those that ask, by either descriptor: pairs of places.

    What only the embedding finds must agree a little in its cells, too; what the cells find needs no embedding, which
    may be poor.
    """
    keys = _neighbors(cells_ND, (_as_it_is, _mirrored), CELL_NEIGHBORS, CELL_COSINE, left, asking)
    if vectors_ND is not None:
        others = _neighbors(vectors_ND, (_as_it_is,), EMBEDDING_NEIGHBORS, EMBEDDING_COSINE, left, asking)
        others = np.setdiff1d(others, keys, assume_unique=True)
        sums = [_cosines(cells_ND, vectors_ND, others[at : at + BLOCK]) for at in range(0, len(others), BLOCK)]
        keys = np.union1d(keys, others[np.concatenate([np.empty(0), *sums]) >= BOTH_COSINES])
    return keys // len(cells_ND), keys % len(cells_ND)


def _cosines(cells_ND: Array, vectors_ND: Array, keys: Array) -> Array:
    """Add the cosines of pairs in the embedding and in their cells, of the hand that agrees more, (P,)."""
    first, second = keys // len(cells_ND), keys % len(cells_ND)
    hands = (cells_ND[first], _mirrored(cells_ND[first]))
    own, mirrored = ((hand.astype(np.float32) * cells_ND[second]).sum(axis=1) for hand in hands)
    embedded = (vectors_ND[first].astype(np.float32) * vectors_ND[second]).sum(axis=1)
    return np.maximum(own, mirrored) + embedded  # type: ignore[no-any-return]


def _neighbors(
    vectors_ND: Array, changes: Sequence[Change], count: int, cosine: float, left: Array, asking: Array
) -> Array:
    """Find the nearest neighbors of vectors, and of what changes make of them: as numbers, lesser × n + greater."""
    total, count = len(vectors_ND), min(count + 1, len(left))  # an image is its own nearest neighbor
    few = len(asking) <= FEW
    nearest = partial(nearest_of_all, vectors_ND, left) if few else InvertedFile(vectors_ND, left).nearest
    pairs = [np.empty(0, np.int64)]
    for change in changes:
        for start in range(0, len(asking), ASKED):
            part = asking[start : start + ASKED]
            others, cosines = nearest(change(vectors_ND[part]), count)
            place, column = np.nonzero(cosines >= cosine)
            one, other = part[place], others[place, column]
            pairs.append((np.minimum(one, other) * total + np.maximum(one, other))[one != other])
    return np.unique(np.concatenate(pairs))


def _as_it_is(vectors: Array) -> Array:
    return vectors


def _mirrored(cells_ND: Array) -> Array:
    return cells_ND.reshape(-1, CELLS, CELLS, 3)[:, :, ::-1].reshape(cells_ND.shape)


def _least_likeness(thumbs_NSS: Array, cells_ND: Array) -> float:
    """Find the likeness that a pair needs in order to stand out in this set."""
    total = len(cells_ND)
    if total <= NEIGHBOR:
        return 0.0
    sample = np.linspace(0, total - 1, min(SAMPLED, total)).astype(np.int64)
    count = min(SOUGHT + 1, total)
    nearest, _ = nearest_of_all(cells_ND, np.arange(total), cells_ND[sample], count)
    first, second = np.repeat(sample, count), nearest.ravel()
    scores = align(thumbs_NSS, first, second).score_P.reshape(-1, count)
    scores[nearest == sample[:, None]] = -1
    farthest = np.partition(scores, -NEIGHBOR, axis=1)[:, -NEIGHBOR]
    return float(1 - STANDS_OUT * (1 - np.median(farthest)))


# ── clusters ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _completed(pairs: Pairs, preference: Array, compare: Callable[..., Pairs]) -> Pairs:
    """Compare the images of a cluster with the one of it that is preferred, where the candidates left that out.

    What is unlike the preferred image is compared with the next one that is unlike it as well, a few times.
    """
    cluster = clusters_of(pairs.first_P, pairs.second_P, len(preference))
    left = np.unique(np.concatenate([pairs.first_P, pairs.second_P]))
    for _ in range(ROUNDS):
        if len(left) == 0:
            break
        order, kept = _with_preferred(left, cluster, preference)
        others = order != kept
        pairs = compare(pairs, order[others], kept[others])
        left = order[others & ~_paired(pairs, order, kept, len(preference))]
    return pairs


def _still_asking(pairs: Pairs, preference: Array) -> tuple[Array, Array]:
    """List the places in which more copies are sought, and those that ask for them.

    An image in a cluster that is larger than its list of neighbors may have copies beyond it. The preferred image of
    such a cluster asks once more, among all but those that are known for its copies.
    """
    cluster = clusters_of(pairs.first_P, pairs.second_P, len(preference))
    order, kept = _with_preferred(np.unique(np.concatenate([pairs.first_P, pairs.second_P])), cluster, preference)
    known = order[_paired(pairs, order, kept, len(preference))]
    large = np.bincount(cluster, minlength=len(cluster))[cluster[kept]] > CELL_NEIGHBORS
    return np.setdiff1d(np.arange(len(preference)), known), np.unique(kept[large])


def _with_preferred(places: Array, cluster: Array, preference: Array) -> tuple[Array, Array]:
    """Order places by cluster and preference; with the preferred one of the cluster of each."""
    order = places[np.lexsort((preference[places], cluster[places]))]
    begins = np.diff(cluster[order], prepend=-1) != 0
    return order, order[np.flatnonzero(begins)[np.cumsum(begins) - 1]]


def _paired(pairs: Pairs, first: Array, second: Array, total: int) -> Array:
    """Tell which of some pairs of places are known."""
    keys = np.minimum(first, second) * total + np.maximum(first, second)
    return np.isin(keys, pairs.first_P * total + pairs.second_P)
