"""A wall around the library that draws the page: visitors reach what the page needs of it, and nothing else.

gradio answers many more addresses than a page needs: it takes files and keeps them, fetches addresses that it is sent, tells of
its parts. This wall lets through the page, its scripts and its events, holds events to a size, refuses those that
bring files or addresses with them, and forbids the browser to load anything from elsewhere.
"""

import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["Wall"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
log = logging.getLogger(__name__)

EVENTS, STREAM = "/gradio_api/queue/join", "/gradio_api/queue/data"
FILES = re.compile(
    r"/|/config/?|/theme\.css|/gradio_api/theme\.css|/gradio_api/startup-events|/gradio_api/app_id"
    r"|/gradio_api/queue/data|/gradio_api/heartbeat/\w+|/assets/(?:[\w-]+[./])*\w+|/static/js/[\w.-]+"
)
POSTS = frozenset({EVENTS, "/gradio_api/cancel", "/gradio_api/reset"})
PARTS = frozenset({"data", "event_data", "fn_index", "trigger_id", "session_hash"})  # of an event
SESSION = re.compile(r"[a-z0-9]{1,32}")
BESIDE = 65_536  # bytes of an event, beside the file that it may bring
ELSEWHERE = re.compile(rb'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>|<link rel="manifest"[^>]*>')
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self';"
    " form-action 'self'; frame-ancestors 'self'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class Wall:
    """An ASGI application around another one; see above."""

    def __init__(self, app: App, events: int, most_bytes: int, icon: str) -> None:
        """
        Args:
            app: what is within.
            events: how many different ones the page has.
            most_bytes: of a file that an event brings.
            icon: of the page, as SVG.
        """
        self.app = app
        self.events = events
        self.icon = icon.encode()
        self.most_bytes = most_bytes * 4 // 3 + BESIDE  # in base64 a file has a third more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path = str(scope["path"])
        if scope["method"] in ("GET", "HEAD") and FILES.fullmatch(path):
            await self._hand_out(scope, receive, send, path)
        elif path == "/favicon.ico":
            await _answer(send, 200, b"image/svg+xml", self.icon)
        elif scope["method"] == "POST" and path in POSTS:
            await self._hand_in(scope, receive, send)
        else:
            await _refuse(send, 404, "there is nothing here")

    async def _hand_out(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        """Hand on a question for a file; of the page itself, take out what names places elsewhere."""
        whole = path == "/"
        if whole:
            scope["headers"] = [item for item in scope["headers"] if item[0] != b"accept-encoding"]
        begun: Message = {}
        body = bytearray()

        async def pass_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
                if whole:
                    begun.update(message)
                    return
            elif whole and message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                page = ELSEWHERE.sub(b"", bytes(body))
                kept = [item for item in begun["headers"] if item[0].lower() != b"content-length"]
                await send({**begun, "headers": [*kept, (b"content-length", str(len(page)).encode())]})
                message = {"type": "http.response.body", "body": page}
            await send(message)

        try:
            await self.app(scope, receive, pass_on)
        except Exception as error:
            if path != STREAM:
                raise
            log.info("a stream of events broke off: %r", error)  # gradio raises within one that nobody began
            await send({"type": "http.response.body", "body": b""})

    async def _hand_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read what an event brings, and hand it on where it is small and holds plain values only."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the visitor is gone
            body.extend(message.get("body", b""))
            if len(body) > self.most_bytes:
                await _refuse(send, 413, "the event is too large")
                return
            if not message.get("more_body"):
                break
        if scope["path"] == EVENTS and not _is_plain(bytes(body), self.events):
            await _refuse(send, 422, "the event brings what this page has no use for")
            return
        read = False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, again, send)


def _is_plain(body: bytes, events: int) -> bool:
    """Whether an event is one of the page, whose values are texts, numbers and the like: an object could name a file, or
    an address to fetch."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(event, dict) or not event.keys() <= PARTS:
        return False
    number, session, values = (event.get(part) for part in ("fn_index", "session_hash", "data"))
    return (
        isinstance(number, int)
        and 0 <= number < events
        and isinstance(session, str)
        and SESSION.fullmatch(session) is not None
        and isinstance(values, list)
        and all(value is None or isinstance(value, str | int | float) for value in values)
    )


async def _refuse(send: Send, status: int, why: str) -> None:
    await _answer(send, status, b"application/json", json.dumps({"error": why}).encode())


async def _answer(send: Send, status: int, kind: bytes, content: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
