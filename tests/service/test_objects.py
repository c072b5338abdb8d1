"""The objects route in front of a real S3 server, of nginx, and of a faulty store."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from handlers import create_app, sign_url
from tests.support.client import Received, connect, fetch, read_answer
from tests.support.components import BUCKET, Store, settings_for
from tests.support.metrics import parse_samples
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving, answer_with
from tests.support.nginx import nginx_serving
from tests.support.odd_keys import ENCODERS, MAX_KEY_BYTES, ODD_KEYS, encode, longest_key
from tests.support.serving import (
    RunningService,
    ServicePool,
    ServiceWith,
    entering,
    serving,
    serving_app,
    wait_until,
)
from tests.support.stored import DATE, select

OBJECTS = "/objects/{key}"
OTHER_BUCKET = "documents"
PREFIX = "public/"
ROOTS = (f"photos={BUCKET}/{PREFIX}", f"docs={OTHER_BUCKET}/")
KEY = "a:0123456789abcdef"
ORIGIN = {"origin": "https://app.example"}

KEYS = {**ODD_KEYS, "1024 bytes": longest_key(PREFIX)}


def body_of(bucket: str, key: str) -> bytes:
    return f"the object {key} in {bucket}".encode()


def is_problem(received: Received, status: int, kind: str) -> bool:
    """Return whether an answer is a whole problem document."""
    assert received.headers["content-type"] == "application/problem+json"
    problem = json.loads(received.body)
    found: tuple[int, int, str] = (received.status, problem["status"], problem["type"])
    return received.whole and found == (status, status, f"urn:downspout:problem:{kind}")


@pytest.fixture(scope="module")
def filled(store: Store) -> Store:
    """Store every odd key below the prefix, outside it, and in another bucket."""
    store.client.create_bucket(Bucket=OTHER_BUCKET)
    for key in KEYS.values():
        for bucket, stored in ((BUCKET, PREFIX + key), (BUCKET, key), (OTHER_BUCKET, key)):
            body = body_of(bucket, stored)
            store.client.put_object(Bucket=bucket, Key=stored, Body=body)
    return store


@pytest.fixture(scope="module", params=[True, False], ids=["direct", "botocore"])
def s3_direct(request: pytest.FixtureRequest) -> bool:
    """Return whether the service sends its S3 requests itself, or through botocore."""
    is_direct: bool = request.param
    return is_direct


# Where keys are


@pytest.mark.parametrize(
    ("s3_objects", "below", "bucket", "prefix"),
    [
        ((PREFIX,), "/objects/", BUCKET, PREFIX),
        (("public/a/",), "/objects/", BUCKET, "public/a/"),
        (("/",), "/objects/", BUCKET, ""),
        (ROOTS, "/objects/photos/", BUCKET, PREFIX),
        (ROOTS, "/objects/docs/", OTHER_BUCKET, ""),
        ((f"docs={OTHER_BUCKET}/b/c/",), "/objects/docs/", OTHER_BUCKET, "b/c/"),
        ((f"images={BUCKET}/",), "/objects/images/", BUCKET, ""),
    ],
)
def test_each_form_of_s3_objects_sets_bucket_and_prefix(
    store: Store,
    service_with: ServiceWith,
    s3_objects: tuple[str, ...],
    below: str,
    bucket: str,
    prefix: str,
) -> None:
    """The key is the path below the route, or below the name, after the prefix."""
    existing = {one["Name"] for one in store.client.list_buckets()["Buckets"]}
    if bucket not in existing:
        store.client.create_bucket(Bucket=bucket)
    key = prefix + "2026/a b.txt"
    store.client.put_object(Bucket=bucket, Key=key, Body=body_of(bucket, key))
    service = service_with(store.url, s3_objects=s3_objects)
    received = fetch(service.port, below + "2026/a%20b.txt")
    assert (received.status, received.body) == (200, body_of(bucket, key))
    assert is_problem(fetch(service.port, below + "none.txt"), 404, "not-found")


@pytest.mark.parametrize(
    "path",
    [
        "/objects/other/a.txt",
        "/objects/photos",
        "/objects/photos/",
        "/objects/Photos/a.txt",
        "/objects/photos%20/a.txt",
        "/objects//photos/a.txt",
        "/objects//a.txt",
        "/objects/docs/../photos/a.txt",
        "/objects/docs/%2e%2e/photos/a.txt",
        "/objects/docs/..%2fphotos%2fa.txt",
        "/objects/./docs/a.txt",
        f"/objects/{BUCKET}.example/a.txt",
        f"/objects/{OTHER_BUCKET}/a.txt",
    ],
)
def test_unknown_name_of_a_root_returns_404_without_store_request(
    upstream: Misbehaving, service_with: ServiceWith, path: str
) -> None:
    """Only the names in S3_OBJECTS lead to a bucket; the names of buckets do not."""
    upstream.behaviour = answer_with(200, b"never")
    service = service_with(s3_objects=ROOTS)
    assert is_problem(fetch(service.port, path), 404, "not-found")
    assert upstream.exchanges == []


def test_objects_outside_the_prefix_are_not_served(
    filled: Store, service_with: ServiceWith
) -> None:
    """A key that exists only beside the prefix is a 404."""
    filled.put("private/a.txt", b"private")
    filled.put("public2/a.txt", b"private")
    service = service_with(filled.url, s3_objects=(PREFIX,))
    for path in ("/objects/private/a.txt", "/objects/2/a.txt", "/objects/../private/a.txt"):
        assert is_problem(fetch(service.port, path), 404, "not-found")


@pytest.mark.parametrize("path", ["/objects", "/objects/", "/objects/a.txt", "/objects/../x"])
def test_objects_route_without_s3_objects_returns_404(
    upstream: Misbehaving, service_with: ServiceWith, path: str
) -> None:
    """Without S3_OBJECTS the route does not exist."""
    upstream.behaviour = answer_with(200, b"never")
    service = service_with()
    assert is_problem(fetch(service.port, path), 404, "not-found")
    assert upstream.exchanges == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_objects_route_with_other_method_returns_405(
    upstream: Misbehaving, service_with: ServiceWith, method: str
) -> None:
    """Methods other than GET and HEAD get 405 with an Allow header."""
    answer = service_with(s3_objects=(PREFIX,)).request(method, "/objects/a.txt")
    assert answer.status_code == 405
    assert sorted(answer.headers["allow"].split(", ")) == ["GET", "HEAD"]
    assert upstream.exchanges == []


def test_openapi_has_objects_route_only_with_s3_objects(
    upstream: Misbehaving, service_with: ServiceWith
) -> None:
    """The OpenAPI document describes the routes that exist."""
    for s3_objects in ((PREFIX,), ROOTS, ()):
        document = service_with(s3_objects=s3_objects).get("/openapi.json").json()
        assert (OBJECTS in document["paths"]) == bool(s3_objects)


# Odd keys


@pytest.fixture(scope="module")
def keys_service(_services: ServicePool, filled: Store, s3_direct: bool) -> RunningService:
    """Run the service with a prefix, and without access control."""
    return _services.get(settings_for(filled.url, s3_objects=(PREFIX,), s3_direct=s3_direct))


@pytest.fixture(scope="module")
def roots_service(_services: ServicePool, filled: Store, s3_direct: bool) -> RunningService:
    """Run the service with named roots."""
    return _services.get(settings_for(filled.url, s3_objects=ROOTS, s3_direct=s3_direct))


@pytest.fixture(scope="module")
def signed_service(_services: ServicePool, filled: Store, s3_direct: bool) -> RunningService:
    """Run the service with a prefix and a signing key."""
    settings = settings_for(
        filled.url, s3_objects=(PREFIX,), s3_direct=s3_direct, url_signing_keys=(KEY,)
    )
    return _services.get(settings)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", KEYS)
def test_odd_key_returns_its_object(
    keys_service: RunningService, name: str, encoder: Callable[[str], str]
) -> None:
    """However a client encodes the path, it gets the object with the decoded key."""
    received = fetch(keys_service.port, "/objects/" + encoder(KEYS[name]))
    assert (received.status, received.whole) == (200, True)
    assert received.body == body_of(BUCKET, PREFIX + KEYS[name])


@pytest.mark.parametrize("name", KEYS)
def test_odd_key_has_equal_head_and_range(keys_service: RunningService, name: str) -> None:
    """HEAD and a range find the same object as GET."""
    path, whole = "/objects/" + encode(KEYS[name]), body_of(BUCKET, PREFIX + KEYS[name])
    head = fetch(keys_service.port, path, method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(whole)))
    part = fetch(keys_service.port, path, headers={"range": "bytes=4-"})
    assert (part.status, part.body) == (206, whole[4:])


@pytest.mark.parametrize("name", ODD_KEYS)
def test_odd_key_in_named_root_returns_its_object(
    roots_service: RunningService, name: str
) -> None:
    """A root without a prefix, in another bucket, has the same odd keys."""
    key = ODD_KEYS[name]
    for root, bucket, prefix in (("photos", BUCKET, PREFIX), ("docs", OTHER_BUCKET, "")):
        received = fetch(roots_service.port, f"/objects/{root}/{encode(key)}")
        assert (received.status, received.body) == (200, body_of(bucket, prefix + key))


@pytest.mark.parametrize("name", ODD_KEYS)
def test_odd_key_in_whole_bucket_returns_its_object(
    filled: Store, service_with: ServiceWith, name: str
) -> None:
    """With S3_OBJECTS=/ the key is the whole path below the route."""
    service = service_with(filled.url, s3_objects=("/",))
    received = fetch(service.port, "/objects/" + encode(ODD_KEYS[name]))
    assert (received.status, received.body) == (200, body_of(BUCKET, ODD_KEYS[name]))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", KEYS)
def test_signed_url_of_odd_key_returns_its_object(
    signed_service: RunningService, name: str, encoder: Callable[[str], str]
) -> None:
    """sign_url signs the decoded path, so each encoding of a path has a valid URL."""
    url = sign_url("/objects/" + encoder(KEYS[name]), KEY, lifetime=60)
    received = fetch(signed_service.port, url)
    assert received.body == body_of(BUCKET, PREFIX + KEYS[name])
    unsigned = fetch(signed_service.port, url.partition("?")[0])
    assert is_problem(unsigned, 403, "not-signed")


@pytest.mark.parametrize("encoder", ENCODERS[1:])
@pytest.mark.parametrize("name", KEYS)
def test_signature_of_one_encoding_is_valid_for_another(
    signed_service: RunningService, name: str, encoder: Callable[[str], str]
) -> None:
    """A proxy may encode the path of a signed URL in another way."""
    query = sign_url("/objects/" + encode(KEYS[name]), KEY, lifetime=60).partition("?")[2]
    received = fetch(signed_service.port, f"/objects/{encoder(KEYS[name])}?{query}")
    assert received.body == body_of(BUCKET, PREFIX + KEYS[name])


@pytest.mark.parametrize("name", KEYS)
def test_prefix_signature_of_odd_folder_returns_its_objects(
    filled: Store, signed_service: RunningService, name: str
) -> None:
    """A prefix with odd characters opens the objects below it."""
    folder = KEYS[name][:200].encode()[:500].decode("utf-8", "ignore") + "/"
    filled.put(PREFIX + folder + "ü.ts", b"segment")
    path, prefix = f"/objects/{encode(folder)}", f"/objects/{folder}"
    query = sign_url(f"{path}x", KEY, lifetime=60, prefix=prefix).partition("?")
    received = fetch(signed_service.port, f"{path}%C3%BC.ts?{query[2]}")
    assert (received.status, received.body) == (200, b"segment")


# nginx serves files, so a key must not end with "/", and two slashes are one.
FILES = {
    name: key
    for name, key in {**ODD_KEYS, "1024 bytes": longest_key(PREFIX)}.items()
    if not key.endswith("/") and "//" not in key and not key.startswith("/")
}


@pytest.fixture(scope="module")
def nginx_service(
    _services: ServicePool, s3_direct: bool, tmp_path_factory: pytest.TempPathFactory
) -> Generator[RunningService]:
    """Run the service in front of nginx, which has each key as a file."""
    folder = tmp_path_factory.mktemp("nginx")
    for key in FILES.values():
        file = folder / BUCKET / PREFIX / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body_of(BUCKET, key))
    with nginx_serving(folder, "merge_slashes off;", "default_type binary/octet-stream;") as port:
        url = f"http://127.0.0.1:{port}"
        with serving(settings_for(url, s3_objects=(PREFIX,), s3_direct=s3_direct)) as service:
            yield service


@pytest.mark.parametrize("name", FILES)
def test_odd_key_returns_its_file_of_nginx(nginx_service: RunningService, name: str) -> None:
    """The server nginx decodes the path of an S3 request to the key, as moto does."""
    received = fetch(nginx_service.port, "/objects/" + encode(FILES[name]))
    assert (received.status, received.body) == (200, body_of(BUCKET, FILES[name]))


def test_files_of_nginx_outside_the_bucket_are_not_served(nginx_service: RunningService) -> None:
    """No path of the route leads to nginx's configuration, two folders above the prefix."""
    for dots in ("../..", "%2e%2e/%2e%2e", "..%2f..", "%252e%252e/%252e%252e", "..\\..", "..;/.."):
        received = fetch(nginx_service.port, f"/objects/{dots}/nginx.conf")
        assert is_problem(received, 404, "not-found")


