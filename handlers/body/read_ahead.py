"""Reading ahead: several connections where one to the store is what limits a download."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from ..errors import BrokenTransfer, DownloadError
from ..rfc9110.ranges import Part
from .concurrency import BUSY, ConcurrencyController, Window
from .upstream import Chunk, Read, Upstream

MIB = 1024 * 1024

# What is shorter is over before a second connection has shown what it adds.
READ_AHEAD_MIN = 8 * MIB

# The larger a piece, the less it matters that its connection idles until its first byte.
LEAST_PIECE, LARGEST_PIECE = MIB, 8 * MIB

# Small chunks of a piece go out together: each has a price of its own on its way.
DELIVERY = 128 * 1024

# Long enough to tell rates apart, short enough for eight decisions in a fraction of a second.
WINDOW_SECONDS = 0.008

# A client that keeps a single chunk for so long is not read ahead for at all.
CLIENT_STALL_SECONDS = 0.25

OpenPart = Callable[[Part, ExitStack], Awaitable[Upstream]]
"""Opens exactly a part of the version that is read, owned by the stack; raises DownloadError."""


class Budget:
    """The bytes that all read-aheads of an application may hold or have asked for."""

    def __init__(self, total: int) -> None:
        self.left = total

    def take(self, most: int) -> int:
        """Return how many bytes may be asked for: none where that were less than LEAST_PIECE.

        Nobody is given more than half of what is left, so that there is something for others.
        """
        size = min(most, self.left // 2)
        if size < LEAST_PIECE:
            return 0
        self.left -= size
        return size

    def give(self, size: int) -> None:
        """Take bytes back that were delivered or dropped."""
        self.left += size


@dataclass(frozen=True, slots=True)
class Ahead:
    """How far a request's bodies may be read ahead."""

    budget: Budget
    width: int
    """Connections for one body; 1 where nothing is read ahead."""

    lag: Callable[[], int] = lambda: 0
    """How many bytes may wait in our buffers for the client."""


@dataclass(eq=False, slots=True)
class _Piece:
    """A part that is read into memory ahead of its turn."""

    part: Part
    missing: int
    """What has not arrived yet."""
    held: int
    """What it still has of the budget."""
    stack: ExitStack = field(default_factory=ExitStack)
    chunks: deque[Chunk] = field(default_factory=deque)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    has_begun: bool = False
    is_over: bool = False
    failure: BrokenTransfer | None = None
    task: asyncio.Task[None] | None = None

    def drop(self) -> None:
        """Close it and forget what it has; the reader that waits for it looks again."""
        if self.task:
            self.task.cancel()
            self.task = None  # Its end has this in its frames.
        self.is_over = True
        self.stack.close()
        self.chunks.clear()
        self.news.set()


def read_ahead(
    upstream: Upstream,
    *,
    last: int,
    position: int,
    open_part: OpenPart,
    ahead: Ahead,
    on_failure: Callable[[Exception], None] = lambda _: None,
) -> Upstream:
    """Return an opened upstream of the bytes `position` to `last`, read ahead where that pays.

    The request's owner has to call the `close` returned, too: only then is no task left.
    """
    if ahead.width <= 1 or upstream.read is None or last + 1 - position < READ_AHEAD_MIN:
        return upstream
    body = _ReadAhead(upstream.read, last, position, open_part, ahead, on_failure)
    body.stack.callback(upstream.close)
    return replace(upstream, read=body.read, close=body.close)


