"""Continuing a body whose upstream broke: at its next byte, of the same version, in a budget."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from ._errors import BrokenTransfer, DownloadError, NotFound, PreconditionFailed
from ._upstream import Upstream

# Routers cut a client that has got nothing for a while (Heroku after 55 s).
MAX_SILENCE = 45.0

# Doubled with each attempt in vain, and jittered: many downloads break at once.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


Healing = Callable[[Callable[[int], Awaitable[Upstream]]], "Healer"]
"""Makes a healer of the way to re-open one body: with the budget and the count of a request."""


@dataclass(slots=True)
class Healer:
    """Re-opens one body, as often as `most` times in a row without a byte in between."""

    open_at: Callable[[int], Awaitable[Upstream]]
    """Open the rest of the body from a position on; raises DownloadError, PreconditionFailed where
    the rest of this version is not to be had."""

    most: int
    on_resume: Callable[[], None]
    _position: int = field(default=-1, init=False)
    _tries: int = field(default=0, init=False)
    _silent_since: float = field(default=0.0, init=False)

    async def resume(self, position: int, broken: BrokenTransfer) -> Upstream:
        """Return the rest of the body from `position` on, opened.

        Raises `broken` when the budget is spent, BrokenTransfer when the version is gone.
        """
        if position > self._position:
            self._position, self._tries, self._silent_since = position, 0, time.monotonic()
        while self._tries < self.most:
            left = self._silent_since + MAX_SILENCE - time.monotonic() - self._pause()
            if left <= 0:
                break
            await anyio.sleep(self._pause() * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            self._tries += 1
            try:
                with anyio.fail_after(left):
                    upstream = await self.open_at(position)
            except (PreconditionFailed, NotFound) as gone:
                raise BrokenTransfer("changed", f"at byte {position}: {gone}") from broken
            except (DownloadError, TimeoutError):
                continue
            self.on_resume()
            return upstream
        raise broken

    def _pause(self) -> float:
        return min(FIRST_PAUSE * 2 ** (self._tries - 1), LONGEST_PAUSE) if self._tries else 0.0
