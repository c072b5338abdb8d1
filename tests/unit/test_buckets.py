"""Which object reads a bucket, with which endpoint, and how many stay open."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from typing import Any, cast

import anyio
import pytest
from aiobotocore.credentials import AioCredentials
from aiobotocore.httpsession import AIOHTTPSession
from aiohttp.client_proto import ResponseHandler
from botocore.credentials import ReadOnlyCredentials

from handlers.errors import UpstreamTimeout
from handlers.sources.pools import open_clients
from handlers.sources.s3.botocore import BotocoreBucket
from handlers.sources.s3.bucket import Buckets
from handlers.sources.s3.credentials import RenewingBucket
from handlers.sources.s3.signed import Endpoint, SignedBucket, resolve_endpoint
from settings import Settings
from tests.support.components import settings_for

AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=AK/20261124/eu-central-1/s3/aws4_request, "
    "SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=0"
)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://photos.example:443/key", ("https://photos.example:443", "photos.example", "/")),
        ("http://[::1]:9000/photos/key", ("http://[::1]:9000", "[::1]:9000", "/photos/")),
        ("http://a/base/photos/key", ("http://a", "a", "/base/photos/")),
    ],
)
def test_endpoint_from_botocore_request_has_its_host_path_and_region(
    url: str, endpoint: tuple[str, str, str]
) -> None:
    """Host, path and region are taken from botocore's own request."""
    expected = Endpoint(*endpoint, "eu-central-1")
    assert resolve_endpoint(url, AUTHORIZATION, "key") == expected


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS AK:signature",
        "",
        AUTHORIZATION.replace("AWS4-HMAC", "AWS4-ECDSA-P256"),
        AUTHORIZATION.replace("/s3/", "/s3express/"),
        AUTHORIZATION.replace("/s3/", "/s3-outposts/"),
    ],
)
def test_request_with_other_signature_has_no_endpoint(authorization: str) -> None:
    """S3 Express, Outposts, multi-region access points and old signatures use botocore."""
    assert resolve_endpoint("https://photos.s3.amazonaws.com/key", authorization, "key") is None
    assert resolve_endpoint("https://photos.s3.amazonaws.com/other", AUTHORIZATION, "key") is None


AWS_SETTINGS: dict[str, Any] = {
    "s3_region": "eu-central-1",
    "aws_access_key_id": "test",
    "aws_secret_access_key": "test",
}


@pytest.mark.parametrize(
    ("bucket", "host"),
    [
        ("photos", "photos.s3.eu-central-1.amazonaws.com"),
        ("photos.example", "s3.eu-central-1.amazonaws.com"),
        (
            "arn:aws:s3:eu-central-1:123456789012:accesspoint/mine",
            "mine-123456789012.s3-accesspoint.eu-central-1.amazonaws.com",
        ),
    ],
)
async def test_bucket_endpoint_follows_botocore_rules(bucket: str, host: str) -> None:
    """The host of a bucket comes from botocore's endpoint rules."""
    async with open_clients(Settings(s3_image_bucket=bucket, **AWS_SETTINGS)) as clients:
        assert isinstance(clients.buckets.default, SignedBucket)
        assert clients.buckets.default.endpoint.host == host


@pytest.mark.parametrize("reason", ["switched off", "proxy"])
async def test_switch_or_proxy_uses_botocore(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """With S3_DIRECT=false or a proxy, all requests go through botocore."""
    settings = Settings(
        **{**AWS_SETTINGS, "s3_image_bucket": "photos"}, s3_direct=reason != "switched off"
    )
    if reason == "proxy":
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with open_clients(settings) as clients:
        assert isinstance(clients.buckets.default, BotocoreBucket)


async def test_bucket_opened_without_credentials_has_its_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bucket that is opened before there are credentials is a SignedBucket all the same."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = Settings(s3_image_bucket="photos", s3_region="eu-central-1")
    async with open_clients(settings) as clients:
        assert isinstance(clients.buckets.default, RenewingBucket)
        assert isinstance(clients.buckets.default.bucket, SignedBucket)
        assert clients.buckets.default.bucket.endpoint.region == "eu-central-1"


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (ResponseHandler, "start_timeout"),
        (AIOHTTPSession, "_create_connector"),
        (AIOHTTPSession, "_get_session"),
    ],
)
async def test_library_without_a_private_attribute_uses_botocore(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, owner: type, name: str
) -> None:
    """If a library lacks a private attribute, botocore is used, with one log line."""
    monkeypatch.delattr(owner, name)
    settings = Settings(s3_image_bucket="photos", **AWS_SETTINGS)
    with caplog.at_level(logging.WARNING, "downspout"):
        async with open_clients(settings) as clients:
            assert isinstance(clients.buckets.default, BotocoreBucket)
            assert isinstance(await clients.buckets.get("other"), BotocoreBucket)
    assert caplog.text.count("which is slower") == 1


