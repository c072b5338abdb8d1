"""Downloads in a host's own handlers."""

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
    """Run a host whose every path is answered by `answer`."""
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


def of_store(request: Request, downloads: Starlette) -> Response:
    return stream_object(downloads, f"files/{request.path_params['name']}")


def test_object_under_a_path_of_the_hosts(store: Store) -> None:
    """A host's handler gives any key, with length, type, ranges and conditions."""
    store.put("files/a b.txt", b"0123456789", ContentType="text/plain")
    with hosting(store.url, of_store) as hosted:
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


def test_object_of_another_bucket(store: Store) -> None:
    """A bucket may be named, and is asked like the settings' own."""
    store.client.create_bucket(Bucket="others")
    store.client.put_object(Bucket="others", Key="one", Body=b"elsewhere")

    def of_others(request: Request, downloads: Starlette) -> Response:
        return stream_object(downloads, "one", bucket="others")

    with hosting(store.url, of_others) as hosted:
        assert fetch(hosted.port, "/files/x").body == b"elsewhere"
        assert fetch(hosted.port, "/files/x").body == b"elsewhere"
        assert list(hosted.downloads.state.runtime.serving.buckets._opened) == ["others"]


def of_upstream(upstream: Misbehaving, **options: object) -> Answer:
    def answer(request: Request, downloads: Starlette) -> Response:
        return stream_url(downloads, f"{upstream.url}/{request.path_params['name']}", **options)  # type: ignore[arg-type]

    return answer


def test_body_of_another_service(upstream: Misbehaving) -> None:
    """A host's handler gives any address, asked with its headers, of a length to be told."""

    async def known(exchange: Exchange) -> None:
        await exchange.answer(200, BODY, "content-type: image/png", 'etag: "1"')

    upstream.behaviour = known
    answer = of_upstream(upstream, headers={"authorization": "Bearer ours"})
    with hosting(upstream.url, answer) as hosted:
        received = fetch(hosted.port, "/files/one")
        assert (received.status, received.body, received.whole) == (200, BODY, True)
        assert received.headers["content-length"] == "1024"
        assert received.headers["content-type"] == "image/png"
        assert upstream.exchanges[0].headers["authorization"] == "Bearer ours"


def test_part_of_a_body_whose_length_the_upstream_tells(upstream: Misbehaving) -> None:
    """A range is passed on, and the part that comes is held to what was asked for."""

    async def parts(exchange: Exchange) -> None:
        wanted = exchange.headers["range"]
        stated = {"bytes=-24": "bytes 1000-1023/1024", "bytes=10-": "bytes 11-1023/1024"}
        if wanted not in stated:
            await exchange.answer(416, b"", "content-range: bytes */1024")
            return
        first = int(stated[wanted].split()[1].split("-")[0])
        await exchange.answer(206, BODY[first:], f"content-range: {stated[wanted]}")

    upstream.behaviour = parts
    with hosting(upstream.url, of_upstream(upstream)) as hosted:
        part = fetch(hosted.port, "/files/one", headers={"range": "bytes=-24"})
        assert (part.status, part.body) == (206, BODY[1000:])
        assert part.headers["content-range"] == "bytes 1000-1023/1024"
        assert fetch(hosted.port, "/files/one", headers={"range": "bytes=10-"}).status == 502
        beyond = fetch(hosted.port, "/files/one", headers={"range": "bytes=2000-"})
        assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */1024")


def test_body_of_unknown_length(upstream: Misbehaving) -> None:
    """Chunks are relayed, and what breaks is broken visibly."""

    async def chunks(exchange: Exchange) -> None:
        await exchange.head(200, "transfer-encoding: chunked")
        await exchange.raw(b"400\r\n" + BODY + b"\r\n")
        if exchange.path == "/whole":
            await exchange.raw(b"0\r\n\r\n")

    upstream.behaviour = chunks
    with hosting(upstream.url, of_upstream(upstream)) as hosted:
        assert fetch(hosted.port, "/files/whole").whole
        assert not fetch(hosted.port, "/files/cut").whole


def test_body_of_a_length_that_is_known(upstream: Misbehaving) -> None:
    """Where the host knows it, another one is refused."""

    async def longer(exchange: Exchange) -> None:
        await exchange.answer(200, BODY)

    upstream.behaviour = longer
    with hosting(upstream.url, of_upstream(upstream, length=1000)) as hosted:
        assert fetch(hosted.port, "/files/one").status == 502


