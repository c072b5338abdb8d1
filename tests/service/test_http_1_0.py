"""Clients that speak HTTP/1.0, as `curl -0` does, and nginx towards its upstream by default."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.support.behaviours import BODY
from tests.support.client import Received, connect, read_answer
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, ServiceWith
from tests.support.stored import select

PATHS = ["/tasks/1/image", "/tasks/1/bytes/1024"]
DATE = "Mon, 23 Nov 2026 08:00:00 GMT"


def fetch_1_0(service: RunningService, path: str, *lines: str, method: str = "GET") -> Received:
    with closing(connect(service.port)) as client:
        client.sendall("\r\n".join([f"{method} {path} HTTP/1.0", *lines, "", ""]).encode())
        return read_answer(client, method=method)


async def good(exchange: Exchange) -> None:
    lines = ['etag: "v1"', f"last-modified: {DATE}", "accept-ranges: bytes"]
    if exchange.headers.get("if-none-match") == '"v1"' or "if-modified-since" in exchange.headers:
        await exchange.answer(304, b"", *lines)
        return
    found = select(exchange.headers, len(BODY), '"v1"')
    body = BODY[found.first : found.end] if found.status < 400 else b"no"
    await exchange.answer(found.status, body, *found.content_range, *lines)


@pytest.fixture(params=["httptools", "h11"])
def behind(
    request: pytest.FixtureRequest, upstream: Misbehaving, service_with: ServiceWith
) -> RunningService:
    upstream.behaviour = good
    return service_with(http=request.param)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("line", ['if-none-match: "v1"', f"if-modified-since: {DATE}"])
def test_condition_of_http_1_0_client_returns_304(
    behind: RunningService, path: str, method: str, line: str
) -> None:
    """A 304 has no body, so it needs no length."""
    received = fetch_1_0(behind, path, line, method=method)
    assert (received.status, received.body) == (304, b"")
    assert received.headers["etag"] == '"v1"'
    assert "transfer-encoding" not in received.headers


@pytest.mark.parametrize("path", PATHS)
def test_http_1_0_client_gets_whole_part_and_head(behind: RunningService, path: str) -> None:
    """200, 206, 412, 416 and HEAD are as for HTTP/1.1."""
    whole = fetch_1_0(behind, path)
    assert (whole.status, whole.body, whole.headers["content-length"]) == (200, BODY, "1024")
    part = fetch_1_0(behind, path, "range: bytes=5-9")
    assert (part.status, part.body) == (206, BODY[5:10])
    assert part.headers["content-range"] == "bytes 5-9/1024"
    head = fetch_1_0(behind, path, method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "1024")
    assert fetch_1_0(behind, path, "range: bytes=5000-").status == 416
    assert fetch_1_0(behind, path, 'if-match: "v0"').status == 412


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("is_direct", [True, False])
def test_http_1_0_client_gets_304_and_head_of_chunked_upstream(
    upstream: Misbehaving, service_with: ServiceWith, path: str, is_direct: bool
) -> None:
    """Answers without a body don't depend on a length that the upstream does not state."""

    async def unknown_length(exchange: Exchange) -> None:
        lines = ["transfer-encoding: chunked", 'etag: "v1"']
        if exchange.headers.get("if-none-match") == '"v1"':
            await exchange.head(304, 'etag: "v1"')
            exchange.keep = True
            return
        await exchange.head(200, *lines)
        if exchange.method == "GET":
            await exchange.raw(b"400\r\n" + BODY + b"\r\n0\r\n\r\n")
        exchange.keep = True

    upstream.behaviour = unknown_length
    service = service_with(s3_direct=is_direct)
    assert fetch_1_0(service, path, 'if-none-match: "v1"').status == 304
    assert fetch_1_0(service, path, 'if-none-match: "v1"', method="HEAD").status == 304
    assert fetch_1_0(service, path, method="HEAD").status == 200
    # Only the bytes route knows the length of such a body.
    assert fetch_1_0(service, path).status == (502 if "image" in path else 200)
