"""Which downloads may live at once, and until when."""

from __future__ import annotations

import time

import anyio
import pytest

from handlers.download.admission import Admission, NoBulkSlot
from handlers.download.interrupt import StopReason
from handlers.errors import DownloadError, Draining, NoSlot


class Download:
    """A download that ends when it is broken off."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.broken_off = False

    def stop(self, reason: StopReason) -> None:
        assert reason == "drained"
        self.broken_off = True
        self.admission.release(self)


def soon() -> float:
    return time.monotonic() + 5


def admission_of(total: int) -> Admission:
    return Admission(total, wait=5)


async def test_places_are_bounded_and_given_back() -> None:
    """Beyond the last place a download is turned away until one is free."""
    admission = admission_of(2)
    first, second, third = (Download(admission) for _ in range(3))
    await admission.acquire(first, soon())
    await admission.acquire(second, soon())
    with pytest.raises(NoSlot):
        await admission.acquire(third, until=0)
    admission.release(first)
    await admission.acquire(third, soon())
    assert admission.counts() == (2, 0)


async def test_waiting_is_in_turn_and_told() -> None:
    """Who waits first gets the first place; how many wait is known."""
    admission = admission_of(1)
    running = Download(admission)
    await admission.acquire(running, soon())
    entered: list[int] = []

    async def enter(number: int) -> None:
        download = Download(admission)
        await admission.acquire(download, soon())
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


async def test_share_is_kept_for_small_downloads() -> None:
    """Long downloads get seven places of eight, and small ones all of them."""
    admission = admission_of(16)
    downloads = [Download(admission) for _ in range(15)]
    for download in downloads[:14]:
        await admission.acquire(download, soon())
        admission.try_acquire_bulk(download)
    await admission.acquire(downloads[14], soon())
    with pytest.raises(NoBulkSlot):
        admission.try_acquire_bulk(downloads[14])
    with pytest.raises(NoSlot):
        await admission.acquire_bulk(downloads[14], until=0)
    admission.release_bulk(downloads[0])
    await admission.acquire_bulk(downloads[14], soon())


async def test_draining_turns_away_who_comes_and_who_waits() -> None:
    """From the drain on there are no new downloads; those that wait are told at once."""
    admission = admission_of(1)
    running = Download(admission)
    await admission.acquire(running, soon())
    failures: list[DownloadError] = []

    async def enter() -> None:
        try:
            await admission.acquire(Download(admission), soon())
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
    assert not running.broken_off


async def test_what_runs_at_the_end_of_the_grace_is_broken_off() -> None:
    """A drain ends with its grace, and with every download over."""
    admission = admission_of(8)
    downloads = [Download(admission) for _ in range(3)]
    for download in downloads:
        await admission.acquire(download, soon())
    with anyio.fail_after(1):
        await admission.drain(0.05)
    assert all(download.broken_off for download in downloads)
    assert admission.counts() == (0, 0)


async def test_drain_of_nothing_is_over_at_once() -> None:
    """Where nothing runs there is nothing to wait for."""
    admission = admission_of(1)
    with anyio.fail_after(1):
        await admission.drain(60)
    assert admission.is_draining
