"""Which downloads may live at once, and until when."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

import anyio

from ..errors import Draining, NoSlot
from .client_rate import TICK_SECONDS

logger = logging.getLogger("downspout")

RETRY_AFTER_SECONDS = 5

# One place in so many is kept for downloads of at most this many bytes, which are over soon: else
# a crowd of slow readers would have all of them.
SHARE_FOR_SMALL = 8
SMALL = 1024 * 1024

# For downloads that were broken off to write their line and close what they hold.
END_SECONDS = 2.0


class AdmittedDownload(Protocol):
    """A download that has a place."""

    def tick(self, now: float) -> None:
        """Look after it, once in a while."""

    def break_off(self) -> None:
        """End it visibly: the process ends."""


class NoBulkSlot(Exception):
    """A long download has a place and none of those for long ones."""


class Admission:
    """`total` places for downloads; one is held until the last byte has left.

    Without it the connection pools would be what requests queue on, without limit or end.
    """

    def __init__(self, total: int, *, wait: float) -> None:
        self._places = anyio.Semaphore(total)
        self._long_places = anyio.Semaphore(total - total // SHARE_FOR_SMALL)
        self.wait = wait
        """Seconds that a request waits in all, from its beginning."""

        self._living: set[AdmittedDownload] = set()
        self._queue: set[anyio.CancelScope] = set()
        self._empty = anyio.Event()
        self.is_draining = False

    async def enter(self, download: AdmittedDownload, until: float) -> None:
        """Take a place. Raises NoSlot when none gets free until then, Draining."""
        await self._take(self._places, until)
        self._living.add(download)

    def leave(self, download: AdmittedDownload) -> None:
        """Give a place back."""
        self._living.remove(download)
        self._places.release()
        if not self._living:
            self._empty.set()

    def try_acquire_bulk(self) -> None:
        """Take one of the places for long downloads, beside one's own; raises NoBulkSlot."""
        try:
            self._long_places.acquire_nowait()
        except anyio.WouldBlock:
            raise NoBulkSlot from None

    async def acquire_bulk(self, until: float) -> None:
        """Take one of the places for long downloads. Raises NoSlot, Draining."""
        await self._take(self._long_places, until)

    def release_bulk(self) -> None:
        """Give a place for long downloads back."""
        self._long_places.release()

    async def _take(self, places: anyio.Semaphore, until: float) -> None:
        if self.is_draining:
            raise Draining
        try:
            return places.acquire_nowait()
        except anyio.WouldBlock:
            pass
        with anyio.move_on_after(max(until - time.monotonic(), 0)) as queued:
            self._queue.add(queued)
            try:
                return await places.acquire()
            finally:
                self._queue.discard(queued)
        if self.is_draining:
            raise Draining
        raise NoSlot("all places taken", retry_after=RETRY_AFTER_SECONDS)

    def counts(self) -> tuple[int, int]:
        """Return how many downloads have a place, and how many wait for one."""
        return len(self._living), len(self._queue)

    async def look_after(self, on_tick: Callable[[], None] = lambda: None) -> None:
        """Look after the living downloads until cancelled."""
        while True:
            await anyio.sleep(TICK_SECONDS)
            on_tick()
            now = time.monotonic()
            for download in list(self._living):
                try:
                    download.tick(now)
                except Exception:  # One of them must not leave the others alone.
                    logger.exception("looking after a download")

    async def drain(self, grace: float) -> None:
        """Begin no more downloads; return when the running ones are over.

        Those that still run after `grace` seconds are broken off, visibly.
        """
        self.is_draining = True
        for queued in list(self._queue):
            queued.cancel()
        with anyio.move_on_after(grace):
            await self._until_empty()
        for download in list(self._living):
            download.break_off()
        with anyio.move_on_after(END_SECONDS):
            await self._until_empty()

    async def _until_empty(self) -> None:
        while self._living:
            if self._empty.is_set():
                self._empty = anyio.Event()
            await self._empty.wait()
