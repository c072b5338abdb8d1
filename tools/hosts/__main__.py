"""Run the examples under every server and print a Markdown table of what holds.

A case in bold fails on the server that it names; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.components import BUCKET, Store, component
from tests.support.document import say, with_table
from tests.support.misbehaving import Misbehaving, misbehaving
from tests.support.serving import installed_into

from .cases import CASES, Combination, combinations, fill
from .running import EXAMPLES, HOSTS, SERVERS, running

README = EXAMPLES / "README.md"

Outcomes = dict[Combination, bool]


@contextmanager
def surroundings() -> Generator[tuple[Path, Store, Misbehaving]]:
    """Yield the folder of the installed package, a filled store, and the server before it."""
    with (
        TemporaryDirectory() as target,
        component("store.py", BUCKET) as port,
        misbehaving() as between,
    ):
        installed_into(Path(target))
        store = Store(port)
        fill(store)
        yield Path(target), store, between


def tried(chosen: list[Combination]) -> Outcomes:
    """Run all cases; return which hold, and print the error of each that fails."""
    outcomes: Outcomes = {}
    with surroundings() as (installed, store, between):
        for process, group in groupby(chosen, key=lambda one: one.process):
            with running(process, installed, store, between) as host:
                for one in group:
                    host.forget()
                    try:
                        one.case(host)
                    except Exception:  # noqa: BLE001 - any error is a failed case
                        say(f"{', '.join(one)}:\n{traceback.format_exc()}")
                        outcomes[one] = False
                    else:
                        outcomes[one] = True
    return outcomes


def table(outcomes: Outcomes) -> str:
    """Return the Markdown of a table of cases, hosts and servers."""
    lines = ["| " + " | ".join(["", *HOSTS]) + " |", "|---" * (1 + len(HOSTS)) + "|"]
    for name in CASES:
        cells = [_cell(outcomes, host, name) for host in HOSTS]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def _cell(outcomes: Outcomes, host: str, name: str) -> str:
    found = {one.server: outcomes[one] for one in outcomes if (one.host, one.name) == (host, name)}
    failed = ", ".join(f"**not {server}**" for server, holds in found.items() if not holds)
    return failed or ("all" if len(found) == len(SERVERS) else ", ".join(found))


def main() -> int:
    """Run all cases; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/hosts", description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="write the table into examples/README.md"
    )
    options = parser.parse_args()
    outcomes = tried(combinations())
    printed = table(outcomes)
    print(printed)  # noqa: T201
    if options.write:
        README.write_text(with_table(README, "hosts", printed), encoding="utf-8")
    return 0 if all(outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
