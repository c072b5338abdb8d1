"""Presigned URLs of AWS: their host and the region of their signature."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from handlers.errors import BadUpstream
from handlers.sources.pools import open_clients
from handlers.sources.s3.signed import SignedBucket
from settings import Settings

KEYS: dict[str, Any] = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


@pytest.mark.parametrize(
    ("bucket", "changes", "host", "region"),
    [
        ("photos", {}, "photos.s3.eu-south-1.amazonaws.com", "eu-south-1"),
        ("photos.example", {}, "s3.eu-south-1.amazonaws.com", "eu-south-1"),
        ("photos", {"s3_addressing_style": "path"}, "s3.eu-south-1.amazonaws.com", "eu-south-1"),
        (
            "photos",
            {"s3_region": "cn-north-1"},
            "photos.s3.cn-north-1.amazonaws.com.cn",
            "cn-north-1",
        ),
        (
            "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine",
            {},
            "mine-123456789012.s3-accesspoint.eu-west-1.amazonaws.com",
            "eu-west-1",
        ),
        (
            "photos",
            {
                "s3_endpoint_url": "https://fly.storage.tigris.dev",
                "s3_region": "auto",
                "s3_addressing_style": "virtual",
            },
            "photos.fly.storage.tigris.dev",
            "auto",
        ),
    ],
)
@pytest.mark.parametrize("s3_direct", [True, False], ids=["direct", "botocore"])
async def test_presigned_url_has_host_and_region_of_signed_requests(
    bucket: str, changes: dict[str, Any], host: str, region: str, s3_direct: bool
) -> None:
    """A presigned URL names the regional host.

    By default, botocore presigns for s3.amazonaws.com, which answers 400 for buckets in regions
    that opened after March 2019, and redirects to another host for a new bucket in any region.
    """
    settings = Settings(
        **{"s3_image_bucket": bucket, "s3_region": "eu-south-1", **KEYS, **changes},
        s3_direct=s3_direct,
    )
    async with open_clients(settings) as clients:
        opened = clients.buckets.default
        url = urlsplit(await opened.presign("a key", 300, {"content-type": "image/png"}))
    assert url.hostname == host
    if isinstance(opened, SignedBucket):
        assert url.hostname == opened.endpoint.host
    [credential] = parse_qs(url.query)["X-Amz-Credential"]
    assert credential.split("/")[2] == region


async def test_presigned_url_of_an_unsigned_client_is_an_error() -> None:
    """Without an access key botocore returns a URL without a signature, which S3 would reject."""
    settings = Settings(s3_image_bucket="photos", s3_region="eu-south-1", s3_unsigned=True)
    async with open_clients(settings) as clients:
        with pytest.raises(BadUpstream, match="lacks a key or Signature V4"):
            await clients.buckets.default.presign("key", 300, {})


async def test_error_of_the_client_while_presigning_is_bad_upstream() -> None:
    """An error that botocore raises becomes a 502, with its name in the log text."""
    settings = Settings(s3_image_bucket="photos", s3_region="eu-south-1", **KEYS)
    async with open_clients(settings) as clients:
        with pytest.raises(BadUpstream, match="can't presign a URL: ParamValidationError"):
            await clients.buckets.default.presign("", 300, {})
