"""Limits concurrent downloads with slots, and drains the downloads at shutdown."""

import asyncio
import math
import time
from typing import Protocol

import anyio

from ..errors import Draining, NoSlot
from .interrupt import StopReason

RETRY_AFTER_SECONDS = 5

# One slot in eight is reserved for downloads of at most 1 MiB, which end soon: otherwise large
# downloads to slow clients could hold every slot.
SHARE_FOR_SMALL = 8
SMALL = 1024 * 1024

# For stopped downloads to write their log line and to close their upstream connections. All waits
# after SIGTERM have to end within 30 s: tests/unit/test_shutdown.py adds them up.
END_SECONDS = 0.5


class AdmittedDownload(Protocol):
    """A download that has a slot."""

    def stop(self, reason: StopReason) -> None:
        """Stop the download; if its answer has begun, its connection is cut."""


class NoBulkSlot(Exception):
    """No bulk slot is free for a download of more than SMALL bytes."""


class Admission:
    """The slots for downloads, `total` in all; a download holds one until its last byte is sent.

    A download of more than SMALL bytes or of unknown length also needs a bulk slot. Without slots,
    requests would queue on the connection pools, without limit or timeout.
    """

    def __init__(self, total: int, *, wait: float) -> None:
        self._slots = anyio.Semaphore(total)
        self._bulk_slots = anyio.Semaphore(total - total // SHARE_FOR_SMALL)
        self.wait = wait
        """Seconds that a request waits for slots, counted from its arrival."""

        self._admitted: set[AdmittedDownload] = set()
        self._empty = asyncio.Event()
        self._with_bulk: set[AdmittedDownload] = set()
        self._queue: set[anyio.CancelScope] = set()
        self.is_draining = False
        self._ends_at = math.inf
        """When a drain gives up the downloads that ignore their stop, by time.monotonic()."""

    async def acquire(self, download: AdmittedDownload, until: float) -> None:
        """Take a slot; raises NoSlot at `until` (time.monotonic()), Draining at shutdown."""
        await self._take(self._slots, until)
        self._admitted.add(download)
        self._empty.clear()

    def release(self, download: AdmittedDownload) -> None:
        """Release the download's slot, but not its bulk slot."""
        self._admitted.remove(download)
        self._slots.release()
        if not self._admitted:
            self._empty.set()

    def try_acquire_bulk(self, download: AdmittedDownload) -> bool:
        """Take a bulk slot, unless the download has one; return False if none is free."""
        if download not in self._with_bulk:
            try:
                self._bulk_slots.acquire_nowait()
            except anyio.WouldBlock:
                return False
            self._with_bulk.add(download)
        return True

    async def acquire_bulk(self, download: AdmittedDownload, until: float) -> None:
        """Take a bulk slot; raises NoSlot at `until` (time.monotonic()), Draining at shutdown."""
        await self._take(self._bulk_slots, until)
        self._with_bulk.add(download)

    def release_bulk(self, download: AdmittedDownload) -> None:
        """Release the download's bulk slot, if it has one."""
        if download in self._with_bulk:
            self._with_bulk.remove(download)
            self._bulk_slots.release()

    async def _take(self, slots: anyio.Semaphore, until: float) -> None:
        if self.is_draining:
            raise Draining
        try:
            return slots.acquire_nowait()
        except anyio.WouldBlock:
            pass
        with anyio.move_on_after(max(until - time.monotonic(), 0)) as queued:
            self._queue.add(queued)
            try:
                return await slots.acquire()
            finally:
                self._queue.discard(queued)
        if self.is_draining:
            raise Draining
        raise NoSlot("no slot got free within QUEUE_TIMEOUT", retry_after=RETRY_AFTER_SECONDS)

    def counts(self) -> tuple[int, int]:
        """Return how many downloads have a slot, and how many wait for one."""
        return len(self._admitted), len(self._queue)

    async def drain(self, grace: float) -> None:
        """Admit no more downloads; return when the running ones have ended.

        Downloads that still run after `grace` seconds are stopped: their connections are cut.
        """
        self.is_draining = True
        for queued in list(self._queue):
            queued.cancel()
        with anyio.move_on_after(grace):
            await self._until_empty()
        for download in list(self._admitted):
            download.stop("drained")
        self._ends_at = min(self._ends_at, time.monotonic() + END_SECONDS)
        with anyio.move_on_after(max(self._ends_at - time.monotonic(), 0)):
            await self._until_empty()

    async def _until_empty(self) -> None:
        while self._admitted:
            await self._empty.wait()
