"""What is to be reached, and whether it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .measures import CPU_GIB, CPU_REQUEST, MEMORY, OVER_DIRECT, RATE, SPEED
from .peer import ARTICLE, BARE, DIRECT, NAIVE, NGINX, NGINX_TUNED, OBSTORE_SMALL, ONE_STREAM
from .results import Figure, Results, Spread


@dataclass(frozen=True)
class Target:
    """A bound on the median of a figure, or of its ratio to another peer's."""

    case: str
    figure: Figure
    bound: float
    reference: str | None = None
    """The other peer; None if the bound is on the figure itself, or on its ratio to `one_worker`.
    """

    one_worker: str | None = None
    """The case of which the same peer's figure is the reference."""

    def text(self) -> str:
        """Return what it says."""
        bound = f"{'at most' if self.figure.less_is_better else 'at least'} {self.bound:.3g}"
        reference = "one worker" if self.one_worker else self.reference
        if reference is None:
            return f"{bound} {self.figure.name}"
        return f"{self.figure.name} {bound} x {reference}"

    def found(self, results: Mapping[str, Results], peer: str) -> Spread | None:
        """Return what was measured of it."""
        if self.case not in results:
            return None
        of_case = results[self.case]
        if self.one_worker is not None:
            one_worker = results.get(self.one_worker)
            return of_case.ratio(peer, peer, self.figure, one_worker) if one_worker else None
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
    Target("alone-1G", SPEED, 0.8, NGINX_TUNED),
    Target("alone-100M-tls", SPEED, 1.3, NAIVE),
    Target("alone-100M-tls", SPEED, 1.2, OBSTORE_SMALL),
    Target("alone-100M-tls", CPU_GIB, 0.75, NAIVE),
    Target("crowd", SPEED, 1.0, OBSTORE_SMALL),
    Target("crowd-tls", SPEED, 1.0, OBSTORE_SMALL),
    Target("crowd-new", SPEED, 1.0, OBSTORE_SMALL),
    *(
        Target(case, figure, bound, reference)
        for case in ("small-64", "small-64-tls")
        for figure, bound, reference in (
            (CPU_REQUEST, 1 / 0.85, BARE),
            (RATE, 4.5, NAIVE),
            (RATE, 1.6, OBSTORE_SMALL),
        )
    ),
    Target("small-64-2w", RATE, 1.6, one_worker="small-64"),
    Target("slow", MEMORY, 256.0),
    Target("slow-tls", MEMORY, 320.0),
    Target("capped-0", SPEED, 6.0, DIRECT),
    Target("capped-30", SPEED, 4.5, DIRECT),
    # What it is to be is no more; a tenth is noise.
    Target("slow-capped", MEMORY, 1.1, ONE_STREAM),
    Target("first-byte-16K", OVER_DIRECT, 0.8, OBSTORE_SMALL),
)