# Invalid keys

INVALID = {
    "empty": "",
    "dot": ".",
    "two dots": "..",
    "dot as last segment": "a/.",
    "dot as first segment": "./a",
    "dot in the middle": "a/./b",
    "dots as first segment": "../a",
    "dots as last segment": "a/..",
    "dots in the middle": "a/../b",
    "dots and slash": "../",
    "dots behind two slashes": "a//../b",
    "encoded dot": "%2e",
    "encoded dots": "%2e%2E",
    "one dot of two encoded": ".%2e/a",
    "encoded dots and slashes": "%2e%2e%2f%2e%2e%2fa",
    "dots and encoded slash": "..%2fa",
    "slash, dots, slash encoded": "a%2f..%2fb",
    "encoded dots as last segment": "a/b/%2e%2e",
    "nul": "a%00",
    "nul before extension": "a.txt%00.jpg",
    "nul alone": "%00",
    "start of heading": "a%01b",
    "tab": "a%09b",
    "line feed": "a%0Ab",
    "line feed at the end": "a%0A",
    "line feed alone": "%0A",
    "carriage return": "a%0Db",
    "unit separator": "a%1Fb",
    "delete": "a%7Fb",
    "byte ff": "a%FF",
    "latin-1": "caf%E9",
    "cut character": "a%C3",
    "cut emoji": "%F0%9F%98",
    "continuation alone": "%80",
    "continuation missing": "%C3%28",
    "surrogate": "%ED%A0%80",
    "surrogate pair": "%ED%A0%BD%ED%B8%80",
    "beyond unicode": "%F4%90%80%80",
    "overlong slash in two bytes": "..%C0%AF..%C0%AFa",
    "overlong slash in three bytes": "a%E0%80%AFb",
    "overlong slash in four bytes": "a%F0%80%80%AFb",
    "overlong dots": "%C0%AE%C0%AE/a",
    "overlong nul": "a%C0%80",
    "valid and invalid replacement character": "%EF%BF%BD%FF",
    "1025 bytes": "k" * (MAX_KEY_BYTES + 1 - len(PREFIX)),
    "1025 bytes of utf-8": "%C3%A9" * ((MAX_KEY_BYTES - len(PREFIX)) // 2) + "kk",
    "60 kB": "k" * 60_000,
}


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("s3_objects", [(PREFIX,), ROOTS], ids=["prefix", "roots"])
@pytest.mark.parametrize("name", INVALID)
def test_invalid_key_returns_404_without_store_request(
    upstream: Misbehaving,
    service_with: ServiceWith,
    name: str,
    s3_objects: tuple[str, ...],
    http: str,
) -> None:
    """A key that S3 does not allow, or that is unsafe in a URL, never reaches the store."""
    upstream.behaviour = answer_with(200, b"never")
    service = service_with(s3_objects=s3_objects, http=http)
    below = "/objects/" if s3_objects != ROOTS else "/objects/photos/"
    for method in ("GET", "HEAD"):
        received = fetch(service.port, below + INVALID[name], method=method)
        assert received.status == 404
        if method == "GET":
            assert is_problem(received, 404, "not-found")
    assert upstream.exchanges == []


@pytest.mark.parametrize("raw", [b"caf\xc3\xa9", b"\xff", b"a\x00b", b"a\x7fb", b"a\tb"])
def test_byte_that_no_request_line_may_have_is_refused(
    upstream: Misbehaving, service_with: ServiceWith, raw: bytes
) -> None:
    """Bytes that a client should have percent-encoded lead to no store request."""
    upstream.behaviour = answer_with(200, b"never")
    service = service_with(s3_objects=(PREFIX,))
    with connect(service.port) as connection:
        head = b"GET /objects/%s HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        connection.sendall(head % raw)
        assert read_answer(connection).status in (400, 404)
    assert upstream.exchanges == []


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        ("/objects/a%20b.txt", "public/a%20b.txt"),
        ("/objects/a%252e%252e%252fb", "public/a%252e%252e%252fb"),
        ("/objects/%252e%252e/%252e%252e/b", "public/%252e%252e/%252e%252e/b"),
        ("/objects/..%5C..%5Cb", "public/..%5C..%5Cb"),
        ("/objects/%EF%BC%8F%EF%BC%8E", "public/%EF%BC%8F%EF%BC%8E"),  # full-width "/" and "."
        ("/objects//b", "public//b"),
        ("/objects/%2F%2Fb", "public///b"),
        ("/objects/a?download=x", "public/a"),
        ("/objects/a%3Fdownload=x", "public/a%3Fdownload%3Dx"),
        ("/objects/+", "public/%2B"),
        ("/objects/%EF%BF%BD", "public/%EF%BF%BD"),
    ],
)
def test_store_gets_the_key_encoded_once(
    upstream: Misbehaving, service_with: ServiceWith, s3_direct: bool, path: str, stored: str
) -> None:
    """The path is decoded once and the key encoded once; nothing in it is normalized."""
    upstream.behaviour = answer_with(200, b"x")
    service = service_with(s3_objects=(PREFIX,), s3_direct=s3_direct)
    assert fetch(service.port, path).status == 200
    assert upstream.requests == [f"GET /{BUCKET}/{stored}"]


