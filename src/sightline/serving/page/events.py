"""What the page does when something is clicked: it asks the classifier, turns the pages of the galleries, enlarges an image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sightline.config.serving import ServeConfig
from sightline.data.augment.augment import centre
from sightline.data.decoding.decode import read_image
from sightline.display.terminal import natural_key
from sightline.errors import DataError, SightlineError
from sightline.inference.predictions import Prediction
from sightline.serving.card import known_of, model_card
from sightline.serving.exhibits import PAGE, Exhibits, Opening, Wanted
from sightline.serving.html import (
    Example,
    draw_about,
    draw_answer,
    draw_examples,
    draw_explanation,
    draw_grid,
    draw_sentence,
    draw_viewer,
)
from sightline.serving.maps import Maps
from sightline.serving.uploads import read_upload
from sightline.serving.worker import Asker, BusyError

__all__ = ["ANY", "Page", "index_of"]

ANY = -1  # no filter, or no class in particular
GUESTS = {"lion": "lion.jpg", "cheetah": "cheetah1.jpg", "bus": "bus.png", "tower": "tower.jpg"}  # gradio has them

Array = np.ndarray[Any, Any]
Update = Any  # what gradio takes for a component: a value, or an update of its settings


@dataclass(frozen=True)
class Asked:
    """What a visitor asked about last, in memory only."""

    name: str
    pixels_HWC: Array
    """At the cached size."""
    prediction: Prediction
    coverage: float | None


class Page:
    """What a page shows, and what it does; the values that visitors set come in, pieces of the page go out."""

    def __init__(self, asker: Asker, run: Path | None, limits: ServeConfig) -> None:
        self.asker = asker
        self.classifier = asker.classifier
        self.limits = limits
        self.maps = Maps(asker)
        self.opening = Opening(run, self.classifier.model)
        self.run = run
        self.guests = [] if run is not None else _guests()

    @cached_property
    def about(self) -> str:
        """The model card; drawn when it is first looked at, since its charts take a second."""
        return draw_about(model_card(known_of(self.run, self.classifier.model)))

    def answer_upload(
        self, found: Mapping[str, Any], most: int, coverage: float, method: str, layer: str | None
    ) -> Iterator[Sequence[Update]]:
        """Answer what a visitor dropped; then explain the answer."""
        try:
            name, pixels = read_upload(found, self.limits, self.classifier.resize, self.classifier.preprocessing)
        except DataError as error:
            yield None, draw_sentence(str(error), trouble=True), "", ANY
            return
        yield from self._answered(name, pixels, most, coverage, method, layer)

    def answer_example(
        self, pick: int, most: int, coverage: float, method: str, layer: str | None
    ) -> Iterator[Sequence[Update]]:
        """Answer the example that was clicked; then explain the answer."""
        import gradio as gr

        exhibits = self.opening.exhibits
        if exhibits is not None and 0 <= pick < len(exhibits.answers.files):
            file = exhibits.answers.files[pick]
            pixels, name = exhibits.thumbnails.cached(file), f"{exhibits.name(pick)}, which shows {exhibits.true(pick)}"
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
        """The answer as soon as there is one, then what spoke for it."""
        try:
            asked = self._ask(name, pixels_HWC, coverage)
        except BusyError as error:
            yield None, draw_sentence(str(error), trouble=True), "", ANY
            return
        answer = draw_answer(name, asked.prediction, most, asked.coverage)
        yield asked, answer, draw_sentence("Being explained …"), ANY
        yield asked, answer, self.explain_anew(asked, method, layer, ANY), ANY

    def _ask(self, name: str, pixels_HWC: Array, coverage: float) -> Asked:
        wanted, pixels_1HWC = (
            coverage or None,
            np.stack([pixels_HWC]),
        )  # a copy that may be written to, as PyTorch wants
        (prediction,) = self.asker.ask(pixels_1HWC, coverage=wanted).result()
        return Asked(name, pixels_1HWC[0], prediction, wanted)

    def answer_anew(self, asked: Asked | None, most: int, coverage: float) -> Sequence[Update]:
        """The same image with more or fewer classes, or another set; the network is asked only for a set."""
        import gradio as gr

        if asked is None:
            return gr.skip(), gr.skip()
        try:
            if (coverage or None) != asked.coverage:
                asked = self._ask(asked.name, asked.pixels_HWC, coverage)
        except BusyError as error:
            return asked, draw_sentence(str(error), trouble=True)
        return asked, draw_answer(asked.name, asked.prediction, most, asked.coverage)

    def explain_anew(self, asked: Asked | None, method: Any, layer: str | None, target: int) -> str:
        """What spoke for a class of the image that was asked about last."""
        if asked is None or method is None:  # of a network that no method fits
            return ""
        name = None if target == ANY else self.classifier.classes[target]
        try:
            explained = self.maps.explain(asked.pixels_HWC, method, layer, name)
        except SightlineError as error:
            return draw_sentence(f"This explanation cannot be given: {error}", trouble=True)
        seen = centre(torch.from_numpy(asked.pixels_HWC[None]), self.classifier.size).numpy()[0]
        return draw_explanation(seen, explained)

    def look(self) -> Sequence[Update]:
        """What there is to see by now: the examples, and both galleries with the first page of each."""
        import gradio as gr

        done, exhibits = self.opening.done, self.opening.exhibits
        timer = gr.Timer(active=not done)
        if exhibits is None:
            says = draw_sentence(self.opening.says)
            examples = draw_examples(
                "Or click one of these; the classifier may know none of them:", self._guests_shown()
            )
            return [examples if done else "", timer, *([says, *[gr.skip()] * 5] * 2)]
        items = [
            Example(row, exhibits.true(row), exhibits.thumbnails.pixels(exhibits.answers.files[row]))
            for row in exhibits.examples()
        ]
        found: list[Update] = [draw_examples(f"Or click one of its {exhibits.split} images:", items), timer]
        for right in (False, True):
            trues, answers = exhibits.true_classes(right), exhibits.predicted_classes(right)
            rows = exhibits.rows(Wanted(right))
            found += [
                draw_sentence(_about_gallery(exhibits, right, len(rows))),
                gr.update(visible=len(rows) > 0),
                gr.update(choices=self._choices(trues)),
                gr.update(choices=self._choices(answers)),
                draw_grid(exhibits, rows[:PAGE].tolist()),
                _where(0, len(rows)),
            ]
        return found

    def narrow(self, right: bool, true: int, predicted: int) -> Update:
        """The classes that images of a true class were taken for."""
        import gradio as gr

        exhibits = self.opening.exhibits
        if exhibits is None:
            return gr.skip()
        counts = exhibits.predicted_classes(right, index_of(true))
        kept = predicted if predicted in dict(counts) else ANY
        return gr.update(choices=self._choices(counts), value=kept)

    def turn(self, wanted: Wanted, place: int) -> Iterator[Sequence[Update]]:
        """A page of a gallery: its images, and as soon as there are any their maps."""
        import gradio as gr

        exhibits = self.opening.exhibits
        if exhibits is None:
            yield [gr.skip()] * 5  # of nothing at all gradio would blank them
            return
        rows = exhibits.rows(wanted).tolist()
        place = min(max(place, 0), max(0, (len(rows) - 1) // PAGE))
        some = rows[place * PAGE : (place + 1) * PAGE]
        last = (place + 1) * PAGE >= len(rows)
        rest = [_where(place, len(rows)), place, gr.update(interactive=place > 0), gr.update(interactive=not last)]
        yield [draw_grid(exhibits, some), *rest]
        heats = self._heats(exhibits, some)
        if heats:
            yield [draw_grid(exhibits, some, heats), *rest]

    def enlarge(self, row: int) -> str:
        """The larger view of the image that was clicked."""
        exhibits = self.opening.exhibits
        if exhibits is None or not 0 <= row < len(exhibits.answers.files):
            return ""
        heats = self._heats(exhibits, [row])
        return draw_viewer(exhibits, row, heats[0] if heats else None)

    def _heats(self, exhibits: Exhibits, rows: Sequence[int]) -> list[Array]:
        """Grad-CAM of the answers to images; none where the network has no map of them, or too much to do."""
        if "grad_cam" in self.maps.left_out or not rows:
            return []
        pixels = [exhibits.thumbnails.cached(exhibits.answers.files[row]) for row in rows]
        try:
            return self.maps.grad_cams(pixels, exhibits.answers.predicted_N[list(rows)].tolist())
        except BusyError:
            return []

    def _choices(self, counts: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
        total = sum(count for _, count in counts)
        classes = self.classifier.classes
        ordered = sorted(counts, key=lambda item: natural_key(classes[item[0]]))
        named = [(f"{classes[index]} ({count:,})", index) for index, count in ordered]
        return [(f"any class ({total:,})", ANY), *named]

    def coverages(self) -> list[tuple[str, float]]:
        """Coverages of prediction sets that the classifier can give; 0 for none."""
        found = [("none", 0.0)]
        if self.classifier.trust is not None:
            held = self.classifier.trust["sets"]["thresholds"][self.classifier.views]
            found += [(f"{100 * float(one):g} %", float(one)) for one in held]
        return found

    def _guests_shown(self) -> list[Example]:
        return [
            Example(key, name, read_image(path.read_bytes(), (96, 96)).pixels)
            for key, (name, path) in enumerate(self.guests)
        ]


def _guests() -> list[tuple[str, Path]]:
    """Pictures that come with gradio, for a classifier that came without images."""
    import gradio

    folder = Path(gradio.__file__).parent / "media_assets" / "images"
    return [(name, folder / file) for name, file in GUESTS.items() if (folder / file).is_file()]


def _about_gallery(exhibits: Exhibits, right: bool, count: int) -> str:
    total = len(exhibits.answers.files)
    if not count:
        return f"None of its {total:,} answers is {'right' if right else 'wrong'}."
    told = f"{count:,} of its {total:,} answers to {exhibits.split} images are {'right' if right else 'wrong'}."
    return f"{told} The maps show what spoke for the answer (Grad-CAM). Click an image to enlarge it."


def _where(place: int, count: int) -> str:
    first, last = place * PAGE + 1, min((place + 1) * PAGE, count)
    return f"<p class='sl-where'>{first:,} to {last:,} of {count:,}</p>" if count else ""


def index_of(value: int) -> int | None:
    """The index of a class that a filter names; None for any."""
    return None if value == ANY else value