def test_body_heals_in_a_hosts_handler(upstream: Misbehaving) -> None:
    """What breaks is continued, of the same version, as on our own routes."""

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
    with hosting(upstream.url, of_upstream(upstream)) as hosted:
        received = fetch(hosted.port, "/files/one")
        assert (received.body, received.whole) == (BODY, True)


def test_broken_body_is_broken_in_a_hosts_handler(upstream: Misbehaving) -> None:
    """What can't be continued is never handed out as a whole."""
    upstream.behaviour = ends_short_of_its_length
    with hosting(upstream.url, of_upstream(upstream)) as hosted:
        assert not fetch(hosted.port, "/files/one").whole


@pytest.mark.parametrize("when", ["before the head", "in the body"])
def test_client_that_leaves_a_hosts_handler_leaves_nothing_open(
    upstream: Misbehaving, when: str, no_garbage_collection: None
) -> None:
    """Fifty times over, connections and places are given back."""

    async def flooding(exchange: Exchange) -> None:
        if when == "before the head":
            await exchange.hang()
        await exchange.head(200, "content-length: 1000000000")
        await exchange.flood()

    upstream.behaviour = flooding
    with hosting(upstream.url, of_upstream(upstream)) as hosted:
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


def test_answer_that_a_host_drops_has_opened_nothing(upstream: Misbehaving) -> None:
    """Only an answer that is sent is opened, so that there is always somebody to close it."""

    def dropping(request: Request, downloads: Starlette) -> Response:
        stream_url(downloads, f"{upstream.url}/one")
        stream_object(downloads, "one")
        return Response("instead")

    with hosting(upstream.url, dropping) as hosted:
        assert fetch(hosted.port, "/files/one").body == b"instead"
        assert upstream.requests == []


def test_headers_of_the_host_replace_the_objects(store: Store) -> None:
    """A host says of its answers what it likes, cookies included; its background task is run."""
    store.put("files/one", b"0123456789", CacheControl="public")
    done: list[str] = []

    def dressed(request: Request, downloads: Starlette) -> Response:
        answer = of_store(request, downloads)
        answer.headers["cache-control"] = "private"
        answer.set_cookie("a", "1")
        answer.set_cookie("b", "2")
        answer.background = BackgroundTask(done.append, "done")
        return answer

    with hosting(store.url, dressed) as hosted:
        received = fetch(hosted.port, "/files/one")
        assert received.body == b"0123456789"
        assert received.headers["cache-control"] == "private"
        assert "b=2" in received.headers["set-cookie"]
        wait_until(lambda: done)


def test_access_is_the_hosts(store: Store) -> None:
    """Tokens are of our own routes: in its handlers a host has decided already."""
    store.put("files/one", b"0123456789")
    with hosting(store.url, of_store, access_tokens=("0123456789abcdef",)) as hosted:
        received = fetch(hosted.port, "/files/one")
        assert received.body == b"0123456789"
        assert received.headers["cache-control"] == "private"


def test_host_that_forgets_the_lifespan_is_told(store: Store) -> None:
    """The same 503 as on our own routes says which line is missing."""
    downloads = create_app(settings_for(store.url))

    async def handler(_: Request) -> Response:
        return stream_object(downloads, "one")

    with serving_app(Starlette(routes=[Route("/", handler)])) as port:
        received = fetch(port, "/")
        assert received.status == 503
        assert b"downloads.router.lifespan_context(downloads)" in received.body


@pytest.mark.parametrize("key", ["", "a/../b", "./a", "..", "a\nb", "x" * 1025, "\udc80"])
def test_key_that_is_none(upstream: Misbehaving, key: str) -> None:
    """A key that could name something else leads nowhere, whoever made it up."""

    def answer(request: Request, downloads: Starlette) -> Response:
        return stream_object(downloads, key)

    with hosting(upstream.url, answer) as hosted:
        assert fetch(hosted.port, "/files/x").status == 404
        assert upstream.requests == []


@pytest.mark.parametrize("bucket", ["", "..", "a/b", "a\nb"])
def test_bucket_that_is_none(upstream: Misbehaving, bucket: str) -> None:
    """A bucket that could name something else is the host's mistake, and asks nobody."""

    def answer(request: Request, downloads: Starlette) -> Response:
        return stream_object(downloads, "other/secret", bucket=bucket)

    with hosting(upstream.url, answer) as hosted:
        assert fetch(hosted.port, "/files/x").status == 500
        assert upstream.requests == []


