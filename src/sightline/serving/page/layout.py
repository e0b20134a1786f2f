"""The layout of the page, and what follows on what that is clicked."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

import gradio as gr

from sightline.display.terminal import natural_key
from sightline.reports.card import summary
from sightline.serving.exhibits import Selection
from sightline.serving.html import draw, draw_sentence, spoken
from sightline.serving.maps import Maps
from sightline.serving.page.events import ANY, Page, index_of
from sightline.serving.uploads import most_bytes

__all__ = ["lay_out", "template"]

KEPT = 3600  # seconds that a visitor's image is remembered
SWEEP = 600  # seconds from one look for old files to the next; there should be none
MOST = 20  # classes of an answer that are shown, at most
PATIENCE = 1.0  # seconds from one look for the images to the next, while they are being opened
IN_BROWSER: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
QUIET: dict[str, Any] = {**IN_BROWSER, "trigger_mode": "always_last"}
MOUNTED: dict[str, Any] = {"render_children": True}  # else what a tab gets while its parts are being made is lost
SET_TRANSPARENCY = "(value) => { document.documentElement.style.setProperty('--heat', 1 - value / 100); }"
SET_SHOWN = "(value) => {{ document.documentElement.dataset.{} = value; }}"


def template(name: str) -> str:
    """Return a file of ``templates/`` as text."""
    return files("sightline").joinpath("resources", "templates", name).read_text("utf-8")


def lay_out(page: Page, reviewed: bool = False) -> gr.Blocks:
    """Lay the page out, and say what follows on what; ``reviewed`` adds the way to the review of labels."""
    model = page.classifier.model
    title = f"sightline: {model['data']['name']}"
    blocks: gr.Blocks = gr.Blocks(title=title, analytics_enabled=False, delete_cache=(SWEEP, KEPT))
    with blocks:
        gr.HTML(draw("masthead", title="What is in the image?", about=summary(model), review=reviewed))
        with gr.Tabs(overflow_behavior="wrap"):  # nothing but tabs within: all else upsets their numbers
            with gr.Tab("Classify", id="classify"):
                examples = _classify(page)
            galleries = [_gallery(page, right) for right in (False, True)]
            with gr.Tab("About", id="about", **MOUNTED) as tab:
                about = gr.HTML(elem_id="about")
        timer = gr.Timer(PATIENCE)
        outputs = [examples, timer, *(part for waiting, _ in galleries for part in waiting)]
        tab.select(lambda: page.about, None, about, **QUIET)
        blocks.load(page.look, None, outputs, **QUIET)
        looked = timer.tick(page.look, None, outputs, **QUIET)
        for _, first_page in galleries:  # a visitor may have been waiting there
            looked.then(**first_page)
    return blocks


# ── classify ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _classify(page: Page) -> gr.HTML:
    """Lay out the first tab; return its examples, which wait for the images."""
    limits, sets, top = page.limits, page.coverages(), min(len(page.classifier.classes), MOST)
    about = (
        f"Never written to a disk, forgotten within an hour. At most {limits.max_megabytes:g} MB and"
        f" {limits.max_megapixels:g} megapixels."
    )
    zone = draw("drop_zone", most_bytes=most_bytes(limits), about=about)
    asked = gr.State(None, time_to_live=KEPT)
    with gr.Row():
        with gr.Column(min_width=300):
            drop = gr.HTML(zone, js_on_load=template("serve-drop.js"), elem_id="drop")
            examples = gr.HTML(js_on_load=template("serve-pick.js"), elem_id="examples")
        with gr.Column(min_width=300):
            answer = gr.HTML(draw_sentence("The answer will stand here."), elem_id="answer", min_height=60)
            with gr.Row():
                most = gr.Slider(1, top, min(top, 5), step=1, label="Classes shown", elem_id="most")
                coverage = gr.Dropdown(
                    sets, value=0.0, label="Prediction set", visible=len(sets) > 1, elem_id="coverage"
                )
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            explanation = gr.HTML(elem_id="explanation", min_height=40)
        with gr.Column(min_width=300):
            method, layer, target = how = _explanation_controls(page.maps, page.classifier.classes)
    settings, answered = [most, coverage, method, layer], [asked, answer, explanation, target]

    def upload(event: gr.EventData, most: int, coverage: float, method: str, layer: str | None) -> Iterator[Any]:
        content = event._data if isinstance(event._data, dict) else {}
        yield from page.answer_upload(content, most, coverage, method, layer)

    def pick(event: gr.EventData, most: int, coverage: float, method: str, layer: str | None) -> Iterator[Any]:
        yield from page.answer_example(_picked(event), most, coverage, method, layer)

    drop.upload(upload, settings, answered, **QUIET)
    examples.select(pick, settings, answered, **QUIET)
    for item in (most, coverage):
        item.input(page.answer_anew, [asked, most, coverage], [asked, answer], **QUIET)
    for item in how:
        item.input(page.explain_anew, [asked, *how], explanation, **(QUIET | {"show_progress": "minimal"}))
    return examples


def _explanation_controls(maps: Maps, classes: Sequence[str]) -> list[gr.Dropdown]:
    """Lay out method, layer and class; and the transparency, which the browser alone sees to."""
    methods = [(spoken(method), method) for method in maps.methods]
    layers = [(f"{layer.name} ({layer.size[0]}×{layer.size[1]})", layer.name) for layer in maps.layers]
    shown = next((layer.name for layer in maps.layers if layer.default), None)
    first = next(iter(maps.methods), None)
    named = sorted(((name, index) for index, name in enumerate(classes)), key=lambda item: natural_key(item[0]))
    targets = [("the most probable", ANY), *named]
    gr.HTML("<h2 class='sl-part'>What speaks for a class</h2>")
    method = gr.Dropdown(methods, value=first, label="Method", elem_id="method", visible=first is not None)
    layer = gr.Dropdown(
        layers, value=shown, label="Layer, coarse to fine", elem_id="layer", visible=first == "grad_cam"
    )
    target = gr.Dropdown(targets, value=ANY, label="Class", elem_id="target")
    transparency = gr.Slider(0, 100, 30, step=1, label="Transparency of the map, %", elem_id="transparency")
    transparency.change(None, transparency, None, js=SET_TRANSPARENCY, **IN_BROWSER)
    method.change(lambda chosen: gr.update(visible=chosen == "grad_cam"), method, layer, **QUIET)
    if maps.left_out:
        reasons: dict[str, list[str]] = {}
        for name, reason in maps.left_out.items():
            reasons.setdefault(reason, []).append(spoken(name))
        left_out = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
        gr.HTML(draw_sentence(f"Left out: {left_out}."), elem_id="left-out")
    return [method, layer, target]


# ── galleries ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _gallery(page: Page, right: bool) -> tuple[list[gr.blocks.Block], dict[str, Any]]:
    """Lay out the tab of the right, or of the wrong, answers.

    Returns:
        What waits for the images: what it says, all that it shows, its two filters; and the event that shows a page.
    """
    name = "correct" if right else "mistakes"
    with gr.Tab(name.capitalize(), id=name, **MOUNTED) as tab:
        place = gr.State(0)
        says = gr.HTML(draw_sentence(page.opening.says), elem_id=f"{name}-says")
        with gr.Column(visible=False) as body:  # until there is something to show
            true, predicted, order = _filters(name, right)
            grid = gr.HTML(js_on_load=template("serve-pick.js"), elem_id=name)
            with gr.Row():
                before = gr.Button("‹ previous", size="sm", min_width=80, elem_id=f"{name}-before")
                where = gr.HTML(elem_id=f"{name}-where", min_width=80)
                after = gr.Button("next ›", size="sm", min_width=80, elem_id=f"{name}-after")
        viewer = gr.HTML(js_on_load=template("serve-view.js"), elem_id=f"{name}-viewer")

    def turn(step: int | None) -> dict[str, Any]:
        """Return the event that shows a page so many pages on; None for the first."""

        def work(true: int, predicted: int, order: bool, place: int) -> Iterator[Sequence[Any]]:
            selection = Selection(right, index_of(true), index_of(predicted), order)
            yield from page.turn(selection, 0 if step is None else place + step)

        chosen, outputs = [true, predicted, order, place], [grid, where, place, before, after]
        return {"fn": work, "inputs": chosen, "outputs": outputs, **QUIET}

    def narrow(true: int, predicted: int) -> Any:
        return page.narrow(right, true, predicted)

    def enlarge(event: gr.EventData) -> str:
        return page.enlarge(_picked(event))

    true.input(narrow, [true, predicted], predicted, **QUIET).then(**turn(None))
    for trigger, step in (
        (tab.select, 0),
        (predicted.input, None),
        (order.input, None),
        (before.click, -1),
        (after.click, +1),
    ):
        trigger(**turn(step))
    grid.select(enlarge, None, viewer, **QUIET)
    return [says, body, true, predicted], turn(0)


def _filters(name: str, right: bool) -> tuple[gr.Dropdown, gr.Dropdown, gr.Radio]:
    """Lay out true class, answer and order; and what is shown, which the browser alone sees to."""
    wide: dict[str, Any] = {"min_width": 220}  # two on a phone would be too narrow for a name
    any_class: dict[str, Any] = {"choices": [("any class", ANY)], "value": ANY, **wide}
    with gr.Row(elem_id=f"{name}-filters"):
        true = gr.Dropdown(label="Class" if right else "True class", elem_id=f"{name}-true", **any_class)
        predicted = gr.Dropdown(  # of right answers it is the true class
            label="Taken for", elem_id=f"{name}-predicted", visible=not right, **any_class
        )
        orders = [("surest first", True), ("least sure first", False)]
        order = gr.Radio(orders, value=True, label="Order", elem_id=f"{name}-order", **wide)
        pictures = [("the image", "image"), ("the map", "map"), ("both", "both")]
        shown = gr.Radio(pictures, value="both", label="Shown", elem_id=f"{name}-shown", **wide)
    shown.change(None, shown, None, js=SET_SHOWN.format(name), **IN_BROWSER)
    return true, predicted, order


def _picked(event: gr.EventData) -> int:
    """Return the number of the picture that an event names; of one that names none, what is never one."""
    pick = event._data.get("pick") if isinstance(event._data, dict) else None
    return pick if isinstance(pick, int) else -1
