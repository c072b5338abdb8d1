"""Stores that send the checksum of the whole object with a 206, as MinIO does."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Generator

import pytest

from tests.support.client import fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, serving

BODY = hashlib.shake_256(b"checksums of parts").digest(100_000)
SHA256 = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
PATH = "/tasks/1/image"


@pytest.fixture(scope="module", params=[True, False], ids=["direct", "botocore"])
def verifying(
    _misbehaving: Misbehaving, request: pytest.FixtureRequest
) -> Generator[RunningService]:
    """Run the service with VERIFY_CHECKSUMS."""
    settings = settings_for(_misbehaving.url, verify_checksums=True, s3_direct=request.param)
    with serving(settings) as running:
        yield running


class Store:
    """A store that always sends the checksum of the whole; with `breaks`, it cuts one body."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.breaks = breaks

    async def __call__(self, exchange: Exchange) -> None:
        lines = ['etag: "v"', f"x-amz-checksum-sha256: {SHA256}"]
        first, last = 0, len(BODY) - 1
        if found := re.fullmatch("bytes=([0-9]+)-([0-9]*)", exchange.headers.get("range", "")):
            first, last = int(found[1]), int(found[2] or last)
            lines.append(f"content-range: bytes {first}-{last}/{len(BODY)}")
        data = BODY[first : last + 1]
        if self.breaks and exchange.method == "GET":
            self.breaks = False
            await exchange.head(206 if found else 200, f"content-length: {len(data)}", *lines)
            await exchange.body(data[: len(data) // 2])
            return
        await exchange.answer(206 if found else 200, data, *lines)


def test_whole_object_response_has_repr_digest(
    upstream: Misbehaving, verifying: RunningService
) -> None:
    """GET and HEAD of the whole object have the store's checksum as Repr-Digest."""
    upstream.behaviour = Store()
    for method in ("GET", "HEAD"):
        received = fetch(verifying.port, PATH, method=method)
        assert received.status == 200
        assert received.headers["repr-digest"] == f"sha-256=:{SHA256}:"


@pytest.mark.parametrize("breaks", [False, True])
def test_range_with_checksum_of_whole_object_completes(
    upstream: Misbehaving, verifying: RunningService, breaks: bool
) -> None:
    """A range, even a resumed one, is not verified and has no Repr-Digest."""
    upstream.behaviour = Store(breaks=breaks)
    received = fetch(verifying.port, PATH, headers={"range": "bytes=1000-59999"})
    assert (received.status, received.whole) == (206, True)
    assert received.body == BODY[1000:60_000]
    assert "repr-digest" not in received.headers


def test_multipart_with_checksum_of_whole_object_completes(
    upstream: Misbehaving, verifying: RunningService
) -> None:
    """The checksum of the whole object does not apply to the parts of a multipart response."""
    upstream.behaviour = Store()
    received = fetch(verifying.port, PATH, headers={"range": "bytes=0-999,50000-59999"})
    assert (received.status, received.whole) == (206, True)
    assert BODY[:1000] in received.body
    assert BODY[50_000:60_000] in received.body


def test_resumed_whole_object_is_verified_over_all_bytes(
    upstream: Misbehaving, verifying: RunningService
) -> None:
    """The checksum in the resuming 206 is of the whole object, not of the part."""
    upstream.behaviour = Store(breaks=True)
    received = fetch(verifying.port, PATH)
    assert (received.status, received.body) == (200, BODY)
