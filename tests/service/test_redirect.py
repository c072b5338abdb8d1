"""DELIVERY=redirect: a 307 to a presigned URL instead of the object's bytes."""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import subprocess
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import pytest

from handlers import sign_url
from settings import Settings, SettingsError
from tests.support.ceph import BODY, DATE, ETAG, Ceph
from tests.support.client import ask, asked, connect, fetch
from tests.support.components import BUCKET, Store, settings_for
from tests.support.metrics import parse_samples
from tests.support.misbehaving import Exchange, Misbehaving, answer_with
from tests.support.presigned import PresignedURL
from tests.support.serving import RunningService, ServiceWith, serving, wait_until

IMAGE, OBJECT = "/tasks/1/image", "/objects/files/one.txt"
ROUTES = ("/tasks/{task_id}/image", "/objects/{key}")
KEYS = {IMAGE: "test/1/image.jpg", OBJECT: "files/one.txt"}
OLD = "Mon, 23 Nov 2026 07:00:00 GMT"
LIFETIME = 77
MIB = 1024 * 1024
PICTURE = hashlib.shake_256(b"picture").digest(300_000)
TOKEN = "first-token-of-two"
SIGNING_KEY = "new:0123456789abcdef"

REDIRECT: dict[str, Any] = {
    "delivery": "redirect",
    "redirect_lifetime": LIFETIME,
    "s3_objects": ("/",),
}
PROXY: dict[str, Any] = {"s3_objects": ("/",)}

both_routes = pytest.mark.parametrize("path", [IMAGE, OBJECT], ids=["image", "objects"])


@pytest.fixture(params=[True, False], ids=["direct", "botocore"])
def direct(request: pytest.FixtureRequest) -> bool:
    """Run a test with S3_DIRECT on and off."""
    return bool(request.param)


@pytest.fixture
def redirecting(service_with: ServiceWith, store: Store, direct: bool) -> RunningService:
    """Run the service with DELIVERY=redirect in front of a real store."""
    return service_with(store.url, s3_direct=direct, **REDIRECT)


@pytest.fixture
def proxying(service_with: ServiceWith, store: Store, direct: bool) -> RunningService:
    """Run the service with DELIVERY=proxy in front of a real store."""
    return service_with(store.url, s3_direct=direct, **PROXY)


@pytest.fixture
def redirecting_fake(
    service_with: ServiceWith, upstream: Misbehaving, direct: bool
) -> RunningService:
    """Run the service with DELIVERY=redirect in front of a store that has every object."""
    upstream.behaviour = Ceph()
    return service_with(s3_direct=direct, **REDIRECT)


@pytest.fixture
def proxying_fake(
    service_with: ServiceWith, upstream: Misbehaving, direct: bool
) -> RunningService:
    """Run the service with DELIVERY=proxy in front of a store that has every object."""
    upstream.behaviour = Ceph()
    return service_with(s3_direct=direct, **PROXY)


def own_headers(answer: httpx.Response) -> dict[str, str]:
    """Return an answer's headers without those that differ between any two answers."""
    differ = {"date", "x-request-id", "server-timing"}
    return {name: value for name, value in answer.headers.items() if name not in differ}


def presigned(answer: httpx.Response) -> PresignedURL:
    """Return the URL to which a 307 leads."""
    assert answer.status_code == 307, answer.text
    return PresignedURL(answer.headers["location"])


def curl(url: str, directory: Path, *options: str) -> tuple[str, bytes]:
    """Follow redirects with curl; return "STATUS REDIRECTS TYPE" and the body."""
    body = directory / "body"
    written = "%{http_code} %{num_redirects} %{content_type}"
    command = ["curl", "-sSL", "--globoff", "--noproxy", "*", "-o", str(body), "-w", written]
    ran = subprocess.run([*command, *options, url], capture_output=True, text=True, check=True)
    return ran.stdout, body.read_bytes()


# A redirect that a client follows


@both_routes
def test_followed_redirect_gives_the_whole_object(
    store: Store, redirecting: RunningService, tmp_path: Path, path: str
) -> None:
    """Both httpx and curl -L get the stored bytes, from the store."""
    store.put(KEYS[path], PICTURE, ContentType="image/png")
    answer = redirecting.get(path, follow_redirects=True)
    assert [one.status_code for one in (*answer.history, answer)] == [307, 200]
    assert answer.url.port == store.port
    assert answer.content == PICTURE
    seen, body = curl(redirecting.url + path, tmp_path)
    assert (seen, body) == ("200 1 image/png", PICTURE)


