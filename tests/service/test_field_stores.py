"""Stores as users report them: what each rejects, leaves out or cuts, and what the client gets."""

from __future__ import annotations

import logging
import os

import aiohttp
import httpx
import pytest

from handlers import create_app
from tests.support.ceph import BODY, DATE, ETAG, Ceph
from tests.support.client import fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving, answer_with, misbehaving
from tests.support.serving import RunningService, ServiceWith, serving

KIB = 1024
MIB = 1024 * KIB
IMAGE = "/tasks/1/image"
OLD = "Mon, 23 Nov 2026 07:00:00 GMT"


class Backblaze(Ceph):
    """A store that answers 400 to each request with x-amz-checksum-mode."""

    async def __call__(self, exchange: Exchange) -> None:
        if "x-amz-checksum-mode" in exchange.headers:
            await exchange.error(400, "InvalidArgument")
        else:
            await super().__call__(exchange)


class WithoutLengthOfHead(Ceph):
    """A store whose answer to a HEAD has no Content-Length, or 0."""

    def __init__(self, stated: str | None) -> None:
        super().__init__()
        self.stated = stated

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.method != "HEAD":
            await super().__call__(exchange)
            return
        length = [] if self.stated is None else [f"content-length: {self.stated}"]
        await exchange.head(200, f"etag: {self.etag}", *self.lines, *length)


class CutsFirstBody(Ceph):
    """A store that cuts its first body."""

    is_cut = False
    replaced_by: str | None = None

    async def __call__(self, exchange: Exchange) -> None:
        if self.is_cut:
            await super().__call__(exchange)
            return
        self.is_cut = True
        lines = [f"content-length: {len(BODY)}", f"etag: {self.etag}", *self.lines]
        await exchange.head(200, *lines)
        await exchange.body(BODY[:500])
        await exchange.pause(0.2)  # or the service may lose the bytes that have arrived
        self.etag = self.replaced_by or self.etag


class RefusesOwnTag(CutsFirstBody):
    """A store that answers 412 to each If-Match."""

    async def __call__(self, exchange: Exchange) -> None:
        if "if-match" in exchange.headers:
            await exchange.error(412, "PreconditionFailed")
        else:
            await super().__call__(exchange)


