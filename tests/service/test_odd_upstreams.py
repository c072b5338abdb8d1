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
