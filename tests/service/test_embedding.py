"""Clients, `authorize` and `locate` that a host passes to `create_app`."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import anyio
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Mount

from handlers import create_app, sign_url
from tests.support.behaviours import BODY
from tests.support.client import abort, ask, asked, connect, fetch, read_answer
from tests.support.components import Store, settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, ServiceProcess, serving_app, wait_until

IMAGE = "/tasks/7/image"
KEY = "a:0123456789abcdef"

# The maximum number of threads in which an application runs synchronous hooks.
MAX_THREADS = 40

Location = str | tuple[str, str] | None


@contextmanager
def embedded(
    url: str, *, changes: dict[str, Any] | None = None, **given: Any
) -> Generator[RunningService]:
    """Run an application whose host passes `given` to `create_app`."""
    app = create_app(settings_for(url, **(changes or {})), **given)
    with serving_app(app) as port:
        yield RunningService(app, port)


# The authorize hook


async def async_authorize(request: Request) -> bool:
    return request.headers.get("x-user") == "ada"


def plain_authorize(request: Request) -> bool:
    assert threading.current_thread() is not threading.main_thread()
    return request.headers.get("x-user") == "ada"


class AuthorizeObject:
    async def __call__(self, request: Request) -> bool:
        return await async_authorize(request)


@pytest.mark.parametrize("authorize", [async_authorize, plain_authorize, AuthorizeObject()])
def test_authorize_hook_false_returns_403(store: Store, authorize: Any) -> None:
    """The hook may be async, sync or an object, and runs before the store request."""
    store.put("test/7/image.jpg", b"picture", CacheControl="public")
    with embedded(store.url, authorize=authorize) as service:
        authorized = service.get(IMAGE, headers={"x-user": "ada"})
        assert authorized.content == b"picture"
        assert authorized.headers["cache-control"] == "private"
        for path in (IMAGE, "/tasks/8/image"):
            refused = service.get(path, headers={"x-user": "eve"})
            assert refused.status_code == 403
            assert refused.json()["type"] == "urn:downspout:problem:not-authorized"
        assert service.get("/healthz").status_code == 200


def test_signed_url_or_authorize_hook_is_enough(store: Store) -> None:
    """The service calls the hook only if the URL has no valid signature."""
    store.put("test/7/image.jpg", b"picture")
    changes = {"url_signing_keys": (KEY,)}
    with embedded(store.url, changes=changes, authorize=async_authorize) as service:
        assert service.get(sign_url(IMAGE, KEY, lifetime=60)).status_code == 200
        assert service.get(IMAGE, headers={"x-user": "ada"}).status_code == 200
        assert service.get(IMAGE).status_code == 403


def test_authorize_hook_http_exception_becomes_problem(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook's HTTPException sets status, detail and headers; the log says refused."""
    caplog.set_level(logging.INFO, "downspout")

    async def authorize(request: Request) -> bool:
        raise HTTPException(401, "Log in first.", {"www-authenticate": "Own"})

    with embedded(store.url, authorize=authorize) as service:
        refused = service.get(IMAGE, headers={"x-request-id": "own"})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Own"
        assert refused.json()["detail"] == "Log in first."
        wait_until(lambda: "request_id=own" in caplog.text)
        assert f"GET {IMAGE} 401 refused" in caplog.text


def test_authorize_hook_error_returns_500(store: Store) -> None:
    """An exception in the hook does not authorize the request."""

    def authorize(request: Request) -> bool:
        raise ZeroDivisionError

    with embedded(store.url, authorize=authorize) as service:
        assert service.get(IMAGE).status_code == 500


# The locate hook


LOCATIONS: dict[int, Location] = {
    1: "elsewhere/one",
    2: ("others", "two"),
    3: None,
    4: "../other/bucket",
    5: ("no-such-bucket", "x"),
}


async def async_locate(task_id: int) -> Location:
    if task_id == 6:
        raise HTTPException(410, "It is gone.")
    return LOCATIONS[task_id]


def plain_locate(task_id: int) -> Location:
    assert threading.current_thread() is not threading.main_thread()
    if task_id == 6:
        raise HTTPException(410, "It is gone.")
    return LOCATIONS[task_id]


