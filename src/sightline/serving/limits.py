"""What stands between a socket and the page and service: identity, log, limits of a body, origin, token. Plain ASGI.

From the outside in:

    RequestLog    gives every request an id and a line in the log; what nothing else caught becomes a 500
    BodyLimit     counts the bytes of a body while they come, and does not wait for ever
    SameSite      a page of another site may not send anything through a visitor's browser
    Token         who does not know it is told so

Answers pass through piece by piece, so that streams of events and websockets work as without.
"""

import asyncio
import hmac
import ipaddress
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

__all__ = ["BodyLimit", "Noted", "RequestLog", "SameSite", "Token", "is_loopback", "noted"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NOTED = "sightline"  # where the scope of a request holds what is noted of it
PATIENCE = 10.0  # seconds without a byte of a body that has begun
BODY_SECONDS = 120.0  # for a whole body
BESIDE = 65_536  # bytes of an event of the page beside the file that it brings, which has a third more bytes in base64
DRAINED_BYTES, DRAINED_SECONDS = (
    100_000_000,
    5.0,
)  # of a refused body that are still taken, so that its sender reads why
COOKIE_SECONDS = 30 * 24 * 3600
GONE = 499  # how the log says that the caller left before the answer
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOCAL = re.compile(r"localhost|[a-z0-9.-]+\.localhost")


@dataclass
class Noted:
    """What is known of a request, for its line in the log."""

    request_id: str
    bytes_in: int = 0
    images: int = 0


def noted(scope: Scope) -> Noted:
    """What is noted of a request."""
    found: Noted = scope[NOTED]
    return found


class RequestLog:
    """Gives each request an id, which its answer carries as ``X-Request-Id``, and one line in a log.

    A line has the time (UTC), the id, the method, the path without its query (which may hold a token), the status,
    milliseconds, bytes that came in, and the number of images; never a name of a file.
    """

    def __init__(self, app: App, log: Callable[[str], None]) -> None:
        self.app = app
        self.log = log
        self._server = secrets.token_hex(4)  # so that no two servers share an id
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = _header(scope, b"x-request-id")
        found = Noted(given if given and _ID.fullmatch(given) else f"{self._server}-{next(self._numbers)}")
        scope[NOTED] = found
        status = GONE
        start = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", found.request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # nobody is there to be answered
        except Exception:
            logging.getLogger(__name__).exception("request %s failed", found.request_id)
            if status != GONE:
                raise  # the answer has begun and cannot be taken back
            sentence = "something went wrong here; its cause is in the server's log under this request's id."
            await _refuse(scope, send_with_id, 500, sentence)
        finally:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            milliseconds = 1000 * (time.perf_counter() - start)
            parts = [now, found.request_id, scope["method"], _plain_path(scope), str(status), f"{milliseconds:.1f} ms"]
            self.log(" ".join([*parts, f"{found.bytes_in} B", f"{found.images} images"]))


class BodyLimit:
    """Counts a body while it comes: one that is too long, or that stops coming, is refused without being kept.

    An event of the page may be longer than a request of the service by what base64 adds to a file of the same size.
    A refused body is still read for a little while and thrown away, and the connection is closed behind it: a caller who
    sends all before it reads would otherwise meet a broken pipe in place of the reason.
    """

    def __init__(self, app: App, most_bytes: int, patience: float = PATIENCE, whole: float = BODY_SECONDS) -> None:
        self.app = app
        self.most_bytes = most_bytes
        self.patience = patience
        self.whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        await _Body(self, scope, receive, send).run()


class _Body:
    """One request of a ``BodyLimit``."""

    def __init__(self, limit: BodyLimit, scope: Scope, receive: Receive, send: Send) -> None:
        self.limit, self.scope, self.receive, self.send = limit, scope, receive, send
        length = _header(scope, b"content-length")
        self.length = int(length) if length and length.isdecimal() else None
        self.most_bytes = limit.most_bytes
        if not scope["path"].startswith("/api/"):
            self.most_bytes = limit.most_bytes * 4 // 3 + BESIDE
        self.whole_here = not self.length and _header(scope, b"transfer-encoding") is None
        self.begun = time.monotonic()
        self.silent = False  # whether it stopped coming
        self.refusal: tuple[int, str] | None = None
        self.answered = False  # whether the application has begun to

    async def run(self) -> None:
        if self.length is not None and self.length > self.most_bytes:
            self.refusal = 413, self.too_long(f"{self.length / 1e6:.1f} MB")
        else:
            try:
                await self.limit.app(self.scope, self.receive_counted, self.send_own)
            except Exception:
                if self.refusal is None:
                    raise
        if self.refusal is not None and not self.answered:
            await _refuse(self.scope, self.send_unhurried, *self.refusal)

    def too_long(self, found: str) -> str:
        most = self.most_bytes / 1e6
        return f"the request has {found}; at most {most:g} MB are taken: send fewer or smaller images at a time."

    async def receive_counted(self) -> Message:
        """The next piece.

        Raises:
            HTTPException: there are too many, or it does not come; whatever the application makes of this, the caller is
                told why.
        """
        if self.whole_here:
            return await self.receive()
        left = self.begun + self.limit.whole - time.monotonic()
        try:
            message = await asyncio.wait_for(self.receive(), max(0.0, min(self.limit.patience, left)))
        except TimeoutError:
            self.silent = True
            found = (
                f"the body did not come: {noted(self.scope).bytes_in} bytes in {time.monotonic() - self.begun:.0f} s"
            )
            self.refusal = 408, f"{found}; send it again, with a Content-Length that is right."
            raise HTTPException(*self.refusal) from None
        self.note(message)
        if noted(self.scope).bytes_in > self.most_bytes:
            self.refusal = 413, self.too_long("more bytes than are taken")
            raise HTTPException(*self.refusal)
        return message

    async def send_own(self, message: Message) -> None:
        """Send what the application answers, but to a body that was refused."""
        if self.refusal is None or self.answered:
            self.answered = True
            await self.send_unhurried(message)

    async def send_unhurried(self, message: Message) -> None:
        """Send; an answer to a body that is still coming does not end before that was taken."""
        if self.whole_here:
            await self.send(message)
        elif message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await self.send(message)
        elif message.get("more_body", False):
            await self.send(message)
        else:
            await self.send({**message, "more_body": True})
            await self.drain()
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def drain(self) -> None:
        """Throw away what still comes, for a while."""
        if self.silent or _header(self.scope, b"expect") is not None:  # the latter waits for a word before it sends
            return
        end = time.monotonic() + DRAINED_SECONDS
        while not self.whole_here and noted(self.scope).bytes_in < self.most_bytes + DRAINED_BYTES:
            try:
                message = await asyncio.wait_for(self.receive(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                return
            self.note(message)

    def note(self, message: Message) -> None:
        noted(self.scope).bytes_in += len(message.get("body", b""))
        self.whole_here = message["type"] == "http.disconnect" or not message.get("more_body", False)


class SameSite:
    """Refuses what a page of another site sends through a visitor's browser.

    Browsers say in ``Origin`` whose page asks; what changes something, and a websocket, must come from a page of this
    server, or from no page. A proxy in front must hand on the ``Host`` it was asked for.

    Without a token and at a loopback address, being on this machine is all that admits a caller. There a ``Host`` that is no
    name of this machine is refused: a site can point its own name at 127.0.0.1, and would then be of the same origin.
    """

    def __init__(self, app: App, local_names_only: bool) -> None:
        self.app = app
        self.local_names_only = local_names_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (sentence := self._wrong(scope)):
            return await _refuse(scope, send, 403, sentence)
        await self.app(scope, receive, send)

    def _wrong(self, scope: Scope) -> str | None:
        host = _header(scope, b"host")
        if self.local_names_only and host and not is_loopback(_name_of(host)):
            return (
                f"this server answers to names of its own machine only, not to {_shown(host)}; ask 127.0.0.1 or localhost,"
                " or start it with a token."
            )
        origin = _header(scope, b"origin")
        harmless = scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS")
        if origin is None or harmless or _authority(origin) == _authority(f"//{host or ''}"):
            return None
        return f"a page of {_shown(origin)} may not ask this server; open the server's own page."


class Token:
    """Asks every caller for a token, but for ``/api/health``.

    Programs send it as ``Authorization: Bearer``. A browser opens ``/?token=...`` once and is given a cookie that stands for
    it (not the token itself), which scripts cannot read and other sites cannot use.
    """

    def __init__(self, app: App, token: str) -> None:
        self.app = app
        self.token = token.encode()
        self.proof = hmac.new(self.token, b"sightline's page", sha256).hexdigest()
        self.cookie = f"sightline-{self.proof[:8]}"  # cookies know no ports: another server's has another name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] == "/api/health" or self._known(scope):
            return await self.app(scope, receive, send)
        query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))
        given = query.pop("token", None)
        opens = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/"
        if opens and given is not None and self._same(given.encode("utf-8", "replace")):
            cookie = f"{self.cookie}={self.proof}; Max-Age={COOKIE_SECONDS}; Path=/; HttpOnly; SameSite=Strict"
            if scope.get("scheme") == "https":
                cookie += "; Secure"
            place = "/?" + urlencode(query) if query else "/"
            headers = [(b"location", place.encode()), (b"set-cookie", cookie.encode()), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 303, "headers": [*headers, *_PRIVATE]})
            return await send({"type": "http.response.body", "body": b""})
        sent_one = given is not None or _header(scope, b"authorization") is not None
        what = "the token is wrong" if sent_one else "a token is needed"
        sentence = f"{what}; send the header `Authorization: Bearer TOKEN`, or open /?token=TOKEN once in a browser."
        await _refuse(scope, send, 401, sentence, [(b"www-authenticate", b"Bearer")])

    def _same(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self.token)

    def _known(self, scope: Scope) -> bool:
        kind, _, given = (_header(scope, b"authorization") or "").partition(" ")
        if kind.lower() == "bearer" and self._same(given.strip().encode("latin-1")):
            return True
        try:
            cookies = SimpleCookie(_header(scope, b"cookie") or "")
        except CookieError:
            return False
        found = cookies.get(self.cookie)
        return found is not None and hmac.compare_digest(found.value.encode(), self.proof.encode())