class IgnoresIfRange(CutsFirstBody):
    """An upstream that answers If-Range with the whole body."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = [f"last-modified: {DATE}", "accept-ranges: bytes"]

    async def __call__(self, exchange: Exchange) -> None:
        if "if-range" in exchange.headers:
            exchange.headers.pop("range")
        await super().__call__(exchange)


class CutsEachKilobyte(Ceph):
    """A store that closes the connection after each KiB of a body."""

    def __init__(self, size: int) -> None:
        super().__init__(body=bytes(size))

    async def __call__(self, exchange: Exchange) -> None:
        first = int(exchange.headers.get("range", "bytes=0-")[6:].partition("-")[0])
        length = len(self.body)
        range_line = f"content-range: bytes {first}-{length - 1}/{length}"
        lines = [f"content-length: {length - first}", f"etag: {self.etag}", *self.lines]
        await exchange.head(206 if first else 200, *lines, *([range_line] if first else []))
        await exchange.body(bytes(min(KIB, length - first)))


@pytest.fixture(params=[True, False], ids=["direct", "botocore"])
def direct(request: pytest.FixtureRequest) -> bool:
    """Run a test on both paths to the store."""
    return bool(request.param)


def test_store_that_rejects_checksum_mode_is_served(upstream: Misbehaving, direct: bool) -> None:
    """After one HEAD and one GET with it, the bucket gets no x-amz-checksum-mode any more."""
    upstream.behaviour = Backblaze()
    with serving(settings_for(upstream.url, s3_direct=direct)) as service:
        assert fetch(service.port, "/readyz").status == 200
        head = fetch(service.port, IMAGE, method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(len(BODY)))
        for _ in range(3):
            assert fetch(service.port, IMAGE).body == BODY
    # After a 400 to a HEAD, botocore also asks for the bucket's region.
    objects = [one for one in upstream.exchanges if one.path.endswith(".jpg")]
    modes = ["x-amz-checksum-mode" in one.headers for one in objects]
    assert modes == [True] * 2 + [False] * (len(objects) - 2)


def test_first_get_that_is_rejected_for_checksum_mode_is_served(
    upstream: Misbehaving, direct: bool
) -> None:
    """A GET tells an error code, a HEAD tells none."""
    upstream.behaviour = Backblaze()
    with serving(settings_for(upstream.url, s3_direct=direct)) as service:
        assert fetch(service.port, IMAGE).body == BODY
        assert fetch(service.port, IMAGE, headers={"range": "bytes=1-2"}).body == BODY[1:3]
    modes = ["x-amz-checksum-mode" in one.headers for one in upstream.exchanges]
    assert modes == [True, False, False]


@pytest.mark.parametrize(
    ("method", "failures"),
    [
        ("HEAD", [(400, "RequestTimeout")]),
        ("HEAD", [(400, "")]),
        ("HEAD", [(501, "")]),
        ("HEAD", [(400, ""), (400, ""), (503, "SlowDown")]),
        ("GET", [(400, "")]),
        ("GET", [(400, "InvalidArgument"), (404, "NoSuchKey")]),
    ],
)
def test_passing_failure_keeps_checksum_mode(
    upstream: Misbehaving, direct: bool, method: str, failures: list[tuple[int, str]]
) -> None:
    """Without it, VERIFY_CHECKSUMS would let corrupt objects pass."""
    store, left = Ceph(), list(failures)

    async def failing(exchange: Exchange) -> None:
        if left and exchange.path.endswith(".jpg"):
            await exchange.error(*left.pop(0))
        else:
            await store(exchange)

    upstream.behaviour = failing
    with serving(settings_for(upstream.url, s3_direct=direct)) as service:
        fetch(service.port, IMAGE, method=method)
        left.clear()
        assert fetch(service.port, IMAGE).body == BODY
    assert "x-amz-checksum-mode" in upstream.exchanges[-1].headers


def test_other_400_keeps_checksum_mode(upstream: Misbehaving, direct: bool) -> None:
    """A store that also rejects the request without the header did not reject the header."""

    async def rejecting(exchange: Exchange) -> None:
        await exchange.error(400, "InvalidArgument")

    with serving(settings_for(upstream.url, s3_direct=direct)) as service:
        upstream.behaviour = rejecting
        assert fetch(service.port, IMAGE).status == 502
        upstream.behaviour = Ceph()
        assert fetch(service.port, IMAGE).body == BODY
    assert "x-amz-checksum-mode" in upstream.exchanges[-1].headers


@pytest.mark.parametrize("stated", [None, "0"])
@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({"if-none-match": '"old"'}, 200, BODY),
        ({"if-modified-since": OLD}, 200, BODY),
        ({"range": "bytes=0-8", "if-range": DATE}, 206, BODY[:9]),
        ({"range": "bytes=0-8", "if-range": '"old"'}, 200, BODY),
        ({"range": "bytes=5000-"}, 416, None),
        ({"range": "bytes=-0"}, 416, None),
        ({"if-none-match": ETAG}, 304, b""),
    ],
)
def test_store_without_length_of_a_head_is_served(
    upstream: Misbehaving,
    troubled_store: RunningService,
    stated: str | None,
    headers: dict[str, str],
    status: int,
    body: bytes | None,
) -> None:
    """An unknown length is not another length; the total is in Content-Range."""
    upstream.behaviour = WithoutLengthOfHead(stated)
    answer = troubled_store.get(IMAGE, headers=headers)
    assert answer.status_code == status
    assert body is None or answer.content == body
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(BODY)}"


@pytest.mark.parametrize("stated", [None, "0"])
def test_several_ranges_without_length_of_a_head_are_sent(
    upstream: Misbehaving, troubled_store: RunningService, stated: str | None
) -> None:
    """Several ranges need the length of the object, which a GET of one byte tells."""
    upstream.behaviour = WithoutLengthOfHead(stated)
    answer = troubled_store.get(IMAGE, headers={"range": "bytes=0-1,5-6"})
    assert answer.status_code == 206
    assert f"content-range: bytes 5-6/{len(BODY)}\r\n\r\n".encode() + BODY[5:7] in answer.content
    head = troubled_store.request("HEAD", IMAGE)
    assert head.headers["content-length"] == str(len(BODY))


def test_length_of_another_version_is_not_sent(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """If the object is replaced after a HEAD without length, the answer has no length."""
    store = WithoutLengthOfHead(None)

    async def replacing(exchange: Exchange) -> None:
        await store(exchange)
        if exchange.method == "HEAD":
            store.etag, store.body = '"new"', BODY * 2

    upstream.behaviour = replacing
    head = troubled_store.request("HEAD", IMAGE)
    assert (head.headers["etag"], head.headers.get("content-length")) == (ETAG, None)


def test_head_of_an_empty_object_has_length_0(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A length of 0 may be true."""
    upstream.behaviour = Ceph(body=b"")
    head = troubled_store.request("HEAD", IMAGE)
    assert (head.status_code, head.headers["content-length"]) == (200, "0")