@both_routes
def test_followed_redirect_gives_one_range(
    store: Store, redirecting: RunningService, tmp_path: Path, path: str
) -> None:
    """A client repeats its Range header at the store, and gets the 206 from there."""
    store.put(KEYS[path], PICTURE, ContentType="image/png")
    answer = redirecting.get(path, follow_redirects=True, headers={"range": "bytes=1000-1999"})
    assert [one.status_code for one in (*answer.history, answer)] == [307, 206]
    assert answer.content == PICTURE[1000:2000]
    assert answer.headers["content-range"] == f"bytes 1000-1999/{len(PICTURE)}"
    seen, body = curl(redirecting.url + path, tmp_path, "-r", "299990-")
    assert (seen, body) == ("206 1 image/png", PICTURE[299_990:])


UNTYPED = {"ContentType": "binary/octet-stream"}
HTML = {"ContentType": "text/html"}


@pytest.mark.parametrize(
    ("path", "key", "stored"),
    [
        (IMAGE, KEYS[IMAGE], {"ContentType": "image/webp"}),
        (IMAGE, KEYS[IMAGE], UNTYPED),
        (IMAGE, KEYS[IMAGE], {"ContentType": "image/svg+xml"}),
        (IMAGE + "?download=Stra%C3%9Fe%20%C3%A4.jpg", KEYS[IMAGE], {}),
        (IMAGE + "?download=a%22b%25;c%2Bd.jpg", KEYS[IMAGE], {}),
        ("/objects/a.pdf", "a.pdf", UNTYPED),
        ("/objects/a.unknown", "a.unknown", UNTYPED),
        ("/objects/a.html", "a.html", UNTYPED),
        ("/objects/a.txt", "a.txt", {"ContentType": "text/html; charset=utf-8"}),
        ("/objects/a.txt", "a.txt", {"ContentType": "text/plain; charset=utf-8"}),
        ("/objects/a.txt", "a.txt", {"ContentType": "text/html, image/png"}),
        ("/objects/a.txt", "a.txt", {"ContentType": "image/png; odd"}),
        ("/objects/a.txt", "a.txt", {"ContentDisposition": 'inline; filename="b.txt"'}),
        ("/objects/a.html", "a.html", {**HTML, "ContentDisposition": "inline"}),
        ("/objects/a.html?download=b.html", "a.html", HTML),
        ("/objects/a.txt?download=b.txt", "a.txt", {"ContentDisposition": "inline"}),
        ("/objects/t%C3%BCr/gr%C3%BC%C3%9Fe.txt?download", "tür/grüße.txt", {}),
        ("/objects/a.mp4", "a.mp4", {**UNTYPED, "CacheControl": "max-age=5"}),
        ("/objects/a.txt", "a.txt", {"ContentType": "text/plain", "ContentLanguage": "de"}),
    ],
)
def test_followed_redirect_has_headers_of_the_proxied_answer(
    store: Store,
    redirecting: RunningService,
    proxying: RunningService,
    path: str,
    key: str,
    stored: dict[str, str],
) -> None:
    """The store sends the type, the disposition and the validators that the service would send."""
    store.put(key, b"0123456789", **stored)
    proxied = proxying.get(path)
    followed = redirecting.get(path, follow_redirects=True)
    assert followed.history
    assert (proxied.status_code, followed.status_code) == (200, 200)
    assert followed.content == proxied.content == b"0123456789"
    for name in (
        "content-type",
        "content-disposition",
        "content-length",
        "content-language",
        "etag",
        "last-modified",
        "cache-control",
    ):
        assert followed.headers.get(name) == proxied.headers.get(name), name


ODD_KEYS = [
    "with spaces/a b.txt",
    "grün/Käse & Öl.txt",
    "why?/a?b=c",
    "a#b",
    "100%/%41%2F.txt",
    "a+b c+.txt",
    "a//b///c",
    "/leading",
    "trailing/",
    "%2e%2e/%2E/x",
    "a..b/.../..c",
    "back\\slash",
    "~!$&'()*,;=:@",
    '<>[]{}|^`"',
    "日本/😀.png",
    "?",
    "e\u0301/\u00e9",
    "x" * 1024,
]


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
def test_redirect_of_odd_key_is_followed(
    store: Store, redirecting: RunningService, tmp_path: Path, key: str
) -> None:
    """Location names exactly the object whose key the client has encoded in the path."""
    body = key.encode() * 2
    store.put(key, body)
    path = "/objects/" + quote(key)
    location = redirecting.get(path)
    assert (
        PresignedURL(location.headers["location"]).computed_signature("test")
        == (presigned(location).query["X-Amz-Signature"])
    )
    followed = redirecting.get(path, follow_redirects=True)
    assert (followed.status_code, followed.content) == (200, body)
    seen, received = curl(redirecting.url + path, tmp_path, "--path-as-is", "-r", "1-")
    assert (seen[:5], received) == ("206 1", body[1:])


