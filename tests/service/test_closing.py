"""Closing: what is opened for a request is closed, whatever happens to the request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

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
PLACES = 64  # of which an eighth is for small downloads
SMALL = b"small"
PATHS = {"s3": "/tasks/1/image", "full": "/tasks/1/image", "http": "/tasks/1/bytes/1000000000"}


async def small(exchange: Exchange) -> None:
    await exchange.answer(200, SMALL)


async def endless(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 1000000000", 'etag: "a"')
    await exchange.flood()


async def begins_and_hangs(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 1000000000", 'etag: "a"')
    await exchange.body(CHUNK)
    await exchange.hang()


class Aborting:
    """Fifty clients at once, and what to see before each of them leaves."""

    def __init__(self, service: RunningService, upstream: Misbehaving, path: str) -> None:
        self.service = service
        self.upstream = upstream
        self.path = path
        self.clients: list[socket.socket] = []

    def ask_all(self, number: int = ABORTS, *, receive_buffer: int | None = None) -> None:
        for _ in range(number):
            client = connect(self.service.port, receive_buffer=receive_buffer)
            ask(client, self.path)
            self.clients.append(client)
        wait_until(lambda: len(self.upstream.exchanges) >= number)

    def leave_all(self) -> None:
        for client in self.clients:
            abort(client)
        self.clients.clear()


def before_the_first_byte(clients: Aborting) -> None:
    clients.upstream.behaviour = Exchange.hang
    clients.ask_all()
    clients.leave_all()


def before_the_body(clients: Aborting) -> None:
    clients.upstream.behaviour = begins_and_hangs
    clients.ask_all()
    clients.leave_all()


def midway(clients: Aborting) -> None:
    clients.upstream.behaviour = endless
    clients.ask_all()
    for client in clients.clients:
        read_some(client)
    clients.leave_all()


def read_some(client: socket.socket) -> None:
    """Read until the body has certainly begun."""
    received = b""
    while len(received) < 1000:
        data = client.recv(1 << 20)
        assert data, received
        received += data


def while_the_upstream_is_silent(clients: Aborting) -> None:
    clients.upstream.behaviour = begins_and_hangs
    clients.ask_all()
    for client in clients.clients:
        received = 0
        while received < len(CHUNK):
            received += len(client.recv(1 << 20))
    clients.leave_all()


def while_stalled(clients: Aborting) -> None:
    clients.upstream.behaviour = endless
    clients.ask_all(receive_buffer=4096)
    # Stalled is when every buffer on the way is full and nothing moves any more.
    pulled = 0
    while (now := sum(e.sent for e in clients.upstream.exchanges)) > pulled:
        pulled = now
        clients.service.get("/healthz")
        asyncio.run(asyncio.sleep(0.3))
    clients.leave_all()


CASES: list[Callable[[Aborting], None]] = [
    before_the_first_byte,
    before_the_body,
    midway,
    while_the_upstream_is_silent,
    while_stalled,
]


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("source", ["s3", "full", "http"])
@pytest.mark.parametrize("case", CASES)
def test_aborted_downloads_leave_nothing_open(
    case: Callable[[Aborting], None], source: str, loop: Loop
) -> None:
    """After fifty aborts the pools hold no connection, and no descriptor is left open."""
    with (
        misbehaving(small) as upstream,
        serving(settings_of(upstream, source), loop=loop) as service,
    ):
        warm_up(service)
        baseline = open_descriptors()
        upstream.forget()
        case(Aborting(service, upstream, PATHS[source]))
        wait_until(lambda: service.acquired_connections() == 0, seconds=5)
        wait_until(lambda: open_descriptors() <= baseline, seconds=5)
        # All places are free again, too.
        wait_until(lambda: service.counts() == (0, 0))
        upstream.behaviour = small
        assert fetch(service.port, "/tasks/1/bytes/5").body == SMALL


def settings_of(upstream: Misbehaving, source: str) -> Settings:
    return settings_for(upstream.url, max_downloads=PLACES, s3_direct=source != "full")


def warm_up(service: RunningService) -> None:
    """Open what stays open: a connection to each upstream, TLS contexts, threads."""
    assert service.get("/tasks/1/image").content == SMALL
    assert service.get("/tasks/1/bytes/5").content == SMALL


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each read of the clients took from a socket."""
    sizes: list[int] = []
    data_received = ResponseHandler.data_received

    def counting(self: ResponseHandler, data: bytes) -> None:
        sizes.append(len(data))
        data_received(self, data)

    monkeypatch.setattr(ResponseHandler, "data_received", counting)
    return sizes


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("source", ["s3", "full", "http"])
def test_nothing_more_is_pulled_for_a_client_that_has_gone(
    source: str, loop: Loop, pulled: list[int]
) -> None:
    """An upstream that pushes at full speed is left at once when the client is gone."""
    with (
        misbehaving(endless) as upstream,
        serving(settings_of(upstream, source), loop=loop) as service,
    ):
        client = connect(service.port)
        ask(client, PATHS[source])
        read_some(client)
        before = sum(pulled)
        abort(client)
        wait_until(lambda: upstream.open_connections == 0, seconds=5)
        assert sum(pulled) - before < 2 << 20


