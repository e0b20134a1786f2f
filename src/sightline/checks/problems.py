"""What is wrong with an image set, one finding at a time, and which images are better left out of a training.

Plain decisions over what was measured: nothing here reads a file or an image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.checks.duplicates import Pairs, exact_duplicates
from sightline.data.cache import CachedImages
from sightline.data.splits import Splits
from sightline.display.terminal import natural_key

__all__ = [
    "KINDS",
    "Finding",
    "Kind",
    "copies",
    "odd_ones",
    "part_of",
    "rare_classes",
    "reasons",
    "staying_in_test",
    "suggestions",
    "too_many_near",
    "too_many_suspects",
    "unreadable",
]

RARE = 1 / 10  # of the images of the largest class: a class with fewer is easily passed over
MOST_SUSPECTS = 1 / 5  # of the images: where more labels are suspected, the features do not tell the classes apart
MOST_NEAR = (
    1 / 5
)  # of the images: where more are near duplicates, it is what the set is like (frames of a film, digits)
PLACEHOLDER_CLASSES, PLACEHOLDER_COPIES = (
    3,
    5,
)  # of one image, from either of which on it hardly shows what it is filed under
MOST_PLACEHOLDERS = 3  # images with so many copies; where there are more, images were repeated on purpose
FEW = 20  # training images of a class: too few to learn from in any case
TRAIN, VALIDATION, TEST = "train", "validation", "test"
ORDER = ("", TRAIN, VALIDATION, TEST)  # of two splits that share an image, the earlier can spare it

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of finding: what a user reads about it."""

    title: str
    about: str
    proposed: str = ""
    """What the images are that are proposed to be left out for it; empty where none ever is."""


