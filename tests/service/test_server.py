"""Downloads in a host whose uvicorn has the protocol of `downspout.server`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from handlers import create_app
from handlers.server import Protocol
from tests.support.behaviours import BODY, ends_short_of_its_length
from tests.support.client import ask, connect, fetch, read_answer, read_slowly
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import entering, serving_app, wait_until

IMAGE = "/media/tasks/7/image"
PROTOCOL = "handlers.server:Protocol"
UPLOAD = bytes(1_000_000)


async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Any:
    return await call_next(request)


STACKS = {
    "none": [],
    "gzip": [Middleware(GZipMiddleware)],
    "base": [Middleware(BaseHTTPMiddleware, dispatch=pass_on)],
}


async def upload(request: Request) -> Response:
    return Response(str(len(await request.body())))


DISCONNECTED = threading.Event()


async def wait_for_client_to_leave(request: Request) -> Response:
    while not await request.is_disconnected():  # noqa: ASYNC110 - nothing else tells
        await anyio.sleep(0.01)
    DISCONNECTED.set()
    return Response()


def make_host(downloads: Starlette, *middleware: Middleware) -> Starlette:
    routes = [
        Route("/upload", upload, methods=["GET", "POST"]),
        Route("/wait", wait_for_client_to_leave),
        Mount("/media", downloads, name="media"),
    ]
    return Starlette(routes=routes, middleware=middleware, lifespan=entering(downloads))


@contextmanager
def running_host(url: str, *middleware: Middleware, **settings: Any) -> Generator[int]:
    downloads = create_app(settings_for(url, max_resumes=0, **settings))
    with serving_app(make_host(downloads, *middleware), http=PROTOCOL) as port:
        yield port


@pytest.mark.parametrize("stack", STACKS)
def test_broken_body_behind_middleware_is_visibly_cut(stack: str, upstream: Misbehaving) -> None:
    """The host's middleware does not turn a body that ends early into a complete answer."""
    upstream.behaviour = ends_short_of_its_length
    with running_host(upstream.url, *STACKS[stack]) as port:
        answer = fetch(port, IMAGE, headers={"accept-encoding": "gzip"})
    assert (answer.status, answer.whole) == (200, False)
    assert answer.headers["content-length"] == "1024"


@pytest.mark.parametrize("stack", STACKS)
def test_body_behind_gzip_middleware_is_not_compressed(stack: str, upstream: Misbehaving) -> None:
    """The host's GZipMiddleware does not compress a download."""

    async def stored(exchange: Exchange) -> None:
        await exchange.answer(200, BODY, "content-type: text/plain", 'etag: "1"')

    upstream.behaviour = stored
    with running_host(upstream.url, *STACKS[stack]) as port:
        answer = fetch(port, IMAGE, headers={"accept-encoding": "gzip"})
    assert (answer.status, answer.body) == (200, BODY)
    assert answer.headers["content-encoding"] == "identity"