# Type and name


@pytest.mark.parametrize(
    ("key", "content_type"),
    [
        ("invoices/2026/07.pdf", "application/pdf"),
        ("INVOICE.PDF", "application/pdf"),
        ("a.mp4", "video/mp4"),
        ("a.txt", "text/plain"),
        ("a.jpg", "image/jpeg"),
        ("größe.png", "image/png"),
        ("a.tar.gz", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("a.unknown-extension", "application/octet-stream"),
        ("folder.pdf/a", "application/octet-stream"),
        (".pdf", "application/octet-stream"),
    ],
)
def test_object_without_stored_type_has_the_type_of_its_extension(
    store: Store, service_with: ServiceWith, s3_direct: bool, key: str, content_type: str
) -> None:
    """S3 stores binary/octet-stream for an upload without a type."""
    store.put(f"types/{key}", b"data")
    service = service_with(store.url, s3_objects=("types/",), s3_direct=s3_direct)
    for method in ("GET", "HEAD"):
        received = fetch(service.port, f"/objects/{encode(key)}", method=method)
        assert received.headers["content-type"] == content_type
        assert received.headers["x-content-type-options"] == "nosniff"
        assert "content-disposition" not in received.headers


def test_object_with_stored_type_keeps_it(store: Store, service_with: ServiceWith) -> None:
    """The stored type takes precedence over the extension."""
    store.put("types/stored.pdf", b"data", ContentType="text/plain; charset=utf-8")
    service = service_with(store.url, s3_objects=("types/",))
    received = fetch(service.port, "/objects/stored.pdf")
    assert received.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("key", ["page.html", "picture.svg", "script.js"])
def test_object_that_a_browser_would_run_is_an_attachment_in_a_sandbox(
    store: Store, service_with: ServiceWith, key: str
) -> None:
    """A page among the objects would otherwise run as a page of this site."""
    store.put(f"types/{key}", b"<script>alert(1)</script>")
    service = service_with(store.url, s3_objects=("types/",))
    headers = fetch(service.port, f"/objects/{key}").headers
    assert headers["content-disposition"] == "attachment"
    assert headers["content-security-policy"].startswith("sandbox;")


@pytest.mark.parametrize(
    ("target", "disposition"),
    [
        ("a/07.pdf", None),
        ("a/07.pdf?download", 'attachment; filename="07.pdf"'),
        ("a/07.pdf?download=", 'attachment; filename="07.pdf"'),
        ("a/07.pdf?x=1&download", 'attachment; filename="07.pdf"'),
        ("a/07.pdf?download=July.pdf", 'attachment; filename="July.pdf"'),
        ("a/07.pdf?download=a%2Fb%5Cc.pdf", 'attachment; filename="c.pdf"'),
        (
            "a/Gr%C3%B6%C3%9Fe%201.pdf?download",
            "attachment; filename=\"Gr__e 1.pdf\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%201.pdf",
        ),
        ("top.pdf?download", 'attachment; filename="top.pdf"'),
        (
            "a/%22%3Bb.pdf?download",
            "attachment; filename=\"__b.pdf\"; filename*=UTF-8''%22%3Bb.pdf",
        ),
    ],
)
def test_download_parameter_sets_the_file_name(
    upstream: Misbehaving,
    service_with: ServiceWith,
    s3_direct: bool,
    target: str,
    disposition: str | None,
) -> None:
    """`?download` without a value saves under the key's last segment."""
    upstream.behaviour = answer_with(200, b"pdf", 'etag: "a"', "content-type: application/pdf")
    service = service_with(s3_objects=(PREFIX,), s3_direct=s3_direct)
    for method in ("GET", "HEAD"):
        received = fetch(service.port, f"/objects/{target}", method=method)
        assert received.status == 200
        assert received.headers.get("content-disposition") == disposition


def test_download_of_key_with_trailing_slash_is_an_attachment(
    upstream: Misbehaving, service_with: ServiceWith
) -> None:
    """A key whose last segment is empty is saved under a name that the client chooses."""
    upstream.behaviour = answer_with(200, b"data", "content-type: application/pdf")
    received = fetch(service_with(s3_objects=(PREFIX,)).port, "/objects/folder/?download")
    assert received.headers["content-disposition"].startswith("attachment")


def test_download_name_in_named_root_is_the_last_segment(
    upstream: Misbehaving, service_with: ServiceWith
) -> None:
    """The name of the root is not the name of the file."""
    upstream.behaviour = answer_with(200, b"data", "content-type: application/pdf")
    received = fetch(service_with(s3_objects=ROOTS).port, "/objects/docs/a.pdf?download")
    assert received.headers["content-disposition"] == 'attachment; filename="a.pdf"'
    assert upstream.requests == [f"GET /{OTHER_BUCKET}/a.pdf"]


# Ranges, conditions, errors, resume

BODY = bytes(range(256)) * 1200
ETAG = '"v1"'


def serving_body(upstream: Misbehaving, *cuts: int) -> Behaviour:
    """Return a store with BODY, which cuts its first answers after so many bytes."""

    async def answer(exchange: Exchange) -> None:
        found = select(exchange.headers, len(BODY), ETAG)
        data = BODY[found.first : found.end]
        lines = [f"etag: {ETAG}", f"last-modified: {DATE}", "accept-ranges: bytes"]
        number = len(upstream.exchanges)
        if number > len(cuts):
            await exchange.answer(found.status, data, *lines, *found.content_range)
            return
        await exchange.head(
            found.status, f"content-length: {len(data)}", *lines, *found.content_range
        )
        await exchange.body(data[: cuts[number - 1]])
        exchange.reset()

    return answer


@pytest.mark.parametrize(
    ("headers", "status", "expected"),
    [
        ({}, 200, BODY),
        ({"range": "bytes=100-199"}, 206, BODY[100:200]),
        ({"range": "bytes=-10"}, 206, BODY[-10:]),
        ({"range": "bytes=100-199", "if-range": '"old"'}, 200, BODY),
        ({"if-match": ETAG}, 200, BODY),
        ({"if-none-match": '"old"'}, 200, BODY),
        ({"if-none-match": ETAG}, 304, b""),
        ({"if-modified-since": DATE}, 304, b""),
    ],
)
def test_object_with_range_or_condition_returns_its_status(
    upstream: Misbehaving,
    service_with: ServiceWith,
    s3_direct: bool,
    headers: dict[str, str],
    status: int,
    expected: bytes,
) -> None:
    """Ranges and conditions work as on the image route."""
    upstream.behaviour = serving_body(upstream)
    service = service_with(s3_objects=(PREFIX,), s3_direct=s3_direct)
    received = fetch(service.port, "/objects/videos/a.mp4", headers=headers)
    assert (received.status, received.body) == (status, expected)
    assert received.headers["etag"] == ETAG
    if status == 206:
        assert received.headers["content-range"].endswith(f"/{len(BODY)}")


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"if-match": '"old"'}, 412, "precondition-failed"),
        ({"range": f"bytes={len(BODY)}-"}, 416, "range-not-satisfiable"),
    ],
)
def test_object_with_failed_range_or_condition_returns_a_problem(
    upstream: Misbehaving,
    service_with: ServiceWith,
    headers: dict[str, str],
    status: int,
    kind: str,
) -> None:
    """A range or condition that the object does not meet is a problem document."""
    upstream.behaviour = serving_body(upstream)
    service = service_with(s3_objects=(PREFIX,))
    received = fetch(service.port, "/objects/videos/a.mp4", headers=headers)
    assert is_problem(received, status, kind)


