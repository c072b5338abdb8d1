"""The rounds of a case, in each of which all peers have their turn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from .cases import Case
from .lab import Lab
from .load import BadAnswerError
from .measures import FIRST_BYTE, OVER_DIRECT, Measured
from .peer import DIRECT, PEERS
from .results import Results
from .scale import Scale

_FAILURES = (BadAnswerError, OSError, RuntimeError, subprocess.SubprocessError)


def measure(case: Case, peers: Sequence[str], lab: Lab, scale: Scale, rounds: int) -> Results:
    """Measure the peers, beginning with another one in each round."""
    results = Results(load=" ".join(f"{number:.1f}" for number in os.getloadavg()))
    for number in range(1, rounds + 1):
        turn = number % len(peers)
        measured: dict[str, Measured] = {}
        for name in (*peers[turn:], *peers[:turn]):
            what = f"{case.name} {number}/{rounds} {name}"
            try:
                measured[name] = _measure(case, name, lab, scale)
                said = _text(measured[name])
            except _FAILURES as error:
                measured[name], said = {}, str(error) or type(error).__name__
                results.failures.append(f"{what}: {said.splitlines()[0]}")
            sys.stderr.write(f"{what}: {said}\n")
        for name in peers:
            results.add(name, case.figures, _over_direct(measured, name))
    return results


def _measure(case: Case, name: str, lab: Lab, scale: Scale) -> Measured:
    peer = PEERS[name]
    running = lab.running(peer, case.origin, workers=case.workers, fresh=case.fresh)
    measured = case.measure(running, scale)
    # What it still does for clients that have gone is not for the next one to bear.
    running.process.calm()
    return measured


def _over_direct(measured: dict[str, Measured], name: str) -> Measured:
    mine, direct = measured[name].get(FIRST_BYTE), measured.get(DIRECT, {}).get(FIRST_BYTE)
    if mine is None or direct is None:
        return measured[name]
    return {**measured[name], OVER_DIRECT: mine - direct}


def _text(measured: Measured) -> str:
    values = (f"{value:,.{figure.digits}f} {figure.name}" for figure, value in measured.items())
    return ", ".join(values)
