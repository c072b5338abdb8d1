"""Stores that send the checksum of the whole object with a part of it, as MinIO does."""

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


@pytest.fixture(scope="module", params=[True, False], ids=["direct", "full"])
def verifying(
    _misbehaving: Misbehaving, request: pytest.FixtureRequest
) -> Generator[RunningService]:
    """The service that verifies checksums."""
    settings = settings_for(_misbehaving.url, verify_checksums=True, s3_direct=request.param)
    with serving(settings) as running:
        yield running


class Store:
    """A store whose every answer has the checksum of the whole; it may break the first body."""

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


def test_whole_has_its_digest(upstream: Misbehaving, verifying: RunningService) -> None:
    """An answer with all bytes, or to HEAD, tells the checksum that the store has of them."""
    upstream.behaviour = Store()
    for method in ("GET", "HEAD"):
        received = fetch(verifying.port, PATH, method=method)
        assert received.status == 200
        assert received.headers["repr-digest"] == f"sha-256=:{SHA256}:"


@pytest.mark.parametrize("breaks", [False, True])
def test_part_is_not_compared_with_the_checksum_of_the_whole(
    upstream: Misbehaving, verifying: RunningService, breaks: bool
) -> None:
    """A right part is no corrupt whole, and has no digest; also where it is resumed."""
    upstream.behaviour = Store(breaks=breaks)
    received = fetch(verifying.port, PATH, headers={"range": "bytes=1000-59999"})
    assert (received.status, received.whole) == (206, True)
    assert received.body == BODY[1000:60_000]
    assert "repr-digest" not in received.headers


def test_parts_are_not_compared_with_the_checksum_of_the_whole(
    upstream: Misbehaving, verifying: RunningService
) -> None:
    """Each part of a multipart answer is right by itself."""
    upstream.behaviour = Store()
    received = fetch(verifying.port, PATH, headers={"range": "bytes=0-999,50000-59999"})
    assert (received.status, received.whole) == (206, True)
    assert BODY[:1000] in received.body
    assert BODY[50_000:60_000] in received.body


def test_resumed_whole_is_compared_over_all_its_bytes(
    upstream: Misbehaving, verifying: RunningService
) -> None:
    """The rest comes as a part with the checksum of the whole: the whole is what it holds for."""
    upstream.behaviour = Store(breaks=True)
    received = fetch(verifying.port, PATH)
    assert (received.status, received.body) == (200, BODY)
