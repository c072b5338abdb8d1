"""Requests and conditions on a store that supports only a part of the S3 API.

The fake store answers like a Ceph 16.2.15 gateway. Lists, weak ETags and `*` in If-Match get 412.
Several ranges get the first one, invalid ranges get any answer, and If-Range is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import httpx
import pytest

from tests.support.ceph import BODY, DATE, ETAG, Ceph
from tests.support.client import ask as send
from tests.support.client import connect, fetch, read_answer
from tests.support.misbehaving import Exchange, Misbehaving, answer_with
from tests.support.serving import RunningService, ServiceWith, wait_until


def request_image(
    service: RunningService, method: str = "GET", **headers: str
) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = service.request(method, "/tasks/1/image", headers=named)
    return answer.status_code, answer.content


@pytest.mark.parametrize(
    ("headers", "status", "requests"),
    [
        ({}, 200, ["GET"]),
        ({"range": "bytes=0-8"}, 206, ["GET"]),
        ({"range": "bytes=990-"}, 206, ["GET"]),
        ({"range": "bytes=-10"}, 206, ["GET"]),
        ({"range": "bytes=0-99999999999999999999"}, 206, ["GET"]),
        ({"range": "bytes=abc"}, 200, ["GET"]),
        ({"range": "items=0-1"}, 200, ["GET"]),
        ({"if-match": ETAG}, 200, ["GET"]),
        ({"if-match": '"other"'}, 412, ["GET", "HEAD"]),
        ({"range": "bytes=0-8", "if-match": ETAG}, 206, ["GET"]),
        ({"range": "bytes=0-8", "if-range": ETAG}, 206, ["GET"]),
        ({"range": "bytes=0-8", "if-range": '"other"'}, 200, ["GET", "HEAD", "GET"]),
        ({"if-range": '"other"'}, 200, ["GET"]),
        ({"range": "bytes=0-8", "if-match": '"' + "a" * 9000 + '"'}, 412, ["HEAD"]),
        ({"range": "bytes=0-8", "if-range": DATE}, 206, ["HEAD", "GET"]),
        ({"range": "bytes=0-8", "if-range": f"W/{ETAG}"}, 200, ["HEAD", "GET"]),
        ({"range": "bytes=-0"}, 416, ["HEAD"]),
        ({"range": "bytes=5000-"}, 416, ["GET", "HEAD"]),
        ({"range": "bytes=0-1,5-6"}, 206, ["HEAD", "GET", "GET"]),
        ({"if-match": f'"other", {ETAG}'}, 200, ["HEAD", "GET"]),
        ({"if-match": "*"}, 200, ["HEAD", "GET"]),
        ({"if-match": f"W/{ETAG}"}, 412, ["HEAD"]),
        ({"if-none-match": ETAG}, 304, ["HEAD"]),
        ({"if-none-match": f"W/{ETAG}"}, 304, ["HEAD"]),
        ({"if-none-match": "*"}, 304, ["HEAD"]),
        ({"if-none-match": '"other"'}, 200, ["HEAD", "GET"]),
        ({"if-modified-since": DATE}, 304, ["HEAD"]),
        ({"if-modified-since": "garbage"}, 200, ["HEAD", "GET"]),
        ({"if-unmodified-since": DATE}, 200, ["HEAD", "GET"]),
    ],
)
def test_client_request_sends_only_portable_s3_requests(
    upstream: Misbehaving,
    troubled_store: RunningService,
    headers: dict[str, str],
    status: int,
    requests: list[str],
) -> None:
    """A store gets only plain single ranges and If-Match with one strong ETag."""
    upstream.behaviour = Ceph()
    answer = troubled_store.get("/tasks/1/image", headers=headers)
    assert answer.status_code == status
    assert [request.split(" ")[0] for request in upstream.requests] == requests
    if status == 304:
        assert answer.headers["etag"] == ETAG
        assert sum(exchange.sent for exchange in upstream.exchanges) == 0


@pytest.mark.parametrize("etag", [ETAG, ETAG.strip('"')])
def test_etag_without_quotes_is_sent_quoted(
    upstream: Misbehaving, troubled_store: RunningService, etag: str
) -> None:
    """An ETag that the store sends without quotes reaches the client with quotes."""
    upstream.behaviour = Ceph(etag)
    answer = troubled_store.get("/tasks/1/image")
    assert answer.headers["etag"] == ETAG
    assert request_image(troubled_store, if_none_match=ETAG)[0] == 304


def test_several_ranges_without_validator_return_full_200(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """Without an ETag or date, several ranges get the full object in a 200."""
    store = Ceph("")
    store.lines = []
    upstream.behaviour = store
    assert request_image(troubled_store) == (200, BODY)
    assert request_image(troubled_store, range="bytes=0-8") == (206, BODY[:9])
    assert request_image(troubled_store, range="bytes=0-1,5-6") == (200, BODY)
    assert request_image(troubled_store, if_none_match='"a"') == (200, BODY)
    assert request_image(troubled_store, if_none_match="*")[0] == 304


def test_object_replaced_after_head_is_requested_again(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """If the object changes between HEAD and GET, the service starts again with a new HEAD."""
    old, new = Ceph('"old"'), Ceph('"new"', BODY[::-1])

    async def replaced_after_head(exchange: Exchange) -> None:
        await (old if len(upstream.exchanges) == 1 else new)(exchange)

    upstream.behaviour = replaced_after_head
    assert request_image(troubled_store, range="bytes=0-1,5-9", if_none_match='"mine"')[0] == 206
    assert len(upstream.exchanges) == 5  # HEAD, GET with 412, HEAD, two parts
    assert upstream.exchanges[-1].headers["if-match"] == '"new"'


def test_object_replaced_before_every_request_returns_503(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """An object that changes before every request is a 503."""

    async def another(exchange: Exchange) -> None:
        await Ceph(f'"{len(upstream.exchanges)}"')(exchange)

    upstream.behaviour = another
    assert request_image(troubled_store, if_none_match='"mine"')[0] == 503


def test_object_replaced_between_two_parts_aborts_the_body(
    upstream: Misbehaving, troubled_store: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    """If the object changes between two parts of a multipart body, the connection is cut."""
    old, new = Ceph('"old"'), Ceph('"new"', BODY[::-1])

    async def replaced_after_part(exchange: Exchange) -> None:
        await (old if len(upstream.exchanges) < 3 else new)(exchange)

    upstream.behaviour = replaced_after_part
    answer = fetch(troubled_store.port, "/tasks/1/image", headers={"range": "bytes=0-1,5-9"})
    assert answer.status == 206
    assert not answer.whole
    wait_until(lambda: troubled_store.acquired_connections() == 0)
    wait_until(
        lambda: (
            "206 changed (upstream no longer has this version; resuming at byte 0: " in caplog.text
        )
    )


@pytest.mark.parametrize(
    "content_range",
    ["bytes 1-9/1000", "bytes 0-8/*", "bytes 0-9/1000", "0-8/1000", "bytes 8-0/1000", None],
)
def test_content_range_other_than_requested_returns_502(
    upstream: Misbehaving, troubled_store: RunningService, content_range: str | None
) -> None:
    """A 206 whose Content-Range is invalid or not the requested range is a 502."""
    lines = [f"content-range: {content_range}"] if content_range else []
    upstream.behaviour = answer_with(206, BODY[:9], f"etag: {ETAG}", *lines)
    assert request_image(troubled_store, range="bytes=0-8")[0] == 502


def test_part_with_wrong_length_returns_502(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A 206 whose Content-Length differs from its Content-Range is a 502."""
    upstream.behaviour = answer_with(206, BODY[:8], "content-range: bytes 0-8/1000")
    assert request_image(troubled_store, range="bytes=0-8")[0] == 502


