"""A body of exactly its stated length, resumed where it breaks."""

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
"""Opens the rest of a body from a position on; the stack closes it.

Raises DownloadError: PreconditionFailed, NotFound or RangeNotSatisfiable if the upstream no
longer has this version.
"""

_GONE = (errors.NotFound, errors.PreconditionFailed, errors.RangeNotSatisfiable)


@dataclass(slots=True)
class ResumePolicy:
    """How the bodies of one request are resumed."""

    owner: AsyncExitStack
    """Closes what is opened."""

    max_resumes: int
    """Attempts in a row without a byte in between."""

    observer: Observer = NO_OBSERVER

    max_silence: float = 45.0
    """Seconds without a byte while resuming. Heroku's router cuts a silent answer after 55 s."""


@dataclass(slots=True)
class BodyResumer:
    """Opens the rest of one body, each time that it breaks."""

    _policy: ResumePolicy
    _open_at: OpenAt
    _opened: ExitStack | None = field(default=None, init=False)

    async def resume(
        self, position: int, broken: BrokenTransfer, *, silent_since: float
    ) -> Upstream:
        """Return the rest of the body from `position` on, of which some bytes have arrived.

        Raises `broken` when the policy's limits are reached, and BrokenTransfer if the upstream
        no longer has this version. What was opened before is closed.
        """
        self._policy.observer.upstream_failed(broken)
        attempts = self._policy.max_resumes
        upstream = await self._open(position, broken, silent_since, attempts)
        self._policy.observer.body_resumed()
        return upstream

    async def open(self) -> Upstream:
        """Return a body that begins within another answer, such as a later part of a multipart.

        The status is sent already, so that a failure is a BrokenTransfer.
        """
        unopened = BrokenTransfer("truncated", "a part could not be opened")
        return await self._open(0, unopened, time.monotonic(), 1 + self._policy.max_resumes)

    async def _open(
        self, position: int, broken: BrokenTransfer, silent_since: float, attempts: int
    ) -> Upstream:
        if self._opened is None:  # Most bodies do not break and need no stack.
            self._opened = ExitStack()
            self._policy.owner.callback(self._opened.close)
        self._opened.close()
        for tries in range(attempts):
            delay = retry_delay(tries)
            left = silent_since + self._policy.max_silence - time.monotonic() - delay
            if left <= 0:
                break
            await asyncio.sleep(delay)
            try:
                async with asyncio.timeout(left):
                    return await _with_first_bytes(await self._open_at(position, self._opened))
            except _GONE as gone:
                raise BrokenTransfer("changed", f"at byte {position}: {gone}") from broken
            except (BrokenTransfer, errors.DownloadError, TimeoutError) as error:
                self._policy.observer.upstream_failed(error)
                self._opened.close()
        raise broken


async def _with_first_bytes(upstream: Upstream) -> Upstream:
    """Wait for the first bytes of a body, and return it so that it gives them once more."""
    read = upstream.read
    chunks = [await read()] if read else []
    if read is None or not chunks[0]:
        raise BrokenTransfer("truncated", "the rest has no bytes")

    async def read_on() -> Chunk:
        return chunks.pop() if chunks else await read()

    upstream.read = read_on
    return upstream


async def exact_body(
    upstream: Upstream, resumer: BodyResumer | None = None, verifier: Verifier | None = None
) -> AsyncIterator[Chunk]:
    """Yield exactly `upstream.length` bytes, if that is known, or else all; raise BrokenTransfer.

    A broken body goes on with what `resumer` opens at the next byte. The last chunk is held back
    until the upstream has ended after it and `verifier` has accepted the body, because a client
    takes a body of its content-length for whole.
    """
    expected, received = upstream.length, 0
    progress_at = time.monotonic()
    while (read := upstream.read) is not None:
        try:
            chunk = await read()
            _check_end(chunk, received, expected)
        except BrokenTransfer as broken:
            if resumer is None or received == expected:
                raise
            upstream.close()
            upstream = await resumer.resume(received, broken, silent_since=progress_at)
            continue
        received += len(chunk)
        if verifier:
            verifier.update(chunk)
            if (received == expected or not chunk) and not verifier.matches():
                raise BrokenTransfer("corrupt", f"not the bytes of the stored {verifier.name}")
        if not chunk:
            return
        if received == expected:
            received += len(await read())
        if expected is not None and received > expected:
            raise BrokenTransfer("truncated", f"upstream sent more than {expected} bytes")
        yield chunk
        if received == expected:
            return
        # Time in which a slow client takes a chunk is no silence of the upstream.
        progress_at = time.monotonic()


def _check_end(chunk: Chunk, received: int, expected: int | None) -> None:
    if not chunk and expected is not None and received < expected:
        raise BrokenTransfer("truncated", f"upstream ended at {received} of {expected} bytes")
