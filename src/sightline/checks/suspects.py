"""The images of a check whose labels are doubted: which they are, and ``suspects.json``, which keeps them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from sightline.checks.problems import Finding
from sightline.data.cache import CachedImages
from sightline.data.sources.layout import Classes
from sightline.errors import RunError
from sightline.runs.writing import write_json
from sightline.serving.reviewing.items import Item

__all__ = ["SUSPECTS", "Kept", "keep_suspects", "read_suspects", "suspects_of", "write_suspects"]

SUSPECTS = "suspects.json"
FORMAT = 1


class _Suspect(msgspec.Struct):
    """An item, as the file has it: rows change with the set, so images are named by their hashes."""

    file: str
    hash: str
    given: str
    suggested: str | None
    certainty: float | None
    why: str
    neighbors: list[str]
    split: str


class Kept(msgspec.Struct):
    """Content of ``suspects.json``."""

    format: int
    location: str
    name: str
    classes: str | None
    """Which folders are the classes, as the check was told."""
    corrections: str | None
    """The file of decisions that the check read, to which more go; None: the one beside this."""
    suspects: list[_Suspect]

    @property
    def layout(self) -> Classes | None:
        """Rule by which folders are the classes; None: the default."""
        return next((value for value in get_args(Classes) if value == self.classes), None)

    def items(self, images: CachedImages) -> list[Item]:
        """Return the suspects that are in a set today and have the same label there, in their order."""
        rows_of: dict[str, list[int]] = {}
        for row in images.readable.tolist():
            rows_of.setdefault(images.hashes[row], []).append(row)
        known, items = set(images.classes), []
        for one in self.suspects:
            named = [row for row in rows_of.get(one.hash, []) if images.classes[int(images.labels[row])] == one.given]
            if not named:
                continue
            row = next((row for row in named if images.paths[row] == one.file), named[0])
            neighbors = [rows_of[digest][0] for digest in one.neighbors if digest in rows_of]
            suggested = one.suggested if one.suggested in known else None
            items.append(
                Item(
                    row,
                    images.paths[row],
                    one.hash,
                    one.given,
                    suggested,
                    one.certainty if suggested is not None else None,
                    one.why,
                    neighbors,
                    one.split,
                )
            )
        return items


def keep_suspects(
    folder: Path, images: CachedImages, classes: Classes | None, parts: Sequence[str], findings: Sequence[Finding]
) -> list[Item]:
    """List the images to review, and keep them in the folder of the check; the arguments are those of both below."""
    items = suspects_of(images.as_labeled, parts, findings)
    write_suspects(folder, images, classes, items)
    return items


def suspects_of(images: CachedImages, parts: Sequence[str], findings: Sequence[Finding]) -> list[Item]:
    """List the images to review, the most likely wrong first: suspected labels, then images with two labels.

    Args:
        images: the set.
        parts: the split of each row.
        findings: of the check.
    Returns:
        One item for each hash: identical images share a decision.
    """
    items: dict[str, Item] = {}

    def add(finding: Finding, row: int, suggested: int | None, certainty: float | None, near: Sequence[int]) -> None:
        digest = images.hashes[row]
        if digest not in items:
            items[digest] = Item(
                row,
                images.paths[row],
                digest,
                images.classes[int(images.labels[row])],
                None if suggested is None else images.classes[suggested],
                certainty,
                _why(finding),
                list(near),
                parts[row],
            )

    suspected = [item for item in findings if item.kind == "suspected label" and item.row is not None]
    for finding in sorted(suspected, key=lambda item: 1.0 if item.score is None else item.score):
        assert finding.row is not None
        add(finding, finding.row, finding.suggested, finding.certainty, finding.neighbors)
    two = [item for item in findings if item.kind == "two labels" and item.other is not None]
    for finding in sorted(two, key=lambda item: (not item.exact, -(item.score or 0))):
        for row, other in ((finding.row, finding.other), (finding.other, finding.row)):
            assert row is not None
            assert other is not None
            add(finding, row, int(images.labels[other]), None, [other])
    return list(items.values())


def _why(finding: Finding) -> str:
    if finding.kind == "suspected label" and finding.score is not None:
        return f"suspected label: quality {finding.score:.3f}" + (f" by {finding.judge}" if finding.judge else "")
    return f"{finding.kind}: {finding.detail}"


def write_suspects(folder: Path, images: CachedImages, classes: Classes | None, items: Sequence[Item]) -> None:
    """Keep the items of a check in its folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    suspects = [
        {
            "file": item.file,
            "hash": item.digest,
            "given": item.given,
            "suggested": item.suggestion,
            "certainty": item.certainty,
            "why": item.why,
            "neighbors": [images.hashes[row] for row in item.neighbors],
            "split": item.split,
        }
        for item in items
    ]
    corrections = None if images.corrected is None else os.path.abspath(images.corrected.facts["file"])
    facts = {"format": FORMAT, "location": images.location, "name": images.name, "classes": classes}
    write_json(folder / SUSPECTS, facts | {"corrections": corrections, "suspects": suspects})


def read_suspects(folder: Path) -> Kept:
    """Read the items that a check kept.

    Raises:
        RunError: the folder is not that of a check, or the file is damaged or of another version.
    """
    path = folder / SUSPECTS
    try:
        value: Any = json.loads(path.read_text("utf-8"))
        kept = msgspec.convert(value, Kept)
    except FileNotFoundError as error:
        raise RunError(
            f"{folder} holds no {SUSPECTS}; wanted the folder that sightline check wrote, such as checks/flowers-1."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({error}); run sightline check on the image set again.") from error
    if kept.format != FORMAT:
        raise RunError(f"{path} is of another version of sightline; run sightline check on the image set again.")
    return kept
