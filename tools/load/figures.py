"""Print measurements as rows of a Markdown table."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1 << 20


@dataclass
class Figures:
    """Prints each row at once, and remembers whether a promise was broken."""

    broken: bool = False

    def begin(self) -> None:
        self._write("case", "figure", "value", "promise")
        self._write("---", "---", "---", "---")

    def add(self, case: str, figure: str, value: object, *, kept: bool | None = None) -> None:
        """Write one row; `kept` says whether a promise was kept, None that there is none."""
        self.broken |= kept is False
        self._write(case, figure, str(value), {None: "", True: "kept", False: "BROKEN"}[kept])

    def _write(self, *cells: str) -> None:
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
        sys.stdout.flush()


def milliseconds(seconds: Sequence[float]) -> str:
    """Return p50, p99 (nearest rank) and the maximum in milliseconds."""
    if not seconds:
        return "none"
    ranked = sorted(seconds)
    p50, p99 = (ranked[math.ceil(share * len(ranked)) - 1] for share in (0.5, 0.99))
    return f"{p50 * 1000:.0f} / {p99 * 1000:.0f} / {ranked[-1] * 1000:.0f}"
