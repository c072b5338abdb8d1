"""Decide by measurement how many store connections read one body in parallel."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
PAUSE_SECONDS = 1.0
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadAheadLimits:
    """The thresholds of read-ahead; sizes in bytes, times in seconds."""

    min_length: int = 8 * MIB
    """Shorter bodies are not read ahead: they end before a second connection helps."""

    min_piece: int = MIB
    max_piece: int = 8 * MIB
    """A piece is one range request. In a large one, the wait for its first byte costs less."""

    stall: float = 0.25
    """If the client takes no bytes for this long, its pieces are dropped; one connection stays."""

    window: float = 0.01
    """The time of one measurement, after which the number of connections may change."""

    min_share: float = 0.75
    """The fraction of its speed that each connection must keep when their number doubles."""

    tries: int = 3
    """The number of measurements in which new connections must reach `min_share`."""

    max_busy: float = 2 / 3
    """If the event loop's thread is busy for more of the time, the CPU is the limit: no growth."""

    max_share: float = 200 * MIB
    """If each connection has this many bytes per second, the store is no limit (S3: 100 MiB)."""

    client: float = 0.2
    """If the client is slower than the store for about this long, connections are halved."""

    hold: float = 0.25
    """After connections were closed, none is added for this long; doubled each time."""


@dataclass(kw_only=True, slots=True)
class Window:
    """One measurement of a body, over `ReadAheadLimits.window` or a little more."""

    began: float
    """The start, by time.monotonic()."""

    flowing: int = 0
    """Connections that were delivering bytes at the start."""

    seconds: float = 0.0
    received: int = 0
    """Bytes that arrived from the store."""

    waited: float = 0.0
    """Seconds that the client waited for the store."""

    busy: float = 0.0
    """Fraction of the time in which the event loop's thread ran, or waited for a CPU."""


@dataclass(slots=True)
class ThreadLoad:
    """Measures how busy the event loop's thread is.

    All bodies share one instance: each measurement reads a file of /proc, which is too slow to do
    for each body.
    """

    _measured_at: float = -math.inf
    _busy_seconds: float = 0.0
    _fraction: float = 1.0

    def fraction(self, now: float, window: float) -> float:
        """Return how much of the time until `now` the thread ran or waited for a CPU, up to 1.0.

        Within `window` seconds, further calls return the same measurement. After PAUSE_SECONDS
        without a call, return 1.0: the load of the last moments is unknown.
        """
        elapsed = now - self._measured_at
        if elapsed > window:
            before, self._busy_seconds = self._busy_seconds, _busy_seconds()
            self._measured_at = now
            is_known = elapsed < PAUSE_SECONDS
            self._fraction = (self._busy_seconds - before) / elapsed if is_known else 1.0
        return self._fraction


def _busy_seconds() -> float:
    """Return the CPU seconds of this thread; on Linux, add the seconds it waited for a CPU."""
    with suppress(OSError):
        return time.thread_time() + int(_SCHEDSTAT.read_bytes().split()[1]) / 1e9
    return time.thread_time()


class ConcurrencyController:
    """Decides how many connections read a body: `width`.

    `width` doubles while the store is the limit. It shrinks if each connection gets much slower or
    if the client is slower than the store.
    """

    def __init__(self, most: int, limits: ReadAheadLimits) -> None:
        self.width = 1
        self._most = most
        self.limits = limits
        self._share = 0.0
        """Bytes per second of each connection, before the newest were added."""
        self._tries = 0
        """Measurements left for the newest connections to reach `min_share`; 0 if they have."""
        self._client_share = 0.0
        """Average fraction of the time in which the client, not the store, is the limit."""
        self._hold = limits.hold
        self._held_until = 0.0

    def update(self, window: Window) -> None:
        """Increase, reduce or keep the width, after one measurement."""
        now, client_share = window.began + window.seconds, 1 - window.waited / window.seconds
        weight = min(window.seconds / self.limits.client, 1)
        self._client_share += (client_share - self._client_share) * weight
        if self.width > 1 and self._client_share > 1 / 2:
            self.back_off(now, self.width // 2)
            return
        if window.flowing < self.width:
            return  # Some connections have delivered nothing yet.
        share = window.received / window.seconds / self.width
        if self._tries and share < self._share * self.limits.min_share:
            self._tries -= 1
            if not self._tries:
                self.back_off(now, round(self.width * share / self._share))
            return
        self._tries = 0
        # Connections begin with a burst, so the lower of two speeds is the more reliable one.
        self._share = min((self._share + share) / 2, share) if self._share else share
        is_client_slow = max(client_share, self._client_share) > 1 / 2
        is_store_slow = window.busy < self.limits.max_busy and share < self.limits.max_share
        can_grow = self.width < self._most and now >= self._held_until
        if can_grow and is_store_slow and not is_client_slow:
            self.width = min(2 * self.width, self._most)
            self._tries = self.limits.tries

    def back_off(self, now: float, width: int) -> None:
        """Reduce the width to `width`, and keep it for a time that doubles with each call."""
        self.width = max(width, 1)
        self._tries, self._client_share = 0, 0.0
        self._held_until = now + self._hold
        self._hold *= 2


class Meter:
    """Measures the reading of one body, and updates its controller after each window."""

    def __init__(
        self, controller: ConcurrencyController, load: ThreadLoad, lag: Callable[[], int]
    ) -> None:
        self.controller = controller
        self._load = load
        self._lag = lag
        self._delivered = 0
        self._asked = self._handed_out = time.monotonic()
        self._window = Window(began=self._asked)

    def receive(self, size: int) -> None:
        """Count `size` bytes that arrived from the store."""
        self._window.received += size

    def start_read(self) -> None:
        """Note that the client has taken all earlier bytes and waits for the next."""
        self._asked = time.monotonic()
        if self._asked - self._handed_out >= self.controller.limits.stall:
            self.controller.back_off(self._asked, 1)

    def finish_read(self, size: int, flowing: Callable[[], int]) -> None:
        """Count `size` bytes for the client; `flowing` returns the number of busy connections."""
        now = self._handed_out = time.monotonic()
        window = self._window
        window.waited += now - self._asked
        self._delivered += size
        window.seconds = now - window.began
        if window.seconds < self.controller.limits.window:
            return
        self._window = Window(began=now, flowing=flowing())
        window.busy = self._load.fraction(now, self.controller.limits.window)
        # Most bytes may still be in send buffers, which fill quickly for a slow client, too.
        if self._lag() > self._delivered / 2:
            window.waited = 0
        self.controller.update(window)
