"""An upstream's opened answer, and its body to the byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from ._errors import BrokenTransfer


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """An answer whose status and headers are known and whose body has not been read.

    Whoever opened it closes it: the exit stack that was given to the source as `owner`.
    """

    headers: Mapping[str, str]
    """The answer's headers, names in lower case, not yet checked for what may go out."""

    length: int | None
    """Bytes of the body; None where only the chunked framing tells its end."""

    read: Callable[[], Awaitable[bytes]]
    """Return the next bytes, b"" at the end; raises BrokenTransfer and nothing else."""


async def exact_body(upstream: Upstream) -> AsyncIterator[bytes]:
    """Yield the whole body: exactly `upstream.length` bytes, where that is known.

    The bytes that complete the length are held back until the upstream has ended there, since
    a client that has its content-length takes what it has for whole. Raises BrokenTransfer.
    """
    expected = upstream.length
    received = 0
    while chunk := await upstream.read():
        received += len(chunk)
        if received == expected and (beyond := await upstream.read()):
            received += len(beyond)
        if expected is not None and received > expected:
            raise BrokenTransfer("truncated", f"upstream sent more than {expected} bytes")
        yield chunk
    if expected is not None and received < expected:
        raise BrokenTransfer("truncated", f"upstream ended at {received} of {expected} bytes")


async def read_nothing() -> bytes:
    """Return b"" at once: the `read` of an answer to HEAD."""
    return b""


async def no_body() -> AsyncIterator[bytes]:
    """Yield nothing: the body of an answer to HEAD, whatever length its headers state."""
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk
