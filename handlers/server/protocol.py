"""uvicorn's HTTP protocol, which gives each request a view of its client's connection."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ..download.connection import CONNECTION
from .connection import Connection, is_visible


class Protocol(HttpToolsProtocol):
    """uvicorn's httptools protocol; its requests can watch their connection and abort it.

    uvicorn has no timeout for writes, and a closed transport waits until its buffer is flushed: a
    client that takes nothing would hold its socket for ever. The kernel's TCP_USER_TIMEOUT is no
    help, since it also drops slow clients.
    """

    is_standalone = False

    _connection: Connection | None = None
    _running: RequestResponseCycle | None = None
    _without_body: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(transport)
        if is_visible(transport):
            self._connection = Connection(transport, self._discard_body, self.is_standalone)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that runs; uvicorn tells only the request that arrived last."""
        if self._connection is not None and self._connection.on_lost is not None:
            self._connection.on_lost()
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a request, with its connection among the extensions of its scope."""
        super().on_message_begin()
        if self._connection is not None:
            self.scope["extensions"] = {CONNECTION: self._connection}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        """Note which request runs: the new one, unless it is queued behind another."""
        super().on_headers_complete()
        if not self.pipeline:
            self._running = self.cycle

    def on_response_complete(self) -> None:
        """Note which request runs: uvicorn starts the oldest one of its queue."""
        if self.pipeline:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of a request's body, unless the request discards its body."""
        if self.cycle is not self._without_body:
            super().on_body(body)

    def _discard_body(self) -> None:
        self._without_body = self._running
        if self._running is not None:
            self._running.body.clear()
        if not self.pipeline:
            self.flow.resume_reading()


class StandaloneProtocol(Protocol):
    """The protocol of a server that serves downspout alone, without middleware around it."""

    is_standalone = True
