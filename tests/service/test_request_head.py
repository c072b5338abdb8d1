"""Limits on a request's head, in bytes and seconds, and its Host header (RFC 9112, 3.2)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from handlers.server import Protocol
from tests.support.client import Received, connect, read_answer
from tests.support.serving import Loop, serving_app

LIMIT = 64 * 1024
GET = b"GET / HTTP/1.1\r\nhost: x\r\n"
CLOSE = b"connection: close\r\n\r\n"
CHUNKED = b"POST /upload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
LONG = b"x" * 1_000_000


class Impatient(Protocol):
    head_timeout = 0.5
    linger_timeout = 0.5


async def hello(_: Request) -> Response:
    return Response("hello")


async def upload(request: Request) -> Response:
    return Response(str(len(await request.body())))


async def paused(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"first "
        await request.app.state.go_on.wait()
        yield b"second"

    return StreamingResponse(body(), headers={"content-length": "12"})


async def go_on(request: Request) -> Response:
    request.app.state.go_on.set()
    return Response()


def make_app() -> Starlette:
    routes = [
        Route("/", hello),
        Route("/upload", upload, methods=["POST"]),
        Route("/paused", paused),
        Route("/go-on", go_on),
    ]
    app = Starlette(routes=routes)
    app.state.go_on = asyncio.Event()
    return app


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Loop:
    loop: Loop = request.param
    return loop


@pytest.fixture
def port(loop: Loop) -> Generator[int]:
    with serving_app(make_app(), loop=loop, http=Protocol) as port:
        yield port


@pytest.fixture
def impatient(loop: Loop) -> Generator[int]:
    """Return the port of a server with short timeouts."""
    with serving_app(make_app(), loop=loop, http=Impatient) as port:
        yield port


def send_all(port: int, *pieces: bytes) -> Received:
    """Send the pieces, as many as the server takes; return the answer."""
    with connect(port) as client:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                client.sendall(piece)
        return read_answer(client)


def read_until(client: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        data = client.recv(1 << 16)
        assert data, received
        received += data
    return received


def wait_for_head_timeout(port: int) -> None:
    """Return when a connection that was opened now has reached its head's deadline."""
    with connect(port) as silent:
        assert silent.recv(1) == b""


@pytest.mark.parametrize(
    ("begin", "rest", "status"),
    [
        (b"GET /", LONG, 414),
        (GET, b"x" + LONG, 431),
        (GET + b"name: ", LONG, 431),
        (GET, b"name: value\r\n" * 100_000, 431),
        (b"", b"\r\n" * 500_000, 431),
        (GET + b"\r\n", b"GET /" + LONG, 414),
        (GET + b"\r\n" + GET, b"x" + LONG, 431),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", b"name: " + LONG, 431),
    ],
    ids=["line", "name", "value", "fields", "blank lines", "next line", "next name", "trailer"],
)
@pytest.mark.parametrize("pieces", [1, 20])
def test_head_without_end_is_refused(
    port: int, begin: bytes, rest: bytes, status: int, pieces: int
) -> None:
    """A head over 64 KiB is a 414 or a 431, and the connection is closed."""
    size = len(rest) // pieces
    parts = [rest[at : at + size] for at in range(0, len(rest), size)]
    answer = send_all(port, begin, *parts)
    if begin.startswith(GET + b"\r\n"):
        assert (answer.status, answer.body[:5]) == (200, b"hello")
        assert answer.body[5:].startswith(b"HTTP/1.1 %d " % status)
    else:
        assert (answer.status, answer.whole) == (status, True)
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 431)])
def test_head_of_the_limit_is_served(port: int, size: int, status: int, pieces: int) -> None:
    """A head of 64 KiB is served, one byte more is a 431, however they arrive."""
    head = GET + b"name: " + b"x" * (size - len(GET) - 8 - len(CLOSE)) + b"\r\n" + CLOSE
    assert len(head) == size
    length = size // pieces + 1
    assert send_all(port, *(head[at : at + length] for at in range(0, size, length))).status == (
        status
    )


def test_bodies_and_later_heads_do_not_count(port: int) -> None:
    """Bodies of a megabyte, in any framing, and many pipelined heads have no limit."""
    chunk = b"f4240\r\n" + LONG + b"\r\n"
    with_length = b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + LONG
    requests = with_length + CHUNKED + chunk * 2 + b"0\r\nname: value\r\n\r\n"
    with connect(port) as client:
        client.sendall(requests)
        assert b"1000000HTTP/1.1 200 OK" in read_until(client, b"2000000")
        client.sendall((GET + b"\r\n") * 4000 + GET + CLOSE)
        received = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert received.count(b"hello") == 4001


