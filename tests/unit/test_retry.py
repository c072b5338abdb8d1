"""Retries of a request before the answer to the client has begun."""

from __future__ import annotations

import time

import pytest

from handlers.body.retry import MAX_DELAY, NO_RETRY, RetryPolicy, retry_delay
from handlers.errors import BadUpstream, DownloadError, UpstreamBusy, UpstreamFailed
from tests.support.memory_store import RecordingObserver

EAGER = RetryPolicy(first_delay=0.001)


class Failing:
    """Fails with each of `errors` in turn, then succeeds."""

    def __init__(self, *errors: DownloadError) -> None:
        self.errors = list(errors)
        self.attempts = 0

    async def __call__(self) -> str:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return "opened"


async def test_transient_failure_is_retried_and_counted() -> None:
    """It costs a delay; the observer hears of each failure."""
    observer = RecordingObserver()
    failing = Failing(UpstreamFailed("500"), UpstreamBusy("503"))
    policy = RetryPolicy(observer=observer, first_delay=0.001)
    assert await policy.open(failing) == "opened"
    assert observer.failed == ["500", "503"]


async def test_permanent_failure_is_not_retried() -> None:
    """An error that will not pass is the answer at once."""
    failing = Failing(BadUpstream("our key is wrong"))
    with pytest.raises(BadUpstream):
        await EAGER.open(failing)
    assert failing.attempts == 1


@pytest.mark.parametrize(("policy", "attempts"), [(EAGER, 5), (NO_RETRY, 1)])
async def test_last_attempt_raises_its_error(policy: RetryPolicy, attempts: int) -> None:
    """After `attempts` failures, the last error is the answer."""
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
async def test_delay_beyond_the_deadline_raises_at_once(
    policy: RetryPolicy, busy: UpstreamBusy
) -> None:
    """The client is told that the upstream is busy, not that it is too slow."""
    failing = Failing(busy, busy)
    with pytest.raises(UpstreamBusy) as caught:
        await policy.open(failing)
    assert caught.value is busy
    assert failing.attempts == 1


def test_delays_grow_to_a_bound_and_vary() -> None:
    """Requests that fail at the same time do not return at the same time."""
    assert retry_delay(0) == 0
    assert 0 < retry_delay(1) < retry_delay(4) < retry_delay(50) <= MAX_DELAY
    assert len({retry_delay(3) for _ in range(10)}) == 10
