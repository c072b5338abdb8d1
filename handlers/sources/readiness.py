"""The readiness check: whether the store answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ..errors import DownloadError, UpstreamTimeout


@dataclass(slots=True)
class Readiness:
    """Checks the store with a deadline, and remembers the result for `remember_seconds`."""

    check: Callable[[float], Awaitable[None]]
    """Takes a deadline, by time.monotonic(); raises DownloadError if the store fails."""

    # If several health checkers ask at about one time, the store gets one request.
    remember_seconds: float = 2.0

    # Shorter than the timeouts of the checkers (Kubernetes 1 s, most platforms 5 s or more).
    deadline_seconds: float = 3.0

    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _failure: DownloadError | None = field(default=None, init=False)
    _remembered_until: float = field(default=0.0, init=False)

    async def failure(self) -> DownloadError | None:
        """Return why the store can't serve downloads now, or None; never raises."""
        async with self._lock:
            if time.monotonic() >= self._remembered_until:
                self._failure = await self._run_check()
                self._remembered_until = time.monotonic() + self.remember_seconds
            return self._failure

    async def _run_check(self) -> DownloadError | None:
        try:
            async with asyncio.timeout(self.deadline_seconds):
                await self.check(time.monotonic() + self.deadline_seconds)
        except TimeoutError:
            return UpstreamTimeout(f"store: not ready within {self.deadline_seconds:g} s")
        except DownloadError as error:
            return error
        return None
