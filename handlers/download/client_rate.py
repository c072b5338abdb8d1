"""Whether a client takes its bytes: stalled and dripping ones told from slow ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BufferVisibility:
    """How well it can be seen what a client takes, which it does in steps.

    A client's own buffer tells of room when a part of it is free again; where the sender's buffers
    hide what was taken, the same holds for them, in larger parts.
    """

    buffer: int
    """Bytes of the largest buffer there may be."""

    part: float
    """How much of a buffer makes a step, at the most."""


# Linux has a receiver tell of room when a sixteenth of its buffer is free (__tcp_select_window);
# by default the buffer grows to 6 MiB, of late to 32 (tcp_rmem), and others tell sooner.
KERNEL = BufferVisibility(32 * 1024 * 1024, 1 / 16)

# The sender's buffer grows to 4 MiB (tcp_wmem), and the server has one of its own.
SERVER_ONLY = BufferVisibility(4 * 1024 * 1024 + 256 * 1024, 1)


# How often it is asked, and so how late a step may be seen.
TICK_SECONDS = 1.0

# However large its steps may be, for nobody is waited longer.
LONGEST_SECONDS = 600.0

# What steps are waited for at where any rate will do.
LOWEST_RATE = 1024


class ClientRateGuard:
    """What a client takes while messages wait for it.

    It may take nothing for `stall` seconds, or for as long as a client of `min_rate` bytes a
    second needs for one step where that is longer; and over two such times it has to take that
    rate, but for a step. So one that is faster is never given up, however large its steps are.
    """

    __slots__ = ("_begun", "_from", "_min_rate", "_moved", "_sight", "_stall", "_step", "_taken")

    def __init__(self, *, stall: float, min_rate: int, sight: BufferVisibility) -> None:
        self._stall = stall
        self._min_rate = min_rate
        self._sight = sight
        self._step = 0.0
        self._taken = 0
        self._begun: float | None = None
        self._from = 0
        self._moved = 0.0

    def rest(self) -> None:
        """Note that nothing waits for the client."""
        self._begun = None

    def is_too_slow(self, taken: int, now: float) -> bool:
        """Return whether too little was taken; `taken` is of the whole download so far.

        To be asked every `TICK_SECONDS` while a message waits.
        """
        taken = max(taken, self._taken)
        step, self._taken = taken - self._taken, taken
        if self._begun is None:
            # How large its buffer has become in the meantime, only what was taken at once tells.
            step = int(min(step, self._sight.buffer) * self._sight.part)
            self._begun, self._moved, self._from = now, now, taken
        elif step:
            self._moved = now
        self._step = min(max(self._step, step), self._sight.buffer * self._sight.part)
        limit = self._stall_limit()
        if now - self._moved > limit:
            return True
        if now - self._begun > 2 * limit:
            if taken - self._from + self._step < self._min_rate * (now - self._begun):
                return True
            self._begun, self._from = now, taken
        return False

    def _stall_limit(self) -> float:
        a_step = self._step / (self._min_rate or LOWEST_RATE)
        return max(self._stall, min(a_step, LONGEST_SECONDS)) + TICK_SECONDS
