"""The bound on downloads that live at once."""

from __future__ import annotations

import anyio

from ._errors import NoSlot

RETRY_AFTER_SECONDS = 5


class Slots:
    """`total` places for downloads; a place is held until the last byte has left.

    Without it the connection pools would be what requests queue on, without limit or end.
    """

    def __init__(self, total: int, *, wait: float) -> None:
        self._places = anyio.Semaphore(total)
        self._wait = wait

    async def acquire(self) -> None:
        """Take a place; raises NoSlot when none gets free within `wait` seconds."""
        try:
            return self._places.acquire_nowait()
        except anyio.WouldBlock:
            pass
        try:
            with anyio.fail_after(self._wait):
                await self._places.acquire()
        except TimeoutError:
            raise NoSlot("all places taken", retry_after=RETRY_AFTER_SECONDS) from None

    def release(self) -> None:
        """Give a place back."""
        self._places.release()
