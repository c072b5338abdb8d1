"""The silence limit of a resumed body counts from the last received byte."""

from __future__ import annotations

import hashlib
import time

import pytest

from tests.support.client import fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.runtime import limit_silence
from tests.support.serving import serving

SIZE = 2_000_000
BODY = hashlib.shake_256(b"silence").digest(SIZE)
PATHS = {"s3": "/tasks/1/image", "full": "/tasks/1/image", "http": f"/tasks/1/bytes/{SIZE}"}
HEADERS = ('etag: "v1"', "accept-ranges: bytes")
SOURCES = pytest.mark.parametrize("source", PATHS)


async def send_rest(exchange: Exchange) -> None:
    """Answer a request for the rest of the body."""
    first = int(exchange.headers["range"].removeprefix("bytes=").split("-")[0])
    stated = f"content-range: bytes {first}-{SIZE - 1}/{SIZE}"
    await exchange.answer(206, BODY[first:], stated, *HEADERS)


@SOURCES
def test_body_older_than_the_silence_limit_is_resumed(
    upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Each chunk restarts the silence limit."""
    limit_silence(monkeypatch, 1.0)
    pieces = 6

    async def trickle_and_break(exchange: Exchange) -> None:
        if "range" in exchange.headers:
            await send_rest(exchange)
            return
        await exchange.head(200, f"content-length: {SIZE}", *HEADERS)
        for number in range(pieces):
            await exchange.body(BODY[number * 1000 : (number + 1) * 1000])
            await exchange.pause(0.25)
        exchange.reset()

    upstream.behaviour = trickle_and_break
    with serving(settings_for(upstream.url, s3_direct=source != "full")) as service:
        begun = time.monotonic()
        received = fetch(service.port, PATHS[source])
        assert time.monotonic() - begun > 1.0, "the body broke before the limit had passed"
    assert received.body == BODY
    assert upstream.exchanges[1].headers["range"] == f"bytes={pieces * 1000}-{SIZE - 1}"


@SOURCES
def test_resumed_body_without_bytes_is_aborted_at_the_silence_limit(
    upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """A resumed answer without a byte does not restart the silence limit."""
    limit_silence(monkeypatch, 1.0)

    async def break_and_fall_silent(exchange: Exchange) -> None:
        if "range" in exchange.headers:
            first = int(exchange.headers["range"].removeprefix("bytes=").split("-")[0])
            stated = f"content-range: bytes {first}-{SIZE - 1}/{SIZE}"
            await exchange.head(206, f"content-length: {SIZE - first}", stated, *HEADERS)
            await exchange.pause(0.4)
        else:
            await exchange.head(200, f"content-length: {SIZE}", *HEADERS)
            await exchange.body(BODY[:1000])
        exchange.reset()

    upstream.behaviour = break_and_fall_silent
    settings = settings_for(upstream.url, s3_direct=source != "full", max_resumes=100)
    with serving(settings) as service:
        begun = time.monotonic()
        received = fetch(service.port, PATHS[source])
        assert time.monotonic() - begun < 10
    assert received.body == BODY[:1000]
    assert not received.whole
    assert 2 <= len(upstream.exchanges) <= 5
