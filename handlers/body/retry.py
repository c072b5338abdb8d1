"""Trying again what failed before an answer has begun, in the first byte's budget."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ..errors import DownloadError

# Doubled with each attempt in vain, and jittered: many requests fail at once.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0

# A store that fails five times in a second and a half has more than stumbled.
ATTEMPTS = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often an upstream is asked again when it fails in a way that may pass."""

    attempts: int = ATTEMPTS
    until: float = math.inf
    """The end of the time for it, by time.monotonic()."""

    on_failure: Callable[[DownloadError], None] = lambda _: None
    """Called with the error of every attempt."""

    async def open(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what `attempt` returns; raises its last DownloadError.

        No pause outlasts its time, so that an upstream that is busy is told as such and not as
        one that is too slow.
        """
        tried = 1
        while True:
            try:
                return await attempt()
            except DownloadError as error:
                self.on_failure(error)
                pause = max(retry_delay(tried), error.retry_after or 0)
                left = self.until - time.monotonic()
                if not error.transient or tried >= self.attempts or pause >= left:
                    raise
            await asyncio.sleep(pause)
            tried += 1


NO_RETRY = RetryPolicy(attempts=1)


def retry_delay(tries: int) -> float:
    """Return how many seconds to wait after so many attempts in vain; none after none."""
    if not tries:
        return 0.0
    longest = min(FIRST_PAUSE * 2.0 ** (tries - 1), LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
