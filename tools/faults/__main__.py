"""Prints, fault by fault, what the service makes of it, and beside it what a naive one does.

In bold is what does harm, to the client or to the service. `whole` is all bytes of one version;
`broken visibly` some of its first, in a transfer that every client sees to be cut; a number is a
problem document; `dropped` are clients of whom nothing is left. Exits with 1 when there is any
harm in what the service makes of a fault.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable

from tests.support.document import say, with_table
from tests.support.serving import ROOT

from .bench import DOWNSPOUT, NAIVE, Subject
from .faults import FAULTS, Fault
from .outcomes import Case, cases, is_honest, judging

Outcomes = dict[Case, str]

README = ROOT / "README.md"


def outcomes_of(subject: Subject, faults: Iterable[Fault]) -> Outcomes:
    """Return the outcome of each case, and say how long it took."""
    begun = time.monotonic()
    with judging(subject, cases(faults)) as futures:
        outcomes = {case: future.result() for case, future in futures.items()}
    say(f"{subject.name}: {len(outcomes)} cases in {time.monotonic() - begun:.0f} s")
    return outcomes


def table(faults: Iterable[Fault], ours: Outcomes, naive: Outcomes | None = None) -> str:
    """Return the Markdown of a table of faults and outcomes."""
    columns = {"image (S3)": (ours, "s3"), "bytes (HTTP)": (ours, "http")}
    if naive is not None:
        columns |= {"naive S3": (naive, "s3"), "naive HTTP": (naive, "http")}
    lines = ["| " + " | ".join(["fault", *columns]) + " |", "|---" * (1 + len(columns)) + "|"]
    for fault in faults:
        cells = [outcomes.get((fault, source), "") for outcomes, source in columns.values()]
        lines.append("| " + " | ".join([fault.name, *cells]) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="faults with TEXT in the name")
    parser.add_argument("--no-naive", action="store_true", help="leave the comparison out")
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only in fault.name]
    ours = outcomes_of(DOWNSPOUT, faults)
    naive = None if options.no_naive else outcomes_of(NAIVE, faults)
    printed = table(faults, ours, naive)
    print(printed)  # noqa: T201
    if options.write:
        README.write_text(with_table(README, "faults", printed), encoding="utf-8")
    for (fault, source), outcome in ours.items():
        if outcome != (expected := fault.outcome_of(source)):
            say(f"{fault.name} ({source}): expected {expected}, got {outcome}")
    return 0 if all(map(is_honest, ours.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
