"""`redirect_object` in a host's own handlers: a 307 to a presigned URL."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from handlers import create_app, redirect_object, stream_object
from tests.support.ceph import BODY, ETAG, Ceph
from tests.support.client import Received, ask, connect, fetch
from tests.support.components import BUCKET, Store, settings_for
from tests.support.metrics import parse_samples
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.presigned import PresignedURL
from tests.support.serving import RunningService, entering, serving_app, wait_until

Answer = Callable[[Request, Starlette], Response]

FILE = "/files/one.txt"
KEY = "files/one.txt"


@pytest.fixture(params=[True, False], ids=["direct", "botocore"])
def direct(request: pytest.FixtureRequest) -> bool:
    """Run a test with S3_DIRECT on and off."""
    return bool(request.param)


@dataclass
class Hosted:
    """A host's port, and the application whose clients its handlers use."""

    port: int
    downloads: Starlette


def starlette_host(answer: Answer, downloads: Starlette) -> Starlette:
    """Return a Starlette host whose handler is a coroutine function."""

    async def handler(request: Request) -> Response:
        return answer(request, downloads)

    return Starlette(
        routes=[Route("/files/{name:path}", handler), Mount("/media", downloads)],
        middleware=[Middleware(GZipMiddleware)],
        lifespan=entering(downloads),
    )


def fastapi_host(answer: Answer, downloads: Starlette) -> Starlette:
    """Return a FastAPI host whose handler is a plain function, which runs in a thread."""
    host = FastAPI(lifespan=entering(downloads), openapi_url=None)

    def handler(request: Request) -> Response:
        return answer(request, downloads)

    host.add_api_route("/files/{name:path}", handler, methods=["GET", "HEAD"])
    return host


@contextmanager
def hosting(
    url: str,
    answer: Answer,
    make_host: Callable[[Answer, Starlette], Starlette] = starlette_host,
    **changes: Any,
) -> Generator[Hosted]:
    """Run a host that calls `answer` for each request to /files/{name}."""
    downloads = create_app(settings_for(url, **changes))
    with serving_app(make_host(answer, downloads)) as port:
        yield Hosted(port, downloads)


def redirect_to_file(request: Request, downloads: Starlette) -> Response:
    return redirect_object(downloads, f"files/{request.path_params['name']}")


def presigned(received: Received) -> PresignedURL:
    """Return the URL to which a 307 leads."""
    assert received.status == 307, received.body
    assert received.body == b""
    assert received.headers["content-length"] == "0"
    return PresignedURL(received.headers["location"])


def follow(location: PresignedURL, **headers: str) -> httpx.Response:
    """Request the URL from the store."""
    with httpx.Client(trust_env=False, verify=False) as client:
        return client.get(location.url, headers=headers)


@pytest.mark.parametrize("make_host", [starlette_host, fastapi_host])
@pytest.mark.parametrize("delivery", ["proxy", "redirect"])
def test_redirect_object_redirects_with_either_delivery(
    store: Store, direct: bool, make_host: Callable[[Answer, Starlette], Starlette], delivery: str
) -> None:
    """A host redirects whatever DELIVERY is, and answers all that has no bytes itself."""
    store.put("files/a b.txt", b"0123456789", ContentType="text/plain")
    target = "/files/a%20b.txt"
    changes = {"s3_direct": direct, "delivery": delivery}
    with hosting(store.url, redirect_to_file, make_host, **changes) as hosted:
        answer = fetch(hosted.port, target, headers={"x-request-id": "mine"})
        location = presigned(answer)
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.headers["x-request-id"] == "mine"
        assert "etag" not in answer.headers
        assert location.query["X-Amz-Expires"] == "300"
        assert location.query["X-Amz-Signature"] == location.computed_signature("test")
        part = follow(location, range="bytes=2-4")
        assert (part.status_code, part.content) == (206, b"234")
        assert part.headers["content-type"] == "text/plain"
        head = fetch(hosted.port, target, method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, "10")
        known = {"if-none-match": head.headers["etag"]}
        assert fetch(hosted.port, target, headers=known).status == 304
        assert fetch(hosted.port, target, headers={"if-match": '"x"'}).status == 412
        assert fetch(hosted.port, target, headers={"range": "bytes=10-"}).status == 416
        missing = fetch(hosted.port, "/files/missing")
        assert missing.status == 404
        assert missing.headers["content-type"] == "application/problem+json"


