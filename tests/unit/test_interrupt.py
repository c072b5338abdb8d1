"""Stopping a task, and telling our cancellations from others'."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from handlers.download.interrupt import Interrupt, StrayCancellation


def own_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def wait() -> None:
    await asyncio.Event().wait()


async def test_stop_ends_the_work_and_leaves_no_cancellation() -> None:
    """`run` returns, and the task can be awaited on as before."""
    interrupt = Interrupt()
    asyncio.get_running_loop().call_soon(interrupt.stop, "drained")
    await interrupt.run(wait())
    assert interrupt.reason == "drained"
    assert own_task().cancelling() == 0


async def test_second_stop_keeps_the_first_reason() -> None:
    """The first reason is what has happened."""
    interrupt = Interrupt()

    async def work() -> None:
        assert interrupt.stop("client_gone")
        assert not interrupt.stop("drained")
        await wait()

    await interrupt.run(work())
    assert interrupt.reason == "client_gone"


async def test_stop_after_finish_does_nothing() -> None:
    """A client that has the whole answer may leave while the owner still closes."""
    interrupt = Interrupt()
    closed: list[bool] = []

    async def work() -> None:
        interrupt.finish()
        assert not interrupt.stop("client_gone")
        await asyncio.sleep(0)
        closed.append(True)

    await interrupt.run(work())
    assert closed
    assert interrupt.reason is None


async def test_stop_outside_of_run_does_nothing() -> None:
    """Before and after the work there is nothing to cancel."""
    interrupt = Interrupt()
    assert not interrupt.stop("drained")
    await interrupt.run(asyncio.sleep(0))
    assert not interrupt.stop("drained")


async def test_swallowed_cancellation_can_be_repeated() -> None:
    """`cancel` cancels again, and all of it is taken back at the end."""
    interrupt = Interrupt()
    swallowed: list[bool] = []

    async def work() -> None:
        with suppress(asyncio.CancelledError):
            await wait()
        swallowed.append(True)
        await wait()

    loop = asyncio.get_running_loop()
    loop.call_soon(interrupt.stop, "client_gone")
    loop.call_later(0.01, interrupt.cancel)
    await interrupt.run(work())
    assert swallowed
    assert own_task().cancelling() == 0


async def test_cancellation_by_others_is_raised_with_our_own() -> None:
    """The server's cancellation counts, whatever we cancelled for at the same time."""
    interrupt = Interrupt()
    task = asyncio.create_task(interrupt.run(wait()))
    await asyncio.sleep(0)
    interrupt.stop("drained")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_stray_cancellation_is_an_error() -> None:
    """A CancelledError that neither side has caused leaks out of a library."""

    async def leaking() -> None:
        raise asyncio.CancelledError

    with pytest.raises(StrayCancellation):
        await Interrupt().run(leaking())


async def test_stopped_returns_before_the_cancellation() -> None:
    """An application that waits for the disconnect hears of it first."""
    interrupt = Interrupt()
    heard: list[bool] = []

    async def work() -> None:
        await interrupt.stopped.wait()
        heard.append(True)
        await wait()

    asyncio.get_running_loop().call_soon(interrupt.stop, "client_gone")
    await interrupt.run(work())
    assert heard
