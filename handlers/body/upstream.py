"""An upstream's opened answer, and its body to the byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from ..errors import BrokenTransfer
from ..rfc9110.ranges import Part
from .checksums import Verifier

# Routers cut a client that has got nothing for a while (Heroku after 55 s): so long may a body
# keep silent while it is being resumed.
MAX_SILENCE = 45.0

Chunk = bytes | memoryview
"""Some bytes of a body; nobody writes to them any more."""

Read = Callable[[], Awaitable[Chunk]]


@dataclass(kw_only=True, slots=True)
class Upstream:
    """An answer whose status and headers are known and whose body has not been read.

    Whoever opened it closes it: the exit stack that was given to the source as `owner`.
    """

    status: int = HTTPStatus.OK

    headers: Mapping[str, str]
    """The answer's headers, names in lower case, not yet checked for what may go out."""

    length: int | None
    """Bytes of the body; None where only the chunked framing tells its end."""

    part: Part | None = None
    """Which part of the whole the body is, as checked against what was asked for (206)."""

    total: int | None = None
    """Bytes of the whole that `part` is of, where that is told."""

    close: Callable[[], None] = lambda: None
    """Close it before its owner does, to open another in its place; may be called twice."""

    read: Read | None = None
    """Return the next bytes, b"" at the end; raises BrokenTransfer and nothing else.

    None where there is no body, whatever length the headers state: of an answer to HEAD, of a 304.
    """


class Resume(Protocol):
    """Opens the rest of a broken body from a position on, or raises BrokenTransfer."""

    async def __call__(
        self, position: int, broken: BrokenTransfer, *, silent_since: float
    ) -> Upstream:
        """Return the rest, opened."""
        ...


async def exact_body(
    upstream: Upstream, resume: Resume | None = None, verifier: Verifier | None = None
) -> AsyncIterator[Chunk]:
    """Yield the whole body: exactly `upstream.length` bytes, where that is known.

    Where it breaks, it goes on with what `resume` opens at the next byte. The bytes that complete
    the length are held back until the upstream has ended there and `verifier` has found them all
    right, since a client that has its content-length takes what it has for whole. Raises
    BrokenTransfer.
    """
    expected, received = upstream.length, 0
    silent_since, healing = time.monotonic(), False
    while (read := upstream.read) is not None:
        try:
            chunk = await (_first_of_rest(read, silent_since) if healing else read())
            _check_end(chunk, received, expected)
        except BrokenTransfer as broken:
            if resume is None or received == expected:
                raise
            upstream.close()
            upstream = await resume(received, broken, silent_since=silent_since)
            healing = True
            continue
        if verifier:
            _verify(verifier, chunk, is_last=not chunk or received + len(chunk) == expected)
        if not chunk:
            return
        received += len(chunk)
        if received == expected:
            received += len(await read())
        if expected is not None and received > expected:
            raise BrokenTransfer("truncated", f"upstream sent more than {expected} bytes")
        yield chunk
        if received == expected:
            return
        # A client that is slow to take it is no silence of the upstream's.
        silent_since, healing = time.monotonic(), False


def _check_end(chunk: Chunk, received: int, expected: int | None) -> None:
    if not chunk and expected is not None and received < expected:
        raise BrokenTransfer("truncated", f"upstream ended at {received} of {expected} bytes")


def _verify(verifier: Verifier, chunk: Chunk, *, is_last: bool) -> None:
    verifier.update(chunk)
    if is_last and not verifier.matches():
        raise BrokenTransfer("corrupt", f"not the bytes of the stored {verifier.name}")


async def _first_of_rest(read: Read, silent_since: float) -> Chunk:
    """Return what comes first of a body that was re-opened, in what is left of the silence."""
    try:
        async with asyncio.timeout(silent_since + MAX_SILENCE - time.monotonic()):
            return await read()
    except TimeoutError as error:
        raise BrokenTransfer("upstream_timeout", "no byte after it was re-opened") from error
