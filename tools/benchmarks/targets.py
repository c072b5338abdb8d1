"""What is to be reached, and whether it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .measures import CPU_GIB, MEMORY, OVER_DIRECT, RATE, SPEED
from .peer import ARTICLE, DIRECT, NGINX, OBSTORE_SMALL, ONE_STREAM, TUNED
from .results import Figure, Results, Spread


@dataclass(frozen=True)
class Target:
    """A bound on the median of a figure, or of its ratio to another peer's."""

    case: str
    figure: Figure
    bound: float
    reference: str | None = None

    def text(self) -> str:
        """Return what it says."""
        bound = f"{'at most' if self.figure.less_is_better else 'at least'} {self.bound:g}"
        if self.reference is None:
            return f"{bound} {self.figure.name}"
        return f"{self.figure.name} {bound} x {self.reference}"

    def found(self, results: Mapping[str, Results], peer: str) -> Spread | None:
        """Return what was measured of it."""
        if self.case not in results:
            return None
        of_case = results[self.case]
        if self.reference is None:
            return of_case.spread(peer, self.figure)
        return of_case.ratio(peer, self.reference, self.figure)

    def reached(self, found: Spread) -> bool:
        """Return whether that is enough."""
        if self.figure.less_is_better:
            return found.median <= self.bound
        return found.median >= self.bound


TARGETS = (
    *(
        Target(case, SPEED, bound, reference)
        for case in ("alone-10M", "alone-100M", "alone-1G")
        for bound, reference in ((1.0, NGINX), (20.0, ARTICLE))
    ),
    Target("crowd", SPEED, 0.95, NGINX),
    Target("alone-1G", CPU_GIB, 1.1, NGINX),
    Target("small-64", RATE, 2.2, OBSTORE_SMALL),
    Target("small-64", RATE, 5.5, TUNED),
    Target("small-64", RATE, 0.15, NGINX),
    Target("slow", MEMORY, 256.0),
    Target("capped-0", SPEED, 6.0, DIRECT),
    Target("capped-30", SPEED, 4.5, DIRECT),
    # What it is to be is no more; a tenth is noise.
    Target("slow-capped", MEMORY, 1.1, ONE_STREAM),
    Target("first-byte-16K", OVER_DIRECT, 0.5, OBSTORE_SMALL),
)
