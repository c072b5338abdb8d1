"""`exact_body` with a `resume`: when it resumes, and when the silence starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from handlers.body.resume import exact_body
from handlers.body.upstream import Upstream
from handlers.errors import BrokenTransfer


class Breaking:
    """A body that breaks after one chunk, and records the start of its silence."""

    def __init__(self, *, wait: float = 0) -> None:
        self.wait = wait
        self.chunks = [b"12345"]
        self.silent_since: float | None = None

    async def read(self) -> bytes:
        if self.chunks:
            return self.chunks.pop()
        await asyncio.sleep(self.wait)
        raise BrokenTransfer("truncated", "for the test")

    async def resume(self, position: int, broken: BrokenTransfer, silent_since: float) -> Upstream:
        self.silent_since = silent_since
        raise broken

    def body(self) -> AsyncIterator[bytes | memoryview]:
        return exact_body(Upstream(headers={}, length=10, read=self.read), self.resume)


async def test_silence_starts_after_the_client_takes_its_chunk() -> None:
    """The time in which the client takes a chunk does not count as silence."""
    breaking = Breaking()
    body = breaking.body()
    await anext(body)
    await asyncio.sleep(0.05)
    taken = time.monotonic()
    with pytest.raises(BrokenTransfer):
        await anext(body)
    assert breaking.silent_since is not None
    assert breaking.silent_since >= taken


async def test_silence_includes_the_wait_before_the_break() -> None:
    """The time that the reader waits before the break counts as silence."""
    breaking = Breaking(wait=0.05)
    body = breaking.body()
    await anext(body)
    asked = time.monotonic()
    with pytest.raises(BrokenTransfer):
        await anext(body)
    assert breaking.silent_since is not None
    assert asked <= breaking.silent_since < asked + 0.05


async def test_broken_empty_body_is_not_resumed() -> None:
    """A break of an empty body is raised without a resume."""
    breaking = Breaking()
    breaking.chunks.clear()
    upstream = Upstream(headers={}, length=0, read=breaking.read)
    with pytest.raises(BrokenTransfer):
        await anext(exact_body(upstream, breaking.resume))
    assert breaking.silent_since is None
