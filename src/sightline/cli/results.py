"""Print what a verb returned: the result on standard output, what one should know of it on standard error."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.display.events import Measured, Table
from sightline.display.lines import Lines
from sightline.display.terminal import show, show_rows

if TYPE_CHECKING:
    from sightline.checks.check import Check
    from sightline.checks.corrections import Decided
    from sightline.evaluation.exporting.export import Exported
    from sightline.explanation.explain import Explanations
    from sightline.generation.generate import Generated
    from sightline.inference.encode import Encoded
    from sightline.inference.predict import Predictions
    from sightline.reports.push import Published

__all__ = [
    "show_check",
    "show_corrections",
    "show_evaluation",
    "show_explanations",
    "show_exported",
    "show_features",
    "show_generated",
    "show_path",
    "show_plan",
    "show_predictions",
    "show_pushed",
]


def show_path(result: Any, *, out: Path | None = None, **_: Any) -> None:
    """Print where the result lies: the path that a verb returned, or else the one that it was told to write to."""
    path = result if isinstance(result, Path) else out
    if path is not None:
        show(str(path))


def show_plan(text: str, *, out: Path | None = None, **_: Any) -> None:
    """Print a schedule, or where it was written."""
    show(text.rstrip() if out is None else str(out), lines=True)


def show_evaluation(
    measured: Mapping[str, Any],
    *,
    run: str,
    unknown: bool = False,
    generated: bool = False,
    fid: bool = False,
    **_: Any,
) -> None:
    """Print the measures of a classifier."""
    if unknown:
        show(f"{measured['rate']:.1%} of {measured['n']:,} images are called none of the classes")
        return
    _warn(measured["data"]["remarks"])
    Lines()(Measured(measured))
    if generated:
        show(_about_fidelity(run, measured["fidelity"]))
    if fid:
        show(_about_standard_fid(measured["fidelity"]["standard_fid"]))


def _about_fidelity(run: str, found: Mapping[str, Any]) -> str:
    """Tell how near made images are to real ones, with what the numbers may be compared with."""
    return (
        f"in the features of {run}, {found['made']:,} made and {found['real']:,} real images: Fréchet distance"
        f" {found['frechet']:.4g}, precision {found['precision']:.3f}, recall {found['recall']:.3f} (compare only with"
        " what the same run measured of as many)"
    )


def _about_standard_fid(found: Mapping[str, Any]) -> str:
    """Tell the distance that compares with papers, and what it depends on."""
    height, width = found["size"]
    return (
        f"in the Inception features of the literature, {found['made']:,} made and {found['real']:,} real images of"
        f" {height}×{width} px: standard FID {found['fid']:.4g} (compare only with one of as many: papers make 50,000)"
    )


def show_predictions(
    predictions: "Predictions", *, run: str | None, out: Path | None = None, sets: float | None = None, **_: Any
) -> None:
    """Print a readable line for one image, CSV for several."""
    from sightline.inference.predict import about_box
    from sightline.runs.writing import is_stream
    from sightline_runtime.predictions import csv_header, csv_rows, lines_of

    files, answers = predictions.files, predictions.predictions
    _warn(predictions.left_out)
    _warn_of_unreadable(predictions.unreadable)
    if run is None:
        _warn([about_box()])
    if out is not None:
        show(f"{len(files):,} predictions in {out}", error=is_stream(out))
    elif len(files) == 1:
        for line in lines_of(files[0], answers[0], sets):
            show(line)
    else:
        show_rows(csv_header(sets), csv_rows(files, answers))


def show_pushed(published: "Published", **_: Any) -> None:
    """Print where a classifier was published, and how it is named from now on."""
    show(published.url)
    show(f"{', '.join(published.files)}; this version is hf:{published.repository}@{published.commit}", error=True)


def show_explanations(explanations: "Explanations", *, out: Path, **_: Any) -> None:
    """Print how good the maps of each method are."""
    from sightline.explanation.explain import summarize_explanations

    _warn(explanations.no_images)
    _warn_of_unreadable(explanations.unreadable)
    _warn(f"left out {name}: {reason}" for name, reason in explanations.left_out.items())
    Lines()(summarize_explanations(explanations.images))
    count = len(explanations.files)
    show(f"{count:,} sheet{'s' if count > 1 else ''} and explanations.csv in {out}")


def show_features(encoded: "Encoded", *, out: Path, **_: Any) -> None:
    """Print how many features there are of how many images."""
    _warn(encoded.left_out)
    _warn_of_unreadable(encoded.unreadable)
    labeled = f", of {len(encoded.classes)} classes" if encoded.classes is not None else ""
    show(f"{len(encoded.files):,} × {encoded.features.shape[1]:,} features{labeled} in {out}")


def show_exported(exported: "Exported", **_: Any) -> None:
    """Print what was measured of an exported file, and where it is."""
    metadata, measured = exported.metadata, exported.metadata.measured
    low, high = measured.interval
    show(
        f"{metadata.numbers}, {exported.bytes / 1e6:.1f} MB: accuracy {measured.accuracy:.4f} ({low:.4f} to {high:.4f};"
        f" {measured.split} of {measured.data}, n = {measured.n:,}), {measured.equal_answers:,} answers as the run"
        f" gives them, probabilities within {measured.largest_difference:.1g}"
    )
    if metadata.numbers != "float32":
        low, high = (100 * end for end in measured.difference_interval)
        show(f"against float32: {100 * measured.difference:+.2f} points ({low:+.2f} to {high:+.2f}, paired, 95 %)")
    show(str(exported.path))


def show_generated(generated: "Generated", *, keep: Any = None, **_: Any) -> None:
    """Print how many images were made, and why others were refused."""
    from sightline.generation.filter import REASONS

    for reason, count in generated.refused.items():
        show(f"refused: {count:,} {REASONS[reason]}")
    if generated.without:
        show(f"no image was kept of: {', '.join(generated.without)}")
    there = generated.images - generated.made
    of = "" if keep is None else f" of {generated.looked_at:,}"
    were_there = f" ({there:,} of them were there)" if there else ""
    show(f"{generated.images:,}{of} images{were_there} and manifest.csv in {generated.folder}")


def show_check(check: "Check", **_: Any) -> None:
    """Print what to do, the command that does it, and how many findings of each kind there are."""
    from sightline.checks.problems import KINDS

    show(check.lead)
    for number, step in enumerate(check.advice, 1):
        show(f"{number}. {step.title}. {step.why}{f' {step.how}' if step.how else ''}")
        if step.flag and not step.accepted:
            show(f"   On request: {step.flag} {shlex.quote(step.value)}")
    for sentence in check.notes:
        show(sentence)
    if check.counts:
        show(f"Found: {'; '.join(f'{_lowered(KINDS[kind].title)} {count:,}' for kind, count in check.counts.items())}")
    show(check.command)
    show_path(check.folder)


def show_corrections(decided: "Decided", *, export: Path | None = None, take: Path | None = None, **_: Any) -> None:
    """Print how many labels are decided, and which classes become which."""
    _warn(decided.notes)
    if take is not None:
        show(f"{decided.imported:,} decisions imported from {take}")
    kept = sum(decision.kept for decision in decided.decisions)
    out = sum(decision.after is None for decision in decided.decisions)
    count = len(decided.decisions)
    show(f"{decided.path}: {count:,} decided: {count - kept - out:,} corrected, {kept:,} right, {out:,} left out")
    rows = [(before, "left out" if after is None else after, n) for (before, after), n in decided.changes.items()]
    if rows:
        Lines()(Table(("from", "to", "images"), rows, texts=2))
    if export is not None:
        show(str(export))


def _lowered(text: str) -> str:
    return f"{text[0].lower()}{text[1:]}"


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        show(f"sightline: {line}", error=True)


def _warn_of_unreadable(unreadable: list[tuple[str, str]]) -> None:
    _warn(f"left out {file}: {reason}" for file, reason in unreadable)
    if unreadable:
        _warn([f"{len(unreadable)} unreadable files were left out."])
