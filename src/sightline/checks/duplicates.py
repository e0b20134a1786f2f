"""Duplicates: images that show the same picture, pixel for pixel, or re-encoded, toned, moved a little or mirrored.

N images, B of a block, P pairs of U images, H, W height and width of the images, S side of their thumbnails, D numbers
of a descriptor.

All pairs are compared in two steps. A coarse descriptor, 8 × 8 cells of each channel, finds candidates by products of
matrices, so the N² pairs cost no Python. Of each candidate the fine detail (thumbnail minus its blur) is then
correlated at the best small shift: skies and seas are alike in their cells and differ in their detail.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["LUMA", "Pairs", "exact_duplicates", "likeness", "near_duplicates", "shrink"]

SIDE, LARGE_SIDE = 32, 64  # pixels of a thumbnail, and of images that have as many
CELLS = 8  # a side of the coarse descriptor
COARSE = 0.85  # correlation of descriptors from which a pair is a candidate
FINE = 0.70  # likeness from which a pair is a near duplicate; of pairs below it, looked at, ever more are two pictures
FINE_MIRRORED = 0.75  # likeness of one and the other's mirror image; two ships on two seas are alike in this way, too
SHIFT = 3 / 32  # of a side that a picture may have moved
BLUR = 2  # pixels on each side over which a thumbnail is averaged to be taken from itself
NOISE = 4.0  # levels of 255 at SIDE: detail as weak as this is no evidence (a horizon, the blocks of a JPEG)
MOST = 32  # candidates an image; a set of alike images has more than can be verified
NEIGHBOR = 10  # the neighbor by which it is judged how alike the images of a set are that are not duplicates
SAMPLED = 256  # images of which that neighbor is sought
STANDS_OUT = 1 / 3  # of the distance of that neighbor: how near a duplicate must be
BLOCK = 1024  # images whose products with all others are held at a time
CHUNK = 4096  # images or pairs of which thumbnails are held at a time
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]


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


def near_duplicates(pixels_NHWC: Array, rows: Array, progress: Progress | None = None) -> Pairs:
    """Find the pairs that show one picture, at whatever brightness, contrast or quality, moved a little or mirrored.

    Of a set whose images are all alike (digits, X-rays) only those pairs are duplicates that stand out: a third as far
    from each other as most images are from their tenth neighbor. Blank images, without any detail, are in no pair.

    Args:
        pixels_NHWC: uint8; may be memory-mapped.
        rows: which of them to compare, (n,), ascending; identical images are best given once.
        progress: called with (images done, images in all).
    """
    descriptors_ND = _descriptors(pixels_NHWC, rows)
    mirrored_ND = descriptors_ND.reshape(-1, CELLS, CELLS, 3)[:, :, ::-1].reshape(descriptors_ND.shape)
    least = _least_likeness(pixels_NHWC, rows, descriptors_ND)
    pairs = [Pairs(*(np.empty(0, kind) for kind in (np.int64, np.int64, np.float32, np.bool_)))]
    for start in range(0, len(rows), BLOCK):
        for mirrored, others_ND, fine in ((False, descriptors_ND, FINE), (True, mirrored_ND, FINE_MIRRORED)):
            first, second = _candidates(descriptors_ND[start : start + BLOCK], others_ND[start:])
            first, second = rows[first + start], rows[second + start]
            score = likeness(pixels_NHWC, first, second, mirrored=mirrored)
            kept = score >= max(least, fine)
            pairs.append(Pairs(first[kept], second[kept], score[kept], np.full(kept.sum(), mirrored)))
        if progress:
            progress(min(start + BLOCK, len(rows)), len(rows))
    return _once_each(Pairs(*(np.concatenate(part) for part in zip(*pairs, strict=True))))


def likeness(pixels_NHWC: Array, first_P: Array, second_P: Array, *, mirrored: bool = False) -> Array:
    """Measure how far pairs of images agree in their fine detail, at the best small shift.

    It is a correlation, so brightness and contrast do not matter; detail as weak as NOISE counts little.

    Args:
        first_P, second_P: rows of the pairs, (P,).
        mirrored: compare with the mirror image of the second.
    Returns:
        (P,), at most 1.
    """
    scores = np.empty(len(first_P), np.float32)
    for start in range(0, len(first_P), CHUNK):
        part = slice(start, start + CHUNK)
        seen, places = np.unique(np.stack([first_P[part], second_P[part]]), return_inverse=True)
        detail_USS = _detail(pixels_NHWC[seen])
        one, other = places.reshape(2, -1)
        scores[part] = _best_correlation(detail_USS, detail_USS[:, :, ::-1] if mirrored else detail_USS, one, other)
    return scores


def _descriptors(pixels_NHWC: Array, rows: Array) -> Array:
    """Compute descriptors, (n, D): 8 × 8 cells of each channel without their mean, of length 1; zeros if blank."""
    descriptors = np.zeros((len(rows), CELLS * CELLS * 3), np.float32)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        cells = shrink(pixels_NHWC[rows[part]], CELLS).reshape(-1, CELLS * CELLS * 3)
        cells -= cells.mean(axis=1, keepdims=True)
        length = np.linalg.norm(cells, axis=1, keepdims=True)
        blank = length < NOISE * np.sqrt(cells.shape[1])
        np.divide(cells, length, out=descriptors[part], where=~blank)
    return descriptors


def _candidates(block_BD: Array, others_ND: Array) -> tuple[Array, Array]:
    """Find pairs whose descriptors agree: the first counted in the block, the second in all from the block on.

    Of an image with more than MOST of them the best are kept.
    """
    agreement_BN = block_BD @ others_ND.T
    agreement_BN[:, : len(block_BD)][np.tri(len(block_BD), dtype=bool)] = -1  # each pair once, none with itself
    agree_BN = agreement_BN > COARSE
    for row in np.flatnonzero(agree_BN.sum(axis=1) > MOST):
        agree_BN[row] = agreement_BN[row] > np.partition(agreement_BN[row], -MOST - 1)[-MOST - 1]
    first, second = np.nonzero(agree_BN)
    return first, second


def _least_likeness(pixels_NHWC: Array, rows: Array, descriptors_ND: Array) -> float:
    """Find the likeness that a pair needs in order to stand out in this set."""
    if len(rows) <= NEIGHBOR:
        return 0.0
    sample = np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(np.int64)
    agreement = descriptors_ND[sample] @ descriptors_ND.T
    agreement[np.arange(len(sample)), sample] = -1
    nearest = np.argpartition(-agreement, NEIGHBOR - 1, axis=1)[:, :NEIGHBOR]
    one, other = rows[np.repeat(sample, NEIGHBOR)], rows[nearest.ravel()]
    farthest = likeness(pixels_NHWC, one, other).reshape(-1, NEIGHBOR).min(axis=1)
    return float(1 - STANDS_OUT * (1 - np.median(farthest)))


def _once_each(pairs: Pairs) -> Pairs:
    """Keep each pair once (a symmetric thing is its own mirror image), the most alike first."""
    order = np.lexsort((pairs.second_P, pairs.first_P, pairs.mirrored_P, -pairs.score_P))
    ordered = np.stack([pairs.first_P, pairs.second_P], axis=1)[order]
    _, kept = np.unique(ordered, axis=0, return_index=True)
    chosen = order[np.sort(kept)]
    return Pairs(*(part[chosen] for part in pairs))


# ── thumbnails ───────────────────────────────────────────────────────────────────────────────────────────────────────


def shrink(pixels_NHWC: Array, side: int) -> Array:
    """Average over the cells of a grid, (N, side, side, 3), in float32; a pixel across a border counts in parts."""
    height, width, channels = pixels_NHWC.shape[1:]
    if (height, width) == (side, side):
        return pixels_NHWC.astype(np.float32)
    rows = _shares(height, side) @ pixels_NHWC.reshape(-1, height, width * channels).astype(np.float32)
    columns = rows.reshape(-1, side, width, channels).transpose(0, 1, 3, 2) @ _shares(width, side).T
    return columns.transpose(0, 1, 3, 2).copy()


def _shares(pixels: int, cells: int) -> Array:
    """Share out a line of pixels over cells, (cells, pixels); rows sum to 1."""
    borders = np.arange(cells + 1) * pixels / cells
    edges = np.arange(pixels)
    overlap = np.minimum(borders[1:, None], edges + 1) - np.maximum(borders[:-1, None], edges)
    return (overlap.clip(0) * cells / pixels).astype(np.float32)


def _detail(pixels_PHWC: Array) -> Array:
    """Subtract its blur from the luminance of the thumbnails, (P, S, S)."""
    side = LARGE_SIDE if min(pixels_PHWC.shape[1:3]) >= LARGE_SIDE else SIDE
    gray = shrink(pixels_PHWC, side) @ LUMA
    return gray - _blurred(_blurred(gray).transpose(0, 2, 1)).transpose(0, 2, 1)


def _blurred(gray_PSS: Array) -> Array:
    """Average over a window along the rows' direction, with the border repeated."""
    padded = np.pad(gray_PSS, ((0, 0), (BLUR, BLUR), (0, 0)), mode="edge")
    total = np.zeros_like(gray_PSS)
    for start in range(2 * BLUR + 1):
        total += padded[:, start : start + gray_PSS.shape[1]]
    return total / (2 * BLUR + 1)


