"""Classes of a set by answers out of fold: which are one, which are two, and which want more images.

N images, K classes, D features. Loads no torch by itself: who judges labels hands the answers in.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.checks.confusion import ConfusedPair, confused_pairs
from sightline.checks.learning_curve import Answer, LearningCurve, learning_curve
from sightline.checks.problems import Finding
from sightline.checks.two_groups import TwoGroups, two_groups
from sightline.data.cache import CachedImages
from sightline.inference.vectors import Vectors

__all__ = ["ClassFacts", "between_others", "class_facts", "class_findings"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ClassFacts:
    """Findings on classes, by answers out of fold and by features."""

    confused: list[ConfusedPair]
    parted: list[TwoGroups]
    curve: LearningCurve | None


def class_facts(
    images: CachedImages,
    features_ND: Vectors,
    probabilities_NK: Array,
    answer: Answer,
) -> ClassFacts:
    """Look at the classes.

    Args:
        images: the set.
        features_ND: of its readable images.
        probabilities_NK: of their classes, by heads that did not see the image.
        answer: classes answered out of fold, by heads on a part of the images alone.
    """
    rows = images.readable
    labels_N = images.labels[rows]
    first = {images.hashes[row]: place for place, row in reversed(list(enumerate(rows.tolist())))}
    return ClassFacts(
        confused_pairs(probabilities_NK, labels_N),
        two_groups(features_ND, labels_N, sorted(first.values())),
        learning_curve(labels_N, answer, probabilities_NK.argmax(axis=1)),
    )


def between_others(findings: list[Finding], facts: ClassFacts) -> list[Finding]:
    """Return suspected labels without those between two classes that cannot be told apart: they say nothing there."""
    pairs = {frozenset((pair.one, pair.other)) for pair in facts.confused}
    return [item for item in findings if frozenset((item.label, item.suggested)) not in pairs]


def class_findings(images: CachedImages, facts: ClassFacts) -> list[Finding]:
    """Make findings of pairs that cannot be told apart, and of the smaller groups of classes that fall into two."""
    rows, names = images.readable, images.classes
    findings = []
    for pair in facts.confused:
        one, other = (int(rows[np.flatnonzero(images.labels[rows] == label)[0]]) for label in (pair.one, pair.other))
        text = f"{names[pair.one]} and {names[pair.other]}: of an image of each, {pair.area:.0%} are told apart"
        findings.append(Finding("confused", f"{text} (a coin: 50%)", one, other, pair.one, round(pair.area, 4)))
    for group in facts.parted:
        second = rows[group.second]
        rest = np.setdiff1d(rows[images.labels[rows] == group.label], second)
        text = f"{names[group.label]}: one of {len(second):,} beside one of {len(rest):,}"
        findings += [
            Finding("two groups", text, int(row), int(rest[place % len(rest)]), group.label)
            for place, row in enumerate(second.tolist())
        ]
    return findings