def test_redirect_under_a_prefix_names_only_keys_below_it(
    store: Store, service_with: ServiceWith, direct: bool
) -> None:
    """S3_OBJECTS=public/ puts its prefix before each key."""
    store.put("public/a b.txt", b"public")
    store.put("secret.txt", b"secret")
    service = service_with(store.url, s3_direct=direct, **{**REDIRECT, "s3_objects": ("public/",)})
    found = service.get("/objects/a%20b.txt")
    assert presigned(found).path == f"/{BUCKET}/public/a%20b.txt"
    for path in ("/objects/..%2fsecret.txt", "/objects/secret.txt", "/objects/", "/objects/%00"):
        answer = service.get(path)
        assert answer.status_code == 404
        assert "location" not in answer.headers


def test_redirect_of_named_roots_names_their_buckets(
    store: Store, service_with: ServiceWith, direct: bool
) -> None:
    """Each root in S3_OBJECTS leads to its own bucket and prefix."""
    store.client.create_bucket(Bucket="elsewhere")
    store.client.put_object(Bucket="elsewhere", Key="one.txt", Body=b"elsewhere")
    store.put("public/one.txt", b"public")
    roots = ("photos=photos/public/", "docs=elsewhere/")
    service = service_with(store.url, s3_direct=direct, **{**REDIRECT, "s3_objects": roots})
    for root, path in (("photos", "/photos/public/one.txt"), ("docs", "/elsewhere/one.txt")):
        target = f"/objects/{root}/one.txt"
        assert presigned(service.get(target)).path == path
    assert service.get("/objects/docs/one.txt", follow_redirects=True).content == b"elsewhere"
    assert service.get("/objects/photos/one.txt", follow_redirects=True).content == b"public"
    assert service.get("/objects/other/one.txt").status_code == 404


# The 307 itself


@both_routes
def test_redirect_has_exactly_its_headers(
    upstream: Misbehaving, redirecting_fake: RunningService, path: str
) -> None:
    """The 307 is private, has no body, and has no header of the object."""
    answer = redirecting_fake.get(path)
    headers = own_headers(answer)
    location = presigned(answer)
    assert answer.content == b""
    assert headers.pop("location") == location.url
    assert headers == {"cache-control": "private, no-store", "content-length": "0"}
    assert {"date", "x-request-id", "server-timing"} < set(answer.headers)
    assert location.url.startswith(f"{upstream.url}/{BUCKET}/{KEYS[path]}?")


@both_routes
def test_redirect_url_has_a_valid_signature_and_nothing_else(
    redirecting_fake: RunningService, path: str
) -> None:
    """The URL has the signature parameters, REDIRECT_LIFETIME and the type of the answer."""
    location = presigned(redirecting_fake.get(path))
    query = location.query
    made = datetime.strptime(query.pop("X-Amz-Date"), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - made) < timedelta(seconds=30)
    assert query == {
        "response-content-type": "image/jpeg" if path == IMAGE else "text/plain",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"test/{made:%Y%m%d}/us-east-1/s3/aws4_request",
        "X-Amz-Expires": str(LIFETIME),
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Signature": location.computed_signature("test"),
    }


@both_routes
def test_download_name_of_one_request_is_not_sent_to_another(
    store: Store, redirecting: RunningService, proxying: RunningService, path: str
) -> None:
    """The file name is part of one request, and no other client may learn it."""
    store.put(KEYS[path], PICTURE, ContentType="image/x-own")
    for named, plain in itertools.product((redirecting, proxying), repeat=2):
        named.get(path + "?download=secret.jpg")
        answer = plain.get(path, follow_redirects=True)
        assert answer.content == PICTURE
        assert "content-disposition" not in answer.headers


@both_routes
def test_redirect_of_requester_pays_bucket_signs_it_in_the_query(
    service_with: ServiceWith, upstream: Misbehaving, direct: bool, path: str
) -> None:
    """A browser sends no x-amz-request-payer header, so the URL itself must have it."""
    upstream.behaviour = Ceph()
    service = service_with(s3_direct=direct, s3_requester_pays=True, **REDIRECT)
    location = presigned(service.get(path))
    assert location.query["x-amz-request-payer"] == "requester"
    assert location.query["X-Amz-SignedHeaders"] == "host"
    assert location.query["X-Amz-Signature"] == location.computed_signature("test")
    [head] = upstream.exchanges
    assert head.headers["x-amz-request-payer"] == "requester"


def test_redirect_with_session_token_and_own_region_is_signed_with_them(
    service_with: ServiceWith, upstream: Misbehaving, direct: bool
) -> None:
    """The URL has the session token of a temporary access key, and the region of the settings."""
    upstream.behaviour = Ceph()
    keys = {
        "aws_access_key_id": "temporary",
        "aws_secret_access_key": "s3cr/et+key",
        "aws_session_token": "to/k+en==",
        "s3_region": "eu-central-1",
    }
    service = service_with(s3_direct=direct, **keys, **REDIRECT)
    location = presigned(service.get("/objects/a%20%C3%BC%3F.txt?download=gr%C3%BCn%20%26.txt"))
    assert location.query["X-Amz-Security-Token"] == "to/k+en=="
    identifier, _, scope = location.query["X-Amz-Credential"].partition("/")
    assert identifier == "temporary"
    assert scope.endswith("/eu-central-1/s3/aws4_request")
    disposition = "attachment; filename=\"gr_n &.txt\"; filename*=UTF-8''gr%C3%BCn%20&.txt"
    assert location.query["response-content-disposition"] == disposition
    assert location.query["X-Amz-Signature"] == location.computed_signature("s3cr/et+key")


