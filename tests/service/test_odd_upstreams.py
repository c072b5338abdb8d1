"""Upstreams of the bytes route and of `stream_url` as they are: odd, but usable."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handlers import create_app, stream_url
from tests.support.behaviours import BODY
from tests.support.client import fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving, answer_with
from tests.support.serving import RunningService, ServiceWith, entering, serving_app, wait_until
from tests.support.stored import DATE, select

GZIPPED = gzip.compress(BODY, mtime=0)
LONGER = gzip.compress(BODY, 0, mtime=0)  # stored, not compressed: longer than BODY
assert len(GZIPPED) < len(BODY) < len(LONGER)


@contextmanager
def host_of(url: str, length: int | None = None) -> Generator[int]:
    """Run a host whose only handler streams `url`; yield its port."""
    downloads = create_app(settings_for("http://127.0.0.1:9"))

    async def handler(request: Request) -> Response:
        return stream_url(downloads, url, length=length)

    routes = [Route("/", handler, methods=["GET", "HEAD"])]
    with serving_app(Starlette(routes=routes, lifespan=entering(downloads))) as port:
        yield port


# The URL as given.

RESERVED = "%2F%3A%40%2C%3B%26%28%27"
ESCAPED = f"/{RESERVED}a%7e/..%2fb/../c//d=1,2;3:4@5('6')?x={RESERVED}+%20&y=/:@,;('&z"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_stream_url_is_requested_byte_for_byte(upstream: Misbehaving, method: str) -> None:
    """A presigned URL reaches the upstream as it was signed."""
    upstream.behaviour = answer_with(200, BODY)
    with host_of(upstream.url + ESCAPED + "#fragment") as port:
        assert fetch(port, "/", method=method).status == 200
    assert upstream.requests == [f"{method} {ESCAPED}"]


def test_bytes_url_is_requested_byte_for_byte(
    upstream: Misbehaving, service_with: ServiceWith
) -> None:
    """BYTES_URL keeps its escapes; only the two fields are replaced."""
    upstream.behaviour = answer_with(200, BODY)
    service = service_with(bytes_url=upstream.url + ESCAPED + "&id={task_id}&n={size}")
    assert service.get("/tasks/7/bytes/1024").content == BODY
    assert upstream.requests == [f"GET {ESCAPED}&id=7&n=1024"]


@pytest.mark.parametrize(
    ("given", "requested"),
    [
        ("/a b%2F?c d", "/a%20b%2F?c%20d"),
        ("/é%2F?ü=%2F", "/%C3%A9%2F?%C3%BC=%2F"),
        ("/50%", "/50%"),
        ("", "/"),
        ("?a=%2F", "/?a=%2F"),
        ("/x\x01\x7f", "/x%01%7F"),
    ],
)
def test_characters_outside_urls_are_encoded(
    upstream: Misbehaving, given: str, requested: str
) -> None:
    """Spaces and letters beyond ASCII are percent-encoded; the rest stays as given."""
    upstream.behaviour = answer_with(200, BODY)
    with host_of(upstream.url + given) as port:
        assert fetch(port, "/").status == 200
    assert upstream.requests == [f"GET {requested}"]


@pytest.mark.parametrize(
    "url", ["", "/relative", "ftp://127.0.0.1/x", "http://[", "http:///\ud800"]
)
def test_invalid_url_returns_502(url: str) -> None:
    """A URL that cannot be requested is a 502, and the answer does not show it."""
    with host_of(url) as port:
        received = fetch(port, "/")
    assert received.status == 502
    assert b"relative" not in received.body


def test_user_and_password_in_url_become_authorization(upstream: Misbehaving) -> None:
    """Credentials in a URL are sent as Basic authorization, and the path stays as given."""
    upstream.behaviour = answer_with(200, BODY)
    with host_of(f"http://user:pass@127.0.0.1:{upstream.port}/a%2Fb") as port:
        assert fetch(port, "/").status == 200
    assert upstream.requests == ["GET /a%2Fb"]
    assert upstream.exchanges[0].headers["authorization"] == "Basic dXNlcjpwYXNz"


# GET, but not HEAD.


def get_only(status: int, *lines: str) -> Behaviour:
    """Answer GET with a body without end, so that reading it would be seen; HEAD with `status`."""

    async def answering(exchange: Exchange) -> None:
        if exchange.method == "HEAD":
            await exchange.answer(status, b"SECRET")
            return
        if exchange.headers.get("if-none-match") == '"v1"':
            await exchange.answer(304, b"", 'etag: "v1"')
            return
        await exchange.head(200, 'etag: "v1"', "content-type: image/png", *lines)
        await exchange.flood()

    return answering


@pytest.mark.parametrize("status", [403, 404, 405, 501])
def test_head_refused_by_upstream_is_answered_by_get(
    upstream: Misbehaving, troubled: RunningService, status: int
) -> None:
    """HEAD has the headers of the upstream's GET, whose body is not read."""
    upstream.behaviour = get_only(status, "content-length: 1000000000")
    head = troubled.request("HEAD", "/tasks/1/bytes/1000000000")
    assert (head.status_code, head.headers["content-length"]) == (200, "1000000000")
    assert (head.headers["etag"], head.headers["content-type"]) == ('"v1"', "image/png")
    assert upstream.requests == [f"{method} /bytes/1/1000000000" for method in ("HEAD", "GET")]
    wait_until(lambda: upstream.exchanges[1].is_over)
    assert upstream.exchanges[1].sent < 100_000_000
    assert troubled.acquired_connections() == 0


