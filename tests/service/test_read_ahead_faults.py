"""Read-ahead over real sockets: faults of the store, of the client, and of this service."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import random
import re
import signal
import socket
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from starlette.applications import Starlette
from starlette.routing import Mount

from handlers import create_app, drain
from handlers.body.concurrency import ConcurrencyController, ReadAheadLimits, Window
from handlers.body.piece import Piece
from handlers.body.read_ahead import Budget
from tests.support.certificates import certified_server
from tests.support.client import Received, abort, ask, connect, fetch
from tests.support.components import BUCKET, settings_for, store_environ
from tests.support.misbehaving import Exchange, Misbehaving, misbehaving
from tests.support.misbehaving import running as run_server
from tests.support.serving import RunningService, ServiceProcess, serving, serving_app, wait_until
from tests.support.tls import TlsWriter

KIB, MIB = 1024, 1024 * 1024
SIZE = 24 * MIB + 12_345
BODY = random.Random(8).randbytes(SIZE)
OTHER = random.Random(9).randbytes(SIZE)
BLOCK = 64 * KIB
RATE = 16 * MIB
MAX_CONNECTIONS = 8
PATH = "/tasks/1/image"
BUCKET_KINDS = {"direct": True, "full": False}

CODES = {
    "404": "NoSuchKey",
    "412": "PreconditionFailed",
    "500": "InternalError",
    "503": "SlowDown",
}
# Faults of chunked bodies, and how they change the bytes.
CHUNKED: dict[str, Callable[[bytes], bytes]] = {
    "a byte more": lambda data: data + b"!",
    "chunks that end early": lambda data: data[:-1],
}


def flip_byte(writer: asyncio.StreamWriter) -> None:
    assert isinstance(writer, TlsWriter)
    writer.write_damaged(bytes(100))


# Breaks of a connection over TLS that "cut" (close_notify, then FIN) and "reset" do not make.
TLS_BREAKS = {"FIN": lambda writer: writer.write_eof(), "flipped byte": flip_byte}

RESUMES = 4


@pytest.fixture(autouse=True)
def _no_logged_task_errors(caplog: pytest.LogCaptureFixture) -> Generator[None]:
    """Fail if asyncio logs the error of a task."""
    caplog.set_level(logging.INFO, "downspout")
    yield
    logged = [r for r in caplog.get_records("call") if r.name == "asyncio"]
    assert not [r.getMessage() for r in logged if r.levelno >= logging.ERROR]


class GrowingController(ConcurrencyController):
    """A controller that adds a connection at each decision, without measuring a gain."""

    def update(self, window: Window) -> None:
        if window.began + window.seconds >= self._held_until:
            self.width = min(self.width + 1, self._most)


@dataclass
class RateLimitedStore:
    """A store with one object that limits each connection to `rate` bytes per second.

    `faults` has the fault of the n-th range request, counted from 1. All other requests are
    served without a fault, with the current version.
    """

    body: bytes = BODY
    rate: float = RATE
    faults: Mapping[int, str] = field(default_factory=dict)
    etag: str = '"v1"'
    replaced_at: int | None = None
    """Number of the first range request that gets another version."""

    ignores_if_match: bool = False
    lines: tuple[str, ...] = ()
    """Further header lines of each answer."""
    running: dict[int, Exchange] = field(default_factory=dict)
    asked: list[Exchange] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    most: int = 0
    """Most requests that were served at once."""
    most_ranged: int = 0
    faulted: int = 0
    on_request: Callable[[], None] = lambda: None

    async def __call__(self, exchange: Exchange) -> None:
        self.asked.append(exchange)
        self.running[id(exchange)] = exchange
        self.on_request()
        try:
            # Let the loop see disconnected clients before the requests are counted.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            served = [e for e in self.running.values() if not is_disconnected(e)]
            self.most = max(self.most, len(served))
            self.most_ranged = max(self.most_ranged, sum("range" in e.headers for e in served))
            await self._answer(exchange)
        finally:
            del self.running[id(exchange)]

    @property
    def open_requests(self) -> int:
        return sum(not is_disconnected(exchange) for exchange in list(self.running.values()))

    async def _answer(self, exchange: Exchange) -> None:
        first, last = 0, len(self.body) - 1
        fault = "none"
        if text := exchange.headers.get("range"):
            a, _, b = text.removeprefix("bytes=").partition("-")
            first, last = int(a), int(b or last)
            self.ranges.append((first, last))
            fault = self.faults.get(len(self.ranges), "none")
            self.faulted += fault != "none"
            if self.replaced_at is not None and len(self.ranges) >= self.replaced_at:
                self.etag, self.body = '"v2"', OTHER
        if fault.isdigit():
            await exchange.error(int(fault), CODES[fault])
        elif fault == "refuse":
            exchange.reset()
        elif fault == "silent":
            await exchange.hang()
        elif self._fails_if_match(exchange):
            await exchange.error(412, "PreconditionFailed")
        else:
            await self._serve(exchange, first, last, fault)

    def _fails_if_match(self, exchange: Exchange) -> bool:
        wanted = exchange.headers.get("if-match", self.etag)
        return wanted != self.etag and not self.ignores_if_match

    async def _serve(self, exchange: Exchange, first: int, last: int, fault: str) -> None:
        body, etag, is_part = self.body, self.etag, "range" in exchange.headers
        if fault == "whole":
            first, last, is_part = 0, len(body) - 1, False
        elif fault == "another range":
            first, last = first - BLOCK, last - BLOCK
        elif fault == "another etag":
            body, etag = OTHER, '"v2"'
        data = memoryview(body)[first : last + 1]
        if fault == "flipped":
            data = memoryview(bytes(data[:-1]) + bytes([data[-1] ^ 1]))
        shift, more = fault == "mislabelled", fault == "another total"
        length = f"content-length: {len(data)}"
        lines = [f"etag: {etag}", "accept-ranges: bytes", *self.lines]
        lines.append("transfer-encoding: chunked" if fault in CHUNKED else length)
        if is_part:
            stated = f"{first + shift}-{last + shift}/{len(body) + more}"
            lines.append(f"content-range: bytes {stated}")
        await exchange.head(206 if is_part else 200, *lines)
        if exchange.method != "HEAD":
            await self._send(exchange, data, fault)
        else:
            exchange.keep = True

    async def _send(self, exchange: Exchange, data: memoryview, fault: str) -> None:
        if fault in CHUNKED:
            chunk = CHUNKED[fault](bytes(data))
            await exchange.body(b"%x\r\n%b\r\n0\r\n\r\n" % (len(chunk), chunk))
            exchange.keep = True
            return
        middle = len(data) // 2 + 1
        upto = {"cut": middle, "reset": middle, "stall": middle, "a byte short": -1}.get(fault)
        if fault in TLS_BREAKS:
            upto = middle
        if fault.startswith("cut at "):
            upto = int(fault.removeprefix("cut at ")) % len(data)
        await self._send_at_rate(exchange, data[:upto])
        if fault == "reset":
            exchange.reset()
        elif fault == "stall":
            await exchange.hang()
        elif fault in TLS_BREAKS:
            TLS_BREAKS[fault](exchange.writer)
            await exchange.hang()
        exchange.keep = upto is None

    async def _send_at_rate(self, exchange: Exchange, data: memoryview) -> None:
        begun = time.monotonic()
        for at in range(0, len(data), BLOCK):
            await exchange.body(bytes(data[at : at + BLOCK]))
            await asyncio.sleep(max(begun + (at + BLOCK) / self.rate - time.monotonic(), 0.001))

    def check(self, size: int = SIZE) -> None:
        """Fail if a request was outside the object, for another version, or one too many."""
        ranged = [e for e in self.asked if "range" in e.headers]
        asked = [(e.headers["range"], e.headers.get("if-match")) for e in ranged]
        # After a refusal, a resume requests the same range without the condition.
        assert all((text, '"v1"') in asked for text, _ in asked)
        assert all(0 <= first <= last < size for first, last in self.ranges)
        assert self.most <= MAX_CONNECTIONS


def is_disconnected(exchange: Exchange) -> bool:
    gone = exchange.writer.is_closing() or exchange.reader.at_eof()
    return gone or exchange.reader.exception() is not None


@contextmanager
def running(
    upstream: Misbehaving, bucket_kind: str = "direct", **changes: Any
) -> Generator[RunningService]:
    """Run the service with GrowingController; fail if read-ahead is in use at the end."""
    timeouts = {"upstream_read_timeout": 60.0, "max_resumes": RESUMES, "max_downloads": 16}
    settings = settings_for(
        upstream.url, s3_direct=BUCKET_KINDS[bucket_kind], **{**timeouts, **changes}
    )
    with serving(settings) as service:
        get_budget(service).controller = GrowingController
        get_budget(service).limits = ReadAheadLimits(hold=0.05)
        yield service
        if not service.app.state.runtime.serving.admission.is_draining:
            wait_until_idle(service)


@pytest.fixture(scope="module", params=BUCKET_KINDS)
def _shared(
    _misbehaving: Misbehaving, request: pytest.FixtureRequest
) -> Generator[RunningService]:
    with running(_misbehaving, request.param) as service:
        yield service


@pytest.fixture
def service(_shared: RunningService, upstream: Misbehaving) -> Generator[RunningService]:
    """Run the service with each kind of bucket; fail if read-ahead is in use after a test."""
    yield _shared
    wait_until_idle(_shared)


def get_budget(service: RunningService) -> Budget:
    budget: Budget = service.app.state.runtime.serving.read_ahead
    return budget


def wait_until_idle(service: RunningService) -> None:
    wait_until(lambda: service.acquired_connections() == 0)
    total = service.app.state.runtime.settings.read_ahead_bytes
    wait_until(lambda: get_budget(service).left == total)
    wait_until(lambda: not read_ahead_tasks(service))


def read_ahead_tasks(service: RunningService) -> list[str]:
    """Return the tasks of the service's loop that read ahead."""
    loop = service.app.state.http.connector._loop
    names = [str(task.get_coro()) for task in asyncio.all_tasks(loop)]
    return [name for name in names if "_fill" in name]


