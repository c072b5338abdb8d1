"""Signed URLs of objects and of prefixes: valid ones, invalid ones, and ten thousand forgeries."""

from __future__ import annotations

import hmac
import logging
import random
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes, urlencode, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from handlers import create_app, sign_url
from handlers.cli import main
from tests.support.asgi import call
from tests.support.client import fetch
from tests.support.components import BUCKET, settings_for
from tests.support.misbehaving import Misbehaving, answer_with
from tests.support.serving import ROOT, RunningService, ServiceWith, entering, wait_until

SECRET = "0123456789abcdef"
KEY = f"a:{SECRET}"
FOLDER = "/objects/videos/7/"
PLAYLIST = FOLDER + "index.m3u8"
PREFIX = "public/"
STORED = f"/{BUCKET}/{PREFIX}videos/7/"


def hmac_of(*lines: str, secret: str = SECRET) -> str:
    """Return the signature of a signed text, as an application in another language makes it."""
    digest = hmac.digest(secret.encode(), "\n".join(lines).encode(), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def query_for(
    line: str, prefix: str | None, *, download: str | None = None, lifetime: float = 60
) -> str:
    """Return the query of a URL whose signed path is `line`, with a genuine signature."""
    expires = str(int(time.time() + lifetime))
    last = "" if download is None else f"download={quote(download)}"
    signature = hmac_of("downspout 1", "GET", line, expires, last)
    given = {"download": download, "prefix": prefix, "expires": expires, "key": "a"}
    parameters = {name: value for name, value in given.items() if value is not None}
    return urlencode({**parameters, "signature": signature})


def prefix_query(prefix: str = FOLDER, **options: Any) -> str:
    """Return the query that opens all objects below a prefix, if the prefix is a valid one."""
    return query_for(quote(prefix, errors="replace") + "*", prefix, **options)


@asynccontextmanager
async def guarded(url: str, **changes: Any) -> AsyncGenerator[Starlette]:
    """Run an application that requires signed URLs, without a server."""
    values: dict[str, Any] = {"s3_objects": (PREFIX,), "url_signing_keys": (KEY,), **changes}
    app = create_app(settings_for(url, **values))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def port(service_with: ServiceWith) -> int:
    """Run the service with a prefix of objects and a signing key; return its port."""
    return service_with(s3_objects=(PREFIX,), url_signing_keys=(KEY,)).port


def answer_all(upstream: Misbehaving) -> None:
    """Let the store have every object that it is asked for."""
    upstream.behaviour = answer_with(200, b"data", 'etag: "a"')


# The signed text


def test_signed_object_url_has_hmac_of_five_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature of an object is made like that of an image."""
    monkeypatch.setattr("time.time", lambda: 2_000_000_000 - 60.0)
    url = sign_url("/objects/a%20b/Gr%C3%B6%C3%9Fe+*.pdf?download=x y.pdf", KEY, lifetime=60)
    parts = urlsplit(url)
    assert parts.path == "/objects/a%20b/Gr%C3%B6%C3%9Fe%2B%2A.pdf"
    assert parse_qsl(parts.query) == [
        ("download", "x y.pdf"),
        ("expires", "2000000000"),
        ("key", "a"),
        (
            "signature",
            hmac_of("downspout 1", "GET", parts.path, "2000000000", "download=x%20y.pdf"),
        ),
    ]


def test_signed_prefix_url_has_hmac_of_prefix_and_asterisk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The third signed line of a prefix is the percent-encoded prefix and an asterisk."""
    monkeypatch.setattr("time.time", lambda: 2_000_000_000 - 60.0)
    url = sign_url(
        "/objects/Gr%C3%B6%C3%9Fe 7/a.m3u8?utm=1", KEY, lifetime=60, prefix="/objects/Größe 7/"
    )
    parts = urlsplit(url)
    assert parts.path == "/objects/Gr%C3%B6%C3%9Fe%207/a.m3u8"
    line = "/objects/Gr%C3%B6%C3%9Fe%207/*"
    assert parse_qsl(parts.query) == [
        ("utm", "1"),
        ("prefix", "/objects/Größe 7/"),
        ("expires", "2000000000"),
        ("key", "a"),
        ("signature", hmac_of("downspout 1", "GET", line, "2000000000", "")),
    ]


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/objects/a", "/objects/"),
        ("/objects/a/", "/objects/a/"),
        ("/objects/a/", "/objects/"),
        ("/objects/a/b", "/objects/a/"),
        ("/objects/a/b/", "/objects/a/b/"),
        ("/objects/a/b/c", "/objects/a/"),
        ("/objects//a", "/objects//"),
        ("/objects/a%2Fb", "/objects/a/"),
        ("/objects/a%252Fb", "/objects/"),
        ("/objects/*/a", "/objects/*/"),
    ],
)
def test_signed_prefix_is_the_given_path(path: str, prefix: str) -> None:
    """The prefix is any beginning of the decoded path that ends with a slash, or all of it."""
    signed = urlsplit(sign_url(path, KEY, lifetime=9, prefix=prefix))
    parameters = dict(parse_qsl(signed.query))
    assert unquote(signed.path) == unquote(path)
    assert parameters["prefix"] == prefix
    line = quote(prefix) + "*"
    expected = hmac_of("downspout 1", "GET", line, parameters["expires"], "")
    assert parameters["signature"] == expected


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        # without a slash at the end
        (PLAYLIST, ""),
        (PLAYLIST, "/objects"),
        (PLAYLIST, "/objects/videos"),
        (PLAYLIST, "/objects/videos/7"),
        (PLAYLIST, "/objects/videos/7/*"),
        (PLAYLIST, PLAYLIST),
        ("/objects/a", "/objects/a"),
        # beside the path
        (PLAYLIST, PLAYLIST + "/"),
        (PLAYLIST, "/objects/videos/8/"),
        (PLAYLIST, "/objects/videos/7/8/"),
        (PLAYLIST, "/objects/vid/"),
        (PLAYLIST, "/objects/Videos/"),
        (PLAYLIST, "/objects//"),
        (PLAYLIST, "/objects/videos/../"),
        (PLAYLIST, "/objects/videos/7/../"),
        ("/objects/a", "/objects/a/"),
        ("/objects/a%20b/c", "/objects/a%20b/"),
        ("/objects/a%252Fb", "/objects/a/"),
        # outside /objects/
        (PLAYLIST, "/"),
        (PLAYLIST, "objects/videos/7/"),
        (PLAYLIST, "//objects/videos/7/"),
        (PLAYLIST, "/Objects/videos/7/"),
        (PLAYLIST, "/media/objects/videos/7/"),
        (PLAYLIST, "https://files.example/objects/videos/7/"),
        (PLAYLIST, quote(FOLDER, safe="")),
        ("/tasks/1/image", "/tasks/1/"),
        ("/tasks/1/image", "/tasks/"),
        ("/tasks/1/image", "/"),
        ("/tasks/1/image", "/objects/"),
    ],
)
def test_sign_url_with_invalid_prefix_raises(path: str, prefix: str) -> None:
    """The error names the prefix and the path, of which the prefix must be a beginning."""
    with pytest.raises(ValueError, match="must be a beginning of") as raised:
        sign_url(path, KEY, lifetime=60, prefix=prefix)
    assert str(raised.value).startswith(f"{prefix}: ")
    assert unquote(path) in str(raised.value)
    assert SECRET not in str(raised.value)


