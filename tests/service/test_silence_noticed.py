"""UPSTREAM_READ_TIMEOUT: how long a silent upstream takes to be detected."""

from __future__ import annotations

import logging
import time
from contextlib import closing, suppress

import pytest

from tests.support.client import ask, connect
from tests.support.components import settings_for
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving
from tests.support.serving import serving, wait_until

SECONDS = 1.0
SIZE = 10_000
PATHS = {"s3": "/tasks/1/image", "full": "/tasks/1/image", "http": f"/tasks/1/bytes/{SIZE}"}


async def two_blocks(exchange: Exchange) -> None:
    """Send two blocks with a pause between them, and then nothing."""
    await exchange.head(200, f"content-length: {SIZE}")
    await exchange.body(bytes(100))
    await exchange.pause(SECONDS / 20)
    await exchange.body(bytes(100))
    await exchange.hang()


async def two_chunks(exchange: Exchange) -> None:
    await exchange.head(200, "transfer-encoding: chunked")
    await exchange.raw(b"64\r\n" + bytes(100) + b"\r\n")
    await exchange.pause(SECONDS / 20)
    await exchange.raw(b"64\r\n" + bytes(100) + b"\r\n")
    await exchange.hang()


async def malformed_chunk(exchange: Exchange) -> None:
    """Send two chunks and then a malformed one, on which aiohttp's parser waits for ever."""
    await exchange.head(200, "transfer-encoding: chunked")
    await exchange.raw(b"64\r\n" + bytes(100) + b"\r\n")
    await exchange.pause(SECONDS / 20)
    await exchange.raw(b"64\r\n" + bytes(100) + b"\r\n")
    await exchange.pause(SECONDS / 20)
    await exchange.raw(b"ZZ\r\nxx")
    await exchange.hang()


@pytest.mark.parametrize("behaviour", [two_blocks, two_chunks, malformed_chunk])
@pytest.mark.parametrize("source", PATHS)
def test_silent_body_is_aborted_after_read_timeout(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, source: str, behaviour: Behaviour
) -> None:
    """The body is cut within 1.8 times UPSTREAM_READ_TIMEOUT after its last byte."""
    caplog.set_level(logging.INFO, "downspout")
    upstream.behaviour = behaviour
    settings = settings_for(
        upstream.url, s3_direct=source != "full", upstream_read_timeout=SECONDS
    )
    with serving(settings) as service, closing(connect(service.port)) as client:
        ask(client, PATHS[source])
        received = b""
        while received.count(bytes(100)) < 2:
            received += client.recv(1000)
        last_byte = time.monotonic()
        with suppress(ConnectionResetError):
            while client.recv(1000):
                pass
        elapsed = time.monotonic() - last_byte
        wait_until(lambda: f"GET {PATHS[source]} 200 upstream_timeout" in caplog.text)
    assert SECONDS * 0.9 < elapsed < SECONDS * 1.8


@pytest.mark.parametrize("source", PATHS)
def test_silent_response_head_returns_504_after_read_timeout(
    upstream: Misbehaving, source: str
) -> None:
    """An incomplete response head is a 504 within 1.8 times UPSTREAM_READ_TIMEOUT."""

    async def send_half_a_head(exchange: Exchange) -> None:
        await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-le")
        await exchange.hang()

    upstream.behaviour = send_half_a_head
    settings = settings_for(
        upstream.url,
        s3_direct=source != "full",
        upstream_read_timeout=SECONDS,
        first_byte_timeout=SECONDS,
    )
    with serving(settings) as service:
        begun = time.monotonic()
        assert service.get(PATHS[source]).status_code == 504
        assert time.monotonic() - begun < SECONDS * 1.8