def logged_outcome(caplog: pytest.LogCaptureFixture, path: str = PATH) -> str:
    """Return the outcome in the log line of the only download of `path`."""

    def found() -> list[str]:
        return re.findall(rf"GET {path} \S+ (\w+)", caplog.text)

    outcomes = wait_until(found)
    assert len(outcomes) == 1
    return str(outcomes[0])


def is_complete(received: Received, body: bytes = BODY) -> bool:
    """Return whether the body is complete; fail if its bytes differ from `body`."""
    assert received.status == 200
    assert len(received.body) <= len(body)
    assert received.body == body[: len(received.body)], "not the bytes of one version"
    assert received.whole is (len(received.body) == len(body))
    return received.whole


def read_until(
    connection: socket.socket, predicate: Callable[[], bool], *, small_reads: bool = False
) -> bytes:
    """Read until `predicate` returns true; fail if the answer ends before."""
    received = bytearray()
    while not predicate():
        data = connection.recv(BLOCK if small_reads else MIB)
        assert data, "it was over before"
        received += data
    return bytes(received)


def read_rest(connection: socket.socket) -> bytes:
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(MIB):
            received += data
    return bytes(received)


def split_body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


# 1. No faults


def test_slow_connection_is_read_over_several_connections(
    service: RunningService, upstream: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """If the store limits each connection, the controller opens more."""
    # A busy machine may need several downloads until read-ahead starts.
    get_budget(service).controller = ConcurrencyController
    tried = 0
    while True:
        tried += 1
        upstream.behaviour = store = RateLimitedStore(rate=RATE / 2)
        assert is_complete(fetch(service.port, f"/tasks/{tried}/image"))
        assert logged_outcome(caplog, f"/tasks/{tried}/image") == "complete"
        store.check()
        wait_until_idle(service)
        if store.most_ranged > 1:
            break
        assert tried < 10, "it never read ahead"
    get_budget(service).controller = GrowingController


def test_read_ahead_requests_each_byte_about_once(
    service: RunningService, upstream: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """Pieces follow each other without gap or overlap, up to the end."""
    upstream.behaviour = store = RateLimitedStore()
    assert is_complete(fetch(service.port, PATH))
    assert logged_outcome(caplog) == "complete"
    store.check()
    assert 1 < store.most_ranged <= MAX_CONNECTIONS
    assert max(last for _, last in store.ranges) == SIZE - 1
    # The stream ends soon after the first piece begins.
    assert sum(exchange.sent for exchange in store.asked) < SIZE * 1.5


# 2. Broken pieces

BREAKS = ("cut", "reset", "500", "503", "404", "412", "whole", "refuse")
LENGTHS = ("a byte short", "a byte more", "chunks that end early")
LIES = ("another range", "mislabelled", "another etag", "another total")
SILENCES = ("stall", "silent")

# The first piece is dropped while the stream goes on; the bytes of a later one are delivered up
# to its break.
FIRST, LATER = 1, 4


def download_with_fault(
    service: RunningService, upstream: Misbehaving, fault: str, piece: int
) -> Received:
    # RawClient replaces a lost connection once, before a resume is counted.
    numbers = (piece, piece + 1) if fault == "refuse" else (piece,)
    upstream.behaviour = store = RateLimitedStore(faults=dict.fromkeys(numbers, fault))
    received = fetch(service.port, PATH)
    assert store.faulted == len(numbers)
    store.check()
    return received


@pytest.mark.parametrize(
    ("fault", "piece"),
    [(fault, LATER) for fault in (*BREAKS, *LENGTHS, *LIES)]
    + [(fault, FIRST) for fault in ("cut", "503", "another etag")],
)
def test_broken_piece_is_requested_again(
    service: RunningService,
    upstream: Misbehaving,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    piece: int,
) -> None:
    """The bytes of a broken piece are requested again, and the client gets each byte once."""
    assert is_complete(download_with_fault(service, upstream, fault, piece))
    assert logged_outcome(caplog) in ("complete", "resumed")


@pytest.mark.parametrize("bucket_kind", BUCKET_KINDS)
@pytest.mark.parametrize("fault", ["cut", "reset", "stall", *TLS_BREAKS])
def test_broken_piece_over_tls_is_requested_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bucket_kind: str, fault: str
) -> None:
    """If a store over TLS breaks some of the pieces, the client gets each byte once."""
    bundle, tls = certified_server(tmp_path)
    numbers = range(FIRST, 30, 3)
    changes = {"s3_tls_verify": str(bundle), "max_resumes": 20, "upstream_read_timeout": 1.0}
    with (
        run_server(Misbehaving(tls=tls)) as upstream,
        running(upstream, bucket_kind, **changes) as service,
    ):
        upstream.behaviour = store = RateLimitedStore(faults=dict.fromkeys(numbers, fault))
        assert is_complete(fetch(service.port, PATH))
        assert store.most_ranged > 1
        assert store.faulted > 1
        store.check()
    assert logged_outcome(caplog) in ("complete", "resumed")


@pytest.mark.parametrize("bucket_kind", BUCKET_KINDS)
@pytest.mark.parametrize("fault", SILENCES)
def test_silent_piece_is_requested_again_after_read_timeout(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, bucket_kind: str, fault: str
) -> None:
    """A piece without bytes for UPSTREAM_READ_TIMEOUT is requested again."""
    with running(upstream, bucket_kind, upstream_read_timeout=1.0) as service:
        assert is_complete(download_with_fault(service, upstream, fault, LATER))
    assert logged_outcome(caplog) in ("complete", "resumed")


@pytest.mark.parametrize("fault", ["cut", "503", "404", "whole", "another etag", "412"])
def test_failure_of_all_later_pieces_aborts_the_body(
    service: RunningService, upstream: Misbehaving, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """If the store never recovers, the body is either complete or visibly cut."""
    store = RateLimitedStore(faults=dict.fromkeys(range(4, 500), fault))
    upstream.behaviour = store
    whole = is_complete(fetch(service.port, PATH))
    if fault == "cut":  # Each answer has half of the remaining bytes.
        assert logged_outcome(caplog) in ("complete", "resumed", "truncated")
    elif fault in ("404", "412", "another etag"):
        assert logged_outcome(caplog) in ("complete", "changed")
    else:
        assert logged_outcome(caplog) in ("complete", "truncated")
    assert whole is (logged_outcome(caplog) in ("complete", "resumed"))
    store.check()


@pytest.mark.parametrize("fault", ["412", "503", "whole", "silent", "refuse"])
def test_failure_of_all_pieces_keeps_the_first_connection(
    service: RunningService, upstream: Misbehaving, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """If every piece fails, the body arrives over its first connection."""
    store = RateLimitedStore(rate=4 * RATE, faults=dict.fromkeys(range(1, 500), fault))
    upstream.behaviour = store
    assert is_complete(fetch(service.port, PATH))
    assert logged_outcome(caplog) == "complete"
    assert store.faulted > 0
    store.check()


def test_failed_piece_counts_as_upstream_error(upstream: Misbehaving) -> None:
    """downspout_upstream_errors_total counts failed pieces of a complete body."""
    upstream.behaviour = store = RateLimitedStore(
        rate=4 * RATE, faults={n: "503" if n % 2 else "cut" for n in range(1, 500)}
    )
    with running(upstream) as service:
        assert is_complete(fetch(service.port, PATH))
        told = re.findall(
            r"(?m)^downspout_upstream_errors_total\{.*\} (\S+)$", get_metrics(service)
        )
    assert store.faulted > 0
    assert sum(map(float, told)) > 0


def get_metrics(service: RunningService) -> str:
    return service.get("/metrics").text


@pytest.mark.parametrize("bucket_kind", BUCKET_KINDS)
def test_flipped_bit_in_read_ahead_aborts_the_body(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, bucket_kind: str
) -> None:
    """With VERIFY_CHECKSUMS, a wrong bit in a piece cuts the connection before the end."""
    stored = b64encode(hashlib.sha256(BODY).digest()).decode()
    lines = (f"x-amz-checksum-sha256: {stored}", "x-amz-checksum-type: FULL_OBJECT")
    with running(upstream, bucket_kind, verify_checksums=True) as service:
        upstream.behaviour = store = RateLimitedStore(lines=lines)
        assert is_complete(fetch(service.port, "/tasks/1/image"))
        assert store.most_ranged > 1
        upstream.behaviour = RateLimitedStore(lines=lines, faults={LATER: "flipped"})
        received = fetch(service.port, "/tasks/2/image")
        assert not received.whole
        assert len(received.body) < SIZE
    assert logged_outcome(caplog, "/tasks/1/image") == "complete"
    assert logged_outcome(caplog, "/tasks/2/image") == "corrupt"


@pytest.mark.parametrize("bucket_kind", BUCKET_KINDS)
def test_store_with_one_connection_serves_the_full_body(
    caplog: pytest.LogCaptureFixture, bucket_kind: str
) -> None:
    """If the store refuses further connections, the body arrives over its first one."""
    store = RateLimitedStore(rate=4 * RATE)
    with (
        store_accepting_one_connection(store) as upstream,
        running(upstream, bucket_kind) as service,
    ):
        assert is_complete(fetch(service.port, PATH))
    assert logged_outcome(caplog) == "complete"
    assert len(store.asked) == 1


@contextmanager
def store_accepting_one_connection(store: RateLimitedStore) -> Generator[Misbehaving]:
    """Run a store that accepts no more connections after its first request."""
    with misbehaving(store) as server:
        store.on_request = server.stop_listening
        yield server


# 3. The object is replaced


@pytest.mark.parametrize("ignores", [False, True])
def test_replaced_object_aborts_the_body(
    service: RunningService, upstream: Misbehaving, caplog: pytest.LogCaptureFixture, ignores: bool
) -> None:
    """No byte of a new version is sent after the old one, even if the store ignores If-Match."""
    store = RateLimitedStore(replaced_at=6, ignores_if_match=ignores)
    upstream.behaviour = store
    received = fetch(service.port, PATH)
    assert not is_complete(received)
    assert logged_outcome(caplog) == "changed"
    store.check()


# 4., 5. Clients that disconnect, and clients that pause


@pytest.mark.parametrize("when", ["opening", "flowing"])
def test_client_disconnect_frees_everything(
    service: RunningService, upstream: Misbehaving, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    """A disconnect frees connections, tasks and budget, also of pieces being opened."""
    silent = dict.fromkeys(range(1, 500), "silent") if when == "opening" else {}
    upstream.behaviour = store = RateLimitedStore(faults=silent)
    with closing(connect(service.port)) as client:
        ask(client, PATH)
        read_until(client, lambda: store.most_ranged > 3)
        assert get_budget(service).left < 64 * MIB
        abort(client)
    wait_until_idle(service)
    wait_until(lambda: store.open_requests == 0)
    assert logged_outcome(caplog) == "client_gone"
    store.check()


@pytest.mark.parametrize("how", ["leaves", "cut", "503"])
@pytest.mark.usefixtures("no_garbage_collection")
def test_dropped_piece_is_freed_without_garbage_collection(
    service: RunningService, upstream: Misbehaving, how: str
) -> None:
    """A dropped piece is freed at once, not at the next garbage collection."""
    faults = dict.fromkeys(range(2, 500, 3), how) if how != "leaves" else {}
    upstream.behaviour = store = RateLimitedStore(faults=faults)
    with closing(connect(service.port)) as client:
        ask(client, PATH)
        read_until(client, lambda: store.most_ranged > 3)
        if how != "leaves":
            read_rest(client)
        abort(client)
    wait_until_idle(service)
    wait_until(lambda: not [o for o in gc.get_objects() if isinstance(o, Piece)], seconds=3)


def test_paused_client_drops_read_ahead(
    service: RunningService, upstream: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """The pieces of a paused client are dropped; then the client gets the rest."""
    upstream.behaviour = store = RateLimitedStore()
    with closing(connect_with_small_buffer(service.port)) as client:
        ask(client, PATH)
        begun = read_until(client, lambda: store.most_ranged > 3, small_reads=True)
        wait_until(lambda: get_budget(service).left == 64 * MIB)
        wait_until(lambda: service.acquired_connections() <= 1)
        wait_until(lambda: store.open_requests <= 1)
        assert not read_ahead_tasks(service)
        body = split_body(begun + read_rest(client))
    assert body == BODY
    assert logged_outcome(caplog) == "complete"
    store.check()


def connect_with_small_buffer(port: int) -> socket.socket:
    """Return a connection with a small receive buffer."""
    return connect(port, receive_buffer=64 * KIB)


# 6. Parts


def test_range_is_read_ahead_within_its_bounds(
    service: RunningService, upstream: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """A range arrives complete, and no byte outside it is requested."""
    upstream.behaviour = store = RateLimitedStore(faults={3: "cut", 7: "503"})
    received = fetch(service.port, PATH, headers={"range": "bytes=1000000-20000000"})
    assert (received.status, received.whole) == (206, True)
    assert received.body == BODY[1_000_000:20_000_001]
    assert received.headers["content-range"] == f"bytes 1000000-20000000/{SIZE}"
    assert logged_outcome(caplog) in ("complete", "resumed")
    assert store.most_ranged > 1
    # The first request is the client's range, which has no condition.
    assert all(e.headers["if-match"] == '"v1"' for e in store.asked[1:])
    assert all(1_000_000 <= a <= b <= 20_000_000 for a, b in store.ranges)
    assert store.most <= MAX_CONNECTIONS


def test_open_range_is_read_ahead_and_head_is_not(
    service: RunningService, upstream: Misbehaving
) -> None:
    """An open range is read ahead to the object's end; HEAD requests no byte."""
    upstream.behaviour = store = RateLimitedStore()
    received = fetch(service.port, PATH, headers={"range": "bytes=1000000-"})
    assert (received.status, received.whole) == (206, True)
    assert received.body == BODY[1_000_000:]
    asked = len(store.asked)
    head = fetch(service.port, PATH, method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(SIZE))
    assert not head.body
    assert [e.method for e in store.asked[asked:]] == ["HEAD"]


@pytest.mark.parametrize("faults", [{}, {3: "cut", 8: "reset", 12: "503"}], ids=["well", "ill"])
def test_large_multipart_ranges_are_read_ahead(
    service: RunningService,
    upstream: Misbehaving,
    caplog: pytest.LogCaptureFixture,
    faults: dict[int, str],
) -> None:
    """Each part of a multipart body is read ahead and arrives complete."""
    upstream.behaviour = store = RateLimitedStore(faults=faults)
    size = 12 * MIB
    spans = ((100, 100 + size), (SIZE - size, SIZE))
    asked = ",".join(f"{first}-{end - 1}" for first, end in spans)
    received = fetch(service.port, PATH, headers={"range": f"bytes={asked}"})
    assert (received.status, received.whole) == (206, True)
    boundary = received.headers["content-type"].partition("boundary=")[2].encode()
    _, *parts, closing_line = received.body.split(b"--" + boundary)
    assert closing_line == b"--\r\n"
    contents = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]
    assert contents == [BODY[first:end] for first, end in spans]
    assert logged_outcome(caplog) in ("complete", "resumed")
    store.check()
    for first, end in spans:
        assert sum(first <= a < end for a, _ in store.ranges) > 2


# 7. Off


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        (SIZE, {"read_ahead_connections": 1}),
        (SIZE, {"read_ahead_bytes": 0}),
        (SIZE, {"read_ahead_bytes": MIB}),
        (8 * MIB - 1, {}),
    ],
    ids=["one connection", "no bytes", "too few bytes", "small object"],
)
def test_disabled_read_ahead_sends_one_request(
    upstream: Misbehaving, size: int, changes: dict[str, Any]
) -> None:
    """If read-ahead is off or the object is small, the store gets one request."""
    upstream.behaviour = store = RateLimitedStore(BODY[:size], rate=8 * RATE)
    with running(upstream, **changes) as service:
        assert is_complete(fetch(service.port, PATH), BODY[:size])
    assert len(store.asked) == 1


# 8. Many downloads


@pytest.mark.parametrize("bucket_kind", BUCKET_KINDS)
def test_many_downloads_stay_within_the_budget(
    upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch, bucket_kind: str
) -> None:
    """Downloads stay within the read-ahead budget, and a small one is not delayed."""
    budget, downloads = 12 * MIB, 6
    least = [budget]

    take = Budget.take

    def watched(self: Budget, most: int) -> int:
        size = take(self, most)
        least.append(self.left)
        return size

    monkeypatch.setattr(Budget, "take", watched)
    upstream.behaviour = store = RateLimitedStore()
    changes = {"read_ahead_bytes": budget, "max_downloads": downloads + 2}
    with running(upstream, bucket_kind, **changes) as service:
        paths = [f"/tasks/{number}/image" for number in range(2, 2 + downloads)]
        rates = (16 * MIB, 24 * MIB, 32 * MIB, None, None, None)
        with ThreadPoolExecutor(downloads) as pool:
            fetched = [
                pool.submit(fetch_at_rate, service.port, path, rate)
                for path, rate in zip(paths, rates, strict=True)
            ]
            wait_until(lambda: store.most_ranged > 3)
            small = fetch(service.port, PATH, headers={"range": "bytes=7-1000"})
            assert not all(one.done() for one in fetched), "it waited for the large ones"
            assert (small.status, small.body) == (206, BODY[7:1001])
            assert all(is_complete(one.result()) for one in fetched)
    assert 0 <= min(least) < budget
    assert store.most <= downloads + 1 + budget // MIB
    assert all(first <= last < SIZE for first, last in store.ranges)


def fetch_at_rate(port: int, path: str, rate: float | None) -> Received:
    """Fetch at full speed, or at no more than `rate` bytes a second."""
    if rate is None:
        return fetch(port, path)
    received = bytearray()
    begun = time.monotonic()
    with closing(connect_with_small_buffer(port)) as connection:
        ask(connection, path)
        while data := connection.recv(BLOCK):
            received += data
            time.sleep(max(begun + len(received) / rate - time.monotonic(), 0))
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    whole = f"content-length: {len(body)}".encode() in head.lower()
    return Received(int(head.split(b" ")[1]), {}, body, whole)


# 9. Shutdown


@pytest.mark.parametrize("grace", ["30", "0"])
def test_sigterm_during_read_ahead_finishes_or_aborts_the_body(
    upstream: Misbehaving, grace: str
) -> None:
    """The body finishes within SHUTDOWN_GRACE or is visibly cut, and the exit code is 0."""
    # Slow enough for the real controller to start read-ahead on any machine.
    upstream.behaviour = store = RateLimitedStore(rate=2 * MIB)
    with ServiceProcess(make_environ(upstream, SHUTDOWN_GRACE=grace)) as process:
        port = int(process.url().rpartition(":")[2])
        with closing(connect(port)) as client:
            ask(client, PATH)
            begun = read_until(client, lambda: store.most_ranged > 1)
            store.rate = 8 * RATE
            process.process.send_signal(signal.SIGTERM)
            body = split_body(begun + read_rest(client))
        assert process.end() == 0
        assert not process.saw("Traceback")
        assert not process.saw("never retrieved")
        assert not process.saw("was destroyed")
        assert process.saw(" 200 complete " if grace == "30" else " 200 drained ")
    assert BODY.startswith(body)
    assert (len(body) == SIZE) is (grace == "30")
    wait_until(lambda: store.open_requests == 0)


def make_environ(upstream: Misbehaving, **environ: str) -> dict[str, str]:
    return {**store_environ(upstream.url), **environ}


@pytest.mark.parametrize("bucket_kind", BUCKET_KINDS)
def test_drain_without_grace_frees_everything(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, bucket_kind: str
) -> None:
    """drain() without grace cuts the body and frees everything."""
    upstream.behaviour = store = RateLimitedStore()
    with running(upstream, bucket_kind) as service, closing(connect(service.port)) as client:
        ask(client, PATH)
        begun = read_until(client, lambda: store.most_ranged > 3)
        loop = service.app.state.http.connector._loop
        asyncio.run_coroutine_threadsafe(drain(service.app, 0), loop).result(10)
        body = split_body(begun + read_rest(client))
        wait_until_idle(service)
        wait_until(lambda: store.open_requests == 0)
    assert len(body) < SIZE
    assert BODY.startswith(body)
    assert logged_outcome(caplog) == "drained"


# 10. Random faults


@pytest.mark.parametrize("bucket_kind", BUCKET_KINDS)
def test_every_third_answer_cut_serves_full_bodies(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, bucket_kind: str
) -> None:
    """Each download is complete, wherever the store cuts its answers."""
    rng = random.Random(10)
    faults = {n: f"cut at {rng.randrange(2**30)}" for n in range(3, 5_000, 3)}
    size = 12 * MIB
    upstream.behaviour = store = RateLimitedStore(BODY[:size], rate=2 * RATE, faults=faults)
    with running(upstream, bucket_kind, max_resumes=20) as service, ThreadPoolExecutor(4) as pool:
        paths = [f"/tasks/{number}/image" for number in range(1, 11)]
        received = list(pool.map(lambda path: fetch(service.port, path), paths))
    assert [is_complete(one, BODY[:size]) for one in received] == [True] * len(paths)
    assert {logged_outcome(caplog, path) for path in paths} <= {"complete", "resumed"}
    assert store.faulted > len(paths)


@asynccontextmanager
async def host_client(url: str, connections: int) -> AsyncIterator[Any]:
    """Open an S3 client of a host, with a small pool."""
    style = {"addressing_style": "path"}
    config = AioConfig(signature_version="s3v4", s3=style, max_pool_connections=connections)
    options = {"region_name": "us-east-1", "endpoint_url": url, "config": config}
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    async with get_session().create_client("s3", **options, **keys) as client:
        yield client


def test_exhausted_pool_of_host_client_ends_the_download(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """If the host takes all connections of its pool, a body that needs one breaks in time."""
    store = RateLimitedStore()
    is_cut = threading.Event()

    async def behaviour(exchange: Exchange) -> None:
        if exchange.path.endswith("/held"):
            await exchange.head(200, "content-length: 1000000000")
            await exchange.hang()
            return
        answering = asyncio.create_task(store(exchange))
        while not answering.done() and not is_cut.is_set():
            await asyncio.wait([answering], timeout=0.01)
        if answering.done():
            await answering
        else:
            answering.cancel()
            exchange.reset()

    upstream.behaviour = behaviour
    timeouts = {"upstream_connect_timeout": 0.2, "upstream_read_timeout": 0.3}
    settings = settings_for(upstream.url, max_resumes=1, **timeouts)
    mount = Mount("/", Starlette())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with host_client(upstream.url, 3) as client:
            mount.app = downloads = create_app(settings, s3=client)
            async with downloads.router.lifespan_context(downloads):
                yield

    with serving_app(Starlette(routes=[mount], lifespan=lifespan)) as port:
        service = RunningService(cast("Starlette", mount.app), port)
        get_budget(service).controller = GrowingController
        client, loop = service.app.state.s3, service.app.state.http.connector._loop

        async def hold() -> list[Any]:
            return await asyncio.gather(
                *(client.get_object(Bucket=BUCKET, Key="held") for _ in range(3))
            )

        with closing(connect(port)) as connection:
            ask(connection, PATH)
            begun = read_until(connection, lambda: len(store.ranges) > 2)
            held = asyncio.run_coroutine_threadsafe(hold(), loop)
            # The host's requests wait for connections before the service's, which are cut.
            wait_until(lambda: sum(e.path.endswith("/held") for e in upstream.exchanges) > 0)
            is_cut.set()
            body = split_body(begun + read_rest(connection))
        assert BODY.startswith(body)
        assert logged_outcome(caplog) in ("truncated", "upstream_timeout")
        for output in held.result(10):
            loop.call_soon_threadsafe(output["Body"].close)