@pytest.mark.parametrize("length", [None, 1024])
def test_head_with_length_zero_is_answered_by_get(
    upstream: Misbehaving, length: int | None
) -> None:
    """Some upstreams answer every HEAD with `Content-Length: 0`, which is not that of GET."""

    async def zero_to_head(exchange: Exchange) -> None:
        await exchange.answer(200, b"" if exchange.method == "HEAD" else BODY)

    upstream.behaviour = zero_to_head
    with host_of(upstream.url + "/x", length) as port:
        head = fetch(port, "/", method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, "1024")


def test_head_of_empty_body_sends_one_request(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """If the length is known to be 0, HEAD needs no GET."""
    upstream.behaviour = answer_with(200)
    assert troubled.request("HEAD", "/tasks/1/bytes/0").headers["content-length"] == "0"
    assert upstream.requests == ["HEAD /bytes/1/0"]


def test_conditional_head_refused_by_upstream_returns_304(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """The GET has the conditions of the HEAD."""
    upstream.behaviour = get_only(403)
    headers = {"if-none-match": '"v1"'}
    assert troubled.request("HEAD", "/tasks/1/bytes/5", headers=headers).status_code == 304


@pytest.mark.parametrize("length", [None, 1_000_000_000])
def test_stream_url_head_refused_by_upstream_is_answered_by_get(
    upstream: Misbehaving, length: int | None
) -> None:
    """A presigned GET URL is not valid for HEAD; the host's client still gets an answer."""
    upstream.behaviour = get_only(403, "content-length: 1000000000")
    with host_of(upstream.url + "/x", length) as port:
        head = fetch(port, "/", method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, "1000000000")


@pytest.mark.parametrize(("status", "answered"), [(403, 502), (404, 404), (405, 502), (501, 502)])
def test_head_is_an_error_where_get_is_one(
    upstream: Misbehaving, troubled: RunningService, status: int, answered: int
) -> None:
    """If the upstream refuses GET, too, HEAD has the status of GET."""
    upstream.behaviour = answer_with(status, b"SECRET")
    assert troubled.get("/tasks/1/bytes/5").status_code == answered
    assert troubled.request("HEAD", "/tasks/1/bytes/5").status_code == answered
    assert upstream.requests == [f"{method} /bytes/1/5" for method in ("GET", "HEAD", "GET")]


# Content-Encoding that nobody asked for.


class EncodingUpstream:
    """An upstream that sends `body` gzipped, with ranges, and cuts whole bodies at `cut_at`."""

    def __init__(self, body: bytes, *, cut_at: int | None = None, chunked: bool = False) -> None:
        self.body = body
        self.cut_at = cut_at
        self.chunked = chunked
        self.codings: Iterator[str] = itertools.repeat("gzip")

    async def __call__(self, exchange: Exchange) -> None:
        lines = ["content-type: text/plain", 'etag: "gz"', f"last-modified: {DATE}"]
        lines += ["accept-ranges: bytes", f"content-encoding: {next(self.codings)}"]
        found = select(exchange.headers, len(self.body), '"gz"')
        body = self.body[found.first : found.end]
        lines += found.content_range
        if self.chunked:
            await exchange.head(found.status, "transfer-encoding: chunked", *lines)
            await exchange.raw(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        elif self.cut_at is not None and found.status == 200 and exchange.method == "GET":
            await exchange.head(200, f"content-length: {len(body)}", *lines)
            await exchange.body(body[: self.cut_at])
            exchange.reset()
        else:
            await exchange.answer(found.status, body, *lines)


@pytest.mark.parametrize("body", [GZIPPED, LONGER], ids=["shorter", "longer"])
def test_encoded_body_is_passed_on_as_it_is(
    upstream: Misbehaving, troubled: RunningService, body: bytes
) -> None:
    """GET and HEAD have the upstream's Content-Encoding and the length that it states."""
    upstream.behaviour = EncodingUpstream(body)
    received = fetch(troubled.port, "/tasks/1/bytes/1024")
    assert (received.status, received.body, received.whole) == (200, body, True)
    assert received.headers["content-encoding"] == "gzip"
    assert received.headers["content-length"] == str(len(body))
    head = fetch(troubled.port, "/tasks/1/bytes/1024", method="HEAD")
    for name in ("content-encoding", "content-length", "content-type", "etag", "accept-ranges"):
        assert head.headers[name] == received.headers[name]


@pytest.mark.parametrize("length", [None, 1024])
def test_stream_url_encoded_body_is_passed_on_as_it_is(
    upstream: Misbehaving, length: int | None
) -> None:
    """A host's `length` is that of the unencoded body."""
    upstream.behaviour = EncodingUpstream(GZIPPED)
    with host_of(upstream.url + "/x", length) as port:
        received = fetch(port, "/")
    assert (received.body, received.headers["content-encoding"]) == (GZIPPED, "gzip")


def test_encoded_body_in_chunks_is_passed_on_in_chunks(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """An encoded body without a stated length gets none, since the size is another one."""
    upstream.behaviour = EncodingUpstream(GZIPPED, chunked=True)
    received = fetch(troubled.port, "/tasks/1/bytes/1024")
    assert (received.status, received.whole) == (200, True)
    assert "content-length" not in received.headers
    assert zlib.decompress(received.body.split(b"\r\n", 1)[1], wbits=31) == BODY


@pytest.mark.parametrize("body", [GZIPPED, LONGER], ids=["shorter", "longer"])
@pytest.mark.parametrize(
    "wanted", ["0-8", "5-", "-10", "900-2000", "1000-", "1030-", "1030-1040", "5000-"]
)
def test_range_of_encoded_body_is_of_the_encoded_bytes(
    upstream: Misbehaving, troubled: RunningService, body: bytes, wanted: str
) -> None:
    """The client gets the range of the encoded bytes or all of them, never another range."""
    upstream.behaviour = EncodingUpstream(body)
    received = fetch(troubled.port, "/tasks/1/bytes/1024", headers={"range": f"bytes={wanted}"})
    assert received.headers["content-encoding"] == "gzip"
    assert received.whole
    # The upstream is asked for a range within 1024 bytes, which is often another one.
    is_part = wanted == "0-8" or (wanted == "5-" and body == GZIPPED)
    assert received.status == (206 if is_part else 200)
    if is_part:
        found = select({"range": f"bytes={wanted}"}, len(body), '"gz"')
        assert received.body == body[found.first : found.end]
        assert received.headers["content-range"] == found.content_range[0].split(": ")[1]
    else:
        assert received.body == body


@pytest.mark.parametrize("wanted", ["0-8", "5-", "-10"])
def test_stream_url_range_of_encoded_body_returns_206(upstream: Misbehaving, wanted: str) -> None:
    """Without a `length` the range is forwarded as given, and the upstream's 206 passed back."""
    upstream.behaviour = EncodingUpstream(GZIPPED)
    found = select({"range": f"bytes={wanted}"}, len(GZIPPED), '"gz"')
    with host_of(upstream.url + "/x") as port:
        part = fetch(port, "/", headers={"range": f"bytes={wanted}"})
    assert (part.status, part.body) == (206, GZIPPED[found.first : found.end])
    assert part.headers["content-encoding"] == "gzip"
    assert part.headers["content-range"] == found.content_range[0].split(": ")[1]


@pytest.mark.parametrize("body", [GZIPPED, LONGER], ids=["shorter", "longer"])
def test_encoded_body_interrupted_is_resumed(
    upstream: Misbehaving, troubled: RunningService, body: bytes
) -> None:
    """A broken encoded body goes on at its next encoded byte."""
    upstream.behaviour = EncodingUpstream(body, cut_at=100)
    received = fetch(troubled.port, "/tasks/1/bytes/1024")
    assert (received.body, received.whole) == (body, True)
    assert upstream.exchanges[1].headers["range"] == f"bytes=100-{len(body) - 1}"


@pytest.mark.parametrize("codings", [("gzip", "identity"), ("gzip", "br"), ("identity", "gzip")])
def test_encoded_body_never_resumes_with_another_coding(
    upstream: Misbehaving, troubled: RunningService, codings: tuple[str, ...]
) -> None:
    """A part with another Content-Encoding is another version, even with the same ETag."""
    upstream.behaviour = EncodingUpstream(BODY, cut_at=100)
    upstream.behaviour.codings = itertools.chain(codings, itertools.repeat(codings[-1]))
    received = fetch(troubled.port, "/tasks/1/bytes/1024")
    assert (received.status, received.body, received.whole) == (200, BODY[:100], False)
    assert len(upstream.exchanges) == 2


def test_invalid_content_encoding_returns_502(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """A Content-Encoding that cannot be passed on is a 502: its bytes would be sent bare."""
    upstream.behaviour = answer_with(200, BODY, "content-encoding: gzip; q=1")
    assert troubled.get("/tasks/1/bytes/1024").status_code == 502
    assert troubled.request("HEAD", "/tasks/1/bytes/1024").status_code == 502


# Bodies that end with their connection.


def until_close(sent: bytes, *, status: int = 200, lines: tuple[str, ...] = ()) -> Behaviour:
    async def answering(exchange: Exchange) -> None:
        await exchange.head(status, *lines)
        if exchange.method == "GET":
            await exchange.body(sent)

    return answering


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_body_that_ends_with_connection_is_served(
    upstream: Misbehaving, troubled: RunningService, method: str
) -> None:
    """The size in the path says whether such a body is complete."""
    upstream.behaviour = until_close(BODY)
    received = fetch(troubled.port, "/tasks/1/bytes/1024", method=method)
    assert (received.status, received.headers["content-length"]) == (200, "1024")
    assert received.whole
    assert received.body == (BODY if method == "GET" else b"")


@pytest.mark.parametrize("sent", [b"", BODY[:1], BODY[:1023], BODY + b"x"])
def test_body_that_ends_with_connection_at_another_length_breaks_transfer(
    upstream: Misbehaving, troubled: RunningService, sent: bytes
) -> None:
    """A body cut short of its known length never looks complete, nor does a longer one."""
    upstream.behaviour = until_close(sent)
    received = fetch(troubled.port, "/tasks/1/bytes/1024")
    assert received.status == 200
    assert not received.whole
    assert BODY.startswith(received.body)
    wait_until(lambda: troubled.acquired_connections() == 0)


def test_body_that_ends_with_connection_is_resumed(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """Cut short, such a body goes on at its next byte, in a part that ends the same way."""
    lines = ('etag: "v1"', "accept-ranges: bytes")

    async def cut_once(exchange: Exchange) -> None:
        if "range" in exchange.headers:
            part = (*lines, "content-range: bytes 600-1023/1024")
            await until_close(BODY[600:], status=206, lines=part)(exchange)
        else:
            await until_close(BODY[:600], lines=lines)(exchange)

    upstream.behaviour = cut_once
    received = fetch(troubled.port, "/tasks/1/bytes/1024")
    assert (received.body, received.whole) == (BODY, True)


@pytest.mark.parametrize(("length", "status"), [(None, 502), (1024, 200)])
def test_stream_url_body_that_ends_with_connection_needs_length(
    upstream: Misbehaving, length: int | None, status: int
) -> None:
    """Without a known length a cut body would look complete, so it is a 502."""
    upstream.behaviour = until_close(BODY)
    with host_of(upstream.url + "/x", length) as port:
        assert fetch(port, "/").status == status


@pytest.mark.parametrize(
    "line", ["content-encoding: gzip", "transfer-encoding: gzip", "transfer-encoding: identity"]
)
def test_coded_body_that_ends_with_connection_returns_502(
    upstream: Misbehaving, troubled: RunningService, line: str
) -> None:
    """The known length is not that of a coded body."""
    upstream.behaviour = until_close(BODY, lines=(line,))
    assert fetch(troubled.port, "/tasks/1/bytes/1024").status == 502


@pytest.mark.parametrize("is_direct", [True, False])
def test_range_of_object_that_ends_with_connection_is_served(
    upstream: Misbehaving, service_with: ServiceWith, is_direct: bool
) -> None:
    """The store's Content-Range states the length of a part; without it, a body is a 502."""

    async def answering(exchange: Exchange) -> None:
        sent = BODY[:8] if exchange.path.startswith("/photos/test/2/") else BODY[:9]
        lines = ('etag: "v1"', "content-range: bytes 0-8/1024")
        is_part = "range" in exchange.headers
        await until_close(sent, status=206 if is_part else 200, lines=lines)(exchange)

    upstream.behaviour = answering
    service = service_with(s3_direct=is_direct, max_resumes=1)
    part = fetch(service.port, "/tasks/1/image", headers={"range": "bytes=0-8"})
    assert (part.status, part.body, part.whole) == (206, BODY[:9], True)
    cut = fetch(service.port, "/tasks/2/image", headers={"range": "bytes=0-8"})
    assert (cut.status, cut.whole) == (206, False)
    assert fetch(service.port, "/tasks/1/image").status == 502


# Repeated headers.


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/tasks/1/bytes/1024", "/tasks/1/image"])
@pytest.mark.parametrize("is_direct", [True, False])
def test_repeated_headers_of_upstream_are_joined(
    upstream: Misbehaving, service_with: ServiceWith, method: str, path: str, is_direct: bool
) -> None:
    """`private` stays, although `max-age=600` follows in a header of its own."""
    lines = ["cache-control: private", "cache-control: max-age=600"]
    lines += ["content-language: de", "Content-Language: en"]
    upstream.behaviour = answer_with(200, BODY, 'etag: "v1"', *lines)
    received = fetch(service_with(s3_direct=is_direct).port, path, method=method)
    assert received.status == 200
    assert received.headers["cache-control"] == "private, max-age=600"
    assert received.headers["content-language"] == "de, en"


def test_repeated_validators_of_upstream_count_as_none(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """Two different ETags name no version, so none is sent and nothing is resumed."""
    upstream.behaviour = answer_with(200, BODY, 'etag: "v1"', 'etag: "v2"')
    assert "etag" not in fetch(troubled.port, "/tasks/1/bytes/1024").headers
