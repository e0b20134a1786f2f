"""Pieces of the page as HTML, every text escaped, every picture within: no file is written for one. H × W pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from sightline.config import SIGNED
from sightline.display.pages import fragment
from sightline.display.pictures import heat_layer
from sightline.explanation.explainer import ExplainedImage
from sightline.inference.predictions import Prediction
from sightline.reports.thumbnails import data_uri
from sightline.serving.card import Card
from sightline.serving.exhibits import Exhibits

__all__ = [
    "Example",
    "draw_about",
    "draw_answer",
    "draw_drop_zone",
    "draw_examples",
    "draw_explanation",
    "draw_grid",
    "draw_masthead",
    "draw_sentence",
    "draw_viewer",
    "percent",
    "spoken",
]

TEMPLATE = "serve.html"
TILE = 160  # pixels of a picture in a gallery, at most
LARGE = 512  # pixels of one that is looked at, at most
SMALL = 96  # pixels of an example, at most
TINY = 64  # pixels up to which an image is enlarged without blurring it
NEAREST = 5  # classes in the larger view

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Picture:
    """An image with the map that lies over it."""

    uri: str
    alt: str
    tiny: bool
    heat: str = ""


@dataclass(frozen=True)
class Share:
    """A class with its probability."""

    name: str
    probability: float

    @property
    def text(self) -> str:
        return percent(self.probability)


@dataclass(frozen=True)
class Tile:
    """An image of a gallery and what is said of it."""

    key: int
    picture: Picture
    true: str
    predicted: str
    right: bool
    share: str
    file: str

    @property
    def title(self) -> str:
        return f"{self.true}, recognized" if self.right else f"{self.true}, taken for {self.predicted}"


@dataclass(frozen=True)
class Example:
    """An image to click."""

    key: int
    name: str
    pixels_HWC: Array


@dataclass(frozen=True)
class Within:
    """A prediction set."""

    about: str
    names: Sequence[str]


def percent(share: float) -> str:
    """A probability as a person reads it: never 100 % for what is not certain."""
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def spoken(method: str) -> str:
    """The name of a method as the literature writes it."""
    known = {"grad_cam": "Grad-CAM", "deeplift": "DeepLift", "gradient_shap": "gradient SHAP"}
    return known.get(method) or method.replace("smoothgrad", "SmoothGrad²").replace("_", " ")


def draw_masthead(title: str, about: str) -> str:
    """The top of the page."""
    return fragment(TEMPLATE, "masthead", title=title, about=about)


def draw_sentence(text: str, *, trouble: bool = False) -> str:
    """A sentence for the visitor; nothing where there is none."""
    return fragment(TEMPLATE, "sentence", text=text, kind="trouble" if trouble else "quiet")


def draw_drop_zone(most_bytes: int, about: str) -> str:
    """Where a file is dropped; a larger one than so many bytes stays where it is."""
    return fragment(TEMPLATE, "drop_zone", most_bytes=most_bytes, about=about)


def draw_examples(title: str, items: Sequence[Example]) -> str:
    """Images to click."""
    drawn = [
        {
            "key": item.key,
            "name": item.name,
            "uri": data_uri(item.pixels_HWC, SMALL),
            "tiny": max(item.pixels_HWC.shape[:2]) <= TINY,
        }
        for item in items
    ]
    return fragment(TEMPLATE, "examples", title=title, items=drawn)


def draw_answer(name: str, prediction: Prediction, most: int, coverage: float | None) -> str:
    """What the classifier says of an image.

    Args:
        name: of the image.
        prediction: with its set, where one was asked for.
        most: classes that are shown.
        coverage: of the set; None where none was asked for.
    """
    shares = [Share(*item) for item in list(prediction.probabilities.items())[:most]]
    within = None
    if prediction.within is not None and coverage is not None:
        within = Within(f"A set that holds the true class of {100 * coverage:g} in 100 such images:", prediction.within)
    return fragment(TEMPLATE, "answer", name=name, shares=shares, unknown=bool(prediction.unknown), within=within)


def draw_explanation(pixels_HWC: Array, explained: ExplainedImage) -> str:
    """An image as the network sees it, beside it the same with the map of its one explanation over it."""
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
    picture = _picture(pixels_HWC, title, LARGE, heat_layer(item.map_HW, signed=signed))
    return fragment(TEMPLATE, "explanation", picture=picture, title=title, notes=notes, signed=signed)


def draw_grid(exhibits: Exhibits, rows: Sequence[int], heats: Sequence[Array] = ()) -> str:
    """Images of a gallery.

    Args:
        exhibits: of the run.
        rows: of its answers.
        heats: Grad-CAM of each; none where they are still being computed, or cannot be.
    """
    layers: list[Array | None] = [heat_layer(heat, signed=False) for heat in heats] or [None] * len(rows)
    tiles = [_tile(exhibits, row, TILE, layer) for row, layer in zip(rows, layers, strict=True)]
    return fragment(TEMPLATE, "grid", cards=tiles)


def draw_viewer(exhibits: Exhibits, row: int, heat_HW: Array | None) -> str:
    """One image of a gallery, large, with its most probable classes."""
    layer = None if heat_HW is None else heat_layer(heat_HW, signed=False)
    tile = _tile(exhibits, row, LARGE, layer, whole_name=True)
    shares = [Share(*item) for item in exhibits.likeliest(row, NEAREST)]
    notes = "" if heat_HW is None else f"Grad-CAM: what speaks for {tile.predicted}"
    return fragment(TEMPLATE, "viewer", card=tile, shares=shares, notes=notes)


def draw_about(card: Card) -> str:
    """The model card."""
    return fragment(TEMPLATE, "card", card=card)


def _tile(exhibits: Exhibits, row: int, side: int, layer: Array | None, *, whole_name: bool = False) -> Tile:
    pixels_HWC = exhibits.thumbnails.pixels(exhibits.answers.files[row])
    true, predicted, file = exhibits.true(row), exhibits.predicted(row), exhibits.name(row)
    return Tile(
        key=row,
        picture=_picture(pixels_HWC, true, side, layer),
        true=true,
        predicted=predicted,
        right=true == predicted,
        share=percent(exhibits.probability(row)),
        file=file if whole_name else PurePath(file).name,
    )


def _picture(pixels_HWC: Array, alt: str, side: int, layer_HW4: Array | None) -> Picture:
    heat = "" if layer_HW4 is None else data_uri(layer_HW4, side)
    return Picture(data_uri(pixels_HWC, side), alt, max(pixels_HWC.shape[:2]) <= TINY, heat)
