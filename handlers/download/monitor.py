"""Watching the messages of one download in both directions."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

from starlette.types import Message, Receive, Send

from ..telemetry.record import Record
from .admission import SMALL, Admission
from .client_rate import SERVER_ONLY, ClientRateGuard
from .interrupt import Interrupt, StopReason

CONNECTION: Final = "downspout.connection"
"""Key of an ASGI extension in `scope["extensions"]`; its value is a Connection."""


class Connection(Protocol):
    """What a server may show of a request's connection."""

    on_lost: Callable[[], None] | None
    """Called when the connection is lost; the request that runs sets it."""

    is_standalone: bool
    """Whether no middleware of a host stands between the server and the application."""

    def buffered(self) -> int:
        """Return how many bytes the client has not acknowledged."""

    def is_gone(self) -> bool:
        """Return whether the client has left."""

    def abort(self) -> None:
        """Close the connection at once, and drop its buffers."""

    def discard_body(self) -> None:
        """Drop the body of the request, so that the server goes on reading."""


@dataclass(eq=False, kw_only=True, slots=True)
class Monitor:
    """Passes messages on, counts bytes, and stops a download whose client is gone or stalled."""

    record: Record
    connection: Connection | None
    guard: ClientRateGuard
    from_client: Receive
    to_client: Send
    interrupt: Interrupt = field(default_factory=Interrupt)
    admission: Admission | None = None
    """Set when the request is authorized: it may need a bulk slot from now on."""

    _is_sending: bool = False

    async def run(self, work: Awaitable[None], watched: set["Monitor"]) -> None:
        """Await `work` under watch: `tick` is called for each monitor in `watched`.

        Returns early if the download is stopped; otherwise raises as `Interrupt.run` does.
        """
        connection, listener = self.connection, None
        # Our own server calls back when the connection is lost; others have to be asked.
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
        """Return the disconnect of a client that stays until the download is stopped."""
        await self.interrupt.stopped.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass a message on. Raises OSError when the download is stopped, NoBulkSlot."""
        # The cancellation may come late: on uvloop with a fast upstream neither reading nor
        # sending ever suspends, and 500 MB were fetched for a client that had left.
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
            self.interrupt.finish()
            self.record.complete()

    def _prepared(self, start: Message) -> Message:
        """Return the start of an answer with its Server-Timing, and a bulk slot if it is large."""
        headers, record = start.get("headers", ()), self.record
        lengths = (int(value) for name, value in headers if name.lower() == b"content-length")
        record.expected = next(lengths, None)
        if self.admission is None:  # It would time the check of the credentials.
            return start
        is_large = (record.expected or 0) > SMALL
        if record.expected is None:
            is_large = start["status"] == HTTPStatus.OK
        if is_large and record.method != "HEAD":
            self.admission.try_acquire_bulk(self)
        return {**start, "headers": [*headers, record.server_timing()]}

    async def _listen(self) -> None:
        # A server that fails to say what its client does has lost the client.
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
        """Count the bytes sent, and stop the download of a client that takes too little."""
        if self.interrupt.reason is not None:  # The application swallowed the cancellation.
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
        """Return how many of the bytes sent the client may not have taken."""
        return SERVER_ONLY.buffer if self.connection is None else self.connection.buffered()
