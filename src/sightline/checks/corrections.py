"""Show a corrections file, export it for Label Studio or FiftyOne, and import what was decided there. No torch."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from sightline.config.checks import shown
from sightline.data.cache import CachedImages, open_images
from sightline.data.corrections import CorrectionsFile, Decision
from sightline.data.interchange import FORMATS, Answer, Format, read_answers, to_fiftyone, to_label_studio
from sightline.data.sources.entries import composed
from sightline.data.sources.find_source import find_source
from sightline.display.events import Table
from sightline.display.notebook import show_in_cell
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.errors import ConfigError
from sightline.runs.writing import write_json
from sightline.serving.reviewing.items import own_name

__all__ = ["Decided", "corrections"]

UPLOADED = re.compile(r"[0-9a-f]{8}-")  # what Label Studio puts before the name of a file that was uploaded


@dataclass(frozen=True)
class Decided:
    """Content of a corrections file, with the imported decisions."""

    path: Path
    decisions: list[Decision]
    imported: int
    """Decisions that came from another tool, and are new or newer."""
    notes: list[str]
    """Sentences on what was not taken."""

    @property
    def changes(self) -> dict[tuple[str, str | None], int]:
        """Images by (class before, class after), most first; None: left out; those that are right are not among."""
        counts = Counter((one.before, one.after) for one in self.decisions if not one.kept)
        return dict(counts.most_common())

    @property
    def sentence(self) -> str:
        """How many are decided, and how."""
        kept = sum(one.kept for one in self.decisions)
        out = sum(one.after is None for one in self.decisions)
        count = len(self.decisions)
        return f"{self.path}: {count:,} decided: {count - kept - out:,} corrected, {kept:,} right, {out:,} left out"

    def table(self) -> Table:
        """Return which classes become which."""
        rows = [(before, "left out" if after is None else after, n) for (before, after), n in self.changes.items()]
        return Table(("from", "to", "images"), rows, texts=2)

    def _ipython_display_(self) -> None:
        show_in_cell(*self.notes, self.sentence, *([self.table()] if self.changes else []))


@reporting
def corrections(
    file: str | os.PathLike[str],
    *,
    export: str | os.PathLike[str] | None = None,
    form: Format | None = None,
    take: str | os.PathLike[str] | Mapping[str, str | None] | None = None,
    data: str | os.PathLike[str] | None = None,
    prefix: str = "",
    on_event: Listener = ignore,
) -> Decided:
    """Show what a corrections file decides; export it for Label Studio or FiftyOne, or import what was decided there.

    Args:
        file: The corrections file; an import makes it where there is none.
        export: JSON file to write: annotated tasks of Label Studio, or the labels.json of a FiftyOne dataset.
        form: Format of the export; label-studio unless named.
        take: JSON file of either tool, whose answers become decisions: a newer one takes the place of an earlier. In
            Python also a mapping from the path of an image in its set to its right class, or None to leave it out.
        data: The image set that an import is of, for sightline train.
        prefix: What Label Studio has before the path of an image in its set, such as /data/local-files/?d=photos/.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Returns:
        What the file decides then.
    Raises:
        ConfigError: a file cannot be read or is something else, or two of these do not go together.
        DataError: there is no such image set.
        StorageError: a file cannot be written.
    """
    _refuse_without_effect(export, form, take, data, prefix)
    target = CorrectionsFile(file)
    notes: list[str] = []
    imported = 0
    if take is not None and data is not None:
        answers, why, what, notes = _answers(take)
        target.read()  # or refuse it, before the images are read
        with stage(on_event, "Reading images", brief=True) as progress:
            images = open_images(find_source(data), None, progress)
        decisions, more = _matched(images, answers, prefix, why, what)
        imported = target.decide_newer(decisions)
        notes += more
        if imported < len(decisions):
            notes.append(f"{len(decisions) - imported:,} answers are known already, or older than what was decided")
    elif not target.path.exists():
        raise ConfigError(f"there is no {file}; name a corrections file, or make one with --import and --data.")
    known = list(target.read().values())
    if export is not None:
        content = to_fiftyone(known) if form == "fiftyone" else to_label_studio(known, prefix)
        write_json(Path(export), content)
    return Decided(Path(file), known, imported, notes)


def _answers(
    take: str | os.PathLike[str] | Mapping[str, str | None],
) -> tuple[list[Answer], str, str, list[str]]:
    """Return what is to be decided, why, what errors call it, and sentences on what is left out of it."""
    if isinstance(take, Mapping):
        by = own_name()
        answers = [Answer(image=image, after=after, decided_by=by) for image, after in take.items()]
        return answers, "decided in Python", "take", []
    answers, tool, notes = read_answers(os.fspath(take))
    return answers, f"imported from {FORMATS[tool]}", f"--import {take}", notes


def _refuse_without_effect(export: object, form: Format | None, take: object, data: object, prefix: str) -> None:
    if export is not None and take is not None:
        raise ConfigError("--export and --import do not go together; import first, then export.")
    if (take is None) != (data is None):
        raise ConfigError("--import and --data go together: images are known by their pixels; name the other as well.")
    if form is not None and export is None:
        raise ConfigError(f"--as {form} has no effect without --export; name the file to write.")
    if prefix and (form == "fiftyone" or (export is None and take is None)):
        raise ConfigError("--prefix has no effect but on tasks of Label Studio; leave it out.")


def _matched(
    images: CachedImages, answers: Sequence[Answer], prefix: str, why: str, what: str
) -> tuple[list[Decision], list[str]]:
    """Find the image of each answer, by the hash of its pixels or by its path, and make decisions of them."""
    rows_of_hash = {images.hashes[row]: row for row in reversed(images.readable.tolist())}
    rows_of_name: dict[str, list[int]] = defaultdict(list)
    for row in images.readable.tolist():
        base = images.paths[row].rpartition("/")[2]
        for name in {base, base.rpartition(".")[0] or base}:
            rows_of_name[name].append(row)
    decisions: dict[str, Decision] = {}
    missing, unknown = [], set()
    for answer in answers:
        row = rows_of_hash.get(answer.digest) if answer.digest else _row_of(images, rows_of_name, answer, prefix, what)
        if row is None:
            missing.append(answer.image)
            continue
        before = images.classes[images.labels[row]]
        if answer.after is not None and answer.after not in images.classes:
            unknown.add(answer.after)
        decision = Decision(
            file=images.paths[row],
            digest=images.hashes[row],
            before=before,
            after=answer.after,
            decided_by=answer.decided_by,
            why=answer.why or why,
        )
        if answer.when:
            decision = replace(decision, when=answer.when)
        other = decisions.setdefault(decision.digest, decision)
        if other.after != decision.after:
            raise ConfigError(
                f"{what} says of the same pixels {shown(other.after)} ({shown(other.file)}) and"
                f" {shown(decision.after)} ({shown(decision.file)}); mend one of them there."
            )
    if answers and not decisions:
        raise ConfigError(
            f"{what} is of another image set: none of its {len(answers):,} images is in {images.name} (the first:"
            f" {shown(answers[0].image)}); name the set that it is of, or what stands before its paths by --prefix."
        )
    notes = []
    if missing:
        notes.append(
            f"{len(missing):,} answers are on images that {images.name} does not have (the first: {missing[0]})"
        )
    if unknown:
        notes.append(
            f"{', '.join(map(shown, sorted(unknown)))}: no class of {images.name}, and refused as a slip unless"
            " the column new_class of its lines says yes (or a training has --data.add-classes)"
        )
    return list(decisions.values()), notes


def _row_of(
    images: CachedImages, rows_of_name: dict[str, list[int]], answer: Answer, prefix: str, what: str
) -> int | None:
    """Return the row of the image whose path is the end of that of an answer, or ends by it; None where none does."""
    *folders, name = _path_of(answer.image.removeprefix(prefix)).split("/")
    if "/data/upload/" in answer.image:  # Label Studio keeps the names of uploaded files alone, behind a code
        folders, name = [], UPLOADED.sub("", name, count=1)
    shared = {row: _shared_end(images.paths[row].split("/")[:-1], folders) for row in rows_of_name.get(name, [])}
    most = max((count for count in shared.values() if count is not None), default=None)
    nearest = [row for row, count in shared.items() if count is not None and count == most]
    if len({images.hashes[row] for row in nearest}) > 1:
        first, second = (shown(images.paths[row]) for row in nearest[:2])
        raise ConfigError(
            f"{what} names {shown(answer.image)}, which may be {first} or {second}; name images by their paths in the"
            " set."
        )
    return nearest[0] if nearest else None


def _path_of(image: str) -> str:
    """Return the path that a URL or a path of Label Studio names."""
    if "://" not in image and not image.startswith("/data/"):
        return composed(image.replace("\\", "/"))
    parts = urlsplit(image)
    local = parse_qs(parts.query).get("d")  # of its local files
    return composed(local[0] if local else unquote(parts.path))


def _shared_end(one: Sequence[str], other: Sequence[str]) -> int | None:
    """Count the folders that two paths share at their ends; None where neither is the whole end of the other."""
    count = min(len(one), len(other))
    return count if list(one[len(one) - count :]) == list(other[len(other) - count :]) else None
