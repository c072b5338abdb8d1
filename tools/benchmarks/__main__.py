"""Measure the service and its peers in turns, and print a report in Markdown.

Progress goes to standard error.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from .cases import CASES
from .lab import Lab
from .machine import machine
from .peer import OTHER, PEERS, other_checkout
from .report import report
from .rounds import measure
from .scale import FULL, QUICK

HERE = Path(__file__).parent


def main() -> None:
    """Run what the command line asks for."""
    asked = _arguments()
    # Exit through the context managers, so that SIGTERM ends all processes that were started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    scale = QUICK if asked.quick else FULL
    rounds = asked.rounds or scale.rounds
    lines = [*machine(), *(["**a quick run, which shows that it runs**"] if asked.quick else [])]
    results = {}
    if asked.beside is not None:
        PEERS[OTHER] = other_checkout(asked.beside)
    with tempfile.TemporaryDirectory() as directory, Lab(Path(directory), scale) as lab:
        for case in CASES:
            names = case.peers if asked.beside is None else (*case.peers, OTHER)
            peers = [name for name in names if _asked_for(name, asked.peers)]
            if peers and _asked_for(case.name, asked.cases):
                results[case.name] = measure(case, peers, lab, scale, rounds)
    if not results:
        raise SystemExit("no case or peer has such a name; see --help")
    text = report(results, scale, rounds=rounds, lines=lines)
    sys.stdout.write(text)
    if asked.write:
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
        from .plot import plot  # noqa: PLC0415 - only this needs matplotlib

        plot(results, scale.words(), HERE / "results.svg")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    cases = ", ".join(case.name for case in CASES)
    parser.add_argument(
        "--cases",
        type=_parts,
        help=f"cases to run: parts of names, separated by commas, of: {cases}",
    )
    parser.add_argument(
        "--peers", type=_parts, help=f"peers to measure: parts of names, of: {'; '.join(PEERS)}"
    )
    parser.add_argument("--rounds", type=int, help=f"number of rounds (default: {FULL.rounds})")
    parser.add_argument(
        "--quick", action="store_true", help="use small sizes and one round, to see that it runs"
    )
    parser.add_argument(
        "--beside", type=Path, metavar="DIR", help="measure the service of this checkout, too"
    )
    parser.add_argument(
        "--write", action="store_true", help="write tools/benchmarks/RESULTS.md and its plot"
    )
    return parser.parse_args()


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _asked_for(name: str, parts: list[str] | None) -> bool:
    return parts is None or any(part in name for part in parts)


if __name__ == "__main__":
    main()
