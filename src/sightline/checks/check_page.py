"""The page of a check: sentences first, then the findings with their pictures, all in one file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.checks.advice import Advice, by_itself, train_command
from sightline.checks.class_facts import ClassFacts
from sightline.checks.duplicates import clusters_of
from sightline.checks.oddities import Header
from sightline.checks.problems import KINDS, Finding
from sightline.data.cache import CachedImages
from sightline.display.pages import Item, Page, Picture, Section, Step, Table, data_uri, write_page
from sightline.display.terminal import natural_key
from sightline_runtime.sentences import quoted

__all__ = ["SHOWN", "Findings", "lead", "write_check"]

JUDGED = "suspected label"  # whose section says who judged
CURVE, MORE_IMAGES = "curve", "What more images bring"  # key and title of a section
A_CLUSTER = 12  # images of a cluster that are shown
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
    judged: Sequence[str] = ()
    """Who judged the labels, how well, and which were not judged."""
    classes: ClassFacts | None = None
    """What answers out of fold say of the classes; None where labels were not judged."""
    corrections: Path | None = None
    """File of what was decided on labels, where a training would change by it; None where there is none."""
    cross_validated: bool = False
    """Whether a training sets no image aside, and cross-validation measures."""
    layout: str | None = None
    """Which folders are the classes, as the check was told (``--data.classes``)."""

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind that there is any of, in the order of a page."""
        counts = Counter(finding.kind for finding in self.findings)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}

    def in_test_split(self, row: int | None) -> bool:
        """Tell whether an image is of the test split."""
        return row is not None and self.parts[row] == "test"


def write_check(path: Path, checked: Findings, steps: Sequence[Advice]) -> None:
    """Write the page.

    Args:
        path: of the page.
        checked: what was found.
        steps: what to do about it.
    Raises:
        StorageError: it cannot be written.
    """
    images = checked.images
    rest = () if JUDGED in checked.counts else checked.judged
    sections = [
        *(_section(checked, kind) for kind in checked.counts),
        Section("Images of each class", "\n\n".join([*checked.notes, *rest]), _classes(checked)),
        *_curve(checked),
        Section("What the set is like", table=_facts(checked)),
    ]
    page = Page(
        f"Check of {images.name}",
        lead(checked, steps),
        sections,
        steps=[_step(step, checked.counts) for step in steps],
        command=train_command(images.location, steps, checked.layout),
        plain_command=train_command(images.location, [], checked.layout),
        closing=by_itself(checked),
    )
    write_page(path, page)


def lead(checked: Findings, steps: Sequence[Advice]) -> list[str]:
    """Say how much was looked at, and what to do in a sentence."""
    images = checked.images
    looked_at = f"{len(images.paths):,} images of {len(images.classes)} classes were looked at."
    if not steps:
        return [f"{looked_at} Nothing needs to be done: train."]
    return [f"{looked_at} {len(steps)} {'thing is' if len(steps) == 1 else 'things are'} to do, the gravest first."]


def _step(step: Advice, counts: Mapping[str, int]) -> Step:
    words = (step.flag, quoted(step.value)) if step.flag else None
    links = [(_key(kind), KINDS[kind].title) for kind in step.sections if kind in counts]
    links += [(CURVE, MORE_IMAGES)] if CURVE in step.sections else []
    return Step(step.title, step.why, step.how, words, step.accepted, links)


def _key(kind: str) -> str:
    return kind.replace(" ", "-")


# ── sections ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _section(checked: Findings, kind: str) -> Section:
    findings = [finding for finding in checked.findings if finding.kind == kind]
    findings.sort(key=lambda finding: not checked.in_test_split(finding.other))  # what test shares comes first
    clusters = _clusters(findings)
    items = [_item(checked, cluster) for cluster in clusters[:SHOWN]]
    look = "singles" if all(len(item.pictures) < 2 for item in items) else "pairs"
    look += " pixelated" if max(checked.images.pixels.shape[1:3]) <= SMALL else ""
    rest = sum(len(cluster) for cluster in clusters[SHOWN:])
    return Section(
        KINDS[kind].title,
        "\n\n".join([KINDS[kind].about, *(checked.judged if kind == JUDGED else ())]),
        items=items,
        look=look,
        note=f"{rest:,} more in findings.csv." if rest else "",
        count=len(findings),
        key=_key(kind),
    )


def _clusters(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Put findings together whose images are copies of each other, in the order of the first of each."""
    pairs = [(place, item.row, item.other) for place, item in enumerate(findings) if item.other is not None]
    rows, ends = np.unique([row for _, *both in pairs for row in both], return_inverse=True)
    cluster = clusters_of(ends[0::2], ends[1::2], len(rows))
    together: dict[int | tuple[int], list[Finding]] = {}
    names = {place: int(cluster[end]) for (place, _, _), end in zip(pairs, ends[0::2], strict=True)}
    for place, item in enumerate(findings):
        together.setdefault(names.get(place, (place,)), []).append(item)
    return list(together.values())


def _item(checked: Findings, cluster: Sequence[Finding]) -> Item:
    """Show a finding with its one or two images, or a cluster: first the images that the most are copies of."""
    finding = cluster[0]
    rows = [row for row in (finding.row, finding.other) if row is not None]
    text = finding.detail
    if not rows and finding.label is not None:
        text = f"{checked.images.classes[finding.label]}: {text}"
    if len(cluster) > 1:
        times = Counter(row for item in cluster for row in (item.other, item.row) if row is not None)
        rows = [row for row, _ in times.most_common()]
        if len(rows) > 2:
            text = _about(checked, cluster, rows)
    return Item([_picture(checked, row) for row in rows[:A_CLUSTER]], text)


def _about(checked: Findings, cluster: Sequence[Finding], rows: Sequence[int]) -> str:
    """Say how many images a cluster has, how alike they are, and which of them stay."""
    scores = [item.score for item in cluster if item.score is not None]
    low, high = min(scores), max(scores)
    likeness = f"likeness {low:.2f}" + (f" to {high:.2f}" if f"{low:.2f}" != f"{high:.2f}" else "")
    staying = [row for row in rows if row not in checked.excluded]
    stays = f"{len(staying):,} stay" if staying else "none stays"
    if len(staying) == 1:
        stays = f"{checked.images.paths[staying[0]]} stays"
    more = f"; {len(rows) - A_CLUSTER:,} of them only in findings.csv" if len(rows) > A_CLUSTER else ""
    return f"{len(rows):,} images of one picture\n{likeness}; {stays}{more}"


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


def _curve(checked: Findings) -> list[Section]:
    """Show accuracy by the number of images."""
    curve = checked.classes.curve if checked.classes is not None else None
    if curve is None:
        return []
    low, high = curve.interval
    rows = [[f"{images:,}", f"{accuracy:.1%}"] for images, accuracy in zip(curve.images, curve.accuracy, strict=True)]
    about = (
        "Accuracy of heads on features by the number of images, on images that they did not see. By a power law"
        f" that flattens, twice the images of every class gain {curve.gain:.1%} ({low:.1%} to {high:.1%}, at 95 %)."
    )
    return [Section(MORE_IMAGES, about, Table(["images", "accuracy"], rows), key=CURVE)]


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
