"""The landing page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from base64 import b64encode
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from handlers import create_app
from settings import Settings
from tests.support.client import fetch
from tests.support.components import Store, settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, ServiceWith, serving_app

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize("delivery", ["proxy", "redirect"])
def test_curl_commands_succeed(
    store: Store, httpbin_url: str, service_with: ServiceWith, tmp_path: Path, delivery: str
) -> None:
    """Each curl command of the plain text succeeds as it is printed."""
    store.put("test/1/image.jpg", b"picture", ContentType="image/jpeg")
    store.put("public/document.pdf", b"document")
    bytes_url = httpbin_url + "/stream-bytes/{size}"
    changes = {"s3_objects": ("public/",), "delivery": delivery, "bytes_url": bytes_url}
    answer = service_with(store.url, **changes).get("/")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    commands = [line for line in answer.text.splitlines() if line.startswith("curl ")]
    assert len(commands) == 4
    for command in commands:
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "image.jpg").read_bytes() == b"picture"
    assert (tmp_path / "bytes.bin").stat().st_size == 100_000
    assert (tmp_path / "document.pdf").read_bytes() == b"document"


def test_html_page_has_no_external_urls(troubled: RunningService) -> None:
    """A client that accepts HTML gets a page without external URLs; scripts are optional."""
    answer = troubled.get("/", headers=BROWSER)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == "accept"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert '<noscript><img src="tasks/1/image"' in answer.text
    assert answer.text.count("http") == answer.text.count(troubled.url)
    for command in troubled.get("/").text.splitlines()[2:]:
        assert f"<code>{command}</code>" in answer.text
    assert "<!--" not in answer.text


class Parts(HTMLParser):
    """The attributes of a page's elements, and the texts of its styles and scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {"style": [], "script": []}
        self.attributes: list[tuple[str, str]] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.texts:
            self.texts[self._open][-1] += data