async def endless(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 10000000000")
    await exchange.flood()


@pytest.mark.parametrize("stack", STACKS)
def test_stalled_client_of_a_host_is_reset(stack: str, upstream: Misbehaving) -> None:
    """The host's server resets the connection of a client that stalls."""
    upstream.behaviour = endless
    limits = {"client_stall_timeout": 1, "client_min_rate": 10**6}
    with (
        running_host(upstream.url, *STACKS[stack], **limits) as port,
        connect(port, receive_buffer=4096) as client,
    ):
        ask(client, IMAGE)
        wait_until(lambda: upstream.exchanges)
        wait_until(lambda: upstream.exchanges[0].is_over, seconds=10)
        with pytest.raises(ConnectionResetError):
            read_slowly(client, 1 << 20, rate=10**9)


async def silent(exchange: Exchange) -> None:
    await exchange.hang()


@pytest.mark.parametrize("body", [b"", UPLOAD])
def test_client_disconnect_is_seen_behind_unread_data(body: bytes, upstream: Misbehaving) -> None:
    """A disconnect is seen behind a pipelined request and behind an unread request body."""
    upstream.behaviour = silent
    with running_host(upstream.url) as port:
        client = connect(port)
        head = f"GET {IMAGE} HTTP/1.1\r\nhost: x\r\n"
        # Part of an incomplete request body, or else a pipelined second request.
        rest = f"content-length: {10 * len(body)}\r\n\r\n" if body else f"\r\n{head}\r\n"
        client.sendall((head + rest).encode() + body)
        wait_until(lambda: upstream.exchanges)
        client.close()
        wait_until(lambda: upstream.exchanges[0].is_over, seconds=5)
        assert len(upstream.exchanges) == 1


@pytest.mark.parametrize("before", [0, 1, 2])
def test_client_disconnect_is_seen_by_the_running_handler(
    before: int, upstream: Misbehaving
) -> None:
    """The host's handler sees the disconnect with pipelined requests before and after."""
    DISCONNECTED.clear()
    first = b"GET /upload HTTP/1.1\r\nhost: x\r\n\r\n" * before
    with running_host(upstream.url) as port:
        with connect(port) as client:
            client.sendall(first + b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
            received = b""
            while received.count(b"200 OK") < before:
                received += client.recv(1 << 16)
        assert DISCONNECTED.wait(5)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_upload_to_a_host_route_arrives_complete(method: str, upstream: Misbehaving) -> None:
    """The host's own handler gets the full request body, also after a download."""

    async def stored(exchange: Exchange) -> None:
        await exchange.answer(200, BODY)

    upstream.behaviour = stored
    head = f"{method} /upload HTTP/1.1\r\nhost: x\r\ncontent-length: {len(UPLOAD)}\r\n"
    with running_host(upstream.url) as port, connect(port) as client:
        client.sendall(
            f"GET {IMAGE} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello".encode()
            + f"{head}connection: close\r\n\r\n".encode()
            + UPLOAD
        )
        received = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert BODY in received
    assert received.endswith(str(len(UPLOAD)).encode())


def test_pipelined_requests_get_complete_answers(upstream: Misbehaving) -> None:
    """Three pipelined download requests get three complete answers."""

    async def stored(exchange: Exchange) -> None:
        await exchange.answer(200, BODY)

    upstream.behaviour = stored
    head = f"GET {IMAGE} HTTP/1.1\r\nhost: x\r\n".encode()
    with running_host(upstream.url) as port, connect(port) as client:
        client.sendall(2 * (head + b"\r\n") + head + b"connection: close\r\n\r\n")
        # Several answers may arrive at once.
        received = b"".join(iter(lambda: client.recv(1 << 16), b""))
    answers = received.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [BODY] * 3


def test_download_over_unix_socket_completes(
    upstream: Misbehaving, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A host's download over a Unix socket completes."""

    async def slow(exchange: Exchange) -> None:
        await exchange.head(200, "content-length: 1024")
        await exchange.body(BODY[:512])
        await exchange.pause(2.5)
        await exchange.body(BODY[512:])

    upstream.behaviour = slow
    path = str(tmp_path / "socket")
    config = uvicorn.Config(
        make_host(create_app(settings_for(upstream.url))), uds=path, http=Protocol, log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        with httpx.Client(transport=httpx.HTTPTransport(uds=path, verify=False)) as client:
            assert client.get(f"http://host{IMAGE}").content == BODY
    finally:
        server.should_exit = True
        thread.join(20)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_health_request_under_the_protocol_returns_200(upstream: Misbehaving) -> None:
    """A request to /healthz is answered under the download protocol."""
    with running_host(upstream.url) as port, connect(port) as client:
        ask(client, "/media/healthz", headers={"connection": "close"})
        assert read_answer(client).status == 200


async def greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


@pytest.mark.parametrize("before", [0, 1])
def test_websocket_of_a_host_works_under_the_protocol(before: int) -> None:
    """A host's WebSocket works, also on a connection that has served a request."""
    host = Starlette(routes=[Route("/upload", upload), WebSocketRoute("/greet", greet)])
    handshake = (
        b"GET /greet HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n"
    )
    with serving_app(host, http=PROTOCOL, ws="wsproto") as port, connect(port) as client:
        client.sendall(b"GET /upload HTTP/1.1\r\nhost: x\r\n\r\n" * before)
        received = b""
        while received.count(b"200 OK") < before:
            received += client.recv(1 << 16)
        client.sendall(handshake)
        while b"hello" not in received:
            data = client.recv(1 << 16)
            assert data, received
            received += data
    assert b"HTTP/1.1 101 " in received
