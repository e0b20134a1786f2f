"""What a check proposes once labels were decided on: nothing that a person has decided otherwise."""

import csv
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from sightline.checks.advice import Advice, advise
from sightline.checks.check_page import Findings, write_check
from sightline.checks.problems import Finding
from sightline.data.cache import CachedImages
from sightline.errors import StorageError
from sightline.runs.writing import plain_text, write_csv

__all__ = ["as_reviewed", "no_more_excluded"]

ABOUT_LABELS = ("suspected label", "two labels")  # findings that a decision on the label settles
HEADER = ["file", "finding", "detail"]


def as_reviewed(checked: Findings, folder: Path, decided: Collection[str]) -> tuple[Findings, list[Advice]]:
    """Return the findings without the suspected labels that were decided on, and what is to do then; write the page.

    Args:
        checked: what was found.
        folder: of the check.
        decided: hashes of the images.
    """
    images = checked.images

    def open_still(item: Finding) -> bool:
        return item.kind != "suspected label" or item.row is None or images.hashes[item.row] not in decided

    excluded = {
        row: item
        for row, item in checked.excluded.items()
        if item.kind not in ABOUT_LABELS or images.hashes[row] not in decided
    }
    checked = replace(checked, findings=[*filter(open_still, checked.findings)], excluded=excluded)
    steps = advise(checked, folder)
    write_check(folder / "check.html", checked, steps)
    return checked, steps


def no_more_excluded(path: Path, images: CachedImages, decided: Collection[str]) -> int:
    """Take the images whose labels were decided on out of an exclude.csv, as far as it lists them for their labels.

    All else stays in it, edited or not; a file that is gone, or has other columns by now, stays what it is.

    Returns:
        How many lines it has less.
    Raises:
        StorageError: it cannot be written.
    """
    files = {images.paths[row] for row in images.readable.tolist() if images.hashes[row] in decided}
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError:
        return 0
    except (OSError, csv.Error) as error:
        raise StorageError(f"{path} cannot be read ({error}); it may list images that were decided on.") from error
    if not rows or rows[0] != HEADER:
        return 0
    cells = [list(map(plain_text, row)) for row in rows[1:]]
    kept = [row for row in cells if len(row) < 2 or row[0] not in files or row[1] not in ABOUT_LABELS]
    if len(kept) < len(cells):
        write_csv(path, HEADER, kept)
    return len(cells) - len(kept)