def test_signed_prefix_below_a_mount_has_no_mount_path() -> None:
    """The prefix, like every signed path, leaves out the path of the mount."""
    url = "https://files.example/media" + PLAYLIST
    signed = sign_url(url, KEY, lifetime=9, root_path="/media", prefix=FOLDER)
    assert signed.startswith(url + "?")
    assert dict(parse_qsl(urlsplit(signed).query))["prefix"] == FOLDER
    for prefix in ("/media" + FOLDER, "/media/"):
        with pytest.raises(ValueError, match="must be a beginning of"):
            sign_url(url, KEY, lifetime=9, root_path="/media", prefix=prefix)


INVALID_OBJECTS = [
    "/objects",
    "/objects/",
    "/objects/.",
    "/objects/..",
    "/objects/../tasks/1/image",
    "/objects/a/../b",
    "/objects/%2e%2e/b",
    "/objects/..%2fb",
    "/objects/a/%2E",
    "/objects/a%00",
    "/objects/a%0A",
    "/objects/a%7F",
    "/objects/%FF",
    "/objects/%C0%AE%C0%AE/a",
    "/objects/%ED%A0%80",
    "/objects/" + "é" * 513 + "k" * 1000,
    "//objects/a",
    "/x/objects/a",
    "/Objects/a",
    "objects/a",
    "ftp://files.example/objects/a",
    "/objects/a?prefix=/objects/",
    "/objects/a?prefix=",
    "/objects/a?signature=x",
    "/objects/a?download=a&download=b",
]


@pytest.mark.parametrize("url", INVALID_OBJECTS)
def test_sign_url_of_invalid_object_raises(url: str) -> None:
    """A signed URL of an object that the service answers with 404 helps nobody."""
    with pytest.raises(ValueError, match=r"."):
        sign_url(url, KEY, lifetime=60)


@pytest.mark.parametrize(
    "url",
    [
        "/",
        "/objects",
        "/objects/",
        "/tasks/1/image",
        "/tasks/1/bytes/5",
        "/x/objects/a",
        "//objects/a/b",
        "/objects/../a",
        "/objects/a/../b/c",
        "/objects/%2e%2e/c",
        "/objects/a%2f..%2fb",
        "/objects/a%00/b",
        "/objects/%FF/b",
        "/objects/%C0%AE%C0%AE/b",
        "/objects/a/b?prefix=/objects/",
    ],
)
def test_sign_url_with_prefix_of_other_path_raises(url: str) -> None:
    """With a prefix, too, the URL must be that of an object."""
    path = unquote(url.partition("?")[0], errors="surrogateescape")
    for prefix in ("/objects/", path[: path.rindex("/") + 1], path):
        with pytest.raises(ValueError, match=r"."):
            sign_url(url, KEY, lifetime=60, prefix=prefix)


