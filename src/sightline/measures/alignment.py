"""Alignment: do two images show one picture, moved, scaled, cropped, toned, re-encoded or mirrored?

P pairs of U images, S side of their thumbnails, F frequencies, L lags, Z zooms, G parameters of a warp.

Each pair is judged from coarse to fine, and leaves as soon as it cannot be a copy any more. A correlation of their
contours in the frequency domain, for a few zooms and both hands, gives a first shift. Gauss-Newton steps then fit a
scale and a shift in each direction (Baker and Matthews, "Lucas-Kanade 20 Years On", IJCV 2004, the inverse
compositional form). At last the fine detail of both (thumbnail minus its blur) is correlated where they overlap: skies
and seas are alike in all but their detail.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from sightline.measures.threads import in_threads

__all__ = ["LUMA", "Aligned", "align", "shrink", "thumbnails"]

SIDE, LARGE_SIDE = 32, 64  # pixels of a thumbnail, and of images that have as many
COARSE_SIDE = 16
ZOOM = 1.2  # of either against the other, from which the fit of the scale starts, besides 1
WAVES = 6  # a side, of the highest frequency of a contour
LAGS = 4  # of COARSE_SIDE pixels that a picture may have moved
CONTOURS = 2.0  # levels of 255, times their frequency: contours as weak as this are no evidence
OVERLAP = 0.5  # of the area, at least, that two pictures must share
SCREEN = 0.47  # correlation of contours at the best shift, below which a pair is no copy
MIDDLE = 0.45  # correlation of the detail in the middle, at least: many pictures have the same white frame
COARSE_SCREEN = 0.45  # correlation of their detail after the coarse fit
STEPS, FINE_STEPS = 5, 3  # of Gauss-Newton, on the coarse and on the finer thumbnails
DAMPING = 0.02  # of the diagonal
BLUR = 2  # pixels on each side over which a thumbnail is averaged to be taken from itself
NOISE = 4.0  # levels of 255 at SIDE: detail as weak as this is no evidence (a horizon, the blocks of a JPEG)
CHUNK, FITTED = 1024, 256  # pairs that are screened at a time, and fitted: as many as a cache holds
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

Array = np.ndarray[Any, Any]


class Aligned(NamedTuple):
    """Outcome of a comparison of pairs."""

    score_P: Array
    """Likeness, at most 1; 0 where a pair left early."""
    mirrored_P: Array
    """Whether the second was mirrored for it."""


class _Warps(NamedTuple):
    """Where the second image is read for each pixel of the first: at scale × place + shift, places from -0.5 to 0.5."""

    scale_P2: Array
    """Down and across."""
    shift_P2: Array
    mirrored_P: Array


def thumbnails(pixels_NHWC: Array) -> Array:
    """Shrink images to gray thumbnails, (N, S, S), in uint8: of LARGE_SIDE, or of SIDE where images have less."""
    side = LARGE_SIDE if min(pixels_NHWC.shape[1:3]) >= LARGE_SIDE else SIDE
    return (shrink(pixels_NHWC, side) @ LUMA + 0.5).astype(np.uint8)


def align(thumbs_NSS: Array, first_P: Array, second_P: Array, progress: Callable[[int], None] | None = None) -> Aligned:
    """Measure how far pairs of images agree in their fine detail, at the best shift, scale and hand.

    It is a correlation, so brightness and contrast do not matter; detail as weak as NOISE counts little.

    Args:
        thumbs_NSS: from ``thumbnails``.
        first_P, second_P: places of the pairs among them, (P,).
        progress: called with the number of pairs that are done.
    """
    score, mirrored = np.zeros(len(first_P), np.float32), np.zeros(len(first_P), bool)
    order = np.argsort(first_P, kind="stable")  # pairs of one image beside each other share its thumbnail

    def judge(start: int) -> int:
        part = order[start : start + CHUNK]
        score[part], mirrored[part] = _align_chunk(thumbs_NSS, first_P[part], second_P[part])
        return len(part)

    done = 0
    for count in in_threads(judge, range(0, len(first_P), CHUNK)):
        done += count
        if progress:
            progress(done)
    return Aligned(score, mirrored)


def _align_chunk(thumbs_NSS: Array, first_P: Array, second_P: Array) -> tuple[Array, Array]:
    seen, places = np.unique(np.stack([first_P, second_P]), return_inverse=True)
    one_P, other_P = places.reshape(2, -1)
    finest_USS = thumbs_NSS[seen].astype(np.float32)
    score, mirrored = np.zeros(len(one_P), np.float32), np.zeros(len(one_P), bool)
    agreement, warps = _first_warps(finest_USS, one_P, other_P)
    left = np.flatnonzero(agreement >= SCREEN)
    sides = [side for side in (COARSE_SIDE, SIDE, LARGE_SIDE) if side < finest_USS.shape[1]] if len(left) else []
    levels = [*(_pooled(finest_USS, side) for side in sides), finest_USS]
    for start in range(0, len(left), FITTED):
        part = left[start : start + FITTED]
        own = _Warps(*(values[part] for values in warps))
        score[part], mirrored[part] = _likeness(levels, one_P[part], other_P[part], own), own.mirrored_P
    return score, mirrored & (score > 0)


def _likeness(levels: Sequence[Array], one_P: Array, other_P: Array, warps: _Warps) -> Array:
    """Fit warps to pairs on thumbnails from coarse to fine: how far their detail agrees, 0 where they left early."""
    score, left = np.zeros(len(one_P), np.float32), np.arange(len(one_P))
    for number, thumbs_USS in enumerate(levels):
        one, other = thumbs_USS[one_P[left]], thumbs_USS[other_P[left]]
        other = np.where(warps.mirrored_P[:, None, None], other[:, :, ::-1], other)
        warps = _fit(one, other, warps, FINE_STEPS if number else STEPS)
        agreement = _agreement(one, other, warps)
        if number == len(levels) - 1:
            score[left] = agreement
        kept = agreement >= COARSE_SCREEN
        left, warps = left[kept], _Warps(*(part[kept] for part in warps))
        if not len(left):
            break
    return score


# ── a first shift ────────────────────────────────────────────────────────────────────────────────────────────────────


def _first_warps(thumbs_USS: Array, one_P: Array, other_P: Array) -> tuple[Array, _Warps]:
    """Find the shift, zoom and hand at which the contours of pairs correlate best: the correlation, and the warp.

    Correlations are products of spectra, of which only the WAVES of lowest frequency count, each by its frequency:
    smooth skies correlate at every shift, contours at one. Places count from the middle, so that a mirror image has
    the conjugate spectrum.
    """
    spectra_ZUF = [_spectra(thumbs_USS, zoom) for zoom in (1.0, ZOOM)]
    mirror_F, parts_FL, lags = _lags()
    best, place = np.full(len(one_P), -1, np.float32), np.zeros((len(one_P), 4), np.int64)
    for own, others in ((0, 0), (0, 1), (1, 0)):
        first_PF, second_PF = np.conj(spectra_ZUF[own][one_P]), spectra_ZUF[others][other_P]
        for mirrored, hand_PF in enumerate((second_PF, np.conj(second_PF[:, mirror_F]))):
            maps_PL = (first_PF * hand_PF).view(np.float32) @ parts_FL
            peak = maps_PL.argmax(axis=1)
            value = np.take_along_axis(maps_PL, peak[:, None], axis=1)[:, 0]
            better = value > best
            best[better] = value[better]
            place[better, 0], place[better, 1:] = peak[better], (own, others, mirrored)
    own_P, others_P = np.array([1.0, ZOOM])[place[:, 1:3].T]
    moved = np.stack([lags[place[:, 0] // len(lags)], lags[place[:, 0] % len(lags)]], axis=1)
    scale = np.repeat((own_P / others_P)[:, None], 2, axis=1)
    return best, _Warps(scale.astype(np.float32), (moved / others_P[:, None]).astype(np.float32), place[:, 3] == 1)


@cache
def _lags() -> tuple[Array, Array, Array]:
    """Make the matrix from products of spectra, real and imaginary parts, to correlations at each lag down and across.

    Returns:
        Where each frequency of a mirror image stands; the matrix; the lags, in sides of a picture.
    """
    down, across = np.meshgrid(np.arange(-WAVES, WAVES + 1), np.arange(WAVES + 1))  # of the frequencies, as in spectra
    lags = np.arange(-LAGS, LAGS + 1) / COARSE_SIDE
    angles_FL = 2 * np.pi * (down[..., None, None] * lags[:, None] + across[..., None, None] * lags)
    twice = np.where(across > 0, 2, 1)[..., None, None]  # the negative frequencies across are the conjugate ones
    parts_FL = np.stack([twice * np.cos(angles_FL), -twice * np.sin(angles_FL)], axis=2)
    mirror_F = np.arange(down.size).reshape(down.shape)[:, ::-1].ravel()
    return mirror_F, parts_FL.reshape(-1, len(lags) ** 2).astype(np.float32), lags


def _spectra(thumbs_USS: Array, zoom: float) -> Array:
    """Transform the middle of thumbnails, (U, frequencies across × frequencies down), weighed, of energy 1 at most."""
    shares = _shares(thumbs_USS.shape[1], COARSE_SIDE, (1 - 1 / zoom) / 2)
    waves = np.arange(-WAVES, WAVES + 1)
    places = (np.arange(COARSE_SIDE) + 0.5) / COARSE_SIDE - 0.5
    down = (np.exp(-2j * np.pi * waves[:, None] * places) @ shares).astype(np.complex64)
    across = down[WAVES:]
    parts = np.stack([across.real, across.imag]).reshape(-1, thumbs_USS.shape[1]).T
    lines = thumbs_USS.reshape(-1, len(parts)) @ parts
    lines = lines.reshape(len(thumbs_USS), -1, 2, WAVES + 1).transpose(0, 2, 3, 1)
    spectra = (lines[:, 0] + 1j * lines[:, 1]) @ down.T
    frequency = np.hypot(waves[WAVES:, None], waves)
    spectra *= (frequency * np.exp(-((frequency / WAVES) ** 4))).astype(np.float32)
    power = (spectra.real**2 + spectra.imag**2) * np.where(waves[WAVES:] > 0, 2, 1).astype(np.float32)[:, None]
    length = np.sqrt(power.sum(axis=(1, 2), keepdims=True))
    spectra /= np.maximum(length, CONTOURS * COARSE_SIDE**2)
    return spectra.reshape(len(spectra), -1)  # type: ignore[no-any-return]


# ── the fit ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _fit(one_PSS: Array, other_PSS: Array, warps: _Warps, steps: int) -> _Warps:
    """Fit scale and shift of each pair by Gauss-Newton steps on the difference of normalized luminance."""
    side = one_PSS.shape[1]
    places = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    down, across = np.gradient(one_PSS, axis=(1, 2))
    slopes = [down * places[:, None], down, across * places, across]
    slopes_PGS = np.stack([slope.reshape(len(one_PSS), -1) for slope in slopes], axis=1) * side
    curvature = slopes_PGS @ slopes_PGS.transpose(0, 2, 1)
    diagonal = np.einsum("pii->pi", curvature)
    diagonal *= 1 + DAMPING
    diagonal += 1e-3 * side**2
    inverse_PGG = np.linalg.inv(curvature)
    scale, shift = warps.scale_P2.copy(), warps.shift_P2.copy()
    for _ in range(steps):
        moved, inside = _read(other_PSS, scale, shift, _triangle)
        error, contrast = _difference(one_PSS, moved, inside)  # 0 where they do not overlap
        contrast /= inside.mean(axis=(1, 2), keepdims=True).clip(OVERLAP)  # the curvature is that of the whole picture
        step = (inverse_PGG @ (slopes_PGS @ (error * contrast).reshape(len(error), -1, 1)))[:, :, 0]
        step = step.clip(-0.1, 0.1)
        own_scale, own_shift = step[:, 0::2], step[:, 1::2]
        shift = (shift - scale * own_shift / (1 + own_scale)).clip(-0.5, 0.5)
        scale = (scale / (1 + own_scale)).clip(0.5, 2)
    return _Warps(scale, shift, warps.mirrored_P)


def _difference(one_PSS: Array, moved_PSS: Array, inside_PSS: Array) -> tuple[Array, Array]:
    """Subtract normalized luminance where pictures overlap, (P, S, S); with the contrast of the first, (P, 1, 1)."""
    count = inside_PSS.sum(axis=(1, 2), keepdims=True).clip(1)
    parts = []
    for values in (one_PSS, moved_PSS):
        values = (values - (values * inside_PSS).sum(axis=(1, 2), keepdims=True) / count) * inside_PSS
        spread = np.sqrt((values**2).sum(axis=(1, 2), keepdims=True) / count) + NOISE / 4
        parts.append((values / spread, spread))
    return parts[1][0] - parts[0][0], parts[0][1]


def _read(images_PSS: Array, scale_P2: Array, shift_P2: Array, kernel: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Read images at warped places, (P, S, S), with whether each place lies inside; beyond it the border is repeated.

    A warp without rotation is one matrix for the rows and one for the columns.
    """
    side = images_PSS.shape[1]
    grid = np.arange(side, dtype=np.float32)
    places_P2S = scale_P2[:, :, None] * ((grid + 0.5) / side - 0.5) + shift_P2[:, :, None]
    index_P2S = (places_P2S + 0.5) * side - 0.5
    inside_P2S = ((index_P2S >= -0.5) & (index_P2S <= side - 0.5)).astype(np.float32)
    weights_P2SS = kernel(index_P2S.clip(0, side - 1)[..., None] - grid)
    moved = weights_P2SS[:, 0] @ images_PSS @ weights_P2SS[:, 1].transpose(0, 2, 1)
    return moved, inside_P2S[:, 0, :, None] * inside_P2S[:, 1, None, :]


