"""An upstream's opened answer, and its body to the byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import anyio

from ._errors import BrokenTransfer
from ._ranges import Part

# aiohttp pauses an upstream at twice this; its default of 256 KiB costs a slow client's download
# nearly twice the memory and makes a fast one no faster.
READ_BUFFER = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
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

    read: Callable[[], Awaitable[bytes]] | None = None
    """Return the next bytes, b"" at the end; raises BrokenTransfer and nothing else.

    None where there is no body, whatever length the headers state: of an answer to HEAD, of a 304.
    """


def ends_visibly(headers: Mapping[str, str]) -> bool:
    """Return whether the end of a body can be told from the end of its connection."""
    return (
        "content-length" in headers
        or headers.get("transfer-encoding", "").strip().lower() == "chunked"
    )


def bounded(
    read: Callable[[], Awaitable[bytes]], silence: float
) -> Callable[[], Awaitable[bytes]]:
    """Return `read` with a deadline of its own; it raises TimeoutError.

    aiohttp's parser waits for ever at a malformed chunk, whatever its timeouts are: bytes arrive
    and none of them is of the body.
    """

    async def read_in_time() -> bytes:
        with anyio.fail_after(silence):
            return await read()

    return read_in_time


Resume = Callable[[int, BrokenTransfer], Awaitable[Upstream]]


async def exact_body(upstream: Upstream, resume: Resume | None = None) -> AsyncIterator[bytes]:
    """Yield the whole body: exactly `upstream.length` bytes, where that is known.

    Where it breaks, it goes on with what `resume` opens at the next byte. The bytes that complete
    the length are held back until the upstream has ended there, since a client that has its
    content-length takes what it has for whole. Raises BrokenTransfer.
    """
    expected, received = upstream.length, 0
    while (read := upstream.read) is not None:
        try:
            chunk = await _next_chunk(read, received, expected)
        except BrokenTransfer as broken:
            if resume is None or received == expected:
                raise
            upstream.close()
            upstream = await resume(received, broken)
            continue
        if not chunk:
            return
        received += len(chunk)
        if received == expected:
            received += len(await read())
        if expected is not None and received > expected:
            raise BrokenTransfer("truncated", f"upstream sent more than {expected} bytes")
        yield chunk


async def _next_chunk(
    read: Callable[[], Awaitable[bytes]], received: int, expected: int | None
) -> bytes:
    chunk = await read()
    if not chunk and expected is not None and received < expected:
        raise BrokenTransfer("truncated", f"upstream ended at {received} of {expected} bytes")
    return chunk
