"""Weak validators: objects with a weak ETag, or without an ETag."""

from __future__ import annotations

import pytest

from tests.support.client import fetch
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService

BODY = b"0123456789"
PATH = "/tasks/1/image"
MODIFIED = "Mon, 23 Nov 2026 08:00:00 GMT"
LATER = "Mon, 23 Nov 2026 08:00:01 GMT"


class StoreWithHeaders:
    """A store with one object that sends the given headers and supports single ranges."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines

    async def __call__(self, exchange: Exchange) -> None:
        if text := exchange.headers.get("range"):
            first, last = map(int, text.removeprefix("bytes=").split("-"))
            stated = f"content-range: bytes {first}-{last}/{len(BODY)}"
            await exchange.answer(206, BODY[first : last + 1], stated, *self.lines)
        else:
            await exchange.answer(200, BODY, *self.lines)


@pytest.mark.parametrize("lines", [('etag: W/"v"',), ()], ids=["weak tag", "no tag"])
def test_several_ranges_without_strong_etag_return_full_200(
    upstream: Misbehaving, troubled_store: RunningService, lines: tuple[str, ...]
) -> None:
    """Without a strong ETag, several ranges get the full 200."""
    upstream.behaviour = StoreWithHeaders(*lines)
    received = fetch(troubled_store.port, PATH, headers={"range": "bytes=0-1,5-6"})
    assert (received.status, received.body, received.whole) == (200, BODY, True)
    assert "content-range" not in received.headers
    assert [e.headers.get("range") for e in upstream.exchanges] == [None, None]


def test_several_ranges_with_strong_etag_return_multipart(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """With a strong ETag, several ranges get a multipart 206, and each GET has If-Match."""
    upstream.behaviour = StoreWithHeaders('etag: "v"')
    received = fetch(troubled_store.port, PATH, headers={"range": "bytes=0-1,5-6"})
    assert received.status == 206
    assert received.headers["content-type"].startswith("multipart/byteranges; boundary=")
    gets = [exchange for exchange in upstream.exchanges if exchange.method == "GET"]
    assert [e.headers["if-match"] for e in gets] == ['"v"', '"v"']


@pytest.mark.parametrize("condition", [{}, {"if-none-match": '"other"'}], ids=["plain", "asked"])
@pytest.mark.parametrize("lines", [('etag: W/"v"',), ()], ids=["weak tag", "no tag"])
def test_one_range_without_strong_etag_returns_206(
    upstream: Misbehaving,
    troubled_store: RunningService,
    lines: tuple[str, ...],
    condition: dict[str, str],
) -> None:
    """Without a strong ETag, one range gets a 206, with and without a HEAD before it."""
    upstream.behaviour = StoreWithHeaders(*lines)
    headers = {"range": "bytes=2-4", **condition}
    received = fetch(troubled_store.port, PATH, headers=headers)
    assert (received.status, received.body) == (206, b"234")


@pytest.mark.parametrize(("now", "status"), [(MODIFIED, 200), (LATER, 206)], ids=["now", "later"])
def test_if_range_date_needs_a_later_date_header(
    upstream: Misbehaving, troubled_store: RunningService, now: str, status: int
) -> None:
    """A date in If-Range matches only if the answer's Date is later (RFC 9110, 8.8.2.2)."""
    upstream.behaviour = StoreWithHeaders(
        'etag: "v"', f"last-modified: {MODIFIED}", f"date: {now}"
    )
    headers = {"range": "bytes=2-4", "if-range": MODIFIED}
    received = fetch(troubled_store.port, PATH, headers=headers)
    assert (received.status, received.body) == (status, BODY if status == 200 else b"234")
