"""An answer that arrives on an idle connection is not the answer to the next request."""

from __future__ import annotations

import time

import pytest

from tests.support.application import IMAGE, auth_url, send_picture
from tests.support.client import fetch
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import ServiceWith

BYTES = "/tasks/1/bytes/5"
OK_BYTES = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize("first", [403, 204])
@pytest.mark.parametrize("pause", [0.02, 0.2])
def test_answer_that_arrives_on_idle_connection_authorizes_no_later_request(
    service_with: ServiceWith,
    upstream: Misbehaving,
    application: Misbehaving,
    first: int,
    pause: float,
) -> None:
    """A second answer, sent after the connection is idle, is no answer to the next request."""
    upstream.behaviour = send_picture
    service = service_with(auth_url=auth_url(application))

    async def send_two(exchange: Exchange) -> None:
        exchange.keep = True
        if len(application.exchanges) > 1:
            await exchange.raw(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            return
        await exchange.raw(f"HTTP/1.1 {first} Whatever\r\ncontent-length: 0\r\n\r\n".encode())
        await exchange.pause(pause)
        await exchange.raw(OK_BYTES)

    application.behaviour = send_two
    assert fetch(service.port, IMAGE).status == {403: 403, 204: 200}[first]
    time.sleep(pause + 0.1)
    upstream.exchanges.clear()
    assert fetch(service.port, IMAGE).status in (403, 502)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("path", "direct"),
    [(BYTES, True), (IMAGE, True), (IMAGE, False)],
    ids=["http", "s3", "botocore"],
)
def test_body_that_arrives_on_idle_connection_is_not_sent_to_a_client(
    service_with: ServiceWith, upstream: Misbehaving, path: str, *, direct: bool
) -> None:
    """No source takes a stray answer for the answer to the next request."""
    service = service_with(max_downloads=3, s3_direct=direct)

    async def send_two(exchange: Exchange) -> None:
        await exchange.answer(200, b"right")
        if len(upstream.exchanges) == 1:
            await exchange.pause(0.05)
            await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong")

    upstream.behaviour = send_two
    assert fetch(service.port, path).body == b"right"
    time.sleep(0.2)
    assert fetch(service.port, path).body == b"right"
