"""Applications in a Starlette host: middleware, error handlers, lifespan, test clients."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers import BrokenTransfer, create_app
from handlers.server import Protocol
from tests.support.behaviours import BODY
from tests.support.client import abort, ask, connect, fetch
from tests.support.components import BUCKET, Store, settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import ServiceProcess, entering, serving_app, wait_until

IMAGE = "/media/tasks/7/image"
PICTURE = BODY * 300
PAGE = {"accept-encoding": "gzip", "origin": "https://page.test"}


async def hello(_: Request) -> Response:
    return PlainTextResponse("hello")


def hosting(*mounts: Starlette, lifespan: bool = True, **options: Any) -> Starlette:
    """Return a host that mounts the first under /media, the second under /other."""
    routes = [Mount(path, one) for path, one in zip(("/media", "/other"), mounts, strict=False)]
    return Starlette(
        routes=[Route("/hello", hello), *routes],
        lifespan=entering(*mounts) if lifespan else None,
        **options,
    )


# Middleware


async def add_host_header(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Any:
    answer = await call_next(request)
    answer.headers["x-host"] = "was here"
    return answer


GZIP = Middleware(GZipMiddleware)
CORS = Middleware(CORSMiddleware, allow_origins=["https://page.test"])
BASE = Middleware(BaseHTTPMiddleware, dispatch=add_host_header)
STACKS = {
    "gzip": [GZIP],
    "cors": [CORS],
    "base": [BASE],
    "all": [GZIP, CORS, BASE],
    "all, other way round": [BASE, CORS, GZIP],
}


@contextmanager
def hosted(url: str, middleware: list[Middleware]) -> Generator[tuple[int, Starlette]]:
    downloads = create_app(settings_for(url, max_resumes=1))
    with serving_app(hosting(downloads, middleware=middleware)) as port:
        yield port, downloads


@pytest.mark.parametrize("stack", STACKS)
def test_image_under_host_middleware_is_unchanged(store: Store, stack: str) -> None:
    """The image keeps its bytes, length, ETag and ranges, and gets the host's headers."""
    store.put("test/7/image.jpg", PICTURE, ContentType="image/jpeg")
    with hosted(store.url, STACKS[stack]) as (port, _):
        answer = fetch(port, IMAGE, headers=PAGE)
        assert (answer.status, answer.body, answer.whole) == (200, PICTURE, True)
        assert answer.headers["content-length"] == str(len(PICTURE))
        assert answer.headers.get("content-encoding", "identity") == "identity"
        assert ("x-host" in answer.headers) == (BASE in STACKS[stack])
        assert ("access-control-allow-origin" in answer.headers) == (CORS in STACKS[stack])
        known = {**PAGE, "range": "bytes=1000-1999", "if-range": answer.headers["etag"]}
        part = fetch(port, IMAGE, headers=known)
        assert (part.status, part.body) == (206, PICTURE[1000:2000])
        head = fetch(port, IMAGE, method="HEAD", headers=PAGE)
        assert head.headers["content-length"] == str(len(PICTURE))
        missing = fetch(port, "/media/tasks/404/image", headers={"origin": "https://page.test"})
        assert json.loads(missing.body)["type"] == "urn:downspout:problem:not-found"


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("type_", ["image/jpeg", "application/octet-stream"])
def test_broken_body_under_host_middleware_breaks_transfer(
    upstream: Misbehaving, stack: str, type_: str
) -> None:
    """The client sees the break, whether or not the type can be compressed."""

    async def breaks(exchange: Exchange) -> None:
        await exchange.head(200, "content-length: 307200", f"content-type: {type_}", 'etag: "1"')
        await exchange.body(PICTURE[:200_000])
        exchange.reset()

    upstream.behaviour = breaks
    with hosted(upstream.url, STACKS[stack]) as (port, _):
        for path in (IMAGE, "/media/tasks/7/bytes/307200"):
            answer = fetch(port, path, headers=PAGE)
            assert (answer.status, answer.whole) == (200, False)


@pytest.mark.parametrize("type_", ["image/jpeg", "application/octet-stream"])
@pytest.mark.parametrize("stack", ["gzip", "base", "all", "all, other way round"])
def test_aborts_under_host_middleware_leave_nothing_open(
    upstream: Misbehaving, stack: str, type_: str, no_garbage_collection: None
) -> None:
    """Some middleware hides a disconnect from the application."""

    async def floods(exchange: Exchange) -> None:
        await exchange.head(200, "content-length: 100000000", f"content-type: {type_}")
        await exchange.flood()

    upstream.behaviour = floods
    with hosted(upstream.url, STACKS[stack]) as (port, downloads):
        for _ in range(10):
            connection = connect(port)
            ask(connection, "/media/tasks/7/bytes/100000000", headers=PAGE)
            assert connection.recv(500)
            abort(connection)
        wait_until(lambda: downloads.state.runtime.serving.admission.counts() == (0, 0))
        wait_until(lambda: not downloads.state.http.connector._acquired)
        wait_until(lambda: all(exchange.is_over for exchange in upstream.exchanges))