def test_head_of_object_reads_no_body(
    upstream: Misbehaving, service_with: ServiceWith, s3_direct: bool
) -> None:
    """HEAD has the headers of GET and costs one HEAD at the store."""
    upstream.behaviour = serving_body(upstream)
    service = service_with(s3_objects=(PREFIX,), s3_direct=s3_direct)
    head = fetch(service.port, "/objects/videos/a.mp4", method="HEAD")
    assert upstream.requests == [f"HEAD /{BUCKET}/public/videos/a.mp4"]
    get = fetch(service.port, "/objects/videos/a.mp4")
    differ = {"date", "x-request-id", "server-timing"}
    assert head.body == b""
    assert head.headers["content-length"] == str(len(BODY))
    assert {name: value for name, value in head.headers.items() if name not in differ} == {
        name: value for name, value in get.headers.items() if name not in differ
    }


def test_plain_get_of_object_costs_one_store_request(
    upstream: Misbehaving, service_with: ServiceWith, s3_direct: bool
) -> None:
    """A plain GET needs no HEAD at the store."""
    upstream.behaviour = serving_body(upstream)
    service = service_with(s3_objects=(PREFIX,), s3_direct=s3_direct)
    assert fetch(service.port, "/objects/a.mp4").body == BODY
    assert upstream.requests == [f"GET /{BUCKET}/public/a.mp4"]


