"""Clicks on the page: ask the classifier, turn the pages of the galleries, enlarge an image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from sightline.config.explaining import Method
from sightline.config.serving import ServeConfig
from sightline.display.terminal import natural_key
from sightline.errors import DataError, SightlineError
from sightline.inference.classifier import Classifier
from sightline.reports.card import known_of, model_card
from sightline.serving.exhibits import PAGE, Exhibits, Opening, Selection
from sightline.serving.html import (
    SMALL,
    draw,
    draw_answer,
    draw_explanation,
    draw_grid,
    draw_sentence,
    draw_viewer,
    picture,
    spoken,
)
from sightline.serving.maps import Maps, explain, seen
from sightline.serving.uploads import read_upload
from sightline_runtime.decoding.decode import read_image
from sightline_runtime.predictions import Prediction
from sightline_runtime.serving.worker import Asker, BusyError

__all__ = ["ANY", "Page", "index_of"]

ANY = -1  # no filter, or no class in particular
STEPS = 64  # of integrated gradients: an image that asks for thousands would keep the others waiting
GUESTS = {"lion": "lion.jpg", "cheetah": "cheetah1.jpg", "bus": "bus.png", "tower": "tower.jpg"}  # gradio has them

Array = np.ndarray[Any, Any]
Update = Any  # what gradio takes for a component: a value, or an update of its settings


@dataclass(frozen=True)
class Asked:
    """An image that a visitor asked about last, in memory only."""

    name: str
    pixels_HWC: Array
    """At the cached size."""
    prediction: Prediction
    coverage: float | None


class Page:
    """The events of a page: what it shows and does; the values that visitors set come in, pieces of the page go out."""

    def __init__(self, asker: Asker[Classifier], run: Path | None, limits: ServeConfig) -> None:
        self.asker = asker
        self.classifier = asker.classifier
        self.limits = limits
        self.maps = Maps(asker)
        self.opening = Opening(run, self.classifier.model)
        self.run = run
        folder = Path(gr.__file__).parent / "media_assets" / "images"
        paths = {} if run is not None else {name: folder / file for name, file in GUESTS.items()}
        self.guests = [(name, path) for name, path in paths.items() if path.is_file()]
        """Pictures that come with gradio, for a classifier that came without images."""

    @cached_property
    def about(self) -> str:
        """The model card; drawn when it is first looked at, since its charts take a second."""
        return draw("card", card=model_card(known_of(self.run, self.classifier.model)))

    # ── classify ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def answer_upload(
        self, upload: Mapping[str, Any], most: int, coverage: float, method: str, layer: str | None
    ) -> Iterator[Sequence[Update]]:
        """Answer what a visitor dropped; then explain the answer."""
        try:
            name, pixels = read_upload(upload, self.limits, self.classifier.resize, self.classifier.preprocessing)
        except DataError as error:
            yield None, draw_sentence(str(error), trouble=True), "", ANY
            return
        yield from self._answered(name, pixels, most, coverage, method, layer)

    def answer_example(
        self, pick: int, most: int, coverage: float, method: str, layer: str | None
    ) -> Iterator[Sequence[Update]]:
        """Answer the example that was clicked; then explain the answer."""
        exhibits = self.opening.exhibits
        if exhibits is not None and 0 <= pick < len(exhibits.answers.files):
            pixels = exhibits.thumbnails.cached(exhibits.answers.files[pick])
            name = f"{exhibits.name(pick)}, which shows {exhibits.true(pick)}"
        elif 0 <= pick < len(self.guests):
            name, path = f"a {self.guests[pick][0]}", self.guests[pick][1]
            pixels = read_image(path.read_bytes(), self.classifier.resize, self.classifier.preprocessing).pixels
        else:
            yield [gr.skip()] * 4
            return
        yield from self._answered(name, pixels, most, coverage, method, layer)

    def _answered(
        self, name: str, pixels_HWC: Array, most: int, coverage: float, method: str, layer: str | None
    ) -> Iterator[Sequence[Update]]:
        """Give the answer as soon as there is one, then what spoke for it."""
        try:
            asked = self._ask(name, pixels_HWC, coverage)
        except BusyError as error:
            yield None, draw_sentence(str(error), trouble=True), "", ANY
            return
        answer = draw_answer(name, asked.prediction, most, asked.coverage)
        yield asked, answer, draw_sentence("Being explained …"), ANY
        yield asked, answer, self.explain_anew(asked, method, layer, ANY), ANY

    def _ask(self, name: str, pixels_HWC: Array, coverage: float) -> Asked:
        pixels_1HWC = np.stack([pixels_HWC])  # a copy that may be written to, as PyTorch wants
        (prediction,) = self.asker.ask(pixels_1HWC, coverage=coverage or None).result()
        return Asked(name, pixels_1HWC[0], prediction, coverage or None)

    def answer_anew(self, asked: Asked | None, most: int, coverage: float) -> Sequence[Update]:
        """Show the same image with more or fewer classes, or another set; the network is asked only for a set."""
        if asked is None:
            return gr.skip(), gr.skip()
        try:
            if (coverage or None) != asked.coverage:
                asked = self._ask(asked.name, asked.pixels_HWC, coverage)
        except BusyError as error:
            return asked, draw_sentence(str(error), trouble=True)
        return asked, draw_answer(asked.name, asked.prediction, most, asked.coverage)

    def explain_anew(self, asked: Asked | None, method: Any, layer: str | None, target: int) -> str:
        """Show what spoke for a class of the image that was asked about last."""
        if asked is None or method is None:  # of a network that no method fits
            return ""
        name = None if target == ANY else self.classifier.classes[target]
        steps = STEPS if method == "integrated_gradients" else None
        layer = layer if method == "grad_cam" else None
        try:
            work = lambda: explain(self.classifier, asked.pixels_HWC, method, layer, name, steps)  # noqa: E731
            explained = self.asker.do(work).result()
        except SightlineError as error:
            return draw_sentence(f"This explanation cannot be given: {error}", trouble=True)
        return draw_explanation(seen(self.classifier, asked.pixels_HWC), explained)

    def coverages(self) -> list[tuple[str, float]]:
        """Return the coverages of prediction sets that the classifier can give; 0 for none."""
        trust = self.classifier.trust
        known = trust["sets"]["thresholds"][self.classifier.views] if trust is not None else ()
        return [("none", 0.0), *((f"{100 * float(one):g} %", float(one)) for one in known)]

    # ── galleries ────────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> Sequence[Update]:
        """Show what there is to see by now: the examples, and of both galleries what they say and their filters."""
        done, exhibits = self.opening.done, self.opening.exhibits
        timer = gr.Timer(active=not done)
        if exhibits is None:
            says = draw_sentence(self.opening.says)
            items = [
                (key, picture(read_image(path.read_bytes(), (SMALL, SMALL)).pixels, name, SMALL))
                for key, (name, path) in enumerate(self.guests)
            ]
            title = "Or click one of these; the classifier may know none of them:"
            return [draw("examples", title=title, items=items if done else []), timer, *([says, *[gr.skip()] * 3] * 2)]
        items = [
            (row, picture(exhibits.thumbnails.pixels(exhibits.answers.files[row]), exhibits.true(row), SMALL))
            for row in exhibits.examples()
        ]
        shown: list[Update] = [
            draw("examples", title=f"Or click one of its {exhibits.split} images:", items=items),
            timer,
        ]
        for right in (False, True):
            trues = exhibits.true_classes(right)
            count = sum(images for _, images in trues)
            shown += [
                draw_sentence(_about_gallery(exhibits, right, count, self.maps.quick)),
                gr.update(visible=count > 0),
                gr.update(choices=self._choices(trues)),
                gr.update(choices=self._choices(exhibits.predicted_classes(right))),
            ]
        return shown

    def narrow(self, right: bool, true: int, predicted: int) -> Update:
        """Offer the classes that images of a true class were taken for."""
        exhibits = self.opening.exhibits
        if exhibits is None:
            return gr.skip()
        counts = exhibits.predicted_classes(right, index_of(true))
        return gr.update(choices=self._choices(counts), value=predicted if predicted in dict(counts) else ANY)

    def turn(self, selection: Selection, place: int) -> Iterator[Sequence[Update]]:
        """Show a page of a gallery: its images, and as soon as there are any their maps."""
        exhibits = self.opening.exhibits
        if exhibits is None:
            yield [gr.skip()] * 5  # of nothing at all gradio would blank them
            return
        rows = exhibits.rows(selection).tolist()
        last = max(0, (len(rows) - 1) // PAGE)
        place = min(max(place, 0), last)
        some = rows[place * PAGE : (place + 1) * PAGE]
        where = f"{place * PAGE + 1:,} to {place * PAGE + len(some):,} of {len(rows):,}" if rows else ""
        rest = [
            f"<p class='sl-where'>{where}</p>",
            place,
            gr.update(interactive=place > 0),
            gr.update(interactive=place < last),
        ]
        yield [draw_grid(exhibits, some), *rest]
        if heats := self._heats(exhibits, some):
            yield [draw_grid(exhibits, some, heats), *rest]

    def enlarge(self, row: int) -> str:
        """Show the larger view of the image that was clicked."""
        exhibits = self.opening.exhibits
        if exhibits is None or not 0 <= row < len(exhibits.answers.files):
            return ""
        heats = self._heats(exhibits, [row])
        return draw_viewer(exhibits, row, heats[0] if heats else None, self.maps.quick)

    def _heats(self, exhibits: Exhibits, rows: Sequence[int]) -> list[Array]:
        """Return what spoke for the answers to images; none where the network has no map, or too much to do."""
        if self.maps.quick is None or not rows:
            return []
        pixels = [exhibits.thumbnails.cached(exhibits.answers.files[row]) for row in rows]
        try:
            return self.maps.quick_maps(pixels, exhibits.answers.predicted_N[list(rows)].tolist())
        except BusyError:
            return []

    def _choices(self, counts: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
        named = [(f"{self.classifier.classes[index]} ({count:,})", index) for index, count in counts]
        total = sum(count for _, count in counts)
        return [(f"any class ({total:,})", ANY), *sorted(named, key=lambda item: natural_key(item[0]))]


def _about_gallery(exhibits: Exhibits, right: bool, count: int, method: Method | None) -> str:
    kind, total = "right" if right else "wrong", len(exhibits.answers.files)
    if not count:
        return f"None of its {total:,} answers is {kind}."
    maps = "" if method is None else f" The maps show what spoke for the answer ({spoken(method)})."
    return (
        f"{count:,} of its {total:,} answers to {exhibits.split} images are {kind}.{maps} Click an image to enlarge it."
    )


def index_of(value: int) -> int | None:
    """Return the index of a class that a filter names; None for any."""
    return None if value == ANY else value
