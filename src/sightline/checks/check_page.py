"""The page of a check: sentences first, then the findings with their pictures, all in one file."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.checks.oddities import Header
from sightline.checks.problems import KINDS, Finding, too_many_near, too_many_suspects
from sightline.data.cache import CachedImages
from sightline.display.pages import Item, Page, Picture, Section, Table, data_uri, write_page
from sightline.display.terminal import natural_key

__all__ = ["SHOWN", "Findings", "proposals", "write_check"]

SHOWN = 60  # findings of a kind whose pictures are shown; the table has all
LARGEST = 96  # pixels of a picture's longer side
SMALL = 64  # pixels up to which pictures are kept without loss, and pixels stay squares when enlarged


@dataclass(frozen=True)
class Findings:
    """Findings about an image set, and what the page says beside them."""

    images: CachedImages
    parts: Sequence[str]
    """The split of each row; empty where it has none."""
    notes: Sequence[str]
    """How the set was split, and what was not looked at."""
    headers: Mapping[int, Header]
    statistics: tuple[list[float], list[float]]
    """Mean and deviation of each channel of the training images, from 0 to 1."""
    findings: Sequence[Finding]
    excluded: Mapping[int, Finding]
    """Rows that are proposed to be left out, and why."""
    in_test: int = 0
    """Test images that would be proposed, if a training left out any of test."""

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind that there is any of, in the order of a page."""
        counts = Counter(finding.kind for finding in self.findings)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}

    def in_test_split(self, row: int | None) -> bool:
        """Tell whether an image is of the test split."""
        return row is not None and self.parts[row] == "test"


def write_check(path: Path, checked: Findings) -> None:
    """Write the page.

    Raises:
        StorageError: it cannot be written.
    """
    images, folder = checked.images, path.parent.absolute()
    command = (
        f"sightline train {shlex.quote(images.location)} --data.exclude {shlex.quote(str(folder / 'exclude.csv'))}"
    )
    sections = [
        *(_section(checked, kind) for kind in checked.counts),
        Section("Images of each class", "\n\n".join(checked.notes), _classes(checked)),
        Section("What the set is like", table=_facts(checked)),
    ]
    title = f"Check of {images.name}"
    write_page(path, Page(title, _lead(checked), sections, command=command if checked.excluded else ""))


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lead(checked: Findings) -> list[str]:
    """Say what is wrong, how much of it, and what to do, for someone who has never seen such a page."""
    images, counts = checked.images, checked.counts
    looked_at = f"{len(images.paths):,} images of {len(images.classes)} classes were looked at."
    if not counts:
        return [f"{looked_at} Nothing was found that should be mended before a training."]
    sentences = [looked_at]
    shared = {item.other for item in checked.findings if item.kind == "shared" and checked.in_test_split(item.other)}
    learned = len(shared)
    if learned:
        share = learned / sum(part == "test" for part in checked.parts)
        sentences.append(
            f"{_times(learned, 'test image')} ({share:.1%}) {'shows' if learned == 1 else 'show'} a picture that"
            " is also in train or validation: an accuracy measured with them comes out too high."
        )
    for kind, one, many in (
        ("two labels", "picture appears under two different labels", "pictures appear under two different labels"),
        ("suspected label", "label looks wrong to a classifier", "labels look wrong to a classifier"),
        ("unreadable", "file cannot be read", "files cannot be read"),
    ):
        if kind in counts:
            sentences.append(f"{_times(counts[kind], one, many)}.")
    if too_many_suspects(images, checked.findings):
        sentences.append(
            "That is so many that the run seems to know too little of such images: none is proposed for it."
        )
    said = {"two labels", "suspected label", "unreadable"} | ({"shared"} if learned == counts.get("shared") else set())
    others = [
        f"{KINDS[kind].title[0].lower()}{KINDS[kind].title[1:]} ({count:,})"
        for kind, count in counts.items()
        if kind not in said
    ]
    if others:
        sentences.append(f"Found as well: {'; '.join(others)}.")
    sentences += proposals(checked)
    if checked.excluded:
        sentences.append(
            "What to do: look at the pictures below, and delete the lines that you disagree with in exclude.csv; then"
            " train without the images that it lists:"
        )
    return sentences


