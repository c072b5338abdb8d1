"""Connections, slots and file descriptors are released however a request ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp.client_proto import ResponseHandler
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from handlers import create_app
from settings import Settings
from tests.support.client import abort, ask, connect, fetch, read_slowly
from tests.support.components import settings_for
from tests.support.misbehaving import CHUNK, Exchange, Misbehaving, misbehaving
from tests.support.serving import (
    Loop,
    RunningService,
    open_descriptors,
    serving,
    serving_app,
    wait_until,
)

ABORTS = 50
SLOTS = 64  # of which an eighth is for small downloads
SMALL = b"small"
PATHS = {"s3": "/tasks/1/image", "botocore": "/tasks/1/image", "http": "/tasks/1/bytes/1000000000"}


async def small(exchange: Exchange) -> None:
    await exchange.answer(200, SMALL)


async def endless(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 1000000000", 'etag: "a"')
    await exchange.flood()


async def begins_and_hangs(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 1000000000", 'etag: "a"')
    await exchange.body(CHUNK)
    await exchange.hang()


class AbortingClients:
    """Clients that request `path` at the same time, and then reset their connections."""

    def __init__(self, service: RunningService, upstream: Misbehaving, path: str) -> None:
        self.service = service
        self.upstream = upstream
        self.path = path
        self.clients: list[socket.socket] = []

    def send_requests(self, number: int = ABORTS, *, receive_buffer: int | None = None) -> None:
        for _ in range(number):
            client = connect(self.service.port, receive_buffer=receive_buffer)
            ask(client, self.path)
            self.clients.append(client)
        wait_until(lambda: len(self.upstream.exchanges) >= number)

    def abort_all(self) -> None:
        for client in self.clients:
            abort(client)
        self.clients.clear()


def before_the_first_byte(clients: AbortingClients) -> None:
    clients.upstream.behaviour = Exchange.hang
    clients.send_requests()
    clients.abort_all()


def before_the_body(clients: AbortingClients) -> None:
    clients.upstream.behaviour = begins_and_hangs
    clients.send_requests()
    clients.abort_all()


def midway(clients: AbortingClients) -> None:
    clients.upstream.behaviour = endless
    clients.send_requests()
    for client in clients.clients:
        read_some(client)
    clients.abort_all()


def read_some(client: socket.socket) -> None:
    """Read until the body has begun: a response head is under 1000 bytes."""
    received = b""
    while len(received) < 1000:
        data = client.recv(1 << 20)
        assert data, received
        received += data


def while_the_upstream_is_silent(clients: AbortingClients) -> None:
    clients.upstream.behaviour = begins_and_hangs
    clients.send_requests()
    for client in clients.clients:
        received = 0
        while received < len(CHUNK):
            received += len(client.recv(1 << 20))
    clients.abort_all()


def while_stalled(clients: AbortingClients) -> None:
    clients.upstream.behaviour = endless
    clients.send_requests(receive_buffer=4096)
    # The download is stalled once every buffer is full and no byte moves.
    sent = 0
    while (now := sum(e.sent for e in clients.upstream.exchanges)) > sent:
        sent = now
        clients.service.get("/healthz")
        asyncio.run(asyncio.sleep(0.3))
    clients.abort_all()


CASES: list[Callable[[AbortingClients], None]] = [
    before_the_first_byte,
    before_the_body,
    midway,
    while_the_upstream_is_silent,
    while_stalled,
]


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("source", ["s3", "botocore", "http"])
@pytest.mark.parametrize("case", CASES)
def test_aborted_downloads_release_connections_and_slots(
    case: Callable[[AbortingClients], None], source: str, loop: Loop
) -> None:
    """After 50 aborts, no connection, slot or file descriptor is left open."""
    with (
        misbehaving(small) as upstream,
        serving(make_settings(upstream, source), loop=loop) as service,
    ):
        warm_up(service)
        baseline = open_descriptors()
        upstream.forget()
        case(AbortingClients(service, upstream, PATHS[source]))
        wait_until(lambda: service.acquired_connections() == 0, seconds=5)
        wait_until(lambda: open_descriptors() <= baseline, seconds=5)
        # All slots are free again.
        wait_until(lambda: service.counts() == (0, 0))
        upstream.behaviour = small
        assert fetch(service.port, "/tasks/1/bytes/5").body == SMALL


def make_settings(upstream: Misbehaving, source: str) -> Settings:
    return settings_for(upstream.url, max_downloads=SLOTS, s3_direct=source != "botocore")


def warm_up(service: RunningService) -> None:
    """Open the connections, TLS contexts and threads that stay open."""
    assert service.get("/tasks/1/image").content == SMALL
    assert service.get("/tasks/1/bytes/5").content == SMALL


@pytest.fixture
def read_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the size of each read from an upstream's socket."""
    sizes: list[int] = []
    data_received = ResponseHandler.data_received

    def counting(self: ResponseHandler, data: bytes) -> None:
        sizes.append(len(data))
        data_received(self, data)

    monkeypatch.setattr(ResponseHandler, "data_received", counting)
    return sizes


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("source", ["s3", "botocore", "http"])
def test_client_abort_stops_reading_from_upstream(
    source: str, loop: Loop, read_sizes: list[int]
) -> None:
    """The service disconnects at once from an upstream that sends at full speed."""
    with (
        misbehaving(endless) as upstream,
        serving(make_settings(upstream, source), loop=loop) as service,
    ):
        client = connect(service.port)
        ask(client, PATHS[source])
        read_some(client)
        before = sum(read_sizes)
        abort(client)
        wait_until(lambda: upstream.open_connections == 0, seconds=5)
        assert sum(read_sizes) - before < 2 << 20


