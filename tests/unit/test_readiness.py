"""Readiness: a check with a deadline and a cached result."""

from __future__ import annotations

import time

import anyio
import anyio.lowlevel

from handlers.errors import BadUpstream, UpstreamTimeout
from handlers.sources.readiness import Readiness


async def test_silent_store_fails_readiness_after_the_deadline() -> None:
    """A check that hangs is stopped at its deadline, which the check receives."""
    deadlines: list[float] = []

    async def hang(deadline: float) -> None:
        deadlines.append(deadline)
        await anyio.sleep_forever()

    begun = time.monotonic()
    readiness = Readiness(hang, deadline_seconds=0.05)
    assert isinstance(await readiness.failure(), UpstreamTimeout)
    assert 0.04 < time.monotonic() - begun < 1
    assert begun + 0.04 < deadlines[0] < begun + 0.2


async def test_readiness_result_is_cached() -> None:
    """Parallel probes share one check, and a new check runs after `remember_seconds`."""
    results: list[BadUpstream | None] = [BadUpstream("first"), None]
    checks = 0

    async def check(_: float) -> None:
        nonlocal checks
        checks += 1
        await anyio.lowlevel.checkpoint()
        if error := results[checks - 1]:
            raise error

    readiness = Readiness(check, remember_seconds=0.05)

    async def probe() -> None:
        assert await readiness.failure() is results[0]

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(probe)
    assert checks == 1
    await anyio.sleep(0.06)
    assert await readiness.failure() is None
    assert checks == 2