def test_range_ignored_by_store_returns_full_200(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """If the store answers a Range request with 200, the client gets the full 200."""
    upstream.behaviour = answer_with(200, BODY, f"etag: {ETAG}")
    assert request_image(troubled_store, range="bytes=0-8") == (200, BODY)
    assert request_image(troubled_store, range="bytes=0-1,5-6") == (200, BODY)


def test_if_match_ignored_by_store_is_evaluated_by_the_service(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """If the store ignores If-Match, the service compares the ETag itself."""

    async def ignore_if_match(exchange: Exchange) -> None:
        stated = "content-range: bytes 0-8/1000"
        if "range" in exchange.headers:
            await exchange.answer(206, BODY[:9], stated, 'etag: "new"')
        else:
            await exchange.answer(200, BODY, 'etag: "new"')

    async def with_head(exchange: Exchange) -> None:
        if exchange.method == "HEAD":
            await exchange.answer(200, BODY, 'etag: "new"')
        else:
            await ignore_if_match(exchange)

    upstream.behaviour = with_head
    assert request_image(troubled_store, range="bytes=0-8", if_range='"old"') == (200, BODY)
    assert request_image(troubled_store, if_match='"old"')[0] == 412


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ("gzip", "gzip"),
        ("aws-chunked", None),
        ("gzip,aws-chunked", "gzip"),
        ("identity", None),
        ("a b", None),
    ],
)
def test_content_encoding_aws_chunked_is_removed(
    upstream: Misbehaving, troubled_store: RunningService, stored: str, sent: str | None
) -> None:
    """Content-Encoding values that describe the S3 upload are not sent to the client."""
    store = Ceph()
    store.lines = [f"content-encoding: {stored}"]
    upstream.behaviour = store
    received = fetch(troubled_store.port, "/tasks/1/image")
    assert received.headers.get("content-encoding") == sent
    assert received.body == BODY


