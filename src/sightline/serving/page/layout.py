"""How the page is laid out, and what follows on what that is clicked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sightline.config import Method
from sightline.display.terminal import natural_key
from sightline.serving.card import summary
from sightline.serving.exhibits import Wanted
from sightline.serving.html import draw_drop_zone, draw_masthead, draw_sentence, spoken
from sightline.serving.page.events import ANY, Page, index_of
from sightline.serving.uploads import most_bytes

if TYPE_CHECKING:
    import gradio

__all__ = ["lay_out", "template"]

KEPT = 3600  # seconds that a visitor's image is remembered
SWEEP = 600  # seconds from one look for old files to the next; there should be none
MOST = 20  # classes of an answer that are shown, at most
PATIENCE = 1.0  # seconds from one look for the images to the next, while they are being opened
QUIET: dict[str, Any] = {"api_visibility": "private", "trigger_mode": "always_last", "show_progress": "hidden"}
IN_BROWSER: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
SET_TRANSPARENCY = "(value) => { document.documentElement.style.setProperty('--heat', 1 - value / 100); }"
SET_SHOWN = "(value) => {{ document.documentElement.dataset.{} = value; }}"


@dataclass(frozen=True)
class Gallery:
    """The parts of a gallery that others of the page see to."""

    waiting: "Sequence[gradio.blocks.Block]"
    """What it says, all that it shows, within it two filters, the grid and the place: what waits for the images."""
    turn: Callable[..., Iterator[Sequence[Any]]]
    """Shows the same page again, with maps."""
    chosen: "Sequence[gradio.components.Component]"
    outputs: "Sequence[gradio.components.Component]"


def template(name: str) -> str:
    """A file of ``templates/`` as text."""
    return files("sightline").joinpath("resources", "templates", name).read_text("utf-8")


def lay_out(page: Page) -> "gradio.Blocks":
    """Lay the page out, and say what follows on what."""
    import gradio as gr

    name = page.classifier.model["data"]["name"]
    blocks: gr.Blocks = gr.Blocks(title=f"sightline: {name}", analytics_enabled=False, delete_cache=(SWEEP, KEPT))
    with blocks:
        gr.HTML(draw_masthead("What is in the image?", summary(page.classifier.model)))
        with gr.Tabs(overflow_behavior="wrap"):  # nothing but tabs within: all else upsets their numbers
            with gr.Tab("Classify", id="classify"):
                examples = _classify(page)
            galleries = [_gallery(page, right) for right in (False, True)]
            with gr.Tab("About", id="about") as tab:
                about = gr.HTML(elem_id="about")
        timer = gr.Timer(PATIENCE)
        outputs = [examples, timer, *(part for one in galleries for part in one.waiting)]
        tab.select(lambda: page.about, None, about, **QUIET)
        blocks.load(page.look, None, outputs, **QUIET)
        looked = timer.tick(page.look, None, outputs, **QUIET)
        for one in galleries:  # a visitor may have been waiting there
            looked.then(one.turn, one.chosen, one.outputs, **QUIET)
    return blocks


# ── classify ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _classify(page: Page) -> "gradio.HTML":
    """The first tab; its examples, which wait for the images."""
    import gradio as gr

    limits, classes, sets = page.limits, page.classifier.classes, page.coverages()
    about = (
        f"Never written to a disk, forgotten within an hour. At most {limits.max_megabytes:g} MB and"
        f" {limits.max_megapixels:g} megapixels."
    )
    zone = draw_drop_zone(most_bytes(limits), about)
    asked = gr.State(None, time_to_live=KEPT)
    with gr.Row():
        with gr.Column(min_width=300):
            drop = gr.HTML(zone, js_on_load=template("serve-drop.js"), elem_id="drop")
            examples = gr.HTML(js_on_load=template("serve-pick.js"), elem_id="examples")
        with gr.Column(min_width=300):
            answer = gr.HTML(draw_sentence("The answer will stand here."), elem_id="answer", min_height=60)
            with gr.Row():
                top = min(len(classes), MOST)
                most = gr.Slider(1, top, min(top, 5), step=1, label="Classes shown", elem_id="most")
                coverage = gr.Dropdown(
                    sets, value=0.0, label="Prediction set", visible=len(sets) > 1, elem_id="coverage"
                )
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            explanation = gr.HTML(elem_id="explanation", min_height=40)
        with gr.Column(min_width=300):
            method, layer, target = how = _explanation_controls(page)
    settings, answered = [most, coverage, method, layer], [asked, answer, explanation, target]

    def upload(event: gr.EventData, most: int, coverage: float, method: str, layer: str | None) -> Iterator[Any]:
        found = event._data if isinstance(event._data, dict) else {}
        yield from page.answer_upload(found, most, coverage, method, layer)

    def pick(event: gr.EventData, most: int, coverage: float, method: str, layer: str | None) -> Iterator[Any]:
        yield from page.answer_example(_picked(event._data), most, coverage, method, layer)

    drop.upload(upload, settings, answered, **QUIET)
    examples.select(pick, settings, answered, **QUIET)
    for item in (most, coverage):
        item.input(page.answer_anew, [asked, most, coverage], [asked, answer], **QUIET)
    for item in how:
        item.input(page.explain_anew, [asked, *how], explanation, **(QUIET | {"show_progress": "minimal"}))
    return examples


def _explanation_controls(page: Page) -> "list[gradio.Dropdown]":
    """Method, layer and class; and the transparency, which the browser alone sees to."""
    import gradio as gr

    maps = page.maps
    methods = [(spoken(method), method) for method in maps.methods]
    layers = [(f"{layer.name} ({layer.size[0]}×{layer.size[1]})", layer.name) for layer in maps.layers]
    shown = next((layer.name for layer in maps.layers if layer.default), None)
    classes = [
        ("the most probable", ANY),
        *sorted(
            ((name, index) for index, name in enumerate(page.classifier.classes)), key=lambda item: natural_key(item[0])
        ),
    ]
    first = maps.methods[0] if maps.methods else None
    gr.HTML("<h2 class='sl-part'>What speaks for a class</h2>")
    method = gr.Dropdown(methods, value=first, label="Method", elem_id="method", visible=first is not None)
    layer = gr.Dropdown(
        layers, value=shown, label="Layer, coarse to fine", elem_id="layer", visible=first == "grad_cam"
    )
    target = gr.Dropdown(classes, value=ANY, label="Class", elem_id="target")
    transparency = gr.Slider(0, 100, 30, step=1, label="Transparency of the map, %", elem_id="transparency")
    transparency.change(None, transparency, None, js=SET_TRANSPARENCY, **IN_BROWSER)
    method.change(lambda chosen: gr.update(visible=chosen == "grad_cam"), method, layer, **QUIET)
    if maps.left_out:
        gr.HTML(draw_sentence(f"Left out: {_grouped(maps.left_out)}"), elem_id="left-out")
    return [method, layer, target]


# ── galleries ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _gallery(page: Page, right: bool) -> Gallery:
    """The tab of the right, or of the wrong, answers."""
    import gradio as gr

    name = "correct" if right else "mistakes"
    with gr.Tab("Correct" if right else "Mistakes", id=name) as tab:
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
    chosen, outputs = [true, predicted, order, place], [grid, where, place, before, after]

    def turn(step: int | None) -> Callable[..., Iterator[Sequence[Any]]]:
        """So many pages on; None for the first."""

        def work(true: int, predicted: int, order: bool, place: int) -> Iterator[Sequence[Any]]:
            wanted = Wanted(right, index_of(true), index_of(predicted), order)
            yield from page.turn(wanted, 0 if step is None else place + step)

        return work

    def narrow(true: int, predicted: int) -> Any:
        return page.narrow(right, true, predicted)

    def enlarge(event: gr.EventData) -> str:
        return page.enlarge(_picked(event._data))

    tab.select(turn(0), chosen, outputs, **QUIET)
    narrowed = true.input(narrow, [true, predicted], predicted, **QUIET)
    narrowed.then(turn(None), chosen, outputs, **QUIET)
    for item in (predicted, order):
        item.input(turn(None), chosen, outputs, **QUIET)
    before.click(turn(-1), chosen, outputs, **QUIET)
    after.click(turn(+1), chosen, outputs, **QUIET)
    grid.select(enlarge, None, viewer, **QUIET)
    return Gallery([says, body, true, predicted, grid, where], turn(0), chosen, outputs)


def _filters(name: str, right: bool) -> "tuple[gradio.Dropdown, gradio.Dropdown, gradio.Radio]":
    """True class, answer and order; and what is shown, which the browser alone sees to."""
    import gradio as gr

    wide: dict[str, Any] = {"min_width": 220}  # two on a phone would be too narrow for a name
    nothing_yet = [("any class", ANY)]
    with gr.Row(elem_id=f"{name}-filters"):
        label = "Class" if right else "True class"
        true = gr.Dropdown(nothing_yet, value=ANY, label=label, elem_id=f"{name}-true", **wide)
        predicted = gr.Dropdown(  # of right answers it is the true class
            nothing_yet, value=ANY, label="Taken for", elem_id=f"{name}-predicted", visible=not right, **wide
        )
        orders = [("surest first", True), ("least sure first", False)]
        order = gr.Radio(orders, value=True, label="Order", elem_id=f"{name}-order", **wide)
        pictures = [("the image", "image"), ("the map", "map"), ("both", "both")]
        shown = gr.Radio(pictures, value="both", label="Shown", elem_id=f"{name}-shown", **wide)
    shown.change(None, shown, None, js=SET_SHOWN.format(name), **IN_BROWSER)
    return true, predicted, order


def _grouped(left_out: Mapping[Method, str]) -> str:
    """Methods with the reason that they share."""
    reasons = list(dict.fromkeys(left_out.values()))
    named = [", ".join(spoken(name) for name, why in left_out.items() if why == reason) for reason in reasons]
    return "; ".join(f"{names} ({why})" for names, why in zip(named, reasons, strict=True)) + "."


def _picked(found: Any) -> int:
    """The number of the picture that an event names; of one that names none, what is never one."""
    pick = found.get("pick") if isinstance(found, dict) else None
    return pick if isinstance(pick, int) else -1