def test_store_that_refuses_its_own_tag_is_resumed(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A range without If-Match whose ETag, date and length match is of the same version."""
    upstream.behaviour = RefusesOwnTag()
    assert troubled_store.get(IMAGE).content == BODY
    asked = [(one.headers.get("range"), one.headers.get("if-match")) for one in upstream.exchanges]
    assert asked == [(None, None), ("bytes=500-999", ETAG), ("bytes=500-999", None)]


def test_store_that_refuses_a_replaced_tag_breaks_the_transfer(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A range without If-Match of another version never continues a body."""
    upstream.behaviour = store = RefusesOwnTag()
    store.replaced_by = '"another"'
    received = fetch(troubled_store.port, IMAGE)
    assert not received.whole
    assert received.body == BODY[:500]


def test_upstream_that_refuses_its_own_tag_in_if_range_is_resumed(
    service_with: ServiceWith, upstream: Misbehaving
) -> None:
    """The bytes route asks once more without If-Range, and compares ETag, date and length."""
    upstream.behaviour = IgnoresIfRange()
    assert fetch(service_with().port, f"/tasks/1/bytes/{len(BODY)}").body == BODY
    assert ["if-range" in one.headers for one in upstream.exchanges] == [False, True, False]


@pytest.mark.parametrize("source", ["s3", "http"])
def test_store_that_cuts_each_kilobyte_gets_few_requests(
    service_with: ServiceWith, upstream: Misbehaving, source: str
) -> None:
    """Without 64 KiB of progress, MAX_RESUMES attempts in a row are the end."""
    upstream.behaviour = store = CutsEachKilobyte(MIB)
    store.lines.append("accept-ranges: bytes")
    service = service_with(max_resumes=3)
    received = fetch(service.port, IMAGE if source == "s3" else f"/tasks/1/bytes/{MIB}")
    assert not received.whole
    assert len(upstream.exchanges) == 1 + 3
    assert received.body == bytes(4 * KIB)


def test_requester_pays_bucket_gets_its_header(upstream: Misbehaving, direct: bool) -> None:
    """S3_REQUESTER_PAYS sends x-amz-request-payer with GET, HEAD and the readiness check."""
    upstream.behaviour = Ceph()
    settings = settings_for(upstream.url, s3_direct=direct, s3_requester_pays=True)
    with serving(settings) as service:
        assert fetch(service.port, IMAGE).body == BODY
        assert fetch(service.port, IMAGE, method="HEAD").status == 200
        assert fetch(service.port, "/readyz").status == 200
    sent = [one.headers.get("x-amz-request-payer") for one in upstream.exchanges]
    assert sent == ["requester"] * 3
    assert "x-amz-request-payer" in upstream.exchanges[0].headers["authorization"]


def test_public_bucket_is_read_unsigned(upstream: Misbehaving, direct: bool) -> None:
    """S3_UNSIGNED needs no credentials and sends no signature."""
    upstream.behaviour = Ceph()
    settings = settings_for(
        upstream.url,
        s3_direct=direct,
        s3_unsigned=True,
        aws_access_key_id=None,
        aws_secret_access_key=None,
    )
    with serving(settings) as service:
        assert fetch(service.port, IMAGE).body == BODY
        assert fetch(service.port, IMAGE, headers={"range": "bytes=1-2"}).body == BODY[1:3]
        assert fetch(service.port, IMAGE, method="HEAD").status == 200
    assert not any("authorization" in one.headers for one in upstream.exchanges)


def test_502_without_credentials_names_the_setting_for_public_buckets(
    upstream: Misbehaving,
    direct: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log line says what to set; the client is told nothing about credentials."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    settings = settings_for(
        upstream.url, s3_direct=direct, aws_access_key_id=None, aws_secret_access_key=None
    )
    with serving(settings) as service, caplog.at_level(logging.WARNING, "downspout"):
        answer = fetch(service.port, IMAGE)
    assert answer.status == 502
    assert b"S3_UNSIGNED" not in answer.body
    assert "S3_UNSIGNED=true for a public bucket" in caplog.text
    assert not upstream.exchanges


async def test_dead_connection_of_one_origin_keeps_those_of_others(upstream: Misbehaving) -> None:
    """A host's session may have connections to other services, which are not dead."""
    with misbehaving() as other:
        other.behaviour = answer_with(200, b"other")
        upstream.behaviour = answer_with(200, b"12345")
        async with aiohttp.ClientSession() as session:
            app = create_app(settings_for(upstream.url), http=session)
            transport = httpx.ASGITransport(app)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="http://test") as client,
            ):
                await (await session.get(other.url)).read()
                assert (await client.get("/tasks/1/bytes/5")).content == b"12345"

                async def reset_twice(exchange: Exchange) -> None:
                    # aiohttp itself sends the request once more after the first reset.
                    if len(upstream.exchanges) <= 1 + 2:
                        exchange.reset()
                    else:
                        await exchange.answer(200, b"12345")

                upstream.behaviour = reset_twice
                assert (await client.get("/tasks/1/bytes/5")).content == b"12345"
                await (await session.get(other.url)).read()
        assert len({id(exchange.writer) for exchange in other.exchanges}) == 1