def test_gzip_middleware_does_not_compress_whole_or_part(store: Store) -> None:
    """A range of compressed bytes would not fit the uncompressed whole."""
    store.put("test/7/image.jpg", PICTURE, ContentType="application/octet-stream")
    with hosted(store.url, [GZIP]) as (port, _):
        begun = fetch(port, IMAGE, headers=PAGE)
        assert begun.body == PICTURE
        assert begun.headers["content-length"] == str(len(PICTURE))
        known = {**PAGE, "range": "bytes=100-", "if-range": begun.headers["etag"]}
        rest = fetch(port, IMAGE, headers=known)
        assert (rest.status, rest.body) == (206, PICTURE[100:])


@pytest.mark.parametrize("accepted", ["", "identity", None])
def test_uncompressed_response_has_no_content_encoding(store: Store, accepted: str | None) -> None:
    """If no middleware would compress a response, it needs no `identity` (RFC 9110, 8.4)."""
    store.put("test/7/image.jpg", PICTURE, ContentType="application/octet-stream")
    headers = {} if accepted is None else {"accept-encoding": accepted}
    with hosted(store.url, [GZIP]) as (port, _):
        assert "content-encoding" not in fetch(port, IMAGE, headers=headers).headers
    with ServiceProcess(store.environ) as process:  # without GZipMiddleware
        answer = fetch(urlsplit(process.url()).port or 0, "/tasks/7/image", headers=PAGE)
        assert answer.body == PICTURE
        assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("http", ["httptools", "h11", Protocol])
def test_response_under_a_server_alone_has_no_content_encoding(
    store: Store, http: str | type[Protocol]
) -> None:
    """If the server itself calls the application, no answer has `identity`."""
    store.put("test/7/image.jpg", PICTURE, ContentType="application/octet-stream")
    with serving_app(create_app(settings_for(store.url)), http=http) as port:
        for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"range": "bytes=5-"})):
            path, asked = "/tasks/7/image", {**PAGE, **headers}
            answer = fetch(port, path, method=method, headers=asked)
            assert answer.status in (200, 206)
            assert "content-encoding" not in answer.headers


def wrapped(app: Starlette) -> ASGIApp:
    return GZipMiddleware(app)


def added(app: Starlette) -> ASGIApp:
    app.add_middleware(GZipMiddleware)
    return app


