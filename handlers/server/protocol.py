"""A uvicorn HTTP protocol that detects slow and gone clients."""

import asyncio
import socket
import sys

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ..download.monitor import CONNECTION
from .connection import Connection, HeadBuffer
from .request_head import BoundedHeads


class Protocol(BoundedHeads):
    """uvicorn's httptools protocol; gives each request its Connection, to watch and abort it.

    uvicorn has no write timeout, and closing a transport waits until its buffer is sent: a client
    that reads nothing would hold its socket forever. The kernel's TCP_USER_TIMEOUT is no
    alternative, because it also drops slow clients.
    """

    is_standalone = False

    _connection: Connection | None = None
    _running: RequestResponseCycle | None = None
    _without_body: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection; only Linux tells how much a client has acknowledged."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        if sys.platform == "linux" and sock is not None and sock.family in families:
            self._connection = Connection(transport, sock, self._discard_body, self.is_standalone)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the running request; uvicorn tells only the last one, which may be queued."""
        if self._connection is not None and self._connection.on_lost is not None:
            self._connection.on_lost()
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a request, and add its Connection to the extensions of its scope."""
        super().on_message_begin()
        if self._connection is not None:
            self.scope["extensions"] = {CONNECTION: self._connection}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        """Remember the running request: the new one, unless it is queued (pipelining)."""
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is before:  # A WebSocket handshake, which uvicorn hands to another protocol.
            return
        self.cycle.transport = HeadBuffer(self.transport, self.loop)  # type: ignore[assignment]
        if not self.pipeline:
            self._running = self.cycle

    def on_response_complete(self) -> None:
        """Remember the next running request: the oldest of those that the client pipelined."""
        if self.pipeline:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Buffer a part of a request's body, unless discard_body was called for it."""
        if self.cycle is not self._without_body:
            super().on_body(body)

    def _discard_body(self) -> None:
        self._without_body = self._running
        if self._running is not None:
            self._running.body.clear()
        if not self.pipeline:
            self.flow.resume_reading()


class StandaloneProtocol(Protocol):
    """The protocol for a server that runs only downspout, without a host's middleware."""

    is_standalone = True