@pytest.mark.parametrize("headers", [{}, {"range": "bytes=1000-"}])
def test_object_with_broken_body_is_resumed(
    upstream: Misbehaving, service_with: ServiceWith, s3_direct: bool, headers: dict[str, str]
) -> None:
    """After two cuts, the client still gets each byte once."""
    upstream.behaviour = serving_body(upstream, 100_000, 70_000)
    service = service_with(s3_objects=(PREFIX,), s3_direct=s3_direct)
    received = fetch(service.port, "/objects/a%20b/%C3%BC.mp4", headers=headers)
    assert received.whole
    assert received.body == BODY[1000 if headers else 0 :]
    assert {exchange.path for exchange in upstream.exchanges} == {
        f"/{BUCKET}/public/a%20b/%C3%BC.mp4"
    }
    assert len(upstream.exchanges) == 3


@pytest.mark.parametrize(
    ("status", "code", "answered", "kind"),
    [
        (404, "NoSuchKey", 404, "not-found"),
        (403, "AccessDenied", 404, "not-found"),
        (404, "NoSuchBucket", 502, "bad-upstream"),
        (301, "PermanentRedirect", 502, "bad-upstream"),
    ],
)
def test_store_error_for_object_returns_problem_without_its_key(
    upstream: Misbehaving,
    service_with: ServiceWith,
    s3_direct: bool,
    status: int,
    code: str,
    answered: int,
    kind: str,
) -> None:
    """The problem document names neither bucket nor prefix."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.error(status, code)

    upstream.behaviour = refuse
    service = service_with(s3_objects=(PREFIX,), s3_direct=s3_direct)
    received = fetch(service.port, "/objects/a/b.txt")
    assert is_problem(received, answered, kind)
    assert b"public" not in received.body
    assert BUCKET.encode() not in received.body


# Log and metrics


@pytest.mark.parametrize(
    ("s3_objects", "path"),
    [((PREFIX,), "/objects/secret-{}/a.pdf"), (ROOTS, "/objects/docs/secret-{}/a.pdf")],
    ids=["prefix", "roots"],
)
def test_log_and_metrics_have_the_route_without_the_key(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, s3_objects: tuple[str, ...], path: str
) -> None:
    """All objects are one series, so that the number of series is bounded."""
    caplog.set_level(logging.INFO, "downspout")
    upstream.behaviour = answer_with(200, b"12345", 'etag: "a"')
    with serving(settings_for(upstream.url, s3_objects=s3_objects)) as service:
        for number in range(3):
            assert fetch(service.port, path.format(number)).status == 200
        assert fetch(service.port, "/objects/..").status == 404
        assert fetch(service.port, "/objects/secret%00").status == 404
        wait_until(lambda: len(log_lines(caplog)) == 5)
        text = service.get("/metrics").text
    assert {line["route"] for line in log_lines(caplog)} == {OBJECTS}
    assert {line["source"] for line in log_lines(caplog)} == {"s3"}
    assert "secret" not in text
    found = parse_samples(text)
    assert found[f"downspout_downloads_total complete {OBJECTS}"] == 3
    assert found[f"downspout_downloads_total refused {OBJECTS}"] == 2
    assert found[f"downspout_sent_bytes_total {OBJECTS}"] >= 15


def log_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of the log line of each download."""
    return [record.download for record in caplog.records if hasattr(record, "download")]