def test_redirect_after_key_rotation_is_signed_with_the_new_key(
    upstream: Misbehaving, direct: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A presigned URL of a key that the store no longer accepts would be a 403 for each client."""
    accepted = "old"
    ceph = Ceph()

    async def answer_accepted_key(exchange: Exchange) -> None:
        if f"Credential={accepted}/" in exchange.headers.get("authorization", ""):
            await ceph(exchange)
        else:
            await exchange.error(403, "InvalidAccessKeyId")

    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    upstream.behaviour = answer_accepted_key
    keys = {"aws_access_key_id": None, "aws_secret_access_key": None}
    settings = settings_for(upstream.url, s3_direct=direct, **keys, **REDIRECT)
    text = "[default]\naws_access_key_id = {0}\naws_secret_access_key = secret-of-{0}\n"
    credentials.write_text(text.format("old"))
    with serving(settings) as service:
        for accepted in ("old", "new"):
            credentials.write_text(text.format(accepted))
            location = presigned(service.get(IMAGE))
            assert location.query["X-Amz-Credential"].startswith(f"{accepted}/")
            signature = location.computed_signature(f"secret-of-{accepted}")
            assert location.query["X-Amz-Signature"] == signature


def test_redirect_to_bucket_in_another_region_is_signed_for_that_region(
    upstream: Misbehaving, direct: bool
) -> None:
    """The store would reject a URL for the region of the settings, which a client can't change."""
    ceph = Ceph()

    async def answer_own_region(exchange: Exchange) -> None:
        if "/eu-west-1/s3/" in exchange.headers["authorization"]:
            await ceph(exchange)
        else:
            await exchange.error(301, "PermanentRedirect", "x-amz-bucket-region: eu-west-1")

    upstream.behaviour = answer_own_region
    with serving(settings_for(upstream.url, s3_direct=direct, **REDIRECT)) as service:
        assert service.request("HEAD", IMAGE).status_code == 200
        for path in (IMAGE, OBJECT):
            location = presigned(service.get(path))
            assert "/eu-west-1/s3/" in location.query["X-Amz-Credential"]
            assert location.query["X-Amz-Signature"] == location.computed_signature("test")


@pytest.mark.parametrize("lifetime", [1, 604_800])
def test_redirect_url_expires_after_redirect_lifetime(
    service_with: ServiceWith, upstream: Misbehaving, lifetime: int
) -> None:
    """X-Amz-Expires is REDIRECT_LIFETIME, up to the seven days that S3 allows."""
    upstream.behaviour = Ceph()
    service = service_with(**{**REDIRECT, "redirect_lifetime": lifetime})
    assert presigned(service.get(IMAGE)).query["X-Amz-Expires"] == str(lifetime)


def test_redirect_url_expires_after_300_seconds_by_default(
    service_with: ServiceWith, upstream: Misbehaving
) -> None:
    """REDIRECT_LIFETIME is 300 unless it is set."""
    upstream.behaviour = Ceph()
    service = service_with(delivery="redirect")
    assert presigned(service.get(IMAGE)).query["X-Amz-Expires"] == "300"


@both_routes
def test_redirect_to_allowed_origin_has_cors_headers(
    service_with: ServiceWith, upstream: Misbehaving, path: str
) -> None:
    """A browser follows a redirect of another origin only if the 307 has CORS headers."""
    upstream.behaviour = Ceph()
    service = service_with(cors_origins=("https://app.example",), **REDIRECT)
    answer = service.get(path, headers={"origin": "https://app.example"})
    assert presigned(answer)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"


# Conditions, ranges and HEAD


@both_routes
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"range": "bytes=0-8"},
        {"range": "bytes=-5"},
        {"range": "bytes=0-1,5-6"},
        {"range": "bytes=0-1,5000-"},
        {"range": "bytes=9-1"},
        {"range": "lines=1-2"},
        {"range": "bytes=0-8", "if-range": ETAG},
        {"range": "bytes=0-8", "if-range": DATE},
        {"if-none-match": '"other"'},
        {"if-match": ETAG},
        {"if-match": f'"other", {ETAG}', "range": "bytes=0-8"},
        {"if-modified-since": OLD},
        {"if-unmodified-since": DATE},
    ],
)
def test_request_for_bytes_costs_one_head_and_returns_307(
    upstream: Misbehaving, redirecting_fake: RunningService, path: str, headers: dict[str, str]
) -> None:
    """A GET that would be a 200 or a 206 is a 307, and the store gets one HEAD."""
    assert presigned(redirecting_fake.get(path, headers=headers))
    assert upstream.requests == [f"HEAD /{BUCKET}/{KEYS[path]}"]
    [head] = upstream.exchanges
    assert not {"range", "if-range", "if-match", "if-none-match"} & set(head.headers)