@pytest.fixture
def buckets(store: Store) -> Store:
    store.put("elsewhere/one", b"one")
    store.client.create_bucket(Bucket="others")
    store.client.put_object(Bucket="others", Key="two", Body=b"two")
    return store


@pytest.mark.parametrize("locate", [async_locate, plain_locate])
def test_locate_hook_returns_key_bucket_or_404(buckets: Store, locate: Any) -> None:
    """The hook returns a key, a bucket and key, or None, or raises an HTTPException."""
    with embedded(buckets.url, locate=locate) as service:
        assert service.get("/tasks/1/image").content == b"one"
        part = service.get("/tasks/2/image", headers={"range": "bytes=1-"})
        assert (part.status_code, part.content) == (206, b"wo")
        missing = service.get("/tasks/3/image")
        assert missing.json()["type"] == "urn:downspout:problem:not-found"
        gone = service.get("/tasks/6/image")
        assert (gone.status_code, gone.json()["detail"]) == (410, "It is gone.")
        assert service.get("/tasks/x/image").status_code == 404


@pytest.mark.parametrize(("task_id", "status"), [(4, 500), (5, 502), (99, 500)])
def test_invalid_location_returns_error(buckets: Store, task_id: int, status: int) -> None:
    """An unsafe key or an exception in the hook is a 500; a missing bucket is a 502."""
    with embedded(buckets.url, locate=async_locate) as service:
        assert service.get(f"/tasks/{task_id}/image").status_code == status


@pytest.mark.parametrize("hook", ["authorize", "locate"])
def test_blocked_sync_hooks_use_bounded_threads(buckets: Store, hook: str) -> None:
    """Clients that abort do not leave a thread each; a client that waits gets 504."""
    over = threading.Event()

    def waiting(_: object) -> Any:
        over.wait(60)
        return None

    changes = {"first_byte_timeout": 0.3, "max_downloads": 100}
    with embedded(buckets.url, changes=changes, **{hook: waiting}) as service:
        before = threading.active_count()
        try:
            assert service.get("/tasks/1/image").status_code == 504
            for _ in range(80):
                connection = connect(service.port)
                ask(connection, "/tasks/1/image")
                abort(connection)
            wait_until(lambda: service.counts() == (0, 0))
            assert threading.active_count() <= before + MAX_THREADS
        finally:
            over.set()


# A host whose hook never returns. uvicorn raises SIGTERM again at its end; this host ignores that
# and returns from its main module, as service.py does.
BLOCKED = """
import signal, sys, threading, uvicorn
from handlers import Settings, create_app

def blocked(_):
    print("blocked", flush=True)
    threading.Event().wait()

settings = Settings(s3_image_bucket="photos", s3_region="eu-central-1", first_byte_timeout=0.5)
app = create_app(settings, **{sys.argv[1]: blocked})
signal.signal(signal.SIGTERM, lambda *_: None)
uvicorn.run(app, port=0, timeout_graceful_shutdown=1)
print("returned", flush=True)
"""


@pytest.mark.parametrize("hook", ["authorize", "locate"])
@pytest.mark.parametrize("is_answered", [True, False])
def test_process_with_a_hook_that_never_returns_exits(hook: str, is_answered: bool) -> None:
    """A hook that never returns is a 504 in time, and does not keep the process from exiting."""
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with ServiceProcess(credentials, "-c", BLOCKED, hook) as process:
        line = process.wait_for_line("running on ")
        port = int(line.split("running on ")[1].split(" ")[0].rsplit(":", 1)[1])
        with asked(port, IMAGE) as client:
            process.wait_for_line("blocked")
            if is_answered:
                assert read_answer(client).status == 504
            process.process.send_signal(signal.SIGTERM)
            process.wait_for_line("returned")
            assert process.end() == 0


async def never(_: object) -> Any:
    await anyio.sleep_forever()


def test_blocked_authorize_hook_returns_504(buckets: Store) -> None:
    """FIRST_BYTE_TIMEOUT includes the authorize hook."""
    with embedded(buckets.url, changes={"first_byte_timeout": 0.2}, authorize=never) as service:
        assert service.get("/tasks/1/image").status_code == 504


def test_locate_hook_404_keeps_its_detail(buckets: Store) -> None:
    """The client gets the detail of the host's own HTTPException."""

    async def locate(task_id: int) -> Location:
        raise HTTPException(404, "No such picture.")

    with embedded(buckets.url, locate=locate) as service:
        assert service.get("/tasks/1/image").json()["detail"] == "No such picture."


