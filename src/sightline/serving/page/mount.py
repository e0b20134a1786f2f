"""The page of a server, drawn by gradio: classify an image, look at right and wrong answers, read the model card.

Nothing leaves the machine, and nothing that a visitor brings is written to a file: an image travels within the event
that asks about it, and is forgotten an hour later.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.config.serving import ServeConfig
from sightline.display.pages import render
from sightline.inference.classifier import Classifier
from sightline.serving.reviewing.of_run import ReviewOfRun
from sightline.serving.reviewing.routes import review_routes
from sightline.serving.wall import Wall, forget_places_elsewhere, report_once
from sightline_runtime.serving.worker import Asker

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["mount_page"]

WEIGHTS = ".safetensors"
WAITING = 64  # events that may wait for their turn
SESSIONS = 256  # visitors whose image is remembered
LOOKS = 0.02  # seconds from one look for events that wait to the next
AT_ONCE = 4  # events of a kind that are worked on together
COLORS = {
    "--back": [
        "background_fill_primary",
        "block_background_fill",
        "block_label_background_fill",
        "input_background_fill",
    ],
    "--panel": ["background_fill_secondary", "button_secondary_background_fill", "block_label_background_fill"],
    "--line": ["border_color_primary", "button_secondary_background_fill_hover"],
    "--text": ["body_text_color", "button_secondary_text_color"],
    "--quiet": ["body_text_color_subdued", "block_label_text_color", "block_title_text_color", "checkbox_border_color"],
    "--accent": ["input_border_color_focus", "checkbox_background_color_selected", "checkbox_border_color_selected"],
}
"""Colors of ``look.css``, and which of gradio's are the same, light and dark."""
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><circle cx='16' cy='16' r='13' fill='none'"
    " stroke='#1f6f8b' stroke-width='4'/><circle cx='16' cy='16' r='5' fill='#d55e00'/></svg>"
)


def mount_page(
    app: "FastAPI",
    asker: Asker[Classifier],
    run: Path | None,
    limits: ServeConfig,
    folder: str,
    *,
    reviewed: bool = False,
) -> None:
    """Mount the page at ``/``, below what the application answers already.

    Args:
        app: the application.
        asker: asks the classifier.
        run: its folder, whose answers to test images are shown; None, or a weights file, of weights alone.
        limits: on the images that visitors bring.
        folder: for gradio's files; there should be none.
        reviewed: whether labels of the run may be decided on at ``/review``, which the guards of the application must
            protect.
    """
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "HF_HUB_DISABLE_TELEMETRY": "1"}
    import gradio  # which reads the environment

    from sightline.serving.page.events import Page
    from sightline.serving.page.layout import lay_out

    run = None if run is None or run.suffix == WEIGHTS else run
    page = Page(asker, run, limits)
    if reviewed := reviewed and run is not None:
        app.include_router(review_routes(ReviewOfRun(page.opening, run).opened))
    blocks = lay_out(page, reviewed)
    blocks.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE, api_open=False)
    blocks.state_session_capacity = SESSIONS
    blocks._queue.sleep_when_free = LOOKS  # gradio looks every millisecond, also while nobody asks
    forget_places_elsewhere(gradio.routes.templates.env)
    report_once(gradio.queueing)
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
        theme=gradio.themes.Default(font=["var(--letters)"], font_mono=["var(--code)"]).set(**_colors()),
        css=render("serve.css"),
    )
    mounted: Any = app.routes[-1]
    events = [number for number, event in blocks.fns.items() if event.fn is not None]
    mounted.app.add_middleware(Wall, events=events, icon=ICON)
    page.opening.start()  # now that nobody waits for the page


def _colors() -> dict[str, str]:
    """Return gradio's colors as those of every page."""
    names = {name: f"var({color})" for color, named in COLORS.items() for name in named}
    both = names | {f"{name}_dark": color for name, color in names.items()}
    return both | {"color_accent": "var(--accent)"}