@both_routes
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if-none-match": ETAG}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": f'"other", W/{ETAG}', "range": "bytes=0-8"}, 304),
        ({"if-modified-since": DATE}, 304),
        ({"if-match": '"other"'}, 412),
        ({"if-match": '"other"', "range": "bytes=5000-"}, 412),
        ({"if-unmodified-since": OLD}, 412),
        ({"range": "bytes=1000-"}, 416),
        ({"range": "bytes=5000-6000,1000-"}, 416),
        ({"range": "bytes=-0"}, 416),
        ({"range": "bytes=1000-", "if-range": ETAG}, 416),
    ],
)
def test_request_without_bytes_is_answered_as_proxied(
    upstream: Misbehaving,
    redirecting_fake: RunningService,
    proxying_fake: RunningService,
    path: str,
    method: str,
    headers: dict[str, str],
    status: int,
) -> None:
    """A 304, 412 and 416 come from the service, after one HEAD at the store."""
    headers = {**headers, "x-request-id": "same"}
    answer = redirecting_fake.request(method, path, headers=headers)
    assert upstream.requests == [f"HEAD /{BUCKET}/{KEYS[path]}"]
    assert answer.status_code == (200 if (method, status) == ("HEAD", 416) else status)
    proxied = proxying_fake.request(method, path, headers=headers)
    assert answer.status_code == proxied.status_code
    assert own_headers(answer) == own_headers(proxied)
    assert answer.content == proxied.content


@both_routes
@pytest.mark.parametrize("query", ["", "?download=gr%C3%BCn.jpg"])
@pytest.mark.parametrize("headers", [{}, {"range": "bytes=0-8"}, {"if-match": ETAG}])
def test_head_is_answered_with_headers_of_the_object(
    upstream: Misbehaving,
    redirecting_fake: RunningService,
    proxying_fake: RunningService,
    path: str,
    query: str,
    headers: dict[str, str],
) -> None:
    """A HEAD has the headers that it has without DELIVERY=redirect, and no Location."""
    answer = redirecting_fake.request("HEAD", path + query, headers=headers)
    assert upstream.requests == [f"HEAD /{BUCKET}/{KEYS[path]}"]
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(BODY))
    assert answer.headers["etag"] == ETAG
    proxied = proxying_fake.request("HEAD", path + query, headers=headers)
    assert own_headers(answer) == own_headers(proxied)


@pytest.mark.parametrize("stated", [None, "0"])
def test_redirect_without_range_needs_no_length_of_the_object(
    upstream: Misbehaving, redirecting_fake: RunningService, stated: str | None
) -> None:
    """An empty object, or a HEAD without a length, costs no second request."""
    length = [] if stated is None else [f"content-length: {stated}"]

    async def answer_without_length(exchange: Exchange) -> None:
        if exchange.method == "HEAD":
            await exchange.head(200, f"etag: {ETAG}", *length, "connection: close")
        else:
            await exchange.error(416, "InvalidRange")

    upstream.behaviour = answer_without_length
    assert presigned(redirecting_fake.get(IMAGE))
    assert upstream.requests == [f"HEAD /{BUCKET}/{KEYS[IMAGE]}"]


def test_redirect_of_empty_object_is_followed(store: Store, redirecting: RunningService) -> None:
    """An empty object has no range: with Range, the answer is streamed, as for a proxied one."""
    store.put("empty.txt", b"")
    answer = redirecting.get("/objects/empty.txt", follow_redirects=True)
    assert [one.status_code for one in (*answer.history, answer)] == [307, 200]
    assert answer.content == b""
    ranged = redirecting.get("/objects/empty.txt", headers={"range": "bytes=0-"})
    assert (ranged.status_code, ranged.content) == (200, b"")


@pytest.mark.parametrize("first", [4, 5000])
def test_range_of_another_version_is_answered_with_the_whole_object(
    store: Store, redirecting: RunningService, first: int
) -> None:
    """Stores may ignore If-Range and send a part of another version: they get no such request."""
    store.put("versions.txt", b"old version")
    etag = redirecting.request("HEAD", "/objects/versions.txt").headers["etag"]
    headers = {"range": f"bytes={first}-", "if-range": etag}
    if first == 4:
        part = redirecting.get("/objects/versions.txt", headers=headers, follow_redirects=True)
        assert (part.status_code, part.content) == (206, b"version")
    store.put("versions.txt", b"new version")
    whole = redirecting.get("/objects/versions.txt", headers=headers)
    assert (whole.status_code, whole.content) == (200, b"new version")