# ── parts of them ────────────────────────────────────────────────────────────────────────────────────────────────────

_PRIVATE = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


async def _refuse(
    scope: Scope, send: Send, status: int, sentence: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answer a request with an error, or close a websocket that is not open yet."""
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008, "reason": sentence[:120]})
    body = json.dumps({"error": sentence, "request_id": noted(scope).request_id}).encode()
    named = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_PRIVATE]
    await send({"type": "http.response.start", "status": status, "headers": [*named, *(headers or [])]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def is_loopback(name: str) -> bool:
    """Whether a name or address is of the machine itself, whatever the network says."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return _LOCAL.fullmatch(name.lower()) is not None


def _name_of(host: str) -> str:
    """The name or address in a ``Host`` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _authority(url: str) -> tuple[str, int | None] | None:
    """The name and port that a URL leads to; None where it leads nowhere, as the origin ``null``.

    A port that its scheme implies is None, and of a ``Host``, which has no scheme, both of these: a proxy may turn the one
    scheme into the other.
    """
    try:
        parts = urlsplit(url)
        implied = {"http": (80,), "https": (443,), "": (80, 443)}.get(parts.scheme, ())
        return (parts.hostname, None if parts.port in implied else parts.port) if parts.hostname else None
    except ValueError:
        return None


def _header(scope: Scope, name: bytes) -> str | None:
    """The first value of a header."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def _plain_path(scope: Scope) -> str:
    """The path as it was sent, without its query; nothing in it can begin another line."""
    raw = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    return _shown(raw.partition(b"?")[0].decode("latin-1")).replace(" ", "%20")


def _shown(text: str) -> str:
    """What a stranger sent, fit for a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
