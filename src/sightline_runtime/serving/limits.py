"""Guards between a socket and the page and service: identity, log, limits of a body, origin, token. Plain ASGI.

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
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from itertools import count
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sightline_runtime.serving.settings import ServiceLimits

__all__ = [
    "PRIVATE",
    "UNFINISHED_LINES",
    "BodyLimit",
    "Noted",
    "RequestLog",
    "SameSite",
    "Token",
    "add_guards",
    "is_loopback",
    "noted",
    "plain",
]

NOTED = "sightline"  # where the scope of a request holds what is noted of it
PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}  # headers
PATIENCE = 10.0  # seconds without a byte of a body that has begun
BODY_SECONDS = 120.0  # for a whole body
BESIDE = 65_536  # bytes of an event of the page beside the file that it brings, which has a third more bytes in base64
BODIES_AT_ONCE = 64  # of the largest size, that are held in memory together
RETRY_SECONDS = "2"  # after which one who is refused for now may ask again
COOKIE_SECONDS = 30 * 24 * 3600
GONE = 499  # how the log says that the caller left before the answer
UNFINISHED_LINES = 100  # of a minute, on requests that were never whole
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOCAL = re.compile(r"localhost|[a-z0-9.-]+\.localhost")


def add_guards(app: Starlette, limits: ServiceLimits, log: Callable[[str], None]) -> None:
    """Put an application behind its guards; ``log`` is given a line for each request."""
    # the last one added is the outermost
    if limits.token is not None:
        app.add_middleware(Token, token=limits.token)
    app.add_middleware(SameSite, local_names_only=limits.token is None and is_loopback(limits.host))
    app.add_middleware(BodyLimit, most_bytes=int(limits.max_megabytes * 1e6))
    app.add_middleware(RequestLog, log=log)


@dataclass
class Noted:
    """Facts of a request, for its line in the log."""

    request_id: str
    bytes_in: int = 0
    images: int = 0


def noted(scope: Scope) -> Noted:
    """Return what is noted of a request."""
    facts: Noted = scope[NOTED]
    return facts


class RequestLog:
    """Gives each request an id, which its answer carries as ``X-Request-Id``, and one line in a log.

    A line has the time (UTC), the id, the method, the path without its query (which may hold a token), the status,
    milliseconds, bytes that came in, and the number of images; never a name of a file. Of many requests that were never
    whole in one minute only the first have a line, and the next line that is written has the number of the others.
    """

    def __init__(self, app: ASGIApp, log: Callable[[str], None]) -> None:
        self.app = app
        self.log = log
        self._server = secrets.token_hex(4)  # so that no two servers share an id
        self._numbers = count(1)
        self._minute = self._unfinished = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        own = Headers(scope=scope).get("x-request-id", "")
        facts = scope[NOTED] = Noted(own if _ID.fullmatch(own) else f"{self._server}-{next(self._numbers)}")
        status, begun = GONE, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", facts.request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # nobody is there to be answered
        except asyncio.CancelledError:  # at the end of the server
            if status == GONE:
                await _refuse(scope, receive, send_with_id, 503, "the server is stopping; ask again when it is back.")
        except Exception:
            logging.getLogger(__name__).exception("request %s failed", facts.request_id)
            if status != GONE:
                raise  # the answer has begun and cannot be taken back
            sentence = "something went wrong here; its cause is in the server's log under this request's id."
            await _refuse(scope, receive, send_with_id, 500, sentence)
        finally:
            raw = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
            path = plain(raw.partition(b"?")[0].decode("latin-1"), 200).replace(" ", "%20")
            milliseconds = 1000 * (time.perf_counter() - begun)
            declared = Headers(scope=scope).get("content-length", "")
            whole = status not in (GONE, 408) and not (declared.isdecimal() and int(declared[:19]) > facts.bytes_in)
            self._write(
                whole,
                f"{facts.request_id} {scope['method']} {path} {status} {milliseconds:.1f} ms {facts.bytes_in} B"
                f" {facts.images} images",
            )

    def _write(self, whole: bool, line: str) -> None:
        now, minute = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), int(time.time() // 60)
        if minute != self._minute:
            if (left_out := self._unfinished - UNFINISHED_LINES) > 0:
                self.log(f"{now} {left_out:,} more requests in an earlier minute were never whole")
            self._minute, self._unfinished = minute, 0
        self._unfinished += not whole
        if whole or self._unfinished <= UNFINISHED_LINES:
            self.log(f"{now} {line}")


class BodyLimit:
    """Counts a body while it comes: one that is too long, or that stops coming, is refused without being kept.

    An event of the page may be longer than a request of the service by what base64 adds to a file of the same size.
    What still comes of a refused body is thrown away by uvicorn, so that a caller who sends all before it reads meets
    the reason, not a broken pipe.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, patience: float = PATIENCE, whole: float = BODY_SECONDS) -> None:
        self.app = app
        self.most_bytes = most_bytes
        self.patience = patience
        self.whole = whole
        self.held = 0
        """Bytes of all requests that are being read or answered."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        most = self.most_bytes if scope["path"].startswith("/api/") else self.most_bytes * 4 // 3 + BESIDE
        facts, headers, begun = noted(scope), Headers(scope=scope), time.monotonic()
        length = int(headers["content-length"]) if headers.get("content-length", "").isdecimal() else 0
        coming = bool(length) or "transfer-encoding" in headers
        refusal: HTTPException | None = None
        answered = False  # whether the application has begun to

        def refuse(status: int, sentence: str) -> None:
            """Refuse the request; whatever the application makes of this, the caller is told why."""
            nonlocal refusal
            refusal = HTTPException(status, sentence, {"Retry-After": RETRY_SECONDS} if status == 503 else None)
            raise refusal

        async def receive_counted() -> Message:
            nonlocal coming
            if not coming:
                return await receive()
            seconds = time.monotonic() - begun
            try:
                message = await asyncio.wait_for(receive(), max(0.0, min(self.patience, self.whole - seconds)))
            except TimeoutError:
                came = f"{facts.bytes_in} bytes in {time.monotonic() - begun:.0f} s"
                refuse(408, f"the body did not come: {came}; send it again, with a Content-Length that is right.")
            coming = message.get("more_body", False)
            facts.bytes_in += len(message.get("body", b""))
            self.held += len(message.get("body", b""))
            if facts.bytes_in > most:
                refuse(413, _too_long("more bytes than are taken", most))
            if self.held > BODIES_AT_ONCE * self.most_bytes:
                refuse(
                    503, f"{self.held / 1e6:.0f} MB are being answered, and no more are taken; ask again in a while."
                )
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal answered
            if refusal is None or answered:
                answered = True
                await send(message)

        try:
            if length > most:
                refuse(413, _too_long(f"{length / 1e6:.1f} MB", most))
            await self.app(scope, receive_counted, send_unless_refused)
        except Exception:
            if refusal is None:
                raise
        finally:
            self.held -= facts.bytes_in
        if refusal is not None and not answered:
            await _refuse(scope, receive, send, refusal.status_code, refusal.detail, refusal.headers)


def _too_long(found: str, most: int) -> str:
    return f"the request has {found}; at most {most / 1e6:g} MB are taken: send fewer or smaller images at a time."


class SameSite:
    """Refuses what a page of another site sends through a visitor's browser.

    Browsers say in ``Origin`` whose page asks; what changes something, and a websocket, must come from a page of this
    server, or from no page. A proxy in front must pass on the ``Host`` it was asked for.

    Without a token and at a loopback address, being on this machine is all that admits a caller. There a ``Host`` that
    is no name of this machine is refused: a site can point its own name at 127.0.0.1, and would then be of the same
    origin.
    """

    def __init__(self, app: ASGIApp, local_names_only: bool) -> None:
        self.app = app
        self.local_names_only = local_names_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] in ("http", "websocket") and (sentence := self._refusal(scope)):
            return await _refuse(scope, receive, send, 403, sentence)
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        own = _authority(f"//{host}")
        if self.local_names_only and host and not (own and is_loopback(own[0])):
            return (
                f"this server answers to names of its own machine only, not to {plain(host, 200)}; ask 127.0.0.1 or"
                " localhost, or start it with a token."
            )
        harmless = scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS")
        if origin is None or harmless or _authority(origin) == own:
            return None
        return f"a page of {plain(origin, 200)} may not ask this server; open the server's own page."


class Token:
    """Asks every caller for a token, but for ``/api/health``.

    Programs send it as ``Authorization: Bearer``. A browser opens ``/?token=...`` once and is given a cookie that
    stands for it (not the token itself), which scripts cannot read and other sites cannot use.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self.token = token.encode()
        self.proof = hmac.new(self.token, b"sightline's page", sha256).hexdigest()
        self.cookie = f"sightline-{self.proof[:8]}"  # cookies know no ports: another server's has another name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket") or scope["path"] == "/api/health":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        if self._knows(headers):
            return await self.app(scope, receive, send)
        query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))
        token = query.pop("token", None)
        opens = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/"
        if opens and token is not None and hmac.compare_digest(token.encode("utf-8", "replace"), self.token):
            place = "/?" + urlencode(query) if query else "/"
            answer = Response(None, 303, {"Location": place, **PRIVATE})
            secure = scope.get("scheme") == "https"
            answer.set_cookie(self.cookie, self.proof, COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure)
            return await answer(scope, receive, send)
        what = "a token is needed" if token is None and "authorization" not in headers else "the token is wrong"
        sentence = f"{what}; send the header `Authorization: Bearer TOKEN`, or open /?token=TOKEN once in a browser."
        await _refuse(scope, receive, send, 401, sentence, {"WWW-Authenticate": "Bearer"})

    def _knows(self, headers: Headers) -> bool:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode("latin-1"), self.token):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self.proof.encode())