def test_sign_url_takes_longest_key_of_named_root() -> None:
    """The name of the root is not part of the key, so it does not count to the 1,024 bytes."""
    path = "/objects/docs/" + "k" * 1024
    assert sign_url(path, KEY, lifetime=60).startswith(path + "?")


@pytest.mark.parametrize("character", ["\n", "\r", "\t", "\x00", "\x7f"])
def test_sign_url_with_control_character_raises(character: str) -> None:
    """Python's urlsplit removes some of them, and the URL would name another object."""
    with pytest.raises(ValueError, match="must"):
        sign_url(f"/objects/a{character}b", KEY, lifetime=60)


# Valid signatures


@pytest.mark.parametrize(
    "path",
    [
        PLAYLIST,
        FOLDER + "segment-1.ts",
        FOLDER + "1080p/segment-1.ts",
        FOLDER + "a%20b.ts",
        FOLDER + "%C3%BC.ts",
        FOLDER + "folder/",
        FOLDER + "/x",
        "/objects/%76ideos/7/x",
        "/objects/videos%2F7%2Fx",
        "/objects/videos/7/%2A",
        FOLDER,
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_prefix_signature_opens_every_object_below(
    upstream: Misbehaving, port: int, path: str, method: str
) -> None:
    """The query of one signed URL is valid for each path below its prefix."""
    answer_all(upstream)
    query = urlsplit(sign_url(PLAYLIST, KEY, lifetime=60, prefix=FOLDER)).query
    answer = fetch(port, f"{path}?{query}", method=method)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "private"
    assert [one.path.startswith(STORED) for one in upstream.exchanges] == [True]


def test_prefix_signature_allows_ranges_and_conditions(upstream: Misbehaving, port: int) -> None:
    """A player seeks in a segment, and asks whether the playlist has changed."""
    upstream.behaviour = answer_with(206, b"at", 'etag: "a"', "content-range: bytes 1-2/4")
    target = f"{PLAYLIST}?{prefix_query()}"
    part = fetch(port, target, headers={"range": "bytes=1-2"})
    assert (part.status, part.body) == (206, b"at")
    answer_all(upstream)
    assert fetch(port, target, headers={"if-none-match": '"a"'}).status == 304


def test_prefix_signature_of_all_objects_opens_no_task(upstream: Misbehaving, port: int) -> None:
    """The prefix /objects/ opens every object, and nothing else."""
    answer_all(upstream)
    query = urlsplit(sign_url("/objects/a", KEY, lifetime=60, prefix="/objects/")).query
    assert fetch(port, f"/objects/x/y?{query}").status == 200
    upstream.exchanges.clear()
    for path in ("/tasks/7/image", "/tasks/7/bytes/5"):
        assert fetch(port, f"{path}?{query}").status == 403
    assert upstream.exchanges == []


def test_signature_with_independent_hmac_is_valid(upstream: Misbehaving, port: int) -> None:
    """An application in another language signs with nothing but HMAC and percent-encoding."""
    answer_all(upstream)
    for target in (
        f"/objects/a%20b?{query_for('/objects/a%20b', None)}",
        f"/objects/a%2Ab?{query_for('/objects/a%2Ab', None)}",
        f"/objects/a*b?{query_for('/objects/a%2Ab', None)}",
        f"{PLAYLIST}?{prefix_query()}",
        f"{PLAYLIST}?{prefix_query(download='a b.ts')}",
    ):
        assert fetch(port, target).status == 200


def test_download_without_name_can_be_signed(upstream: Misbehaving, port: int) -> None:
    """`?download` is signed like any name; a client can neither add nor remove it."""
    answer_all(upstream)
    signed = sign_url("/objects/a/07.pdf?download", KEY, lifetime=60)
    answer = fetch(port, signed)
    assert answer.headers["content-disposition"] == 'attachment; filename="07.pdf"'
    assert fetch(port, signed.replace("download=&", "")).status == 403
    assert fetch(port, signed.replace("download=&", "download=x&")).status == 403
    plain = sign_url("/objects/a/07.pdf", KEY, lifetime=60)
    assert fetch(port, plain + "&download").status == 403


def test_prefix_signature_with_download_name_requires_the_name(
    upstream: Misbehaving, port: int
) -> None:
    """The name that was signed with a prefix is the name of each object below it."""
    answer_all(upstream)
    signed = sign_url(PLAYLIST + "?download=x.ts", KEY, lifetime=60, prefix=FOLDER)
    answer = fetch(port, signed.replace("index.m3u8", "1.ts"))
    assert answer.headers["content-disposition"] == 'attachment; filename="x.ts"'
    assert fetch(port, signed.replace("download=x.ts&", "")).status == 403
    assert fetch(port, signed.replace("x.ts", "y.ts")).status == 403


async def test_signatures_below_a_mount_are_valid(upstream: Misbehaving) -> None:
    """A mounted application checks the path without the path of the mount."""
    answer_all(upstream)
    settings = settings_for(upstream.url, s3_objects=(PREFIX,), url_signing_keys=(KEY,))
    downloads = create_app(settings)
    host = Starlette(routes=[Mount("/media", downloads)], lifespan=entering(downloads))
    async with host.router.lifespan_context(host):
        for prefix in (None, FOLDER):
            url = f"/media{PLAYLIST}"
            signed = sign_url(url, KEY, lifetime=60, root_path="/media", prefix=prefix)
            assert (await call(host, signed)).status == 200
            sibling = await call(host, signed.replace("/index.m3u8", "/1.ts"))
            assert sibling.status == (200 if prefix else 403)
            beside = await call(host, signed.replace("/media/objects/videos/7/", "/media/"))
            assert beside.status == 404
        for query in (prefix_query("/media/objects/videos/7/"), prefix_query("/media/")):
            assert (await call(host, f"/media{PLAYLIST}?{query}")).status == 403


async def test_prefix_signature_of_named_root_opens_that_root_alone(upstream: Misbehaving) -> None:
    """The name of the root is a part of the signed prefix."""
    answer_all(upstream)
    roots = (f"photos={BUCKET}/public/", "docs=documents/")
    async with guarded(upstream.url, s3_objects=roots) as app:
        signed = sign_url("/objects/docs/a/b", KEY, lifetime=60, prefix="/objects/docs/a/")
        query = urlsplit(signed).query
        assert (await call(app, f"/objects/docs/a/c?{query}")).status == 200
        assert upstream.requests == ["GET /documents/a/c"]
        for path in ("/objects/photos/a/c", "/objects/docs/b", "/objects/docs/a/../../photos/c"):
            assert (await call(app, f"{path}?{query}")).status in (403, 404)
    assert len(upstream.exchanges) == 1


# Invalid signatures

Change = Callable[[str], str]


def replacing(old: str, new: str) -> Change:
    return lambda target: target.replace(old, new)


def with_prefix(prefix: str) -> Change:
    """Return a change that puts another prefix into the query, percent-encoded or not."""
    return replacing(urlencode({"prefix": FOLDER}), f"prefix={prefix}")


@pytest.mark.parametrize(
    "change",
    [
        replacing("/7/index", "/index"),
        replacing("/7/index", "/8/index"),
        replacing("/7/index", "/70/index"),
        replacing("/7/index", "/7"),
        replacing("/7/index", "/7index"),
        replacing("/7/index", "/7%5Cindex"),
        replacing("/7/index", "/7%252Findex"),
        replacing("/7/index", "//7/index"),
        replacing("/7/index", "/%2F7/index"),
        replacing("/objects/", "/objects//"),
        replacing("/videos/7/index", "/Videos/7/index"),
        replacing("/objects/videos/7/index.m3u8", "/tasks/7/image"),
        replacing("/objects/videos/7/index.m3u8", "/tasks/7/bytes/5"),
        with_prefix("/objects/videos/"),
        with_prefix("/objects/"),
        with_prefix("/"),
        with_prefix(""),
        with_prefix("/objects/videos/7"),
        with_prefix("/objects/videos/7/i"),
        with_prefix("/objects/videos/7/index.m3u8"),
        with_prefix("/objects/videos/7/*"),
        with_prefix("/objects/videos/7/%00"),
        with_prefix("/objects/videos/7/.."),
        with_prefix("/objects/videos//7/"),
        with_prefix("objects/videos/7/"),
        with_prefix("%252Fobjects%252Fvideos%252F7%252F"),
        replacing("prefix=", "x="),
        replacing("prefix=", "Prefix="),
        replacing("prefix=", "prefix=/objects/&prefix="),
        lambda target: target + "&prefix=/objects/",
        lambda target: target + "&prefix=" + quote(FOLDER),
        lambda target: target + "&download=x",
        lambda target: target + "&download",
        lambda target: target + "&expires=99999999999",
        lambda target: target[:-1],
        lambda target: target + "A",
        lambda target: target + "=",
        lambda target: target.partition("&signature")[0],
        replacing("expires=", "expires=1"),
        replacing("key=a", "key=b"),
        lambda target: target.partition("?")[0],
    ],
)
def test_changed_prefix_signature_returns_403(
    upstream: Misbehaving, port: int, change: Change
) -> None:
    """A prefix signature with another path, prefix or signature reaches no store."""
    answer_all(upstream)
    target = sign_url(PLAYLIST, KEY, lifetime=60, prefix=FOLDER)
    assert change(target) != target
    assert fetch(port, target).status == 200
    upstream.exchanges.clear()
    answer = fetch(port, change(target))
    assert answer.status == 403
    assert b"urn:downspout:problem:not-signed" in answer.body
    assert upstream.exchanges == []


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/tasks/7/image", "/tasks/7/"),
        ("/tasks/7/image", "/tasks/"),
        ("/tasks/7/image", "/"),
        ("/tasks/7/image", ""),
        ("/tasks/7/image", "/tasks/7/image"),
        ("/tasks/7/bytes/5", "/tasks/7/bytes/"),
        (PLAYLIST, "/"),
        (PLAYLIST, ""),
        (PLAYLIST, "/objects"),
        (PLAYLIST, "/objects/videos/7"),
        (PLAYLIST, PLAYLIST),
        (PLAYLIST, "objects/videos/7/"),
        (PLAYLIST, "/objects/videos/8/"),
        (PLAYLIST, "/objects/videos/7/8/"),
        (PLAYLIST, "/objects/videos/*/"),
        (PLAYLIST, "//objects/"),
        (PLAYLIST, "/OBJECTS/"),
    ],
)
def test_prefix_that_covers_no_objects_is_invalid_though_signed(
    upstream: Misbehaving, port: int, path: str, prefix: str
) -> None:
    """Even with a genuine signature, a prefix begins with /objects/ and ends with a slash."""
    answer_all(upstream)
    answer = fetch(port, f"{path}?{prefix_query(prefix)}")
    assert answer.status == 403
    assert upstream.exchanges == []


