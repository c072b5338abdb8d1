"""Requests that are signed and sent without botocore, and requests that need botocore."""

from __future__ import annotations

import itertools
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from aiobotocore.httpsession import AIOHTTPSession
from aiohttp.client_proto import ResponseHandler

from handlers.sources.pools import open_clients
from handlers.sources.s3.botocore import BotocoreBucket
from handlers.sources.s3.signed import Endpoint, SignedBucket, resolve_endpoint
from settings import Settings
from tests.support.client import fetch
from tests.support.components import BUCKET, Store, settings_for, store_settings
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, serving

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


@pytest.mark.parametrize("reason", ["switched off", "proxy", "no credentials"])
async def test_proxy_or_missing_credentials_use_botocore(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """With S3_DIRECT=false, a proxy or no credentials, all requests go through botocore."""
    settings = Settings(
        **{**AWS_SETTINGS, "s3_image_bucket": "photos"}, s3_direct=reason != "switched off"
    )
    if reason == "proxy":
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    if reason == "no credentials":
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, "/nonexistent")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        settings = Settings(s3_image_bucket="photos", s3_region="eu-central-1")
    async with open_clients(settings) as clients:
        assert isinstance(clients.buckets.default, BotocoreBucket)


@pytest.mark.parametrize(
    ("owner", "name"), [(ResponseHandler, "start_timeout"), (AIOHTTPSession, "_get_session")]
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


REQUESTS: tuple[dict[str, str], ...] = (
    {},
    {"range": "bytes=2-4"},
    {"if-none-match": "*"},
    {"if-match": "x"},
)


def test_redirect_without_region_returns_502(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A redirect without x-amz-bucket-region is a 502 after at most three requests."""

    async def send_redirect(exchange: Exchange) -> None:
        await exchange.answer(307, b"", f"location: {upstream.url}/elsewhere")

    upstream.behaviour = send_redirect
    assert troubled_store.get("/tasks/1/image").status_code == 502
    assert len(upstream.requests) <= 3


def comparable_answer(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """Return an answer's status, body and headers, without headers that always differ."""
    own = ("date", "x-request-id", "server-timing")
    headers = {n: v for n, v in answer.headers.items() if n not in own}
    return answer.status_code, answer.content if answer.is_success else b"", headers


def test_signed_bucket_gives_the_answers_of_botocore(
    store: Store, service: RunningService
) -> None:
    """Status, headers and body are the same with S3_DIRECT on and off."""
    key, other = "test/88/image.jpg", "a b/ü+%?#&=~/88"
    store.put(key, b"0123456789", ContentType="image/png", Metadata={"owner": "me"})
    store.put(other, b"0123456789")
    direct = Settings(**store.settings, s3_metadata_headers=("owner",))
    full = Settings(**store.settings, s3_metadata_headers=("owner",), s3_direct=False)
    with (
        serving(direct) as a,
        serving(full) as b,
        serving(Settings(**store.settings, s3_image_key="a b/ü+%?#&=~/{task_id}")) as c,
    ):
        asked = itertools.product(
            ("GET", "HEAD"), ("/tasks/88/image", "/tasks/404/image"), REQUESTS
        )
        for method, path, headers in asked:
            answers = [s.request(method, path, headers=headers) for s in (a, b)]
            assert comparable_answer(answers[0]) == comparable_answer(answers[1])
        assert c.get("/tasks/88/image").content == b"0123456789"


def test_expiring_credentials_are_refreshed(
    upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials that expire soon are refreshed by botocore and sign the next request."""
    refreshed = 0

    async def answering(exchange: Exchange) -> None:
        nonlocal refreshed
        if exchange.path != "/credentials":
            await exchange.answer(200, b"12345")
            return
        refreshed += 1
        expires = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
        names = {"AccessKeyId": "key", "SecretAccessKey": "s", "Token": f"token{refreshed}"}
        await exchange.answer(200, json.dumps({**names, "Expiration": expires}).encode())

    upstream.behaviour = answering
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{upstream.url}/credentials")
    settings = Settings(
        s3_image_bucket=BUCKET, s3_endpoint_url=upstream.url, s3_region="us-east-1"
    )
    with serving(settings) as service:
        for _ in range(2):
            assert fetch(service.port, "/tasks/1/image").body == b"12345"
    objects = [exchange for exchange in upstream.exchanges if exchange.path != "/credentials"]
    assert all("downspout" in exchange.headers["user-agent"] for exchange in objects)
    tokens = [exchange.headers["x-amz-security-token"] for exchange in objects]
    assert len(set(tokens)) == 2


@pytest.mark.parametrize("status", [301, 307, 400])
def test_bucket_in_another_region_uses_botocore(upstream: Misbehaving, status: int) -> None:
    """A redirect or an error that names another region sends the request through botocore."""

    async def send_redirect(exchange: Exchange) -> None:
        if "downspout" not in exchange.headers.get("user-agent", "") or exchange.method == "HEAD":
            await exchange.answer(200, b"12345", "x-amz-bucket-region: eu-west-1")
        else:
            await exchange.answer(status, b"", "x-amz-bucket-region: eu-west-1")

    upstream.behaviour = send_redirect
    with serving(settings_for(upstream.url)) as service:
        assert fetch(service.port, "/tasks/1/image").body == b"12345"


def test_request_is_signed_with_host_date_and_range(upstream: Misbehaving) -> None:
    """The URL has the bucket, and the signature covers host, date and range."""

    async def answering(exchange: Exchange) -> None:
        await exchange.answer(206, b"12", "content-range: bytes 0-1/5")

    upstream.behaviour = answering
    with serving(Settings(**store_settings(upstream.url))) as service:
        fetch(service.port, "/tasks/1/image", headers={"range": "bytes=0-1"})
    [exchange] = upstream.exchanges
    assert exchange.path == f"/{BUCKET}/test/1/image.jpg"
    assert (
        "SignedHeaders=host;range;x-amz-checksum-mode;x-amz-content-sha256;x-amz-date,"
        in exchange.headers["authorization"]
    )
