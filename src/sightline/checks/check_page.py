"""The page of a check: sentences first, then what was found with its pictures, all in one file."""

import base64
import io
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sightline.checks.oddities import Header
from sightline.checks.problems import KINDS, Finding, too_many_near, too_many_suspects
from sightline.data.cache import CachedImages
from sightline.display.pages import Table, write_html
from sightline.display.terminal import natural_key

__all__ = ["SHOWN", "Checked", "counted", "proposals", "sentences", "write_check"]

SHOWN = 60  # findings of a kind whose pictures are shown; the table has all
LARGEST = 96  # pixels of a picture's longer side
SMALL = 64  # pixels up to which pixels stay squares when enlarged
QUALITY = 80  # of WebP; small pictures are kept without loss

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Checked:
    """All that was found out about an image set."""

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


@dataclass(frozen=True)
class _Picture:
    uri: str
    file: str
    words: str
    """Class and split."""


@dataclass(frozen=True)
class _Item:
    pictures: Sequence[_Picture]
    text: str


@dataclass(frozen=True)
class _Section:
    title: str
    count: int
    about: str
    items: Sequence[_Item]
    rest: int
    """Findings beyond those that are shown."""
    singles: bool
    """Whether one picture each is shown, and not two side by side."""


def counted(findings: Sequence[Finding]) -> dict[str, int]:
    """Findings of each kind that there is any of, in the order of a page."""
    counts = Counter(finding.kind for finding in findings)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def sentences(checked: Checked) -> list[str]:
    """What is wrong, how much of it, and what to do, for someone who has never seen such a page."""
    images, counts = checked.images, counted(checked.findings)
    found = [f"{len(images.paths):,} images of {len(images.classes)} classes were looked at."]
    if not counts:
        return [f"{found[0]} Nothing was found that should be mended before a training."]
    learned = len({item.other for item in checked.findings if item.kind == "shared" and _tests(checked, item.other)})
    if learned:
        share = learned / sum(part == "test" for part in checked.parts)
        found.append(
            f"{_times(learned, 'test image', 'test images')} ({share:.1%}) {'shows' if learned == 1 else 'show'} a picture that"
            " is also in train or validation: an accuracy measured with them comes out too high."
        )
    for kind, one, many in (
        ("two labels", "picture appears under two different labels", "pictures appear under two different labels"),
        ("suspected label", "label looks wrong to a classifier", "labels look wrong to a classifier"),
        ("unreadable", "file cannot be read", "files cannot be read"),
    ):
        if kind in counts:
            found.append(f"{_times(counts[kind], one, many)}.")
    if too_many_suspects(images, checked.findings):
        found.append("That is so many that the run seems to know too little of such images: none is proposed for it.")
    told = {"two labels", "suspected label", "unreadable"} | ({"shared"} if learned == counts.get("shared") else set())
    others = [f"{_lower(KINDS[kind].title)} ({count:,})" for kind, count in counts.items() if kind not in told]
    if others:
        found.append(f"Found as well: {'; '.join(others)}.")
    found += proposals(checked)
    if checked.excluded:
        found.append(
            "What to do: look at the pictures below, and delete the lines that you disagree with in exclude.csv; then train"
            " without the images that it lists:"
        )
    return found


def proposals(checked: Checked) -> list[str]:
    """How many images are proposed to be left out, and why; what is not proposed, and why not; none where nothing was found."""
    images, findings = checked.images, checked.findings
    if not findings:
        return []
    found = []
    counts = Counter(item.kind for item in checked.excluded.values())
    if counts:
        why = "; ".join(f"{counts[kind]:,} {KINDS[kind].proposed}" for kind in KINDS if counts[kind])
        found.append(f"exclude.csv proposes to leave out {_times(len(checked.excluded), 'image', 'images')}: {why}.")
    if checked.in_test:
        found.append(
            f"Not listed: {_times(checked.in_test, 'test image', 'test images')} with such faults. A training never leaves out any"
            " of test, so mend the set itself."
        )
    if too_many_near(images, findings):
        found.append(
            "More than a fifth of the images are near duplicates, as in frames of a film: that is what the set is like, and"
            " none is proposed for it."
        )
    if any(item.kind == "unreadable" for item in findings):
        found.append("A training leaves out by itself what cannot be read.")
    if not counts:
        found.append("exclude.csv lists nothing: of what was found no image need be left out, but look at it.")
    return found


