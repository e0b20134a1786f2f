"""What is wrong with an image set, one finding at a time, and which images are better left out of a training.

Plain decisions over what was measured: nothing here reads a file or an image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.images.cache import CachedImages
from sightline.images.duplicates import Pairs, exact_duplicates
from sightline.images.splits import Splits

__all__ = [
    "KINDS",
    "Finding",
    "Kind",
    "copies",
    "odd_ones",
    "part_of",
    "rare_classes",
    "suggestions",
    "too_many_suspects",
    "unreadable",
]

RARE = 1 / 10  # of the images of the largest class: a class with fewer is easily passed over
MOST_SUSPECTS = 1 / 5  # of the images: where more labels are suspected, the features do not tell the classes apart
FEW = 20  # training images of a class: too few to learn from in any case
TRAIN, VALIDATION, TEST = "train", "validation", "test"
ORDER = ("", TRAIN, VALIDATION, TEST)  # of two splits that share an image, the earlier can spare it

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of finding: what a user reads about it."""

    title: str
    about: str


KINDS = {
    "unreadable": Kind(
        "Files that cannot be read",
        "A training leaves them out. Mend them, or fetch them anew.",
    ),
    "shared": Kind(
        "Images shared by two splits",
        "What is tested on was learnt by heart: accuracy comes out too high. The copy outside test is better left out.",
    ),
    "two labels": Kind(
        "The same image with two labels",
        "One of the labels is wrong, or the classes overlap. Of pictures that agree pixel for pixel both are better left"
        " out; look at the others.",
    ),
    "suspected label": Kind(
        "Labels that look wrong",
        "A classifier that did not see the image gives it another class. The first are the most likely to be wrong; look at"
        " each: unusual images look wrong, too, and most do where the run knows little of such images.",
    ),
    "duplicate": Kind(
        "Images that are there twice, pixel for pixel",
        "A copy counts twice while training. All but one are better left out.",
    ),
    "near duplicate": Kind(
        "Pictures that are there twice, a little changed",
        "Copies within one split do no harm but to variety; they are shown, and not left out.",
    ),
    "blank": Kind("Images of one colour", "They show nothing that could be learnt."),
    "dark": Kind("Very dark images", "Look whether anything can be seen in them."),
    "bright": Kind("Very bright images", "Look whether anything can be seen in them."),
    "mode": Kind(
        "Files stored in an unusual way", "They are converted to RGB; look whether the colours are what they should be."
    ),
    "size": Kind("Images of an unusual size", "They are scaled like all others, and lose more, or show less."),
    "shape": Kind("Images of an unusual shape", "The centre is cut out: look whether it shows what it should."),
    "tiny": Kind("Tiny images", "They are enlarged, and show less than the others."),
    "rare class": Kind(
        "Classes with few images",
        "A classifier passes them over. Add images, or train with --fit.class-weights balanced or --data.sampling"
        " balanced.",
    ),
}
"""In the order in which a page shows them."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    detail: str
    row: int | None = None
    """Of the image; None where it is about a class."""
    other: int | None = None
    """Row of the image that it is compared with."""
    label: int | None = None
    """Index of the class: of the image, or that the finding is about."""
    score: float | None = None
    """Likeness of two images, 1 for the same pixels; or quality of a label, from 0 to 1."""
    exact: bool = False
    """Whether the two agree pixel for pixel."""


def part_of(images: CachedImages, splits: Splits | None) -> list[str]:
    """The split of each row; empty where the image is unreadable, or nothing can be split."""
    parts = [""] * len(images.paths)
    if splits is not None:
        for name, rows in ((TRAIN, splits.train), (VALIDATION, splits.validation), (TEST, splits.test)):
            for row in rows.tolist():
                parts[row] = name
    return parts


def unreadable(images: CachedImages) -> list[Finding]:
    """What the cache left out, and why."""
    row_of = {path: row for row, path in enumerate(images.paths) if images.labels[row] < 0}
    return [Finding("unreadable", reason, row_of[path]) for path, reason in images.left_out]


def odd_ones(images: CachedImages, oddities: Mapping[str, Mapping[int, str]]) -> list[Finding]:
    """A finding for each odd image.

    Args:
        oddities: for each kind, what is odd by row.
    """
    found = []
    for kind, texts in oddities.items():
        for row, text in sorted(texts.items()):
            if images.labels[row] >= 0:
                found.append(Finding(kind, text, row, label=int(images.labels[row])))
    return found


def copies(images: CachedImages, parts: Sequence[str], pairs: Pairs) -> list[Finding]:
    """Images that are there more than once: within a split, across splits, under two labels.

    Args:
        parts: the split of each row.
        pairs: near duplicates, of one image of each group of identical ones.
    """
    found: list[Finding] = []
    groups = exact_duplicates(images.hashes, images.readable)
    for group in groups:
        for one, other in _exact_pairs(images, parts, group):
            found += _copy(images, parts, one, other, None, "the same pixels")
    members = {row: group for group in groups for row in group}
    for first, second, score, mirrored in zip(*(part.tolist() for part in pairs), strict=True):
        text = f"likeness {score:.2f}" + (", mirrored" if mirrored else "")
        for one in _first_of_each(parts, members.get(first, [first])):
            for other in _first_of_each(parts, members.get(second, [second])):
                found += _copy(images, parts, one, other, score, text)
    return found


def _exact_pairs(images: CachedImages, parts: Sequence[str], group: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs that tell all of a group: of each image with the first, and with the first of the latest split that has any."""
    latest = max((parts[row] for row in group), key=ORDER.index)
    first = group[0]
    judge = next(row for row in group if parts[row] == latest)
    told = set()
    for row in group:
        for other in (first, judge):
            if row != other and frozenset((row, other)) not in told:
                told.add(frozenset((row, other)))
                yield other, row


