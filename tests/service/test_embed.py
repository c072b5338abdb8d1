"""`stream_object` and `stream_url` in a host's own handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handlers import create_app, stream_object, stream_url
from tests.support.behaviours import BODY, ends_short_of_its_length
from tests.support.client import abort, ask, connect, fetch
from tests.support.components import Store, settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import entering, serving_app, wait_until

Answer = Callable[[Request, Starlette], Response]


@dataclass
class Hosted:
    """A host's port, and the application whose clients its handlers use."""

    port: int
    downloads: Starlette


@contextmanager
def hosting(
    url: str, answer: Answer, *, middleware: Sequence[Middleware] = (), **changes: object
) -> Generator[Hosted]:
    """Run a host that calls `answer` for each request to /files/{name}."""
    downloads = create_app(settings_for(url, **changes))

    async def handler(request: Request) -> Response:
        return answer(request, downloads)

    host = Starlette(
        routes=[Route("/files/{name}", handler)],
        middleware=middleware,
        lifespan=entering(downloads),
    )
    with serving_app(host) as port:
        yield Hosted(port, downloads)


def answer_from_store(request: Request, downloads: Starlette) -> Response:
    return stream_object(downloads, f"files/{request.path_params['name']}")


def test_stream_object_serves_ranges_conditions_and_head(store: Store) -> None:
    """A host's handler can serve any key with length, type, ranges and conditions."""
    store.put("files/a b.txt", b"0123456789", ContentType="text/plain")
    with hosting(store.url, answer_from_store) as hosted:
        answer = fetch(hosted.port, "/files/a%20b.txt", headers={"x-request-id": "mine"})
        assert (answer.status, answer.body) == (200, b"0123456789")
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["x-request-id"] == "mine"
        part = fetch(hosted.port, "/files/a%20b.txt", headers={"range": "bytes=2-4"})
        assert (part.status, part.body) == (206, b"234")
        known = {"if-none-match": answer.headers["etag"]}
        assert fetch(hosted.port, "/files/a%20b.txt", headers=known).status == 304
        head = fetch(hosted.port, "/files/a%20b.txt", method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, "10")
        missing = fetch(hosted.port, "/files/none")
        assert missing.status == 404
        assert missing.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("report.pdf", "application/pdf"),
        ("PICTURE.PNG", "image/png"),
        ("clip.webp", "image/webp"),
        ("archive.tar.gz", "application/octet-stream"),
        ("page.html", "text/html"),
        ("none", "application/octet-stream"),
        (".png", "application/octet-stream"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_object_without_type_gets_the_type_of_its_extension(
    store: Store, name: str, sent: str, method: str
) -> None:
    """S3 says binary/octet-stream; the extension of the key says more."""
    store.put(f"files/{name}", b"body", ContentType="binary/octet-stream")
    with hosting(store.url, answer_from_store) as hosted:
        headers = fetch(hosted.port, f"/files/{name}", method=method).headers
    assert headers["content-type"] == sent
    assert ("content-security-policy" in headers) == (sent == "text/html")


def test_stream_object_with_bucket_opens_it_once(store: Store) -> None:
    """Two requests for an object in another bucket open that bucket once."""
    store.client.create_bucket(Bucket="others")
    store.client.put_object(Bucket="others", Key="one", Body=b"elsewhere")

    def answer_from_other_bucket(request: Request, downloads: Starlette) -> Response:
        return stream_object(downloads, "one", bucket="others")

    with hosting(store.url, answer_from_other_bucket) as hosted:
        assert fetch(hosted.port, "/files/x").body == b"elsewhere"
        assert fetch(hosted.port, "/files/x").body == b"elsewhere"
        assert list(hosted.downloads.state.runtime.serving.buckets._opened) == ["others"]


def make_upstream_answer(upstream: Misbehaving, **options: object) -> Answer:
    def answer(request: Request, downloads: Starlette) -> Response:
        return stream_url(downloads, f"{upstream.url}/{request.path_params['name']}", **options)  # type: ignore[arg-type]

    return answer


def test_stream_url_with_headers_serves_upstream_body(upstream: Misbehaving) -> None:
    """The upstream gets the host's headers, and its Content-Length reaches the client."""

    async def known(exchange: Exchange) -> None:
        await exchange.answer(200, BODY, "content-type: image/png", 'etag: "1"')

    upstream.behaviour = known
    answer = make_upstream_answer(upstream, headers={"authorization": "Bearer ours"})
    with hosting(upstream.url, answer) as hosted:
        received = fetch(hosted.port, "/files/one")
        assert (received.status, received.body, received.whole) == (200, BODY, True)
        assert received.headers["content-length"] == "1024"
        assert received.headers["content-type"] == "image/png"
        assert upstream.exchanges[0].headers["authorization"] == "Bearer ours"


def test_stream_url_range_mismatch_returns_502(upstream: Misbehaving) -> None:
    """Range is forwarded, and a part other than the requested range is a 502."""

    async def parts(exchange: Exchange) -> None:
        wanted = exchange.headers["range"]
        stated = {"bytes=-24": "bytes 1000-1023/1024", "bytes=10-": "bytes 11-1023/1024"}
        if wanted not in stated:
            await exchange.answer(416, b"", "content-range: bytes */1024")
            return
        first = int(stated[wanted].split()[1].split("-")[0])
        await exchange.answer(206, BODY[first:], f"content-range: {stated[wanted]}")

    upstream.behaviour = parts
    with hosting(upstream.url, make_upstream_answer(upstream)) as hosted:
        part = fetch(hosted.port, "/files/one", headers={"range": "bytes=-24"})
        assert (part.status, part.body) == (206, BODY[1000:])
        assert part.headers["content-range"] == "bytes 1000-1023/1024"
        assert fetch(hosted.port, "/files/one", headers={"range": "bytes=10-"}).status == 502
        beyond = fetch(hosted.port, "/files/one", headers={"range": "bytes=2000-"})
        assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */1024")


def test_stream_url_chunked_body_completes_or_breaks_transfer(upstream: Misbehaving) -> None:
    """A chunked body without its last chunk never looks whole."""

    async def chunks(exchange: Exchange) -> None:
        await exchange.head(200, "transfer-encoding: chunked")
        await exchange.raw(b"400\r\n" + BODY + b"\r\n")
        if exchange.path == "/whole":
            await exchange.raw(b"0\r\n\r\n")

    upstream.behaviour = chunks
    with hosting(upstream.url, make_upstream_answer(upstream)) as hosted:
        assert fetch(hosted.port, "/files/whole").whole
        assert not fetch(hosted.port, "/files/cut").whole


def test_stream_url_with_other_length_returns_502(upstream: Misbehaving) -> None:
    """An upstream Content-Length other than the host's `length` is a 502."""

    async def longer(exchange: Exchange) -> None:
        await exchange.answer(200, BODY)

    upstream.behaviour = longer
    with hosting(upstream.url, make_upstream_answer(upstream, length=1000)) as hosted:
        assert fetch(hosted.port, "/files/one").status == 502


def test_stream_url_body_interrupted_once_is_resumed(upstream: Misbehaving) -> None:
    """The service resumes a body of the same version, as on its own routes."""

    async def breaks_once(exchange: Exchange) -> None:
        headers = ("accept-ranges: bytes", 'etag: "1"')
        if "range" not in exchange.headers:
            await exchange.head(200, "content-length: 1024", *headers)
            await exchange.body(BODY[:600])
            exchange.reset()
            return
        stated = "content-range: bytes 600-1023/1024"
        await exchange.answer(206, BODY[600:], stated, *headers)

    upstream.behaviour = breaks_once
    with hosting(upstream.url, make_upstream_answer(upstream)) as hosted:
        received = fetch(hosted.port, "/files/one")
        assert (received.body, received.whole) == (BODY, True)


def test_stream_url_body_that_cannot_resume_breaks_transfer(upstream: Misbehaving) -> None:
    """A body that the service cannot resume never looks whole."""
    upstream.behaviour = ends_short_of_its_length
    with hosting(upstream.url, make_upstream_answer(upstream)) as hosted:
        assert not fetch(hosted.port, "/files/one").whole


@pytest.mark.parametrize("when", ["before the head", "in the body"])
def test_aborts_in_host_handler_release_connections_and_slots(
    upstream: Misbehaving, when: str, no_garbage_collection: None
) -> None:
    """After 50 aborts, all connections and slots are free."""

    async def flooding(exchange: Exchange) -> None:
        if when == "before the head":
            await exchange.hang()
        await exchange.head(200, "content-length: 1000000000")
        await exchange.flood()

    upstream.behaviour = flooding
    with hosting(upstream.url, make_upstream_answer(upstream)) as hosted:
        state = hosted.downloads.state
        for number in range(50):
            connection = connect(hosted.port)
            ask(connection, "/files/one")
            if when == "before the head":
                wait_until(lambda number=number: len(upstream.requests) > number)
            else:
                connection.recv(1000)
            abort(connection)
        wait_until(lambda: not state.http.connector._acquired)
        wait_until(lambda: state.runtime.serving.admission.counts() == (0, 0))


def test_response_dropped_by_host_opens_no_connection(upstream: Misbehaving) -> None:
    """Only sending a response opens a connection, so that one is always closed."""

    def answer_without_download(request: Request, downloads: Starlette) -> Response:
        stream_url(downloads, f"{upstream.url}/one")
        stream_object(downloads, "one")
        return Response("instead")

    with hosting(upstream.url, answer_without_download) as hosted:
        assert fetch(hosted.port, "/files/one").body == b"instead"
        assert upstream.requests == []


def test_host_headers_replace_object_headers(store: Store) -> None:
    """A host can set headers, cookies and a background task on the response."""
    store.put("files/one", b"0123456789", CacheControl="public")
    done: list[str] = []

    def answer_with_host_headers(request: Request, downloads: Starlette) -> Response:
        answer = answer_from_store(request, downloads)
        answer.headers["cache-control"] = "private"
        answer.set_cookie("a", "1")
        answer.set_cookie("b", "2")
        answer.background = BackgroundTask(done.append, "done")
        return answer

    with hosting(store.url, answer_with_host_headers) as hosted:
        received = fetch(hosted.port, "/files/one")
        assert received.body == b"0123456789"
        assert received.headers["cache-control"] == "private"
        assert "b=2" in received.headers["set-cookie"]
        wait_until(lambda: done)


def test_host_handler_needs_no_access_token(store: Store) -> None:
    """ACCESS_TOKENS protect the service's own routes; a host authorizes its own requests."""
    store.put("files/one", b"0123456789")
    with hosting(store.url, answer_from_store, access_tokens=("0123456789abcdef",)) as hosted:
        received = fetch(hosted.port, "/files/one")
        assert received.body == b"0123456789"
        assert received.headers["cache-control"] == "private"


def test_host_without_lifespan_returns_503_with_line_to_add(store: Store) -> None:
    """The 503 names the line that the host's lifespan needs."""
    downloads = create_app(settings_for(store.url))

    async def handler(_: Request) -> Response:
        return stream_object(downloads, "one")

    with serving_app(Starlette(routes=[Route("/", handler)])) as port:
        received = fetch(port, "/")
        assert received.status == 503
        assert b"downloads.router.lifespan_context(downloads)" in received.body


@pytest.mark.parametrize("key", ["", "a/../b", "./a", "..", "a\nb", "x" * 1025, "\udc80"])
def test_invalid_key_returns_404(upstream: Misbehaving, key: str) -> None:
    """The store gets no request for an empty, unsafe or too long key."""

    def answer(request: Request, downloads: Starlette) -> Response:
        return stream_object(downloads, key)

    with hosting(upstream.url, answer) as hosted:
        assert fetch(hosted.port, "/files/x").status == 404
        assert upstream.requests == []


@pytest.mark.parametrize("bucket", ["", "..", "a/b", "a\nb"])
def test_invalid_bucket_returns_500(upstream: Misbehaving, bucket: str) -> None:
    """An invalid bucket name is an error of the host, and the store gets no request."""

    def answer(request: Request, downloads: Starlette) -> Response:
        return stream_object(downloads, "other/secret", bucket=bucket)

    with hosting(upstream.url, answer) as hosted:
        assert fetch(hosted.port, "/files/x").status == 500
        assert upstream.requests == []


def test_host_headers_do_not_change_framing_or_problems(store: Store) -> None:
    """Content-Length, multipart type and problem type stay the service's own."""
    store.put("files/one", b"0123456789", ContentType="text/plain")

    def answer_with_host_headers(request: Request, downloads: Starlette) -> Response:
        answer = answer_from_store(request, downloads)
        answer.headers["content-type"] = "application/pdf"
        answer.headers["cache-control"] = "public, max-age=60"
        answer.headers["content-length"] = "3"
        answer.headers["x-own"] = "1"
        return answer

    with hosting(store.url, answer_with_host_headers) as hosted:
        whole = fetch(hosted.port, "/files/one")
        assert whole.headers["content-type"] == "application/pdf"
        assert (whole.headers["content-length"], whole.body) == ("10", b"0123456789")
        parts = fetch(hosted.port, "/files/one", headers={"range": "bytes=0-1,5-6"})
        assert parts.headers["content-type"].startswith("multipart/byteranges")
        missing = fetch(hosted.port, "/files/missing")
        assert missing.headers["content-type"] == "application/problem+json"
        assert missing.headers["cache-control"] == "no-store"
        assert missing.headers["x-own"] == "1"


def test_host_handler_response_is_private_by_default(store: Store) -> None:
    """Only the host knows who may see the response, so shared caches must not store it."""
    store.put("files/one", b"0123456789", CacheControl="public, max-age=60")
    with hosting(store.url, answer_from_store) as hosted:
        answer = fetch(hosted.port, "/files/one")
        assert answer.headers["cache-control"] == "private, max-age=60"


def test_host_query_parameters_are_ignored(store: Store) -> None:
    """A `download` parameter sets no filename in a host's handler; `download_name` does."""
    store.put("files/one", b"0123456789")

    def answer_with_name(request: Request, downloads: Starlette) -> Response:
        return stream_object(downloads, "files/one", download_name="a.txt")

    with hosting(store.url, answer_from_store) as hosted:
        answer = fetch(hosted.port, "/files/one?download=1" + "&a" * 200)
        assert answer.status == 200
        assert "filename" not in answer.headers.get("content-disposition", "")
    with hosting(store.url, answer_with_name) as hosted:
        answer = fetch(hosted.port, "/files/x")
        assert answer.headers["content-disposition"] == 'attachment; filename="a.txt"'


def test_resuming_206_of_other_total_length_breaks_transfer(upstream: Misbehaving) -> None:
    """A 206 with another total length is of another version of the object."""

    async def replaced(exchange: Exchange) -> None:
        if "range" not in exchange.headers:
            dated = "last-modified: Mon, 23 Nov 2026 08:10:14 GMT"
            now = "date: Wed, 25 Nov 2026 08:10:14 GMT"
            await exchange.head(200, "content-length: 1024", "accept-ranges: bytes", dated, now)
            await exchange.body(BODY[:600])
            exchange.reset()
            return
        await exchange.answer(206, BODY[600:], "content-range: bytes 600-1023/5000")

    upstream.behaviour = replaced
    with hosting(upstream.url, make_upstream_answer(upstream), max_resumes=1) as hosted:
        assert not fetch(hosted.port, "/files/one").whole


def test_body_iterator_without_its_response_raises() -> None:
    """A decorator that copies the iterator into its own response would send no bytes."""
    answer = stream_object(create_app(settings_for("http://127.0.0.1:9")), "one")

    async def read_body() -> None:
        async for _ in answer.body_iterator:
            pass

    with pytest.raises(RuntimeError, match="unchanged"):
        asyncio.run(read_body())


def test_background_task_of_incomplete_download_does_not_run(upstream: Misbehaving) -> None:
    """The task may delete a file that the client still needs after an abort or an error."""
    done: list[str] = []

    async def flooding(exchange: Exchange) -> None:
        if exchange.path == "/none":
            await exchange.answer(404)
            return
        await exchange.head(200, "content-length: 1000000000")
        await exchange.flood()

    def answer_with_task(request: Request, downloads: Starlette) -> Response:
        answer = make_upstream_answer(upstream)(request, downloads)
        answer.background = BackgroundTask(done.append, "done")
        return answer

    upstream.behaviour = flooding
    with hosting(upstream.url, answer_with_task) as hosted:
        connection = connect(hosted.port)
        ask(connection, "/files/one")
        connection.recv(1000)
        abort(connection)
        assert fetch(hosted.port, "/files/none").status == 404
        wait_until(lambda: hosted.downloads.state.runtime.serving.admission.counts() == (0, 0))
    assert done == []


def test_host_gzip_middleware_does_not_compress_downloads(store: Store) -> None:
    """GZipMiddleware leaves whole objects and parts unchanged."""
    store.put("files/one", bytes(100_000), ContentType="text/plain")
    with hosting(store.url, answer_from_store, middleware=[Middleware(GZipMiddleware)]) as hosted:
        headers = {"accept-encoding": "gzip"}
        whole = fetch(hosted.port, "/files/one", headers=headers)
        assert whole.headers["content-encoding"] == "identity"
        assert whole.headers["content-length"] == "100000"
        part = fetch(hosted.port, "/files/one", headers={**headers, "range": "bytes=0-9"})
        assert (part.status, part.body) == (206, bytes(10))
        assert part.headers["content-encoding"] == "identity"