def test_redirect_object_costs_one_head(upstream: Misbehaving, direct: bool) -> None:
    """Presigning sends no request, and the service opens no body."""
    upstream.behaviour = Ceph()
    with hosting(upstream.url, redirect_to_file, s3_direct=direct) as hosted:
        for headers in ({}, {"range": "bytes=0-1,5-6"}, {"if-match": ETAG}):
            assert presigned(fetch(hosted.port, FILE, headers=headers))
    assert upstream.requests == [f"HEAD /{BUCKET}/{KEY}"] * 3


def test_redirect_object_with_bucket_and_name_asks_the_store_for_them(
    store: Store, direct: bool
) -> None:
    """The URL names the other bucket, and the store sends the file name."""
    store.client.create_bucket(Bucket="redirects")
    store.client.put_object(Bucket="redirects", Key="a/ü", Body=b"elsewhere")

    def answer(request: Request, downloads: Starlette) -> Response:
        return redirect_object(
            downloads, "a/ü", bucket="redirects", download_name="Übersicht 1.pdf"
        )

    with hosting(store.url, answer, s3_direct=direct, redirect_lifetime=60) as hosted:
        location = presigned(fetch(hosted.port, FILE))
    assert location.path == "/redirects/a/%C3%BC"
    assert location.query["X-Amz-Expires"] == "60"
    followed = follow(location)
    assert followed.content == b"elsewhere"
    disposition = (
        "attachment; filename=\"_bersicht 1.pdf\"; filename*=UTF-8''%C3%9Cbersicht%201.pdf"
    )
    assert followed.headers["content-disposition"] == disposition


@pytest.mark.parametrize(
    ("name", "sent", "disposition"),
    [
        ("report.pdf", "application/pdf", None),
        ("page.html", "text/html", "attachment"),
        ("archive.tar.gz", "application/octet-stream", None),
    ],
)
def test_redirect_object_without_stored_type_has_type_of_its_extension(
    store: Store, name: str, sent: str, disposition: str | None
) -> None:
    """The store sends the type that stream_object would send."""
    store.put(f"files/{name}", b"body", ContentType="binary/octet-stream")
    with hosting(store.url, redirect_to_file) as hosted:
        followed = follow(presigned(fetch(hosted.port, f"/files/{name}")))
    assert followed.headers["content-type"] == sent
    assert followed.headers.get("content-disposition") == disposition


@pytest.mark.parametrize("key", ["", "a/../b", "./a", "..", "a\nb", "x" * 1025, "\udc80"])
def test_redirect_object_with_invalid_key_returns_404(upstream: Misbehaving, key: str) -> None:
    """The store gets no request for an empty, unsafe or too long key."""

    def answer(request: Request, downloads: Starlette) -> Response:
        return redirect_object(downloads, key)

    with hosting(upstream.url, answer) as hosted:
        assert fetch(hosted.port, FILE).status == 404
    assert upstream.requests == []


@pytest.mark.parametrize("bucket", ["", "..", "a/b", "a\nb"])
def test_redirect_object_with_invalid_bucket_returns_500(
    upstream: Misbehaving, bucket: str
) -> None:
    """An invalid bucket name is an error of the host, and the store gets no request."""

    def answer(request: Request, downloads: Starlette) -> Response:
        return redirect_object(downloads, "one", bucket=bucket)

    with hosting(upstream.url, answer) as hosted:
        assert fetch(hosted.port, FILE).status == 500
    assert upstream.requests == []


def test_redirect_object_without_lifespan_returns_503(upstream: Misbehaving) -> None:
    """The 503 names the line that the host's lifespan needs."""
    downloads = create_app(settings_for(upstream.url))

    async def handler(_: Request) -> Response:
        return redirect_object(downloads, "one")

    with serving_app(Starlette(routes=[Route("/", handler)])) as port:
        received = fetch(port, "/")
    assert received.status == 503
    assert b"downloads.router.lifespan_context(downloads)" in received.body


