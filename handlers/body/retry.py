"""Retries of an upstream request before the answer to the client has begun."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ..errors import DownloadError
from .upstream import NO_OBSERVER, Observer

FIRST_DELAY = 0.1
MAX_DELAY = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failing upstream request is tried, and until when."""

    attempts: int = 5
    """Maximum requests, the first included; five take about 1.5 seconds if each fails at once."""

    until: float = math.inf
    """The deadline for all attempts, by time.monotonic()."""

    observer: Observer = NO_OBSERVER
    first_delay: float = FIRST_DELAY

    async def open(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `attempt`, retried if transient; raise its last DownloadError.

        If a delay would pass `until`, raise now: the client gets the upstream's 503, not a 504.
        """
        tries = 1
        while True:
            try:
                return await attempt()
            except DownloadError as error:
                self.observer.upstream_failed(error)
                delay = max(retry_delay(tries, self.first_delay), error.retry_after or 0)
                left = self.until - time.monotonic()
                if not error.transient or tries >= self.attempts or delay >= left:
                    raise
            await asyncio.sleep(delay)
            tries += 1


NO_RETRY = RetryPolicy(attempts=1)


def retry_delay(tries: int, first: float = FIRST_DELAY) -> float:
    """Return the seconds to wait after `tries` failed attempts.

    The delay doubles up to MAX_DELAY. It is random, so that many downloads do not retry at once.
    """
    if not tries:
        return 0.0
    return min(first * 2.0 ** (tries - 1), MAX_DELAY) * random.uniform(0.5, 1)  # noqa: S311
