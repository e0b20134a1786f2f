"""The page of a server: classify an image, look at the right and the wrong answers, read the model card. Drawn by gradio.

Nothing leaves the machine, and nothing that a visitor brings is written to a file: an image travels within the event that
asks about it, and is forgotten an hour later.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sightline.config import Method
from sightline.config.serving import ServeConfig
from sightline.errors import DataError, SightlineError
from sightline.images.augment import centre
from sightline.images.decoding import decode, resize
from sightline.predicting import Prediction
from sightline.serving.asking import Asker
from sightline.serving.card import known_of, model_card, summary
from sightline.serving.drawing import (
    Example,
    draw_about,
    draw_answer,
    draw_drop_zone,
    draw_examples,
    draw_explanation,
    draw_grid,
    draw_masthead,
    draw_sentence,
    draw_viewer,
    spoken,
)
from sightline.serving.exhibits import PAGE, Exhibits, Opening, Wanted
from sightline.serving.maps import Maps
from sightline.serving.sealing import Wall
from sightline.serving.uploads import most_bytes, read_upload

if TYPE_CHECKING:
    import gradio
    from fastapi import FastAPI

__all__ = ["mount_page"]

WEIGHTS = ".safetensors"
ANY = -1  # no filter, or no class in particular
KEPT = 3600  # seconds that a visitor's image is remembered
WAITING = 64  # events that may wait for their turn
AT_ONCE = 4  # events of a kind that are worked on together
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "Arial", "sans-serif"]
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><circle cx='16' cy='16' r='13' fill='none' stroke='#1f6f8b'"
    " stroke-width='4'/><circle cx='16' cy='16' r='5' fill='#d55e00'/></svg>"
)
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


def mount_page(app: "FastAPI", asker: Asker, run: Path | None, limits: ServeConfig) -> "FastAPI":
    """Mount the page at ``/``, below what the application answers already.

    Args:
        app: the application.
        asker: asks the classifier.
        run: its folder, whose answers to test images are shown; None, or a weights file, of weights alone.
        limits: on the images that visitors bring.
    Returns:
        The application.
    """
    folder = tempfile.TemporaryDirectory(prefix="sightline-page-")  # nothing should be written there; gone at the end
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": folder.name,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    import gradio

    page = _Page(asker, None if run is None or run.suffix == WEIGHTS else run, limits)
    blocks = page.build()
    blocks.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE, api_open=False)
    gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=1,  # byte: no file is taken but within an event
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gradio.themes.Default(primary_hue="teal", font=FONT, font_mono=["ui-monospace", "monospace"]),
        css=_template("serve.css"),
    )
    mounted: Any = app.routes[-1]
    mounted.app.add_middleware(Wall, most_bytes=most_bytes(limits), icon=ICON)
    mounted.app.state.folder = folder  # kept as long as the application
    page.opening.start()  # now that nobody waits for the page
    return app


def _template(name: str) -> str:
    return files("sightline").joinpath("templates", name).read_text("utf-8")


class _Page:
    """What the page shows, and what it does when something is clicked."""

    def __init__(self, asker: Asker, run: Path | None, limits: ServeConfig) -> None:
        self.asker = asker
        self.classifier = asker.classifier
        self.limits = limits
        self.maps = Maps(asker)
        self.opening = Opening(run, self.classifier.model)
        self.run = run
        self.guests = [] if run is not None else _guests()

    # ── how it is laid out ───────────────────────────────────────────────────────────────────────────────────────────

    def build(self) -> "gradio.Blocks":
        """Lay the page out, and say what follows on what."""
        import gradio as gr

        name = self.classifier.model["data"]["name"]
        with gr.Blocks(title=f"sightline: {name}", analytics_enabled=False, delete_cache=(600, KEPT)) as blocks:
            gr.HTML(draw_masthead("What is in the image?", summary(self.classifier.model)))
            with gr.Tabs(overflow_behavior="wrap"):
                with gr.Tab("Classify", id="classify"):
                    examples = self._classify_tab()
                galleries = [self._gallery_tab(right) for right in (False, True)]
                with gr.Tab("About", id="about"):
                    gr.HTML(lambda: self.about, elem_id="about")
            timer = gr.Timer(1.0)
            outputs = [examples, timer, *(part for parts in galleries for part in parts)]
            for event in (blocks.load, timer.tick):
                event(self.look, None, outputs, show_progress="hidden", api_visibility="private")
        return blocks

    def _classify_tab(self) -> "gradio.HTML":
        import gradio as gr

        classes, sets = self.classifier.classes, self._coverages()
        asked = gr.State(None, time_to_live=KEPT)
        with gr.Row():
            with gr.Column(min_width=300):
                about = f"It is not kept. At most {self.limits.max_megabytes:g} MB and {self.limits.max_megapixels:g} megapixels."
                drop = gr.HTML(
                    draw_drop_zone(most_bytes(self.limits), about),
                    js_on_load=_template("serve-drop.js"),
                    elem_id="drop",
                )
                examples = gr.HTML(js_on_load=_template("serve-pick.js"), elem_id="examples")
            with gr.Column(min_width=300):
                answer = gr.HTML(
                    draw_sentence("The answer will stand here."), elem_id="answer", padding=False, min_height=60
                )
                with gr.Row():
                    most = gr.Slider(
                        1, min(len(classes), 20), min(len(classes), 5), step=1, label="Classes shown", elem_id="most"
                    )
                    coverage = gr.Dropdown(
                        sets, value=0.0, label="Prediction set", visible=len(sets) > 1, elem_id="coverage"
                    )
        gr.HTML("<h2 class='sl-part'>What spoke for it</h2>")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                explanation = gr.HTML(elem_id="explanation", min_height=40)
            with gr.Column(min_width=300):
                how = self._explanation_controls()
        settings, answered = [most, coverage, *how[:2]], [asked, answer, explanation, how[2]]
        quiet: dict[str, Any] = {"api_visibility": "private", "trigger_mode": "always_last", "show_progress": "minimal"}

        def upload(event: gr.EventData, most: int, coverage: float, method: str, layer: str | None) -> Iterator[Any]:
            yield from self.answer_upload(event._data or {}, most, coverage, method, layer)

        def pick(event: gr.EventData, most: int, coverage: float, method: str, layer: str | None) -> Iterator[Any]:
            yield from self.answer_example(_number(event._data), most, coverage, method, layer)

        drop.upload(upload, settings, answered, **quiet)
        examples.select(pick, settings, answered, **quiet)
        for item in (most, coverage):
            item.input(self.answer_anew, [asked, most, coverage], [asked, answer], **quiet)
        for item in how:
            item.input(self.explain_anew, [asked, *how], explanation, **quiet)
        return examples

    def _explanation_controls(self) -> "list[gradio.Dropdown]":
        """Method, layer and class; and the transparency, which the browser alone sees to."""
        import gradio as gr

        layers = [(f"{layer.name} ({layer.size[0]}×{layer.size[1]})", layer.name) for layer in self.maps.layers]
        shown = next((layer.name for layer in self.maps.layers if layer.default), None)
        methods = [(spoken(method), method) for method in self.maps.methods]
        classes = [("the most probable", ANY), *((name, index) for index, name in enumerate(self.classifier.classes))]
        method = gr.Dropdown(methods, value=self.maps.methods[0], label="Method", elem_id="method")
        layer = gr.Dropdown(
            layers,
            value=shown,
            label="Layer, coarse to fine",
            elem_id="layer",
            visible=self.maps.methods[0] == "grad_cam",
        )
        target = gr.Dropdown(classes, value=ANY, label="Asked about", elem_id="target")
        transparency = gr.Slider(0, 100, 30, step=1, label="Transparency of the map, %", elem_id="transparency")
        transparency.change(
            None,
            transparency,
            None,
            js="(value) => { document.documentElement.style.setProperty('--heat', 1 - value / 100); }",
            api_visibility="private",
        )
        method.change(lambda chosen: gr.update(visible=chosen == "grad_cam"), method, layer, api_visibility="private")
        if self.maps.left_out:
            gr.HTML(draw_sentence(f"Left out: {_grouped(self.maps.left_out)}"), elem_id="left-out")
        return [method, layer, target]

    def _gallery_tab(self, right: bool) -> "list[gradio.components.Component]":
        """A gallery; the parts of it that wait for the images: what it says, its filters, its grid."""
        import gradio as gr

        name = "correct" if right else "mistakes"
        with gr.Tab("Correct" if right else "Mistakes", id=name) as tab:
            place = gr.State(0)  # here: whatever stands between two tabs upsets their numbers
            says = gr.HTML(draw_sentence(self.opening.says), elem_id=f"{name}-says")
            with gr.Row(elem_id=f"{name}-filters"):
                any_class = [("any class", ANY)]
                label = "Class" if right else "True class"
                true = gr.Dropdown(any_class, value=ANY, label=label, min_width=220, elem_id=f"{name}-true")
                predicted = gr.Dropdown(
                    any_class,
                    value=ANY,
                    label="Taken for",
                    min_width=220,
                    elem_id=f"{name}-predicted",
                    visible=not right,
                )
                order = gr.Radio(
                    [("surest first", True), ("least sure first", False)], value=True, label="Order", min_width=220
                )
                shown = gr.Radio(
                    [("the image", "image"), ("the map", "map"), ("both", "both")],
                    value="both",
                    label="Shown",
                    min_width=220,
                )
            grid = gr.HTML(js_on_load=_template("serve-pick.js"), elem_id=name)
            with gr.Row():
                before = gr.Button("‹ before", size="sm", min_width=80, elem_id=f"{name}-before")
                where = gr.HTML(elem_id=f"{name}-where")
                after = gr.Button("after ›", size="sm", min_width=80, elem_id=f"{name}-after")
            viewer = gr.HTML(js_on_load=_template("serve-view.js"), elem_id=f"{name}-viewer")
        quiet: dict[str, Any] = {"api_visibility": "private", "trigger_mode": "always_last", "show_progress": "hidden"}
        chosen, outputs = [true, predicted, order, place], [grid, where, place, before, after]

        def turn(step: int | None) -> Any:
            def work(true: int, predicted: int, order: bool, place: int) -> Iterator[Sequence[Update]]:
                wanted = Wanted(right, _index(true), _index(predicted), order)
                yield from self.turn(wanted, 0 if step is None else place + step)

            return work

        tab.select(turn(0), chosen, outputs, **quiet)
        true.input(lambda one, other: self.narrow(right, one, other), [true, predicted], predicted, **quiet).then(
            turn(None), chosen, outputs, **quiet
        )
        for item in (predicted, order):
            item.input(turn(None), chosen, outputs, **quiet)
        before.click(turn(-1), chosen, outputs, **quiet)
        after.click(turn(+1), chosen, outputs, **quiet)

        def enlarge(event: gr.EventData) -> str:
            return self.enlarge(_number(event._data))

        grid.select(enlarge, None, viewer, **quiet)
        shown.change(
            None,
            shown,
            None,
            js=f"(value) => {{ document.documentElement.dataset.{name} = value; }}",
            api_visibility="private",
        )
        return [says, true, predicted, grid, where]

    @cached_property
    def about(self) -> str:
        """The model card; drawn when the page is first opened, since its charts take a second."""
        return draw_about(model_card(known_of(self.run, self.classifier.model)))

    # ── what it does ─────────────────────────────────────────────────────────────────────────────────────────────────

    def answer_upload(
        self, found: Mapping[str, Any], most: int, coverage: float, method: str, layer: str | None
    ) -> Iterator[Sequence[Update]]:
        """Answer what a visitor dropped; then explain the answer."""
        try:
            name, pixels = read_upload(found, self.limits, self.classifier.resize)
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
            file = exhibits.answers.files[pick]
            pixels, name = exhibits.thumbnails.cached(file), f"{exhibits.name(pick)}, which shows {exhibits.true(pick)}"
        elif 0 <= pick < len(self.guests):
            name, path = f"a {self.guests[pick][0]}", self.guests[pick][1]
            pixels = resize(decode(path.read_bytes()), *self.classifier.resize)
        else:
            return
        yield from self._answered(name, pixels, most, coverage, method, layer)

    def _answered(
        self, name: str, pixels_HWC: Array, most: int, coverage: float, method: str, layer: str | None
    ) -> Iterator[Sequence[Update]]:
        """The answer as soon as there is one, then what spoke for it."""
        asked = self._ask(name, pixels_HWC, coverage)
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
        if (coverage or None) != asked.coverage:
            asked = self._ask(asked.name, asked.pixels_HWC, coverage)
        return asked, draw_answer(asked.name, asked.prediction, most, asked.coverage)

    def explain_anew(self, asked: Asked | None, method: Any, layer: str | None, target: int) -> str:
        """What spoke for a class of the image that was asked about last."""
        if asked is None:
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
            return [examples if done else "", timer, *([says, *[gr.skip()] * 4] * 2)]
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
        counts = exhibits.predicted_classes(right, _index(true))
        kept = predicted if predicted in dict(counts) else ANY
        return gr.update(choices=self._choices(counts), value=kept)

    def turn(self, wanted: Wanted, place: int) -> Iterator[Sequence[Update]]:
        """A page of a gallery: its images, and as soon as there are any their maps."""
        import gradio as gr

        exhibits = self.opening.exhibits
        if exhibits is None:
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
        """Grad-CAM of the answers to images; none where the network has no map of them."""
        if "grad_cam" in self.maps.left_out:
            return []
        pixels = [exhibits.thumbnails.cached(exhibits.answers.files[row]) for row in rows]
        return self.maps.grad_cams(pixels, exhibits.answers.predicted_N[list(rows)].tolist())

    def _choices(self, counts: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
        total = sum(count for _, count in counts)
        named = [(f"{self.classifier.classes[index]} ({count:,})", index) for index, count in counts]
        return [(f"any class ({total:,})", ANY), *named]

    def _coverages(self) -> list[tuple[str, float]]:
        """Coverages of prediction sets that the classifier can give; 0 for none."""
        found = [("none", 0.0)]
        if self.classifier.trust is not None:
            held = self.classifier.trust["sets"]["thresholds"][self.classifier.views]
            found += [(f"{100 * float(one):g} %", float(one)) for one in held]
        return found

    def _guests_shown(self) -> list[Example]:
        return [
            Example(key, name, resize(decode(path.read_bytes()), 96, 96))
            for key, (name, path) in enumerate(self.guests)
        ]


def _guests() -> list[tuple[str, Path]]:
    """Pictures that come with gradio, for a classifier that came without images."""
    import gradio

    folder = Path(gradio.__file__).parent / "media_assets" / "images"
    return [(name, folder / file) for name, file in GUESTS.items() if (folder / file).is_file()]


def _grouped(left_out: Mapping[Method, str]) -> str:
    """Methods with the reason that they share."""
    reasons = list(dict.fromkeys(left_out.values()))
    named = [", ".join(spoken(name) for name, why in left_out.items() if why == reason) for reason in reasons]
    return "; ".join(f"{names} ({why})" for names, why in zip(named, reasons, strict=True)) + "."


def _about_gallery(exhibits: Exhibits, right: bool, count: int) -> str:
    total = len(exhibits.answers.files)
    if not count:
        return f"None of its {total:,} answers is {'right' if right else 'wrong'}."
    told = f"{count:,} of its {total:,} answers to {exhibits.split} images are {'right' if right else 'wrong'}."
    return f"{told} The maps show what spoke for the answer (Grad-CAM). Click an image to enlarge it."


def _where(place: int, count: int) -> str:
    first, last = place * PAGE + 1, min((place + 1) * PAGE, count)
    return f"<p class='sl-where'>{first:,} to {last:,} of {count:,}</p>" if count else ""


def _index(value: int) -> int | None:
    return None if value == ANY else value


def _number(found: Any) -> int:
    """The number that an event names; of one that names none, what is never one."""
    pick = found.get("pick") if isinstance(found, dict) else None
    return pick if isinstance(pick, int) else -1
