"""A store that answers like a Ceph 16.2.15 gateway: only the plain part of the S3 API."""

from __future__ import annotations

import hashlib
import re

from tests.support.misbehaving import Exchange

BODY = hashlib.shake_256(b"ceph").digest(1000)
ETAG = '"5d41402abc4b2a76b9719d911017c592-2"'
DATE = "Mon, 23 Nov 2026 08:00:00 GMT"


class Ceph:
    """A store that supports only a single range and If-Match with one strong ETag."""

    def __init__(self, etag: str = ETAG, body: bytes = BODY) -> None:
        self.etag = etag
        self.body = body
        self.lines = ["last-modified: " + DATE, "cache-control: max-age=60"]

    async def __call__(self, exchange: Exchange) -> None:
        headers = [f"etag: {self.etag}", *self.lines]
        if "if-match" in exchange.headers and exchange.headers["if-match"] != self.etag:
            await exchange.error(412, "PreconditionFailed")
            return
        asked = exchange.headers.get("range")
        if exchange.method == "HEAD" or asked is None:
            await exchange.answer(200, self.body, *headers)
            return
        found = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", asked)
        assert found, f"not a range that every store understands: {asked}"
        await self.part(exchange, found[1], found[2], headers)

    async def part(self, exchange: Exchange, a: str, b: str, headers: list[str]) -> None:
        length = len(self.body)
        first = int(a) if a else max(length - int(b), 0)
        last = min(int(b), length - 1) if a and b else length - 1
        if first >= length:
            await exchange.error(416, "InvalidRange")
            return
        stated = f"content-range: bytes {first}-{last}/{length}"
        await exchange.answer(206, self.body[first : last + 1], stated, *headers)
