"""Read-ahead: a body over several connections if the store limits each of them."""

import asyncio
from contextlib import ExitStack
from dataclasses import replace

from ..rfc9110.ranges import Part
from .concurrency import Meter
from .pieces import OpenPart, Piece, Pieces
from .read_ahead_policy import ReadAheadPolicy
from .upstream import Chunk, Owner, Read, Upstream


def read_ahead(
    upstream: Upstream, part: Part, owner: Owner, open_part: OpenPart, policy: ReadAheadPolicy
) -> Upstream:
    """Return an upstream of the same bytes, the opened `part`, read ahead if that pays.

    `owner` closes it, with all tasks and connections.
    """
    limits = policy.budget.limits
    if policy.width <= 1 or upstream.read is None or part.length < limits.min_length:
        return upstream
    controller = policy.budget.controller(policy.width, limits)
    meter = Meter(controller, limits, policy.lag)
    body = ReadAhead(upstream, part.first, Pieces(part.last, open_part, policy, meter), meter)
    owner.callback(body.close)
    return replace(upstream, read=body.read, close=body.close)


class ReadAhead:
    """One body: a stream up to the first piece, then the pieces in order.

    Without pieces the stream goes on to the end, so that a body that gains nothing by them is
    one request.
    """

    def __init__(self, upstream: Upstream, position: int, pieces: Pieces, meter: Meter) -> None:
        self._stream: Read | None = upstream.read
        self._stack = ExitStack()
        self._stack.callback(upstream.close)
        self._surplus: Chunk = b""
        """Bytes of the stream from the beginning of the first piece on."""
        self._position = position
        self._pieces = pieces
        self._meter = meter
        self._timer: asyncio.TimerHandle | None = None

    async def read(self) -> Chunk:
        """Return the next bytes, b"" at the end; raise BrokenTransfer.

        A cancelled call loses no bytes.
        """
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._meter.start_read()
        chunk = await self._next()
        self._position += len(chunk)
        self._meter.finish_read(len(chunk), self._flowing)
        if self._meter.controller.width == 1:
            self._pieces.drop()
        elif self._pieces.first:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._meter.limits.stall, self._pieces.drop)
        return chunk

    async def _next(self) -> Chunk:
        while True:
            is_streaming, width = self._stream is not None, self._meter.controller.width
            if width > 1:
                self._pieces.start(width, self._position, is_streaming=is_streaming)
            first = self._pieces.first
            if first is None or self._position < first.part.first:
                if self._stream:
                    return await self._read_stream(self._stream, first)
                if self._position > self._pieces.last:
                    return b""
                self._stream = await self._pieces.open_rest(self._position, self._stack)
            elif self._stream:
                self._leave_stream(first)
            elif chunk := await self._pieces.read():
                return chunk

    async def _read_stream(self, stream: Read, first: Piece | None) -> Chunk:
        chunk, self._surplus = self._surplus, b""
        if not chunk:
            chunk = await stream()
            self._meter.receive(len(chunk))
        if first:
            border = first.part.first - self._position
            chunk, self._surplus = chunk[:border], chunk[border:]
        return chunk

    def _leave_stream(self, first: Piece) -> None:
        """Go on with the first piece, or without it if the stream was faster."""
        if first.has_begun and not first.failure:
            self._stream, self._surplus = None, b""
            self._stack.close()
        else:
            self._pieces.skip_first()

    def _flowing(self) -> int:
        return (self._stream is not None) + self._pieces.flowing()

    def close(self) -> None:
        """Close everything and give the budget back. May be called twice; no read follows."""
        if self._timer:
            self._timer.cancel()
        self._pieces.drop()
        self._stack.close()
