"""QUEUE_TIMEOUT counts from the arrival of a request."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

from starlette.requests import Request

from handlers import create_app
from tests.support.client import ask, connect, fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import serving_app, wait_until

SECONDS = 2.0


async def send_half(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 2000000", 'etag: "v"')
    await exchange.body(bytes(1_000_000))
    await exchange.hang()


def test_slow_authorize_counts_toward_queue_timeout(upstream: Misbehaving) -> None:
    """The time that `authorize` takes counts toward QUEUE_TIMEOUT."""

    async def authorize(request: Request) -> bool:
        if "slow" in request.query_params:
            await asyncio.sleep(SECONDS * 0.75)
        return True

    upstream.behaviour = send_half
    settings = settings_for(upstream.url, max_downloads=1, queue_timeout=SECONDS)
    app = create_app(settings, authorize=authorize)
    with serving_app(app) as port, closing(connect(port)) as first:
        ask(first, "/tasks/1/image")
        wait_until(lambda: upstream.exchanges)
        begun = time.monotonic()
        received = fetch(port, "/tasks/2/image?slow")
        waited = time.monotonic() - begun
    assert received.status == 503
    assert b"too-many-downloads" in received.body
    assert SECONDS * 0.9 < waited < SECONDS * 1.5
    assert len(upstream.exchanges) == 1


def test_request_waiting_for_bulk_slot_returns_503_after_queue_timeout(
    upstream: Misbehaving,
) -> None:
    """Waiting for a slot and then for a bulk slot takes QUEUE_TIMEOUT in all."""

    async def send_half_slowly(exchange: Exchange) -> None:
        if exchange.path.endswith("/9/image.jpg"):
            await exchange.pause(SECONDS * 0.75)
        await send_half(exchange)

    upstream.behaviour = send_half_slowly
    # Eight slots, of which one is for small downloads: the eighth long one waits for a bulk slot.
    settings = settings_for(upstream.url, max_downloads=8, queue_timeout=SECONDS)
    app = create_app(settings)
    clients = []
    with serving_app(app) as port:
        for number in range(7):
            clients.append(connect(port))
            ask(clients[-1], f"/tasks/1{number}/image")
        for client in clients:
            assert client.recv(1)
        begun = time.monotonic()
        received = fetch(port, "/tasks/9/image")
        waited = time.monotonic() - begun
        for client in clients:
            client.close()
    assert received.status == 503
    assert SECONDS * 0.9 < waited < SECONDS * 1.5
