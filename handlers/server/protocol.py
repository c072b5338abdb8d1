"""uvicorn's HTTP protocol, for downloads."""

from __future__ import annotations

import asyncio

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .. import CONNECTION
from .connection import VISIBLE, Connection
from .head import HeadCoalescingTransport


class Protocol(HttpToolsProtocol):
    """uvicorn's own, whose requests can see their connection and end it.

    uvicorn has no timeout for writing, and closing a transport waits until its buffer is flushed:
    a client that takes nothing would hold its socket for ever. The kernel's own TCP_USER_TIMEOUT
    is no way out: it drops living clients that are slow.
    """

    _running: RequestResponseCycle | None = None
    _connection: Connection | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        cycle.transport = HeadCoalescingTransport(cycle.transport, self.loop)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(transport)
        if VISIBLE:
            self._connection = Connection(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that runs, where uvicorn tells the one that was queued last."""
        if self._connection is not None and self._connection.on_lost is not None:
            self._connection.on_lost()
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def on_body(self, body: bytes) -> None:
        """Drop the body of a request: kept, it would have reading paused, and leaving unseen."""

    def on_message_begin(self) -> None:
        """Begin a request, with its connection among the extensions of its scope."""
        super().on_message_begin()
        if self._connection is not None:
            self.scope["extensions"] = {CONNECTION: self._connection}  # type: ignore[dict-item]
