"""Continuing a body whose upstream broke: at its next byte, of the same version, in a budget."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field, replace

import anyio

from ..errors import (
    BrokenTransfer,
    DownloadError,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
)
from .retry import retry_delay
from .upstream import MAX_SILENCE, Resume, Upstream

OpenAt = Callable[[int, ExitStack], Awaitable[Upstream]]
"""Opens the rest of a body from a position on, owned by the stack given.

Raises DownloadError; PreconditionFailed, NotFound or RangeNotSatisfiable where the rest of this
version is not to be had.
"""


@dataclass(slots=True)
class ResumePolicy:
    """What a request gives to the healing of its bodies."""

    owner: AsyncExitStack
    most: int
    """Attempts in a row without a byte in between."""

    on_resume: Callable[[], None]
    on_failure: Callable[[Exception], None]
    """Called with whatever breaks a body or an attempt to continue it."""

    def healer(self, open_at: OpenAt) -> BodyResumer:
        """Return what continues one body; the request's owner closes what it opens."""
        healer = BodyResumer(open_at, self.most, self.on_resume, self.on_failure)
        self.owner.callback(healer.close)
        return healer

    def resume(self, open_at: OpenAt) -> Resume:
        """Return what continues one body, as `exact_body` takes it; no healer is made before."""
        healer: BodyResumer | None = None

        async def resume(
            position: int, broken: BrokenTransfer, *, silent_since: float
        ) -> Upstream:
            nonlocal healer
            if healer is None:
                healer = self.healer(open_at)
            return await healer.resume(position, broken, silent_since=silent_since)

        return resume

    async def open(self, open_at: OpenAt) -> Upstream:
        """Open a body with the patience of a healing, where an answer has begun without it."""
        healer = replace(self, on_resume=lambda: None).healer(open_at)
        unopened = BrokenTransfer("truncated", "a part could not be opened")
        return await healer.open(0, unopened, silent_since=time.monotonic())


@dataclass(slots=True)
class BodyResumer:
    """Re-opens one body, as often as `most` times in a row without a byte in between."""

    open_at: OpenAt
    most: int
    on_resume: Callable[[], None]
    on_failure: Callable[[Exception], None]
    _opened: ExitStack = field(default_factory=ExitStack, init=False)
    _position: int = field(default=-1, init=False)
    _tries: int = field(default=0, init=False)

    async def resume(
        self, position: int, broken: BrokenTransfer, *, silent_since: float
    ) -> Upstream:
        """Return the rest of the body from `position` on, opened; what was open before is closed.

        Raises `broken` when the budget is spent, BrokenTransfer when the version is gone.
        """
        self.on_failure(broken)
        return await self.open(position, broken, silent_since=silent_since)

    async def open(
        self, position: int, broken: BrokenTransfer, *, silent_since: float
    ) -> Upstream:
        """Do what `resume` does, where there was no body yet that could have broken."""
        self.close()
        if position > self._position:
            self._position, self._tries = position, 0
        while self._tries < self.most:
            pause = retry_delay(self._tries)
            left = silent_since + MAX_SILENCE - time.monotonic() - pause
            if left <= 0:
                break
            await anyio.sleep(pause)
            self._tries += 1
            try:
                with anyio.fail_after(left):
                    upstream = await self.open_at(position, self._opened)
            except (PreconditionFailed, NotFound, RangeNotSatisfiable) as gone:
                raise BrokenTransfer("changed", f"at byte {position}: {gone}") from broken
            except (DownloadError, TimeoutError) as error:
                self.on_failure(error)
                self.close()
                continue
            self.on_resume()
            return upstream
        raise broken

    def close(self) -> None:
        """Close what was opened last; may be called twice."""
        self._opened.close()