@pytest.mark.parametrize(
    ("second", "status"),
    [
        (b"GET /" + LONG, 414),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (GET + b"\r\nnonsense\r\n\r\n", 400),
    ],
    ids=["long", "hostless", "nonsense", "queued"],
)
def test_refusal_follows_the_running_answer(port: int, second: bytes, status: int) -> None:
    """The answer to a pipelined malformed head is not written into the running answer."""
    with connect(port) as client:
        client.sendall(b"GET /paused HTTP/1.1\r\nhost: x\r\n\r\n")
        received = read_until(client, b"first ")
        client.sendall(second)
        assert send_all(port, b"GET /go-on HTTP/1.1\r\nhost: x\r\n" + CLOSE).status == 200
        received += b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert b"\r\n\r\nfirst secondHTTP/1.1 " in received
    assert received.rpartition(b"HTTP/1.1 ")[2].startswith(b"%d " % status)


def test_malformed_body_of_a_running_request_ends_the_connection(port: int) -> None:
    """A handler that waits for a malformed body does not hold the connection."""
    answer = send_all(port, CHUNKED + b"5\r\nhello\r\n", b"nonsense\r\n")
    assert (answer.status, answer.whole) == (400, True)


@pytest.mark.parametrize(
    ("begin", "drip"),
    [(b"G", b"ET /"), (GET, b"name: "), (GET + b"\r\n", GET + b"name: ")],
    ids=["line", "field", "next"],
)
def test_dripping_head_is_ended_at_its_deadline(impatient: int, begin: bytes, drip: bytes) -> None:
    """A client that sends a head byte by byte gets 408 after `head_timeout`."""
    received = b""
    with connect(impatient) as client:
        client.sendall(begin)
        client.settimeout(0.05)
        for byte in (drip + LONG)[:400]:
            client.send(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                received += client.recv(1 << 16)
            if b"HTTP/1.1 408 " in received:
                break
        client.settimeout(10)
        received += read_rest(client)
    assert b"connection: close\r\n" in received.partition(b"HTTP/1.1 408 ")[2]


def read_rest(client: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(1 << 16):
            received += data
    return received


def test_silent_connection_is_closed_without_an_answer(impatient: int) -> None:
    """A connection without a byte is closed after `head_timeout`."""
    wait_for_head_timeout(impatient)


def test_idle_connection_keeps_its_own_timeout(impatient: int) -> None:
    """The head's deadline does not close a connection that is idle between two requests."""
    with connect(impatient) as client:
        client.sendall(GET + b"\r\n")
        read_until(client, b"hello")
        wait_for_head_timeout(impatient)
        client.sendall(GET + b"\r\n")
        read_until(client, b"hello")


def test_upgrade_that_is_not_served_ends_the_connection(port: int) -> None:
    """The body of such a request is never taken for another request."""
    body = GET + b"\r\n"
    head = b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n\r\n" % len(body)
    for pieces in ([GET + head + body], [GET + head, body]):
        with connect(port) as client:
            client.sendall(pieces[0])
            answer = read_until(client, b"hello")
            for piece in pieces[1:]:
                with contextlib.suppress(ConnectionError):
                    client.sendall(piece)
            answer += read_rest(client)
        assert answer.count(b"HTTP/1.1") == 1
        assert b"connection: close" in answer


def test_head_deadline_waits_for_the_running_answer(impatient: int) -> None:
    """The first byte of the next request does not end a running answer after `head_timeout`."""
    with connect(impatient) as client:
        client.sendall(b"GET /paused HTTP/1.1\r\nhost: x\r\n\r\n")
        read_until(client, b"first ")
        client.sendall(b"G")
        wait_for_head_timeout(impatient)
        wait_for_head_timeout(impatient)
        assert send_all(impatient, b"GET /go-on HTTP/1.1\r\nhost: x\r\n" + CLOSE).status == 200
        read_until(client, b"second")
        client.sendall(b"ET / HTTP/1.1\r\nhost: x\r\n" + CLOSE)
        assert read_answer(client).status == 200


def test_client_that_sends_on_after_a_refusal_is_cut_off(impatient: int) -> None:
    """After `linger_timeout` the server takes no more bytes of a refused client."""
    with connect(impatient) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert read_answer(client).status == 400
        with pytest.raises(ConnectionError):
            send_forever(client)


def send_forever(client: socket.socket) -> None:
    while True:
        client.sendall(LONG)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n", 400),
        (b"HEAD / HTTP/1.1\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nHost: x\r\n", 400),
        (b"GET / HTTP/1.0\r\nhost: x\r\nHost: y\r\n", 400),
        (b"GET / HTTP/1.0\r\n", 200),
        (b"GET / HTTP/1.1\r\nhost:\r\n", 200),
        (b"GET / HTTP/1.1\r\nHOST: x\r\n", 200),
    ],
)
def test_request_without_one_host_header_returns_400(port: int, head: bytes, status: int) -> None:
    """HTTP/1.1 without Host, and any request with two, is a 400 that closes the connection."""
    answer = send_all(port, head + b"\r\n" if status == 400 else head + CLOSE)
    assert answer.status == status
    assert answer.headers["connection"] == "close"
