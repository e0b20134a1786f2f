"""Pieces of the page as HTML, every text escaped, every picture within: no file is written for one. H × W pixels."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np

from sightline.config.explaining import SIGNED
from sightline.display.pages import data_uri, fragment
from sightline.display.pictures import heat_layer, smoothed
from sightline.explanation.explainer import ExplainedImage
from sightline.serving.exhibits import Exhibits
from sightline_runtime.predictions import Prediction

__all__ = [
    "SMALL",
    "draw",
    "draw_answer",
    "draw_explanation",
    "draw_grid",
    "draw_sentence",
    "draw_viewer",
    "percent",
    "picture",
    "spoken",
]

TILE = 160  # pixels of a picture in a gallery, at most
LARGE = 512  # pixels of one that is looked at, at most
SMALL = 96  # pixels of an example, at most
TINY = 64  # pixels up to which an image is enlarged without blurring it
NEAREST = 5  # classes in the larger view

Array = np.ndarray[Any, Any]
draw = partial(fragment, "serve.html")
"""Draw a piece of the page by its name."""


def percent(share: float) -> str:
    """Return a probability as a person reads it: never 100 % for what is not certain."""
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def spoken(method: str) -> str:
    """Return the name of a method as the literature writes it."""
    known = {"grad_cam": "Grad-CAM", "deeplift": "DeepLift", "gradient_shap": "gradient SHAP"}
    return known.get(method) or method.replace("smoothgrad", "SmoothGrad²").replace("_", " ")


def picture(pixels_HWC: Array, alt: str, side: int, layer_HW4: Array | None = None) -> dict[str, Any]:
    """Return an image with the map that lies over it, as the template takes it."""
    heat = "" if layer_HW4 is None else data_uri(layer_HW4, side)
    return {"uri": data_uri(pixels_HWC, side), "alt": alt, "tiny": max(pixels_HWC.shape[:2]) <= TINY, "heat": heat}


def draw_sentence(text: str, *, trouble: bool = False) -> str:
    """Draw a sentence for the visitor; nothing where there is none."""
    return draw("sentence", text=text, kind="trouble" if trouble else "quiet")


def draw_answer(name: str, prediction: Prediction, most: int, coverage: float | None) -> str:
    """Draw what the classifier says of an image.

    Args:
        name: of the image.
        prediction: with its set, where one was asked for.
        most: classes that are shown.
        coverage: of the set; None where none was asked for.
    """
    within = None
    if prediction.within is not None and coverage is not None:
        about = f"A set that holds the true class of {100 * coverage:g} in 100 such images:"
        within = {"about": about, "names": prediction.within}
    shares = _shares(list(prediction.probabilities.items())[:most])
    return draw("answer", name=name, shares=shares, unknown=bool(prediction.unknown), within=within)


def draw_explanation(pixels_HWC: Array, explained: ExplainedImage) -> str:
    """Draw an image as the network sees it, beside it the same with the map of its one explanation over it."""
    (item,) = explained.explanations
    signed = item.method in SIGNED
    notes = []
    if not item.map_HW.any():
        notes.append("the map is zero everywhere: nothing here raises the class")
    if item.gap is not None:
        notes.append(f"it adds up to what the image does to the class to within {max(item.gap, 1e-4):.2%}")
    title = f"{spoken(item.method)}: what speaks for {explained.label} ({percent(explained.probability)})"
    if item.method == "attention":
        title = "attention: where the head looks, whatever the class"
    shown = picture(pixels_HWC, title, LARGE, heat_layer(smoothed(item.map_HW), signed=signed))
    return draw("explanation", picture=shown, title=title, notes=notes, signed=signed)


def draw_grid(exhibits: Exhibits, rows: Sequence[int], heats: Sequence[Array] = ()) -> str:
    """Draw images of a gallery.

    Args:
        exhibits: of the run.
        rows: of its answers.
        heats: what spoke for the answer in each; none where they are still being computed, or cannot be.
    """
    maps: Sequence[Array | None] = heats or [None] * len(rows)
    return draw("grid", cards=[_tile(exhibits, row, TILE, heat) for row, heat in zip(rows, maps, strict=True)])


def draw_viewer(exhibits: Exhibits, row: int, heat_HW: Array | None, method: str | None = None) -> str:
    """Draw one image of a gallery, large, with its most probable classes."""
    card = _tile(exhibits, row, LARGE, heat_HW) | {"file": exhibits.name(row)}
    notes = "" if heat_HW is None or method is None else f"{spoken(method)}: what speaks for {card['predicted']}"
    return draw("viewer", card=card, shares=_shares(exhibits.likeliest(row, NEAREST)), notes=notes)


def _shares(classes: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"name": name, "probability": share, "text": percent(share)} for name, share in classes]


def _tile(exhibits: Exhibits, row: int, side: int, heat_HW: Array | None) -> dict[str, Any]:
    """Return an image of a gallery and what is said of it, as the template takes it."""
    true, predicted = exhibits.true(row), exhibits.predicted(row)
    layer = None if heat_HW is None else heat_layer(smoothed(heat_HW), signed=False)
    return {
        "key": row,
        "picture": picture(exhibits.thumbnails.pixels(exhibits.answers.files[row]), true, side, layer),
        "true": true,
        "predicted": predicted,
        "right": true == predicted,
        "title": f"{true}, recognized" if true == predicted else f"{true}, taken for {predicted}",
        "share": percent(exhibits.probability(row)),
        "file": PurePath(exhibits.name(row)).name,
    }
