"""Watching the messages of one download in both directions."""

import asyncio
import logging
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Self

from starlette.types import Message, Receive, Send

from ..telemetry.metrics import Metrics
from ..telemetry.record import Record
from .admission import SMALL, Slot
from .client_rate import SERVER_ONLY, ClientRateGuard
from .connection import Connection
from .interrupt import Interrupt, StopReason

logger = logging.getLogger("downspout")


class Monitor:
    """Passes messages on, counts bytes, and stops a download whose client is gone or stalled.

    Entered as a context manager while the application runs; `finish` comes after it.
    """

    def __init__(
        self,
        record: Record,
        metrics: Metrics,
        receive: Receive,
        send: Send,
        *,
        guard: ClientRateGuard,
        connection: Connection | None,
    ) -> None:
        self.record = record
        self.interrupt = Interrupt()
        self.slot: Slot | None = None
        self._metrics = metrics
        self._guard = guard
        self._connection = connection
        self._receive = receive
        self._send = send
        self._is_sending = False
        self._counted = 0
        self._listener: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        # Our own server calls back when the connection is lost; others have to be asked.
        if self._connection is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen())
        else:
            self._connection.on_lost = self._lose_client
            self._connection.discard_body()
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.cancel()
        elif self._connection is not None and self._connection.on_lost == self._lose_client:
            self._connection.on_lost = None

    async def receive(self) -> Message:
        """Return the disconnect of a client that stays until the download is stopped."""
        await self.interrupt.stopped()
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
        await self._send(message)
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
        headers = start.get("headers", ())
        self.record.expected = _content_length(headers)
        if self.slot is None:  # It would time the check of the credentials.
            return start
        if self._is_large(start["status"]):
            self.slot.require_bulk()
        return {**start, "headers": [*headers, self.record.server_timing()]}

    def _is_large(self, status: int) -> bool:
        if self.record.method == "HEAD":
            return False
        expected = self.record.expected
        return status == HTTPStatus.OK if expected is None else expected > SMALL

    async def _listen(self) -> None:
        # A server that fails to say what its client does has lost the client.
        with suppress(Exception):
            while (await self._receive())["type"] != "http.disconnect":
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
        if self._connection is not None and self._connection.is_gone():
            self._lose_client()
        self._count_sent()
        if not self._is_sending:
            self._guard.rest()
        elif self._guard.is_too_slow(self.record.sent - self._buffered(), now):
            self.stop("client_stalled")
            if self._connection is not None:
                self._connection.abort()

    def _buffered(self) -> int:
        return self._connection.buffered() if self._connection is not None else 0

    def lag(self) -> int:
        """Return how many of the bytes sent the client may not have taken."""
        return SERVER_ONLY.buffer if self._connection is None else self._connection.buffered()

    def finish(self) -> None:
        """Log and count the download at its end."""
        self.record.log()
        self.record.error = None  # It keeps frames, and with them the last chunks, alive.
        try:
            self._count_sent()
            self._metrics.count_download(self.record)
        except OSError:  # The directory shared by the workers may fail; the answer must not.
            logger.exception("metrics")

    def _count_sent(self) -> None:
        sent, self._counted = self.record.sent - self._counted, self.record.sent
        if sent:
            self._metrics.count_sent(self.record.route, sent)


def _content_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name.lower() == b"content-length":
            return int(value)
    return None
