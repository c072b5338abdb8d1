"""Run the service: in a thread of the tests, or in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from handlers import create_app
from settings import Settings

ROOT = Path(__file__).parent.parent.parent

Loop = Literal["asyncio", "uvloop"]

# The environment of a program that imports no measured file: coverage would only slow it down.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": ""}


@dataclass(frozen=True)
class RunningService:
    """A running service: its application and its port."""

    app: Starlette
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        # Without `verify=False` each client loads all root certificates, which takes 40 ms.
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=False) as client:
            return client.request(method, path, **options)

    def counts(self) -> tuple[int, int]:
        """Return how many downloads have a slot, and how many wait for one."""
        counts: tuple[int, int] = self.app.state.runtime.serving.admission.counts()
        return counts

    def acquired_connections(self) -> int:
        """Return how many connections of the two pools are in use."""
        return sum(len(connector._acquired) for connector in self._connectors())

    def _connectors(self) -> Generator[Any]:
        yield self.app.state.http.connector
        for session in self.app.state.s3._endpoint.http_session._sessions.values():
            yield session.connector


@contextmanager
def serving(
    settings: Settings, *, loop: Loop = "asyncio", http: str = "httptools"
) -> Generator[RunningService]:
    """Run the application of `settings` under uvicorn in a thread."""
    app = create_app(settings)
    with serving_app(app, loop=loop, http=http) as port:
        yield RunningService(app, port)


ServiceWith = Callable[..., RunningService]
"""The type of the fixture `service_with`."""


class ServicePool:
    """Running services, one for each set of settings, which tests share."""

    def __init__(self) -> None:
        self._running: list[tuple[Settings, str, RunningService]] = []
        self._opened = ExitStack()

    def get(self, settings: Settings, *, http: str = "httptools") -> RunningService:
        """Return the service of these settings; start it if there is none yet."""
        for known, protocol, service in self._running:
            if (known, protocol) == (settings, http):
                return service
        service = self._opened.enter_context(serving(settings, http=http))
        self._running.append((settings, http, service))
        return service

    def close(self) -> None:
        """Stop all services."""
        self._opened.close()


@contextmanager
def serving_app(
    app: ASGIApp,
    *,
    loop: Loop = "asyncio",
    http: str | type[asyncio.Protocol] = "httptools",
    ws: Literal["none", "wsproto"] = "none",
) -> Generator[int]:
    """Run any ASGI application under uvicorn in a thread; yield its port."""
    config = uvicorn.Config(
        app,
        port=0,
        loop=loop,
        http=http,
        ws=ws,
        lifespan="on",
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=10,  # a failed test may leave clients behind
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        assert server.started, "the service did not start"
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the service did not stop"


def entering(*apps: Starlette) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """Return a lifespan for a host, which enters the lifespans of mounted applications."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for app in apps:
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    return lifespan


class ServiceProcess:
    """``python service.py``, or another command, in a process with its own environment."""

    def __init__(
        self,
        environ: dict[str, str],
        *command: str,
        cwd: Path = ROOT,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        inherited = ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")
        base = {name: os.environ[name] for name in inherited if name in os.environ}
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, *(command or ("service.py",))],
            cwd=cwd,
            env={**base, "PYTHONUNBUFFERED": "1", "PORT": "0", "LOG_FORMAT": "text", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def url(self) -> str:
        """Wait until the process answers /healthz; return its URL."""

        def where() -> str | None:
            if self.process.poll() is not None:
                raise AssertionError("the process ended:\n" + "\n".join(self.lines))
            line = self._find("listening on ")
            return line and line.split("listening on ")[1].split("/,")[0]

        url: str = wait_until(where)
        wait_until(lambda: _answers(f"{url}/healthz"))
        return url

    def wait_for_line(self, text: str, *, seconds: float = 20) -> str:
        """Wait until a line of output contains `text`; return the first one."""
        line: str = wait_until(lambda: self._find(text), seconds=seconds)
        return line

    def _find(self, text: str) -> str | None:
        return next((line for line in self.lines if text in line), None)

    def saw(self, text: str) -> bool:
        """Return whether a line of all output contains `text`; the process must have ended."""
        assert self.process.poll() is not None, "it could still write: use `wait_for_line`"
        self._reader.join(10)
        return self._find(text) is not None

    def stop(self) -> int:
        """Send SIGTERM, and wait until the process ends; return its exit code."""
        self.process.terminate()
        return self.end()

    def end(self) -> int:
        """Wait until the process ends; return its exit code."""
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Kill the whole process group: workers outlive a supervisor that is killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def http_get(url: str, **options: Any) -> httpx.Response:
    """Send a GET request, without the proxies of the environment."""
    # Without `verify=False` httpx loads all root certificates, which takes 40 ms of CPU.
    return httpx.get(url, trust_env=False, verify=False, **options)


def _answers(url: str) -> bool:
    try:
        return http_get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def installed_into(target: Path) -> None:
    """Install the package into a folder with ``pip install --target``."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-compile", "--target", str(target)]
    environ = {**os.environ, **UNMEASURED}
    subprocess.run([*pip, *options, str(ROOT)], env=environ, check=True)


def wait_until(condition: Any, *, seconds: float = 20) -> Any:
    """Poll until `condition` returns a true value, and return it; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)
    return found


def child_pids(parent: int) -> list[int]:
    """Return the process ids of the children of a process."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in children.split()]


def open_descriptors() -> int:
    """Return how many file descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