# In a host


@pytest.fixture(scope="module")
def host_port(filled: Store, s3_direct: bool) -> Generator[int]:
    """Run a host that mounts the application at /media; return its port."""
    settings = settings_for(filled.url, s3_objects=(PREFIX,), s3_direct=s3_direct)
    downloads = create_app(settings)
    host = Starlette(routes=[Mount("/media", downloads)], lifespan=entering(downloads))
    with serving_app(host) as port:
        yield port


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", KEYS)
def test_odd_key_below_a_mount_returns_its_object(
    host_port: int, name: str, encoder: Callable[[str], str]
) -> None:
    """The mount path is no part of the key."""
    received = fetch(host_port, "/media/objects/" + encoder(KEYS[name]))
    assert (received.status, received.body) == (200, body_of(BUCKET, PREFIX + KEYS[name]))


@pytest.fixture(scope="module")
def troubled_host_port(_misbehaving: Misbehaving) -> Generator[int]:
    """Run a host that mounts the application at /media, in front of `upstream`."""
    downloads = create_app(settings_for(_misbehaving.url, s3_objects=(PREFIX,)))
    host = Starlette(routes=[Mount("/media", downloads)], lifespan=entering(downloads))
    with serving_app(host) as port:
        yield port


@pytest.mark.parametrize("name", INVALID)
def test_invalid_key_below_a_mount_returns_404(
    upstream: Misbehaving, troubled_host_port: int, name: str
) -> None:
    """An invalid key below a mount leads to no store request."""
    upstream.behaviour = answer_with(200, b"never")
    # Starlette's Mount does not match a line feed, so such a 404 is the host's own.
    assert fetch(troubled_host_port, "/media/objects/" + INVALID[name]).status == 404
    assert upstream.exchanges == []


