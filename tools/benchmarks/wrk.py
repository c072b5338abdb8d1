"""Small answers on many connections, by wrk, which is a client in C."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_suffix(".lua")
_TIMEOUT = 20  # seconds for an answer
_LINE = re.compile(r"^measured (\d+) (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Measured:
    """What wrk says, in seconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int


def wrk(url: str, connections: int, seconds: float) -> Measured:
    """Ask for a URL over and over."""
    command = ["wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{max(1, round(seconds))}s", "--timeout", f"{_TIMEOUT}s"]
    command += ["--script", str(_SCRIPT), url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = _LINE.search(said)
    if not found:
        raise RuntimeError(f"wrk said nothing that was measured:\n{said}")
    requests, duration, p50, p99, failed = map(int, found.groups())
    return Measured(requests, duration / 1e6, p50 / 1e6, p99 / 1e6, failed)


def version() -> str:
    """Return wrk's version; asked for, it counts that as a failure."""
    said = subprocess.run(["wrk", "-v"], check=False, capture_output=True, text=True).stdout
    return said.split()[1].rpartition("/")[2]