class CephWithOddParts(Ceph):
    """A Ceph store that answers the n-th range request with its own header lines."""

    def __init__(self, odd_lines: Callable[[int], list[str] | None], body: bytes = BODY) -> None:
        super().__init__(body=body)
        self.odd = odd_lines
        self.asked = 0

    async def part(self, exchange: Exchange, a: str, b: str, headers: list[str]) -> None:
        self.asked += 1
        lines = self.odd(self.asked)
        if lines is None:
            await super().part(exchange, a, b, headers)
        else:
            await exchange.answer(206, self.body[int(a) : int(b) + 1], *lines)


@pytest.mark.parametrize(
    "lines",
    [
        ["content-range: bytes 5-9/1000"],  # no ETag
        ["content-range: bytes 5-9/2000", f"etag: {ETAG}"],  # another complete length
        ["content-range: bytes 5-9/1000", 'etag: "other"'],
        ["content-range: bytes 0-4/1000", f"etag: {ETAG}"],
    ],
)
def test_later_part_of_unproven_version_aborts_the_body(
    upstream: Misbehaving, troubled_store: RunningService, lines: list[str]
) -> None:
    """A later part without the expected ETag, length and range cuts the connection."""
    upstream.behaviour = CephWithOddParts(lambda asked: lines if asked > 1 else None)
    answer = fetch(troubled_store.port, "/tasks/1/image", headers={"range": "bytes=0-1,5-9"})
    assert answer.status == 206
    assert not answer.whole


