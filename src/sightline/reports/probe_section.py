"""The probe of a run and what fine-tuning added to it, in sentences, a table and a chart."""

from collections.abc import Mapping
from typing import Any

from sightline.display.charts import Curve, draw_curves
from sightline.display.pages import Chart, Section, Table
from sightline.evaluation.results import number
from sightline.measures.metrics import wilson_interval

__all__ = ["about_learning_curve", "about_probe"]


def about_probe(model: Mapping[str, Any]) -> list[Section]:
    """Compare the probe with the fine-tuned network on validation; nothing of a run without a probe.

    Args:
        model: content of ``model.json``.
    """
    probe = model.get("probe")
    if probe is None or "validation" not in probe:
        return []
    tuned = probe.get("finetuned")
    rows = [_row("probe: the pretrained network as it is, with a new head", probe["validation"])]
    if tuned is None:
        about = "Nothing was fine-tuned, so the probe is what was saved."
    else:
        name = "fine-tuned from it" if probe["other"] == "fine-tuned" else f"{probe['other']}, trained from nothing"
        rows.append(_row(name, tuned))
        difference = probe["difference"]
        kept = (
            "the fine-tuned network was better and is"
            if probe["kept"] == "finetuned"
            else "it was no better: the probe is"
        )
        about = (
            f"On the same validation images the second changes the accuracy by {difference['estimate']:+.4f} (95 % interval"
            f" {difference['low']:+.4f} to {difference['high']:+.4f}, paired); {kept} what was saved."
        )
    return [Section("Probe and fine-tuning", about, Table(("on validation", "images", "accuracy", "loss"), rows))]


def about_learning_curve(model: Mapping[str, Any]) -> list[Section]:
    """Show what fewer training images would have reached with the probe, and so what more may bring."""
    curve = (model.get("probe") or {}).get("learning_curve")
    if not curve:
        return []
    images, values = [point["images"] for point in curve], [point["accuracy"] for point in curve]
    limits = [wilson_interval(round(point["accuracy"] * point["n"]), point["n"]) for point in curve]
    chart = draw_curves(
        "Accuracy by training images",
        "accuracy",
        [Curve(1, images, values, *zip(*limits, strict=True))],
        "training images",
    )
    gain = values[-1] - values[-2]
    about = (
        f"The probe with fewer training images. The last doubling, from {images[-2]:,} to {images[-1]:,}, brought"
        f" {gain:+.4f}; where the curve still rises, more photographs help."
    )
    return [
        Section(
            "What more images would bring", about, charts=[Chart(chart, "Accuracy by the number of training images.")]
        )
    ]


def _row(name: str, measured: Mapping[str, Any]) -> tuple[str, ...]:
    return name, f"{measured['n']:,}", number(measured["accuracy"], ".4f"), number(measured["loss"], ".4f")