def test_prefix_signature_and_object_signature_are_not_interchangeable(
    upstream: Misbehaving, port: int
) -> None:
    """The asterisk of a prefix is never the asterisk of a key, which is encoded as %2A."""
    answer_all(upstream)
    exact = dict(parse_qsl(urlsplit(sign_url(PLAYLIST, KEY, lifetime=60)).query))
    asterisk = dict(parse_qsl(urlsplit(sign_url(FOLDER + "*", KEY, lifetime=60)).query))
    folder = dict(parse_qsl(urlsplit(sign_url(FOLDER, KEY, lifetime=60)).query))
    below = dict(parse_qsl(urlsplit(sign_url(PLAYLIST, KEY, lifetime=60, prefix=FOLDER)).query))
    del below["prefix"]
    for path, parameters in (
        (PLAYLIST, {**exact, "prefix": FOLDER}),
        (PLAYLIST, {**exact, "prefix": PLAYLIST}),
        (PLAYLIST, {**asterisk, "prefix": FOLDER}),
        (PLAYLIST, {**folder, "prefix": FOLDER}),
        (PLAYLIST, folder),
        (PLAYLIST, asterisk),
        (PLAYLIST, below),
        (FOLDER, below),
        (FOLDER + "*", below),
        (FOLDER + "%2A", below),
    ):
        answer = fetch(port, f"{path}?{urlencode(parameters)}")
        assert answer.status == 403
    assert upstream.exchanges == []
    assert fetch(port, f"{FOLDER}*?{urlencode(asterisk)}").status == 200