@dataclass(eq=False, slots=True)
class _ReadAhead:
    """One body: a plain stream up to the first of the pieces ahead, and then these, in order.

    Without pieces it is a plain stream to the end, so that a body that does not profit from them
    is not cut into many requests.
    """

    stream: Read | None
    last: int
    position: int
    open_part: OpenPart
    ahead: Ahead
    on_failure: Callable[[Exception], None]
    """Called with what breaks a piece that is dropped; of others their reader is told."""
    stack: ExitStack = field(default_factory=ExitStack)
    """Of the plain stream."""
    surplus: Chunk = b""
    """What it gave beyond the first piece's beginning: it goes on with it if that is dropped."""
    pieces: deque[_Piece] = field(default_factory=deque)
    newest: _Piece | None = None
    is_closed: bool = False
    timer: asyncio.TimerHandle | None = None
    delivered: int = 0
    is_waiting: bool = False
    flowing: int = 1
    gap: int = field(init=False)
    """What the stream goes on with while the first piece is opened, at the least."""
    seen: float = field(default_factory=time.monotonic)
    handed_out: float = field(init=False)
    window: Window = field(init=False)
    window_seconds: float = field(init=False)
    controller: ConcurrencyController = field(init=False)

    def __post_init__(self) -> None:
        self.controller, self.gap = ConcurrencyController(self.ahead.width), 2 * LEAST_PIECE
        self.handed_out = self.seen
        self.window, self.window_seconds = Window(self.seen), WINDOW_SECONDS

    # The reader's side...

    async def read(self) -> Chunk:
        """Return the next bytes, b"" at the end; raises BrokenTransfer.

        One that is cancelled loses nothing.
        """
        self._tick()
        if self.seen - self.handed_out >= CLIENT_STALL_SECONDS:
            self.controller.back_off(self.seen, 1)
        self.is_waiting = True
        try:
            chunk = await self._next()
        finally:
            self._tick()
            self.is_waiting = False
            self.handed_out = self.seen
        self.position += len(chunk)
        self.delivered += len(chunk)
        self._judge_when_due()
        return chunk

    async def _next(self) -> Chunk:
        while True:
            if self.stream and not self._is_at_piece():
                return await self._read_stream(self.stream)
            if self.stream:
                self._leave_stream()
            elif self.pieces:
                if chunk := await self._read_piece(self.pieces[0]):
                    return chunk
            elif self.position > self.last:
                return b""
            else:
                self.stream = await self._open(Part(self.position, self.last), self.stack)
                self.flowing += 1

    async def _read_stream(self, stream: Read) -> Chunk:
        chunk, self.surplus = self.surplus, b""
        if not chunk:
            chunk = await stream()
            self.window.received += len(chunk)
        if self.pieces:
            border = self._before_pieces()
            chunk, self.surplus = chunk[:border], chunk[border:]
        return chunk

    def _is_at_piece(self) -> bool:
        return bool(self.pieces) and self.pieces[0].part.first == self.position

    def _before_pieces(self) -> int:
        return self.pieces[0].part.first - self.position

    def _leave_stream(self) -> None:
        """Go on with the first piece, or without it where the stream was faster there."""
        if self.pieces[0].has_begun:
            self.stream, self.surplus = None, b""
            self.flowing -= 1
            self.stack.close()
        else:
            self.gap *= 2
            self.controller.undo()
            self._drop(self.pieces.popleft())
        self._start_pieces()

    async def _read_piece(self, piece: _Piece) -> Chunk:
        """Return bytes of the first piece; b"" where another may be the first by now."""
        if piece.chunks:
            chunks = [piece.chunks.popleft()]
            size = len(chunks[0])
            while piece.chunks and size + len(piece.chunks[0]) <= DELIVERY:
                chunks.append(piece.chunks.popleft())
                size += len(chunks[-1])
            piece.held -= size
            self.ahead.budget.give(size)
            return b"".join(chunks) if len(chunks) > 1 else chunks[0]
        if not piece.is_over:
            piece.news.clear()
            await piece.news.wait()
        elif piece.missing:
            failure = piece.failure or BrokenTransfer("truncated", "a part was left")
            # A new one: what is raised gets frames, which have the piece.
            raise BrokenTransfer(failure.outcome, str(failure))
        else:
            self.pieces.popleft()
            self._start_pieces()
        return b""

    async def _open(self, part: Part, stack: ExitStack) -> Read:
        """Open a part; raises BrokenTransfer."""
        read = None
        try:
            read = (await self.open_part(part, stack)).read
        except DownloadError as error:
            text = f"a part: {type(error).__name__}: {error}"
            raise BrokenTransfer("truncated", text) from error
        finally:
            if read is None:
                stack.close()
        if read is None:
            raise BrokenTransfer("truncated", "a part without a body")
        return read

    def close(self) -> None:
        """Close all of it and give the budget back; may be called twice. No read follows it."""
        self.is_closed = True
        self._drop_pieces()
        self.stack.close()
        if self.timer:
            self.timer.cancel()

    # ...the pieces ahead...

    def _start_pieces(self) -> bool:
        """Have as many connections as the pilot wants; returns whether there are."""
        while bool(self.stream) + sum(not p.is_over for p in self.pieces) < self.controller.width:
            if not self._start_piece():
                return False
        return True

    def _start_piece(self) -> bool:
        # A few may be over before their turn comes; more are for a client that takes too little.
        is_full = len(self.pieces) >= self.ahead.width + self.ahead.width // 2
        if self.is_closed or is_full or self.controller.width == 1:
            return False
        first = self.position
        if self.pieces:
            if self.pieces[-1].failure:
                return False
            first = self.pieces[-1].part.last + 1
        elif self.stream:
            first += max(self._size_at(first), self.gap)
        size = self.ahead.budget.take(self._size_at(first))
        if not size:
            return False
        piece = _Piece(Part(first, first + size - 1), size, size)
        self.pieces.append(piece)
        loop = asyncio.get_running_loop()
        piece.task = loop.create_task(self._fill(piece))
        if self.timer is None:
            self.timer = loop.call_later(CLIENT_STALL_SECONDS, self._watch)
        return True

    def _size_at(self, first: int) -> int:
        """Return the size of a piece at `first`: all connections should reach the end at once."""
        left = self.last + 1 - first
        missing = left + sum(piece.missing for piece in self.pieces)
        if self.stream and self.pieces:
            missing += self._before_pieces()
        size = min(max(missing // self.ahead.width, LEAST_PIECE), LARGEST_PIECE)
        return left if left - size < LEAST_PIECE else size

    async def _fill(self, piece: _Piece) -> None:
        try:
            read = await self._open(piece.part, piece.stack)
            while piece.missing >= 0 and (chunk := await read()):
                piece.missing -= len(chunk)
                if piece.missing >= 0:
                    self._keep(piece, chunk)
        except BrokenTransfer as broken:
            # A new one, without the frames that have the piece.
            piece.failure = BrokenTransfer(broken.outcome, str(broken))
        # Whatever it is: the reader would wait for ever.
        except Exception as error:  # noqa: BLE001
            piece.failure = BrokenTransfer("truncated", f"a part: {type(error).__name__}")
        finally:
            self.flowing -= piece.has_begun
            piece.is_over = True
            piece.stack.close()
            piece.news.set()
        if piece.missing and piece in self.pieces:
            self._give_up(piece)
        self._start_pieces()

    def _keep(self, piece: _Piece, chunk: Chunk) -> None:
        piece.chunks.append(chunk)
        piece.news.set()
        self._tick()
        if not piece.has_begun:
            piece.has_begun = True
            self.flowing += 1
            if piece is self.newest:
                self.window = Window(self.seen)
        self.window.received += len(chunk)
        self._judge_when_due()

    def _give_up(self, failed: _Piece) -> None:
        """Go without a piece that failed and without those behind it.

        What it has goes out before its failure does, but where the stream can go on instead, or
        where it has nothing and is to be asked for once more when its turn comes.
        """
        failed.failure = failed.failure or BrokenTransfer("truncated", "a part of another length")
        self.controller.back_off(self.seen, self.controller.width - 1)
        index = self.pieces.index(failed)
        is_kept = bool(failed.chunks) if index else self.stream is None
        if not is_kept:
            self.on_failure(failed.failure)
        self._drop_pieces(index + is_kept)

    def _drop_pieces(self, kept: int = 0) -> None:
        while len(self.pieces) > kept:
            self._drop(self.pieces.pop())

    def _drop(self, piece: _Piece) -> None:
        piece.drop()
        self.ahead.budget.give(piece.held)

    def _watch(self) -> None:
        """Drop what is ahead of a client that takes nothing; called while there may be such."""
        self.timer = None
        kept = 0 if self.is_waiting else time.monotonic() - self.handed_out
        if kept >= CLIENT_STALL_SECONDS:
            self._drop_pieces()
        elif self.pieces:
            self.timer = asyncio.get_running_loop().call_later(
                CLIENT_STALL_SECONDS - kept, self._watch
            )

    # ...and what the pilot is told.

    def _tick(self) -> None:
        now = time.monotonic()
        elapsed, self.seen = now - self.seen, now
        self.window.connected += elapsed * self.flowing
        if self.is_waiting:
            self.window.waited += elapsed

    def _judge_when_due(self) -> None:
        self.window.seconds = self.seen - self.window.began
        if self.window.seconds >= self.window_seconds:
            self._judge()

    def _judge(self) -> None:
        seen, self.window = self.window, Window(self.seen)
        seen.busy = self.window.busy - seen.busy
        # Looking has its price, where the thread is busy anyway.
        is_idle = self.controller.width > 1 or seen.busy < seen.seconds * BUSY
        self.window_seconds = WINDOW_SECONDS * (1 if is_idle else 4)
        newest = self.newest
        seen.is_opening = newest is not None and not (newest.has_begun or newest.is_over)
        # The buffers on the way take the first bytes of a slow client's as fast as a fast one.
        if self.ahead.lag() > self.delivered / 2:
            seen.waited = 0
        width = self.controller.width
        self.controller.update(seen)
        if self.controller.width > width:
            if self._start_pieces():
                self.newest = self.pieces[-1]
            else:
                self.controller.undo()
        elif self.controller.width == 1 < width:
            self._drop_pieces()