# CORS


@pytest.mark.parametrize(
    "path", ["/objects/space", "/objects/a%20b.txt", "/objects/none", "/objects/..", "/objects/"]
)
def test_object_for_allowed_origin_has_cors_headers(
    filled: Store, service_with: ServiceWith, path: str
) -> None:
    """Objects and their errors have the CORS headers."""
    service = service_with(filled.url, s3_objects=(PREFIX,), cors_origins=(ORIGIN["origin"],))
    headers = fetch(service.port, path, headers=ORIGIN).headers
    assert headers["access-control-allow-origin"] == ORIGIN["origin"]
    assert "content-range" in headers["access-control-expose-headers"]


def test_preflight_of_object_allows_range(filled: Store, service_with: ServiceWith) -> None:
    """A page of an allowed origin may request ranges of objects."""
    service = service_with(filled.url, s3_objects=(PREFIX,), cors_origins=(ORIGIN["origin"],))
    preflight = {
        **ORIGIN,
        "access-control-request-method": "GET",
        "access-control-request-headers": "range, authorization",
    }
    answer = service.request("OPTIONS", "/objects/a.txt", headers=preflight)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN["origin"]


# Access control


@pytest.mark.parametrize("name", ["empty", "two dots", "nul", "byte ff", "1025 bytes"])
def test_invalid_key_without_credential_returns_401(
    upstream: Misbehaving, service_with: ServiceWith, name: str
) -> None:
    """A client without a credential does not learn which keys are valid."""
    upstream.behaviour = answer_with(200, b"never")
    token = "first-token-of-two"
    service = service_with(s3_objects=(PREFIX,), access_tokens=(token,))
    path = "/objects/" + INVALID[name]
    assert is_problem(fetch(service.port, path), 401, "not-allowed")
    bearer = {"authorization": f"Bearer {token}"}
    assert is_problem(fetch(service.port, path, headers=bearer), 404, "not-found")
    assert upstream.exchanges == []


