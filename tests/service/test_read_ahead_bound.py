"""Limits of read-ahead: a store that stalls, and a store that refuses requests."""

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
CONNECTIONS = 2
MAX_PARTS = CONNECTIONS + CONNECTIONS // 2


class StallingStore:
    """A store that sends RATE bytes per second, and the first part without its last byte.

    The bytes after the first part cannot be sent, so read-ahead has to stop.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[int, int]] = []
        self.finished = 0
        self.first_part_stalls = False

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
        await self.send(exchange, length - is_first)
        if is_first:
            self.first_part_stalls = True
            await exchange.hang()
        self.finished += 1
        exchange.keep = True

    async def send(self, exchange: Exchange, length: int) -> None:
        begun, sent = time.monotonic(), 0
        while sent < length:
            block = BLOCK[: length - sent]
            await exchange.body(block)
            sent += len(block)
            await asyncio.sleep(max(begun + sent / RATE - time.monotonic(), 0.001))


def download_until_stall(upstream: Misbehaving) -> bool:
    """Download until the first part stalls, and return whether parts were read ahead."""
    upstream.behaviour = store = StallingStore()
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
                if not store.first_part_stalls:
                    continue
                if len(store.parts) > last_parts:
                    last_parts, quiet_since = len(store.parts), time.monotonic()
                elif time.monotonic() - quiet_since > 1.0:
                    break
        assert len(store.parts) <= MAX_PARTS
        return store.first_part_stalls and store.finished > 0


def test_read_ahead_behind_a_stalled_part_is_bounded(upstream: Misbehaving) -> None:
    """Only a few parts are read ahead of a part that stalls."""
    # Whether read-ahead starts depends on measured speeds: a busy machine may need
    # several downloads.
    for _ in range(10):
        if download_until_stall(upstream):
            return
    raise AssertionError("nothing was read ahead of a stalled part")


async def refuse_parts(exchange: Exchange) -> None:
    """Send the full object slowly, and answer 503 to each range request."""
    if "range" in exchange.headers:
        await exchange.error(503, "SlowDown")
    else:
        await exchange.head(200, f"content-length: {REFUSED_SIZE}", 'etag: "v"')
        await StallingStore().send(exchange, REFUSED_SIZE)


def test_read_ahead_after_refusals_backs_off(upstream: Misbehaving) -> None:
    """After a refusal, read-ahead pauses for one second, then two, then four."""
    upstream.behaviour = refuse_parts
    with serving(settings_for(upstream.url)) as service:
        for _ in range(10):
            requests_before, begun = len(upstream.exchanges), time.monotonic()
            assert len(fetch(service.port, "/tasks/1/image").body) == REFUSED_SIZE
            parts = len(upstream.exchanges) - requests_before - 1
            assert parts <= 2 + time.monotonic() - begun
            if parts:
                return
    raise AssertionError("nothing was read ahead")