def proposals(checked: Findings) -> list[str]:
    """Say how many images are proposed to be left out, and why; what is not proposed, and why not."""
    if not checked.findings:
        return []
    sentences = []
    counts = Counter(item.kind for item in checked.excluded.values())
    if counts:
        why = "; ".join(f"{counts[kind]:,} {KINDS[kind].proposed}" for kind in KINDS if counts[kind])
        sentences.append(f"exclude.csv proposes to leave out {_times(len(checked.excluded), 'image')}: {why}.")
    if checked.in_test:
        sentences.append(
            f"Not listed: {_times(checked.in_test, 'test image')} with such faults. A training never leaves out any"
            " of test, so mend the set itself."
        )
    if too_many_near(checked.images, checked.findings):
        sentences.append(
            "More than a fifth of the images are near duplicates, as in frames of a film: that is what the set is like,"
            " and none is proposed for it."
        )
    if "unreadable" in checked.counts:
        sentences.append("A training leaves out by itself what cannot be read.")
    if not counts:
        sentences.append("exclude.csv lists nothing: of what was found no image need be left out, but look at it.")
    return sentences


def _times(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


# ── sections ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _section(checked: Findings, kind: str) -> Section:
    findings = [finding for finding in checked.findings if finding.kind == kind]
    findings.sort(key=lambda finding: not checked.in_test_split(finding.other))  # what test shares comes first
    items = [_item(checked, finding) for finding in findings[:SHOWN]]
    look = "singles" if all(len(item.pictures) < 2 for item in items) else "pairs"
    look += " pixelated" if max(checked.images.pixels.shape[1:3]) <= SMALL else ""
    rest = len(findings) - len(items)
    return Section(
        KINDS[kind].title,
        KINDS[kind].about,
        items=items,
        look=look,
        note=f"{rest:,} more in findings.csv." if rest else "",
        count=len(findings),
        key=kind.replace(" ", "-"),
    )


def _item(checked: Findings, finding: Finding) -> Item:
    rows = [row for row in (finding.row, finding.other) if row is not None]
    text = finding.detail
    if not rows and finding.label is not None:
        text = f"{checked.images.classes[finding.label]}: {text}"
    return Item([_picture(checked, row) for row in rows], text)


def _picture(checked: Findings, row: int) -> Picture:
    images, label = checked.images, int(checked.images.labels[row])
    words = [images.classes[label]] if label >= 0 else []
    words += [checked.parts[row]] if checked.parts[row] else []
    about, pixels = ", ".join(words), images.pixels[row]
    uri = data_uri(pixels, LARGEST, lossless=max(pixels.shape[:2]) <= SMALL) if label >= 0 else ""
    return Picture(uri, about, f"{about}\n{images.paths[row]}" if about else images.paths[row])


def _classes(checked: Findings) -> Table:
    """Count the images of each class in each split."""
    images = checked.images
    counts = Counter((int(images.labels[row]), checked.parts[row]) for row in images.readable.tolist())
    splits = [name for name in ("train", "validation", "test", "") if any(part == name for _, part in counts)]
    order = sorted(enumerate(images.classes), key=lambda item: natural_key(item[1]))
    rows = [[label, *(f"{counts[index, name]:,}" for name in splits)] for index, label in order]
    total = ["all", *(f"{sum(counts[index, name] for index, _ in order):,}" for name in splits)]
    return Table(["class", *(name or "images" for name in splits)], [*rows, total])


def _facts(checked: Findings) -> Table:
    """List what the set is like."""
    images, headers = checked.images, list(checked.headers.values())
    mean, deviation = (", ".join(f"{value:.4f}" for value in part) for part in checked.statistics)
    rows = [
        ("images", f"{len(images.readable):,} readable of {len(images.paths):,}"),
        ("mean of red, green, blue in train (0 to 1)", mean),
        ("their standard deviation", deviation),
    ]
    if headers:
        for name in ("width", "height"):
            values = [getattr(item, name) for item in headers]
            low, middle, high = min(values), int(np.median(values)), max(values)
            text = f"{low} px" if low == high else f"{low} to {high} px, median {middle}"
            rows.append((f"{name} of the files", text))
        kinds = Counter(f"{item.kind} {item.mode}".strip() for item in headers)
        rows.append(("files", ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common(8))))
    rows += [(f"left out: {name}", f"{count:,}") for name, count in images.ignored.items()]
    rows.append(("decoded to", "{1} × {0} px".format(*images.pixels.shape[1:3])))
    return Table(("", ""), rows, texts=2)
