"""Look an image set over before a training: what is broken, odd, there twice, leaked into test, mislabeled, or
directed.

Nothing here loads torch, unless labels are judged.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.checks import problems
from sightline.checks.advice import Advice, advise, by_itself, train_command
from sightline.checks.after_review import as_reviewed
from sightline.checks.check_page import Findings, lead, write_check
from sightline.checks.copies import copies, keeping_rank
from sightline.checks.decided import as_decided, undecided
from sightline.checks.duplicates import Pairs, near_duplicates
from sightline.checks.oddities import Header, light_of, name_depths, odd_files, odd_light, read_headers
from sightline.checks.opening import open_set
from sightline.checks.problems import Finding
from sightline.checks.review import address_of_review, serve_items
from sightline.checks.suspects import keep_suspects
from sightline.checks.unlabeled import choose_unlabeled, review_chosen
from sightline.config.labeling import UnlabeledConfig
from sightline.config.serving import AddressConfig
from sightline.data.cache import CachedImages
from sightline.data.corrections import CORRECTIONS, read_corrections
from sightline.data.ranges import notes_on_reading
from sightline.data.sizing import SMALL_SIDE
from sightline.data.sources.downloads import Progress
from sightline.data.sources.entries import say_left_out
from sightline.data.sources.find_source import find_source
from sightline.data.sources.layout import Classes
from sightline.data.sources.listing import listed_once
from sightline.data.sources.source import DownloadedSource, ImageSource
from sightline.data.splits import Splits, statistics
from sightline.display.notebook import show_in_cell
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.display.waiting import spoken_seconds
from sightline.errors import ConfigError
from sightline.runs.folder import create_run, read_model_of_finished, refuse_filled
from sightline.runs.writing import write_csv
from sightline.serving.reviewing.items import Item
from sightline_runtime.sentences import quoted

if TYPE_CHECKING:
    from sightline.checks.embedding import Embedding

__all__ = ["CHECKS", "Check", "check"]

CHECKS = Path("checks")
BY_CELLS = (
    "Near duplicates were sought by the coarse look of the images alone, without an embedding: some that are cropped or"
    " moved far are missed."
)
AUTO, BOX, TRAINED, NONE = "auto", "box", "trained", "none"  # values of labels that name no run

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Check:
    """Findings of a check, and the folder that it wrote."""

    folder: Path
    """With check.html, findings.csv and exclude.csv."""
    findings: list[Finding]
    counts: dict[str, int]
    """Findings of each kind that there is any of."""
    excluded: list[str]
    """Paths of the images that are proposed to be left out of a training."""
    lead: str
    """How much was looked at, and whether anything is to be done."""
    advice: list[Advice]
    """What to do, the gravest first."""
    command: str
    """Trains with all of it that is accepted."""
    notes: list[str]
    """Sentences: how files were read, and what a training does by itself."""
    suspects: list[Item] = field(default_factory=list)
    """Images whose labels look wrong, the most likely wrong first, and then those with two labels."""

    def sentences(self) -> Iterator[str]:
        """Yield what to do, the command that does it, and how many findings of each kind there are."""
        yield self.lead
        for number, step in enumerate(self.advice, 1):
            yield f"{number}. {step.title}. {step.why}{f' {step.how}' if step.how else ''}"
            if step.flag and not step.accepted:
                yield f"   On request: {step.flag} {quoted(step.value)}"
        yield from self.notes
        if self.counts:
            titles = {kind: problems.KINDS[kind].title for kind in self.counts}
            found = (f"{title[0].lower()}{title[1:]} {self.counts[kind]:,}" for kind, title in titles.items())
            yield f"Found: {'; '.join(found)}"
        yield self.command

    def _ipython_display_(self) -> None:
        show_in_cell(*self.sentences(), str(self.folder / "check.html"))


@reporting
@listed_once()
def check(
    data: str | os.PathLike[str] | None = None,
    *,
    labels: str | os.PathLike[str] = AUTO,
    out: str | os.PathLike[str] | None = None,
    classes: Classes | None = None,
    corrections: str | None = None,
    choose: UnlabeledConfig | None = None,
    trust_code: bool = False,
    review: bool = False,
    address: AddressConfig | None = None,
    on_event: Listener = ignore,
) -> Check:
    """Look an image set over: broken and odd files, copies, images shared by train and test, suspected label errors,
    and classes that look otherwise when mirrored.

    Ten parameters because they are the arguments and options of ``sightline check``.

    Args:
        data: An image set, as for sightline train.
        labels: What judges the labels (confident learning), always about images that it did not see. box: heads on
            features of the backbone in the box. trained: these, and three networks that are trained on the other
            images, which takes minutes. auto: trained for 10,000 images or more of at most 64 px, where it takes at
            most 20 minutes, else box. none: labels are not judged. Otherwise heads on the features of a finished run,
            its folder (its whole path, if it has one of these names), which may know other classes; one that was
            trained on these very images has learned their wrong labels, and hides some.
        out: Folder to write to: check.html, findings.csv, and exclude.csv for sightline train --data.exclude;
            checks/DATA-N unless named; with --unlabeled chosen.csv and manifest.csv, in checks/FOLDER-to-label,
            where the next round goes on.
        classes: Which folders are the classes, as for sightline train.
        corrections: A corrections file: labels are checked as it decides them, and what it decides on is no suspect.
        choose: Choose which images of a folder without labels to label next, in place of looking a set over.
        trust_code: Run the code of the repository that a network of torch.hub is built by.
        review: Show the suspected labels, or the images to label, on a page in a browser afterwards, to decide on each,
            until Ctrl-C; decisions go to corrections.csv in the folder, or to the corrections file. sightline review
            FOLDER goes on with suspected labels.
        address: Where that page listens, and whom it answers.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Raises:
        ConfigError: the page of a review cannot be shown, or not at that address.
        DataError: there is no such image set, or it cannot be used.
        RunError: no finished run, or the folder to write to holds something.
    """
    at = address_of_review(review, address)
    if choose is not None:
        judge = None if labels == AUTO else labels
        others = {"DATA": data, "--labels": judge, "--data.classes": classes, "--data.corrections": corrections}
        return _chosen(choose, others, out, trust_code, at, on_event)
    if data is None:
        raise ConfigError("no image set was named; give its folder, archive, manifest or name, or --unlabeled FOLDER.")
    source = find_source(data, classes)
    judge = os.fspath(labels)
    if judge not in (AUTO, BOX, TRAINED, NONE) and not judge.endswith(".safetensors"):
        read_model_of_finished(judge)
    if out is not None:
        refuse_filled(out)
    if corrections is not None:
        read_corrections(corrections)
    with stage(on_event, "Checking", brief=True) as progress:
        images, splits, notes = open_set(source, progress)
        images, splits, decided = as_decided(images, splits, corrections)
        reading = [*decided, *images.notes, *say_left_out(images.ignored, images.suffixes), *notes_on_reading(images)]
        parts = problems.part_of(images, splits)
        headers, unseen = _headers(source, images, progress)
        findings = [*problems.unreadable(images), *problems.rare_classes(images, parts), *_odd(images, headers)]
        rank = keeping_rank(images, parts, headers)
        embedding, unjudged = _embedding(source, images, judge, trust_code, progress, on_event)
        near = _near(images, rank, embedding, progress)
        learned = splits.train if splits is not None else images.readable
        findings += [*copies(images, parts, near, rank), *problems.unlike_when_mirrored(images, learned)]
        facts, judged = None, list[str]()
        if embedding is not None:
            from sightline.checks.label_errors import find_label_errors

            settings = {"classes": classes, "corrections": corrections}
            alike = (near.first_P, near.second_P)
            networks_NK, without = _networks(data, images, splits, alike, judge, settings, progress, on_event)
            errors = find_label_errors(images, embedding, progress, networks_NK, alike)
            findings = [*findings, *undecided(images, errors.findings)]
            facts, judged = errors.classes, [*errors.notes, *without]
        checked = Findings(
            images,
            parts,
            [*notes, *unjudged, *unseen, *reading],
            headers,
            statistics(images, learned),
            findings,
            problems.suggestions(images, parts, findings, rank),
            problems.staying_in_test(images, parts, findings, rank),
            judged,
            facts,
            _taken(images),
            splits is not None and splits.cross_validated,
            classes,
        )
        folder = _folder(images.name, out)
        steps = advise(checked, folder)
        _write(folder, checked, steps)
        suspects = keep_suspects(folder, images, classes, parts, findings)
    if at is not None and (reviewed := serve_items(folder, images, suspects, at, on_event, classes, corrections)):
        file = folder / CORRECTIONS if corrections is None else Path(corrections).expanduser()
        checked, steps = as_reviewed(checked, folder, reviewed, file)
    return _concluded(folder, checked, steps, reading, suspects)


def _concluded(
    folder: Path, checked: Findings, steps: list[Advice], reading: Sequence[str], suspects: list[Item]
) -> Check:
    """Return what a check found and advises; ``reading``: sentences on how files were read."""
    return Check(
        folder,
        list(checked.findings),
        checked.counts,
        [checked.images.paths[row] for row in sorted(checked.excluded)],
        " ".join(lead(checked, steps)),
        steps,
        train_command(checked.images.location, steps, checked.layout),
        [*reading, *by_itself(checked)],
        suspects,
    )


def _taken(images: CachedImages) -> Path | None:
    """Return the corrections file that a check read, where a training changes by it."""
    if images.corrected is None or not images.corrected.facts["learned"]:
        return None
    return Path(images.corrected.facts["file"]).expanduser()


def _chosen(
    choose: UnlabeledConfig,
    others: Mapping[str, Any],
    out: str | os.PathLike[str] | None,
    trust_code: bool,
    at: AddressConfig | None,
    on_event: Listener,
) -> Check:
    """Choose images to label, where nothing was named that has no part in it."""
    if useless := next((name for name, value in others.items() if value is not None), None):
        raise ConfigError(f"{useless} has no effect with --unlabeled {choose.unlabeled}; leave one of them out.")
    folder = CHECKS / f"{Path(choose.unlabeled).resolve().name}-to-label" if out is None else Path(out)
    with stage(on_event, "Choosing", brief=True) as progress:
        done = choose_unlabeled(choose, folder, trust_code, progress)
    if at is not None:
        review_chosen(done, at, on_event)
    return Check(done.folder, done.findings, done.counts, [], done.lead, done.advice, done.command, done.notes)


def _headers(
    source: ImageSource, images: CachedImages, progress: Progress | None
) -> tuple[dict[int, Header], list[str]]:
    """Read headers by row; none of a published set, whose files need not lie here once it is decoded."""
    if isinstance(source, DownloadedSource):
        return {}, [
            "Sizes and modes of the files were not looked at: those of a published set may be gone once decoded."
        ]
    entries = source.scan().entries
    order = sorted(range(len(entries)), key=lambda index: (entries[index].name, index))  # that of the cache's rows
    return read_headers(source, [entries[index] for index in order], progress), []


def _odd(images: CachedImages, headers: dict[int, Header]) -> list[Finding]:
    files = odd_files(headers)
    files["mode"] = name_depths(files["mode"], images.extremes)
    readable = images.readable
    light = {
        kind: {int(readable[place]): text for place, text in texts.items()}
        for kind, texts in odd_light(light_of(images.pixels, readable)).items()
    }
    return problems.odd_ones(images, {**light, **files})


def _near(images: CachedImages, rank: Array, embedding: "Embedding | None", progress: Progress | None) -> Pairs:
    """Find near duplicates among the first images of each group of identical ones."""
    first = {images.hashes[row]: row for row in reversed(images.readable.tolist())}
    best = rank.copy()  # of a group, as its best image
    for row in images.readable.tolist():
        one = first[images.hashes[row]]
        best[one] = min(best[one], rank[row])
    rows = np.array(sorted(first.values()), np.int64)
    features_ND = None
    if embedding is not None:
        features_ND = embedding.features_ND.part(embedding.places(rows))
    return near_duplicates(images.pixels, rows, features_ND, progress, best)


def _embedding(
    source: ImageSource,
    images: CachedImages,
    judge: str,
    trust_code: bool,
    progress: Progress | None,
    on_event: Listener,
) -> tuple["Embedding | None", list[str]]:
    """Embed the images by a run or by the backbone in the box, and say what is not looked at without."""
    counts = np.bincount(images.labels[images.readable], minlength=len(images.classes))
    few = judge != NONE and (counts >= problems.FEWEST_TO_JUDGE).sum() < 2
    if judge == NONE or few:
        return None, [*([problems.TOO_FEW_TO_JUDGE] if few else []), BY_CELLS]
    from sightline.checks.embedding import embed

    run = None if judge in (AUTO, BOX, TRAINED) else judge
    embedding = embed(source, run, trust_code, progress, preprocessing=images.preprocessing, on_event=on_event)
    return embedding, [embedding.note] if embedding.note else []


def _networks(
    data: str | os.PathLike[str],
    images: CachedImages,
    splits: Splits | None,
    alike: tuple[Array, Array],
    judge: str,
    settings: Mapping[str, Any],
    progress: Progress | None,
    on_event: Listener,
) -> tuple[Array | None, list[str]]:
    """Judge the images by networks that are trained on the others, where that is asked for or worth it; and say why
    not, where it would take long.
    """
    from sightline.checks.cross_fitting import LEAST, MOST_SECONDS, NETWORKS, cross_fit, deal, estimated_seconds, kept

    if judge not in (AUTO, TRAINED):
        return None, []
    small = max(images.size) <= SMALL_SIDE and len(images.readable) >= LEAST
    if judge == AUTO and not small:
        return None, []
    dealt = deal(images, splits, alike)
    if not kept(images, dealt):
        seconds = estimated_seconds(images)
        costs = f"{NETWORKS} networks trained on the other images, about {spoken_seconds(seconds)}"
        if judge == AUTO and seconds > MOST_SECONDS:
            without = f"--labels trained finds more wrong labels in such a set: by {costs}."
            on_event(without)
            return None, [without]
        on_event(f"Labels are judged by {costs}; kept for the next time (--labels box does without)")
    named = {name: value for name, value in settings.items() if value is not None}
    return cross_fit(data, images, dealt, named, progress), []


def _folder(name: str, out: str | os.PathLike[str] | None) -> Path:
    if out is None:
        return create_run(name, below=CHECKS, flag="--out")
    folder = Path(out)
    return folder if folder.is_dir() else create_run(name, folder, flag="--out")


def _write(folder: Path, checked: Findings, steps: Sequence[Advice]) -> None:
    images = checked.images

    def cell(values: Sequence[str], index: int | None) -> str:
        return "" if index is None else values[index]

    rows: list[Sequence[Any]] = [
        (
            cell(images.paths, item.row),
            item.kind,
            item.detail,
            cell(images.paths, item.other),
            cell(checked.parts, item.row),
            cell(images.classes, item.label),
            "" if item.score is None else item.score,
        )
        for item in checked.findings
    ]
    write_csv(folder / "findings.csv", ["file", "finding", "detail", "other", "split", "class", "score"], rows)
    write_csv(
        folder / "exclude.csv",
        ["file", "finding", "detail"],
        [
            (images.paths[row], checked.excluded[row].kind, why)
            for row, why in problems.reasons(images, checked.excluded).items()
        ],
    )
    write_check(folder / "check.html", checked, steps)
