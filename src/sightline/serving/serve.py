"""Serve a finished classifier: a page to look at, and a service to call."""

import errno
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from sightline.config.serving import ServeConfig
from sightline.display.events import Serving
from sightline.display.reporting import Listener, ignore, reporting
from sightline.errors import ConfigError
from sightline.inference.predict import about_box, load
from sightline.machine.extras import require
from sightline.runs.folder import read_model_of_finished

__all__ = ["serve"]

PATIENCE = 2  # seconds in which answers that were begun are finished when the server ends
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

    The page is at ``/``, the service below ``/api``; it answers until it is stopped.

    Args:
        run: Folder of a finished run, or its model.safetensors alone; without it the example classifier, which tells
            the ten classes of CIFAR-10 apart.
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
    require("gradio", "app", "sightline serve")
    if run is not None and not os.fspath(run).endswith(".safetensors"):
        read_model_of_finished(run)
    settings = settings or ServeConfig()
    with _ended_by_sigterm() as signals, _listening(settings) as listener:  # a taken port is refused before all else
        classifier = load(run, trust_code=trust_code, precision=precision)
        import uvicorn

        from sightline.machine.devices import keep_freed_memory
        from sightline.serving.connections import BACKLOG, Connection
        from sightline.serving.page.mount import mount_page
        from sightline.serving.service import build_service
        from sightline.serving.worker import Asker

        keep_freed_memory()
        classifier.answers(np.zeros((1, *classifier.resize, 3), np.uint8))  # the first answer is slow
        asker = Asker(classifier)
        try:
            with tempfile.TemporaryDirectory(prefix="sightline-page-") as folder:  # nothing should be written there
                app = build_service(asker, settings)
                mount_page(app, asker, None if run is None else Path(run), settings, folder)
                listener.listen(BACKLOG)
                on_event(Serving(_address(listener, settings), _about(run, classifier.model)))
                config = uvicorn.Config(
                    app,
                    http=Connection,
                    backlog=BACKLOG,
                    log_level="warning",
                    access_log=False,
                    server_header=False,
                    timeout_graceful_shutdown=PATIENCE,
                )
                uvicorn.Server(config).run(sockets=[listener])
        finally:
            if not asker.close(LAST_PATIENCE) and signals:
                os._exit(128 + signals[0])  # Python itself would wait for what the network is doing


def _about(run: str | os.PathLike[str] | None, model: Mapping[str, Any]) -> str:
    if run is None:
        return about_box()
    metrics = model.get("metrics")
    accuracy = f", accuracy {metrics['accuracy']:.4f}, n = {metrics['n']:,}" if metrics else ""
    return f"{os.fspath(run)}: {len(model['classes'])} classes{accuracy}"


@contextmanager
def _listening(settings: ServeConfig) -> Iterator[socket.socket]:
    """Open a socket at the address that is named, of which nobody is let in yet.

    Raises:
        ConfigError: the address is taken, is not this machine's, or may not be listened at.
    """
    where = f"--host {settings.host} --port {settings.port}"
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        # asyncio sends small packets at once only on sockets that say that they are TCP: 40 ms an answer
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        hint = "there is no such address; 127.0.0.1 is this machine, 0.0.0.0 every network."
        raise ConfigError(f"{where}: {hint}") from error
    with listener:
        try:
            listener.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # a server that ended just now does not count
            listener.bind(address)
        except OSError as error:
            hint = f"cannot be listened at ({error.strerror})"
            if error.errno == errno.EADDRINUSE:
                hint = "is in use; name another --port, or 0 for a free one"
            raise ConfigError(f"{where} {hint}.") from error
        yield listener


def _address(listener: socket.socket, settings: ServeConfig) -> str:
    """Return what one types into a browser, with the token where one is asked for."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    token = "" if settings.token is None else f"?token={quote(settings.token, safe='')}"
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/{token}"


@contextmanager
def _ended_by_sigterm() -> Iterator[list[int]]:
    """Let the signal by which service managers end a program unwind it; give the signals that came."""
    came: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        came.append(number)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # of which alone signals can be caught
        yield came
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
