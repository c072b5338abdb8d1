"""How much is measured: in full, and quickly, which shows no more than that it runs."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

SMALL, MEDIUM, LARGE, HUGE, ARTICLE = range(1, 6)  # the ids of the tasks that are downloaded
_NAMES = {SMALL: "small", MEDIUM: "medium", LARGE: "large", HUGE: "huge", ARTICLE: "article"}


@dataclass(frozen=True)
class Scale:
    """The sizes of a run, by task, and its counts."""

    rounds: int
    sizes: dict[int, int]
    crowd: int
    readers: int
    requests: int
    seconds: float
    """That a measurement repeats for, unless it has got `volume` bytes or `requests` before."""

    volume: int
    settled: float
    """Seconds until all buffers on the way to a slow reader are full, and given back."""

    def words(self) -> dict[str, object]:
        """Return what the titles of cases may name."""
        sizes = {_NAMES[task]: _text(size) for task, size in self.sizes.items()}
        return {**sizes, "crowd": self.crowd, "readers": self.readers}


def _text(size: int) -> str:
    for unit, text in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"), (1_000_000, "MB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {text}"
    return f"{size} bytes"


FULL = Scale(
    rounds=5,
    sizes={SMALL: 16 * KIB, MEDIUM: 10 * MIB, LARGE: 100 * MIB, HUGE: GIB, ARTICLE: 10_000_000},
    crowd=32,
    readers=200,
    requests=200,
    seconds=3.0,
    volume=GIB,
    settled=10.0,
)
QUICK = Scale(
    rounds=1,
    sizes={SMALL: 16 * KIB, MEDIUM: MIB, LARGE: 8 * MIB, HUGE: 64 * MIB, ARTICLE: 1_000_000},
    crowd=8,
    readers=20,
    requests=20,
    seconds=0.3,
    volume=16 * MIB,
    settled=1.0,
)