# Errors of the store


@pytest.mark.parametrize("path", [IMAGE, OBJECT])
@pytest.mark.parametrize(
    ("status", "code", "answered"),
    [
        (404, "NoSuchKey", 404),
        (403, "AccessDenied", 404),
        (403, "InvalidObjectState", 404),
        (404, "NoSuchBucket", 502),
        (403, "InvalidAccessKeyId", 502),
        (400, "ExpiredToken", 502),
        (307, "TemporaryRedirect", 502),
        (500, "InternalError", 502),
        (503, "SlowDown", 503),
    ],
)
def test_store_error_returns_the_problem_of_the_proxied_answer(
    upstream: Misbehaving,
    redirecting_fake: RunningService,
    proxying_fake: RunningService,
    path: str,
    status: int,
    code: str,
    answered: int,
) -> None:
    """No client is redirected to an object that the store refuses."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.error(status, code)

    upstream.behaviour = refuse
    headers = {"x-request-id": "same"}
    answer = redirecting_fake.get(path, headers=headers)
    # The response to a HEAD has no error code: a GET of one byte tells it.
    ranges = {one.headers.get("range") for one in upstream.exchanges if one.method == "GET"}
    assert ranges <= {"bytes=0-0"}
    proxied = proxying_fake.get(path, headers=headers)
    assert answer.status_code == proxied.status_code == answered
    assert own_headers(answer) == own_headers(proxied)
    assert answer.content == proxied.content


@pytest.mark.parametrize("status", [204, 206])
def test_head_with_other_success_status_returns_502(
    upstream: Misbehaving, redirecting_fake: RunningService, status: int
) -> None:
    """Only a 200 to the HEAD says that the object exists."""
    upstream.behaviour = answer_with(status)
    assert redirecting_fake.get(IMAGE).status_code == 502


@both_routes
def test_silent_store_returns_504(
    upstream: Misbehaving, service_with: ServiceWith, direct: bool, path: str
) -> None:
    """A store that never answers the HEAD is a 504 after FIRST_BYTE_TIMEOUT."""
    upstream.behaviour = Exchange.hang
    service = service_with(s3_direct=direct, first_byte_timeout=0.5, **REDIRECT)
    answer = service.get(path)
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:downspout:problem:upstream-timeout"
    assert service.counts() == (0, 0)


@both_routes
def test_unreachable_store_returns_502(
    unreachable_url: str, service_with: ServiceWith, direct: bool, path: str
) -> None:
    """A store that refuses the connection is a 502, not a redirect to it."""
    answer = service_with(unreachable_url, s3_direct=direct, **REDIRECT).get(path)
    assert answer.status_code == 502
    assert "location" not in answer.headers


def test_store_error_500_once_is_retried_and_redirected(
    upstream: Misbehaving, redirecting_fake: RunningService
) -> None:
    """A HEAD that fails once is repeated, as a GET is."""
    ceph = Ceph()

    async def fail_once(exchange: Exchange) -> None:
        if len(upstream.exchanges) == 1:
            await exchange.error(503, "SlowDown")
        else:
            await ceph(exchange)

    upstream.behaviour = fail_once
    assert presigned(redirecting_fake.get(IMAGE))
    assert upstream.requests == [f"HEAD /{BUCKET}/{KEYS[IMAGE]}"] * 2


# Access


@both_routes
def test_redirect_needs_a_token_or_a_signed_url(
    upstream: Misbehaving, service_with: ServiceWith, direct: bool, path: str
) -> None:
    """Without a credential the answer is a 401, and the store gets no request."""
    upstream.behaviour = Ceph()
    service = service_with(
        s3_direct=direct, access_tokens=(TOKEN,), url_signing_keys=(SIGNING_KEY,), **REDIRECT
    )
    signed = sign_url(path, SIGNING_KEY, lifetime=60)
    for refused in (path, signed[:-1], signed.replace("expires=", "expires=1")):
        answer = service.get(refused)
        assert answer.status_code == 401
        assert "location" not in answer.headers
    assert service.get(path, headers={"authorization": "Bearer wrong"}).status_code == 401
    assert upstream.requests == []
    by_token = service.get(path, headers={"authorization": f"Bearer {TOKEN}"})
    by_signature = service.get(signed)
    own = signed.rpartition("signature=")[2]
    for answer in (by_token, by_signature):
        location = presigned(answer)
        assert answer.headers["cache-control"] == "private, no-store"
        assert location.query["X-Amz-Signature"] == location.computed_signature("test")
        assert own not in location.url
        assert TOKEN not in location.url
    assert all(TOKEN not in str(one.headers) for one in upstream.exchanges)


def test_redirect_with_signed_download_name_asks_the_store_for_it(
    upstream: Misbehaving, service_with: ServiceWith
) -> None:
    """A signed download name is the file name of the store's answer."""
    upstream.behaviour = Ceph()
    service = service_with(url_signing_keys=(SIGNING_KEY,), **REDIRECT)
    signed = sign_url(OBJECT + "?download=a b.txt", SIGNING_KEY, lifetime=60)
    query = presigned(service.get(signed)).query
    assert query["response-content-disposition"] == 'attachment; filename="a b.txt"'


