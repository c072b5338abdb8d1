"""Trying again before an answer has begun."""

from __future__ import annotations

import time

import pytest

from handlers.body import retry
from handlers.body.retry import ATTEMPTS, LONGEST_PAUSE, NO_RETRY, RetryPolicy, retry_delay
from handlers.errors import BadUpstream, DownloadError, UpstreamBusy, UpstreamFailed


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)


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


async def test_failure_that_passes_is_tried_again() -> None:
    """A stumble costs a pause; each is counted."""
    seen: list[DownloadError] = []
    failing = Failing(UpstreamFailed("500"), UpstreamBusy("503"))
    assert await RetryPolicy(on_failure=seen.append).open(failing) == "opened"
    assert [str(error) for error in seen] == ["500", "503"]


async def test_failure_that_stays_is_not_tried_again() -> None:
    """What will not pass is answered at once."""
    failing = Failing(BadUpstream("our key is wrong"))
    with pytest.raises(BadUpstream):
        await RetryPolicy().open(failing)
    assert failing.attempts == 1


@pytest.mark.parametrize(("patience", "attempts"), [(RetryPolicy(), ATTEMPTS), (NO_RETRY, 1)])
async def test_attempts_are_bounded(patience: RetryPolicy, attempts: int) -> None:
    """After so many attempts the last error is the answer."""
    failing = Failing(*(UpstreamFailed(str(n)) for n in range(99)))
    with pytest.raises(UpstreamFailed, match=str(attempts - 1)):
        await patience.open(failing)
    assert failing.attempts == attempts


async def test_no_pause_outlasts_the_deadline() -> None:
    """A busy upstream is told as busy, not as too slow, when there is no time left to wait."""
    failing = Failing(UpstreamBusy("busy", retry_after=60))
    with pytest.raises(UpstreamBusy) as caught:
        await RetryPolicy(until=time.monotonic() + 30).open(failing)
    assert caught.value.headers == {"retry-after": "60"}


def test_pauses_grow_to_a_bound_and_vary() -> None:
    """Many requests that fail at once do not come again at once."""
    assert retry_delay(0) == 0
    assert 0 < retry_delay(1) < retry_delay(4) < retry_delay(50) <= LONGEST_PAUSE
    assert len({retry_delay(3) for _ in range(10)}) == 10
