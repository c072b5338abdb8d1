"""Two services behind HAProxy, restarted in turns during short and long downloads."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from tests.support.serving import ServiceProcess, wait_until

from .download import Download, image_of
from .figures import MIB, Figures
from .objects import Version, task_of
from .processes import RunningStore, running_store

RESTARTS = 4
INTERVAL = 40.0  # seconds from one restart to the next
GRACE = 25

SHORT_SIZE = 16 * 1024
SHORT_RATE = 50  # downloads a second
# Much more than the buffers between service and client hold, about 10 MiB.
LONG_SIZE = 40 * MIB
LONG_SECONDS = 60.0
LONG = 50  # downloads at once
RECEIVE_BUFFER = 64 * 1024

# A download that needs a little less than the grace may be cut: pace and clock are not exact.
TOLERANCE = 3.0

# Without `retry-on 503`, a short download may reach a service that has just begun to drain.
CONFIGURATION = """
defaults
    mode http
    timeout connect 2s
    timeout client 120s
    timeout server 120s
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response 503
frontend router
    bind 127.0.0.1:{port}
    default_backend services
backend services
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 500ms fall 1 rise 1
{servers}
"""


def rolling(figures: Figures) -> None:
    if shutil.which("haproxy") is None:
        figures.add("rolling", "haproxy", "not installed: apt-get install haproxy", kept=False)
        return
    with running_store() as store, ExitStack() as stack:
        services = [Replica(store, port) for port in _free_ports(2)]
        for service in services:
            stack.callback(service.stop)
            service.start()
        port = stack.enter_context(_router([service.port for service in services]))
        uvloop.run(_measure(figures, services, port))


@dataclass
class Replica:
    """One service on a port of its own, which can be restarted."""

    store: RunningStore
    port: int
    process: ServiceProcess | None = None
    terminations: list[float] = field(default_factory=list)

    def start(self) -> None:
        environ = {"PORT": str(self.port), "SHUTDOWN_GRACE": str(GRACE), "LOG_LEVEL": "warning"}
        self.process = ServiceProcess({**self.store.environ(), **environ})
        wait_until(lambda: _is_open(self.port))

    def restart(self) -> int:
        """Send SIGTERM, wait for the exit, and start again; return the exit code."""
        assert self.process is not None
        self.terminations.append(time.monotonic())
        self.process.process.send_signal(signal.SIGTERM)
        code = self.process.end()
        self.process.__exit__()
        self.start()
        return code

    def stop(self) -> None:
        if self.process is not None:
            self.process.__exit__()


@contextmanager
def _router(ports: list[int]) -> Generator[int]:
    [port] = _free_ports(1)
    servers = "\n".join(f"    server s{number} 127.0.0.1:{number}" for number in ports)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "haproxy.cfg"
        file.write_text(CONFIGURATION.format(port=port, servers=servers), encoding="utf-8")
        with subprocess.Popen(["haproxy", "-db", "-f", str(file)]) as router:
            wait_until(lambda: _is_open(port))
            yield port
            router.terminate()


async def _measure(figures: Figures, services: list[Replica], port: int) -> None:
    end = time.monotonic() + RESTARTS * INTERVAL
    short: list[Download] = []
    long: list[tuple[float, Download]] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(_short_clients(port, end, short))
        group.create_task(_long_clients(port, end, long))
        codes = await _restart_in_turns(services)
    counted = Counter(download.verdict() for download in short)
    kept = set(counted) == {"whole"}
    figures.add("rolling", "short downloads", dict(counted), kept=kept)
    counted = Counter(download.verdict() for _, download in long)
    kept = not counted["wrong"]
    figures.add("rolling", "long downloads", dict(counted), kept=kept)
    cut = [(begun, one) for begun, one in long if one.verdict() == "broken"]
    early = [one for begun, one in cut if _could_have_finished(begun, services)]
    figures.add("rolling", "cut, but could have finished", len(early), kept=not early)
    continued = await asyncio.gather(*(_is_completed(one, port) for _, one in cut))
    value = f"{sum(continued)} of {len(cut)}"
    figures.add("rolling", "cut and completed by a range", value, kept=all(continued))
    figures.add("rolling", "exit codes", codes, kept=set(codes) == {0})


async def _restart_in_turns(services: list[Replica]) -> list[int]:
    codes = []
    for number in range(RESTARTS):
        begun = time.monotonic()
        codes.append(await asyncio.to_thread(services[number % 2].restart))
        await asyncio.sleep(begun + INTERVAL - time.monotonic())
    return codes


async def _short_clients(port: int, end: float, done: list[Download]) -> None:
    async with asyncio.TaskGroup() as group:
        while time.monotonic() < end:
            download = Download(port, image_of(task_of(1, SHORT_SIZE)))
            done.append(download)
            group.create_task(download.run())
            await asyncio.sleep(1 / SHORT_RATE)


async def _long_clients(port: int, end: float, done: list[tuple[float, Download]]) -> None:
    async def client(number: int) -> None:
        await asyncio.sleep(number * LONG_SECONDS / LONG)
        while time.monotonic() < end:
            pace = int(LONG_SIZE / LONG_SECONDS)
            path = image_of(task_of(number + 2, LONG_SIZE))
            download = Download(port, path, pace=pace, receive_buffer=RECEIVE_BUFFER)
            done.append((time.monotonic(), download))
            await download.run()

    await asyncio.gather(*map(client, range(LONG)))


def _could_have_finished(begun: float, services: list[Replica]) -> bool:
    """Return whether each SIGTERM during a download left it enough time to finish."""
    end = begun + LONG_SECONDS
    hits = [at for service in services for at in service.terminations if begun < at < end]
    return all(end - at < GRACE - TOLERANCE for at in hits)


async def _is_completed(cut: Download, port: int) -> bool:
    rest = Download(port, cut.path, sha256=cut.sha256)
    etag = cut.headers["etag"]
    await rest.run({"range": f"bytes={cut.received}-", "if-range": etag})
    version = Version.of_etag(etag)
    assert version is not None
    return rest.status == 206 and rest.sha256.hexdigest() == version.sha256(LONG_SIZE)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