class Passing(BaseHTTPMiddleware):
    """A host's middleware that does nothing but what its base class does."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("source", ["s3", "http"])
def test_aborts_inside_a_host_with_base_http_middleware(source: str) -> None:
    """A host's BaseHTTPMiddleware, which hides the generator from cancellation, leaks nothing."""
    with misbehaving(small) as upstream:
        app = create_app(settings_for(upstream.url, max_downloads=PLACES))
        app.user_middleware.insert(0, Middleware(Passing))
        with serving_app(app) as port:
            service = RunningService(app, port)
            warm_up(service)
            upstream.forget()
            midway(Aborting(service, upstream, PATHS[source]))
            wait_until(lambda: service.acquired_connections() == 0, seconds=5)


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_broken_body_inside_a_host_with_base_http_middleware(
    upstream: Misbehaving, http: str
) -> None:
    """That middleware would end a broken body of unknown length as if it were whole."""

    async def cut(exchange: Exchange) -> None:
        await exchange.head(200, "transfer-encoding: chunked")
        await exchange.raw(b"5\r\n12345\r\n5\r\n12")

    upstream.behaviour = cut
    app = create_app(settings_for(upstream.url))
    app.user_middleware.insert(0, Middleware(Passing))
    with serving_app(app, http=http) as port:
        received = fetch(port, "/tasks/1/image")
    assert received.body
    assert not received.whole


@pytest.mark.parametrize("source", ["s3", "http"])
def test_slow_readers_do_not_take_the_connections_of_others(source: str) -> None:
    """Thirty stalled downloads leave room for the next: the pools are sized by MAX_DOWNLOADS."""
    with (
        misbehaving(endless) as upstream,
        serving(settings_for(upstream.url, max_downloads=40)) as service,
    ):
        clients = Aborting(service, upstream, PATHS[source])
        clients.ask_all(30, receive_buffer=4096)
        upstream.behaviour = small
        assert service.get("/tasks/1/image").content == SMALL
        assert service.get("/tasks/1/bytes/5").content == SMALL
        clients.leave_all()


def test_request_beyond_the_last_place_is_told_to_come_later(upstream: Misbehaving) -> None:
    """When all places stay taken the answer is 503 with Retry-After, and health is not shed."""
    upstream.behaviour = endless
    settings = settings_for(upstream.url, max_downloads=2, queue_timeout=0.2)
    with serving(settings) as service:
        clients = Aborting(service, upstream, PATHS["http"])
        clients.ask_all(2)
        answer = service.get("/tasks/1/image")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["retryable"] is True
        assert service.get("/healthz").status_code == 200
        clients.leave_all()


def test_request_in_the_queue_gets_the_next_place(upstream: Misbehaving) -> None:
    """A request that waits is served as soon as a place is free."""
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


def test_small_downloads_pass_a_crowd_of_long_ones(upstream: Misbehaving) -> None:
    """A share of the places is for small downloads; a long one waits outside, holding nothing."""
    upstream.behaviour = endless
    settings = settings_for(upstream.url, max_downloads=8, queue_timeout=20)
    with serving(settings) as service:
        clients = Aborting(service, upstream, PATHS["s3"])
        clients.ask_all(7)
        waiting = connect(service.port)
        ask(waiting, PATHS["http"])
        wait_until(lambda: len(upstream.exchanges) == 8)
        wait_until(lambda: service.acquired_connections() == 7)
        upstream.behaviour = small
        for path in ("/tasks/1/image", "/tasks/1/bytes/5"):
            assert service.get(path).content == SMALL
        upstream.behaviour = endless
        abort(clients.clients.pop())
        assert b"HTTP/1.1 200 OK" in waiting.recv(100)
        abort(waiting)
        clients.leave_all()


def test_long_download_beyond_the_last_place_is_told_to_come_later(upstream: Misbehaving) -> None:
    """A long download does not wait without end, nor does it take a place of the small ones."""
    upstream.behaviour = endless
    settings = settings_for(upstream.url, max_downloads=8, queue_timeout=0.2)
    with serving(settings) as service:
        clients = Aborting(service, upstream, PATHS["s3"])
        clients.ask_all(7)
        answer = service.get(PATHS["s3"])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        clients.leave_all()
        wait_until(lambda: service.counts() == (0, 0))
        upstream.behaviour = endless
        again = connect(service.port)
        ask(again, PATHS["s3"])
        assert b"HTTP/1.1 200 OK" in again.recv(100)
        abort(again)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_stalled_client_is_given_up(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, loop: Loop
) -> None:
    """Under any server a client that takes nothing loses its download, and frees its upstream."""
    upstream.behaviour = endless
    settings = settings_for(upstream.url, client_stall_timeout=1, client_min_rate=10**8)
    with serving(settings, loop=loop) as service:
        client = connect(service.port, receive_buffer=4096)
        ask(client, PATHS["s3"])
        wait_until(lambda: " client_stalled (" in caplog.text)
        wait_until(lambda: service.acquired_connections() == 0)
        client.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_slow_client_is_served_to_the_end(upstream: Misbehaving, loop: Loop) -> None:
    """A client above the minimum rate gets all of it, though each wait is longer than a stall."""
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


def test_default_pools_are_larger_than_the_libraries() -> None:
    """By default more than ten downloads at once have a connection each."""
    assert Settings(s3_image_bucket="photos").max_downloads > 100
