"""Uncertainty of a classifier, for its report: calibration, prediction sets, images of no class, corruptions."""

from collections.abc import Mapping, Sequence
from typing import Any

from sightline.display.charts import Bins, Curve, draw_curves, draw_reliability, draw_swatch
from sightline.display.pages import Chart, Section, Table
from sightline.evaluation.results import VIEWS, Facts, number
from sightline.measures.metrics import wilson_interval

__all__ = ["about_doubt"]


def about_doubt(facts: Facts) -> list[Section]:
    """Show calibration, prediction sets, images of no class and corruptions: of each what the run knows."""
    trust = facts.model.get("trust") or {}
    sections = [_about_calibration(facts, trust)]
    if trust.get("sets"):
        sections.append(_about_sets(facts, trust))
    if trust.get("unknown"):
        sections.append(_about_unknown(facts, trust))
    if trust.get("corruptions"):
        sections.append(_about_corruptions(trust["corruptions"]))
    return [section for section in sections if section is not None]


def _about_calibration(facts: Facts, trust: Mapping[str, Any]) -> Section | None:
    sources = []
    if facts.measured is not None:
        sources.append((f"{facts.split}, {facts.measured['n']:,} images", facts.measured))
    if "calibration_error" in trust:
        sources.append((f"validation, {trust['n']:,} images that set the temperature", trust))
    if not sources:
        return None
    keys = ("calibration_error_unscaled", "calibration_error", "classwise_calibration_error")
    rows = [(name, *(number(source.get(key), ".4f") for key in keys)) for name, source in sources]
    shown = [(name, source["reliability"]) for name, source in sources if source.get("reliability")]
    charts = []
    if shown:
        bins = [_bins(style, bins) for style, (_, bins) in enumerate(shown)]
        caption = (
            "Answers of equal confidence: the share of them that is right, with its 95 % interval (Wilson’s). On the"
            " line both agree; below it the classifier is too sure."
        )
        charts = [Chart(draw_reliability("Confidence and right answers", bins), caption)]
    about = (
        "Its probabilities are scaled by one number, the temperature, that was fitted on"
        f" {number(facts.model.get('calibrated_on'), ',')} validation images. Calibration error: the mean distance of"
        " confidence and accuracy over 15 bins of confidence; 0 is perfect. Over all classes: the same of"
        " every class’s probability and frequency."
    )
    if facts.model.get("prior_shift"):
        about += (
            " It was trained as if classes were equally frequent, or is to answer so: its probabilities are corrected"
            " by the known frequencies."
        )
    if trust.get("temperature_interval"):
        low, high = trust["temperature_interval"]
        temperature = facts.model["temperatures"][trust["views"]]
        about += f" The temperature is {temperature:.3f} (95 % interval {low:.3f} to {high:.3f})."
    table = Table(("images", "calibration error before scaling", "after", "over all classes"), rows)
    legend = [(name, draw_swatch(style, "sure")) for style, (name, _) in enumerate(shown)]
    return Section("How sure it is", about, table, charts, legend=legend)


def _bins(style: int, bins: Sequence[Mapping[str, Any]]) -> Bins:
    filled = [one for one in bins if one["n"]]
    intervals = [wilson_interval(round(one["accuracy"] * one["n"]), one["n"]) for one in filled]
    confidence, accuracy = ([one[key] for one in filled] for key in ("confidence", "accuracy"))
    return Bins(style, confidence, accuracy, [low for low, _ in intervals], [high for _, high in intervals])


def _about_sets(facts: Facts, trust: Mapping[str, Any]) -> Section:
    tested = (facts.measured or {}).get("sets") or {}
    rows = []
    for coverage, of_validation in trust["sets"]["coverages"].items():
        of_test = tested.get(coverage) or {}
        sizes = number(of_test.get("mean_size"), ".2f"), f"{of_validation['mean_size']:.2f}"
        rows.append((coverage, number(of_test.get("coverage"), ".4f"), *sizes))
    about = (
        "Instead of one answer it can give a set of classes that holds the true one with a chosen probability"
        f" (conformal prediction, calibrated on {trust['n']:,} validation images): the less sure it is, the more"
        " classes."
    )
    columns = ("wanted", f"sets with the true class, {facts.split}", "classes in a set", "on validation")
    return Section("Prediction sets", about, Table(columns, rows))


def _about_unknown(facts: Facts, trust: Mapping[str, Any]) -> Section:
    unknown, measured = trust["unknown"], facts.measured or {}
    shares = [("its own validation", trust["n"], unknown["share_of_own"])]
    if "unknown_share" in measured:
        shares.append((f"its own {facts.split}", measured["n"], measured["unknown_share"]))
    shares += [(name, one["n"], one["rate"]) for name, one in unknown.get("rates", {}).items()]
    why = {
        "energy": "where the network hardly responds to it with any class, less than to almost",
        "mahalanobis": "where its features lie farther from those of the training images than those of almost",
    }[unknown.get("score", "energy")]
    about = (
        f"An image is called “none of these” {why} all images of validation. The threshold lets"
        f" {unknown['share_of_own']:.0%} of them be called so. Of images that show none of the classes it should be"
        " many; of its own, few."
    )
    rows = [(name, f"{n:,}", f"{share:.4f}") for name, n, share in shares]
    return Section("Images of no class", about, Table(("images of", "n", "called “none of these”"), rows))


def _about_corruptions(corruptions: Mapping[str, Any]) -> Section:
    series = corruptions["accuracy"]
    severities = range(1 + max(len(values) for values in series.values()))
    curves = [Curve(style, severities, [corruptions["clean"], *values]) for style, values in enumerate(series.values())]
    svg = draw_curves("Accuracy on corrupted images", "accuracy", curves, over="severity")
    rows = [(name, *(f"{value:.4f}" for value in values)) for name, values in series.items()]
    about = (
        f"Accuracy on {corruptions['n']:,} validation images ({VIEWS.get(corruptions['views'], corruptions['views'])})"
        f" that were corrupted on purpose; as they are, it is {corruptions['clean']:.4f}."
    )
    table = Table(("corruption", *(f"severity {severity}" for severity in severities[1:])), rows)
    legend = [(name, draw_swatch(style, "worse")) for style, name in enumerate(series)]
    return Section("On worse images", about, table, [Chart(svg, "Severity 0: the images as they are.")], legend=legend)
