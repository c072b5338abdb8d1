"""Draining on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from starlette.applications import Starlette

from .. import drain


class DrainOnSignal:
    """Drains the application before the server's own handlers of SIGTERM and SIGINT act.

    They would stop listening at once: while it drains, readiness says so, and who comes is told
    to come again.
    """

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self._draining: asyncio.Task[None] | None = None
        self._servers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                self._servers[number] = handler
                signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Drain at the first signal; end now at Ctrl-C's second. Platforms send SIGTERM twice."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # It serves in another thread, and a host has the signals.
            self._servers[number](number, frame)
            return
        if self._draining is None:
            logging.getLogger("downspout").info("draining")
            self._draining = loop.create_task(self._drain(number))
        elif number == signal.SIGINT:
            self._servers[number](number, frame)

    async def _drain(self, number: int) -> None:
        try:
            await drain(self._app)
        finally:
            self._servers[number](number, None)
