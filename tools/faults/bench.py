"""A bench: one process of the service under test, and its own upstream."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.serving import ServiceProcess, wait_until

from .acts import SIZE
from .handshakes import Handshakes
from .upstream import Upstream, upstream

# One slot is kept for small downloads, so ten large ones run at once: botocore's pool has ten
# connections by default.
PLACES = 11

ENVIRON = {
    "S3_IMAGE_BUCKET": "photos",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "UPSTREAM_CONNECT_TIMEOUT": "1",
    "UPSTREAM_READ_TIMEOUT": "1",
    "FIRST_BYTE_TIMEOUT": "4",
    "MAX_RESUMES": "4",
    "CLIENT_STALL_TIMEOUT": "2",
    "MAX_DOWNLOADS": str(PLACES),
    "QUEUE_TIMEOUT": "1",
    "SHUTDOWN_GRACE": "2",
}


@dataclass(frozen=True)
class Subject:
    """A service that the faults are tried on."""

    name: str
    command: tuple[str, ...]
    says_where: str
    """The text that stands before the URL in its output."""

    places: int
    """How many downloads of one source run at once."""

    logs_outcomes: bool
    is_reused: bool
    """Whether one process serves several faults, one after the other."""

    at_once: int
    """How many benches run at once; most of them wait most of the time."""

    environ: Mapping[str, str] = field(default_factory=dict)
    is_over_tls: bool = False
    """Whether its upstream speaks TLS."""


def over_tls(subject: Subject) -> Subject:
    """Return the subject in front of an upstream that speaks TLS."""
    return replace(subject, name=f"{subject.name} over TLS", is_over_tls=True)


DOWNSPOUT = Subject(
    "downspout", (), "listening on ", PLACES, logs_outcomes=True, is_reused=True, at_once=8
)
BOTOCORE = replace(DOWNSPOUT, name="downspout through botocore", environ={"S3_DIRECT": "false"})
NAIVE = Subject(
    "naive",
    ("-m", "uvicorn", "tools.faults.naive:app", "--port", "0"),
    "Uvicorn running on ",
    10,
    logs_outcomes=False,
    is_reused=False,  # it leaks: each fault gets a process of its own
    at_once=16,  # it waits longer
)


@dataclass(eq=False)
class Bench:
    """One process of a subject, and its upstream."""

    subject: Subject
    environ: Mapping[str, str]
    handshakes: Handshakes
    upstream: Upstream = field(init=False)
    service: ServiceProcess = field(init=False)
    port: int = 0
    is_spoilt: bool = False
    """Whether a fault left something behind that would change the next outcome."""

    _opened: ExitStack = field(default_factory=ExitStack)
    _tasks: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def open(self) -> None:
        """Start the process and its upstream, unless they run already."""
        if self.port:
            return
        tls = self.handshakes.trusted if self.subject.is_over_tls else None
        self.upstream = self._opened.enter_context(upstream(tls))
        url, bundle = self.upstream.url, str(self.handshakes.bundle)
        behind = {"AWS_ENDPOINT_URL": url, "BYTES_URL": url + "/bytes/{task_id}/{size}"}
        behind |= {"AWS_CA_BUNDLE": bundle, "SSL_CERT_FILE": bundle}
        environ = {**ENVIRON, **behind, **self.subject.environ, **self.environ}
        self.service = ServiceProcess(environ, *self.subject.command)
        self._opened.enter_context(self.service)
        self.port = wait_until(self._port, seconds=60)

    def close(self) -> None:
        """Stop the process and its upstream."""
        self._opened.close()

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self.service.process.poll() is not None

    def is_released(self, seconds: float) -> bool:
        """Return whether every connection to the upstream is given back or closed in time."""
        return comes_true(lambda: self.upstream.busy == 0, seconds)

    def path(self, source: str, size: int = SIZE) -> str:
        """Return a path that no request has named before."""
        task = next(self._tasks)
        return f"/tasks/{task}/image" if source == "s3" else f"/tasks/{task}/bytes/{size}"

    def _port(self) -> int | None:
        assert self.service.process.poll() is None, "\n".join(self.service.lines)
        for line in self.service.lines:
            _, told, url = line.partition(self.subject.says_where)
            if told:
                return int(url.split(":")[2].split("/")[0].split(" ")[0])
        return None


class Benches:
    """A pool of benches; a bench that is not spoilt is used again."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory()
        self._handshakes = Handshakes(Path(self._folder.name))
        self._idle: list[Bench] = []
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, subject: Subject, environ: Mapping[str, str]) -> Generator[Bench]:
        """Yield a bench, for the caller alone."""
        bench = self._taken(subject, environ) or Bench(subject, environ, self._handshakes)
        with ExitStack() as unless_kept:
            unless_kept.callback(bench.close)
            bench.open()
            yield bench
            if not bench.is_spoilt:
                unless_kept.pop_all()
                self._idle.append(bench)

    def _taken(self, subject: Subject, environ: Mapping[str, str]) -> Bench | None:
        with self._lock:
            for bench in self._idle:
                if (bench.subject, bench.environ) == (subject, environ):
                    self._idle.remove(bench)
                    return bench
        return None

    def close(self) -> None:
        """Stop all idle benches, and remove the certificates."""
        for bench in self._idle:
            bench.close()
        self._idle.clear()
        self._folder.cleanup()


def comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until `condition` is true; return whether it was in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
