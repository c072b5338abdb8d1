"""Print a table of faults: what the service does in each, and what a naive service does.

An outcome in bold harms the client or the service. `whole`: the client got all bytes of one
version. `broken visibly`: it got the first bytes of one version, and sees that the transfer was
cut. A number: it got a problem document with this status. `dropped`: the client has gone or was
given up, and all its resources are free. The exit code is 1 if the service has an outcome in bold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable

from tests.support.document import say, with_table
from tests.support.serving import ROOT

from .bench import BOTOCORE, DOWNSPOUT, NAIVE, Subject, over_tls
from .faults import FAULTS, Fault
from .outcomes import Case, cases, is_honest, judging

Outcomes = dict[Case, str]

DOCUMENT = ROOT / "docs" / "reliability.md"


def outcomes_of(subject: Subject, faults: Iterable[Fault]) -> Outcomes:
    """Return the outcome of each case; print how long they took."""
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
    """Run the faults that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="run only faults with TEXT in their name"
    )
    parser.add_argument(
        "--botocore", action="store_true", help="run the service with S3_DIRECT=false"
    )
    parser.add_argument(
        "--tls", action="store_true", help="run all faults over TLS, not only those of TLS"
    )
    parser.add_argument("--no-naive", action="store_true", help="do not run the naive service")
    parser.add_argument(
        "--write", action="store_true", help="write the table into docs/reliability.md"
    )
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only in fault.name]
    subjects = [BOTOCORE if options.botocore else DOWNSPOUT, NAIVE]
    if options.tls:
        subjects = [over_tls(subject) for subject in subjects]
    ours = outcomes_of(subjects[0], faults)
    naive = None if options.no_naive else outcomes_of(subjects[1], faults)
    printed = table(faults, ours, naive)
    print(printed)  # noqa: T201
    if options.write:
        DOCUMENT.write_text(with_table(DOCUMENT, "faults", printed), encoding="utf-8")
    for (fault, source), outcome in ours.items():
        if outcome != (expected := fault.outcome_of(source)):
            say(f"{fault.name} ({source}): expected {expected}, got {outcome}")
    return 0 if all(map(is_honest, ours.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
