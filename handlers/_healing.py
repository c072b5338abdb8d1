"""Continuing a body whose upstream broke: at its next byte, of the same version, in a budget."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field, replace

import anyio

from ._errors import (
    BrokenTransfer,
    DownloadError,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
)
from ._upstream import MAX_SILENCE, Upstream

# Doubled with each attempt in vain, and jittered: many downloads break at once.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


OpenAt = Callable[[int, ExitStack], Awaitable[Upstream]]
"""Opens the rest of a body from a position on, owned by the stack given.

Raises DownloadError; PreconditionFailed, NotFound or RangeNotSatisfiable where the rest of this
version is not to be had.
"""


@dataclass(frozen=True, slots=True)
class Healing:
    """What a request gives to the healing of its bodies."""

    owner: AsyncExitStack
    most: int
    """Attempts in a row without a byte in between."""

    on_resume: Callable[[], None]

    def healer(self, open_at: OpenAt) -> Healer:
        """Return what continues one body; the request's owner closes what it opens."""
        healer = Healer(open_at, self.most, self.on_resume)
        self.owner.callback(healer.close)
        return healer

    async def open(self, open_at: OpenAt) -> Upstream:
        """Open a body with the patience of a healing, where an answer has begun without it."""
        healer = replace(self, on_resume=lambda: None).healer(open_at)
        unopened = BrokenTransfer("truncated", "a part could not be opened")
        return await healer.resume(0, unopened, silent_since=time.monotonic())


@dataclass(slots=True)
class Healer:
    """Re-opens one body, as often as `most` times in a row without a byte in between."""

    open_at: OpenAt
    most: int
    on_resume: Callable[[], None]
    _opened: ExitStack = field(default_factory=ExitStack, init=False)
    _position: int = field(default=-1, init=False)
    _tries: int = field(default=0, init=False)

    async def resume(
        self, position: int, broken: BrokenTransfer, *, silent_since: float
    ) -> Upstream:
        """Return the rest of the body from `position` on, opened; what was open before is closed.

        Raises `broken` when the budget is spent, BrokenTransfer when the version is gone.
        """
        self.close()
        if position > self._position:
            self._position, self._tries = position, 0
        while self._tries < self.most:
            left = silent_since + MAX_SILENCE - time.monotonic() - self._pause()
            if left <= 0:
                break
            await anyio.sleep(self._pause() * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            self._tries += 1
            try:
                with anyio.fail_after(left):
                    upstream = await self.open_at(position, self._opened)
            except (PreconditionFailed, NotFound, RangeNotSatisfiable) as gone:
                raise BrokenTransfer("changed", f"at byte {position}: {gone}") from broken
            except (DownloadError, TimeoutError):
                self.close()
                continue
            self.on_resume()
            return upstream
        raise broken

    def close(self) -> None:
        """Close what was opened last; may be called twice."""
        self._opened.close()

    def _pause(self) -> float:
        return min(FIRST_PAUSE * 2 ** (self._tries - 1), LONGEST_PAUSE) if self._tries else 0.0