KINDS = {
    "unreadable": Kind(
        "Files that cannot be read",
        "A training leaves them out. Mend them, or fetch them anew.",
    ),
    "shared": Kind(
        "Images shared by two splits",
        "What is tested on was learned by heart: accuracy comes out too high. The copy outside test is proposed to be left"
        " out.",
        "also in validation or test",
    ),
    "placeholder": Kind(
        "One image many times",
        f"An image that is in {PLACEHOLDER_CLASSES} classes, or there {PLACEHOLDER_COPIES} times, is hardly a picture of its"
        " class: a website's placeholder, an error page, an empty frame. All copies are proposed to be left out.",
        "copies of an image that is there many times, probably a placeholder",
    ),
    "two labels": Kind(
        "The same image with two labels",
        "One of the labels is wrong, the classes overlap, or it shows neither of them, as a placeholder does. All are proposed"
        " to be left out: nothing here tells which label is right. Where you can, keep the one with the right label.",
        "with two labels, of which one is wrong",
    ),
    "suspected label": Kind(
        "Labels that look wrong",
        "A classifier that did not see the image gives it another class. The first are the most likely to be wrong; look at"
        " each: unusual images look wrong, too, and most do where the run knows little of such images.",
        "with a label that looks wrong",
    ),
    "duplicate": Kind(
        "Images that are there twice, pixel for pixel",
        "A copy counts twice while training. All but one are proposed to be left out.",
        "the same, pixel for pixel, as an image that stays",
    ),
    "near duplicate": Kind(
        "Pictures that are there twice, a little changed",
        "Re-encoded, brightened, moved a little or mirrored, a picture counts twice while training. One of each pair is"
        " proposed to be left out; keep both where they are two pictures.",
        "nearly the same as an image that stays",
    ),
    "blank": Kind(
        "Images of one color",
        "They show nothing that could be learned: proposed to be left out, unless most of their class are like that.",
        "of one color",
    ),
    "dark": Kind("Very dark images", "Look whether anything can be seen in them."),
    "bright": Kind("Very bright images", "Look whether anything can be seen in them."),
    "mode": Kind(
        "Files stored in an unusual way", "They are converted to RGB; look whether the colors are what they should be."
    ),
    "size": Kind("Images of an unusual size", "They are scaled like all others, and lose more, or show less."),
    "shape": Kind("Images of an unusual shape", "The center is cut out: look whether it shows what it should."),
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
    return [
        Finding("unreadable", reason, row_of[path])
        for path, reason in sorted(images.left_out, key=lambda pair: natural_key(pair[0]))
    ]


def odd_ones(images: CachedImages, oddities: Mapping[str, Mapping[int, str]]) -> list[Finding]:
    """A finding for each odd image.

    Args:
        oddities: for each kind, what is odd by row.
    """
    found = []
    for kind, texts in oddities.items():
        for row, text in sorted(texts.items(), key=lambda item: natural_key(images.paths[item[0]])):
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
    placeholders = _placeholders(images, groups)
    for group in groups:
        pairs_of_group = [
            item
            for one, other in _exact_pairs(images, parts, group)
            for item in _copy(images, parts, one, other, None, "the same pixels")
        ]
        if group[0] in placeholders:
            found += _every_copy(images, group)
            pairs_of_group = [item for item in pairs_of_group if item.kind == "shared"]
        found += pairs_of_group
    members = {row: group for group in groups for row in group}
    for first, second, score, mirrored in zip(*(part.tolist() for part in pairs), strict=True):
        text = f"likeness {score:.2f}" + (", mirrored" if mirrored else "")
        for one in _first_of_each(parts, members.get(first, [first])):
            for other in _first_of_each(parts, members.get(second, [second])):
                found += _copy(images, parts, one, other, score, text)
    return found


def _placeholders(images: CachedImages, groups: Sequence[Sequence[int]]) -> set[int]:
    """The first rows of the groups of identical images that look like placeholders."""
    often = [group for group in groups if len({images.paths[row] for row in group}) >= PLACEHOLDER_COPIES]
    found = often if len(often) <= MOST_PLACEHOLDERS else []
    spread = [group for group in groups if len({int(images.labels[row]) for row in group}) >= PLACEHOLDER_CLASSES]
    return {group[0] for group in (*found, *spread)}


def _every_copy(images: CachedImages, group: Sequence[int]) -> list[Finding]:
    """A finding for each copy of a placeholder."""
    labels = [int(images.labels[row]) for row in group]
    classes = len(set(labels))
    text = f"there {len(group)} times, in {classes} {'class' if classes == 1 else 'classes'}"
    return [
        Finding("placeholder", text, row, label=label, score=1.0, exact=True)
        for row, label in zip(group, labels, strict=True)
    ]


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


def too_many_near(images: CachedImages, findings: Sequence[Finding]) -> bool:
    """Whether so many images within a split are near duplicates that it is what the set is like."""
    near = {item.row for item in findings if not item.exact and item.kind in ("near duplicate", "two labels")}
    return len(near) > MOST_NEAR * len(images.readable)


def suggestions(images: CachedImages, parts: Sequence[str], findings: Sequence[Finding]) -> dict[int, Finding]:
    """Rows that are better left out of training and validation, each with the first finding that says so.

    Of a class that is mostly blank images none is left out for that: it may be what the class is. Nor are suspected labels,
    or near duplicates, where there are too many. A training leaves no test image out, so none is proposed.
    """
    return {row: item for row, item in _better_left_out(images, findings).items() if parts[row] != TEST}


def staying_in_test(images: CachedImages, parts: Sequence[str], findings: Sequence[Finding]) -> int:
    """How many test images would be proposed if they were no test images: they can only be mended in the set itself."""
    found = _better_left_out(images, findings)
    return sum(parts[row] == TEST for row in found)


def reasons(images: CachedImages, proposed: Mapping[int, Finding]) -> dict[int, str]:
    """Why each image is proposed to be left out, with the image that it is compared with; by row, ascending."""
    found = {}
    for row, item in sorted(proposed.items()):
        other = item.other if item.row == row else item.row
        found[row] = item.detail
        if other is not None:
            found[row] += f"; the other is {images.paths[other]}{'' if other in proposed else ', which stays'}"
    return found


def _better_left_out(images: CachedImages, findings: Sequence[Finding]) -> dict[int, Finding]:
    found: dict[int, Finding] = {}
    blank = np.bincount(
        [item.label for item in findings if item.kind == "blank" and item.label is not None],
        minlength=len(images.classes),
    )
    total = np.bincount(images.labels[images.readable], minlength=len(images.classes))
    doubtful, alike = too_many_suspects(images, findings), too_many_near(images, findings)
    for finding in findings:
        if finding.row is None or finding.label is None:
            continue
        rows: tuple[int | None, ...] = ()
        match finding.kind:
            case "shared" | "placeholder":
                rows = (finding.row,)
            case "suspected label":
                rows = () if doubtful else (finding.row,)
            case "duplicate":
                named_again = finding.other is not None and images.paths[finding.row] == images.paths[finding.other]
                rows = () if named_again else (finding.row,)
            case "two labels":
                rows = (finding.row, finding.other) if finding.exact or not alike else ()
            case "blank":
                rows = (finding.row,) if 2 * blank[finding.label] < total[finding.label] else ()
        for row in rows:
            if row is not None:
                found.setdefault(row, finding)
    if not alike:
        _leave_out_near(findings, found)
    return found


def _leave_out_near(findings: Sequence[Finding], found: dict[int, Finding]) -> None:
    """Add near duplicates of images that stay, in the order of their rows: each has then one that stays."""
    near = [item for item in findings if item.kind == "near duplicate" and item.row is not None]
    for item in sorted(near, key=lambda item: (item.row, item.other)):
        assert item.row is not None
        if item.other not in found:
            found.setdefault(item.row, item)
