"""Before the first byte: failures are retried within one budget, and then answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from handlers.body import retry
from handlers.body.retry import RetryPolicy
from settings import Settings
from tests.support.client import abort, ask, connect, fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import serving, wait_until

PATHS = {"s3": "/tasks/1/image", "full": "/tasks/1/image", "http": "/tasks/1/bytes/5"}


async def good(exchange: Exchange) -> None:
    await exchange.answer(200, b"12345")


async def drops(exchange: Exchange) -> None:
    """End the connection without an answer."""


async def resets(exchange: Exchange) -> None:
    exchange.reset()


async def half_a_head(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-le")


def fails(status: int) -> Callable[[Exchange], object]:
    async def failing(exchange: Exchange) -> None:
        await exchange.error(status, "InternalError")

    failing.__name__ = str(status)
    return failing


class InTurn:
    """Behaves as each of `first` in turn, then as it should."""

    def __init__(self, *first: Callable[[Exchange], object]) -> None:
        self.first = list(first)

    async def __call__(self, exchange: Exchange) -> None:
        behaviour = self.first.pop(0) if self.first else good
        done = behaviour(exchange)
        assert asyncio.iscoroutine(done)
        await done


def settings_of(upstream: Misbehaving, source: str, **changes: object) -> Settings:
    return settings_for(upstream.url, s3_direct=source != "full", **changes)


FAILURES = [drops, resets, half_a_head, fails(500), fails(502), fails(503), fails(429), fails(504)]


@pytest.mark.parametrize("source", ["s3", "full", "http"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_transient_failure_is_not_seen_by_the_client(
    upstream: Misbehaving, source: str, failure: Callable[[Exchange], object]
) -> None:
    """A request that fails once or twice before its answer begins is sent again."""
    upstream.behaviour = InTurn(failure, failure)
    with serving(settings_of(upstream, source)) as service:
        received = fetch(service.port, PATHS[source])
    assert (received.status, received.body) == (200, b"12345")


@pytest.mark.parametrize("source", ["s3", "full", "http"])
@pytest.mark.parametrize(("status", "answer"), [(503, 503), (500, 502), (504, 504), (400, 502)])
def test_permanent_failure_is_answered(
    upstream: Misbehaving, source: str, status: int, answer: int
) -> None:
    """After all attempts the answer is the error; a permanent error is not retried."""
    upstream.behaviour = InTurn(*[fails(status)] * 99)
    with serving(settings_of(upstream, source)) as service:
        received = fetch(service.port, PATHS[source])
        assert service.acquired_connections() == 0
    assert received.status == answer
    assert ("retry-after" in received.headers) == (answer == 503)
    assert len(upstream.exchanges) == (1 if status == 400 else RetryPolicy().attempts)


@pytest.mark.parametrize("source", ["s3", "full", "http"])
def test_busy_upstream_without_time_for_a_retry_returns_503(
    upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """If the next attempt would begin after the budget, the answer is the 503, and no 504."""
    monkeypatch.setattr(retry, "retry_delay", lambda *_: 100.0)
    upstream.behaviour = InTurn(*[fails(503)] * 99)
    with serving(settings_of(upstream, source, first_byte_timeout=20)) as service:
        assert fetch(service.port, PATHS[source]).status == 503
    assert len(upstream.exchanges) == 1


def test_slot_is_not_waited_for_beyond_the_budget(upstream: Misbehaving) -> None:
    """A wait for a slot ends with the first byte's budget, and the answer names the slots."""

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


@pytest.mark.parametrize("source", ["s3", "full", "http"])
def test_dead_idle_connections_are_not_seen_by_the_client(
    upstream: Misbehaving, source: str
) -> None:
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
        await good(exchange)

    upstream.behaviour = together_then_dead
    with serving(settings_of(upstream, source)) as service:
        clients = [connect(service.port) for _ in range(together)]
        for client in clients:
            ask(client, PATHS[source])
        for client in clients:
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
            client.close()
        wait_until(lambda: service.acquired_connections() == 0)
        received = fetch(service.port, PATHS[source])
    assert (received.status, received.body) == (200, b"12345")
