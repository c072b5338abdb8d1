"""AUTH_URL: an application that is slow, down or broken never opens a download."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import pytest

from handlers import drain
from tests.support.application import (
    IMAGE,
    PICTURE,
    SECRET,
    TARGET,
    allow,
    answer_privately,
    auth_url,
    fetch_logged,
    send_picture,
)
from tests.support.client import abort, ask, asked, connect, fetch, read_answer
from tests.support.components import settings_for, store_environ
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving
from tests.support.serving import RunningService, ServiceProcess, ServiceWith, serving, wait_until

FIRST_BYTE_TIMEOUT = 4.0  # A loaded machine may need a second to open 100 connections.
DEADLINE = FIRST_BYTE_TIMEOUT / 2

LARGE = 10_000_000


@pytest.fixture
def store(upstream: Misbehaving) -> Misbehaving:
    """Return the store, which has every object."""
    upstream.behaviour = send_picture
    return upstream


@pytest.fixture
def service(
    service_with: ServiceWith, store: Misbehaving, application: Misbehaving
) -> RunningService:
    """Run the service with AUTH_URL alone, and one second for its answer."""
    return service_with(auth_url=auth_url(application), first_byte_timeout=FIRST_BYTE_TIMEOUT)


def send(data: str, then: Callable[[Exchange], Awaitable[None]] | None = None) -> Behaviour:
    """Return a behaviour that sends bytes, and closes the connection or does `then`."""

    async def sending(exchange: Exchange) -> None:
        await exchange.raw(data.replace("\n", "\r\n").encode("latin-1"))
        if then is not None:
            await then(exchange)

    return sending


async def close(exchange: Exchange) -> None:
    """Close the connection without an answer."""


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def hang(exchange: Exchange) -> None:
    await exchange.hang()


async def answer_late(exchange: Exchange) -> None:
    await exchange.pause(DEADLINE * 1.5)
    await allow(exchange)


async def trickle(exchange: Exchange) -> None:
    """Send a head so slowly that no byte is late, and the whole head is."""
    await exchange.raw(b"HTTP/1.1 204 No Content\r\nx-slow: ")
    while True:
        await exchange.raw(b"a")
        await exchange.pause(DEADLINE / 10)


async def continue_for_ever(exchange: Exchange) -> None:
    while True:
        await exchange.raw(b"HTTP/1.1 100 Continue\r\n\r\n")
        await exchange.pause(DEADLINE / 20)


async def send_lines_for_ever(exchange: Exchange) -> None:
    while True:
        await exchange.raw(f"x-line: {SECRET * 10}\r\n".encode() * 10)


def assert_refused(
    service: RunningService, store: Misbehaving, log: pytest.LogCaptureFixture, status: int
) -> float:
    """Request a download that gets a 502 or 504; return the seconds that it took."""
    begun = time.monotonic()
    answer = fetch_logged(service.port, log)
    seconds = time.monotonic() - begun
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    kind = {502: "bad-upstream", 504: "upstream-timeout"}[status]
    assert json.loads(answer.body)["type"] == f"urn:downspout:problem:{kind}"
    assert "AUTH_URL" in log.text
    assert "Traceback" not in log.text
    assert store.requests == []
    return seconds


UNUSABLE_STATUSES = [
    *(101, 300, 301, 302, 303, 304, 305, 307, 308),
    *(400, 402, 404, 405, 407, 410, 418, 422, 429, 451, 499),
    *(500, 501, 502, 503, 504, 511, 599, 600, 999),
]


@pytest.mark.parametrize("status", UNUSABLE_STATUSES)
def test_other_status_of_application_returns_502(
    service: RunningService,
    application: Misbehaving,
    store: Misbehaving,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    """Only 2xx lets a request in, and no redirect is followed."""
    lines = (f"location: {application.url}/allowed", "retry-after: 7")

    async def answering(exchange: Exchange) -> None:
        if exchange.path == TARGET:
            await answer_privately(status, *lines)(exchange)
        else:
            await allow(exchange)

    application.behaviour = answering
    assert assert_refused(service, store, caplog, 502) < DEADLINE
    assert application.requests == [f"GET {TARGET}"]


OK = "HTTP/1.1 204 No Content\n"

BAD_GATEWAY: dict[str, Behaviour] = {
    "closes at once": close,
    "resets": reset,
    "closes within its status": send("HTTP/1.1 204"),
    "closes within its head": send(f"{OK}x-user: {SECRET}\n"),
    "resets within its head": send(OK, reset),
    "HTTP/0.9": send(f"<html>{SECRET} may download</html>\n\n"),
    "no HTTP": send(f"\x16\x03\x01\x00\xff{SECRET}\n\n"),
    "SSH": send(f"SSH-2.0-{SECRET}\n"),
    "status of four digits": send(f"HTTP/1.1 2004 {SECRET}\n\n"),
    "status of one digit": send("HTTP/1.1 2 OK\n\n"),
    "negative status": send("HTTP/1.1 -204 OK\n\n"),
    "status that is no number": send(f"HTTP/1.1 {SECRET} OK\n\n"),
    "header without a colon": send(f"{OK}{SECRET}\n\n"),
    "long header": send(f"{OK}x-user: {SECRET * 100_000}\n\n"),
    "only 100": send("HTTP/1.1 100 Continue\n\n"),
    "garbage after 100": send(f"HTTP/1.1 100 Continue\n\n{SECRET}\n\n", hang),
    "301 after 103": send(f"HTTP/1.1 103 Early Hints\n\nHTTP/1.1 301 {SECRET}\n\n"),
}


@pytest.mark.parametrize("behaviour", BAD_GATEWAY.values(), ids=BAD_GATEWAY)
def test_broken_answer_of_application_returns_502(
    service: RunningService,
    application: Misbehaving,
    store: Misbehaving,
    caplog: pytest.LogCaptureFixture,
    behaviour: Behaviour,
) -> None:
    """An answer that is no HTTP, or ends too early, is a 502 at once."""
    application.behaviour = behaviour
    assert assert_refused(service, store, caplog, 502) < DEADLINE * 0.9
    application.behaviour = allow
    assert fetch(service.port, IMAGE).body == PICTURE


TOO_SLOW: dict[str, Behaviour] = {
    "never answers": hang,
    "answers late": answer_late,
    "stops within its head": send(OK, hang),
    "trickles its head": trickle,
    "sends 100 for ever": continue_for_ever,
    "sends only 199": send(f"HTTP/1.1 199 {SECRET}\n\n", hang),
}


@pytest.mark.parametrize("behaviour", TOO_SLOW.values(), ids=TOO_SLOW)
def test_slow_application_returns_504_after_half_of_first_byte_timeout(
    service: RunningService,
    application: Misbehaving,
    store: Misbehaving,
    caplog: pytest.LogCaptureFixture,
    behaviour: Behaviour,
) -> None:
    """The deadline is for the whole head, not for each of its bytes."""
    application.behaviour = behaviour
    assert DEADLINE * 0.9 < assert_refused(service, store, caplog, 504) < DEADLINE * 1.8
    wait_until(lambda: all(exchange.is_over for exchange in application.exchanges))
    assert len(application.requests) == 1


def test_endless_head_of_application_is_refused_within_the_deadline(
    service: RunningService, application: Misbehaving, store: Misbehaving
) -> None:
    """A head without end costs neither memory nor a download."""
    application.behaviour = send(OK, send_lines_for_ever)
    begun = time.monotonic()
    assert fetch(service.port, IMAGE).status in (502, 504)
    assert time.monotonic() - begun < DEADLINE * 1.8
    assert store.requests == []
    wait_until(lambda: application.exchanges[0].is_over)


def test_answer_within_the_deadline_lets_request_in(
    service: RunningService, application: Misbehaving
) -> None:
    """An application may take as long as half of FIRST_BYTE_TIMEOUT."""

    async def answer_slowly(exchange: Exchange) -> None:
        await exchange.raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")
        await exchange.pause(DEADLINE * 0.6)
        await exchange.raw(b"HTTP/1.1 204\r\n\r\n")

    application.behaviour = answer_slowly
    assert fetch(service.port, IMAGE).body == PICTURE


# No connection


def fetch_with(
    service_with: ServiceWith,
    store: Misbehaving,
    log: pytest.LogCaptureFixture,
    url: str,
    status: int,
) -> float:
    service = service_with(auth_url=url, first_byte_timeout=FIRST_BYTE_TIMEOUT)
    return assert_refused(service, store, log, status)


def test_application_that_refuses_connections_returns_502(
    service_with: ServiceWith,
    store: Misbehaving,
    caplog: pytest.LogCaptureFixture,
    unreachable_url: str,
) -> None:
    """An application that is down opens nothing, and its URL is not in the log."""
    assert fetch_with(service_with, store, caplog, unreachable_url + TARGET, 502) < DEADLINE
    assert unreachable_url.rpartition("/")[2] not in caplog.text
    assert "failed (AUTH_URL: ClientConnectorError)" in caplog.text


def test_application_without_address_returns_502(
    service_with: ServiceWith, store: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """The host of AUTH_URL is no more in the log than its path."""
    host = "secret-of-the-application.invalid"
    assert fetch_with(service_with, store, caplog, f"http://{host}{TARGET}", 502) < DEADLINE
    assert host not in caplog.text


def test_application_without_tls_returns_502(
    service_with: ServiceWith,
    store: Misbehaving,
    application: Misbehaving,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An https URL of a server that knows no TLS is a 502."""
    application.behaviour = close
    url = auth_url(application).replace("http:", "https:")
    # The server reads the TLS greeting as a head that does not end, until the client leaves.
    caplog.set_level(logging.INFO)
    service = service_with(auth_url=url, first_byte_timeout=FIRST_BYTE_TIMEOUT)
    assert fetch_logged(service.port, caplog).status in (502, 504)
    assert store.requests == []


