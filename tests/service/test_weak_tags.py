"""Weak validators: what may be sent of an object that only they tell from its other versions."""

from __future__ import annotations

import pytest

from tests.support.client import fetch
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService

BODY = b"0123456789"
PATH = "/tasks/1/image"
MODIFIED = "Mon, 23 Nov 2026 08:00:00 GMT"
LATER = "Mon, 23 Nov 2026 08:00:01 GMT"


class Tagged:
    """A store of one object that states this entity tag, and knows plain ranges."""

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
def test_several_ranges_without_a_strong_tag_return_the_whole(
    upstream: Misbehaving, troubled_store: RunningService, lines: tuple[str, ...]
) -> None:
    """The store could not be held to one version of the object, part by part."""
    upstream.behaviour = Tagged(*lines)
    received = fetch(troubled_store.port, PATH, headers={"range": "bytes=0-1,5-6"})
    assert (received.status, received.body, received.whole) == (200, BODY, True)
    assert "content-range" not in received.headers
    assert [e.headers.get("range") for e in upstream.exchanges] == [None, None]


def test_several_ranges_with_a_strong_tag_return_parts(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """Each part is asked for on the condition that the object is still this version."""
    upstream.behaviour = Tagged('etag: "v"')
    received = fetch(troubled_store.port, PATH, headers={"range": "bytes=0-1,5-6"})
    assert received.status == 206
    assert received.headers["content-type"].startswith("multipart/byteranges; boundary=")
    gets = [exchange for exchange in upstream.exchanges if exchange.method == "GET"]
    assert [e.headers["if-match"] for e in gets] == ['"v"', '"v"']


@pytest.mark.parametrize("condition", [{}, {"if-none-match": '"other"'}], ids=["plain", "asked"])
@pytest.mark.parametrize("lines", [('etag: W/"v"',), ()], ids=["weak tag", "no tag"])
def test_one_range_without_a_strong_tag_returns_the_part(
    upstream: Misbehaving,
    troubled_store: RunningService,
    lines: tuple[str, ...],
    condition: dict[str, str],
) -> None:
    """One part is of one version, whether or not a HEAD comes before it."""
    upstream.behaviour = Tagged(*lines)
    headers = {"range": "bytes=2-4", **condition}
    received = fetch(troubled_store.port, PATH, headers=headers)
    assert (received.status, received.body) == (206, b"234")


@pytest.mark.parametrize(("now", "status"), [(MODIFIED, 200), (LATER, 206)], ids=["now", "later"])
def test_date_in_if_range_holds_only_where_it_is_older_than_its_answer(
    upstream: Misbehaving, troubled_store: RunningService, now: str, status: int
) -> None:
    """Within one second an object may change twice: its date is no strong validator then."""
    upstream.behaviour = Tagged('etag: "v"', f"last-modified: {MODIFIED}", f"date: {now}")
    headers = {"range": "bytes=2-4", "if-range": MODIFIED}
    received = fetch(troubled_store.port, PATH, headers=headers)
    assert (received.status, received.body) == (status, BODY if status == 200 else b"234")
