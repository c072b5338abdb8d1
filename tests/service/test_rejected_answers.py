"""Store answers that are not used are closed before the next request."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager

import pytest

from tests.support.client import ask, connect, fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving
from tests.support.serving import RunningService, serving

SIZE = 4_000_000
PATHS = {"s3": "/tasks/1/image", "full": "/tasks/1/image", "http": f"/tasks/1/bytes/{SIZE}"}
STORES = pytest.mark.parametrize("source", ["s3", "full"])


async def begin(exchange: Exchange, status: int, *lines: str, length: int = SIZE) -> None:
    """Start an answer that never ends, so that its connection stays in use until it is closed."""
    await exchange.head(status, f"content-length: {length}", *lines)
    if exchange.method == "HEAD":
        exchange.keep = True
        return
    await exchange.body(bytes(1000))
    await exchange.hang()


@contextmanager
def downloading(
    upstream: Misbehaving, source: str, behaviour: Behaviour, **headers: str
) -> Generator[RunningService]:
    """Download until the first bytes of the body arrive, while the store keeps the answer open."""
    upstream.behaviour = behaviour
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    settings = settings_for(upstream.url, s3_direct=source != "full")
    with serving(settings) as service, closing(connect(service.port)) as client:
        ask(client, PATHS[source], headers=named)
        received = b""
        while b"\r\n\r\n" + bytes(100) not in received:
            data = client.recv(1 << 16)
            assert data, received
            received += data
        yield service


@pytest.mark.parametrize("status", [301, 307, 400])
def test_redirect_is_closed_before_botocore_requests(upstream: Misbehaving, status: int) -> None:
    """A redirected request that goes to botocore holds one connection."""

    async def redirect(exchange: Exchange) -> None:
        is_ours = "downspout" in exchange.headers.get("user-agent", "")
        region = "x-amz-bucket-region: eu-west-1"
        await begin(exchange, status if is_ours else 200, region, 'etag: "v"')

    with downloading(upstream, "s3", redirect) as service:
        assert service.acquired_connections() == 1
    assert len(upstream.exchanges) >= 2


@STORES
def test_part_ignoring_if_match_is_closed(upstream: Misbehaving, source: str) -> None:
    """A part of another version than If-Match requires is closed before the next request."""

    async def ignore_if_match(exchange: Exchange) -> None:
        status = 206 if "range" in exchange.headers else 200
        lines = [f"content-range: bytes 0-{SIZE - 2}/{SIZE}"] if status == 206 else []
        await begin(exchange, status, 'etag: "v2"', *lines, length=SIZE - (status == 206))

    headers = {"range": f"bytes=0-{SIZE - 2}", "if_range": '"v1"'}
    with downloading(upstream, source, ignore_if_match, **headers) as service:
        assert [e.method for e in upstream.exchanges] == ["GET", "HEAD", "GET"]
        assert service.acquired_connections() == 1


@STORES
def test_answer_replaced_after_head_is_closed(upstream: Misbehaving, source: str) -> None:
    """An answer of another version than its HEAD is closed before the next request."""

    async def replaced(exchange: Exchange) -> None:
        tag = 'etag: W/"v1"' if len(upstream.exchanges) == 1 else 'etag: W/"v2"'
        await begin(exchange, 200, tag)

    with downloading(upstream, source, replaced, if_none_match='"other"') as service:
        assert [e.method for e in upstream.exchanges] == ["HEAD", "GET", "HEAD", "GET"]
        assert service.acquired_connections() == 1


def test_part_ignoring_if_range_is_closed(upstream: Misbehaving) -> None:
    """A part from an HTTP upstream that ignores If-Range is closed before the next request."""

    async def ignores_if_range(exchange: Exchange) -> None:
        if "range" in exchange.headers:
            stated = f"content-range: bytes 0-{SIZE - 2}/{SIZE}"
            await begin(exchange, 206, 'etag: "v2"', stated, length=SIZE - 1)
        else:
            await begin(exchange, 200, 'etag: "v2"')

    headers = {"range": f"bytes=0-{SIZE - 2}", "if_range": '"v1"'}
    with downloading(upstream, "http", ignores_if_range, **headers) as service:
        assert len(upstream.exchanges) == 2
        assert service.acquired_connections() == 1


@pytest.mark.parametrize("source", PATHS)
@pytest.mark.parametrize("length", [SIZE, 200], ids=["too long", "short"])
def test_transient_error_is_closed_before_retry(
    upstream: Misbehaving, source: str, length: int
) -> None:
    """The error of one attempt is closed before the next attempt, however long it is."""

    async def fail_three_times(exchange: Exchange) -> None:
        if len(upstream.exchanges) > 3:
            await begin(exchange, 200, 'etag: "v"')
            return
        if length < SIZE:
            await exchange.answer(500, bytes(length))
            return
        # The service reads 64 KiB of an error answer for its code.
        await exchange.head(500, f"content-length: {length}")
        await exchange.body(bytes(200_000))
        await exchange.hang()

    with downloading(upstream, source, fail_three_times) as service:
        assert len(upstream.exchanges) == 4
        assert service.acquired_connections() == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId"])
def test_403_with_bucket_region_is_not_redirected(
    upstream: Misbehaving, method: str, code: str
) -> None:
    """A 403 with x-amz-bucket-region is not sent again to that region."""

    async def denied(exchange: Exchange) -> None:
        xml = b"" if exchange.method == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
        await exchange.answer(403, xml, "x-amz-bucket-region: eu-west-1")

    upstream.behaviour = denied
    with serving(settings_for(upstream.url)) as service:
        received = fetch(service.port, PATHS["s3"], method=method)
    assert received.status in {403, 404, 502}
    assert all("downspout" in e.headers["user-agent"] for e in upstream.exchanges)
    if method == "GET":
        assert len(upstream.exchanges) == 1
