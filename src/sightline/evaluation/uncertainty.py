"""How sure a finished run is, and how sure it may be: the sections of its report on what it knows of its own doubt."""

from collections.abc import Mapping, Sequence
from typing import Any

from sightline.display.charts import Bins, Curve, draw_curves, draw_reliability, draw_swatch
from sightline.display.pages import Chart, Section, Table
from sightline.evaluation.results import VIEWS, Known, number
from sightline.measures.metrics import wilson_interval

__all__ = ["about_doubt"]


def about_doubt(told: Known) -> list[Section]:
    """Calibration, prediction sets, images of no class, corruptions: of each what the run knows."""
    trust = told.model.get("trust") or {}
    found = [
        _about_calibration(told, trust),
        _about_sets(told, trust.get("sets")),
        _about_unknown(told, trust.get("unknown")),
        _about_corruptions(trust.get("corruptions")),
    ]
    return [section for section in found if section is not None]


def _about_calibration(told: Known, trust: Mapping[str, Any]) -> Section | None:
    measured, rows = told.measured, []
    sources = [(f"{told.split}, {measured['n']:,} images", measured)] if measured is not None else []
    if "calibration_error" in trust:
        sources.append((f"validation, {trust['n']:,} images that set the temperature", trust))
    for name, source in sources:
        rows.append(
            (name, *(number(source.get(key), ".4f") for key in ("calibration_error_unscaled", "calibration_error")))
        )
    if not rows:
        return None
    shown = [(name, source["reliability"]) for name, source in sources if source.get("reliability")]
    charts, legend = [], []
    if shown:
        svg = draw_reliability(
            "Confidence and right answers", [_bins(style, bins) for style, (_, bins) in enumerate(shown)]
        )
        caption = "Answers of equal confidence: the share of them that is right, with its 95 % interval (Wilson’s). On the line both agree; below it the classifier is too sure."
        charts = [Chart(svg, caption)]
        legend = [(name, draw_swatch(style, "sure")) for style, (name, _) in enumerate(shown)]
    about = (
        "Its probabilities are scaled by one number, the temperature, that was fitted on"
        f" {number(told.model.get('calibrated_on'), ',')} validation images. Calibration error: the mean distance of"
        " confidence and accuracy over 15 bins of confidence; 0 is perfect."
    )
    table = Table(("images", "calibration error before scaling", "after"), rows)
    return Section("How sure it is", about, table, charts, legend=legend)


def _bins(style: int, bins: Sequence[Mapping[str, Any]]) -> Bins:
    held = [one for one in bins if one["n"]]
    intervals = [wilson_interval(round(one["accuracy"] * one["n"]), one["n"]) for one in held]
    return Bins(
        style,
        [one["confidence"] for one in held],
        [one["accuracy"] for one in held],
        [low for low, _ in intervals],
        [high for _, high in intervals],
    )


def _about_sets(told: Known, sets: Mapping[str, Any] | None) -> Section | None:
    if not sets:
        return None
    tested = (told.measured or {}).get("sets") or {}
    rows = []
    for wanted, one in sets["coverages"].items():
        found = tested.get(wanted) or {}
        rows.append(
            (
                wanted,
                *(number(found.get(key), form) for key, form in (("coverage", ".4f"), ("mean_size", ".2f"))),
                f"{one['mean_size']:.2f}",
            )
        )
    about = (
        "Instead of one answer it can give a set of classes that holds the true one with a chosen probability (conformal"
        f" prediction, calibrated on {told.model['trust']['n']:,} validation images): the less sure it is, the more classes."
    )
    columns = ("wanted", f"sets with the true class, {told.split}", "classes in a set", "on validation")
    return Section("Prediction sets", about, Table(columns, rows))


def _about_unknown(told: Known, unknown: Mapping[str, Any] | None) -> Section | None:
    if not unknown:
        return None
    rows = [("its own validation", f"{told.model['trust']['n']:,}", f"{unknown['share_of_own']:.4f}")]
    if told.measured is not None and "unknown_share" in told.measured:
        rows.append((f"its own {told.split}", f"{told.measured['n']:,}", f"{told.measured['unknown_share']:.4f}"))
    rows += [(name, f"{one['n']:,}", f"{one['rate']:.4f}") for name, one in unknown.get("rates", {}).items()]
    about = (
        "An image is called “none of these” where the network hardly responds to it with any class, less than to almost all"
        " images of validation. Of images that show none of the classes it should be many;"
        " of its own, few."
    )
    return Section("Images of no class", about, Table(("images of", "n", "called “none of these”"), rows))


def _about_corruptions(found: Mapping[str, Any] | None) -> Section | None:
    if not found:
        return None
    series = found["accuracy"]
    severities = range(1 + max(len(values) for values in series.values()))
    curves = [
        Curve(style, severities, whole := [found["clean"], *values], whole, whole)
        for style, values in enumerate(series.values())
    ]
    svg = draw_curves("Accuracy on corrupted images", "accuracy", curves, over="severity")
    rows = [(name, *(f"{value:.4f}" for value in values)) for name, values in series.items()]
    about = (
        f"Accuracy on {found['n']:,} validation images ({VIEWS.get(found['views'], found['views'])}) that were corrupted on"
        f" purpose; as they are, it is {found['clean']:.4f}."
    )
    return Section(
        "On worse images",
        about,
        Table(("corruption", *(f"severity {number}" for number in severities[1:])), rows),
        [Chart(svg, "Severity 0: the images as they are.")],
        legend=[(name, draw_swatch(style, "worse")) for style, name in enumerate(series)],
    )
