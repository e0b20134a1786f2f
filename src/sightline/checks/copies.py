"""Copies in an image set: which images are told as copies of which, and which of them is best kept."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sightline.checks.duplicates import Pairs, clusters_of, exact_duplicates
from sightline.checks.oddities import Header
from sightline.checks.problems import (
    MOST_PLACEHOLDERS,
    ORDER,
    PLACEHOLDER_CLASSES,
    PLACEHOLDER_COPIES,
    Finding,
)
from sightline.data.cache import CachedImages

__all__ = ["copies", "keeping_rank"]

Array = np.ndarray[Any, Any]


def keeping_rank(images: CachedImages, parts: Sequence[str], headers: Mapping[int, Header]) -> Array:
    """Rank the images by which of several copies is rather kept, (N,), the best from 0.

    First those of test, then of validation; then those whose files have the most pixels; then the first.

    Args:
        parts: the split of each row.
        headers: sizes of the files by row, where they are known.
    """
    splits = np.array([-ORDER.index(part) for part in parts])
    pixels = np.zeros(len(parts), np.int64)
    for row, header in headers.items():
        pixels[row] = -header.width * header.height
    rank = np.empty(len(parts), np.int64)
    rank[np.lexsort((np.arange(len(parts)), pixels, splits))] = np.arange(len(parts))
    return rank


def copies(images: CachedImages, parts: Sequence[str], pairs: Pairs, rank: Array | None = None) -> list[Finding]:
    """Find images that are there more than once: within a split, across splits, under two labels.

    Of a large cluster not every pair is told, but each image with the one that stays, and with the most alike one of
    another split and of another class.

    Args:
        parts: the split of each row.
        pairs: near duplicates, of one image of each group of identical ones.
        rank: which of several copies is rather kept, from ``keeping_rank``; by split and row unless given.
    """
    rank = keeping_rank(images, parts, {}) if rank is None else rank
    findings: list[Finding] = []
    groups = exact_duplicates(images.hashes, images.readable)
    placeholders = _placeholders(images, groups)
    for group in groups:
        of_group = [
            item
            for one, other in _exact_pairs(parts, group)
            for item in _copy(images, parts, rank, one, other, None, "the same pixels")
        ]
        if group[0] in placeholders:
            findings += _every_copy(images, group)
            of_group = [item for item in of_group if item.kind == "shared"]
        findings += of_group
    for first, second, score, mirrored in _telling(images, parts, _of_every_split(parts, groups, pairs), rank):
        text = f"likeness {score:.2f}" + (", mirrored" if mirrored else "")
        findings += _copy(images, parts, rank, first, second, score, text)
    return findings


def _of_every_split(parts: Sequence[str], groups: Sequence[Sequence[int]], pairs: Pairs) -> Pairs:
    """Repeat pairs for the first image of each split of a group of identical images."""
    members = {group[0]: _first_of_each(parts, group) for group in groups}
    grouped = np.isin(pairs.first_P, list(members)) | np.isin(pairs.second_P, list(members))
    if not grouped.any():
        return pairs
    repeated = [
        (one, other, score, mirrored)
        for first, second, score, mirrored in zip(*(part.tolist() for part in pairs), strict=True)
        for one in members.get(first, [first])
        for other in members.get(second, [second])
    ]
    return Pairs(*(np.array(part) for part in zip(*repeated, strict=True)))


def _telling(
    images: CachedImages, parts: Sequence[str], pairs: Pairs, rank: Array
) -> Iterator[tuple[int, int, float, bool]]:
    """Choose the pairs that say of each image of a cluster what its copies are."""
    first, second = pairs.first_P, pairs.second_P
    cluster = clusters_of(first, second, len(parts))
    best = np.full(len(parts), len(parts))
    rows = np.unique(np.concatenate([first, second]))
    np.minimum.at(best, cluster[rows], rank[rows])
    stays = rank == best[cluster]
    chosen = stays[first] | stays[second]
    for names in (images.labels, np.array([ORDER.index(part) for part in parts])):
        across = np.flatnonzero(names[first] != names[second])
        for side in (first, second):
            chosen[across[np.unique(side[across], return_index=True)[1]]] = True  # the most alike comes first
    told = np.union1d(first[chosen], second[chosen])
    for side in (first, second):  # chains of pairs lead to these
        rest = np.flatnonzero(~np.isin(side, told))
        chosen[rest[np.unique(side[rest], return_index=True)[1]]] = True
    yield from zip(*(part[chosen].tolist() for part in pairs), strict=True)


def _placeholders(images: CachedImages, groups: Sequence[Sequence[int]]) -> set[int]:
    """Find the first rows of the groups of identical images that look like placeholders."""
    often = [group for group in groups if len({images.paths[row] for row in group}) >= PLACEHOLDER_COPIES]
    often = often if len(often) <= MOST_PLACEHOLDERS else []
    spread = [group for group in groups if len({int(images.labels[row]) for row in group}) >= PLACEHOLDER_CLASSES]
    return {group[0] for group in (*often, *spread)}


def _every_copy(images: CachedImages, group: Sequence[int]) -> list[Finding]:
    """Make a finding for each copy of a placeholder."""
    labels = [int(images.labels[row]) for row in group]
    classes = len(set(labels))
    text = f"there {len(group)} times, in {classes} {'class' if classes == 1 else 'classes'}"
    return [
        Finding("placeholder", text, row, label=label, score=1.0, exact=True)
        for row, label in zip(group, labels, strict=True)
    ]


def _exact_pairs(parts: Sequence[str], group: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pair each image of a group with the first, and with the first of the latest split that has any."""
    latest = max((parts[row] for row in group), key=ORDER.index)
    ends = (group[0], next(row for row in group if parts[row] == latest))
    paired = set()
    for row in group:
        for end in ends:
            if row != end and frozenset((row, end)) not in paired:
                paired.add(frozenset((row, end)))
                yield end, row


def _first_of_each(parts: Sequence[str], group: Sequence[int]) -> list[int]:
    """List the first image of each split in a group of identical images."""
    return list({parts[row]: row for row in reversed(group)}.values())


def _copy(
    images: CachedImages, parts: Sequence[str], rank: Array, one: int, other: int, score: float | None, text: str
) -> list[Finding]:
    """Find what is wrong with a pair; the image that can be spared comes first."""
    kept, spared = sorted((one, other), key=lambda row: rank[row])
    labels = [int(images.labels[row]) for row in (spared, kept)]
    exact = score is None
    rest = (spared, kept, labels[0], 1.0 if score is None else round(score, 4), exact)
    findings = []
    if parts[spared] != parts[kept]:
        findings.append(Finding("shared", f"{parts[spared]} and {parts[kept]}: {text}", *rest))
    if labels[0] != labels[1]:
        names = " and ".join(images.classes[label] for label in labels)
        findings.append(Finding("two labels", f"{names}: {text}", *rest))
    return findings or [Finding("duplicate" if exact else "near duplicate", text, *rest)]
