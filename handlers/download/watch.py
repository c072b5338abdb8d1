"""One look a second at every running download."""

import logging
import time
from collections.abc import Callable

import anyio

from .client_rate import TICK_SECONDS
from .monitor import Monitor

logger = logging.getLogger("downspout")


class Watch:
    """The monitors of the downloads that run now."""

    def __init__(self) -> None:
        self._monitors: set[Monitor] = set()

    def __len__(self) -> int:
        return len(self._monitors)

    def add(self, monitor: Monitor) -> None:
        """Look at a download until it is removed."""
        self._monitors.add(monitor)

    def remove(self, monitor: Monitor) -> None:
        """Look at a download no more."""
        self._monitors.discard(monitor)

    async def run(self, on_tick: Callable[[], None]) -> None:
        """Look at the downloads every TICK_SECONDS until cancelled; call `on_tick` each time."""
        while True:
            await anyio.sleep(TICK_SECONDS)
            on_tick()
            now = time.monotonic()
            for monitor in list(self._monitors):
                try:
                    monitor.tick(now)
                except Exception:  # The other downloads are looked at all the same.
                    logger.exception("watching a download")
