"""Connections to a store and an upstream over TLS: how they are closed, and how they close."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from starlette.applications import Starlette
from starlette.routing import Mount

from handlers import create_app
from tests.support.certificates import certified_server
from tests.support.client import abort, ask, connect, fetch, read_slowly
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving, reset, running
from tests.support.serving import Loop, open_descriptors, serving, serving_app, wait_until
from tests.support.tls import TlsWriter

SIZE = 2_000_000
IMAGE = "/tasks/1/image"
BYTES = f"/tasks/1/bytes/{SIZE}"

# Each connects a few times before its answer.
REQUESTS = 12

on_both_loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """Return the CA bundle of a private authority, and a TLS context that it has certified."""
    return certified_server(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def upstream(certified: tuple[Path, ssl.SSLContext]) -> Generator[Misbehaving]:
    """Run a store and upstream that speaks TLS."""
    with running(Misbehaving(tls=certified[1])) as server:
        yield server


@contextmanager
def own_clients(url: str, bundle: Path, loop: Loop, *, direct: bool) -> Generator[int]:
    """Run the service with its own clients for a store and upstream at `url`; yield its port."""
    with pytest.MonkeyPatch.context() as patch:
        # aiohttp makes its TLS context when it is imported.
        context = ssl.create_default_context(cafile=str(bundle))
        patch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", context)
        settings = settings_for(url, s3_direct=direct, s3_tls_verify=str(bundle))
        with serving(settings, loop=loop) as service:
            yield service.port


@contextmanager
def host_clients(upstream: Misbehaving, bundle: Path, loop: Loop) -> Generator[int]:
    """Run the service with the clients of a host; yield its port."""
    mount = Mount("/", Starlette())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        context = ssl.create_default_context(cafile=str(bundle))
        config = AioConfig(signature_version="s3v4", s3={"addressing_style": "path"})
        async with (
            get_session().create_client(
                "s3",
                region_name="us-east-1",
                endpoint_url=upstream.url,
                aws_access_key_id="test",
                aws_secret_access_key="test",
                verify=str(bundle),
                config=config,
            ) as s3,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http,
        ):
            mount.app = app = create_app(settings_for(upstream.url), s3=s3, http=http)
            async with app.router.lifespan_context(app):
                yield

    with serving_app(Starlette(routes=[mount], lifespan=lifespan), loop=loop) as port:
        yield port


@pytest.fixture(params=["direct", "botocore", "of a host"])
def clients(request: pytest.FixtureRequest) -> str:
    """Return whose clients send the requests."""
    kind: str = request.param
    return kind


@pytest.fixture
def port(
    upstream: Misbehaving, certified: tuple[Path, ssl.SSLContext], clients: str, loop: Loop
) -> Generator[int]:
    """Run the service on a loop and with clients; yield its port."""
    if clients == "of a host":
        running_service = host_clients(upstream, certified[0], loop)
    else:
        direct = clients == "direct"
        running_service = own_clients(upstream.url, certified[0], loop, direct=direct)
    with running_service as found:
        yield found


async def flood(exchange: Exchange) -> None:
    """Send a body without end, and ignore a close_notify, as a server that only writes does."""
    await exchange.head(200, "content-length: 1000000000000", 'etag: "v1"')
    await exchange.flood()


@on_both_loops
@pytest.mark.parametrize("path", [IMAGE, "/tasks/1/bytes/1000000000000"])
def test_client_disconnect_closes_tls_connection_at_once(
    port: int, upstream: Misbehaving, path: str
) -> None:
    """If a client leaves, the rest of the body is not downloaded for a TLS shutdown."""
    upstream.behaviour = flood
    with closing(connect(port)) as client:
        ask(client, path)
        assert client.recv(1000)
        abort(client)
    wait_until(lambda: upstream.open_connections == 0, seconds=5)


async def stay_silent(exchange: Exchange) -> None:
    """Send neither an answer nor a close_notify, until the client has ended TCP."""
    assert isinstance(exchange.writer, TlsWriter)
    await exchange.writer.lost.wait()


@on_both_loops
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "botocore"])
@pytest.mark.parametrize("path", [IMAGE, BYTES])
def test_client_disconnect_closes_tls_connection_to_silent_upstream_at_once(
    certified: tuple[Path, ssl.SSLContext],
    upstream: Misbehaving,
    path: str,
    loop: Loop,
    *,
    direct: bool,
) -> None:
    """If a client leaves before the answer begins, the service waits for no TLS shutdown."""
    upstream.behaviour = stay_silent
    with own_clients(upstream.url, certified[0], loop, direct=direct) as port:
        with closing(connect(port)) as client:
            ask(client, path)
            wait_until(lambda: len(upstream.exchanges) == 1)
            abort(client)
        wait_until(lambda: upstream.open_connections == 0, seconds=5)


async def serve_and_close(exchange: Exchange) -> None:
    """Send a body without a validator, and close the connection."""
    await exchange.head(200, f"content-length: {SIZE}", "connection: close")
    await exchange.body(bytes(SIZE))


@on_both_loops
@pytest.mark.parametrize("path", [IMAGE, BYTES])
def test_slow_client_gets_body_whose_tls_connection_closes_after_it(
    port: int, upstream: Misbehaving, path: str
) -> None:
    """If an upstream closes its connection after the body, a slow client gets all bytes."""
    upstream.behaviour = serve_and_close
    with closing(connect(port, receive_buffer=4096)) as client:
        ask(client, path)
        assert read_slowly(client, 4096, rate=2_000_000) > SIZE
    assert len(upstream.exchanges) == 1


@on_both_loops
@pytest.mark.parametrize("path", [IMAGE, BYTES])
def test_connections_reset_before_handshake_close_no_other_descriptor(
    certified: tuple[Path, ssl.SSLContext], upstream: Misbehaving, path: str, loop: Loop
) -> None:
    """Sockets of reset connections, when collected, close no descriptor that has their number.

    Nor do they leave one open.
    """
    upstream.door = reset
    with (
        own_clients(upstream.url, certified[0], loop, direct=True) as port,
        ThreadPoolExecutor(REQUESTS) as clients,
        ExitStack() as others,
    ):
        assert fetch(port, path).status == 502  # Opens what stays open: clients, executors.
        gc.collect()
        gc.disable()
        others.callback(gc.enable)
        before = open_descriptors()
        answers = list(clients.map(fetch, [port] * REQUESTS, [path] * REQUESTS))
        assert [answer.status for answer in answers] == [502] * REQUESTS
        wait_until(lambda: open_descriptors() <= before)
        pairs = [socket.socketpair() for _ in range(2 * REQUESTS)]
        for connection in (connection for pair in pairs for connection in pair):
            others.enter_context(connection)
        gc.collect()
        for left, right in pairs:
            left.sendall(b"x")
            assert right.recv(1) == b"x"
