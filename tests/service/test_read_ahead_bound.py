"""How much is asked for ahead: of a store that is fast, and of one that refuses."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

from tests.support.client import ask, connect, fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import serving

MIB = 1024 * 1024
SIZE = 160 * MIB
BLOCK = bytes(64 * 1024)
RATE = 24 * MIB
REFUSED_SIZE = 48 * MIB
DRIPPED = 1000
CONNECTIONS = 2
MOST_PARTS = CONNECTIONS + CONNECTIONS // 2


class HeldUp:
    """A store that gives each connection so much a second, and the end of the first part slowly.

    Meanwhile the bytes behind the first part can't go out, and so what is read ahead has to stop.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[int, int]] = []
        self.finished = 0
        self.first_is_held_up = False

    async def __call__(self, exchange: Exchange) -> None:
        lines = ['etag: "v"', "accept-ranges: bytes"]
        text = exchange.headers.get("range")
        if text is None:
            await exchange.head(200, f"content-length: {SIZE}", *lines)
            await self.send(exchange, SIZE)
            return
        first, last = map(int, text.removeprefix("bytes=").split("-"))
        is_first = not self.parts
        self.parts.append((first, last))
        length = last + 1 - first
        stated = f"content-range: bytes {first}-{last}/{SIZE}"
        await exchange.head(206, f"content-length: {length}", stated, *lines)
        await self.send(exchange, length - DRIPPED * is_first)
        if is_first:
            self.first_is_held_up = True
            for _ in range(DRIPPED):  # At each byte it is decided anew whether to read ahead.
                await exchange.body(b"1")
                await asyncio.sleep(0.02)
        self.finished += 1
        exchange.keep = True

    async def send(self, exchange: Exchange, length: int) -> None:
        begun, sent = time.monotonic(), 0
        while sent < length:
            block = BLOCK[: length - sent]
            await exchange.body(block)
            sent += len(block)
            await asyncio.sleep(max(begun + sent / RATE - time.monotonic(), 0.001))


def has_read_ahead(upstream: Misbehaving) -> bool:
    """Download until the first part is held up and nothing more is asked for."""
    upstream.behaviour = store = HeldUp()
    settings = settings_for(
        upstream.url, read_ahead_connections=CONNECTIONS, upstream_read_timeout=60.0
    )
    with serving(settings) as service, closing(connect(service.port)) as client:
        ask(client, "/tasks/1/image")
        received, last_parts, quiet_since = 0, 0, time.monotonic()
        client.settimeout(0.1)
        while received < SIZE:
            try:
                data = client.recv(MIB)
                if not data:
                    break
                received += len(data)
            except TimeoutError:
                pass
            if not store.first_is_held_up or len(store.parts) > last_parts:
                last_parts, quiet_since = len(store.parts), time.monotonic()
            elif time.monotonic() - quiet_since > 1.0:
                break
        assert len(store.parts) <= MOST_PARTS
        return store.first_is_held_up and store.finished > 0


def test_parts_ahead_of_one_that_is_held_up_are_bounded(upstream: Misbehaving) -> None:
    """Parts that are complete wait for their turn in memory: there are only a few.

    Whether it is read ahead at all is decided by what is measured: on a busy machine it takes
    some downloads.
    """
    for _ in range(10):
        if has_read_ahead(upstream):
            return
    raise AssertionError("nothing was read ahead of a part that was held up")


async def refuse_parts(exchange: Exchange) -> None:
    """Give the whole, slowly, and refuse each further connection."""
    if "range" in exchange.headers:
        await exchange.error(503, "SlowDown")
    else:
        await exchange.head(200, f"content-length: {REFUSED_SIZE}", 'etag: "v"')
        await HeldUp().send(exchange, REFUSED_SIZE)


def test_store_that_refuses_parts_is_asked_for_few(upstream: Misbehaving) -> None:
    """After a failure nothing more is read ahead for a second, then two, then four."""
    upstream.behaviour = refuse_parts
    with serving(settings_for(upstream.url)) as service:
        for _ in range(10):
            asked, begun = len(upstream.exchanges), time.monotonic()
            assert len(fetch(service.port, "/tasks/1/image").body) == REFUSED_SIZE
            parts = len(upstream.exchanges) - asked - 1
            assert parts <= 2 + time.monotonic() - begun
            if parts:
                return
    raise AssertionError("nothing was read ahead")