def test_prefix_signature_after_expires_returns_403(
    upstream: Misbehaving, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefix signature has the same end and the same maximum lifetime as an object's."""
    answer_all(upstream)
    signed_at = time.time() - 120
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: signed_at)
        expired = sign_url(PLAYLIST, KEY, lifetime=60, prefix=FOLDER)
    too_long = sign_url(PLAYLIST, KEY, lifetime=8 * 86_400, prefix=FOLDER)
    for target in (expired, too_long):
        assert fetch(port, target).status == 403
    assert upstream.exchanges == []


def test_prefix_signature_of_removed_key_returns_403(upstream: Misbehaving, port: int) -> None:
    """A prefix that another key has signed is not valid."""
    answer_all(upstream)
    for key in ("a:fedcba9876543210", f"b:{SECRET}"):
        signed = sign_url(PLAYLIST, key, lifetime=60, prefix=FOLDER)
        assert fetch(port, signed).status == 403
    assert upstream.exchanges == []


@pytest.mark.parametrize(
    "below",
    [
        "..",
        "../8/x",
        "%2e%2e/8/x",
        "..%2f8%2fx",
        "a/../../8/x",
        ".",
        "./x",
        "x%00",
        "x%0A",
        "%FF",
        "%C0%AE%C0%AE/8/x",
        "..%C0%AF8",
        "%2e%2e%2f%2e%2e%2f%2e%2e%2ftasks/7/image",
    ],
)
def test_invalid_path_with_valid_prefix_returns_404(
    upstream: Misbehaving, port: int, below: str
) -> None:
    """The text of the path begins with the prefix, but no key of an object has such segments."""
    answer_all(upstream)
    assert fetch(port, f"{FOLDER}{below}?{prefix_query()}").status == 404
    assert upstream.exchanges == []


def test_dots_in_a_signed_prefix_lead_nowhere(upstream: Misbehaving, port: int) -> None:
    """A holder of the key who signs such a prefix by hand gains nothing."""
    answer_all(upstream)
    for prefix in ("/objects/../", "/objects/a/../../", "/objects/videos/7/../"):
        target = f"{prefix}tasks/7/image?{prefix_query(prefix)}"
        assert fetch(port, target).status in (403, 404)
    assert upstream.exchanges == []


def test_prefix_signature_over_a_server_is_valid(
    upstream: Misbehaving, service_with: ServiceWith
) -> None:
    """The same rules hold behind uvicorn, with each of its protocols."""
    answer_all(upstream)
    for http in ("httptools", "h11"):
        service: RunningService = service_with(
            http=http, s3_objects=(PREFIX,), url_signing_keys=(KEY,)
        )
        query = prefix_query()
        assert fetch(service.port, f"{FOLDER}%C3%BC.ts?{query}").status == 200
        upstream.exchanges.clear()
        for path in ("/objects/videos/70/x", "/objects/videos/7/../8/x", FOLDER + "%2e%2e/8/x"):
            assert fetch(service.port, f"{path}?{query}").status in (403, 404)
        assert upstream.exchanges == []


