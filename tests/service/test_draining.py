"""Draining by a host and at the end of the lifespan."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

import anyio
import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Message, Scope

from handlers import create_app, drain, stream_object
from handlers.server import Protocol
from tests.support.client import ask, connect, fetch, read_answer
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import Loop, RunningService, entering, serving, serving_app, wait_until

PATH = "/tasks/1/image"


async def half(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 2000000", 'etag: "v"')
    await exchange.body(bytes(1_000_000))
    await exchange.hang()


async def small(exchange: Exchange) -> None:
    await exchange.answer(200, b"small")


def start_drain(service: RunningService, grace: float) -> Callable[[], bool]:
    """Start a drain in the service's event loop; return a function that tells if it is over."""
    loop = service.app.state.http.connector._loop
    return asyncio.run_coroutine_threadsafe(drain(service.app, grace), loop).done


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_drain_waiting_for_download_uses_no_cpu(upstream: Misbehaving, loop: Loop) -> None:
    """A download that ended before the drain must not make the drain's wait a busy loop."""
    upstream.behaviour = small
    with serving(settings_for(upstream.url), loop=loop) as service:
        assert fetch(service.port, PATH).body == b"small"
        upstream.behaviour = half
        with closing(connect(service.port)) as client:
            ask(client, PATH)
            wait_until(lambda: len(upstream.exchanges) == 2)
            is_over = start_drain(service, 60)
            wait_until(lambda: service.get("/readyz").status_code == 503)
            begun = time.process_time()
            time.sleep(1.0)
            assert time.process_time() - begun < 0.5
            assert not is_over()
        wait_until(is_over)


def test_drain_ends_with_last_download(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """The drain continues after the first download has ended."""
    caplog.set_level(logging.INFO, "downspout")
    upstream.behaviour = half
    with serving(settings_for(upstream.url)) as service:
        clients = [connect(service.port) for _ in range(3)]
        for client in clients:
            ask(client, PATH)
        wait_until(lambda: len(upstream.exchanges) == 3)
        is_over = start_drain(service, 60)
        wait_until(lambda: service.get("/readyz").status_code == 503)
        for left, client in enumerate(clients, start=1):
            assert not is_over()
            client.close()
            wait_until(lambda left=left: caplog.text.count(" 200 client_gone ") == left)
        wait_until(is_over)


def test_drain_without_grace_breaks_download_before_it_ends(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """When the drain is over, the download is broken and its log line is written."""
    upstream.behaviour = half
    with serving(settings_for(upstream.url)) as service, closing(connect(service.port)) as client:
        ask(client, PATH)
        wait_until(lambda: upstream.exchanges)
        assert client.recv(1, socket.MSG_PEEK)
        loop = service.app.state.http.connector._loop

        async def drain_and_read_log() -> str:
            await drain(service.app, 0)
            return caplog.text

        log = asyncio.run_coroutine_threadsafe(drain_and_read_log(), loop).result(10)
        assert "GET /tasks/1/image 200 drained (the process shuts down)" in log
        assert not read_answer(client).whole


@pytest.mark.parametrize("has_begun", [True, False])
async def test_lifespan_end_breaks_running_download(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, has_begun: bool
) -> None:
    """A download without a response head gets 503; a later one is broken visibly."""
    caplog.set_level(logging.INFO, "downspout")
    upstream.behaviour = half if has_begun else Exchange.hang
    app = create_app(settings_for(upstream.url))
    messages: list[Message] = []
    bodies = anyio.Event()

    async def send(message: Message) -> None:
        messages.append(message)
        if message["type"] == "http.response.body":
            bodies.set()

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def get() -> None:
        try:
            await app(make_scope(), receive, send)
        except Exception:  # noqa: BLE001 - a real server would break the connection
            messages.append({"type": "raised"})

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            async with app.router.lifespan_context(app):
                tasks.start_soon(get)
                await anyio.to_thread.run_sync(wait_until, lambda: upstream.exchanges)
                if has_begun:
                    await bodies.wait()
            log = caplog.text
    assert f"GET /tasks/1/image {200 if has_begun else 503} " in log
    if has_begun:
        assert "200 drained (the process shuts down)" in log
        assert messages[-1]["type"] == "raised"
    else:
        assert messages[0]["status"] == 503


def make_scope() -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
    }


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", ["httptools", "h11", Protocol])
def test_draining_closes_the_connection_of_every_answer(
    upstream: Misbehaving, loop: Loop, http: str | type[Protocol]
) -> None:
    """While draining, every answer on a kept connection has "Connection: close"."""
    upstream.behaviour = small
    requests = [
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
        ("GET", "/readyz", 503),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/", 200),
        ("GET", "/nothing", 404),
        ("POST", PATH, 405),
        ("GET", PATH, 503),
        ("HEAD", "/tasks/1/bytes/5", 503),
        ("GET", "/host/object", 503),
    ]
    app = create_app(settings_for(upstream.url))

    async def host_drain(_: Request) -> Response:
        await drain(app, 0)
        return Response()

    async def host_object(_: Request) -> Response:
        return stream_object(app, "key")

    own = [Route("/host/drain", host_drain), Route("/host/object", host_object)]
    host = Starlette(routes=[*own, Mount("", app)], lifespan=entering(app))
    with serving_app(host, loop=loop, http=http) as port, ExitStack() as opened:
        kept = [opened.enter_context(connect(port)) for _ in requests]
        for client in kept:
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"connection: close" not in client.recv(1 << 16)
        assert fetch(port, "/host/drain").status == 200
        for client, (method, path, status) in zip(kept, requests, strict=True):
            client.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            answer = read_answer(client, method=method)
            assert (answer.status, answer.headers["connection"]) == (status, "close"), path


def test_draining_closes_the_connection_of_an_answer_that_begins_late(
    upstream: Misbehaving,
) -> None:
    """A download that was requested before the drain, and answered in it, closes."""
    go_on = threading.Event()

    async def late(exchange: Exchange) -> None:
        while not go_on.is_set():
            await exchange.pause(0.01)
        await exchange.answer(200, b"small")

    upstream.behaviour = late
    with serving(settings_for(upstream.url)) as service, connect(service.port) as client:
        client.sendall(f"GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        wait_until(lambda: upstream.exchanges)
        is_over = start_drain(service, 60)
        wait_until(lambda: service.get("/readyz").status_code == 503)
        go_on.set()
        answer = read_answer(client)
        assert (answer.status, answer.body) == (200, b"small")
        assert answer.headers["connection"] == "close"
        wait_until(is_over)