def test_object_with_token_is_private(filled: Store, service_with: ServiceWith) -> None:
    """A token opens every object, and no shared cache keeps the answer."""
    token = "first-token-of-two"
    service = service_with(filled.url, s3_objects=(PREFIX,), access_tokens=(token,))
    bearer = {"authorization": f"Bearer {token}"}
    received = fetch(service.port, "/objects/a%20b.txt", headers=bearer)
    assert received.body == body_of(BUCKET, PREFIX + "a b.txt")
    assert received.headers["cache-control"] == "private"


def test_host_hook_authorizes_objects(upstream: Misbehaving) -> None:
    """The host's `authorize` decides about objects as about images."""
    upstream.behaviour = answer_with(200, b"data")
    app = create_app(
        settings_for(upstream.url, s3_objects=(PREFIX,)),
        authorize=lambda request: request.url.path == "/objects/a b.txt",
    )
    with serving_app(app) as port:
        assert fetch(port, "/objects/a%20b.txt").status == 200
        assert is_problem(fetch(port, "/objects/b.txt"), 403, "not-authorized")


# An odd key must not reach another object, so all keys are different objects.


def test_odd_keys_are_different(filled: Store) -> None:
    """The store has each odd key as an object of its own."""
    pages = filled.client.get_paginator("list_objects_v2").paginate(Bucket=OTHER_BUCKET)
    stored = {one["Key"] for page in pages for one in page.get("Contents", [])}
    assert set(ODD_KEYS.values()) <= stored
    assert len(set(ODD_KEYS.values())) == len(ODD_KEYS)
