"""How far bodies are read ahead, within the memory that they share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from .concurrency import ConcurrencyController
from .observer import NO_OBSERVER, Observer
from .read_ahead_limits import ReadAheadLimits


@dataclass(slots=True)
class Budget:
    """The bytes that the pieces of all bodies of an application may have together."""

    left: int
    limits: ReadAheadLimits = field(default_factory=ReadAheadLimits)
    controller: Callable[[int, ReadAheadLimits], ConcurrencyController] = ConcurrencyController

    def take(self, most: int) -> int:
        """Return the size that a piece may have, 0 if that is less than the smallest piece.

        No piece gets more than half of what is left, so that others get something.
        """
        size = min(most, self.left // 2)
        if size < self.limits.min_piece:
            return 0
        self.left -= size
        return size

    def give(self, size: int) -> None:
        """Give back bytes that were delivered or dropped."""
        self.left += size


@dataclass(frozen=True, slots=True)
class ReadAheadPolicy:
    """How far the bodies of one request are read ahead."""

    budget: Budget
    width: int
    """Maximum parallel connections of one body; 1 disables read-ahead."""

    lag: Callable[[], int] = lambda: 0
    """Returns how many sent bytes the client may not have taken."""

    observer: Observer = NO_OBSERVER
