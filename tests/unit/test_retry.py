"""Retries of a request before the answer to the client starts."""

from __future__ import annotations

import asyncio
import time

import pytest

from handlers.body.retry import MAX_DELAY, NO_RETRY, RetryPolicy, retry_delay
from handlers.errors import BadUpstream, DownloadError, UpstreamBusy, UpstreamFailed
from tests.support.memory_store import RecordingObserver

FAST_RETRY = RetryPolicy(first_delay=0.001)


class Failing:
    """A request that fails with each of `errors` in turn, then succeeds."""

    def __init__(self, *errors: DownloadError) -> None:
        self.errors = list(errors)
        self.attempts = 0

    async def __call__(self) -> str:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return "opened"


async def test_transient_failure_is_retried_and_counted() -> None:
    """A transient failure is retried after a delay, and the observer gets each failure."""
    observer = RecordingObserver()
    failing = Failing(UpstreamFailed("500"), UpstreamBusy("503"))
    policy = RetryPolicy(observer=observer, first_delay=0.001)
    assert await policy.open(failing) == "opened"
    assert observer.failed == ["500", "503"]


async def test_permanent_failure_is_not_retried() -> None:
    """A permanent failure is raised at once."""
    failing = Failing(BadUpstream("our key is wrong"))
    with pytest.raises(BadUpstream):
        await FAST_RETRY.open(failing)
    assert failing.attempts == 1


@pytest.mark.parametrize(("policy", "attempts"), [(FAST_RETRY, 5), (NO_RETRY, 1)])
async def test_last_attempt_raises_its_error(policy: RetryPolicy, attempts: int) -> None:
    """After `attempts` failures, the last error is raised."""
    failing = Failing(*(UpstreamFailed(str(n)) for n in range(99)))
    with pytest.raises(UpstreamFailed, match=str(attempts - 1)):
        await policy.open(failing)
    assert failing.attempts == attempts


@pytest.mark.parametrize(
    ("policy", "busy"),
    [
        (RetryPolicy(until=time.monotonic() + 30), UpstreamBusy("busy", retry_after=60)),
        (RetryPolicy(until=time.monotonic() + 2, first_delay=5), UpstreamBusy("busy")),
        (RetryPolicy(until=time.monotonic()), UpstreamBusy("busy")),
    ],
)
async def test_retry_delay_beyond_the_deadline_raises_at_once(
    policy: RetryPolicy, busy: UpstreamBusy
) -> None:
    """If the next attempt would be after the deadline, the failure is raised at once."""
    failing = Failing(busy, busy)
    with pytest.raises(UpstreamBusy) as caught:
        async with asyncio.timeout(1):
            await policy.open(failing)
    assert caught.value is busy
    assert failing.attempts == 1


def test_retry_delays_grow_to_a_limit_and_vary() -> None:
    """Retry delays grow up to MAX_DELAY and are random."""
    assert retry_delay(0) == 0
    assert 0 < retry_delay(1) < retry_delay(4) < retry_delay(50) <= MAX_DELAY
    assert len({retry_delay(3) for _ in range(10)}) == 10
