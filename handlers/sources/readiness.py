"""Readiness: whether the store answers."""

import time
from collections.abc import Awaitable, Callable

import anyio

from ..errors import DownloadError, UpstreamTimeout

# Several health checkers ask every few seconds; the store gets one request for all of them.
REMEMBER_SECONDS = 2.0

# Shorter than the timeouts of the checkers (Kubernetes 1 s, most platforms 5 s or more).
DEADLINE_SECONDS = 3.0


class Readiness:
    """Runs `check` with a deadline and remembers its result for a moment.

    `check` gets its deadline, by time.monotonic(), and raises DownloadError if the store fails.
    """

    def __init__(
        self,
        check: Callable[[float], Awaitable[None]],
        *,
        remember_seconds: float = REMEMBER_SECONDS,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._check = check
        self._remember_seconds = remember_seconds
        self._deadline_seconds = deadline_seconds
        self._lock = anyio.Lock()
        self._failure: DownloadError | None = None
        self._remembered_until = 0.0

    async def failure(self) -> DownloadError | None:
        """Return why the store can't serve downloads now, or None; never raises."""
        async with self._lock:
            if time.monotonic() >= self._remembered_until:
                self._failure = await self._run_check()
                self._remembered_until = time.monotonic() + self._remember_seconds
            return self._failure

    async def _run_check(self) -> DownloadError | None:
        try:
            with anyio.fail_after(self._deadline_seconds):
                await self._check(time.monotonic() + self._deadline_seconds)
        except TimeoutError:
            return UpstreamTimeout("store: no answer to the readiness probe")
        except DownloadError as error:
            return error
        return None