def test_full_200_for_a_later_part_aborts_the_body(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """If the store answers a later part with 200, the connection is cut."""
    ceph = Ceph()

    async def whole_at_last(exchange: Exchange) -> None:
        if len(upstream.exchanges) < 3:
            await ceph(exchange)
        else:
            await exchange.answer(200, BODY, f"etag: {ETAG}")

    upstream.behaviour = whole_at_last
    answer = fetch(troubled_store.port, "/tasks/1/image", headers={"range": "bytes=0-1,5-9"})
    assert answer.status == 206
    assert not answer.whole


def test_if_match_without_etag_returns_412_and_if_range_full_200(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """Without an ETag, If-Range gets the full 200 and If-Match a 412."""

    async def tagless(exchange: Exchange) -> None:
        if "range" in exchange.headers:
            await exchange.answer(206, BODY[5:10], "content-range: bytes 5-9/1000")
        else:
            await exchange.answer(200, BODY)

    upstream.behaviour = tagless
    assert request_image(troubled_store, range="bytes=5-9", if_range='"old"') == (200, BODY)
    for method in ("GET", "HEAD"):
        assert request_image(troubled_store, method, if_match='"old"')[0] == 412


def test_last_modified_changed_after_head_is_evaluated_again(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """Without an ETag, a changed Last-Modified after HEAD restarts the evaluation."""
    later = "Mon, 23 Nov 2026 09:00:00 GMT"

    async def replaced(exchange: Exchange) -> None:
        if len(upstream.exchanges) == 1:
            await exchange.answer(200, BODY, f"last-modified: {DATE}")
        elif exchange.method == "HEAD":
            await exchange.answer(200, BODY[::-1], f"last-modified: {later}")
        elif "range" in exchange.headers:
            stated = "content-range: bytes 5-9/1000"
            await exchange.answer(206, BODY[::-1][5:10], stated, f"last-modified: {later}")
        else:
            await exchange.answer(200, BODY[::-1], f"last-modified: {later}")

    upstream.behaviour = replaced
    assert request_image(troubled_store, range="bytes=5-9", if_range=DATE) == (200, BODY[::-1])
    upstream.forget()
    upstream.behaviour = replaced
    assert request_image(troubled_store, if_unmodified_since=DATE)[0] == 412


def test_weak_etag_changed_after_head_is_evaluated_again(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """If a weak ETag changes after HEAD, the condition is evaluated for the new version."""

    async def replaced(exchange: Exchange) -> None:
        tag = 'W/"1"' if len(upstream.exchanges) == 1 else 'W/"2"'
        await exchange.answer(200, BODY, f"last-modified: {DATE}", f"etag: {tag}")

    upstream.behaviour = replaced
    assert request_image(troubled_store, if_none_match='"2"')[0] == 304


def test_store_that_compares_etags_without_quotes_serves_conditions(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """Conditions work with a store that sends and compares ETags without quotes."""
    bare = ETAG.strip('"')
    upstream.behaviour = Ceph(bare)
    assert request_image(troubled_store, if_none_match='"other"') == (200, BODY)
    assert request_image(troubled_store, if_match=ETAG) == (200, BODY)
    assert request_image(troubled_store, range="bytes=0-8", if_range=ETAG) == (206, BODY[:9])
    assert request_image(troubled_store, range="bytes=0-1,5-6")[0] == 206


def test_two_if_range_headers_return_full_200(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """Two If-Range headers are invalid, and the client gets the full 200."""
    upstream.behaviour = Ceph()
    headers = [("range", "bytes=0-8"), ("if-range", ETAG), ("if-range", '"other"')]
    with httpx.Client(trust_env=False, verify=False) as client:
        answer = client.get(f"{troubled_store.url}/tasks/1/image", headers=headers)
    assert (answer.status_code, answer.content) == (200, BODY)


@pytest.mark.parametrize("name", ["range", "if-match", "if-none-match", "if-range"])
def test_header_of_megabytes_returns_431(
    upstream: Misbehaving, troubled_store: RunningService, name: str
) -> None:
    """A header of more than a megabyte is a 431 without a request to the store."""
    answer = troubled_store.get("/tasks/1/image", headers={name: '"b",' * 500_000})
    assert answer.status_code == 431
    assert upstream.exchanges == []


@pytest.mark.parametrize("path", ["/tasks/1/image", "/tasks/1/bytes/1000"])
def test_unusable_answer_is_closed_before_the_next_request(
    upstream: Misbehaving, service_with: ServiceWith, path: str
) -> None:
    """A download holds one connection, also if the first answer was not usable."""

    async def ignores_conditions(exchange: Exchange) -> None:
        if exchange.method == "HEAD" or "range" not in exchange.headers:
            await exchange.head(200, "content-length: 1000", 'etag: "new"')
        else:
            await exchange.head(206, "content-length: 9", "content-range: bytes 0-8/1000", NEW)
        if exchange.method == "HEAD":
            exchange.keep = True
        else:
            await exchange.hang()

    upstream.behaviour = ignores_conditions
    service = service_with()
    with closing(connect(service.port)) as client:
        send(client, path, headers={"range": "bytes=0-8", "if-range": '"old"'})
        assert client.recv(12) == b"HTTP/1.1 200"
        assert service.acquired_connections() == 1


NEW = 'etag: "new"'


def test_chunked_object_for_http_1_0_client_returns_502(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """An object of unknown length is a 502 for an HTTP/1.0 client."""

    async def chunked(exchange: Exchange) -> None:
        await exchange.head(200, "transfer-encoding: chunked")
        await exchange.raw(b"5\r\nhello\r\n0\r\n\r\n")

    upstream.behaviour = chunked
    with closing(connect(troubled_store.port)) as client:
        client.sendall(b"GET /tasks/1/image HTTP/1.0\r\n\r\n")
        assert read_answer(client).status == 502


def test_416_without_range_returns_502(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """If the store answers 416 to a request without Range, the client gets a 502."""

    async def odd_lines(exchange: Exchange) -> None:
        await exchange.error(416, "InvalidRange")

    upstream.behaviour = odd_lines
    assert request_image(troubled_store)[0] == 502
    assert len(upstream.exchanges) == 1
