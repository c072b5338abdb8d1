"""The pieces of a body that are read into memory ahead of their turn."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from ..errors import Broken, BrokenTransfer, DownloadError
from ..rfc9110.ranges import Part
from .concurrency import Meter
from .read_ahead_policy import ReadAheadPolicy
from .upstream import Chunk, Read, Upstream

# Small chunks are joined up to this size, since each chunk costs time on its way to the client.
JOINED = 128 * 1024

OpenPart = Callable[[Part, ExitStack], Awaitable[Upstream]]
"""Opens exactly this part of the version that is read; the stack closes it.

Raises DownloadError.
"""


async def open_to_read(open_part: OpenPart, part: Part, stack: ExitStack) -> Read:
    """Open a part and return its `read`; raise BrokenTransfer."""
    try:
        read = (await open_part(part, stack)).read
    except DownloadError as error:
        text = f"a part: {type(error).__name__}: {error}"
        raise BrokenTransfer("truncated", text) from error
    if read is None:
        raise BrokenTransfer("truncated", "a part without a body")
    return read


class Piece:
    """A part of a body, filled by a task of its own."""

    def __init__(self, part: Part, open_part: OpenPart, meter: Meter) -> None:
        self.part = part
        self.missing = part.length
        """Bytes that have not arrived."""
        self.untaken = part.length
        """Bytes that its reader has not taken."""
        self.is_read = self.is_over = False
        """Whether its reader has begun, and whether no more bytes arrive."""
        self.failure: tuple[Broken, str] | None = None
        """Arguments of a BrokenTransfer: an exception's frames would keep the piece alive."""
        self._chunks: deque[Chunk] = deque()
        self._news = asyncio.Event()
        self._stack = ExitStack()
        filling = self._fill(open_part, meter)
        self._task: asyncio.Task[None] | None = asyncio.create_task(filling)

    @property
    def has_begun(self) -> bool:
        """Return whether bytes have arrived."""
        return self.missing < self.part.length

    async def _fill(self, open_part: OpenPart, meter: Meter) -> None:
        try:
            read = await open_to_read(open_part, self.part, self._stack)
            while self.missing >= 0 and (chunk := await read()):
                meter.receive(len(chunk))
                self.missing -= len(chunk)
                if self.missing >= 0:
                    self._chunks.append(chunk)
                    self._news.set()
        except BrokenTransfer as broken:
            self.failure = broken.outcome, str(broken)
        except Exception as error:  # noqa: BLE001 - its reader would wait for ever
            self.failure = "truncated", f"a part: {type(error).__name__}"
        finally:
            if self.missing and not self.failure:
                self.failure = "truncated", "a part of another length"
            self.is_over = True
            self._stack.close()
            self._news.set()

    def take(self) -> Chunk:
        """Return bytes that have arrived, b"" if there are none."""
        chunks: list[Chunk] = []
        size = 0
        while self._chunks and (not chunks or size + len(self._chunks[0]) <= JOINED):
            chunks.append(self._chunks.popleft())
            size += len(chunks[-1])
        self.untaken -= size
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def wait(self) -> None:
        """Wait until bytes arrive or it is over."""
        self._news.clear()
        await self._news.wait()

    def drop(self) -> None:
        """Close it and forget its bytes."""
        if self._task:
            self._task.cancel()
            self._task = None  # The task's frames keep the piece alive.
        self._stack.close()
        self._chunks.clear()


class Pieces:
    """The pieces of one body, in order; decides which parts they are."""

    def __init__(
        self, last: int, open_part: OpenPart, policy: ReadAheadPolicy, meter: Meter
    ) -> None:
        self.last = last
        self._open_part = open_part
        self._policy = policy
        self._meter = meter
        self._queue: deque[Piece] = deque()
        self._gap = 2 * policy.budget.limits.min_piece
        """Bytes that the stream gives, at least, while the first piece is opened."""

    @property
    def first(self) -> Piece | None:
        """The piece whose turn is next."""
        return self._queue[0] if self._queue else None

    def flowing(self) -> int:
        """Return how many connections give bytes."""
        return sum(piece.has_begun and not piece.is_over for piece in self._queue)

    def start(self, connections: int, position: int, *, is_streaming: bool) -> None:
        """Start pieces until `connections` are at work, with the stream if it is open.

        The first piece starts at `position`, or ahead of it if the stream goes on there.
        """
        active = is_streaming + sum(not piece.is_over for piece in self._queue)
        while active < connections and self._start_one(position, is_streaming=is_streaming):
            active += 1

    def _start_one(self, position: int, *, is_streaming: bool) -> bool:
        # Some pieces may be over before their turn; more would pile up before a slow client.
        if len(self._queue) >= self._policy.width * 3 // 2:
            return False
        if self._queue:
            if self._queue[-1].failure:
                return False
            position = self._queue[-1].part.last + 1
        elif is_streaming:
            position += max(self._size(position), self._gap)
        size = self._policy.budget.take(self._size(position))
        if size:
            part = Part(position, position + size - 1)
            self._queue.append(Piece(part, self._open_part, self._meter))
        return bool(size)

    def _size(self, first: int) -> int:
        """Return the size of a piece at `first`: all connections should reach the end at once."""
        limits, left = self._policy.budget.limits, self.last + 1 - first
        missing = left + sum(piece.missing for piece in self._queue)
        size = min(max(missing // self._policy.width, limits.min_piece), limits.max_piece)
        return left if left - size < limits.min_piece else size

    async def read(self) -> Chunk:
        """Return bytes of the first piece, b"" if another may be first now.

        Raises BrokenTransfer where a piece broke whose bytes have been returned.
        """
        piece = self._queue[0]
        chunk = piece.take()
        if chunk:
            self._policy.budget.give(len(chunk))
        elif not piece.is_over:
            await piece.wait()
        elif piece.failure and piece.is_read:
            raise BrokenTransfer(*piece.failure)
        elif piece.failure:
            self.skip_first()
            return b""
        else:
            self._queue.popleft()
        piece.is_read = True
        return chunk

    async def open_rest(self, position: int, stack: ExitStack) -> Read:
        """Open the rest of the body as a stream; raise BrokenTransfer."""
        return await open_to_read(self._open_part, Part(position, self.last), stack)

    def skip_first(self) -> None:
        """Drop the first piece: it is late or failed, and its bytes come by the stream."""
        piece = self._queue.popleft()
        self._drop(piece)
        self._gap *= 2
        if piece.failure:
            self._policy.observer.upstream_failed(BrokenTransfer(*piece.failure))
            controller = self._meter.controller
            controller.back_off(time.monotonic(), controller.width // 2)

    def drop(self) -> None:
        """Drop all pieces."""
        while self._queue:
            self._drop(self._queue.popleft())

    def _drop(self, piece: Piece) -> None:
        piece.drop()
        self._policy.budget.give(piece.untaken)
