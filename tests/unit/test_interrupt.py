"""Interrupt: stopping a task, and cancellations by the server."""

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


async def test_stop_while_running_ends_the_work_without_cancellation() -> None:
    """After `stop`, `run` returns and the task has no pending cancellation."""
    interrupt = Interrupt()
    asyncio.get_running_loop().call_soon(interrupt.stop, "drained")
    await interrupt.run(wait())
    assert interrupt.reason == "drained"
    assert own_task().cancelling() == 0


async def test_second_stop_keeps_the_first_reason() -> None:
    """A second `stop` returns False and keeps the first reason."""
    interrupt = Interrupt()

    async def work() -> None:
        assert interrupt.stop("client_gone")
        assert not interrupt.stop("drained")
        await wait()

    await interrupt.run(work())
    assert interrupt.reason == "client_gone"


async def test_stop_after_the_whole_answer_does_nothing() -> None:
    """A `stop` after the whole answer is sent does not cancel the work."""
    interrupt = Interrupt()
    closed: list[bool] = []

    async def work() -> None:
        interrupt.is_over = True
        assert not interrupt.stop("client_gone")
        await asyncio.sleep(0)
        closed.append(True)

    await interrupt.run(work())
    assert closed
    assert interrupt.reason is None


async def test_stop_outside_run_does_nothing() -> None:
    """A `stop` before or after `run` returns False."""
    interrupt = Interrupt()
    assert not interrupt.stop("drained")
    await interrupt.run(asyncio.sleep(0))
    assert not interrupt.stop("drained")


async def test_cancel_after_swallowed_cancellation_cancels_again() -> None:
    """`cancel` cancels again, and `run` removes every cancellation at the end."""
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


async def test_cancellation_by_the_server_during_stop_is_raised() -> None:
    """A cancellation by the server is raised, also during a `stop`."""
    interrupt = Interrupt()
    task = asyncio.create_task(interrupt.run(wait()))
    await asyncio.sleep(0)
    interrupt.stop("drained")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_stray_cancellation_raises() -> None:
    """A CancelledError without a cancellation raises StrayCancellation."""

    async def leaking() -> None:
        raise asyncio.CancelledError

    with pytest.raises(StrayCancellation):
        await Interrupt().run(leaking())


async def test_stopped_event_is_set_before_the_cancellation() -> None:
    """A task that waits for `stopped` continues before it is cancelled."""
    interrupt = Interrupt()
    heard: list[bool] = []

    async def work() -> None:
        await interrupt.stopped.wait()
        heard.append(True)
        await wait()

    asyncio.get_running_loop().call_soon(interrupt.stop, "client_gone")
    await interrupt.run(work())
    assert heard