def _best_correlation(ones_USS: Array, others_USS: Array, one_P: Array, other_P: Array) -> Array:
    """Correlate details at the best shift, (P,), of pairs of an index into the first and one into the second.

    The shift is that at which the circular correlation, one product in the frequency domain, is largest; there the
    overlap alone is correlated.
    """
    side = ones_USS.shape[1]
    reach = round(SHIFT * side)
    spectrum = np.conj(np.fft.rfft2(ones_USS))[one_P] * np.fft.rfft2(others_USS)[other_P]
    circular = np.fft.irfft2(spectrum, s=(side, side))
    near = np.r_[0 : reach + 1, -reach:0]
    best = circular[:, near][:, :, near].reshape(len(one_P), len(near) ** 2).argmax(axis=1)
    scores = np.empty(len(one_P), np.float32)
    for place in np.unique(best).tolist():
        down, right = near[place // len(near)], near[place % len(near)]
        members = np.flatnonzero(best == place)
        own = ones_USS[one_P[members]][:, max(0, -down) : side - max(0, down), max(0, -right) : side - max(0, right)]
        moved = others_USS[other_P[members]][
            :, max(0, down) : side + min(0, down), max(0, right) : side + min(0, right)
        ]
        scores[members] = _correlation(own, moved, NOISE * SIDE / side)  # pictures have less detail the finer it is
    return scores


def _correlation(one_PHW: Array, other_PHW: Array, noise: float) -> Array:
    """Correlate each pair, (P,), as if both carried noise of so many levels that agrees in nothing."""
    one, other = (part.reshape(len(part), -1) for part in (one_PHW, other_PHW))
    one, other = (part - part.mean(axis=1, keepdims=True) for part in (one, other))
    power = noise**2 * one.shape[1]
    lengths = np.sqrt(((one**2).sum(axis=1) + power) * ((other**2).sum(axis=1) + power))
    return (one * other).sum(axis=1) / lengths  # type: ignore[no-any-return]
