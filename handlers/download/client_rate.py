"""Whether a client takes its bytes: stalled and dripping clients, told from slow ones."""

from dataclasses import dataclass

# How often a client is looked at, and so how late a step may be seen.
TICK_SECONDS = 1.0

# No client may stay longer without a step, however large its steps may be.
LONGEST_SECONDS = 600.0

# The rate by which steps are waited for where any rate will do.
LOWEST_RATE = 1024


@dataclass(frozen=True, slots=True)
class BufferVisibility:
    """How well the server sees what a client takes, which a client does in steps.

    A client announces room when a part of its buffer is free again. Where the server cannot see
    the kernel's buffer, the bytes in it look taken, in larger steps.
    """

    buffer: int
    """Bytes of the largest buffer there may be."""

    step: float
    """The largest step, as a part of that buffer."""


# Linux has a receiver announce room when a sixteenth of its buffer is free (__tcp_select_window);
# the buffer grows to 6 MiB by default, recently to 32 MiB (tcp_rmem). Others announce sooner.
KERNEL = BufferVisibility(32 * 1024 * 1024, 1 / 16)

# The sender's buffer grows to 4 MiB (tcp_wmem), and the server has one of its own.
SERVER_ONLY = BufferVisibility(4 * 1024 * 1024 + 256 * 1024, 1)


@dataclass(kw_only=True, slots=True)
class ClientRateGuard:
    """Judges what a client takes while messages wait for it.

    A client may take nothing for `stall` seconds, or for as long as a client of `min_rate` bytes a
    second needs for one step, if that is longer. Over two such times it has to take `min_rate`,
    give or take one step. So a faster client is never given up, however large its steps are.
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
        """Note that no message waits for the client."""
        self._began = None

    def is_too_slow(self, taken: int, now: float) -> bool:
        """Return whether the client has taken too little.

        `taken` counts the bytes of the whole download so far. To be called every TICK_SECONDS
        while a message waits.
        """
        taken = max(taken, self._taken)
        step, self._taken = taken - self._taken, taken
        largest = self.visibility.buffer * self.visibility.step
        if self._began is None:
            # Only what was taken at once shows how large the client's buffer has become.
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