class PassThrough(BaseHTTPMiddleware):
    """A host's middleware that only forwards the request."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("source", ["s3", "http"])
def test_aborts_under_base_http_middleware_leak_no_connection(source: str) -> None:
    """BaseHTTPMiddleware hides the response generator from cancellation."""
    with misbehaving(small) as upstream:
        app = create_app(settings_for(upstream.url, max_downloads=SLOTS))
        app.user_middleware.insert(0, Middleware(PassThrough))
        with serving_app(app) as port:
            service = RunningService(app, port)
            warm_up(service)
            upstream.forget()
            midway(AbortingClients(service, upstream, PATHS[source]))
            wait_until(lambda: service.acquired_connections() == 0, seconds=5)


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_broken_body_under_base_http_middleware_breaks_transfer(
    upstream: Misbehaving, http: str
) -> None:
    """BaseHTTPMiddleware alone would end a broken chunked body as if it were whole."""

    async def cut(exchange: Exchange) -> None:
        await exchange.head(200, "transfer-encoding: chunked")
        await exchange.raw(b"5\r\n12345\r\n5\r\n12")

    upstream.behaviour = cut
    app = create_app(settings_for(upstream.url))
    app.user_middleware.insert(0, Middleware(PassThrough))
    with serving_app(app, http=http) as port:
        received = fetch(port, "/tasks/1/image")
    assert received.body
    assert not received.whole


@pytest.mark.parametrize("source", ["s3", "http"])
def test_stalled_downloads_leave_connections_for_others(source: str) -> None:
    """The connection pools have room for MAX_DOWNLOADS, so 30 stalled downloads fit."""
    with (
        misbehaving(endless) as upstream,
        serving(settings_for(upstream.url, max_downloads=40)) as service,
    ):
        clients = AbortingClients(service, upstream, PATHS[source])
        clients.send_requests(30, receive_buffer=4096)
        upstream.behaviour = small
        assert service.get("/tasks/1/image").content == SMALL
        assert service.get("/tasks/1/bytes/5").content == SMALL
        clients.abort_all()


@contextmanager
def endless_downloads(
    upstream: Misbehaving, number: int, source: str, **limits: Any
) -> Generator[AbortingClients]:
    """Run a service with `number` downloads that don't end; abort those that are left."""
    upstream.behaviour = endless
    with serving(settings_for(upstream.url, **limits)) as service:
        clients = AbortingClients(service, upstream, PATHS[source])
        clients.send_requests(number)
        yield clients
        clients.abort_all()


