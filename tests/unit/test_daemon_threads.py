"""The threads of the host's plain hooks: how many there are, and when they end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from handlers.access.daemon_threads import DaemonThreads
from tests.support.serving import wait_until

HookThreads = Callable[[], list[threading.Thread]]


@pytest.fixture
def hook_threads() -> HookThreads:
    """Return a function that returns the threads for hooks that this test has started."""

    def find() -> set[threading.Thread]:
        return {one for one in threading.enumerate() if one.name == "downspout hook"}

    others = find()
    return lambda: list(find() - others)


def test_idle_thread_serves_the_next_call(hook_threads: HookThreads) -> None:
    """Calls one after the other need one thread, a daemon."""
    threads = DaemonThreads(5, idle_seconds=0.05)
    ran_in = set()
    for _ in range(10):
        # The thread is free a moment after its result is known.
        wait_until(lambda: not threads._unfinished)
        ran_in.add(threads.submit(threading.current_thread).result(10))
    [thread] = ran_in
    assert thread.daemon
    wait_until(lambda: not hook_threads())
    assert threads.submit(int, "7").result(10) == 7
    wait_until(lambda: not hook_threads())


def test_calls_over_the_limit_wait_for_a_thread(hook_threads: HookThreads) -> None:
    """At most `limit` calls run at once; a call that is cancelled while it waits never runs."""
    threads = DaemonThreads(3, idle_seconds=0.05)
    go_on = threading.Event()
    ran: list[int] = []
    blocked = [threads.submit(go_on.wait, 10) for _ in range(3)]
    cancelled, waiting = threads.submit(ran.append, 1), threads.submit(ran.append, 2)
    wait_until(lambda: all(one.running() for one in blocked))
    assert len(hook_threads()) == 3
    assert cancelled.cancel()
    assert not ran
    go_on.set()
    waiting.result(10)
    assert ran == [2]
    wait_until(lambda: not hook_threads())


def test_exception_of_a_call_is_the_result(hook_threads: HookThreads) -> None:
    """The caller gets an exception, also SystemExit, and the thread goes on."""
    threads = DaemonThreads(1, idle_seconds=0.05)

    def leave() -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        threads.submit(leave).result(10)
    assert threads.submit(int).result(10) == 0
    wait_until(lambda: not hook_threads())
