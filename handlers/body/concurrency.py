"""How many connections to the store a body is worth, by what is seen of it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field

MIB = 1024 * 1024

# In so many windows may a new connection show that it adds this part of a connection's share.
TRIES, GAIN = 3, 0.5

# Part of the time above which the event loop's thread is what limits, however long each of many
# bodies waits for its bytes.
BUSY = 2 / 3

# A connection that gives so much a second is none that a store limits: S3 gives 50 to 100 MiB.
ENOUGH = 200 * MIB

# A client that limits for most of this time is read ahead for less.
CLIENT_SECONDS = 0.2

FIRST_HOLD, LONGEST_HOLD = 1.0, 60.0


def _busy_seconds() -> float:
    """Return for how long this thread has run, or could have where others had the CPU."""
    delay = 0
    with suppress(OSError):  # Linux alone tells it.
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        try:
            delay = int(os.read(file, 100).split()[1])
        finally:
            os.close(file)
    return time.thread_time() + delay / 1e9


@dataclass(slots=True)
class Window:
    """What is seen of a body for a moment."""

    began: float
    busy: float = field(default_factory=_busy_seconds)
    """Seconds that the event loop's thread was busy: before it, and at its end in it."""
    seconds: float = 0.0
    received: int = 0
    connected: float = 0.0
    """Seconds of all its connections, each counted from its first byte on."""
    waited: float = 0.0
    """Seconds that the client waited for us; the rest we waited for the client."""
    is_opening: bool = False
    """Whether the newest connection has given no byte yet."""


class ConcurrencyController:
    """Decides how many connections a body is worth: numbers in, `width` out."""

    def __init__(self, most: int) -> None:
        self.width = 1
        self._most = most
        self._share = 0.0
        self._tries = 0
        self._of_client = 0.0
        self._hold = FIRST_HOLD
        self._held_until = 0.0

    def update(self, seen: Window) -> None:
        """Grow or shrink by one, or do neither."""
        now = seen.began + seen.seconds
        of_client = 1 - seen.waited / seen.seconds
        weight = min(seen.seconds / CLIENT_SECONDS, 1)
        self._of_client += (of_client - self._of_client) * weight
        share = seen.received / max(seen.connected, 1e-6)
        if self._tries and not seen.is_opening and not self._has_shown(share, now):
            return
        # Connections begin with a burst: what is taken for a share had better be too small.
        self._share = min((self._share + share) / 2, share) if self._share else share
        if self.width > 1 and self._of_client > 1 / 2:
            self.back_off(now, self.width - 1)
        elif (
            not self._tries
            and self.width < self._most
            and now >= self._held_until
            and max(of_client, self._of_client) < 1 / 2
            and seen.busy < seen.seconds * BUSY
            and share < ENOUGH
        ):
            self.width += 1
            self._tries = TRIES

    def _has_shown(self, share: float, now: float) -> bool:
        """Return whether the newest connection adds speed; takes it back where it does not."""
        if share >= self._share * (self.width - 1 + GAIN) / self.width:
            self._tries = 0
            return True
        self._share += (share - self._share) * 0.3
        self._tries -= 1
        if not self._tries:
            self.back_off(now, self.width - 1)
        return False

    def undo(self) -> None:
        """Take back a growth that was not possible."""
        self.width, self._tries = max(self.width - 1, 1), 0

    def back_off(self, now: float, width: int) -> None:
        """Shrink, and grow no more for a time that doubles: what it wastes is bounded."""
        self.width, self._tries, self._of_client = max(width, 1), 0, 0.0
        self._held_until = now + self._hold
        self._hold = min(self._hold * 2, LONGEST_HOLD)
