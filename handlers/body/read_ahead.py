"""Read-ahead: read one body over several connections if the store limits each connection."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from ..errors import BrokenTransfer
from ..rfc9110.ranges import Part
from .concurrency import ConcurrencyController, Meter, ReadAheadLimits, ThreadLoad
from .piece import Piece, open_to_read
from .upstream import NO_OBSERVER, Chunk, Observer, OpenPart, Owner, Read, Upstream


@dataclass(slots=True)
class Budget:
    """READ_AHEAD_BYTES: how many bytes the pieces of all bodies of an application may hold."""

    left: int
    limits: ReadAheadLimits = field(default_factory=ReadAheadLimits)
    controller: Callable[[int, ReadAheadLimits], ConcurrencyController] = ConcurrencyController
    load: ThreadLoad = field(default_factory=ThreadLoad, init=False)
    """One measurement of the thread's load, for all bodies."""

    def take(self, most: int) -> int:
        """Reserve and return a size for a piece, at most `most`; 0 if too few bytes are left.

        A piece gets at most half of the bytes that are left, so that other pieces get some.
        """
        size = min(most, self.left // 2)
        if size < self.limits.min_piece:
            return 0
        self.left -= size
        return size

    def give(self, size: int) -> None:
        """Release the bytes of a piece that were delivered or discarded."""
        self.left += size


@dataclass(slots=True)
class ReadAheadPolicy:
    """How far the bodies of one request are read ahead."""

    budget: Budget
    width: int
    """Maximum parallel connections of one body; 1 disables read-ahead."""

    lag: Callable[[], int] = lambda: 0
    """Returns how many of the sent bytes may not have reached the client yet."""

    observer: Observer = NO_OBSERVER


def read_ahead(
    upstream: Upstream, part: Part, owner: Owner, open_part: OpenPart, policy: ReadAheadPolicy
) -> Upstream:
    """Return a copy of `upstream`, the response for `part`, whose `read` requests pieces ahead.

    If the part is short, return `upstream` unchanged. `owner` closes all tasks and connections.
    """
    is_short = part.length < policy.budget.limits.min_length
    if policy.width <= 1 or upstream.read is None or is_short:
        return upstream
    body = ReadAhead(upstream, part, open_part, policy)
    owner.callback(body.close)
    return replace(upstream, read=body.read, close=body.close)


class ReadAhead:
    """One body: the opened response up to the first piece, then the pieces in order.

    Until the controller allows a second connection, there are no pieces: the opened response,
    `_stream`, may be the only request to the store.
    """

    def __init__(
        self, upstream: Upstream, part: Part, open_part: OpenPart, policy: ReadAheadPolicy
    ) -> None:
        limits = policy.budget.limits
        self._stream: Read | None = upstream.read
        self._stack = ExitStack()
        self._stack.callback(upstream.close)
        self._position, self._last = part.first, part.last
        self._open_part = open_part
        self._policy = policy
        controller = policy.budget.controller(policy.width, limits)
        self._meter = Meter(controller, policy.budget.load, policy.lag)
        self._pieces: deque[Piece] = deque()
        """In the order of their bytes; `_stream` may have passed the start of the first piece."""
        self._gap = 2 * limits.min_piece
        """Bytes that `_stream` keeps at least for itself while the first piece is being opened."""
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
            self._drop_pieces()
        elif self._pieces:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._policy.budget.limits.stall, self._drop_pieces)
        return chunk

    async def _next(self) -> Chunk:
        while True:
            if self._meter.controller.width > 1:
                self._start_pieces()
            piece = self._pieces[0] if self._pieces else None
            if piece is None or self._position < piece.part.first:
                if self._stream is None and self._position > self._last:
                    return b""
                return await self._read_stream()
            if self._is_useless(piece):
                self._skip_first(piece)
            elif chunk := await self._read_piece(piece):
                return chunk

    async def _read_stream(self) -> Chunk:
        if self._stream is None:
            rest = Part(self._position, self._last)
            self._stream = await open_to_read(self._open_part, rest, self._stack)
        chunk = await self._stream()
        self._meter.receive(len(chunk))
        return chunk

    async def _read_piece(self, piece: Piece) -> Chunk:
        """Return new bytes of the first piece; b"" if it had none, so the caller tries again."""
        if self._stream:
            self._stream = None
            self._stack.close()
        known = self._position - piece.position
        chunk = await piece.read()
        self._policy.budget.give(len(chunk))
        if not chunk:
            self._pieces.popleft()
        return chunk[known:]

    def _is_useless(self, piece: Piece) -> bool:
        """Return whether to discard the first piece: it failed, or `_stream` overtook it."""
        if self._stream is None:
            return bool(piece.failure) and not piece.has_begun
        return bool(piece.failure) or not piece.has_begun or piece.part.last < self._position

    def _skip_first(self, piece: Piece) -> None:
        self._drop(self._pieces.popleft())
        self._gap *= 2
        if piece.failure:
            self._policy.observer.upstream_failed(BrokenTransfer(*piece.failure))
            controller = self._meter.controller
            controller.back_off(time.monotonic(), controller.width // 2)

    def _flowing(self) -> int:
        """Return how many connections are delivering bytes."""
        flowing = sum(piece.has_begun and not piece.is_over for piece in self._pieces)
        return (self._stream is not None) + flowing

    def _start_pieces(self) -> None:
        """Start pieces until as many connections are active as the controller wants."""
        active = (self._stream is not None) + sum(not piece.is_over for piece in self._pieces)
        while active < self._meter.controller.width and (part := self._next_part()):
            self._pieces.append(Piece(part, self._open_part, self._meter))
            active += 1

    def _next_part(self) -> Part | None:
        """Reserve the next piece in the budget and return its part; None if there is no room."""
        # Pieces that are complete wait in memory; for a slow client they would pile up.
        if len(self._pieces) >= self._policy.width * 3 // 2:
            return None
        position = self._position
        if self._pieces:
            if self._pieces[-1].failure:
                return None
            position = self._pieces[-1].part.last + 1
        elif self._stream:
            position += max(self._size(position), self._gap)
        size = self._policy.budget.take(self._size(position))
        return Part(position, position + size - 1) if size else None

    def _size(self, first: int) -> int:
        """Return the size of a piece at byte `first`, such that all connections end together."""
        limits, left = self._policy.budget.limits, self._last + 1 - first
        missing = left + sum(piece.missing for piece in self._pieces)
        size = min(max(missing // self._policy.width, limits.min_piece), limits.max_piece)
        return left if left - size < limits.min_piece else size

    def _drop_pieces(self) -> None:
        while self._pieces:
            self._drop(self._pieces.popleft())

    def _drop(self, piece: Piece) -> None:
        piece.drop()
        self._policy.budget.give(piece.untaken)

    def close(self) -> None:
        """Drop the pieces, close the connections. The caller must not call `read` afterwards."""
        if self._timer:
            self._timer.cancel()
        self._drop_pieces()
        self._stack.close()