# Slots


@both_routes
def test_redirected_client_holds_no_slot(
    upstream: Misbehaving, service_with: ServiceWith, direct: bool, path: str
) -> None:
    """With one slot, clients that keep their connections open are all redirected."""
    upstream.behaviour = Ceph()
    settings = settings_for(
        upstream.url, s3_direct=direct, max_downloads=1, queue_timeout=5, **REDIRECT
    )
    with serving(settings) as service, ExitStack() as clients:
        for _ in range(5):
            client = clients.enter_context(closing(connect(service.port)))
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            assert client.recv(65_536).startswith(b"HTTP/1.1 307 ")
            wait_until(lambda: service.counts() == (0, 0), seconds=2)
            assert service.acquired_connections() == 0


@both_routes
def test_redirect_without_free_slot_returns_503(
    upstream: Misbehaving, direct: bool, path: str
) -> None:
    """The HEAD at the store needs a slot, so a flood of requests can't overload the store."""
    upstream.behaviour = Exchange.hang
    settings = settings_for(
        upstream.url, s3_direct=direct, max_downloads=1, queue_timeout=0.2, **REDIRECT
    )
    with serving(settings) as service:
        with asked(service.port, path):
            wait_until(lambda: upstream.exchanges)
            answer = service.get(path)
            assert answer.status_code == 503
            assert answer.json()["type"] == "urn:downspout:problem:too-many-downloads"
            assert "retry-after" in answer.headers
            assert len(upstream.exchanges) == 1
        wait_until(lambda: service.counts() == (0, 0))


def test_redirect_of_large_object_needs_no_bulk_slot(upstream: Misbehaving) -> None:
    """Long downloads of the bytes route don't delay a redirect, which has no body."""
    ceph = Ceph()

    async def answer_both(exchange: Exchange) -> None:
        if exchange.path.startswith("/bytes/"):
            await exchange.head(200, f"content-length: {2 * MIB}")
            await exchange.body(bytes(MIB))
            await exchange.hang()
        elif exchange.method == "HEAD":
            await exchange.head(200, "content-length: 5000000000000", f"etag: {ETAG}")
        else:
            await ceph(exchange)

    upstream.behaviour = answer_both
    settings = settings_for(upstream.url, max_downloads=8, queue_timeout=0.2, **REDIRECT)
    with serving(settings) as service, ExitStack() as clients:
        for _ in range(7):
            client = clients.enter_context(closing(connect(service.port)))
            ask(client, f"/tasks/1/bytes/{2 * MIB}")
            assert client.recv(1)
        assert presigned(service.get(IMAGE))


# The bytes route


def test_bytes_route_is_never_redirected(upstream: Misbehaving, service_with: ServiceWith) -> None:
    """DELIVERY=redirect applies to objects of the store only."""
    upstream.behaviour = answer_with(200, b"12345")
    answer = service_with(**REDIRECT).get("/tasks/1/bytes/5")
    assert (answer.status_code, answer.content) == (200, b"12345")


# Log and metrics