async def test_buckets_opened_concurrently_keep_their_endpoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each bucket is opened once with its own endpoint, however long credentials take."""
    asking = 0

    async def slowly(self: AioCredentials) -> ReadOnlyCredentials:
        nonlocal asking
        asking += 1
        await anyio.sleep(0.2 / asking)  # the first is overtaken
        return ReadOnlyCredentials("test", "test", None)

    monkeypatch.setattr(AioCredentials, "get_frozen_credentials", slowly)
    async with open_clients(settings_for("http://127.0.0.1:9")) as clients:
        client = clients.s3
        found: dict[str, tuple[str, str] | None] = {}

        async def prepare(bucket: str) -> None:
            found[bucket] = await BotocoreBucket(client, bucket, 1, 1).prepare_get("key")

        async with anyio.create_task_group() as tasks:
            for bucket in ("bucket-a", "bucket-b", "bucket-c"):
                tasks.start_soon(prepare, bucket)
        for bucket, prepared in found.items():
            assert prepared is not None
            assert f"/{bucket}/key" in prepared[0]
        first, again = await asyncio.gather(*(clients.buckets.get("bucket-d") for _ in range(2)))
        assert first is again
        assert isinstance(first, SignedBucket)
        assert first.endpoint.path == "/bucket-d/"


async def test_buckets_over_maximum_are_evicted() -> None:
    """A host with one bucket per customer must not fill the memory."""
    opened: list[str] = []

    async def open_bucket(name: str) -> Any:
        opened.append(name)
        return object()

    buckets = Buckets(cast("Any", None), open_bucket, max_buckets=3)
    for number in range(4):
        await buckets.get(f"bucket-{number}")
    assert await buckets.get("bucket-3") is await buckets.get("bucket-3")
    assert len(opened) == 4
    await buckets.get("bucket-0")
    assert len(opened) == 5


async def test_slow_bucket_delays_no_other_bucket() -> None:
    """While a bucket opens, known and other new ones are there; its own requests open it once."""
    opened: list[str] = []
    go_on = asyncio.Event()

    async def open_bucket(name: str) -> Any:
        opened.append(name)
        if name == "slow":
            await go_on.wait()
        return name

    buckets = Buckets(cast("Any", "default"), open_bucket)
    assert cast("str", await buckets.get("known")) == "known"
    slow = [asyncio.create_task(buckets.get("slow")) for _ in range(3)]
    await asyncio.sleep(0)
    with anyio.fail_after(5):
        for name in ("known", "new"):
            assert cast("str", await buckets.get(name)) == name
        assert cast("str", await buckets.get(None)) == "default"
        go_on.set()
        assert set(map(str, await asyncio.gather(*slow))) == {"slow"}
    assert opened == ["known", "slow", "new"]


async def test_failed_or_cancelled_opening_is_tried_by_the_next_request() -> None:
    """A request that leaves or fails while it opens a bucket does not fail the waiting ones."""
    opened: list[str] = []

    async def open_bucket(name: str) -> Any:
        opened.append(name)
        if len(opened) == 1:
            await asyncio.sleep(60)
        if len(opened) == 2:
            raise ZeroDivisionError
        return name

    buckets = Buckets(cast("Any", None), open_bucket)
    waiting = [asyncio.create_task(buckets.get("slow")) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with anyio.fail_after(5):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, ZeroDivisionError, str]


async def test_client_without_a_free_connection_is_an_upstream_timeout() -> None:
    """GET and HEAD through a client that never answers end after `head_timeout`."""

    class SilentClient:
        async def get_object(self, **_: object) -> None:
            await anyio.sleep_forever()

        head_object = get_object

    bucket = BotocoreBucket(cast("Any", SilentClient()), "photos", 60, 0.01)
    with anyio.fail_after(10):
        with ExitStack() as owner, pytest.raises(UpstreamTimeout, match="no connection or answer"):
            await bucket.get(owner, "key", {})
        with pytest.raises(UpstreamTimeout):
            await bucket.head("key", {})
