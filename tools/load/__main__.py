"""Measure the service under load and print a Markdown table.

Runs the named cases, or all. The exit code is 1 if a promise of the service is broken.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Callable

from .aborts import aborts
from .cuts import cuts, replaced
from .figures import Figures
from .rolling import rolling
from .sigterm import sigterm
from .slow import slow

CASES: dict[str, Callable[[Figures], None]] = {
    "cuts": cuts,
    "replaced": replaced,
    "slow": slow,
    "aborts": aborts,
    "sigterm": sigterm,
    "rolling": rolling,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/load", description=__doc__)
    parser.add_argument("cases", nargs="*", help=", ".join(CASES), metavar="case")
    names = parser.parse_args().cases or list(CASES)
    if unknown := set(names) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    # The service inherits this limit, and needs two descriptors for each slow reader.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures = Figures()
    figures.begin()
    for name in names:
        load = " ".join(f"{number:.1f}" for number in os.getloadavg())
        figures.add(name, "cores; load averages before", f"{os.cpu_count()}; {load}")
        CASES[name](figures)
    return int(figures.broken)


if __name__ == "__main__":
    sys.exit(main())
