"""The image route in front of a real S3 server and of a faulty store."""

from __future__ import annotations

import hashlib
import re

import pytest
from starlette.types import Message, Receive, Scope, Send

from handlers import create_app
from tests.support.behaviours import (
    chunks_without_an_end,
    ends_short_of_its_length,
    falls_silent,
    malformed_chunk,
    resets,
)
from tests.support.client import fetch
from tests.support.components import Store, settings_for
from tests.support.misbehaving import SECRET, Behaviour, Exchange, Misbehaving, answer_with
from tests.support.serving import RunningService, ServiceWith, serving_app, wait_until

PICTURE = hashlib.shake_256(b"picture").digest(300_000)


def test_image_has_stored_bytes_and_headers(store: Store, service: RunningService) -> None:
    """The body, length, ETag, date, type and Cache-Control are the stored ones."""
    store.put("test/1/image.jpg", PICTURE, ContentType="image/png", CacheControl="max-age=60")
    stored = store.client.head_object(Bucket="photos", Key="test/1/image.jpg")
    answer = service.get("/tasks/1/image")
    assert answer.status_code == 200
    assert answer.content == PICTURE
    assert answer.headers["content-length"] == str(len(PICTURE))
    assert answer.headers["etag"] == stored["ETag"]
    stored_date = stored["LastModified"].strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert answer.headers["last-modified"] == stored_date
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "max-age=60"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_store_headers_outside_allow_list_are_not_sent(
    store: Store, service: RunningService
) -> None:
    """The response has no Server, no x-amz-* header and no metadata of the store."""
    store.put("test/2/image.jpg", PICTURE, Metadata={"owner": "somebody"})
    names = set(service.get("/tasks/2/image").headers)
    assert not {name for name in names if name.startswith("x-amz-")}
    assert "server" not in names


def test_head_has_headers_of_get_and_no_body(store: Store, service: RunningService) -> None:
    """Only Date, X-Request-Id and Server-Timing differ from GET."""
    store.put("test/3/image.jpg", PICTURE)
    get, head = service.get("/tasks/3/image"), service.request("HEAD", "/tasks/3/image")
    assert head.status_code == 200
    assert head.content == b""
    differ = {"date", "x-request-id", "server-timing"}
    assert {n: v for n, v in head.headers.items() if n not in differ} == {
        n: v for n, v in get.headers.items() if n not in differ
    }


