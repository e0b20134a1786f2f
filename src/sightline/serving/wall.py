"""The wall around gradio: it lets through what the page needs of it, and nothing else.

gradio answers many more addresses than a page needs: it takes files and keeps them, fetches addresses that it is sent,
tells of its parts. This wall lets through the page, its scripts and its events; refuses events that bring files or
addresses with them; and forbids the browser to load anything from elsewhere.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Wall", "forget_places_elsewhere", "report_once"]

log = logging.getLogger(__name__)

EVENTS = "/gradio_api/queue/join"
FILES = re.compile(
    r"/|/config/?|/theme\.css|/gradio_api/theme\.css|/gradio_api/startup-events|/gradio_api/app_id"
    r"|/assets/(?:[\w-]+[./])*\w+|/static/js/[\w.-]+"
)
STREAMS = re.compile(r"/gradio_api/queue/data|/gradio_api/heartbeat/\w+")
MOST_STREAMS = 256  # that are open at a time; a tab of a browser has one or two
POSTS = frozenset({EVENTS, "/gradio_api/cancel", "/gradio_api/reset"})
PARTS = frozenset({"data", "event_data", "fn_index", "trigger_id", "session_hash"})  # of an event
SESSION = re.compile(r"[a-z0-9]{1,32}")
ELSEWHERE = re.compile(r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>|<link rel="manifest"[^>]*>')
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self';"
        " form-action 'self'; frame-ancestors 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


def forget_places_elsewhere(environment: Any) -> None:
    """Take what names places elsewhere out of gradio's page, in the Jinja environment that draws it."""
    from jinja2 import DictLoader

    name = "frontend/index.html"
    source = environment.loader.get_source(environment, name)[0]
    environment.loader = DictLoader({name: ELSEWHERE.sub("", source)})


def report_once(queueing: Any) -> None:
    """Let gradio's queue write no traceback where it refuses an event's values: visitors could fill the log."""

    def report() -> None:
        error = sys.exc_info()[1]
        if any(
            frame.name == "preprocess_data" for frame in traceback.extract_tb(error.__traceback__ if error else None)
        ):
            log.info("an event brought what this page has no use for: %s", error)
        else:
            traceback.print_exc()

    queueing.traceback = SimpleNamespace(print_exc=report)


class Wall:
    """An ASGI application around another one; see above."""

    def __init__(self, app: ASGIApp, events: Collection[int], icon: str) -> None:
        """
        Args:
            app: what is within.
            events: numbers of those of the page that the server sees to.
            icon: of the page, as SVG.
        """
        self.app = app
        self.events = events
        self.icon = icon
        self.streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return
        path, request = str(scope["path"]), Request(scope, receive)
        answer: ASGIApp = JSONResponse({"error": "there is nothing here"}, 404, HEADERS)
        if scope["method"] in ("GET", "HEAD"):
            if path == "/favicon.ico":
                answer = Response(self.icon, 200, HEADERS, "image/svg+xml")
            elif FILES.fullmatch(path):
                answer = self.app
            elif STREAMS.fullmatch(path):
                answer = self._stream
        elif scope["method"] == "POST" and path in POSTS:
            body = await request.body()
            receive = _again(body, receive)
            answer = self.app
            if path == EVENTS and not _is_plain(body, self.events):
                answer = JSONResponse({"error": "the event brings what this page has no use for"}, 422, HEADERS)

        async def send_with_policy(message: Message) -> None:
            if answer in (self.app, self._stream) and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *RAW_HEADERS]
            await send(message)

        await answer(scope, receive, send_with_policy)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a stream of events on, unless there are too many."""
        if self.streams >= MOST_STREAMS:
            refusal = JSONResponse({"error": "too many pages are open; try again later"}, 503, {"Retry-After": "2"})
            return await refusal(scope, receive, send)
        self.streams += 1
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            log.info("a stream of events broke off: %r", error)  # gradio raises within one that nobody began
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.streams -= 1


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read once more, and then what comes behind it."""
    bodies: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return bodies.pop() if bodies else await receive()

    return receive_again


def _is_plain(body: bytes, events: Collection[int]) -> bool:
    """Return whether an event is the page's and its values are plain: an object could name a file, or an address."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(event, dict) or not event.keys() <= PARTS:
        return False
    number, session, values = (event.get(part) for part in ("fn_index", "session_hash", "data"))
    return (
        isinstance(number, int)
        and number in events
        and isinstance(session, str)
        and SESSION.fullmatch(session) is not None
        and isinstance(values, list)
        and all(value is None or isinstance(value, str | int | float) for value in values)
    )
