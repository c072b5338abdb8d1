"""Downloads in a host whose uvicorn has the protocol of `downspout.server`."""

from __future__ import annotations

import logging
import socket
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
from starlette.routing import Mount, Route

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


LEFT = threading.Event()


async def wait_for_client_to_leave(request: Request) -> Response:
    while not await request.is_disconnected():  # noqa: ASYNC110 - nothing else tells
        await anyio.sleep(0.01)
    LEFT.set()
    return Response()


def host_of(downloads: Starlette, *middleware: Middleware) -> Starlette:
    routes = [
        Route("/upload", upload, methods=["GET", "POST"]),
        Route("/wait", wait_for_client_to_leave),
        Mount("/media", downloads, name="media"),
    ]
    return Starlette(routes=routes, middleware=middleware, lifespan=entering(downloads))


@contextmanager
def hosted(url: str, *middleware: Middleware, **settings: Any) -> Generator[int]:
    downloads = create_app(settings_for(url, max_resumes=0, **settings))
    with serving_app(host_of(downloads, *middleware), http=PROTOCOL) as port:
        yield port


@pytest.mark.parametrize("stack", STACKS)
def test_broken_body_below_middleware_is_visibly_broken(stack: str, upstream: Misbehaving) -> None:
    """Middleware of a host does not make a whole answer of a body that ends short."""
    upstream.behaviour = ends_short_of_its_length
    with hosted(upstream.url, *STACKS[stack]) as port:
        answer = fetch(port, IMAGE, headers={"accept-encoding": "gzip"})
    assert (answer.status, answer.whole) == (200, False)
    assert answer.headers["content-length"] == "1024"


@pytest.mark.parametrize("stack", STACKS)
def test_body_below_middleware_is_not_compressed(stack: str, upstream: Misbehaving) -> None:
    """A host's GZipMiddleware leaves a download alone: it would lose its length."""

    async def stored(exchange: Exchange) -> None:
        await exchange.answer(200, BODY, "content-type: text/plain", 'etag: "1"')

    upstream.behaviour = stored
    with hosted(upstream.url, *STACKS[stack]) as port:
        answer = fetch(port, IMAGE, headers={"accept-encoding": "gzip"})
    assert (answer.status, answer.body) == (200, BODY)
    assert answer.headers["content-encoding"] == "identity"


async def endless(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 10000000000")
    await exchange.flood()


@pytest.mark.parametrize("stack", STACKS)
def test_stalled_client_of_a_host_loses_its_connection(stack: str, upstream: Misbehaving) -> None:
    """The host's server sees what a client has taken, and resets one that stalls."""
    upstream.behaviour = endless
    limits = {"client_stall_timeout": 1, "client_min_rate": 10**6}
    with (
        hosted(upstream.url, *STACKS[stack], **limits) as port,
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
def test_client_that_leaves_is_seen_at_once(body: bytes, upstream: Misbehaving) -> None:
    """A client that leaves behind a queued request, or behind an unread body, is gone."""
    upstream.behaviour = silent
    with hosted(upstream.url) as port:
        client = connect(port)
        head = f"GET {IMAGE} HTTP/1.1\r\nhost: x\r\n"
        # Of a body that never ends; else of another request, queued behind the first.
        rest = f"content-length: {10 * len(body)}\r\n\r\n" if body else f"\r\n{head}\r\n"
        client.sendall((head + rest).encode() + body)
        wait_until(lambda: upstream.exchanges)
        client.close()
        wait_until(lambda: upstream.exchanges[0].is_over, seconds=5)
        assert len(upstream.exchanges) == 1


@pytest.mark.parametrize("before", [0, 1, 2])
def test_client_that_leaves_is_seen_by_the_handler_that_runs(
    before: int, upstream: Misbehaving
) -> None:
    """A handler of the host hears of it with requests before and behind its own."""
    LEFT.clear()
    first = b"GET /upload HTTP/1.1\r\nhost: x\r\n\r\n" * before
    with hosted(upstream.url) as port:
        with connect(port) as client:
            client.sendall(first + b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
            received = b""
            while received.count(b"200 OK") < before:
                received += client.recv(1 << 16)
        assert LEFT.wait(5)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_upload_to_a_route_of_the_host_is_whole(method: str, upstream: Misbehaving) -> None:
    """Only downloads discard a body: the host's own handler gets all of it, also behind one."""

    async def stored(exchange: Exchange) -> None:
        await exchange.answer(200, BODY)

    upstream.behaviour = stored
    head = f"{method} /upload HTTP/1.1\r\nhost: x\r\ncontent-length: {len(UPLOAD)}\r\n"
    with hosted(upstream.url) as port, connect(port) as client:
        client.sendall(
            f"GET {IMAGE} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello".encode()
            + f"{head}connection: close\r\n\r\n".encode()
            + UPLOAD
        )
        received = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert BODY in received
    assert received.endswith(str(len(UPLOAD)).encode())


def test_answer_to_a_pipelined_request_is_not_cut(upstream: Misbehaving) -> None:
    """Each of several queued requests is, in its turn, the one that runs."""

    async def stored(exchange: Exchange) -> None:
        await exchange.answer(200, BODY)

    upstream.behaviour = stored
    request = f"GET {IMAGE} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    with hosted(upstream.url) as port, connect(port) as client:
        client.sendall(request * 3)
        assert [read_answer_of(client) for _ in range(3)] == [BODY] * 3


def read_answer_of(client: socket.socket) -> bytes:
    received = b""
    while not received.endswith(BODY):
        received += client.recv(1 << 16)
    return received[-len(BODY) :]


def test_download_through_a_unix_socket(
    upstream: Misbehaving, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a Unix socket the kernel tells no state of TCP; a download lives through the checks."""

    async def slow(exchange: Exchange) -> None:
        await exchange.head(200, "content-length: 1024")
        await exchange.body(BODY[:512])
        await exchange.pause(2.5)
        await exchange.body(BODY[512:])

    upstream.behaviour = slow
    path = str(tmp_path / "socket")
    config = uvicorn.Config(
        host_of(create_app(settings_for(upstream.url))), uds=path, http=Protocol, log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
            assert client.get(f"http://host{IMAGE}").content == BODY
    finally:
        server.should_exit = True
        thread.join(20)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_answer_without_a_download_is_whole(upstream: Misbehaving) -> None:
    """A request that opens nothing, such as for health, is answered under the protocol."""
    with hosted(upstream.url) as port, connect(port) as client:
        ask(client, "/media/healthz", headers={"connection": "close"})
        assert read_answer(client).status == 200
