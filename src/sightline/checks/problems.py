"""Problems of an image set, one finding at a time, and which images are better left out of a training.

Plain decisions over what was measured: nothing here reads a file or an image.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.data.cache import CachedImages
from sightline.data.splits import Splits
from sightline.display.terminal import natural_key
from sightline.training.mirroring import measure_mirroring

__all__ = [
    "FEWEST_TO_JUDGE",
    "KINDS",
    "MOST_PLACEHOLDERS",
    "ORDER",
    "PLACEHOLDER_CLASSES",
    "PLACEHOLDER_COPIES",
    "TOO_FEW_TO_JUDGE",
    "Finding",
    "Kind",
    "odd_ones",
    "part_of",
    "rare_classes",
    "reasons",
    "staying_in_test",
    "suggestions",
    "too_many_near",
    "too_many_suspects",
    "unlike_when_mirrored",
    "unreadable",
]

RARE = 1 / 10  # of the images of the largest class: a class with fewer is easily passed over
MOST_SUSPECTS = 1 / 5  # of the images: where more labels are suspected, the features do not tell the classes apart
# of the images: where more are near duplicates, it is what the set is like (frames of a film, digits)
MOST_NEAR = 1 / 5
# of one image, from either of which on it hardly shows what it is filed under
PLACEHOLDER_CLASSES, PLACEHOLDER_COPIES = 3, 5
MOST_PLACEHOLDERS = 3  # images with so many copies; where there are more, images were repeated on purpose
FEW = 20  # training images of a class: too few to learn from in any case
FEWEST_TO_JUDGE = 10  # images of a class, below which its labels are not judged by the others
TOO_FEW_TO_JUDGE = f"Labels were not judged: that takes two classes of {FEWEST_TO_JUDGE} images each, at least."
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
        "What is tested on was learned by heart: accuracy comes out too high. The copy outside test is proposed to be"
        " left out.",
        "also in validation or test",
    ),
    "placeholder": Kind(
        "One image many times",
        f"An image that is in {PLACEHOLDER_CLASSES} classes, or there {PLACEHOLDER_COPIES} times, is hardly a picture"
        " of its class: a website's placeholder, an error page, an empty frame. All copies are proposed to be left"
        " out.",
        "copies of an image that is there many times, probably a placeholder",
    ),
    "two labels": Kind(
        "The same image with two labels",
        "One of the labels is wrong, the classes overlap, or it shows neither of them, as a placeholder does. All are"
        " proposed to be left out: nothing here tells which label is right. Where you can, keep the one with the right"
        " label.",
        "with two labels, of which one is wrong",
    ),
    "suspected label": Kind(
        "Labels that look wrong",
        "A classifier that did not see the image gives it another class. The first are the most likely to be wrong;"
        " look at each: unusual images look wrong, too, and most do where the run knows little of such images.",
        "with a label that looks wrong (a decision in corrections.csv goes before this list)",
    ),
    "duplicate": Kind(
        "Images that are there twice, pixel for pixel",
        "A copy counts twice while training. All but one are proposed to be left out.",
        "the same, pixel for pixel, as an image that stays",
    ),
    "near duplicate": Kind(
        "Pictures that are there twice, a little changed",
        "Re-encoded, brightened, moved, cropped or mirrored, a picture counts twice while training. One of each pair or"
        " cluster stays: an image of test if there is one, else that whose file has the most pixels, else the first."
        " The others are proposed to be left out; keep them where they are other pictures.",
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
        "A classifier passes them over. Add images; --evaluation.prior equal finds more of them, at the price of false"
        " ones.",
    ),
    "confused": Kind(
        "Classes that cannot be told apart",
        "Answers of heads that did not see the images are hardly better than a coin between the two, and that is no"
        " chance: they show the same, or their labels are mixed up. Merge them (--data.merge), or mend the labels.",
    ),
    "two groups": Kind(
        "Classes that fall into two groups",
        "Their images lie as far apart as those of two classes do. On the left of each pair is one of the smaller"
        " group, on the right one of the larger: where these are two things, make two classes of them.",
    ),
    "mirrored": Kind(
        "Classes that look otherwise when mirrored",
        "A training leaves out flips and mirrored views here, unless --augment.flip or --evaluation.views asks for"
        " them.",
    ),
    "to label": Kind(
        "Images to label next",
        "Their labels would teach a run most; the first teach most.",
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
    suggested: int | None = None
    """Index of the class that a suspected label should be."""
    certainty: float | None = None
    """Probability of that class, from 0 to 1."""
    neighbors: tuple[int, ...] = ()
    """Rows of the images that speak for it, the nearest first."""
    judge: str = ""
    """What suspected it, such as ``the backbone in the box at 96 px``."""


def part_of(images: CachedImages, splits: Splits | None) -> list[str]:
    """Name the split of each row; empty where the image is unreadable, or nothing can be split."""
    parts = [""] * len(images.paths)
    if splits is not None:
        for name, rows in ((TRAIN, splits.train), (VALIDATION, splits.validation), (TEST, splits.test)):
            for row in rows.tolist():
                parts[row] = name
    return parts


def unreadable(images: CachedImages) -> list[Finding]:
    """List what the cache left out, and why."""
    row_of = {path: row for row, path in enumerate(images.paths) if images.labels[row] < 0}
    return [
        Finding("unreadable", reason, row_of[path])
        for path, reason in sorted(images.left_out, key=lambda pair: natural_key(pair[0]))
    ]


def odd_ones(images: CachedImages, oddities: Mapping[str, Mapping[int, str]]) -> list[Finding]:
    """Make a finding for each odd image.

    Args:
        oddities: for each kind, what is odd by row.
    """
    return [
        Finding(kind, text, row, label=int(images.labels[row]))
        for kind, texts in oddities.items()
        for row, text in sorted(texts.items(), key=lambda item: natural_key(images.paths[item[0]]))
        if images.labels[row] >= 0
    ]


def rare_classes(images: CachedImages, parts: Sequence[str]) -> list[Finding]:
    """Find classes with few training images, or few beside the largest; of all images where nothing is split."""
    learned = [row for row in images.readable.tolist() if parts[row] in ("", TRAIN)]
    counts = np.bincount(images.labels[learned], minlength=len(images.classes))
    most = int(counts.max())
    return [
        Finding("rare class", f"{count} training images; the largest class has {most:,}", label=label)
        for label, count in enumerate(counts.tolist())
        if count < FEW or count < RARE * most
    ]


def unlike_when_mirrored(images: CachedImages, rows: Array) -> list[Finding]:
    """Find classes whose mirrored training images look like another class, or unlike their own; by a sample."""
    measured, names = measure_mirroring(images, rows), images.classes
    pairs = [pair for one, other in measured.pairs for pair in ((one, other), (other, one))]
    return [
        *(Finding("mirrored", f"mirrored, it looks like {names[other]}", label=one) for one, other in pairs),
        *(Finding("mirrored", "mirrored, it looks unlike its own class", label=label) for label in measured.unlike),
    ]


def too_many_suspects(images: CachedImages, findings: Sequence[Finding]) -> bool:
    """Tell whether so many labels are suspected that it is the run that knows too little of such images."""
    return sum(item.kind == "suspected label" for item in findings) > MOST_SUSPECTS * len(images.readable)


def too_many_near(images: CachedImages, findings: Sequence[Finding]) -> bool:
    """Tell whether so many images within a split are near duplicates that it is what the set is like."""
    near = {item.row for item in findings if not item.exact and item.kind in ("near duplicate", "two labels")}
    return len(near) > MOST_NEAR * len(images.readable)


def suggestions(
    images: CachedImages, parts: Sequence[str], findings: Sequence[Finding], rank: Array | None = None
) -> dict[int, Finding]:
    """Propose rows to leave out of training and validation, each with the first finding that says so.

    Of a class that is mostly blank images none is left out for that: it may be what the class is. Nor are suspected
    labels, or near duplicates, where there are too many. A training leaves no test image out, so none is proposed.

    Args:
        parts: the split of each row.
        rank: which of several copies is rather kept, from ``keeping_rank``; by rows unless given.
    """
    return {row: item for row, item in _better_left_out(images, findings, rank).items() if parts[row] != TEST}


def staying_in_test(
    images: CachedImages, parts: Sequence[str], findings: Sequence[Finding], rank: Array | None = None
) -> int:
    """Count the test images that would be proposed otherwise: they are mended in the set itself alone."""
    return sum(parts[row] == TEST for row in _better_left_out(images, findings, rank))


def reasons(images: CachedImages, proposed: Mapping[int, Finding]) -> dict[int, str]:
    """Say why each image is proposed to be left out, with the image that it is compared with; by row, ascending."""
    texts = {}
    for row, item in sorted(proposed.items()):
        other = item.other if item.row == row else item.row
        texts[row] = item.detail
        if other is not None:
            texts[row] += f"; the other is {images.paths[other]}{'' if other in proposed else ', which stays'}"
    return texts


def _better_left_out(images: CachedImages, findings: Sequence[Finding], rank: Array | None) -> dict[int, Finding]:
    left_out: dict[int, Finding] = {}
    blank = Counter(item.label for item in findings if item.kind == "blank")
    total = Counter(images.labels[images.readable].tolist())
    doubtful, alike = too_many_suspects(images, findings), too_many_near(images, findings)
    for item in findings:
        if item.row is None or item.label is None:
            continue
        same_file = item.other is not None and images.paths[item.row] == images.paths[item.other]  # listed twice
        proposed = {
            "shared": True,
            "placeholder": True,
            "suspected label": not doubtful,
            "duplicate": not same_file,
            "two labels": item.exact or not alike,
            "blank": 2 * blank[item.label] < total[item.label],
        }
        if proposed.get(item.kind):
            left_out.setdefault(item.row, item)
            if item.kind == "two labels" and item.other is not None:
                left_out.setdefault(item.other, item)
    if not alike:  # near duplicates of images that stay, the best kept first: each has then one that stays
        place = np.arange(len(images.paths)) if rank is None else rank
        near = [(item.row, item.other, item) for item in findings if item.kind == "near duplicate"]
        for row, other, item in sorted(near, key=lambda pair: (place[pair[0]], place[pair[1]])):
            if row is not None and other not in left_out:
                left_out.setdefault(row, item)
    return left_out