# ── parts of them ────────────────────────────────────────────────────────────────────────────────────────────────────


async def _refuse(
    scope: Scope, receive: Receive, send: Send, status: int, sentence: str, headers: Mapping[str, str] | None = None
) -> None:
    """Answer a request with an error, or close a websocket that is not open yet."""
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008, "reason": sentence[:120]})
    content = {"error": sentence, "request_id": noted(scope).request_id}
    await JSONResponse(content, status, {**PRIVATE, **(headers or {})})(scope, receive, send)


def is_loopback(name: str) -> bool:
    """Return whether a name or address is of the machine itself, whatever the network says."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return _LOCAL.fullmatch(name.lower()) is not None


def _authority(url: str) -> tuple[str, int | None] | None:
    """Return the name and port that a URL leads to; None where it leads nowhere, as the origin ``null``.

    A port that its scheme implies is None, and of a ``Host``, which has no scheme, both of these: a proxy may turn the
    one scheme into the other.
    """
    try:
        parts = urlsplit(url)
        implied = {"http": (80,), "https": (443,), "": (80, 443)}.get(parts.scheme, ())
        return (parts.hostname, None if parts.port in implied else parts.port) if parts.hostname else None
    except ValueError:
        return None


def plain(text: str, most: int = 100) -> str:
    """Return a caller's text on one line; letters that cannot be seen become question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:most])
