"""Listen at an address and answer there until the server is ended."""

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING
from urllib.parse import quote

from sightline_runtime.errors import ConfigError
from sightline_runtime.serving.settings import Address

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

__all__ = ["address_of", "answer_at", "ended_by_sigterm", "listening"]

PATIENCE = 2  # seconds in which answers that were begun are finished when the server ends


def answer_at(listener: socket.socket, app: "FastAPI") -> None:
    """Let an application answer at a socket that listens, until a signal ends it.

    In a notebook that is the interruption of the cell, and no error.
    """
    import uvicorn

    from sightline_runtime.serving.connections import BACKLOG, Connection

    config = uvicorn.Config(
        app,
        http=Connection,
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
    )
    server = uvicorn.Server(config)
    if _within_a_loop():
        _answer_from_a_thread(server, listener)
    else:
        server.run(sockets=[listener])


def _within_a_loop() -> bool:
    """Tell whether this thread runs an event loop already, as the kernel of a notebook does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _answer_from_a_thread(server: "uvicorn.Server", listener: socket.socket) -> None:
    """Let a server answer from a thread with a loop of its own, until Ctrl-C."""
    ended = threading.Event()  # a thread that is joined passes for ended once Ctrl-C came, before Python 3.13

    def answer() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            ended.set()

    try:
        threading.Thread(target=answer).start()  # within, since it waits for the thread, which may answer before
        ended.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.should_exit = True
        ended.wait()


@contextmanager
def listening(settings: Address) -> Iterator[socket.socket]:
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
            # a server that ended just now does not count; on Windows one that is running would not, either
            sole = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
            listener.setsockopt(socket.SOL_SOCKET, sole, 1)
            listener.bind(address)
        except OSError as error:
            hint = f"cannot be listened at ({error.strerror})"
            if error.errno == errno.EADDRINUSE:
                hint = "is in use; name another --port, or 0 for a free one"
            raise ConfigError(f"{where} {hint}.") from error
        yield listener


def address_of(listener: socket.socket, settings: Address) -> str:
    """Return what one types into a browser, with the token where one is asked for."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    token = "" if settings.token is None else f"?token={quote(settings.token, safe='')}"
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/{token}"


@contextmanager
def ended_by_sigterm() -> Iterator[list[int]]:
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
