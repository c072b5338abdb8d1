"""A body of exactly its stated length, resumed where it breaks."""

import time
from collections.abc import AsyncIterator

from ..errors import BrokenTransfer
from .checksums import Verifier
from .resume import BodyResumer
from .upstream import Chunk, Upstream


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
