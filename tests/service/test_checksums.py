"""S3 checksums: sent as Repr-Digest, and verified while bodies stream."""

from __future__ import annotations

import base64
import hashlib
import logging
import sys
import zlib

import pytest

from tests.support.client import fetch
from tests.support.components import Store, settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, serving

BODY = hashlib.shake_256(b"checksums").digest(1_000_000)
SHA256 = base64.b64encode(hashlib.sha256(BODY).digest()).decode()


def test_repr_digest_is_sent_with_whole_object_only(store: Store, service: RunningService) -> None:
    """GET and HEAD of a real store's object have Repr-Digest; a 206 does not."""
    store.put("test/77/image.jpg", BODY, ChecksumAlgorithm="SHA256")
    for method in ("GET", "HEAD"):
        answer = service.request(method, "/tasks/77/image")
        assert answer.headers["repr-digest"] == f"sha-256=:{SHA256}:"
    part = service.get("/tasks/77/image", headers={"range": "bytes=0-9"})
    assert part.status_code == 206
    assert "repr-digest" not in part.headers


class CorruptStore:
    """A store whose object has one wrong bit, so that its checksum does not match."""

    def __init__(self, *, at: int, lines: tuple[str, ...]) -> None:
        self.body = bytearray(BODY)
        self.body[at] ^= 1
        self.lines = lines

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.head(200, f"x-amz-checksum-sha256: {SHA256}", 'etag: "v"', *self.lines)
        if "transfer-encoding: chunked" in self.lines:
            await exchange.raw(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), bytes(self.body)))
        else:
            await exchange.body(bytes(self.body))


FRAMINGS = [(f"content-length: {len(BODY)}",), ("transfer-encoding: chunked",)]


@pytest.mark.parametrize("lines", FRAMINGS)
@pytest.mark.parametrize("at", [0, len(BODY) - 1])
def test_corrupt_body_breaks_transfer(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, at: int, lines: tuple[str, ...]
) -> None:
    """With VERIFY_CHECKSUMS, a body that does not match its checksum breaks the transfer."""
    caplog.set_level(logging.INFO, "downspout")
    upstream.behaviour = CorruptStore(at=at, lines=lines)
    with serving(settings_for(upstream.url, verify_checksums=True)) as service:
        received = fetch(service.port, "/tasks/1/image")
    assert not received.whole
    assert " corrupt (body does not match the stored sha256)" in caplog.text


@pytest.mark.parametrize("lines", FRAMINGS)
def test_intact_body_with_verification_completes(
    upstream: Misbehaving, lines: tuple[str, ...]
) -> None:
    """VERIFY_CHECKSUMS does not change an intact body."""
    intact = CorruptStore(at=0, lines=lines)
    intact.body = bytearray(BODY)
    upstream.behaviour = intact
    with serving(settings_for(upstream.url, verify_checksums=True)) as service:
        assert service.get("/tasks/1/image").content == BODY


def test_resumed_body_is_verified_as_whole(upstream: Misbehaving) -> None:
    """The checksum covers the bytes before and after the interruption."""
    half = len(BODY) // 2

    async def cut_once(exchange: Exchange) -> None:
        crc = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()
        lines = [f"x-amz-checksum-crc32: {crc}", 'etag: "v"']
        if "range" in exchange.headers:
            stated = f"content-range: bytes {half}-{len(BODY) - 1}/{len(BODY)}"
            await exchange.head(206, f"content-length: {len(BODY) - half}", stated, *lines)
            await exchange.body(BODY[half:])
        else:
            await exchange.head(200, f"content-length: {len(BODY)}", *lines)
            await exchange.body(BODY[:half])

    upstream.behaviour = cut_once
    with serving(settings_for(upstream.url, verify_checksums=True)) as service:
        assert service.get("/tasks/1/image").content == BODY


def test_missing_awscrt_is_logged_at_start(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With VERIFY_CHECKSUMS the log says which checksums are not verified."""
    monkeypatch.setitem(sys.modules, "awscrt.checksums", None)
    with serving(settings_for(upstream.url, verify_checksums=True)):
        pass
    assert "the package awscrt is not installed" in caplog.text
