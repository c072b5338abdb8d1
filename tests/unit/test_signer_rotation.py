"""One signer, several secrets: a key that is kept is the key of this day and this secret."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from botocore.credentials import ReadOnlyCredentials

from handlers.sources.s3.sigv4 import Signer

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
OLD = ReadOnlyCredentials("key", "old secret", None)
NEW = ReadOnlyCredentials("key", "new secret", None)
PATH = "/photos/test/1/image.jpg"


def authorize(signer: Signer, credentials: ReadOnlyCredentials, now: datetime) -> str:
    signed = signer.signed("GET", "photos.test", PATH, {}, credentials=credentials, now=now)
    return signed["authorization"]


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
def test_signature_after_a_rotation_is_that_of_a_new_signer(
    turns: list[tuple[ReadOnlyCredentials, datetime]],
) -> None:
    """A secret that is rotated signs rightly from the next request on, also on the same day."""
    kept = Signer("eu-central-1")
    for credentials, now in turns:
        expected = authorize(Signer("eu-central-1"), credentials, now)
        assert authorize(kept, credentials, now) == expected
    assert authorize(kept, OLD, NOON) != authorize(kept, NEW, NOON)
