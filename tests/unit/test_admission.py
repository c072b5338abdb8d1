"""Slots for parallel downloads, and the drain at the end of the process."""

from __future__ import annotations

import time

import anyio
import pytest

from handlers.download.admission import Admission
from handlers.download.interrupt import StopReason
from handlers.errors import DownloadError, Draining, NoSlot


class Download:
    """A download that releases its slot when it is stopped."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.stopped = False

    def stop(self, reason: StopReason) -> None:
        assert reason == "drained"
        self.stopped = True
        self.admission.release(self)


def in_five_seconds() -> float:
    return time.monotonic() + 5


def make_admission(total: int) -> Admission:
    return Admission(total, wait=5)


async def test_full_admission_raises_no_slot_until_release() -> None:
    """With all slots taken, NoSlot is raised until one slot is released."""
    admission = make_admission(2)
    first, second, third = (Download(admission) for _ in range(3))
    await admission.acquire(first, in_five_seconds())
    await admission.acquire(second, in_five_seconds())
    with pytest.raises(NoSlot):
        await admission.acquire(third, until=0)
    admission.release(first)
    await admission.acquire(third, in_five_seconds())
    assert admission.counts() == (2, 0)


async def test_waiting_downloads_get_slots_in_order() -> None:
    """Waiting downloads get slots in order, and `counts` has their number."""
    admission = make_admission(1)
    running = Download(admission)
    await admission.acquire(running, in_five_seconds())
    entered: list[int] = []

    async def enter(number: int) -> None:
        download = Download(admission)
        await admission.acquire(download, in_five_seconds())
        entered.append(number)
        admission.release(download)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(enter, number)
            await anyio.wait_all_tasks_blocked()
        assert admission.counts() == (1, 3)
        admission.release(running)
    assert entered == [0, 1, 2]
    assert admission.counts() == (0, 0)


async def test_bulk_slots_are_seven_eighths_of_all() -> None:
    """Long downloads get at most seven of eight slots."""
    admission = make_admission(16)
    downloads = [Download(admission) for _ in range(15)]
    for download in downloads[:14]:
        await admission.acquire(download, in_five_seconds())
        assert admission.try_acquire_bulk(download)
    await admission.acquire(downloads[14], in_five_seconds())
    assert admission.try_acquire_bulk(downloads[13])
    assert not admission.try_acquire_bulk(downloads[14])
    with pytest.raises(NoSlot):
        await admission.acquire_bulk(downloads[14], until=0)
    admission.release_bulk(downloads[0])
    await admission.acquire_bulk(downloads[14], in_five_seconds())


async def test_drain_rejects_new_and_waiting_downloads() -> None:
    """After a drain starts, new and waiting downloads get Draining."""
    admission = make_admission(1)
    running = Download(admission)
    await admission.acquire(running, in_five_seconds())
    failures: list[DownloadError] = []

    async def enter() -> None:
        try:
            await admission.acquire(Download(admission), in_five_seconds())
        except DownloadError as error:
            failures.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(enter)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(admission.drain, 60)
        await anyio.wait_all_tasks_blocked()
        await enter()
        admission.release(running)
    assert [type(error) for error in failures] == [Draining, Draining]
    assert not running.stopped


async def test_drain_stops_running_downloads_after_grace() -> None:
    """At the end of the grace, a drain stops every running download."""
    admission = make_admission(8)
    downloads = [Download(admission) for _ in range(3)]
    for download in downloads:
        await admission.acquire(download, in_five_seconds())
    with anyio.fail_after(1):
        await admission.drain(0.05)
    assert all(download.stopped for download in downloads)
    assert admission.counts() == (0, 0)


async def test_drain_without_downloads_returns_at_once() -> None:
    """A drain without running downloads returns at once."""
    admission = make_admission(1)
    with anyio.fail_after(1):
        await admission.drain(60)
    assert admission.is_draining
