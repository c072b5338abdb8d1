"""Watches the ASGI messages of one download, in both directions."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

from starlette.types import Message, Receive, Send

from ..telemetry.record import Record
from .admission import SMALL, Admission, NoBulkSlot
from .client_rate import SERVER_ONLY, ClientRateGuard
from .interrupt import Interrupt, StopReason

CONNECTION: Final = "downspout.connection"
"""Key of an ASGI extension in `scope["extensions"]`; its value is a Connection."""


class Connection(Protocol):
    """The connection of a request, which a server may offer as an ASGI extension."""

    on_lost: Callable[[], None] | None
    """The server calls it when the connection is lost; the running request sets it."""

    is_standalone: bool
    """Whether no middleware of a host stands between the server and the application."""

    def buffered(self) -> int:
        """Return how many bytes the client has not acknowledged."""

    def is_gone(self) -> bool:
        """Return whether the client has left."""

    def abort(self) -> None:
        """Close the connection at once, and drop its buffers."""

    def discard_body(self) -> None:
        """Drop the request's body, so that the server continues to read from the socket."""


@dataclass(eq=False, kw_only=True, slots=True)
class Monitor:
    """Forwards ASGI messages, counts bytes, and stops a download with a gone or stalled client."""

    record: Record
    connection: Connection | None
    guard: ClientRateGuard
    from_client: Receive
    to_client: Send
    interrupt: Interrupt = field(default_factory=Interrupt)
    admission: Admission | None = None
    """None until the request is authorized; then large answers take a bulk slot from it."""

    _is_sending: bool = False

    async def run(self, work: Awaitable[None], watched: set["Monitor"]) -> None:
        """Await `work`, with this monitor in `watched`: the lifespan calls `tick` every second.

        Returns early if the download is stopped; otherwise raises as `Interrupt.run` does.
        """
        connection, listener = self.connection, None
        # Our own protocol calls `on_lost`; with another server only `receive` tells a disconnect.
        if connection is None:
            listener = asyncio.get_running_loop().create_task(self._listen())
        else:
            connection.on_lost = self._lose_client
            connection.discard_body()
        watched.add(self)
        try:
            await self.interrupt.run(work)
        finally:
            watched.discard(self)
            if listener is not None:
                listener.cancel()
            elif connection is not None and connection.on_lost == self._lose_client:
                connection.on_lost = None

    async def receive(self) -> Message:
        """Wait until the download is stopped, then return http.disconnect."""
        await self.interrupt.stopped.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a message; raises OSError if the download is stopped, or NoBulkSlot."""
        # A cancellation waits until the task suspends. On uvloop with a fast upstream neither
        # reading nor sending suspends: 500 MB were fetched for a client that had left.
        if self.interrupt.reason is not None:
            raise ConnectionResetError("the download is stopped")
        is_start = message["type"] == "http.response.start"
        if is_start:
            message = self._prepared(message)
        self._is_sending = True
        await self.to_client(message)
        self._is_sending = False
        if is_start:
            self.record.status = message["status"]
            self.record.first_byte = time.monotonic() - self.record.began
            return
        self.record.sent += len(message.get("body", b""))
        if not message.get("more_body", False):
            self.interrupt.is_over = True
            self.record.complete()

    def _prepared(self, start: Message) -> Message:
        """Add Server-Timing to the start of an answer; take a bulk slot for a large body."""
        headers, record = start.get("headers", ()), self.record
        lengths = (int(value) for name, value in headers if name.lower() == b"content-length")
        record.expected = next(lengths, None)
        if self.admission is None:  # Server-Timing would reveal the time of the credential check.
            return start
        expected, is_ok = record.expected, start["status"] == HTTPStatus.OK
        is_large = is_ok if expected is None else expected > SMALL
        if not is_large or record.method == "HEAD":
            self.admission.release_bulk(self)
        elif not self.admission.try_acquire_bulk(self):
            raise NoBulkSlot
        return {**start, "headers": [*headers, record.server_timing()]}

    async def _listen(self) -> None:
        # If the server's `receive` raises, the client counts as gone.
        with suppress(Exception):
            while (await self.from_client())["type"] != "http.disconnect":
                pass
        self._lose_client()

    def stop(self, reason: StopReason) -> None:
        """Stop the download, unless its answer is complete or it is stopped already."""
        if self.interrupt.stop(reason):
            self.record.outcome = reason

    def _lose_client(self) -> None:
        self.stop("client_gone")

    def tick(self, now: float) -> None:
        """Count the bytes sent; stop the download if its client is gone or too slow."""
        if self.interrupt.reason is not None:  # The work ignored the CancelledError.
            self.interrupt.cancel()
            return
        connection = self.connection
        if connection is not None and connection.is_gone():
            self._lose_client()
        self.record.count_sent()
        buffered = 0 if connection is None else connection.buffered()
        if not self._is_sending:
            self.guard.rest()
        elif self.guard.is_too_slow(self.record.sent - buffered, now):
            self.stop("client_stalled")
            if connection is not None:
                connection.abort()

    def lag(self) -> int:
        """Return how many sent bytes the client may not have acknowledged."""
        return SERVER_ONLY.buffer if self.connection is None else self.connection.buffered()
