"""Run an example in a process, before a server that relays to a real store or misbehaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.support.client import Received, fetch
from tests.support.components import Store
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import ROOT, UNMEASURED, ServiceProcess, wait_until

EXAMPLES = ROOT / "examples"
HOSTS = ("starlette", "fastapi", "litestar", "quart", "django")

# How each is started, and how it is told that something before it takes a prefix off. Its port
# stands behind the last of these.
SERVERS = {
    "uvicorn": "uvicorn --loop uvloop --port",
    "uvicorn, asyncio": "uvicorn --loop asyncio --port",
    "uvicorn, our protocol": "uvicorn --http downspout.server:Protocol --port",
    "hypercorn": "hypercorn --access-logfile /dev/null --bind",
    "granian": "granian --interface asgi --no-ws --port",
}
ROOT_PATH = "/api"
PREFIXES = {"granian": "--url-path-prefix"}

# What the example with users asks for; the others ignore it.
HEADERS = {"cookie": "session=session-of-ada"}


async def relay(port: int, exchange: Exchange) -> None:
    """Relay a request to the server at `port`, and its answer back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = [f"{exchange.method} {exchange.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in exchange.headers.items()]
        writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1"))
        while data := await reader.read(1 << 16):
            await exchange.raw(data)
    finally:
        writer.close()


class Process(NamedTuple):
    """An example and a server to run it under."""

    host: str
    server: str
    below_root_path: bool


@dataclass
class Running:
    """A running example, and the store behind it."""

    process: Process
    started: ServiceProcess
    port: int
    store: Store
    between: Misbehaving

    def fetch(self, path: str, method: str = "GET", **headers: str) -> Received:
        return fetch(self.port, path, method=method, headers={**HEADERS, **headers})

    def forget(self) -> None:
        """Relay all requests to the real store again."""
        self.between.forget()
        self.between.behaviour = partial(relay, self.store.port)

    def figure(self, name: str) -> float:
        """Return the value of a metric of the mounted application."""
        lines = self.fetch("/media/metrics").body.decode().splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
        return float(value)

    def sockets(self) -> int:
        """Return how many sockets the process and its children have open."""
        return sum(map(_sockets, _family(self.started.process.pid)))

    def is_idle(self) -> bool:
        """Return whether no download runs and no connection to the store is open."""
        return not self.between.open_connections and not self.figure("downspout_downloads_running")


def _family(pid: int) -> list[int]:
    found = [pid]
    with suppress(FileNotFoundError, ProcessLookupError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                found += _family(int(child))
    return found


def _sockets(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # It has been closed since.
            found += str(descriptor.readlink()).startswith("socket:")
    return found


@contextmanager
def running(
    process: Process, installed: Path, store: Store, between: Misbehaving
) -> Generator[Running]:
    """Run an example with the package in `installed`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    environ = {
        **store.environ,
        "AWS_ENDPOINT_URL_S3": between.url,
        "BYTES_URL": between.url + "/{task_id}/{size}",
        "LOGO_URL": between.url + "/logo",
        "ARCHIVE_BUCKET": "archive",
        "ALLOWED_HOST": "downspout.test",
        "MAX_RESUMES": "2",
        "PYTHONPATH": str(installed),
        **UNMEASURED,  # coverage measures handlers/, not the installed package
    }
    command = SERVERS[process.server].split()
    where = f"127.0.0.1:{port}" if command[-1] == "--bind" else str(port)
    prefix = [PREFIXES.get(process.server, "--root-path"), ROOT_PATH]
    rest = [where, *(prefix if process.below_root_path else []), f"{process.host}_host:app"]
    with ServiceProcess(environ, "-m", *command, *rest, cwd=EXAMPLES) as started:
        one = Running(process, started, port, store, between)
        wait_until(lambda: _answers(one), seconds=60)
        try:
            yield one
        finally:
            between.forget()


def _answers(one: Running) -> bool:
    ended = one.started.process.poll()
    assert ended is None, f"it ended with {ended}:\n" + "\n".join(one.started.lines)
    path = ROOT_PATH if one.process.below_root_path else ""
    try:
        answers = [one.fetch(f"{prefix}/hello").status for prefix in {"", path}]
    except (OSError, ValueError, IndexError):  # Nothing there yet, or nothing that answers.
        return False
    return 200 in answers
