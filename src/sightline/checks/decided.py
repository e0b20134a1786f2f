"""An image set as people have decided its labels, for a check: what is decided is not asked again. N images."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sightline.checks.problems import Finding
from sightline.data.cache import CachedImages
from sightline.data.correcting import correct_rows
from sightline.data.splits import Splits

__all__ = ["as_decided", "undecided"]


def as_decided(
    images: CachedImages, splits: Splits | None, path: str | None
) -> tuple[CachedImages, Splits | None, list[str]]:
    """Return a set and its splits with the labels that a corrections file decides, without what it leaves out.

    Args:
        images: the set.
        splits: as a training would cut it; None: it cannot be cut.
        path: of the file; None changes nothing.
    Returns:
        The set, in which images that are left out count as unreadable, and whose ``corrected.facts`` have the file and
        how many images of train and validation it changes; its splits; and what was done, in sentences.
    """
    if path is None:
        return images, splits, []
    given = images
    images, left, notes = correct_rows(images, images.readable, path)
    corrected = images.corrected
    assert corrected is not None
    learned = corrected.decided if splits is None else np.setdiff1d(corrected.decided, splits.test)
    out = set(corrected.left_out.tolist())
    changes = sum(row in out or _name(images, row) != _name(given, row) for row in learned.tolist())
    corrected = replace(corrected, facts={**corrected.facts, "file": path, "learned": changes})
    labels = np.full_like(images.labels, -1)
    labels[left] = images.labels[left]
    if splits is not None:
        parts = ("train", "select", "calibrate", "test")
        kept: dict[str, Any] = {name: np.intersect1d(getattr(splits, name), left) for name in parts}
        splits = replace(splits, **kept)
    return replace(images, labels=labels, corrected=corrected), splits, [f"By {path}: {'; '.join(notes)}."]


def _name(images: CachedImages, row: int) -> str:
    return images.classes[int(images.labels[row])]


def undecided(images: CachedImages, findings: Sequence[Finding]) -> list[Finding]:
    """Return findings without suspected labels that somebody has decided on: corrected, or found to be right."""
    decided = set() if images.corrected is None else set(images.corrected.decided.tolist())
    return [item for item in findings if item.kind != "suspected label" or item.row not in decided]
