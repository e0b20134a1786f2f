"""Print what a verb returned: the result on standard output, what one should know of it on standard error."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.display.events import Measured
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
    from sightline.data.seen import about_learned
    from sightline.inference.predict import about_box
    from sightline.runs.writing import is_stream
    from sightline_runtime.predictions import csv_header, csv_rows, lines_of

    files, answers = predictions.files, predictions.predictions
    _warn(predictions.left_out)
    _warn_of_unreadable(predictions.unreadable)
    _warn(about_learned(predictions.learned, len(files)))
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
    from sightline.data.seen import about_learned
    from sightline.explanation.explain import summarize_explanations

    _warn(explanations.no_images)
    _warn_of_unreadable(explanations.unreadable)
    _warn(f"left out {name}: {reason}" for name, reason in explanations.left_out.items())
    Lines()(summarize_explanations(explanations.images))
    count = len(explanations.files)
    _warn(about_learned(explanations.learned, count))
    show(f"{count:,} sheet{'s' if count > 1 else ''} and explanations.csv in {out}")


def show_features(encoded: "Encoded", *, out: Path, **_: Any) -> None:
    """Print how many features there are of how many images."""
    _warn(encoded.left_out)
    _warn_of_unreadable(encoded.unreadable)
    labeled = f", of {len(encoded.classes)} classes" if encoded.classes is not None else ""
    show(f"{len(encoded.files):,} × {encoded.features.shape[1]:,} features{labeled} in {out}")


def show_exported(exported: "Exported", **_: Any) -> None:
    """Print what was measured of an exported file, and where it is."""
    for sentence in exported.sentences():
        show(sentence)
    show(str(exported.path))


def show_generated(generated: "Generated", *, keep: Any = None, **_: Any) -> None:
    """Print how many images were made, and why others were refused."""
    for sentence in generated.sentences(filtered=keep is not None):
        show(sentence)


def show_check(check: "Check", **_: Any) -> None:
    """Print what to do, the command that does it, and how many findings of each kind there are."""
    for sentence in check.sentences():
        show(sentence)
    show_path(check.folder)


def show_corrections(decided: "Decided", *, export: Path | None = None, take: Path | None = None, **_: Any) -> None:
    """Print how many labels are decided, and which classes become which."""
    _warn(decided.notes)
    if take is not None:
        show(f"{decided.imported:,} decisions imported from {take}")
    show(decided.sentence)
    if decided.changes:
        Lines()(decided.table())
    if export is not None:
        show(str(export))


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        show(f"sightline: {line}", error=True)


def _warn_of_unreadable(unreadable: list[tuple[str, str]]) -> None:
    _warn(f"left out {file}: {reason}" for file, reason in unreadable)
    if unreadable:
        count = len(unreadable)
        _warn([f"{count:,} unreadable file{' was' if count == 1 else 's were'} left out."])
