"""What was measured: values by case, peer and round; their medians, and ratios within a round."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

_TINY, _LARGE = 0.1, 10


@dataclass(frozen=True)
class Figure:
    """Something that is measured; of those that are `compared` there are ratios."""

    name: str
    digits: int = 0
    less_is_better: bool = True
    compared: bool = False


@dataclass(frozen=True)
class Spread:
    """A median, and between what values it lies."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Return the spread of what was measured, if anything was."""
        known = [value for value in values if math.isfinite(value)]
        return cls(median(known), min(known), max(known)) if known else None


def ratio_text(value: float) -> str:
    """Return a ratio to as many digits as are worth reading."""
    digits = 0 if abs(value) >= _LARGE else 2
    return f"{value:,.{digits}f}" if abs(value) >= _TINY else f"{value:.2g}"


@dataclass
class Results:
    """The values of one case, by peer and figure: one of each round, NaN where it failed."""

    load: str
    """The load averages before it."""

    values: dict[str, dict[Figure, list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, peer: str, figures: Iterable[Figure], measured: dict[Figure, float]) -> None:
        """Add what a round has given."""
        of_peer = self.values.setdefault(peer, {})
        for figure in figures:
            of_peer.setdefault(figure, []).append(measured.get(figure, math.nan))

    def spread(self, peer: str, figure: Figure) -> Spread | None:
        """Return the values of a figure."""
        return Spread.of(self._values(peer, figure))

    def ratio(
        self, peer: str, reference: str, figure: Figure, results: Results | None = None
    ) -> Spread | None:
        """Return the ratio to another peer, here or in `results`, taken within each round."""
        others = (results or self)._values(reference, figure)
        pairs = zip(self._values(peer, figure), others, strict=False)
        return Spread.of(one / other for one, other in pairs if other > 0)

    def _values(self, peer: str, figure: Figure) -> list[float]:
        return self.values.get(peer, {}).get(figure, [])
