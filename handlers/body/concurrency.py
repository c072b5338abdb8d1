"""How many store connections a body is read with, decided by measurement."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadAheadLimits:
    """When bodies are read ahead, and how; sizes in bytes, times in seconds."""

    min_length: int = 8 * MIB
    """A shorter body ends before a second connection has shown its gain."""

    min_piece: int = MIB
    max_piece: int = 8 * MIB
    """The larger a piece, the less it costs that its connection idles until its first byte."""

    stall: float = 0.25
    """Nothing is read ahead of a client that takes no bytes for this long."""

    window: float = 0.01
    """The time that is measured before each decision about the number of connections."""

    min_delivered: int = 512 * 1024
    """Bytes for the client before the first decision: its buffers take the first ones at once."""

    min_share: float = 0.75
    """Part of its speed that each connection must keep when their number doubles."""

    tries: int = 3
    """Windows for new connections to show this."""

    max_busy: float = 2 / 3
    """Part of the time that the event loop's thread runs, above which the CPU is the limit."""

    max_share: float = 200 * MIB
    """Bytes per second on one connection that no store limits: S3 gives 50 to 100 MiB/s."""

    client: float = 0.2
    """The time over which a client must be slower than the store to be read ahead less."""

    hold: float = 1.0
    """The time without growth after connections were taken back; doubled each time."""


@dataclass(kw_only=True, slots=True)
class Window:
    """What is measured of a body for some milliseconds."""

    began: float
    """By time.monotonic()."""

    flowing: int = 0
    """Connections that gave bytes when it began."""

    seconds: float = 0.0
    received: int = 0
    """Bytes from the store."""

    waited: float = 0.0
    """Seconds that the client waited for the store."""

    busy: float = field(default_factory=time.thread_time)
    """Seconds that the event loop's thread ran: before the window, and at its end in it."""


class ConcurrencyController:
    """Decides how many connections a body is read with: `width`.

    It doubles them while the store is the limit, and takes them back if each gives much less.
    """

    def __init__(self, most: int, limits: ReadAheadLimits) -> None:
        self.width = 1
        self._most = most
        self.limits = limits
        self._share = 0.0
        """Bytes per second of each connection, before the newest ones."""
        self._tries = 0
        """Windows in which the newest connections can show their gain; 0 if they have."""
        self._client_share = 0.0
        """Average part of the time in which the client is the limit."""
        self._hold = limits.hold
        self._held_until = 0.0

    def update(self, window: Window) -> None:
        """Grow, shrink or keep the width."""
        now, client_share = window.began + window.seconds, 1 - window.waited / window.seconds
        weight = min(window.seconds / self.limits.client, 1)
        self._client_share += (client_share - self._client_share) * weight
        if self.width > 1 and self._client_share > 1 / 2:
            self.back_off(now, self.width // 2)
            return
        if window.flowing < self.width:
            return  # Connections without bytes have not shown their gain.
        share = window.received / window.seconds / self.width
        if self._tries and share < self._share * self.limits.min_share:
            self._tries -= 1
            if not self._tries:
                self.back_off(now, round(self.width * share / self._share))
            return
        self._tries = 0
        # Connections begin with a burst: a share had better be taken for too small.
        self._share = min((self._share + share) / 2, share) if self._share else share
        is_client_slow = max(client_share, self._client_share) > 1 / 2
        if now >= self._held_until and not is_client_slow and self._can_grow(window, share):
            self.width = min(2 * self.width, self._most)
            self._tries = self.limits.tries

    def _can_grow(self, window: Window, share: float) -> bool:
        return (
            self.width < self._most
            and window.busy < window.seconds * self.limits.max_busy
            and share < self.limits.max_share
        )

    def back_off(self, now: float, width: int) -> None:
        """Shrink, and do not grow for a time that doubles with each call."""
        self.width = max(width, 1)
        self._tries, self._client_share = 0, 0.0
        self._held_until = now + self._hold
        self._hold *= 2


class Meter:
    """Measures how a body is read, and updates its controller after each window."""

    def __init__(self, controller: ConcurrencyController, lag: Callable[[], int]) -> None:
        self.controller = controller
        self._lag = lag
        self._delivered = 0
        self._asked = self._handed_out = time.monotonic()
        self._window = Window(began=self._asked)

    def receive(self, size: int) -> None:
        """Count bytes from the store."""
        self._window.received += size

    def start_read(self) -> None:
        """Note that the client has taken everything."""
        self._asked = time.monotonic()
        if self._asked - self._handed_out >= self.controller.limits.stall:
            self.controller.back_off(self._asked, 1)

    def finish_read(self, size: int, flowing: Callable[[], int]) -> None:
        """Count bytes for the client; `flowing` counts the connections that give bytes."""
        now = self._handed_out = time.monotonic()
        window = self._window
        window.waited += now - self._asked
        self._delivered += size
        window.seconds = now - window.began
        if window.seconds < self.controller.limits.window:
            return
        # Without connections that flow, the next window decides nothing.
        is_measurable = self._delivered >= self.controller.limits.min_delivered
        self._window = Window(began=now, flowing=flowing() if is_measurable else 0)
        window.busy = self._window.busy - window.busy
        # Send buffers take the first bytes for a slow client as fast as for a fast one.
        if self._lag() > self._delivered / 2:
            window.waited = 0
        self.controller.update(window)
