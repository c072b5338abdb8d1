"""Draining, by a host and at the end of the lifespan: what runs, and what it costs."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from contextlib import closing

import anyio
import anyio.to_thread
import pytest
from starlette.types import Message, Scope

from handlers import create_app, drain
from tests.support.client import ask, connect, fetch, read_answer
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import Loop, RunningService, serving, wait_until

PATH = "/tasks/1/image"


async def half(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 2000000", 'etag: "v"')
    await exchange.body(bytes(1_000_000))
    await exchange.hang()


async def small(exchange: Exchange) -> None:
    await exchange.answer(200, b"small")


def start_drain(service: RunningService, grace: float) -> Callable[[], bool]:
    """Drain in the loop of the service; returns whether that is over."""
    loop = service.app.state.http.connector._loop
    return asyncio.run_coroutine_threadsafe(drain(service.app, grace), loop).done


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_drain_after_a_download_has_come_and_gone_waits_without_work(
    upstream: Misbehaving, loop: Loop
) -> None:
    """While a drain waits for a download, the process sleeps."""
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


def test_drain_is_over_when_the_last_of_several_downloads_is(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """A drain outlasts the first download that ends, and ends with the last."""
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


def test_drain_without_grace_breaks_off_and_waits_for_the_end(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """When a drain is over, every download has written its line, and none is whole."""
    upstream.behaviour = half
    with serving(settings_for(upstream.url)) as service, closing(connect(service.port)) as client:
        ask(client, PATH)
        wait_until(lambda: upstream.exchanges)
        assert client.recv(1, socket.MSG_PEEK)
        loop = service.app.state.http.connector._loop

        async def lines_after_the_drain() -> str:
            await drain(service.app, 0)
            return caplog.text

        told = asyncio.run_coroutine_threadsafe(lines_after_the_drain(), loop).result(10)
        assert "GET /tasks/1/image 200 drained (the process shuts down)" in told
        assert not read_answer(client).whole


@pytest.mark.parametrize("has_begun", [True, False])
async def test_end_of_the_lifespan_breaks_off_what_runs(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, has_begun: bool
) -> None:
    """A server that leaves the lifespan while a download runs ends it, visibly, before it."""
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
            await app(request_scope(), receive, send)
        except Exception:  # noqa: BLE001 - what breaks the connection is the server's to take
            messages.append({"type": "raised"})

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            async with app.router.lifespan_context(app):
                tasks.start_soon(get)
                await anyio.to_thread.run_sync(wait_until, lambda: upstream.exchanges)
                if has_begun:
                    await bodies.wait()
            told = caplog.text
    assert f"GET /tasks/1/image {200 if has_begun else 503} " in told
    if has_begun:
        assert "200 drained (the process shuts down)" in told
        assert messages[-1]["type"] == "raised"
    else:
        assert messages[0]["status"] == 503


def request_scope() -> Scope:
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
