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
    networks = {"probe: the pretrained network as it is, with a new head": probe["validation"]}
    about = "Nothing was fine-tuned, so the probe is what was saved."
    if tuned := probe.get("finetuned"):
        other, difference = probe["other"], probe["difference"]
        networks["fine-tuned from it" if other == "fine-tuned" else f"{other}, trained from nothing"] = tuned
        chance = f"; McNemar’s exact p = {difference['p']:.2g}" if "p" in difference else ""
        better = "the fine-tuned network was better and is"
        about = (
            f"On the same validation images the second changes the accuracy by {difference['estimate']:+.4f} (95 %"
            f" interval {difference['low']:+.4f} to {difference['high']:+.4f}, paired{chance});"
            f" {better if probe['kept'] == 'finetuned' else 'it was no better: the probe is'} what was saved."
        )
    rows = [
        (name, f"{measured['n']:,}", number(measured["accuracy"], ".4f"), number(measured["loss"], ".4f"))
        for name, measured in networks.items()
    ]
    return [Section("Probe and fine-tuning", about, Table(("on validation", "images", "accuracy", "loss"), rows))]


def about_learning_curve(model: Mapping[str, Any]) -> list[Section]:
    """Show what fewer training images would have reached with the probe, and so what more may bring."""
    curve = (model.get("probe") or {}).get("learning_curve")
    if not curve:
        return []
    images, values = [point["images"] for point in curve], [point["accuracy"] for point in curve]
    limits = [wilson_interval(round(point["accuracy"] * point["n"]), point["n"]) for point in curve]
    curves = [Curve(1, images, values, *zip(*limits, strict=True))]
    svg = draw_curves("Accuracy by training images", "accuracy", curves, "training images")
    about = (
        f"The probe with fewer training images. The last doubling, from {images[-2]:,} to {images[-1]:,}, brought"
        f" {values[-1] - values[-2]:+.4f}; where the curve still rises, more photographs help."
    )
    chart = Chart(svg, "Accuracy by the number of training images.")
    return [Section("What more images would bring", about, charts=[chart])]
