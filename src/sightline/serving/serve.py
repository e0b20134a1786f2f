"""Serve a finished classifier: a page to look at, and a service to call."""

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np

from sightline.config.serving import ServeConfig
from sightline.display.events import Serving
from sightline.display.reporting import Listener, ignore, reporting
from sightline.inference.predict import about_box, is_exported, load, load_exported
from sightline.machine.extras import require
from sightline.runs.folder import read_model_of_finished
from sightline.runs.hub import weights_of
from sightline_runtime.serving.listening import address_of, answer_at, ended_by_sigterm, listening
from sightline_runtime.serving.serve import answer_exported

__all__ = ["serve"]

LAST_PATIENCE = 0.5  # seconds that are then left to what the network is doing


@reporting
def serve(
    run: str | os.PathLike[str] | None = None,
    *,
    settings: ServeConfig | None = None,
    precision: Literal["float32", "auto", "bfloat16", "float16"] | None = None,
    trust_code: bool = False,
    on_event: Listener = ignore,
) -> None:
    """Serve a finished classifier: a page to try it in a browser, and a service to call from programs.

    The page is at ``/``, the service below ``/api``; it answers until it is stopped. Labels of the run's own test
    images that look wrong are decided on at ``/review``, from this machine or with the token; decisions go to
    corrections.csv in the run's folder. An exported file has the service alone.

    Args:
        run: Folder of a finished run, its model.safetensors alone, its exported model.onnx, or
            hf:OWNER/NAME[@REVISION] of the hub; without it the example classifier, which tells the ten classes of
            CIFAR-10 apart.
        settings: Where to listen, whom to answer, and how much to take at once.
        precision: Number format of the arithmetic; that which the classifier was calibrated in unless named. auto takes
            bfloat16 where it is fast; probabilities then differ by some hundredths.
        trust_code: Run the code of the repository that a network of torch.hub is built by.
        on_event: Called with each event (``display/events.py``), such as the address as soon as callers are let in;
            unless named, only a notebook shows them.
    Raises:
        ConfigError: the address cannot be listened at, or the network needs a library that is missing.
        RunError: no run, or not finished.
    """
    settings = settings or ServeConfig()
    if run is not None and is_exported(run):
        require("fastapi", "app", "sightline serve")
        loading = partial(load_exported, run, trust_code=trust_code, precision=precision)
        return answer_exported(loading, settings, partial(_say, on_event, os.fspath(run)))
    require("gradio", "app", "sightline serve")
    folder_of_run = None if run is None else weights_of(run, on_event)
    if folder_of_run is not None and folder_of_run.suffix != ".safetensors":
        read_model_of_finished(folder_of_run)
    with ended_by_sigterm() as signals, listening(settings) as listener:  # a taken port is refused before all else
        classifier = load(folder_of_run, trust_code=trust_code, precision=precision)

        from sightline.machine.devices import keep_freed_memory
        from sightline.serving.page.mount import mount_page
        from sightline.serving.reviewing.server import may_be_reviewed_at
        from sightline.serving.service import build_service
        from sightline_runtime.serving.connections import BACKLOG
        from sightline_runtime.serving.worker import Asker

        keep_freed_memory()
        classifier.answers(np.zeros((1, *classifier.resize, 3), np.uint8))  # the first answer is slow
        asker = Asker(classifier)
        try:
            with tempfile.TemporaryDirectory(prefix="sightline-page-") as folder:  # nothing should be written there
                app = build_service(asker, settings)
                mount_page(app, asker, folder_of_run, settings, folder, reviewed=may_be_reviewed_at(settings))
                listener.listen(BACKLOG)
                on_event(Serving(address_of(listener, settings), _about(run, classifier.model)))
                answer_at(listener, app)
        finally:
            if not asker.close(LAST_PATIENCE) and signals:
                os._exit(128 + signals[0])  # Python itself would wait for what the network is doing


def _say(on_event: Listener, file: str, address: str, about: str) -> None:
    on_event(Serving(address, f"{file}: {about}", service=False))  # the address is the service's


def _about(run: str | os.PathLike[str] | None, model: Mapping[str, Any]) -> str:
    if run is None:
        return about_box()
    metrics = model.get("metrics")
    accuracy = f", accuracy {metrics['accuracy']:.4f}, n = {metrics['n']:,}" if metrics else ""
    return f"{os.fspath(run)}: {len(model['classes'])} classes{accuracy}"