def _triangle(distance: Array) -> Array:
    weights: Array = np.maximum(1 - np.abs(distance), 0)
    return weights


def _cubic(distance: Array) -> Array:
    """Weigh by Keys' cubic kernel (IEEE Trans. ASSP 1981, a = -1/2)."""
    x = np.abs(distance)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


# ── detail ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _agreement(one_PSS: Array, other_PSS: Array, warps: _Warps) -> Array:
    """Correlate the detail of pairs where they overlap, (P,); 0 where that is too little, or only a frame agrees."""
    moved, inside = _read(other_PSS, warps.scale_P2, warps.shift_P2, _cubic)
    side = one_PSS.shape[1]
    noise = NOISE * SIDE / side  # pictures have less detail the finer it is
    one, other = _detail(one_PSS), _detail(moved)
    score = _correlation(one, other, inside, noise)
    share = inside.mean(axis=(1, 2)) * np.minimum(warps.scale_P2.prod(axis=1), 1)
    part = slice(side // 4, side - side // 4)
    middle = (one[:, part, part], other[:, part, part], inside[:, part, part])
    empty = np.maximum(*(values.var(axis=(1, 2)) for values in middle[:2])) < noise**2
    return np.where((share >= OVERLAP) & (empty | (_correlation(*middle, noise) >= MIDDLE)), score, 0)


def _detail(gray_PSS: Array) -> Array:
    """Subtract its blur, the average over a window, from luminance; the border is repeated."""
    blur_SS = _blur(gray_PSS.shape[1])
    return gray_PSS - blur_SS @ (gray_PSS @ blur_SS.T)  # type: ignore[no-any-return]


@cache
def _blur(side: int) -> Array:
    read = (np.arange(side)[:, None] + np.arange(-BLUR, BLUR + 1)).clip(0, side - 1)
    return (read[..., None] == np.arange(side)).mean(axis=1).astype(np.float32)  # type: ignore[no-any-return]


def _correlation(one_PSS: Array, other_PSS: Array, inside_PSS: Array, noise: float) -> Array:
    """Correlate each pair where inside, (P,), as if both carried noise of so many levels that agrees in nothing."""
    count = inside_PSS.sum(axis=(1, 2), keepdims=True).clip(1)
    one, other = (
        (part - (part * inside_PSS).sum(axis=(1, 2), keepdims=True) / count) * inside_PSS
        for part in (one_PSS, other_PSS)
    )
    power = noise**2 * count[:, 0, 0]
    lengths = np.sqrt(((one**2).sum(axis=(1, 2)) + power) * ((other**2).sum(axis=(1, 2)) + power))
    return (one * other).sum(axis=(1, 2)) / lengths  # type: ignore[no-any-return]


# ── thumbnails ───────────────────────────────────────────────────────────────────────────────────────────────────────


def shrink(pixels_NHWC: Array, side: int) -> Array:
    """Average over the cells of a grid, (N, side, side, 3), in float32; a pixel across a border counts in parts."""
    height, width, channels = pixels_NHWC.shape[1:]
    if (height, width) == (side, side):
        return pixels_NHWC.astype(np.float32)
    rows = _shares(height, side) @ pixels_NHWC.reshape(-1, height, width * channels).astype(np.float32)
    columns = rows.reshape(-1, side, width, channels).transpose(0, 1, 3, 2) @ _shares(width, side).T
    return columns.transpose(0, 1, 3, 2).copy()


def _shares(pixels: int, cells: int, margin: float = 0.0) -> Array:
    """Share out a line of pixels, but for margins at both ends, over cells, (cells, pixels); rows sum to 1."""
    borders = (margin + np.arange(cells + 1) / cells * (1 - 2 * margin)) * pixels
    edges = np.arange(pixels)
    overlap = np.minimum(borders[1:, None], edges + 1) - np.maximum(borders[:-1, None], edges)
    return (overlap.clip(0) / (borders[1] - borders[0])).astype(np.float32)  # type: ignore[no-any-return]


def _pooled(thumbs_USS: Array, side: int) -> Array:
    """Average gray thumbnails over the cells of a grid, (U, side, side)."""
    shares = _shares(thumbs_USS.shape[1], side)
    return shares @ thumbs_USS @ shares.T  # type: ignore[no-any-return]