def test_head_sends_store_head_request(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """HEAD reads no bytes of the object."""

    async def object_of_a_mebibyte(exchange: Exchange) -> None:
        await exchange.head(200, "content-length: 1048576", 'etag: "a"')
        exchange.keep = exchange.method == "HEAD"
        if exchange.method != "HEAD":
            await exchange.body(bytes(1 << 20))

    upstream.behaviour = object_of_a_mebibyte
    assert troubled_store.request("HEAD", "/tasks/1/image").headers["content-length"] == "1048576"
    assert upstream.requests == ["HEAD /photos/test/1/image.jpg"]
    assert sum(exchange.sent for exchange in upstream.exchanges) == 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_missing_image_returns_404(service: RunningService, method: str) -> None:
    """The 404 names neither bucket, key nor host."""
    answer = service.request(method, "/tasks/404404/image")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert not any(word in answer.text for word in ("photos", "image.jpg", "127.0.0.1"))


def test_empty_image_returns_200_with_length_0(store: Store, service: RunningService) -> None:
    """An object without bytes is a whole object."""
    store.put("test/5/image.jpg", b"")
    answer = service.get("/tasks/5/image")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "0"


def test_key_template_sets_object_key(store: Store, service_with: ServiceWith) -> None:
    """S3_IMAGE_KEY gets the task id without leading zeros."""
    store.put("images/17.webp", PICTURE, ContentType="image/webp")
    service = service_with(store.url, s3_image_key="images/{task_id}.webp")
    assert service.get("/tasks/17/image").content == PICTURE
    assert service.get("/tasks/0017/image").content == PICTURE


def test_large_body_is_sent_in_large_chunks(upstream: Misbehaving) -> None:
    """The body is not cut into the 1 KiB pieces of the library's own iterator."""
    size = 8 << 20
    upstream.behaviour = answer_with(200, bytes(size))
    sizes: list[int] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched_send(message: Message) -> None:
            sizes.append(len(message.get("body", b"")))
            await send(message)

        await app(scope, receive, watched_send)

    app = create_app(settings_for(upstream.url))
    with serving_app(watched) as port:
        assert len(fetch(port, "/tasks/1/image").body) == size
    body_sizes = [one for one in sizes if one]
    assert sum(body_sizes) == size
    assert size / len(body_sizes) >= 64 * 1024


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize(
    "behaviour",
    [chunks_without_an_end, ends_short_of_its_length, resets, falls_silent, malformed_chunk],
)
def test_faulty_store_body_breaks_transfer(
    upstream: Misbehaving, service_with: ServiceWith, behaviour: Behaviour, http: str
) -> None:
    """After the first byte, a faulty body ends as a visibly broken transfer."""
    upstream.behaviour = behaviour
    service = service_with(http=http, upstream_read_timeout=0.3)
    received = fetch(service.port, "/tasks/1/image")
    assert received.status == 200
    assert not received.whole
    wait_until(lambda: service.acquired_connections() == 0)


STORE_ERRORS = [
    # status, code, answered, retryable
    (404, "NoSuchKey", 404, False),
    (403, "AccessDenied", 404, False),
    (403, "InvalidObjectState", 404, False),
    (404, "NoSuchBucket", 502, False),
    (403, "InvalidAccessKeyId", 502, False),
    (403, "SignatureDoesNotMatch", 502, False),
    (403, "RequestTimeTooSkewed", 502, False),
    (400, "ExpiredToken", 502, False),
    (400, "AuthorizationHeaderMalformed", 502, False),
    (400, "KMS.DisabledException", 502, False),
    (301, "PermanentRedirect", 502, False),
    (307, "TemporaryRedirect", 502, False),
    (400, "RequestTimeout", 504, True),
    (503, "SlowDown", 503, True),
    (503, "ServiceUnavailable", 503, True),
    (429, "TooManyRequests", 503, True),
    (500, "InternalError", 502, False),
    (502, "", 502, False),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("status", "code", "answered", "retryable"), STORE_ERRORS)
def test_store_error_returns_problem(
    upstream: Misbehaving,
    troubled_store: RunningService,
    method: str,
    status: int,
    code: str,
    answered: int,
    retryable: bool,
) -> None:
    """Each store error maps to one status, and the problem has no internal text."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.error(status, code)

    upstream.behaviour = refuse
    answer = troubled_store.request(method, "/tasks/1/image")
    assert answer.status_code == answered
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in answer.headers) == (answered == 503)
    seen = str(answer.headers) + answer.text
    hidden = [SECRET, "photos", "image.jpg", str(upstream.port)]
    assert not [word for word in [*hidden, *filter(None, [code])] if word in seen]
    if method == "GET":
        assert answer.json()["retryable"] is retryable


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [204, 206])
def test_unrequested_204_or_206_returns_502(
    upstream: Misbehaving, troubled_store: RunningService, method: str, status: int
) -> None:
    """Only 200 is a valid success for a request without Range."""
    upstream.behaviour = answer_with(status, b"" if status == 204 else b"part")
    assert troubled_store.request(method, "/tasks/1/image").status_code == 502


def test_store_error_500_with_code_404_returns_502(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """The code in an S3 error body is not the HTTP status."""

    async def outage(exchange: Exchange) -> None:
        await exchange.error(500, "404")

    upstream.behaviour = outage
    assert troubled_store.get("/tasks/1/image").status_code == 502


def test_endless_error_body_is_not_read(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """The service reads only the start of an error body."""

    async def endless_error(exchange: Exchange) -> None:
        await exchange.head(500, "content-length: 100000000000")
        await exchange.flood()

    upstream.behaviour = endless_error
    assert troubled_store.get("/tasks/1/image").status_code == 502
    wait_until(lambda: troubled_store.acquired_connections() == 0)
    # For three attempts; the kernel's loopback buffers take some megabytes more.
    assert sum(exchange.sent for exchange in upstream.exchanges) < 64 << 20


def test_html_error_page_returns_502(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A proxy in front of the store may send HTML instead of an S3 error."""
    upstream.behaviour = answer_with(502, b"<html>bad gateway</html>", "content-type: text/html")
    assert troubled_store.get("/tasks/1/image").status_code == 502


def test_unreachable_store_returns_502(unreachable_url: str, service_with: ServiceWith) -> None:
    """A refused store connection is a 502."""
    service = service_with(unreachable_url)
    assert service.get("/tasks/1/image").status_code == 502


def test_silent_store_returns_504(upstream: Misbehaving, service_with: ServiceWith) -> None:
    """A store that never responds is a 504 after FIRST_BYTE_TIMEOUT."""
    upstream.behaviour = Exchange.hang
    service = service_with(first_byte_timeout=0.5)
    answer = service.get("/tasks/1/image")
    assert answer.status_code == 504
    assert answer.json()["retryable"] is True
    wait_until(lambda: service.acquired_connections() == 0)


def test_store_read_timeout_on_all_attempts_returns_504(
    upstream: Misbehaving, service_with: ServiceWith
) -> None:
    """The read timeout ends all attempts before FIRST_BYTE_TIMEOUT ends the request."""
    upstream.behaviour = Exchange.hang
    service = service_with(upstream_read_timeout=0.1)
    assert service.get("/tasks/1/image").status_code == 504


def test_body_without_length_or_chunks_returns_502(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """The client could not notice that such a body is cut."""

    async def until_close(exchange: Exchange) -> None:
        await exchange.head(200, 'etag: "a"')
        await exchange.body(b"who knows whether this is all")

    upstream.behaviour = until_close
    assert troubled_store.get("/tasks/1/image").status_code == 502
    wait_until(lambda: troubled_store.acquired_connections() == 0)


def test_chunked_object_is_sent_without_content_length(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """An object of unknown length is sent in chunks."""

    async def chunked(exchange: Exchange) -> None:
        await exchange.head(200, "transfer-encoding: Chunked", 'etag: "a"')
        await exchange.raw(b"5\r\nhello\r\n0\r\n\r\n")

    upstream.behaviour = chunked
    answer = troubled_store.get("/tasks/1/image")
    assert answer.content == b"hello"
    assert "content-length" not in answer.headers


@pytest.mark.parametrize(
    "line",
    [
        "last-modified: yesterday",
        "last-modified: Mon, 99 Nov 2026 08:00:00 GMT",
        "expires: never",
        "x-amz-meta-name: caf\xe9",
        "x-amz-mp-parts-count: many",
        "x-amz-delete-marker: perhaps",
        "x-amz-object-lock-retain-until-date: whenever",
        'etag: not a tag "',
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_malformed_stored_header_is_dropped(
    upstream: Misbehaving, troubled_store: RunningService, method: str, line: str
) -> None:
    """A malformed header of the store does not prevent the download."""
    upstream.behaviour = answer_with(200, b"object", line)
    answer = troubled_store.request(method, "/tasks/1/image")
    assert answer.status_code == 200
    assert answer.content == (b"object" if method == "GET" else b"")
    name, _, _ = line.partition(":")
    assert name == "expires" or name not in answer.headers


def test_store_body_over_content_length_leaks_no_connection(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """An error of aiobotocore after the response is open still closes the connection."""

    async def too_much(exchange: Exchange) -> None:
        await exchange.head(200, "content-length: 1000")
        await exchange.flood()

    upstream.behaviour = too_much
    for _ in range(3):
        assert troubled_store.get("/tasks/1/image").status_code in (200, 502)
    wait_until(lambda: troubled_store.acquired_connections() == 0)


def test_server_timing_has_slot_and_upstream_milliseconds(
    store: Store, service: RunningService
) -> None:
    """Server-Timing has the wait for a slot and the wait for the store's response."""
    store.put("test/5/image.jpg", b"picture")
    for path, status in (("/tasks/5/image", 200), ("/tasks/404/image", 404)):
        answer = service.get(path)
        assert answer.status_code == status
        found = re.fullmatch(
            r"slot;dur=([0-9.]+), upstream;dur=([0-9.]+)", answer.headers["server-timing"]
        )
        assert found is not None
        assert 0 <= float(found[1]) < 1000
        assert 0 < float(found[2]) < 20_000