def write_check(path: Path, checked: Checked) -> None:
    """Write the page.

    Raises:
        StorageError: it cannot be written.
    """
    folder = path.parent.absolute()
    command = f"sightline train {shlex.quote(checked.images.location)} --data.exclude {shlex.quote(str(folder / 'exclude.csv'))}"
    write_html(
        path,
        "check.html",
        title=f"Check of {checked.images.name}",
        lead=sentences(checked),
        command=command if checked.excluded else "",
        sections=[_section(checked, kind) for kind in counted(checked.findings)],
        small=max(checked.images.pixels.shape[1:3]) <= SMALL,
        classes=_classes(checked),
        facts=_facts(checked),
        notes=checked.notes,
    )


def _section(checked: Checked, kind: str) -> _Section:
    findings = [finding for finding in checked.findings if finding.kind == kind]
    findings.sort(key=lambda finding: not _tests(checked, finding.other))  # what test shares comes first
    items = [_item(checked, finding) for finding in findings[:SHOWN]]
    singles = all(len(item.pictures) < 2 for item in items)
    return _Section(KINDS[kind].title, len(findings), KINDS[kind].about, items, len(findings) - len(items), singles)


def _item(checked: Checked, finding: Finding) -> _Item:
    rows = [row for row in (finding.row, finding.other) if row is not None]
    text = finding.detail
    if not rows and finding.label is not None:
        text = f"{checked.images.classes[finding.label]}: {text}"
    return _Item([_picture(checked, row) for row in rows], text)


def _picture(checked: Checked, row: int) -> _Picture:
    images = checked.images
    label = int(images.labels[row])
    words = [images.classes[label]] if label >= 0 else []
    words += [checked.parts[row]] if checked.parts[row] else []
    uri = _data_uri(images.pixels[row]) if label >= 0 else ""
    return _Picture(uri, images.paths[row], ", ".join(words))


def _data_uri(pixels_HWC: Array) -> str:
    """A picture within the page."""
    image = Image.fromarray(np.asarray(pixels_HWC))
    image.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, lossless=max(pixels_HWC.shape[:2]) <= SMALL)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _classes(checked: Checked) -> Table:
    """Images of each class in each split."""
    names = [name for name in ("train", "validation", "test", "") if name in set(_known(checked))]
    titles = [name or "images" for name in names]
    counts = Counter((int(checked.images.labels[row]), checked.parts[row]) for row in checked.images.readable.tolist())
    order = sorted(enumerate(checked.images.classes), key=lambda item: natural_key(item[1]))
    rows = [[label, *(f"{counts[index, name]:,}" for name in names)] for index, label in order]
    total = ["all", *(f"{sum(counts[index, name] for index in range(len(rows))):,}" for name in names)]
    return Table(["class", *titles], [*rows, total])


def _known(checked: Checked) -> list[str]:
    return [checked.parts[row] for row in checked.images.readable.tolist()]


def _facts(checked: Checked) -> Table:
    """What the set is like."""
    mean, deviation = (", ".join(f"{value:.4f}" for value in part) for part in checked.statistics)
    rows = [
        ["images", f"{len(checked.images.readable):,} readable of {len(checked.images.paths):,}"],
        ["mean of red, green, blue in train (0 to 1)", mean],
        ["their standard deviation", deviation],
    ]
    headers = list(checked.headers.values())
    if headers:
        for name, values in (
            ("width", [item.width for item in headers]),
            ("height", [item.height for item in headers]),
        ):
            low, middle, high = min(values), int(np.median(values)), max(values)
            text = f"{low} px" if low == high else f"{low} to {high} px, median {middle}"
            rows.append([f"{name} of the files", text])
        kinds = Counter(f"{item.kind} {item.mode}".strip() for item in headers)
        rows.append(["files", ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common(8))])
    rows += [[f"left out: {what}", f"{count:,}"] for what, count in checked.images.ignored.items()]
    rows.append(["decoded to", "{1} × {0} px".format(*checked.images.pixels.shape[1:3])])
    return Table(["", ""], rows, texts=2)


def _tests(checked: Checked, row: int | None) -> bool:
    return row is not None and checked.parts[row] == "test"


def _lower(title: str) -> str:
    return title[0].lower() + title[1:]


def _times(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
