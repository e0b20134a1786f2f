"""Connections of a server, which uvicorn would accept without end and wait for without end."""

import asyncio
import importlib.util
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["BACKLOG", "MOST_CONNECTIONS", "Connection", "most_connections"]

BACKLOG = 128  # callers that wait to be let in, and are let in at a time
MOST = 640  # connections, where no limit on open files says fewer
HEAD_SECONDS = 10.0  # for the head of a request


def most_connections() -> int:
    """Return how many connections there may be: each is an open file, of which a process may have so many."""
    if importlib.util.find_spec("resource") is None:  # on Windows, where no such limit is
        return MOST
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if limit == resource.RLIM_INFINITY else min(MOST, limit // 2)


MOST_CONNECTIONS = most_connections()


class Connection(H11Protocol):
    """A connection that ends where its request does not come, or where another one needs its place.

    Over the most connections the one that has waited longest for the rest of a request is closed for the new one;
    where all have sent theirs and wait for answers, the new one.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.since = self.loop.time()  # when it began to wait for a request
        self.deadline: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """True while a request has not come, or not whole."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; close what has waited longest where there are too many."""
        super().connection_made(transport)
        self._watch()
        others = [one for one in self.connections if isinstance(one, Connection) and not one.transport.is_closing()]
        if len(others) > MOST_CONNECTIONS:
            min((one for one in others if one.waits), key=lambda one: one.since).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, unless the rest of the one that was answered has not come yet."""
        if not self.cycle.more_body:
            self.since = self.loop.time()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Wait for answers that were begun, for no request."""
        if self.waits:
            self.transport.abort()
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        if self.deadline is not None:
            self.deadline.cancel()

    def _watch(self) -> None:
        """Wait for the head of a request, but not for ever; a body has a deadline of its own."""
        head_is_here = self.cycle is not None and not self.cycle.response_complete
        if head_is_here and self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        elif not head_is_here and self.deadline is None:
            self.deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)