def test_log_has_no_signature_of_a_prefix(
    upstream: Misbehaving, service_with: ServiceWith, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the reason, but nothing with which others could download."""
    caplog.set_level(logging.INFO, "downspout")
    answer_all(upstream)
    service = service_with(s3_objects=(PREFIX,), url_signing_keys=(KEY,))
    query = prefix_query()
    fetch(service.port, f"{PLAYLIST}?{query}")
    fetch(service.port, f"/objects/videos/8/x?{query}", headers={"x-request-id": "why"})
    wait_until(lambda: "request_id=why" in caplog.text)
    assert query.rpartition("=")[2] not in caplog.text
    assert "signature" in caplog.text


# Forgeries

DOTS = ["..", "%2e%2e", ".%2e", "%2E.", "%2e."]
SLASHES = ["/", "%2f", "%2F", "//", "%2f/"]
# Each decodes to something else than a dot segment or a slash, or does not decode at all.
FALSE_DOTS = ["%252e%252e", "%c0%ae%c0%ae", "%e0%80%ae", "%f0%80%80%ae", "%u002e%u002e"]
FALSE_SLASHES = ["%5c", "\\", "%255c", "%252f", "%25252f", "%c0%af", "%e0%80%af", "%ef%bc%8f"]
INVALID_BYTES = ["%00", "%ff", "%c0%80", "%ed%a0%80", "%f4%90%80%80", "%c3", "%80", "%0a", "%0d"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


class Forger:
    """Makes forgeries of the prefix signature for FOLDER, by a seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.query = prefix_query(lifetime=3600)
        self.parameters = dict(parse_qsl(self.query))
        self.exact = dict(parse_qsl(query_for(PLAYLIST, None, lifetime=3600)))
        self.ways = [
            self.path_outside,
            self.dots_in_path,
            self.false_slashes_to_sibling,
            self.invalid_bytes,
            self.mixed_path,
            self.other_prefix,
            self.prefix_and_path_outside,
            self.changed_signature,
            self.changed_expires,
            self.changed_query,
            self.exact_as_prefix,
            self.wrong_key,
        ]

    def forgeries(self) -> Iterator[str]:
        while True:
            for way in self.ways:
                yield way()

    def name(self) -> str:
        return "".join(self.dice.choices(LETTERS, k=self.dice.randrange(1, 9)))

    def with_query(self, path: str, **changes: str) -> str:
        return f"{path}?{urlencode({**self.parameters, **changes})}"

    def outside(self) -> str:
        """Return a path that does not begin with the prefix."""
        name = self.name()
        return self.dice.choice(
            [
                f"/objects/videos/8/{name}",
                f"/objects/videos/70/{name}",
                f"/objects/videos/7{name}/x",
                f"/objects/videos/7{name}",
                "/objects/videos/7",
                f"/objects/videos//7/{name}",
                f"/objects//videos/7/{name}",
                f"/objects/videos/{name}",
                f"/objects/{name}",
                f"/objects/x{name}/videos/7/{name}",
                f"/objects/VIDEOS/7/{name}",
                f"/tasks/{self.dice.randrange(10**9)}/image",
                f"/tasks/7/bytes/{self.dice.randrange(10**6)}",
            ]
        )

    def path_outside(self) -> str:
        return f"{self.outside()}?{self.query}"

    def dots_in_path(self) -> str:
        """Return a path that begins with the prefix and leaves it by true dot segments."""
        up = self.dice.choice(DOTS) + self.dice.choice(SLASHES)
        down = "".join(f"{self.name()}/" for _ in range(self.dice.randrange(3)))
        end = self.dice.choice([self.name(), "8/x", "70/x", "", "../../tasks/7/image"])
        return f"{FOLDER}{down}{up * self.dice.randrange(1, 6)}{end}?{self.query}"

    def false_slashes_to_sibling(self) -> str:
        """Return a path that begins with the prefix only for who decodes too much."""
        slash = self.dice.choice(FALSE_SLASHES)
        dots = self.dice.choice([*FALSE_DOTS, *DOTS])
        path = self.dice.choice(
            [
                f"/objects/videos{slash}7{slash}{self.name()}",
                f"/objects/videos/7{slash}{self.name()}",
                f"/objects/videos/8{slash}{dots}{slash}7{slash}{self.name()}",
                f"/objects{slash}videos/7/{self.name()}",
                f"/objects/x{slash}{dots}{slash}videos/7/x",
                f"/objects/v{slash}ideos/7/x",
            ]
        )
        return f"{path}?{self.query}"

    def invalid_bytes(self) -> str:
        """Return a path below the prefix with bytes that no key has."""
        parts = [self.name(), self.dice.choice(INVALID_BYTES), self.name()]
        parts += [self.dice.choice(["..", "/", "%5c..", ".txt", "%EF%BF%BD"])]
        self.dice.shuffle(parts)
        return f"{FOLDER}{''.join(parts)}?{self.query}"

    def mixed_path(self) -> str:
        """Return a path of random tricks, with at least one true dot segment in it."""
        tricks = [*FALSE_DOTS, *FALSE_SLASHES, *INVALID_BYTES, "/", ".", "a", "~", ";", "%2a"]
        before, after = ("".join(self.dice.choices(tricks, k=5)) for _ in range(2))
        slash = self.dice.choice(SLASHES[:3])
        start = self.dice.choice([FOLDER, "/objects/videos/8/", "/objects/"])
        return f"{start}{before}{slash}{self.dice.choice(DOTS)}{slash}{after}?{self.query}"

    def other_prefix(self) -> str:
        """Return a genuine path with a prefix that the key has not signed."""
        other = self.dice.choice(
            [
                "/",
                "/objects/",
                "/objects/videos/",
                "/objects/videos/7",
                "/objects/videos/7/*",
                PLAYLIST,
                f"/objects/videos/7/{self.name()}/",
                f"/objects/videos/{self.name()}/",
                FOLDER
                + self.dice.choice(["\x00", "\ufffd", "..", "../", "./", "\\", "%2f", "\n"]),
                FOLDER.replace("/", self.dice.choice(["//", "\\", "%2f", "\uff0f", "%5c"])),
                FOLDER.upper(),
                quote(FOLDER, safe=""),
                "",
            ]
        )
        return self.with_query(self.dice.choice([PLAYLIST, FOLDER + self.name()]), prefix=other)

    def prefix_and_path_outside(self) -> str:
        """Return a path outside, and the prefix that would cover it."""
        path = self.outside()
        return self.with_query(path, prefix=path[: path.rindex("/") + 1])

    def changed_signature(self) -> str:
        text = self.parameters["signature"]
        at = self.dice.randrange(len(text))
        changed = self.dice.choice(
            [
                text[:at] + self.dice.choice(LETTERS.replace(text[at], "")) + text[at + 1 :],
                text[:at],
                text[at + 1 :],
                text + self.dice.choice([*LETTERS, "=", "\x00", "é", " "]),
                "".join(self.dice.choices(LETTERS, k=43)),
                text.swapcase(),
                text[::-1],
            ]
        )
        return self.with_query(FOLDER + self.name(), signature=changed)

    def changed_expires(self) -> str:
        expires = int(self.parameters["expires"])
        changed = self.dice.choice(
            [
                str(expires + self.dice.randrange(1, 10**6)),
                str(expires - self.dice.randrange(1, 3000)),
                f"{expires}0",
                f"0{expires}",
                f"+{expires}",
                f" {expires}",
                f"{expires}.0",
                "",
                str(self.dice.randrange(10**12)),
            ]
        )
        return self.with_query(FOLDER + self.name(), expires=changed)

    def changed_query(self) -> str:
        path, quoted = FOLDER + self.name(), quote(FOLDER)
        cut = dict(self.parameters)
        del cut[self.dice.choice(list(cut))]
        return self.dice.choice(
            [
                f"{path}?{urlencode(cut)}",
                f"{path}?{self.query}&prefix={quoted}",
                f"{path}?prefix=/objects/&{self.query}",
                f"{path}?{self.query}&pre%66ix=/",
                f"{path}?{self.query}&download={self.name()}",
                f"{path}?{self.query.replace('prefix=', 'prefix[]=')}",
                f"{path}?{self.query.replace('&', ';')}",
                f"{path}?{self.query[: self.dice.randrange(len(self.query))]}",
                f"{path}?{quote(self.query)}",
                path,
            ]
        )

    def exact_as_prefix(self) -> str:
        prefix = self.dice.choice([FOLDER, PLAYLIST, "/objects/", FOLDER + "*"])
        path = self.dice.choice([PLAYLIST, FOLDER + self.name()])
        return f"{path}?{urlencode({**self.exact, 'prefix': prefix})}"

    def wrong_key(self) -> str:
        secret = "".join(self.dice.choices(LETTERS, k=16))
        lines = ("downspout 1", "GET", FOLDER + "*", self.parameters["expires"], "")
        signature = hmac_of(*lines, secret=secret)
        return self.with_query(FOLDER + self.name(), signature=signature)


def is_genuine(forger: Forger, target: str) -> bool:
    """Return whether a target is no forgery: the signed query with the key of an object below.

    This is the rule of the issue in other words than the product's, to catch a mistaken forgery.
    """
    path, _, query = target.partition("?")
    if parse_qsl(query) != parse_qsl(forger.query):
        return False
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return False
    key = decoded.removeprefix("/objects/")
    return (
        decoded.startswith(FOLDER)
        and not {".", ".."} & set(key.split("/"))
        and all(ord(character) >= 32 and ord(character) != 127 for character in key)
    )


async def test_forged_prefix_signatures_are_refused_without_store_request(
    upstream: Misbehaving,
) -> None:
    """Of 10,000 forged paths, prefixes and signatures, none is served and none asks the store."""
    answer_all(upstream)
    forger = Forger(seed=15)
    forgeries = forger.forgeries()
    statuses: dict[int, int] = {}
    served: list[str] = []
    async with guarded(upstream.url) as app:
        for _ in range(10_000):
            target = next(forgeries)
            assert not is_genuine(forger, target), target
            status = (await call(app, target)).status
            statuses[status] = statuses.get(status, 0) + 1
            if status not in (403, 404):
                served.append(target)
    assert served == []
    assert upstream.exchanges == []
    assert sum(statuses.values()) == 10_000
    assert min(statuses[403], statuses[404]) > 1000  # both checks have refused many


async def test_false_dots_and_slashes_stay_below_the_prefix(upstream: Misbehaving) -> None:
    """Backslashes and double encodings are characters of a key below the prefix."""
    answer_all(upstream)
    dice = random.Random(16)
    query = prefix_query()
    tricks = [
        "%5c",
        "\\",
        "%5c..",
        "..%5c",
        "%252e%252e",
        "%252f",
        "%255c",
        "%25252e",
        "%ef%bc%8f",
    ]
    async with guarded(upstream.url) as app:
        for _ in range(300):
            below = "".join(dice.choices([*tricks, "/x", "x"], k=dice.randrange(1, 8)))
            upstream.exchanges.clear()
            # A segment of two dots alone would be a true one.
            assert (await call(app, f"{FOLDER}x{below}x?{query}")).status == 200
            [exchange] = upstream.exchanges
            assert exchange.path.startswith(STORED)
            key = unquote_to_bytes(exchange.path).removeprefix(STORED.encode())
            assert key == unquote_to_bytes(f"x{below}x")


# The sign command

Sign = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sign(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sign:
    """Return a function that runs `downspout sign`; it returns the exit code and both outputs."""
    monkeypatch.setenv("URL_SIGNING_KEYS", KEY)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            main(["sign", *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def test_sign_command_of_service_py_takes_prefix() -> None:
    """`python service.py sign` is the same command as `downspout sign`."""
    ran = subprocess.run(
        [sys.executable, "service.py", "sign", PLAYLIST, "--prefix", FOLDER],
        cwd=ROOT,
        env={"URL_SIGNING_KEYS": KEY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"{PLAYLIST}?{urlencode({'prefix': FOLDER})}&expires=")


@pytest.mark.parametrize("url", ["/objects/a%20b/%C3%BC.pdf", "/objects/a b/ü.pdf"])
def test_sign_command_prints_valid_object_url(
    upstream: Misbehaving, port: int, sign: Sign, url: str
) -> None:
    """The printed URL of an object is percent-encoded, and valid for that object alone."""
    answer_all(upstream)
    code, printed, errors = sign(url)
    assert (code, errors) == (0, "")
    assert printed.startswith("/objects/a%20b/%C3%BC.pdf?expires=")
    assert fetch(port, printed.strip()).status == 200
    assert fetch(port, printed.strip().replace(".pdf", ".txt")).status == 403


@pytest.mark.parametrize(
    "arguments",
    [
        (PLAYLIST, "--prefix", FOLDER),
        ("--prefix", FOLDER, PLAYLIST),
        (PLAYLIST, f"--prefix={FOLDER}"),
        (FOLDER + "index.m3u8?utm=1", "--prefix", FOLDER),
    ],
)
def test_sign_command_with_prefix_prints_valid_prefix_url(
    upstream: Misbehaving, port: int, sign: Sign, arguments: tuple[str, ...]
) -> None:
    """With --prefix PATH the query of the printed URL is valid for all URLs below PATH."""
    answer_all(upstream)
    code, printed, errors = sign(*arguments)
    assert (code, errors) == (0, "")
    url = printed.strip()
    assert fetch(port, url).status == 200
    assert fetch(port, url.replace("index.m3u8", "a/1.ts")).status == 200
    assert fetch(port, url.replace("/7/index", "/8/index", 1)).status == 403


@pytest.mark.parametrize(
    "arguments",
    [
        ("/tasks/1/image", "--prefix", "/tasks/1/"),
        ("/tasks/1/image", "--prefix", "/objects/"),
        ("/objects/a/../b",),
        ("/objects/a/../b/c", "--prefix", "/objects/a/"),
        ("/objects/",),
        ("/objects/", "--prefix", "/objects/"),
        ("/objects/%FF",),
        ("/objects/%FF/a", "--prefix", "/objects/"),
        ("/objects/a%0A",),
        (PLAYLIST, "--prefix", FOLDER, "--root-path", "/media"),
        (PLAYLIST + "?prefix=/objects/", "--prefix", FOLDER),
        (PLAYLIST, "--prefix", "/objects/videos/7"),
        (PLAYLIST, "--prefix", "/objects/videos/8/"),
        (PLAYLIST, "--prefix", "/"),
        (PLAYLIST, "--prefix", ""),
    ],
)
def test_sign_command_with_invalid_object_returns_2_and_one_line(
    sign: Sign, arguments: tuple[str, ...]
) -> None:
    """The line names the URL and the problem, and has no secret."""
    code, printed, errors = sign(*arguments)
    assert (code, printed) == (2, "")
    assert errors.count("\n") == 1
    assert arguments[0] in errors
    assert SECRET not in errors


@pytest.mark.parametrize("arguments", [(PLAYLIST, "--prefix"), ("--prefix", PLAYLIST)])
def test_sign_command_with_prefix_without_path_prints_no_url(
    sign: Sign, arguments: tuple[str, ...]
) -> None:
    """--prefix needs a PATH besides the URL."""
    code, printed, errors = sign(*arguments)
    assert (code, printed) == (2, "")
    assert SECRET not in errors
