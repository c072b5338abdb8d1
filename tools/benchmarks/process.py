"""A process with its children, as the kernel sees them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from .scale import KIB

ROOT = Path(__file__).parent.parent.parent

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // KIB
_SESSION, _UTIME, _STIME, _RSS = 3, 11, 12, 21  # fields of /proc/PID/stat, behind the name
_CALM = 0.1  # seconds, in which no more than a tick was used
CALM_LIMIT_SECONDS = 60.0
_END = 5.0


class Process:
    """A command in a session of its own, by which its children are found."""

    def __init__(self, command: list[str], environ: Mapping[str, str], log: Path) -> None:
        # Not what is set for the one who measures: a proxy, a profile, a bundle of CAs.
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**inherited, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._log = log

    def alive(self) -> bool:
        """Return whether it has not ended by itself."""
        return self._process.poll() is None

    def cpu_seconds(self) -> float:
        """Return the CPU time that they have used so far, of user and system."""
        return sum(int(one[_UTIME]) + int(one[_STIME]) for one in self._stats()) / _TICKS

    def resident_kib(self) -> int:
        """Return their memory."""
        return sum(int(one[_RSS]) for one in self._stats()) * _PAGE_KIB

    def calm(self) -> None:
        """Wait until nothing is left to do for clients that have gone."""
        end = time.monotonic() + CALM_LIMIT_SECONDS
        used = self.cpu_seconds()
        while time.monotonic() < end:
            time.sleep(_CALM)
            before, used = used, self.cpu_seconds()
            if used - before < 2 / _TICKS:
                return

    def log(self) -> str:
        """Return the last of what it has said."""
        return self._log.read_text(errors="replace")[-2000:]

    def end(self) -> None:
        """End it and its children."""
        # Workers outlive a supervisor that is killed, so all get the same signal.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(_END)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue

    def _stats(self) -> Iterator[list[str]]:
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                # The name stands in parentheses and may have blanks, or parentheses, in it.
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:  # It has ended meanwhile.
                continue
            if int(fields[_SESSION]) == self._process.pid:
                yield fields