def dispatched(app: Starlette) -> ASGIApp:
    async def host(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return GZipMiddleware(host)


@pytest.mark.parametrize("around", [wrapped, added, dispatched])
@pytest.mark.parametrize("http", ["httptools", "h11", Protocol])
def test_gzip_middleware_without_a_mount_does_not_compress(
    store: Store, http: str | type[Protocol], around: Callable[[Starlette], ASGIApp]
) -> None:
    """Middleware around the application, or added to it, does not compress a download."""
    store.put("test/7/image.jpg", PICTURE, ContentType="application/octet-stream")
    with serving_app(around(create_app(settings_for(store.url))), http=http) as port:
        answer = fetch(port, "/tasks/7/image", headers=PAGE)
        assert (answer.status, answer.body) == (200, PICTURE)
        assert answer.headers["content-length"] == str(len(PICTURE))
        assert answer.headers["content-encoding"] == "identity"


# Error handlers


def test_errors_below_mount_are_problems_of_the_service(store: Store) -> None:
    """The host's error handlers apply to the host's own routes alone."""

    async def own(_: Request, error: Exception) -> Response:
        return PlainTextResponse(f"the host's: {error}", 418)

    downloads = create_app(settings_for(store.url))
    host = hosting(downloads, exception_handlers={404: own, 405: own, Exception: own})
    with serving_app(host) as port:
        missing = fetch(port, "/media/tasks/404/image")
        assert (missing.status, missing.headers["content-type"]) == (
            404,
            "application/problem+json",
        )
        wrong = fetch(port, IMAGE, method="POST")
        assert (wrong.status, set(wrong.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})
        assert fetch(port, "/elsewhere").status == 418


# Lifespan


def test_missing_lifespan_returns_503_with_line_to_add(caplog: pytest.LogCaptureFixture) -> None:
    """Each 503 and its log line name the line to add; /healthz and the host still work."""
    caplog.set_level(logging.INFO)
    downloads = create_app(settings_for("http://127.0.0.1:9"))
    with serving_app(hosting(downloads, lifespan=False)) as port:
        for _ in range(5):
            answer = fetch(port, IMAGE)
            assert answer.status == 503
            assert b"downloads.router.lifespan_context(downloads)" in answer.body
        assert fetch(port, "/media/healthz").status == 200
        assert fetch(port, "/hello").body == b"hello"
    logged = [one for one in caplog.records if "enter the lifespan" in one.getMessage()]
    assert len(logged) == 5


def test_lifespan_entered_again_leaves_nothing_open(
    store: Store, recwarn: pytest.WarningsRecorder
) -> None:
    """The second lifespan runs on another event loop."""
    store.put("test/7/image.jpg", PICTURE, ContentType="image/jpeg")
    host = hosting(create_app(settings_for(store.url)))
    for _ in range(2):
        with TestClient(host) as client:
            assert client.get(IMAGE).content == PICTURE
    gc.collect()
    assert not [one for one in recwarn if issubclass(one.category, ResourceWarning)]


def test_two_mounted_applications_use_their_own_stores(
    store: Store, upstream: Misbehaving
) -> None:
    """Each application requests its own store and shows its own metrics."""

    async def other(exchange: Exchange) -> None:
        await exchange.answer(200, b"elsewhere", 'etag: "1"')

    upstream.behaviour = other
    store.put("test/7/image.jpg", PICTURE, ContentType="image/jpeg")
    first, second = create_app(settings_for(store.url)), create_app(settings_for(upstream.url))
    with serving_app(hosting(first, second)) as port:
        assert fetch(port, IMAGE).body == PICTURE
        assert fetch(port, "/other/tasks/7/image").body == b"elsewhere"
        assert upstream.requests == [f"GET /{BUCKET}/test/7/image.jpg"]
        for path in ("/media", "/other"):
            assert b'outcome="complete",route="/tasks/{task_id}/image"} 1.0' in (
                fetch(port, f"{path}/metrics").body
            )


# Test clients


def test_starlette_test_client_downloads_and_aborts(store: Store) -> None:
    """A host's tests can download, request ranges, stream pieces and stop early."""
    store.put("test/7/image.jpg", PICTURE, ContentType="image/jpeg")
    downloads = create_app(settings_for(store.url))
    with TestClient(hosting(downloads)) as client:
        answer = client.get(IMAGE)
        assert (answer.status_code, answer.content) == (200, PICTURE)
        assert client.get(IMAGE, headers={"range": "bytes=-10"}).content == PICTURE[-10:]
        assert client.head(IMAGE).headers["content-length"] == str(len(PICTURE))
        assert client.get("/media/tasks/404/image").status_code == 404
        with client.stream("GET", IMAGE) as streamed:
            assert next(streamed.iter_bytes(1000)) == PICTURE[:1000]
        wait_until(lambda: downloads.state.runtime.serving.admission.counts() == (0, 0))


def test_test_client_without_lifespan_returns_503(store: Store) -> None:
    """A TestClient outside `with` runs no lifespan; the request gets 503 and does not hang."""
    client = TestClient(hosting(create_app(settings_for(store.url))))
    assert client.get(IMAGE).status_code == 503
    assert client.get("/media/healthz").status_code == 200


async def test_httpx_asgi_transport_downloads_and_raises_on_break(upstream: Misbehaving) -> None:
    """A host's async tests use their own event loop, and a broken body raises."""

    async def whole_or_broken(exchange: Exchange) -> None:
        if "/7/" in exchange.path:
            await exchange.answer(200, PICTURE, 'etag: "1"')
            return
        await exchange.head(200, "content-length: 1024", 'etag: "1"')
        await exchange.body(BODY[:1000])

    upstream.behaviour = whole_or_broken
    downloads = create_app(settings_for(upstream.url, max_resumes=1))
    transport = httpx.ASGITransport(hosting(downloads))
    async with (
        downloads.router.lifespan_context(downloads),
        httpx.AsyncClient(transport=transport, base_url="http://host.test") as client,
    ):
        answer = await client.get(IMAGE)
        assert (answer.status_code, answer.content) == (200, PICTURE)
        with pytest.raises(BrokenTransfer):
            await client.get("/media/tasks/8/image")
