"""HTTP_PROXY, HTTPS_PROXY and NO_PROXY, for the store and for the bytes upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import httpx
import pytest

from handlers import create_app
from tests.support.behaviours import BODY
from tests.support.client import fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving, misbehaving
from tests.support.serving import RunningService, serving


async def send_body(exchange: Exchange) -> None:
    """Answer as a store and as an upstream."""
    await exchange.answer(200, BODY, 'etag: "v1"')


def forward_to(upstream: Misbehaving) -> Behaviour:
    """Behave as a proxy that finds every host at `upstream`, and refuses tunnels."""

    async def forwarding(exchange: Exchange) -> None:
        if exchange.method == "CONNECT":
            await exchange.answer(403)
            return
        url = urlsplit(exchange.path)
        assert url.scheme == "http"
        lines = [f"{exchange.method} {urlunsplit(('', '', *url[2:]))} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in exchange.headers.items()]
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode())
        while data := await reader.read(65536):
            await exchange.raw(data)
        writer.close()

    return forwarding


@pytest.fixture
def proxy(
    upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Generator[Misbehaving]:
    """Run a proxy, name it in the environment, and have credentials in .netrc."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login netrc-user password netrc-secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    upstream.behaviour = send_body
    with misbehaving(forward_to(upstream)) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        yield server


@contextmanager
def behind_proxy(**changes: str) -> Generator[RunningService]:
    """Run the service with a store and an upstream that only the proxy can resolve."""
    urls = {
        "s3_endpoint_url": "http://store.invalid:81",
        "bytes_url": "http://files.invalid/{size}%2F",
    }
    with serving(settings_for("http://unused.invalid", **{**urls, **changes})) as service:
        yield service


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_store_and_upstream_are_requested_through_http_proxy(
    proxy: Misbehaving, upstream: Misbehaving, method: str
) -> None:
    """Both sources heed HTTP_PROXY, and neither sends credentials of .netrc."""
    with behind_proxy() as service:
        assert fetch(service.port, "/tasks/1/image", method=method).status == 200
        assert fetch(service.port, "/tasks/1/bytes/1024", method=method).status == 200
    assert proxy.requests == [
        f"{method} http://store.invalid:81/photos/test/1/image.jpg",
        f"{method} http://files.invalid/1024%2F",
    ]
    assert upstream.requests == [f"{method} /photos/test/1/image.jpg", f"{method} /1024%2F"]
    received = upstream.exchanges[1].headers
    assert received["host"] == "files.invalid"
    assert not {"authorization", "proxy-authorization"} & received.keys()


def test_body_interrupted_behind_proxy_is_resumed(
    proxy: Misbehaving, upstream: Misbehaving
) -> None:
    """The rest of a broken body is requested through the proxy, too."""

    async def breaks_once(exchange: Exchange) -> None:
        lines = ("accept-ranges: bytes", 'etag: "v1"')
        if "range" in exchange.headers:
            stated = "content-range: bytes 600-1023/1024"
            await exchange.answer(206, BODY[600:], stated, *lines)
            return
        await exchange.head(200, "content-length: 1024", *lines)
        await exchange.body(BODY[:600])

    upstream.behaviour = breaks_once
    with behind_proxy() as service:
        received = fetch(service.port, "/tasks/1/bytes/1024")
    assert (received.body, received.whole) == (BODY, True)
    assert proxy.requests == ["GET http://files.invalid/1024%2F"] * 2


def test_https_upstream_is_requested_through_tunnel_of_https_proxy(proxy: Misbehaving) -> None:
    """A proxy that refuses the tunnel is a 502."""
    with behind_proxy(bytes_url="https://files.invalid/{size}") as service:
        assert fetch(service.port, "/tasks/1/bytes/1024").status == 502
    assert proxy.requests == ["CONNECT files.invalid:443"]
    assert "authorization" not in proxy.exchanges[0].headers


def test_credentials_in_proxy_url_are_sent_to_proxy(
    proxy: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User and password of HTTP_PROXY become Proxy-Authorization; the scheme may be missing."""
    monkeypatch.setenv("HTTP_PROXY", f"user:pass@127.0.0.1:{proxy.port}")
    with behind_proxy() as service:
        assert fetch(service.port, "/tasks/1/bytes/1024").status == 200
    assert proxy.exchanges[0].headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"


def test_auth_url_is_requested_through_http_proxy(
    proxy: Misbehaving, upstream: Misbehaving
) -> None:
    """The application gets the client's credentials through the proxy, and none of .netrc."""
    with behind_proxy(auth_url="http://application.invalid/may%2Fdownload") as service:
        assert fetch(service.port, "/tasks/1/image", headers={"cookie": "a=1"}).status == 200
    assert proxy.requests == [
        "GET http://application.invalid/may%2Fdownload",
        "GET http://store.invalid:81/photos/test/1/image.jpg",
    ]
    received = upstream.exchanges[0].headers
    assert (received["host"], received["cookie"]) == ("application.invalid", "a=1")
    assert not {"authorization", "proxy-authorization"} & received.keys()


def test_auth_url_behind_proxy_of_other_scheme_returns_502(
    proxy: Misbehaving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a way to the application no download is open."""
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1080")
    with behind_proxy(auth_url="http://application.invalid/SECRET") as service:
        assert fetch(service.port, "/tasks/1/image").status == 502
    assert "HTTP_PROXY: must be an http:// or https:// URL" in caplog.text
    assert "SECRET" not in caplog.text
    assert proxy.requests == []


@pytest.mark.parametrize("exceptions", ["127.0.0.1", "*", "localhost, 127.0.0.1"])
def test_no_proxy_hosts_are_requested_directly(
    proxy: Misbehaving, upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch, exceptions: str
) -> None:
    """Store and upstream on a host of NO_PROXY are requested without the proxy."""
    monkeypatch.setenv("NO_PROXY", exceptions)
    with serving(settings_for(upstream.url)) as service:
        assert fetch(service.port, "/tasks/1/image").status == 200
        assert fetch(service.port, "/tasks/1/bytes/1024").status == 200
    assert upstream.requests == ["GET /photos/test/1/image.jpg", "GET /bytes/1/1024"]
    assert proxy.requests == []


def test_proxy_of_other_scheme_returns_502_and_names_variable(
    proxy: Misbehaving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Aiohttp has no SOCKS, and a request past the proxy would be against the operator's will."""
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1080")
    with behind_proxy() as service:
        assert fetch(service.port, "/tasks/1/bytes/1024").status == 502
    assert "HTTP_PROXY: must be an http:// or https:// URL" in caplog.text


async def test_session_of_host_is_used_without_proxy_variables(
    proxy: Misbehaving, upstream: Misbehaving
) -> None:
    """A host's own session decides by itself about proxies."""
    async with aiohttp.ClientSession() as session:
        app = create_app(settings_for(upstream.url), http=session)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://here.test") as client,
        ):
            assert (await client.get("/tasks/1/bytes/1024")).content == BODY
    assert upstream.requests == ["GET /bytes/1/1024"]
    assert proxy.requests == []