@both_routes
def test_log_line_of_redirect_has_status_307_and_no_url(
    upstream: Misbehaving,
    service_with: ServiceWith,
    direct: bool,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    """A presigned URL is a credential: the log must not have it."""
    caplog.set_level(logging.DEBUG, "downspout")
    upstream.behaviour = Ceph()
    service = service_with(s3_direct=direct, **REDIRECT)
    received = fetch(service.port, path + "?download=name.txt", headers={"x-request-id": "own"})
    location = PresignedURL(received.headers["location"])
    wait_until(lambda: "request_id=own" in caplog.text)
    [line] = [one for one in caplog.records if "request_id=own" in one.getMessage()]
    assert f"GET {path} 307 complete 0/0 bytes in " in line.getMessage()
    assert line.levelno == logging.INFO
    fields = line.download  # type: ignore[attr-defined]
    expected = {
        "path": path,
        "route": ROUTES[path == OBJECT],
        "source": "s3",
        "status": 307,
        "outcome": "complete",
        "reason": None,
        "bytes_sent": 0,
        "bytes_expected": 0,
        "resumes": 0,
    }
    assert {name: fields[name] for name in expected} == expected
    hidden = ("X-Amz", "Signature", location.query["X-Amz-Signature"], location.host, "name.txt")
    seen = caplog.text + str([vars(one) for one in caplog.records])
    assert not [word for word in hidden if word in seen]


def test_redirects_are_counted_as_complete_downloads(upstream: Misbehaving, direct: bool) -> None:
    """A 307 counts as a complete download without bytes, under the label of its route."""
    ceph = Ceph()

    async def answer_by_key(exchange: Exchange) -> None:
        if "missing" in exchange.path:
            await exchange.error(404, "NoSuchKey")
        else:
            await ceph(exchange)

    upstream.behaviour = answer_by_key
    with serving(settings_for(upstream.url, s3_direct=direct, **REDIRECT)) as service:
        for path in (IMAGE, OBJECT, "/objects/two", "/objects/missing"):
            fetch(service.port, path)
        fetch(service.port, OBJECT, headers={"if-none-match": ETAG})
        text = service.get("/metrics").text
    found = parse_samples(text)
    image, objects = ROUTES
    assert found[f"downspout_downloads_total complete {image}"] == 1
    assert found[f"downspout_downloads_total complete {objects}"] == 3
    assert found[f"downspout_downloads_total refused {objects}"] == 1
    assert found[f"downspout_first_byte_seconds_count {objects}"] == 4
    assert found["downspout_downloads_running"] == 0
    assert not [n for n in found if n.startswith("downspout_upstream_errors_total") and found[n]]
    assert not [word for word in ("one.txt", "missing", "X-Amz") if word in text]


# Settings


def test_redirect_of_unsigned_bucket_is_a_settings_error() -> None:
    """A public bucket without credentials has no presigned URLs."""
    with pytest.raises(SettingsError) as raised:
        Settings(s3_image_bucket=BUCKET, s3_unsigned=True, delivery="redirect")
    [problem] = raised.value.problems
    assert "s3_unsigned" in problem.lower()
    assert "delivery" in problem.lower()
    environ = {"S3_IMAGE_BUCKET": BUCKET, "S3_UNSIGNED": "true", "DELIVERY": "redirect"}
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ(environ)
    [problem] = raised.value.problems
    assert "S3_UNSIGNED" in problem
    assert "DELIVERY" in problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DELIVERY", "stream"),
        ("REDIRECT_LIFETIME", "0"),
        ("REDIRECT_LIFETIME", "604801"),
        ("REDIRECT_LIFETIME", "1.5"),
        ("REDIRECT_LIFETIME", "5m"),
    ],
)
def test_invalid_redirect_setting_is_one_line(name: str, value: str) -> None:
    """The line names the variable and its valid values."""
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ({"S3_IMAGE_BUCKET": BUCKET, name: value})
    [problem] = raised.value.problems
    assert problem.startswith(f"{name} must be ")


# Several requests


def test_redirects_on_one_connection_are_all_answered(
    store: Store, redirecting: RunningService
) -> None:
    """The connection stays open after a 307, and each answer is the one of its request."""
    for number in (61, 62):
        store.put(f"test/{number}/image.jpg", str(number).encode())
    with httpx.Client(base_url=redirecting.url, trust_env=False, verify=False) as client:
        for number, method in itertools.product((61, 404, 62), ("GET", "HEAD", "GET")):
            answer = client.request(method, f"/tasks/{number}/image")
            if number == 404:
                assert answer.status_code == 404
            elif method == "HEAD":
                assert answer.status_code == 200
            else:
                assert presigned(answer).path == f"/{BUCKET}/test/{number}/image.jpg"


def test_redirect_follows_a_replaced_or_deleted_object(
    store: Store, redirecting: RunningService
) -> None:
    """Each request asks the store: the service remembers no URL and no answer."""
    path, key = "/objects/changing.txt", "changing.txt"
    for body in (b"one", b"two"):
        store.put(key, body)
        assert redirecting.get(path, follow_redirects=True).content == body
    store.client.delete_object(Bucket=BUCKET, Key=key)
    assert redirecting.get(path).status_code == 404


@pytest.mark.parametrize(
    "stored",
    [
        ["attachment=1"],
        ["attachment/x; filename=a.html"],
        ["attachment filename=a.html"],
        ["attachment", "inline"],
    ],
)
def test_redirect_of_html_with_invalid_disposition_asks_for_an_attachment(
    service_with: ServiceWith, upstream: Misbehaving, stored: list[str]
) -> None:
    """Chromium shows a page inline if the disposition type is no token (RFC 9110, 5.6.2)."""
    lines = [f"content-disposition: {one}" for one in stored]

    async def send_html(exchange: Exchange) -> None:
        await exchange.answer(200, b"<script>", "content-type: text/html", 'etag: "v"', *lines)

    upstream.behaviour = send_html
    service = service_with(s3_objects=("/",), delivery="redirect")
    location = fetch(service.port, "/objects/a.html").headers["location"]
    answered = dict(parse_qsl(urlsplit(location).query))
    assert re.fullmatch(r"attachment(;.*)?", answered["response-content-disposition"])
