"""Whether a client takes its bytes: dead ones and dripping ones told from slow ones."""

from __future__ import annotations

# As much as kernels buffer for a connection (tcp_wmem's default maximum on Linux), and the server
# in front of them.
MAX_BUFFERED = 4 * 1024 * 1024 + 256 * 1024

# A shorter wait is the event loop's, not the client's.
WAIT_SECONDS = 0.01


class Pace:
    """How long the messages of one download wait for its client.

    A message waits until there is room in buffers, whose size nobody tells. But what was handed
    over between two waits is what found room there, so for the next room a client has to take
    about that much: it may take as long as a client of `min_rate` bytes a second would, and at
    least `stall` seconds. A client that is faster than that is never taken for a stalled one, and
    one that drips is not kept for long.
    """

    __slots__ = ("_burst", "_last_burst", "_min_rate", "_stall", "_waiting_since")

    def __init__(self, *, stall: float, min_rate: int) -> None:
        self._stall = stall
        self._min_rate = min_rate
        self._burst = 0
        self._last_burst = 0
        self._waiting_since: float | None = None

    def hand_over(self, size: int, now: float) -> None:
        """Note that a message with `size` bytes of body is handed to the server."""
        self._burst += size
        self._waiting_since = now

    def taken(self, now: float) -> None:
        """Note that the server took it."""
        if self._waiting_since is not None and now - self._waiting_since > WAIT_SECONDS:
            self._last_burst, self._burst = self._burst, 0
        self._waiting_since = None

    def is_too_slow(self, now: float) -> bool:
        """Return whether the present message has waited too long."""
        if self._waiting_since is None:
            return False
        waited = now - self._waiting_since
        return waited > self._stall and waited > self._longest_wait()

    def _longest_wait(self) -> float:
        if not self._min_rate:
            return 0.0
        return min(max(self._burst, self._last_burst), MAX_BUFFERED) / self._min_rate
