"""Detects clients that stop reading or read below CLIENT_MIN_RATE."""

from dataclasses import dataclass

# Seconds between two checks of a client, so a step may be noticed this late.
TICK_SECONDS = 1.0

# The longest time that a client may take no byte, however large its steps are.
LONGEST_SECONDS = 600.0

# Bytes per second that a step may take at least if CLIENT_MIN_RATE is 0.
LOWEST_RATE = 1024


@dataclass(frozen=True, slots=True)
class BufferVisibility:
    """Which buffers the server can see, and so in which steps a client seems to take bytes.

    A client opens its TCP window again when a part of its receive buffer is free: one step. If the
    server can't see the kernel's send buffer, bytes in it look taken, and the steps are larger.
    """

    buffer: int
    """Bytes of the largest buffer that determines the steps."""

    step: float
    """The largest step, as a fraction of `buffer`."""


# The server sees the kernel's send buffer. A Linux client opens its window when a sixteenth of its
# receive buffer is free (__tcp_select_window); that buffer grows to 6 MiB, in recent kernels to
# 32 MiB (tcp_rmem). Other systems open the window sooner.
KERNEL = BufferVisibility(32 * 1024 * 1024, 1 / 16)

# The server can't see the kernel's send buffer, up to 4 MiB (tcp_wmem); its own buffer adds to it.
SERVER_ONLY = BufferVisibility(4 * 1024 * 1024 + 256 * 1024, 1)


@dataclass(kw_only=True, slots=True)
class ClientRateGuard:
    """Decides whether a client reads too slowly, while the server waits to send to it.

    A client takes bytes in bursts; the largest burst is one step. A client is too slow if it takes
    no byte for `stall` seconds or, if longer, for the seconds that one step takes at `min_rate`
    bytes per second. It is also too slow if, over twice that time, it takes fewer bytes than
    `min_rate` allows, less one step. The step is subtracted so that a client faster than
    `min_rate` is never dropped, however large its bursts are.
    """

    stall: float
    min_rate: int
    visibility: BufferVisibility
    _step: float = 0.0
    _taken: int = 0
    _began: float | None = None
    _from: int = 0
    _moved: float = 0.0

    def rest(self) -> None:
        """Start over: the server does not wait to send to the client."""
        self._began = None

    def is_too_slow(self, taken: int, now: float) -> bool:
        """Return whether the client has stalled or stays below `min_rate`.

        `taken`: bytes that the client took since the download began; `now`: time.monotonic().
        Call it every TICK_SECONDS while a message waits to be sent.
        """
        taken = max(taken, self._taken)
        step, self._taken = taken - self._taken, taken
        largest = self.visibility.buffer * self.visibility.step
        if self._began is None:
            # The bytes taken since the last check show how large the client's buffer has become.
            step = int(min(step, self.visibility.buffer) * self.visibility.step)
            self._began, self._moved, self._from = now, now, taken
        elif step:
            self._moved = now
        self._step = min(max(self._step, step), largest)
        limit = self._stall_limit()
        if now - self._moved > limit:
            return True
        if now - self._began > 2 * limit:
            if taken - self._from + self._step < self.min_rate * (now - self._began):
                return True
            self._began, self._from = now, taken
        return False

    def _stall_limit(self) -> float:
        one_step = self._step / (self.min_rate or LOWEST_RATE)
        return max(self.stall, min(one_step, LONGEST_SECONDS)) + TICK_SECONDS