def test_policy_allows_only_own_style_and_script(troubled: RunningService) -> None:
    """The policy names the style and the script by their hashes, and allows nothing else."""
    answer = troubled.get("/", headers=BROWSER)
    parts = Parts(answer.text)
    hashes = {}
    for tag, texts in parts.texts.items():
        [text] = texts
        hashes[tag] = "'sha256-" + b64encode(sha256(text.encode()).digest()).decode() + "'"
    directives = answer.headers["content-security-policy"].split("; ")
    assert dict(directive.split(" ", 1) for directive in directives) == {
        "default-src": "'none'",
        "img-src": "blob: 'self'",
        "connect-src": "'self'",
        "style-src": hashes["style"],
        "script-src": hashes["script"],
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    # The policy would have browsers leave these out.
    assert not [name for name, _ in parts.attributes if name == "style" or name.startswith("on")]


def test_urls_in_page_exist(service: RunningService, store: Store) -> None:
    """Every URL that the page loads or links is a path of the service that answers."""
    store.put("test/1/image.jpg", b"picture", ContentType="image/jpeg")
    page = service.get("/", headers=BROWSER).text
    linked = {value for name, value in Parts(page).attributes if name in ("src", "href")}
    fetched = re.findall(r"(?<![.\w])(?:get|load)\([`\"]([\w/${}]+)", page)
    assert linked == {"tasks/1/image", "openapi.json"}
    assert fetched == ["tasks/${task}/image", "objects/${key", "metrics"]
    for path in linked | {"metrics"}:
        assert service.get(f"/{path}").status_code == 200


def test_page_reads_metrics_that_exist(service: RunningService) -> None:
    """Each metric that the page reads is in /metrics under that name."""
    service.get("/tasks/1/bytes/10")
    page, metrics = service.get("/", headers=BROWSER).text, service.get("/metrics").text
    names = set(re.findall(r'sum\("(\w+)"', page))
    assert names == {"downloads_running", "downloads_total", "sent_bytes_total", "resumes_total"}
    for name in names:
        assert re.search(rf"^# TYPE downspout_{name} \w+$", metrics, re.MULTILINE), name
    assert re.search(r'downspout_downloads_total{.*outcome="\w+"', metrics)


async def test_page_with_all_commands_is_under_16_kib() -> None:
    """The page fits into a few TCP packets."""
    _, page = await get_landing(auth_url="http://app/", s3_objects=("public/",))
    assert len(page) < 16 * 1024


def test_markup_in_host_header_is_escaped(troubled: RunningService) -> None:
    """A Host header with markup adds no script to the page."""
    headers = {**BROWSER, "host": "a<script>alert(1)</script>"}
    answer = troubled.get("/", headers=headers)
    assert "<script>" not in answer.text
    assert "alert(1)" not in answer.text


def test_markup_in_prefix_is_escaped() -> None:
    """A mount prefix with markup is text in the page."""
    host = Starlette(routes=[Mount("/{tenant}", create_app(Settings(s3_image_bucket="photos")))])
    with serving_app(host) as port:
        received = fetch(port, "/%3Cscript%3Ealert(1)/", headers=BROWSER)
    page = received.body.decode()
    assert page.count("&lt;script&gt;alert(1)/tasks/1/") == 3
    assert len(Parts(page).texts["script"]) == 1


async def get_landing(**changes: Any) -> tuple[str, str]:
    """Return the plain text and the HTML of an application with these settings."""
    app = create_app(Settings(s3_image_bucket="photos", **changes))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://downspout.test") as client:
        text, page = await client.get("/"), await client.get("/", headers=BROWSER)
    return text.text, page.text


def commands_in(text: str) -> list[str]:
    """Return the curl commands of the plain text, or of the page."""
    return re.findall(r"^curl .*$", text, re.MULTILINE) or [
        unescape(line) for line in re.findall(r"<code>(.*?)</code>", text)
    ]


async def test_commands_with_tokens_send_the_token() -> None:
    """Every command sends the token in the shell's variable TOKEN; a note says so."""
    text, page = await get_landing(access_tokens=("0" * 16,), url_signing_keys=("a:" + "0" * 16,))
    assert len(commands_in(text)) == 3
    assert commands_in(page) == commands_in(text)
    for command in commands_in(text):
        words = shlex.split(command)
        assert words[words.index("-H") + 1] == "Authorization: Bearer $TOKEN"
        assert words[-1].startswith("http://downspout.test/tasks/1/")
    assert text.endswith("\n\nSet TOKEN to an access token.\n")
    assert '<p id="notes">Set TOKEN to an access token.</p>' in page


async def test_commands_with_keys_only_sign_their_url() -> None:
    """Every command signs its URL with `downspout sign`; a note names the variable of the key."""
    text, page = await get_landing(
        url_signing_keys=("a:" + "0" * 16,), s3_objects=("/",), auth_url="http://app/"
    )
    assert len(commands_in(text)) == 4
    assert commands_in(page) == commands_in(text)
    for command in commands_in(text):
        assert re.search(r' "\$\(downspout sign http://downspout\.test/\S+\)"$', command)
    for answer in (text, page):
        assert "Each command signs its URL with a key in URL_SIGNING_KEYS." in answer


async def test_commands_with_auth_url_send_the_header_of_the_login() -> None:
    """Every command sends the shell's variable AUTH_HEADER; a note says so, without AUTH_URL."""
    text, page = await get_landing(auth_url="http://secret.test/may", s3_objects=("/",))
    assert len(commands_in(text)) == 4
    assert commands_in(page) == commands_in(text)
    for command in commands_in(text):
        words = shlex.split(command)
        assert words[words.index("-H") + 1] == "$AUTH_HEADER"
    for answer in (text, page):
        assert "Set AUTH_HEADER to your login" in answer
        assert "secret.test" not in answer


def test_curl_with_auth_header_succeeds(
    store: Store, service_with: ServiceWith, application: Misbehaving, tmp_path: Path
) -> None:
    """With AUTH_URL, the commands succeed with a cookie that the application accepts."""

    async def check_session(exchange: Exchange) -> None:
        await exchange.answer(204 if exchange.headers.get("cookie") == "session=ada" else 401)

    application.behaviour = check_session
    store.put("test/1/image.jpg", b"picture", ContentType="image/jpeg")
    service = service_with(store.url, auth_url=application.url)
    command = commands_in(service.get("/").text)[0]
    for header, is_authorized in (("Cookie: session=ada", True), ("", False)):
        environ = {**os.environ, "AUTH_HEADER": header}
        run = subprocess.run(["sh", "-c", command], check=False, cwd=tmp_path, env=environ)
        assert (run.returncode == 0) == is_authorized
    assert (tmp_path / "image.jpg").read_bytes() == b"picture"


@pytest.mark.parametrize(
    ("s3_objects", "example"),
    [
        ((), ""),
        (("/",), "document.pdf"),
        (("hidden-prefix/",), "document.pdf"),
        (("hidden-name=hidden-bucket/hidden-prefix/", "b=hidden-bucket/"), "NAME/document.pdf"),
    ],
)
async def test_objects_route_is_shown_without_prefix_and_bucket(
    s3_objects: tuple[str, ...], example: str
) -> None:
    """Command, note and placeholder exist only with the objects route, and reveal no name."""
    text, page = await get_landing(s3_objects=s3_objects)
    urls = [line.split()[-1] for line in commands_in(text)[3:]]
    assert urls == ([f"http://downspout.test/objects/{example}"] if example else [])
    assert commands_in(page) == commands_in(text)
    assert f'<main data-objects="{example}">' in page
    for answer in (text, page):
        assert ("percent-encoded key" in answer) == bool(example)
        assert not re.search("hidden-|photos", answer)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_commands_of_mounted_application_have_its_prefix(store: Store, method: str) -> None:
    """HEAD has the same headers and no body."""
    host = Starlette(routes=[Mount("/media", create_app(settings_for(store.url)))])
    with serving_app(host) as port:
        for headers in ({}, BROWSER):
            received = fetch(port, "/media/", method=method, headers=headers)
            whole = fetch(port, "/media/", headers=headers)
            assert received.status == 200
            for name in ("content-type", "content-length", "content-security-policy"):
                assert received.headers.get(name) == whole.headers.get(name)
            if method == "HEAD":
                assert received.body == b""
            else:
                assert b"http://downspout.test/media/tasks/1/image" in received.body
