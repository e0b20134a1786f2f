"""What a check proposes once labels were decided on: nothing that a person has decided otherwise."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from sightline.checks.advice import Advice, advise
from sightline.checks.check_page import Findings, write_check
from sightline.checks.problems import Finding
from sightline.data.excluding import ABOUT_LABELS

__all__ = ["as_reviewed"]


def as_reviewed(
    checked: Findings, folder: Path, decided: Collection[str], corrections: Path
) -> tuple[Findings, list[Advice]]:
    """Return the findings without the suspected labels that were decided on, and what is to do then; write the page.

    Args:
        checked: what was found.
        folder: of the check.
        decided: hashes of the images.
        corrections: file of the decisions.
    """
    images = checked.images

    def open_still(item: Finding) -> bool:
        return item.kind != "suspected label" or item.row is None or images.hashes[item.row] not in decided

    excluded = {
        row: item
        for row, item in checked.excluded.items()
        if item.kind not in ABOUT_LABELS or images.hashes[row] not in decided
    }
    findings = [*filter(open_still, checked.findings)]
    checked = replace(checked, findings=findings, excluded=excluded, corrections=corrections)
    steps = advise(checked, folder)
    write_check(folder / "check.html", checked, steps)
    return checked, steps
