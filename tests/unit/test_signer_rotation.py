"""The cache of SigV4 signing keys: one key for each day, secret and region."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from botocore.credentials import ReadOnlyCredentials

from handlers.sources.s3 import sigv4

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
OLD = ReadOnlyCredentials("key", "old secret", None)
NEW = ReadOnlyCredentials("key", "new secret", None)
PATH = "/photos/test/1/image.jpg"


def sign_authorization(
    credentials: ReadOnlyCredentials, now: datetime, region: str = "eu-west-1"
) -> str:
    signed = sigv4.sign_request(
        "GET", "photos.test", PATH, {}, region=region, credentials=credentials, now=now.timestamp()
    )
    return signed["authorization"]


def sign_without_cache(
    credentials: ReadOnlyCredentials, now: datetime, region: str = "eu-west-1"
) -> str:
    """Sign with an empty cache of signing keys."""
    sigv4._signing_key.cache_clear()
    return sign_authorization(credentials, now, region)


@pytest.mark.parametrize(
    "turns",
    [
        [(OLD, NOON), (NEW, NOON)],
        [(OLD, NOON), (NEW, NOON), (OLD, NOON)],
        [(OLD, NOON), (OLD, NOON + timedelta(days=1))],
        [(OLD, NOON), (NEW, NOON + timedelta(days=1)), (OLD, NOON + timedelta(days=1))],
    ],
    ids=["same day", "back again", "next day", "both"],
)
def test_signature_after_rotation_uses_the_new_secret(
    turns: list[tuple[ReadOnlyCredentials, datetime]],
) -> None:
    """After a rotation, the next request is signed with the new secret, also on the same day."""
    expected = [sign_without_cache(credentials, now) for credentials, now in turns]
    sigv4._signing_key.cache_clear()
    assert [sign_authorization(credentials, now) for credentials, now in turns] == expected
    assert sign_authorization(OLD, NOON) != sign_authorization(NEW, NOON)


def test_signature_for_another_region_uses_its_own_key() -> None:
    """One process signs for two buckets of one account in different regions."""
    regions = ["eu-west-1", "eu-west-2"]
    expected = [sign_without_cache(OLD, NOON, region) for region in regions]
    sigv4._signing_key.cache_clear()
    assert [sign_authorization(OLD, NOON, region) for region in regions] == expected