def _first_of_each(parts: Sequence[str], group: Sequence[int]) -> list[int]:
    """The first image of each split in a group of identical images."""
    return list({parts[row]: row for row in reversed(group)}.values())


def _copy(
    images: CachedImages, parts: Sequence[str], one: int, other: int, score: float | None, text: str
) -> list[Finding]:
    """What is to say of a pair; the image that can better be spared comes first, of two in one split the later."""
    spared, kept = sorted((one, other), key=lambda row: (ORDER.index(parts[row]), -row))
    labels = [int(images.labels[row]) for row in (spared, kept)]
    exact = score is None
    rest = (spared, kept, labels[0], 1.0 if score is None else round(score, 4), exact)
    found = []
    if parts[spared] != parts[kept]:
        found.append(Finding("shared", f"{parts[spared]} and {parts[kept]}: {text}", *rest))
    if labels[0] != labels[1]:
        names = " and ".join(images.classes[label] for label in labels)
        found.append(Finding("two labels", f"{names}: {text}", *rest))
    return found or [Finding("duplicate" if exact else "near duplicate", text, *rest)]


def rare_classes(images: CachedImages, parts: Sequence[str]) -> list[Finding]:
    """Classes with few training images, or with few beside the largest; of all images where nothing can be split."""
    learnt = [row for row in images.readable.tolist() if parts[row] in ("", TRAIN)]
    counts = np.bincount(images.labels[learnt], minlength=len(images.classes))
    most = int(counts.max())
    return [
        Finding("rare class", f"{count} training images; the largest class has {most:,}", label=label)
        for label, count in enumerate(counts.tolist())
        if count < FEW or count < RARE * most
    ]


def too_many_suspects(images: CachedImages, findings: Sequence[Finding]) -> bool:
    """Whether so many labels are suspected that it is the run that knows too little of such images."""
    return sum(item.kind == "suspected label" for item in findings) > MOST_SUSPECTS * len(images.readable)


def suggestions(images: CachedImages, parts: Sequence[str], findings: Sequence[Finding]) -> dict[int, Finding]:
    """Rows that are better left out of training and validation, each with the first finding that says so.

    Of a class that is mostly blank images none is left out for that: it may be what the class is. Nor are suspected labels,
    where there are too many.
    """
    found: dict[int, Finding] = {}
    blank = np.bincount(
        [item.label for item in findings if item.kind == "blank" and item.label is not None],
        minlength=len(images.classes),
    )
    total = np.bincount(images.labels[images.readable], minlength=len(images.classes))
    doubtful = too_many_suspects(images, findings)
    for finding in findings:
        if finding.row is None or finding.label is None:
            continue
        rows: tuple[int | None, ...] = ()
        match finding.kind:
            case "shared":
                rows = (finding.row,)
            case "suspected label":
                rows = () if doubtful else (finding.row,)
            case "duplicate":
                named_again = finding.other is not None and images.paths[finding.row] == images.paths[finding.other]
                rows = () if named_again else (finding.row,)
            case "two labels":
                rows = (finding.row, finding.other) if finding.exact else ()
            case "blank":
                rows = (finding.row,) if 2 * blank[finding.label] < total[finding.label] else ()
        for row in rows:
            if row is not None and parts[row] in (TRAIN, VALIDATION):
                found.setdefault(row, finding)
    return found
