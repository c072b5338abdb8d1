"""The processes of the store and the service, and what the kernel counts of them."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.client import fetch
from tests.support.serving import ROOT, ServiceProcess, wait_until

_DOWNLOAD = re.compile(r" GET /tasks/\S+ \S+ (\w+) .* resumes=(\d+)")


@dataclass(frozen=True)
class RunningStore:
    port: int

    def environ(self) -> dict[str, str]:
        """Return the variables that make this store the source of both routes."""
        url = f"http://127.0.0.1:{self.port}"
        return {
            "S3_IMAGE_BUCKET": "photos",
            "AWS_ENDPOINT_URL_S3": url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "BYTES_URL": url + "/bytes/{task_id}/{size}",
        }

    def stats(self) -> dict[str, list[int]]:
        stats: dict[str, list[int]] = json.loads(fetch(self.port, "/control/stats").body)
        return stats


@contextmanager
def running_store(*options: str) -> Generator[RunningStore]:
    command = [sys.executable, "-m", "tools.load.store", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield RunningStore(int(process.stdout.readline()))
        process.stdin.close()
        assert process.wait(20) == 0, "the store does not end with its standard input"


@dataclass(frozen=True)
class RunningService:
    process: ServiceProcess
    port: int

    @property
    def pid(self) -> int:
        return self.process.process.pid

    def resident_kib(self) -> int:
        return self._number("status", "VmRSS")

    def bytes_read(self) -> int:
        """Return how many bytes the process has read so far.

        Linux counts read(), which uvloop uses for sockets, and not recv(), which asyncio does.
        """
        return self._number("io", "rchar")

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def outcomes(self, *, downloads: int = 0) -> Counter[str]:
        """Wait for `downloads` lines in the log; count their outcomes and their resumes."""
        wait_until(lambda: len(self.logged()) >= downloads)
        counted = Counter(line[1] for line in self.logged())
        counted["resumes"] = sum(int(line[2]) for line in self.logged())
        return counted

    def logged(self) -> list[re.Match[str]]:
        return [found for line in self.process.lines if (found := _DOWNLOAD.search(line))]

    def _number(self, file: str, name: str) -> int:
        found = re.search(
            rf"^{name}:\s+(\d+)", Path(f"/proc/{self.pid}/{file}").read_text(), re.MULTILINE
        )
        assert found, name
        return int(found[1])


def tcp_memory_kib() -> int:
    """Return the memory of all TCP sockets of this machine, both ends of each connection."""
    found = re.search(r"^TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * resource.getpagesize() // 1024


@contextmanager
def running_service(store: RunningStore, **environ: str) -> Generator[RunningService]:
    with ServiceProcess({**store.environ(), **environ}) as process:
        yield RunningService(process, int(process.url().rsplit(":", 1)[1]))