def test_blocked_locate_hook_returns_504(buckets: Store) -> None:
    """FIRST_BYTE_TIMEOUT includes the locate hook."""

    async def locate(task_id: int) -> Location:
        del task_id
        await anyio.sleep_forever()
        return None

    with embedded(buckets.url, changes={"first_byte_timeout": 0.2}, locate=locate) as service:
        assert service.get("/tasks/1/image").status_code == 504


# The host's clients


@contextmanager
def host_with_clients(
    url: str, **options: Any
) -> Generator[tuple[int, Starlette, dict[str, Any]]]:
    """Run a host that passes its own clients to the application."""
    clients: dict[str, Any] = {}
    mounts = Mount("/media", Starlette())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            client = get_session().create_client(
                "s3",
                endpoint_url=url,
                region_name="us-east-1",
                aws_access_key_id="test",
                aws_secret_access_key="test",
                config=AioConfig(signature_version="s3v4", s3={"addressing_style": "path"}),
            )
            clients["s3"] = await stack.enter_async_context(client)
            clients["http"] = await stack.enter_async_context(aiohttp.ClientSession(**options))
            downloads = create_app(settings_for(url), s3=clients["s3"], http=clients["http"])
            clients["app"] = mounts.app = downloads
            async with downloads.router.lifespan_context(downloads):
                yield
            assert not clients["http"].closed

    host = Starlette(routes=[mounts], lifespan=lifespan)
    with serving_app(host) as port:
        yield port, host, clients


def test_host_clients_are_used_and_not_closed(store: Store) -> None:
    """All requests go through the host's clients, and only the host closes them."""
    store.put("test/7/image.jpg", BODY, ContentType="image/jpeg")
    with host_with_clients(store.url) as (port, _, clients):
        asked: list[str] = []
        clients["s3"].meta.events.register(
            "before-call.s3.GetObject", lambda **_: asked.append("GetObject")
        )
        received = fetch(port, f"/media{IMAGE}")
        assert (received.status, received.body, received.whole) == (200, BODY, True)
        part = fetch(port, f"/media{IMAGE}", headers={"range": "bytes=1000-"})
        assert part.body == BODY[1000:]
        assert asked == ["GetObject"] * 2
        assert clients["app"].state.http is clients["http"]
        assert fetch(port, "/media/readyz").status == 200


def test_host_session_options_do_not_affect_downloads(upstream: Misbehaving) -> None:
    """Decompression, raise_for_status and the session's total timeout are overridden."""

    async def slow(exchange: Exchange) -> None:
        if exchange.path.endswith("404"):
            await exchange.answer(404)
            return
        await exchange.head(200, "content-length: 1024")
        for first in range(0, 1024, 256):
            await exchange.body(BODY[first : first + 256])
            await exchange.pause(0.15)

    upstream.behaviour = slow
    options = {"raise_for_status": True, "timeout": aiohttp.ClientTimeout(total=0.3)}
    with host_with_clients(upstream.url, **options) as (port, _, _):
        received = fetch(port, "/media/tasks/1/bytes/1024")
        assert (received.status, received.body, received.whole) == (200, BODY, True)
        assert fetch(port, "/media/tasks/1/bytes/404").status == 404
        assert upstream.exchanges[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("path", [IMAGE, "/tasks/7/bytes/1000000000"])
def test_aborts_release_connections_of_host_clients(
    upstream: Misbehaving, path: str, no_garbage_collection: None
) -> None:
    """After 50 aborts, the host's pools have all connections back."""

    async def flooding(exchange: Exchange) -> None:
        await exchange.head(200, "content-length: 1000000000", 'etag: "1"')
        await exchange.flood()

    upstream.behaviour = flooding
    with host_with_clients(upstream.url) as (port, _, clients):
        for _ in range(50):
            connection = connect(port)
            ask(connection, f"/media{path}")
            connection.recv(1000)
            abort(connection)
        sessions = clients["s3"]._endpoint.http_session._sessions.values()
        connectors = [clients["http"].connector, *(session.connector for session in sessions)]
        wait_until(lambda: not any(connector._acquired for connector in connectors))
