"""Threads for the host's plain hooks, which do not keep the process from exiting."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

_Call = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads(Executor):
    """At most `limit` daemon threads, started on demand, which end after `idle_seconds`.

    At exit, Python waits for the threads of a ThreadPoolExecutor: a hook that never returns would
    keep the process alive.
    """

    def __init__(self, limit: int, *, idle_seconds: float = 60.0) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0
        """Calls that wait or run; each has a thread of its own, up to the limit."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function in a thread, as soon as one is free; return its future."""
        future: Future[Any] = Future()
        with self._lock:
            self._unfinished += 1
            is_short = self._threads < min(self._unfinished, self._limit)
            self._threads += is_short
        self._calls.put((future, lambda: fn(*args, **kwargs)))
        if is_short:
            threading.Thread(target=self._work, daemon=True, name="downspout hook").start()
        return future

    def _work(self) -> None:
        while call := self._next():
            _run(*call)
            del call  # It would keep the request in memory.
            with self._lock:
                self._unfinished -= 1

    def _next(self) -> _Call | None:
        """Return the next call; None if the thread ends, as it is idle."""
        while True:
            try:
                return self._calls.get(timeout=self._idle_seconds)
            except queue.Empty:
                with self._lock:
                    if self._threads > self._unfinished:
                        self._threads -= 1
                        return None


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - the caller gets it
        future.set_exception(error)
