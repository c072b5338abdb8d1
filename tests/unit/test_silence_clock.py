"""From when on a body counts as silent, as `exact_body` tells it to what resumes the body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from handlers.body.upstream import Upstream, exact_body
from handlers.errors import BrokenTransfer


class Breaking:
    """Gives one chunk, waits, and breaks; notes since when the body counts as silent."""

    def __init__(self, *, wait: float = 0) -> None:
        self.wait = wait
        self.chunks = [b"12345"]
        self.silent_since = 0.0

    async def read(self) -> bytes:
        if self.chunks:
            return self.chunks.pop()
        await asyncio.sleep(self.wait)
        raise BrokenTransfer("truncated", "for the test")

    async def resume(
        self, position: int, broken: BrokenTransfer, *, silent_since: float
    ) -> Upstream:
        self.silent_since = silent_since
        raise broken

    def body(self) -> AsyncIterator[bytes | memoryview]:
        return exact_body(Upstream(headers={}, length=10, read=self.read), self.resume)


async def test_silence_begins_when_the_client_has_taken_its_chunk() -> None:
    """A client that is slow to take a chunk is no silence of the upstream."""
    breaking = Breaking()
    body = breaking.body()
    await anext(body)
    await asyncio.sleep(0.05)
    taken = time.monotonic()
    with pytest.raises(BrokenTransfer):
        await anext(body)
    assert breaking.silent_since >= taken


async def test_silence_goes_on_while_the_upstream_is_waited_for() -> None:
    """The seconds that the reader waited in vain before the break count as silence."""
    breaking = Breaking(wait=0.05)
    body = breaking.body()
    await anext(body)
    asked = time.monotonic()
    with pytest.raises(BrokenTransfer):
        await anext(body)
    assert asked <= breaking.silent_since < asked + 0.05