@contextmanager
def full_backlog() -> Generator[str]:
    """Yield the URL of a port whose queue of connections is full: it answers no SYN."""
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_application_that_answers_no_connection_returns_504(
    service_with: ServiceWith, store: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """The deadline includes the connection, whatever UPSTREAM_CONNECT_TIMEOUT allows."""
    with full_backlog() as url:
        seconds = fetch_with(service_with, store, caplog, url + TARGET, 504)
    assert DEADLINE * 0.9 < seconds < DEADLINE * 1.8


# Bodies that are not read


@pytest.mark.parametrize(("status", "expected"), [(200, 200), (401, 401), (403, 403), (500, 502)])
@pytest.mark.parametrize("length", ["content-length: 10000000", "connection: close"])
def test_large_body_of_application_is_not_read(
    service: RunningService, application: Misbehaving, status: int, expected: int, length: str
) -> None:
    """Of 10 MB, or of a body without end, only what the kernel buffers is transferred."""

    async def send_large(exchange: Exchange) -> None:
        await exchange.head(status, length)
        while exchange.sent < LARGE or length == "connection: close":
            await exchange.body(bytes(100_000))

    application.behaviour = send_large
    for _ in range(3):
        begun = time.monotonic()
        assert fetch(service.port, IMAGE).status == expected
        assert time.monotonic() - begun < DEADLINE / 2
    wait_until(lambda: all(exchange.is_over for exchange in application.exchanges))
    assert [one.sent < LARGE for one in application.exchanges] == [True] * 3


@pytest.mark.parametrize(("status", "expected"), [(200, 200), (401, 401), (403, 403), (500, 502)])
def test_body_of_application_that_never_comes_is_not_waited_for(
    service: RunningService, application: Misbehaving, status: int, expected: int
) -> None:
    """The head decides; the connection is closed, since its body is still to come."""

    async def send_head(exchange: Exchange) -> None:
        await exchange.head(status, "content-length: 7")
        await exchange.hang()

    application.behaviour = send_head
    begun = time.monotonic()
    assert fetch(service.port, IMAGE).status == expected
    assert time.monotonic() - begun < DEADLINE / 2
    wait_until(lambda: application.exchanges[0].is_over)


@pytest.mark.parametrize(
    "body",
    [
        "transfer-encoding: chunked\n\n5\ncut",
        "content-encoding: gzip\ncontent-length: 4\n\nnone",
        "content-length: 9\n\ncut",
    ],
)
def test_broken_body_of_application_does_not_matter(
    service: RunningService, application: Misbehaving, body: str
) -> None:
    """The head decides, whatever becomes of its body."""
    application.behaviour = send(f"HTTP/1.1 200 OK\n{body}")
    assert fetch(service.port, IMAGE).body == PICTURE
    application.behaviour = send(f"HTTP/1.1 403 Forbidden\n{body}")
    assert fetch(service.port, IMAGE).status == 403


def test_answer_left_on_connection_authorizes_no_later_request(
    service: RunningService, application: Misbehaving, store: Misbehaving
) -> None:
    """Bytes after an answer would else be taken for the answer to the next request."""

    async def send_two(exchange: Exchange) -> None:
        exchange.keep = True
        await exchange.raw(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n" + OK_BYTES)

    application.behaviour = send_two
    for _ in range(5):
        assert fetch(service.port, IMAGE).status in (403, 502)
        time.sleep(0.05)
    assert store.requests == []


OK_BYTES = b"HTTP/1.1 204 No Content\r\n\r\n"


# Slots, the pool, clients that leave, and draining


async def send_half(exchange: Exchange) -> None:
    """Send a picture's first half, and nothing more."""
    await exchange.head(200, "content-length: 2000000", 'etag: "v"')
    await exchange.body(bytes(1_000_000))
    await exchange.hang()


def test_application_decides_before_slots_and_client_limit(
    upstream: Misbehaving, application: Misbehaving
) -> None:
    """With all slots taken, a refused request gets 403 at once, an authorized one 503 or 429."""
    upstream.behaviour = send_half
    url = auth_url(application)
    settings = settings_for(upstream.url, auth_url=url, max_downloads=1, queue_timeout=0.3)
    with serving(settings) as service, asked(service.port, IMAGE) as slow:
        assert slow.recv(1)
        assert fetch(service.port, IMAGE).status == 503
        application.behaviour = answer_privately(403)
        begun = time.monotonic()
        assert fetch(service.port, IMAGE).status == 403
        assert time.monotonic() - begun < 0.3
        assert len(upstream.requests) == 1
    application.behaviour = allow
    settings = settings_for(upstream.url, auth_url=url, max_downloads_per_client=1)
    with serving(settings) as service, asked(service.port, IMAGE) as slow:
        assert slow.recv(1)
        assert fetch(service.port, IMAGE).status == 429
        application.behaviour = answer_privately(401)
        assert fetch(service.port, IMAGE).status == 401
        assert len(upstream.requests) == 2


def test_authorizations_are_answered_while_downloads_take_all_connections(
    upstream: Misbehaving, application: Misbehaving
) -> None:
    """The connections to the application are a pool that downloads cannot use up."""
    upstream.behaviour = send_half
    settings = settings_for(
        upstream.url,
        auth_url=auth_url(application),
        max_downloads=4,
        read_ahead_bytes=0,
        queue_timeout=0.1,
    )
    with serving(settings) as service, ExitStack() as stack:
        for path in (IMAGE, IMAGE, "/tasks/1/bytes/2000000", "/tasks/1/bytes/2000000"):
            assert stack.enter_context(asked(service.port, path)).recv(1)
        assert service.counts() == (4, 0)
        application.behaviour = answer_privately(403)
        begun = time.monotonic()
        with ThreadPoolExecutor(20) as threads:
            statuses = list(threads.map(lambda _: fetch(service.port, IMAGE).status, range(200)))
        assert statuses == [403] * 200
        assert time.monotonic() - begun < 10
        assert len(application.requests) == 204


def test_requests_that_wait_for_a_connection_to_application_have_the_same_deadline(
    service: RunningService, application: Misbehaving, store: Misbehaving
) -> None:
    """An application that hangs gets about 100 connections, not one for each client."""
    application.behaviour = hang
    others = application.open_connections  # idle ones of services that other tests share
    with ExitStack() as stack:
        clients = [stack.enter_context(asked(service.port, IMAGE)) for _ in range(130)]
        wait_until(lambda: len(application.exchanges) >= 100)
        time.sleep(DEADLINE * 0.3)
        assert application.open_connections - others <= 102
        statuses = [read_answer(client).status for client in clients]
    assert statuses == [504] * 130
    assert store.requests == []
    wait_until(lambda: all(exchange.is_over for exchange in application.exchanges))
    application.behaviour = allow
    assert fetch(service.port, IMAGE).body == PICTURE


def test_client_that_leaves_ends_request_to_application(
    service: RunningService, application: Misbehaving, store: Misbehaving
) -> None:
    """A request whose client has left holds no connection until the deadline."""
    application.behaviour = hang
    connection = connect(service.port)
    ask(connection, IMAGE)
    wait_until(lambda: application.exchanges)
    begun = time.monotonic()
    abort(connection)
    wait_until(lambda: application.exchanges[0].is_over)
    assert time.monotonic() - begun < DEADLINE * 0.8
    assert store.requests == []


def test_authorization_during_drain_is_refused_or_draining(
    upstream: Misbehaving, application: Misbehaving
) -> None:
    """While the process drains, a refused request gets 403 and an authorized one 503."""
    upstream.behaviour = send_half
    with serving(settings_for(upstream.url, auth_url=auth_url(application))) as service:
        with asked(service.port, IMAGE) as slow:
            assert slow.recv(1)
            loop = service.app.state.http.connector._loop
            draining = asyncio.run_coroutine_threadsafe(drain(service.app, 60), loop)
            wait_until(lambda: service.get("/readyz").status_code == 503)
            authorized = fetch(service.port, IMAGE)
            assert authorized.status == 503
            assert json.loads(authorized.body)["type"] == "urn:downspout:problem:draining"
            application.behaviour = answer_privately(403)
            assert fetch(service.port, IMAGE).status == 403
            assert len(upstream.requests) == 1
        draining.result(10)


def test_service_stops_while_application_never_answers(
    upstream: Misbehaving, application: Misbehaving
) -> None:
    """The end of the lifespan closes the connections to the application."""
    application.behaviour = hang
    settings = settings_for(upstream.url, auth_url=auth_url(application), first_byte_timeout=4.0)
    with ExitStack() as stack:
        with serving(settings) as service:
            client = stack.enter_context(asked(service.port, IMAGE))
            wait_until(lambda: application.exchanges)
            begun = time.monotonic()
        assert time.monotonic() - begun < 8
        assert read_answer(client).status in (503, 504)
    wait_until(lambda: application.exchanges[0].is_over)
    assert upstream.requests == []


def test_service_leaves_no_connection_to_application_open(
    upstream: Misbehaving, application: Misbehaving
) -> None:
    """The session of the application is closed at the end of the lifespan."""
    upstream.behaviour = send_picture
    before = threading.active_count(), application.open_connections
    with serving(settings_for(upstream.url, auth_url=auth_url(application))) as service:
        assert fetch(service.port, IMAGE).status == 200
    wait_until(lambda: application.open_connections == before[1])
    assert threading.active_count() <= before[0]


def test_deadline_of_application_counts_toward_first_byte_timeout(
    service: RunningService, application: Misbehaving, store: Misbehaving
) -> None:
    """A slow application and a slow store together take FIRST_BYTE_TIMEOUT at most."""

    async def answer_slowly(exchange: Exchange) -> None:
        await exchange.pause(DEADLINE * 0.8)
        await allow(exchange)

    application.behaviour = answer_slowly
    store.behaviour = hang
    begun = time.monotonic()
    with closing(connect(service.port)) as client:
        ask(client, IMAGE)
        assert read_answer(client).status == 504
    assert FIRST_BYTE_TIMEOUT * 0.9 < time.monotonic() - begun < FIRST_BYTE_TIMEOUT * 1.4


def test_request_that_waits_for_application_gets_503_when_process_drains(
    upstream: Misbehaving, application: Misbehaving
) -> None:
    """A process that ends answers with a problem that clients retry, not with uvicorn's 500."""
    application.behaviour = hang
    environ = {**store_environ(upstream.url), "AUTH_URL": auth_url(application)}
    with ServiceProcess(environ) as process:
        port = int(process.url().rpartition(":")[2])
        with asked(port, IMAGE) as client:
            wait_until(lambda: application.exchanges)
            process.process.send_signal(signal.SIGTERM)
            received = read_answer(client)
        assert process.end() == 0
    assert received.status == 503
    assert json.loads(received.body)["type"] == "urn:downspout:problem:draining"