def test_host_says_nothing_of_how_an_answer_is_framed(store: Store) -> None:
    """Several parts stay several parts, and a problem a problem that no cache keeps."""
    store.put("files/one", b"0123456789", ContentType="text/plain")

    def dressed(request: Request, downloads: Starlette) -> Response:
        answer = of_store(request, downloads)
        answer.headers["content-type"] = "application/pdf"
        answer.headers["cache-control"] = "public, max-age=60"
        answer.headers["content-length"] = "3"
        answer.headers["x-own"] = "1"
        return answer

    with hosting(store.url, dressed) as hosted:
        whole = fetch(hosted.port, "/files/one")
        assert whole.headers["content-type"] == "application/pdf"
        assert (whole.headers["content-length"], whole.body) == ("10", b"0123456789")
        parts = fetch(hosted.port, "/files/one", headers={"range": "bytes=0-1,5-6"})
        assert parts.headers["content-type"].startswith("multipart/byteranges")
        missing = fetch(hosted.port, "/files/none")
        assert missing.headers["content-type"] == "application/problem+json"
        assert missing.headers["cache-control"] == "no-store"
        assert missing.headers["x-own"] == "1"


def test_answer_is_private_unless_the_host_says_otherwise(store: Store) -> None:
    """Whom a handler gives it to is not known here: shared caches are kept out."""
    store.put("files/one", b"0123456789", CacheControl="public, max-age=60")
    with hosting(store.url, of_store) as hosted:
        answer = fetch(hosted.port, "/files/one")
        assert answer.headers["cache-control"] == "private, max-age=60"


def test_query_of_the_host_is_its_own(store: Store) -> None:
    """A host's parameter names no file, and it may have many; in code it can name one."""
    store.put("files/one", b"0123456789")

    def named(request: Request, downloads: Starlette) -> Response:
        return stream_object(downloads, "files/one", download_name="a.txt")

    with hosting(store.url, of_store) as hosted:
        answer = fetch(hosted.port, "/files/one?download=1" + "&a" * 200)
        assert answer.status == 200
        assert "filename" not in answer.headers.get("content-disposition", "")
    with hosting(store.url, named) as hosted:
        answer = fetch(hosted.port, "/files/x")
        assert answer.headers["content-disposition"] == 'attachment; filename="a.txt"'


def test_rest_of_another_length_is_another_version(upstream: Misbehaving) -> None:
    """Where the upstream told the length, the rest has to be of as many bytes in all."""

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
    with hosting(upstream.url, of_upstream(upstream), max_resumes=1) as hosted:
        assert not fetch(hosted.port, "/files/one").whole


def test_body_taken_without_its_answer_fails() -> None:
    """A decorator that makes an answer of its own of the iterator would have an empty one."""
    answer = stream_object(create_app(settings_for("http://127.0.0.1:9")), "one")

    async def taken() -> None:
        async for _ in answer.body_iterator:
            pass

    with pytest.raises(RuntimeError, match="unchanged"):
        asyncio.run(taken())


def test_background_task_waits_for_the_last_byte(upstream: Misbehaving) -> None:
    """It is not run for a client that left or got a problem: what it deletes may be wanted."""
    done: list[str] = []

    async def flooding(exchange: Exchange) -> None:
        if exchange.path == "/none":
            await exchange.answer(404)
            return
        await exchange.head(200, "content-length: 1000000000")
        await exchange.flood()

    def deleting(request: Request, downloads: Starlette) -> Response:
        answer = of_upstream(upstream)(request, downloads)
        answer.background = BackgroundTask(done.append, "done")
        return answer

    upstream.behaviour = flooding
    with hosting(upstream.url, deleting) as hosted:
        connection = connect(hosted.port)
        ask(connection, "/files/one")
        connection.recv(1000)
        abort(connection)
        assert fetch(hosted.port, "/files/none").status == 404
        wait_until(lambda: hosted.downloads.state.runtime.serving.admission.counts() == (0, 0))
    assert done == []


def test_nothing_is_compressed_on_its_way(store: Store) -> None:
    """A host's GZipMiddleware leaves it alone, and parts of it."""
    store.put("files/one", bytes(100_000), ContentType="text/plain")
    with hosting(store.url, of_store, middleware=[Middleware(GZipMiddleware)]) as hosted:
        headers = {"accept-encoding": "gzip"}
        whole = fetch(hosted.port, "/files/one", headers=headers)
        assert whole.headers["content-encoding"] == "identity"
        assert whole.headers["content-length"] == "100000"
        part = fetch(hosted.port, "/files/one", headers={**headers, "range": "bytes=0-9"})
        assert (part.status, part.body) == (206, bytes(10))
        assert part.headers["content-encoding"] == "identity"
