"""Whether the store answers, asked with a deadline and at most once in a moment."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import anyio

from ..errors import DownloadError, UpstreamTimeout

# Health checkers ask every few seconds, several at a time; the store is asked less.
REMEMBER_SECONDS = 2.0

# Shorter than the timeouts of the checkers (Kubernetes 1 s, most PaaS 5 s or more).
DEADLINE_SECONDS = 3.0


class Readiness:
    """The remembered answer of `check`, which raises DownloadError when the store fails us.

    It is told until when it may try.
    """

    def __init__(self, check: Callable[[float], Awaitable[None]]) -> None:
        self._check = check
        self._asking = anyio.Lock()
        self._failure: DownloadError | None = None
        self._good_until = 0.0

    async def failure(self) -> DownloadError | None:
        """Return why the store can't be used now, or None; never raises."""
        async with self._asking:
            if time.monotonic() >= self._good_until:
                self._failure = await self._ask()
                self._good_until = time.monotonic() + REMEMBER_SECONDS
            return self._failure

    async def _ask(self) -> DownloadError | None:
        try:
            with anyio.fail_after(DEADLINE_SECONDS):
                await self._check(time.monotonic() + DEADLINE_SECONDS)
        except TimeoutError:
            return UpstreamTimeout("store: no answer to the readiness probe")
        except DownloadError as error:
            return error
        return None