def test_host_headers_and_background_task_apply_to_the_redirect(store: Store) -> None:
    """A host sets headers and cookies on the 307; its task runs once the 307 was sent."""
    store.put(KEY, b"0123456789")
    done: list[str] = []

    def answer(request: Request, downloads: Starlette) -> Response:
        response = redirect_to_file(request, downloads)
        response.headers["x-own"] = "1"
        response.set_cookie("a", "1")
        response.background = BackgroundTask(done.append, request.url.path)
        return response

    with hosting(store.url, answer) as hosted:
        missing = fetch(hosted.port, "/files/missing")
        assert (missing.status, missing.headers["x-own"]) == (404, "1")
        redirected = fetch(hosted.port, FILE)
        assert presigned(redirected).path == f"/{BUCKET}/{KEY}"
        assert redirected.headers["x-own"] == "1"
        assert redirected.headers["set-cookie"].startswith("a=1")
        wait_until(lambda: done)
    assert done == [FILE]


def test_redirect_object_needs_no_access_token(store: Store) -> None:
    """ACCESS_TOKENS protect the service's own routes; a host authorizes its own requests."""
    store.put(KEY, b"0123456789")
    with hosting(store.url, redirect_to_file, access_tokens=("0123456789abcdef",)) as hosted:
        assert presigned(fetch(hosted.port, FILE))
        assert fetch(hosted.port, "/media/tasks/1/image").status == 401


def test_stream_object_streams_with_delivery_redirect(store: Store, direct: bool) -> None:
    """DELIVERY applies to the service's own routes, not to stream_object."""
    store.put(KEY, b"0123456789")
    store.put("test/1/image.jpg", b"picture")

    def answer(request: Request, downloads: Starlette) -> Response:
        return stream_object(downloads, KEY)

    with hosting(store.url, answer, s3_direct=direct, delivery="redirect") as hosted:
        whole = fetch(hosted.port, FILE)
        assert (whole.status, whole.body) == (200, b"0123456789")
        part = fetch(hosted.port, FILE, headers={"range": "bytes=2-4"})
        assert (part.status, part.body) == (206, b"234")
        mounted = presigned(fetch(hosted.port, "/media/tasks/1/image"))
        assert mounted.path == f"/{BUCKET}/test/1/image.jpg"


def test_locate_hook_decides_where_the_image_route_redirects_to(store: Store) -> None:
    """The image route redirects to the bucket and key that the host's `locate` returns."""
    store.client.create_bucket(Bucket="located")
    store.client.put_object(Bucket="located", Key="seven", Body=b"located")

    async def locate(task_id: int) -> tuple[str, str] | None:
        return ("located", "seven") if task_id == 7 else None

    app = create_app(settings_for(store.url, delivery="redirect"), locate=locate)
    with serving_app(app) as port:
        location = presigned(fetch(port, "/tasks/7/image"))
        assert location.path == "/located/seven"
        assert follow(location).content == b"located"
        assert fetch(port, "/tasks/8/image").status == 404


def test_authorize_hook_refuses_before_the_redirect(upstream: Misbehaving) -> None:
    """A request that `authorize` refuses is a 403 without a request to the store."""
    upstream.behaviour = Ceph()

    async def authorize(request: Request) -> bool:
        return request.headers.get("x-user") == "ada"

    app = create_app(settings_for(upstream.url, delivery="redirect"), authorize=authorize)
    with serving_app(app) as port:
        assert fetch(port, "/tasks/1/image").status == 403
        assert upstream.requests == []
        assert presigned(fetch(port, "/tasks/1/image", headers={"x-user": "ada"}))


