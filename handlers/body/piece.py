"""A piece of a body: one range request, read into memory before the client needs it."""

import asyncio
from collections import deque
from contextlib import ExitStack

from ..errors import Broken, BrokenTransfer, DownloadError
from ..rfc9110.ranges import Part
from .concurrency import Meter
from .upstream import Chunk, OpenPart, Read

# `Piece.read` joins small chunks up to this size in bytes, since each chunk costs CPU time.
JOINED = 128 * 1024


async def open_to_read(open_part: OpenPart, part: Part, stack: ExitStack) -> Read:
    """Open a part, for `stack` to close; return its `read`. Raise BrokenTransfer for any error."""
    try:
        upstream = await open_part(part, stack)
    except DownloadError as error:
        text = f"can't open a range: {type(error).__name__}: {error}"
        raise BrokenTransfer("truncated", text) from error
    if upstream.read is None:
        raise BrokenTransfer("truncated", "upstream answered a range request without a body")
    return upstream.read


class Piece:
    """One part of a body, which the piece's own task reads into memory."""

    def __init__(self, part: Part, open_part: OpenPart, meter: Meter) -> None:
        self.part = part
        self.missing = part.length
        """Bytes that have not arrived from the store."""
        self.untaken = part.length
        """Bytes that `read` has not returned."""
        self.is_over = False
        """Whether the task has ended, so that no more bytes arrive."""
        self.failure: tuple[Broken, str] | None = None
        """Arguments of a BrokenTransfer, whose traceback would keep the piece in memory."""
        self._chunks: deque[Chunk] = deque()
        self._news = asyncio.Event()
        self._stack = ExitStack()
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._fill(open_part, meter))

    @property
    def has_begun(self) -> bool:
        """Return whether bytes have arrived."""
        return self.missing < self.part.length

    @property
    def position(self) -> int:
        """The position in the object of the next byte that `read` returns."""
        return self.part.last + 1 - self.untaken

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
        except Exception as error:  # noqa: BLE001 - else `read` would wait for ever
            self.failure = "truncated", f"can't read a range: {type(error).__name__}"
        finally:
            if self.missing and not self.failure:
                self.failure = "truncated", "upstream sent a range of the wrong length"
            self.is_over = True
            self._stack.close()
            self._news.set()

    async def read(self) -> Chunk:
        """Return the next bytes, b"" at the end.

        Raises BrokenTransfer after the bytes that had arrived. A cancelled call loses no bytes.
        """
        while not self._chunks and not self.is_over:
            self._news.clear()
            await self._news.wait()
        if self.failure and not self._chunks:
            raise BrokenTransfer(*self.failure)
        chunks: list[Chunk] = []
        size = 0
        while self._chunks and (not chunks or size + len(self._chunks[0]) <= JOINED):
            chunks.append(self._chunks.popleft())
            size += len(chunks[-1])
        self.untaken -= size
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def drop(self) -> None:
        """Cancel the task, close the connection and discard the bytes."""
        if self._task:
            self._task.cancel()
            self._task = None  # The task would keep the piece in memory.
        self._stack.close()
        self._chunks.clear()