def test_request_without_free_slot_returns_503(upstream: Misbehaving) -> None:
    """The 503 has Retry-After, and a health check needs no slot."""
    limits = {"max_downloads": 2, "queue_timeout": 0.2}
    with endless_downloads(upstream, 2, "http", **limits) as clients:
        answer = clients.service.get("/tasks/1/image")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["retryable"] is True
        assert clients.service.get("/healthz").status_code == 200


def test_queued_request_gets_next_free_slot(upstream: Misbehaving) -> None:
    """A queued request starts as soon as a slot is free."""
    upstream.behaviour = endless
    settings = settings_for(upstream.url, max_downloads=1, queue_timeout=20)
    with serving(settings) as service:
        first = connect(service.port)
        ask(first, PATHS["http"])
        wait_until(lambda: len(upstream.exchanges) == 1)
        upstream.behaviour = small
        waiting = connect(service.port)
        ask(waiting, "/tasks/1/image")
        abort(first)
        assert b"HTTP/1.1 200 OK" in waiting.recv(100)
        waiting.close()


def test_small_downloads_are_served_while_bulk_slots_are_taken(upstream: Misbehaving) -> None:
    """A large download that waits for a bulk slot holds no connection."""
    limits = {"max_downloads": 8, "queue_timeout": 20}
    with endless_downloads(upstream, 7, "s3", **limits) as clients:
        service = clients.service
        waiting = connect(service.port)
        ask(waiting, PATHS["http"])
        wait_until(lambda: service.counts() == (7, 1))
        assert (len(upstream.exchanges), service.acquired_connections()) == (7, 7)
        upstream.behaviour = small
        for path in ("/tasks/1/image", "/tasks/1/bytes/5"):
            assert service.get(path).content == SMALL
        upstream.behaviour = endless
        abort(clients.clients.pop())
        assert b"HTTP/1.1 200 OK" in waiting.recv(100)
        abort(waiting)


def test_large_download_without_bulk_slot_returns_503(upstream: Misbehaving) -> None:
    """A large download waits for QUEUE_TIMEOUT, and takes no slot of small downloads."""
    limits = {"max_downloads": 8, "queue_timeout": 0.2}
    with endless_downloads(upstream, 7, "s3", **limits) as clients:
        service = clients.service
        answer = service.get(PATHS["s3"])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        clients.abort_all()
        wait_until(lambda: service.counts() == (0, 0))
        upstream.behaviour = endless
        again = connect(service.port)
        ask(again, PATHS["s3"])
        assert b"HTTP/1.1 200 OK" in again.recv(100)
        abort(again)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_stalled_client_is_disconnected(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, loop: Loop
) -> None:
    """When a client reads nothing, the service also closes its upstream connection."""
    upstream.behaviour = endless
    settings = settings_for(upstream.url, client_stall_timeout=1, client_min_rate=10**8)
    with serving(settings, loop=loop) as service:
        client = connect(service.port, receive_buffer=4096)
        ask(client, PATHS["s3"])
        wait_until(lambda: " client_stalled (" in caplog.text)
        wait_until(lambda: service.acquired_connections() == 0)
        client.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_slow_client_above_minimum_rate_gets_whole_body(upstream: Misbehaving, loop: Loop) -> None:
    """Each wait is longer than the stall timeout, but the rate is above the minimum."""
    size, rate = 8_000_000, 1_500_000

    async def large(exchange: Exchange) -> None:
        await exchange.answer(200, bytes(size))

    upstream.behaviour = large
    settings = settings_for(upstream.url, client_stall_timeout=1, client_min_rate=rate // 3)
    with serving(settings, loop=loop) as service:
        client = connect(service.port, receive_buffer=65536)
        ask(client, "/tasks/1/image")
        received = read_slowly(client, rate // 20, rate=rate)
        client.close()
    assert received > size


def test_default_max_downloads_exceeds_library_pool_sizes() -> None:
    """By default, more than ten downloads at once have a connection each."""
    assert Settings(s3_image_bucket="photos").max_downloads > 100