def test_redirect_object_holds_no_slot_and_no_connection(
    upstream: Misbehaving, direct: bool
) -> None:
    """With one slot, clients that stay connected are all redirected."""
    upstream.behaviour = Ceph()
    changes: dict[str, Any] = {"s3_direct": direct, "max_downloads": 1, "queue_timeout": 5}
    with hosting(upstream.url, redirect_to_file, **changes) as hosted:
        service = RunningService(hosted.downloads, hosted.port)
        clients = []
        for _ in range(3):
            clients.append(connect(hosted.port))
            clients[-1].sendall(f"GET {FILE} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            assert clients[-1].recv(65_536).startswith(b"HTTP/1.1 307 ")
            wait_until(lambda: service.counts() == (0, 0), seconds=2)
            assert service.acquired_connections() == 0
        for client in clients:
            client.close()


def test_redirect_object_whose_client_leaves_early_releases_its_slot(
    upstream: Misbehaving, direct: bool
) -> None:
    """A client that leaves while the store is silent gives back slot and connection."""
    upstream.behaviour = Exchange.hang
    done: list[str] = []

    def answer(request: Request, downloads: Starlette) -> Response:
        response = redirect_to_file(request, downloads)
        response.background = BackgroundTask(done.append, "done")
        return response

    with hosting(upstream.url, answer, s3_direct=direct) as hosted:
        service = RunningService(hosted.downloads, hosted.port)
        client = connect(hosted.port)
        ask(client, FILE)
        wait_until(lambda: upstream.exchanges)
        client.close()
        wait_until(lambda: service.counts() == (0, 0) and not service.acquired_connections())
    assert done == []


def test_redirect_object_is_logged_and_counted(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    """The log line has status 307 and the host's path, and no part of the presigned URL."""
    caplog.set_level(logging.DEBUG, "downspout")
    upstream.behaviour = Ceph()
    with hosting(upstream.url, redirect_to_file) as hosted:
        location = presigned(fetch(hosted.port, FILE, headers={"x-request-id": "own"}))
        wait_until(lambda: "request_id=own" in caplog.text)
        found = parse_samples(fetch(hosted.port, "/media/metrics").body.decode())
    assert f"GET {FILE} 307 complete 0/0 bytes in " in caplog.text
    assert "X-Amz" not in caplog.text
    assert location.query["X-Amz-Signature"] not in caplog.text
    assert found["downspout_downloads_total complete /files/{name:path}"] == 1


# The host's own S3 client


@contextmanager
def host_with_client(
    url: str, answer: Answer, *, region: str = "eu-central-1", **config: Any
) -> Generator[tuple[int, list[str]]]:
    """Run a host that passes its own aiobotocore client to the application.

    Yield its port, and the names of the operations that the client has sent.
    """
    sent: list[str] = []
    apps: list[Starlette] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            creating = get_session().create_client(
                "s3",
                endpoint_url=url,
                region_name=region,
                aws_access_key_id="hosts-own",
                aws_secret_access_key="hosts-secret",
                config=AioConfig(s3={"addressing_style": "path"}, **config),
            )
            client = await stack.enter_async_context(creating)
            client.meta.events.register(
                "before-call.s3", lambda model, **_: sent.append(model.name)
            )
            # The endpoint and the credentials of the settings have no effect.
            downloads = create_app(settings_for("http://127.0.0.1:9"), s3=client)
            apps.append(downloads)
            async with downloads.router.lifespan_context(downloads):
                yield

    async def handler(request: Request) -> Response:
        return answer(request, apps[0])

    with serving_app(
        Starlette(routes=[Route("/files/{name}", handler)], lifespan=lifespan)
    ) as port:
        yield port, sent


@pytest.mark.parametrize("region", ["eu-central-1", "us-east-1"])
@pytest.mark.parametrize("config", [{"signature_version": "s3v4"}, {}], ids=["s3v4", "default"])
def test_redirect_object_is_presigned_by_the_hosts_client(
    upstream: Misbehaving, config: dict[str, Any], region: str
) -> None:
    """The URL has the endpoint, region and access key of the host's client, and Signature V4.

    By default, botocore presigns with Signature V2, which S3 rejects for buckets made since 2020.
    """
    upstream.behaviour = Ceph()
    with host_with_client(upstream.url, redirect_to_file, region=region, **config) as (port, sent):
        location = presigned(fetch(port, FILE))
        assert fetch(port, FILE, headers={"if-none-match": ETAG}).status == 304
    assert sent == ["HeadObject", "HeadObject"]
    assert location.url.startswith(f"{upstream.url}/{BUCKET}/{KEY}?")
    identifier, _, scope = location.query["X-Amz-Credential"].partition("/")
    assert identifier == "hosts-own"
    assert scope.endswith(f"/{region}/s3/aws4_request")
    assert location.query["X-Amz-Expires"] == "300"
    assert location.query["X-Amz-Signature"] == location.computed_signature("hosts-secret")


def test_stream_object_of_a_host_with_its_own_client_still_streams(upstream: Misbehaving) -> None:
    """Presigning does not change the host's client."""
    upstream.behaviour = Ceph()

    def answer(request: Request, downloads: Starlette) -> Response:
        if "stream" in request.query_params:
            return stream_object(downloads, KEY)
        return redirect_object(downloads, KEY)

    with host_with_client(upstream.url, answer) as (port, sent):
        assert presigned(fetch(port, FILE))
        assert fetch(port, FILE + "?stream").body == BODY
        assert presigned(fetch(port, FILE))
    assert sent == ["HeadObject", "GetObject", "HeadObject"]
