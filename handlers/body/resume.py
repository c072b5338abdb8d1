"""A body of exactly its stated length, resumed at the next byte if the connection breaks."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field

from .. import errors
from ..errors import BrokenTransfer
from .checksums import Verifier
from .retry import retry_delay
from .upstream import NO_OBSERVER, Chunk, Observer, Upstream

OpenAt = Callable[[int, ExitStack], Awaitable[Upstream]]
"""Opens a body from a byte position to its end; the exit stack closes the connection.

Raises DownloadError: PreconditionFailed, NotFound or RangeNotSatisfiable if the upstream no
longer has this version.
"""

Resume = Callable[[int, BrokenTransfer, float], Awaitable[Upstream]]
"""Returns the rest of a broken body, as `BodyResumer.resume` does for a given `open_at`."""

# Seconds. Heroku's router cuts a response that is silent for 55 s.
MAX_SILENCE = 45.0

_GONE = (errors.NotFound, errors.PreconditionFailed, errors.RangeNotSatisfiable)


@dataclass(slots=True)
class BodyResumer:
    """Opens the rest of a body each time the body breaks; one for all bodies of a response."""

    owner: AsyncExitStack
    """The download's exit stack, which closes all connections."""

    max_resumes: int
    """Maximum attempts in a row before a body has got `min_progress` more bytes."""

    observer: Observer = NO_OBSERVER

    max_silence: float = MAX_SILENCE
    """Maximum seconds without a byte."""

    min_progress: int = 64 * 1024
    """So the store gets at most 16 times `max_resumes` requests for each MiB of a body."""

    _tries: int = field(default=0, init=False)
    _progress_at: int = field(default=0, init=False)
    _opened: ExitStack | None = field(default=None, init=False)

    async def resume(
        self, open_at: OpenAt, position: int, broken: BrokenTransfer, silent_since: float
    ) -> Upstream:
        """Return the rest of a body from byte `position` on, after its first bytes have arrived.

        Closes the connection of the previous call. Raises `broken` at the limits, or a new
        BrokenTransfer if the upstream no longer has this version.
        """
        self.observer.upstream_failed(broken)
        if position - self._progress_at >= self.min_progress:
            self._tries, self._progress_at = 0, position
        until = silent_since + self.max_silence
        upstream = await self._open(open_at, position, broken, until, self.max_resumes)
        self.observer.body_resumed()
        return upstream

    async def open(self, open_at: OpenAt) -> Upstream:
        """Open a body within a response that has begun: a later part of a multipart body.

        Raises BrokenTransfer for every failure, since the client already has the status.
        """
        unopened = BrokenTransfer("truncated", "can't open the next part of the multipart body")
        self._tries = 0
        until = time.monotonic() + self.max_silence
        upstream = await self._open(open_at, 0, unopened, until, 1 + self.max_resumes)
        self._tries = self._progress_at = 0
        return upstream

    async def _open(
        self, open_at: OpenAt, position: int, broken: BrokenTransfer, until: float, attempts: int
    ) -> Upstream:
        if self._opened is None:  # Most bodies do not break and need no stack.
            self._opened = ExitStack()
            self.owner.callback(self._opened.close)
        self._opened.close()
        while self._tries < attempts:
            delay = retry_delay(self._tries)
            self._tries += 1
            left = until - time.monotonic() - delay
            if left <= 0:
                break
            await asyncio.sleep(delay)
            try:
                async with asyncio.timeout(left):
                    return await _with_first_bytes(await open_at(position, self._opened))
            except _GONE as gone:
                text = f"upstream no longer has this version; resuming at byte {position}: {gone}"
                raise BrokenTransfer("changed", text) from broken
            except (BrokenTransfer, errors.DownloadError, TimeoutError) as error:
                self.observer.upstream_failed(error)
                self._opened.close()
        raise broken


async def _with_first_bytes(upstream: Upstream) -> Upstream:
    """Wait for the first bytes of `upstream`; return it with a `read` that starts with them."""
    read = upstream.read
    chunks = [await read()] if read else []
    if read is None or not chunks[0]:
        raise BrokenTransfer("truncated", "upstream sent no byte after the break")

    async def read_on() -> Chunk:
        return chunks.pop() if chunks else await read()

    upstream.read = read_on
    return upstream


async def exact_body(
    upstream: Upstream, resume: Resume | None = None, verifier: Verifier | None = None
) -> AsyncIterator[Chunk]:
    """Yield exactly `upstream.length` bytes, or all bytes if the length is unknown.

    `resume` opens a broken body again at the next byte. The last chunk is held back until the
    upstream has ended and `verifier` has accepted the body: a client that has Content-Length
    bytes takes the download for complete. Raises BrokenTransfer.
    """
    expected, received = upstream.length, 0
    progress_at = time.monotonic()
    while (read := upstream.read) is not None:
        try:
            chunk = await read()
            _check_end(chunk, received, expected)
        except BrokenTransfer as broken:
            if resume is None or received == expected:
                raise
            upstream.close()
            upstream = await resume(received, broken, progress_at)
            continue
        received += len(chunk)
        if verifier:
            verifier.checksum.update(chunk)
            if (received == expected or not chunk) and not verifier.matches():
                raise BrokenTransfer("corrupt", f"body does not match the stored {verifier.name}")
        if not chunk:
            return
        if received == expected:
            received += len(await read())
        if expected is not None and received > expected:
            raise BrokenTransfer("truncated", f"upstream sent more than {expected} bytes")
        yield chunk
        if received == expected:
            return
        # The silence of the upstream starts here, after a slow client has taken the chunk.
        progress_at = time.monotonic()


def _check_end(chunk: Chunk, received: int, expected: int | None) -> None:
    if not chunk and expected is not None and received < expected:
        raise BrokenTransfer("truncated", f"upstream ended at {received} of {expected} bytes")
