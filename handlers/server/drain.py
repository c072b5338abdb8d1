"""Draining applications on SIGTERM and SIGINT."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from starlette.applications import Starlette

from ..app import drain

logger = logging.getLogger("downspout")


class DrainOnSignal:
    """Drains applications on SIGTERM and SIGINT, then calls the server's own signal handlers.

    The server's handlers would stop listening at once. While the applications drain, /readyz and
    new downloads get 503. Create it after the server has set its handlers, for example in a
    lifespan; outside the main thread it does nothing.
    """

    def __init__(self, *apps: Starlette) -> None:
        self._apps = apps
        self._draining: asyncio.Task[None] | None = None
        self._servers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                self._servers[number] = handler
                signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Drain at the first signal, stop at a second SIGINT; platforms may repeat SIGTERM."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # The server's event loop is in another thread, or has ended.
            self._servers[number](number, frame)
            return
        if self._draining is None:
            self._draining = loop.create_task(self._drain(number))
        elif number == signal.SIGINT:
            self._servers[number](number, frame)

    async def _drain(self, number: int) -> None:
        # A signal handler must not log: it may interrupt the write of another log line.
        logger.info("draining: new downloads get 503, running ones have SHUTDOWN_GRACE to finish")
        try:
            await asyncio.gather(*map(drain, self._apps))
        finally:
            self._servers[number](number, None)
