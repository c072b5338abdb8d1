"""Failures before the first byte are retried within FIRST_BYTE_TIMEOUT."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from settings import Settings
from tests.support.client import abort, ask, connect, fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.runtime import delay_retries
from tests.support.serving import serving, wait_until

# The maximum number of requests for a download whose response has not begun.
ATTEMPTS = 5

PATHS = {"s3": "/tasks/1/image", "botocore": "/tasks/1/image", "http": "/tasks/1/bytes/5"}


async def five_bytes(exchange: Exchange) -> None:
    await exchange.answer(200, b"12345")


async def closes(exchange: Exchange) -> None:
    """Close the connection without a response."""


async def resets(exchange: Exchange) -> None:
    exchange.reset()


async def half_a_head(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-le")


def fail_with(status: int) -> Callable[[Exchange], object]:
    async def failing(exchange: Exchange) -> None:
        await exchange.error(status, "InternalError")

    failing.__name__ = str(status)
    return failing


class InTurn:
    """An upstream that behaves as each of `first` once, then sends five bytes."""

    def __init__(self, *first: Callable[[Exchange], object]) -> None:
        self.first = list(first)

    async def __call__(self, exchange: Exchange) -> None:
        behaviour = self.first.pop(0) if self.first else five_bytes
        done = behaviour(exchange)
        assert asyncio.iscoroutine(done)
        await done


def make_settings(upstream: Misbehaving, source: str, **changes: object) -> Settings:
    return settings_for(upstream.url, s3_direct=source != "botocore", **changes)


FAILURES = [
    closes,
    resets,
    half_a_head,
    fail_with(500),
    fail_with(502),
    fail_with(503),
    fail_with(429),
    fail_with(504),
]


@pytest.mark.parametrize("source", ["s3", "botocore", "http"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_transient_failure_is_retried_until_200(
    upstream: Misbehaving, source: str, failure: Callable[[Exchange], object]
) -> None:
    """The service repeats a request that fails twice before its response begins."""
    upstream.behaviour = InTurn(failure, failure)
    with serving(make_settings(upstream, source)) as service:
        received = fetch(service.port, PATHS[source])
    assert (received.status, received.body) == (200, b"12345")


@pytest.mark.parametrize("source", ["s3", "botocore", "http"])
@pytest.mark.parametrize(("status", "answer"), [(503, 503), (500, 502), (504, 504), (400, 502)])
def test_persistent_failure_returns_error(
    upstream: Misbehaving, source: str, status: int, answer: int
) -> None:
    """The client gets the error after the last attempt; a 400 is not retried."""
    upstream.behaviour = InTurn(*[fail_with(status)] * 99)
    with serving(make_settings(upstream, source)) as service:
        received = fetch(service.port, PATHS[source])
        assert service.acquired_connections() == 0
    assert received.status == answer
    assert ("retry-after" in received.headers) == (answer == 503)
    assert len(upstream.exchanges) == (1 if status == 400 else ATTEMPTS)


@pytest.mark.parametrize("source", ["s3", "botocore", "http"])
def test_busy_upstream_without_time_for_a_retry_returns_503(
    upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """If the next attempt would begin after FIRST_BYTE_TIMEOUT, the client gets no 504."""
    delay_retries(monkeypatch, 5.0)  # 2.5 seconds at least, because delays are random
    upstream.behaviour = InTurn(*[fail_with(503)] * 99)
    with serving(make_settings(upstream, source, first_byte_timeout=2.4)) as service:
        assert fetch(service.port, PATHS[source]).status == 503
    assert len(upstream.exchanges) == 1


def test_slot_wait_ends_at_first_byte_timeout(upstream: Misbehaving) -> None:
    """The problem says that all slots are taken, not that the upstream is slow."""

    async def endless(exchange: Exchange) -> None:
        await exchange.head(200, "content-length: 1000000000")
        await exchange.flood()

    upstream.behaviour = endless
    settings = settings_for(upstream.url, max_downloads=1, queue_timeout=300, first_byte_timeout=1)
    with serving(settings) as service:
        first = connect(service.port)
        ask(first, PATHS["s3"])
        wait_until(lambda: len(upstream.exchanges) == 1)
        answer = service.get("/tasks/1/image")
        assert answer.json()["type"] == "urn:downspout:problem:too-many-downloads"
        abort(first)


@pytest.mark.parametrize("source", ["s3", "botocore", "http"])
def test_dead_idle_connections_cause_no_error(upstream: Misbehaving, source: str) -> None:
    """Thirty pooled connections that died while idle do not fail a request."""
    together = 30
    arrived = 0
    known: set[object] = set()
    all_there = asyncio.Event()

    async def together_then_dead(exchange: Exchange) -> None:
        nonlocal arrived
        if exchange.writer in known:
            exchange.reset()
            return
        known.add(exchange.writer)
        arrived += 1
        if arrived == together:
            all_there.set()
        await all_there.wait()
        await five_bytes(exchange)

    upstream.behaviour = together_then_dead
    with serving(make_settings(upstream, source)) as service:
        clients = [connect(service.port) for _ in range(together)]
        for client in clients:
            ask(client, PATHS[source])
        for client in clients:
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
            client.close()
        wait_until(lambda: service.acquired_connections() == 0)
        received = fetch(service.port, PATHS[source])
    assert (received.status, received.body) == (200, b"12345")
