"""Stores differ: what the service asks of one, and what it makes of odd answers.

The stand-in answers as a Ceph gateway was measured to (knowledge of 16.2.15): lists, weak tags and
`*` in If-Match are a 412, several ranges the first one, odd ranges anything, and If-Range nothing.
"""

from __future__ import annotations

import hashlib
import re

import pytest

from .support.client import fetch
from .support.misbehaving import Exchange, Misbehaving
from .support.serving import RunningService, wait_until

BODY = hashlib.shake_256(b"ceph").digest(1000)
ETAG = '"5d41402abc4b2a76b9719d911017c592-2"'
DATE = "Mon, 23 Nov 2026 08:00:00 GMT"


class Ceph:
    """A store that understands one plain range and If-Match of one strong tag, and no more."""

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


def ask(service: RunningService, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = service.request(method, "/tasks/1/image", headers=named)
    return answer.status_code, answer.content


@pytest.mark.parametrize(
    ("headers", "status", "requests"),
    [
        ({}, 200, ["GET"]),
        ({"range": "bytes=0-8"}, 206, ["GET"]),
        ({"range": "bytes=990-"}, 206, ["GET"]),
        ({"range": "bytes=-10"}, 206, ["GET"]),
        ({"range": "bytes=0-99999999999999999999"}, 206, ["GET"]),
        ({"range": "bytes=abc"}, 200, ["GET"]),
        ({"range": "items=0-1"}, 200, ["GET"]),
        ({"if-match": ETAG}, 200, ["GET"]),
        ({"if-match": '"other"'}, 412, ["GET"]),
        ({"range": "bytes=0-8", "if-match": ETAG}, 206, ["GET"]),
        ({"range": "bytes=0-8", "if-range": ETAG}, 206, ["GET"]),
        ({"range": "bytes=0-8", "if-range": '"other"'}, 200, ["GET", "GET"]),
        ({"range": "bytes=0-8", "if-range": DATE}, 206, ["HEAD", "GET"]),
        ({"range": "bytes=0-8", "if-range": f"W/{ETAG}"}, 200, ["HEAD", "GET"]),
        ({"range": "bytes=-0"}, 416, ["HEAD"]),
        ({"range": "bytes=5000-"}, 416, ["GET", "HEAD"]),
        ({"range": "bytes=0-1,5-6"}, 206, ["HEAD", "GET", "GET"]),
        ({"if-match": f'"other", {ETAG}'}, 200, ["HEAD", "GET"]),
        ({"if-match": "*"}, 200, ["HEAD", "GET"]),
        ({"if-match": f"W/{ETAG}"}, 412, ["HEAD"]),
        ({"if-none-match": ETAG}, 304, ["HEAD"]),
        ({"if-none-match": f"W/{ETAG}"}, 304, ["HEAD"]),
        ({"if-none-match": "*"}, 304, ["HEAD"]),
        ({"if-none-match": '"other"'}, 200, ["HEAD", "GET"]),
        ({"if-modified-since": DATE}, 304, ["HEAD"]),
        ({"if-modified-since": "garbage"}, 200, ["HEAD", "GET"]),
        ({"if-unmodified-since": DATE}, 200, ["HEAD", "GET"]),
    ],
)
def test_nothing_odd_is_asked_of_a_store(
    upstream: Misbehaving,
    troubled: RunningService,
    headers: dict[str, str],
    status: int,
    requests: list[str],
) -> None:
    """Each request costs the store requests named, of one plain range and one strong tag."""
    upstream.behaviour = Ceph()
    answer = troubled.get("/tasks/1/image", headers=headers)
    assert answer.status_code == status
    assert [request.split(" ")[0] for request in upstream.requests] == requests
    if status == 304:
        assert answer.headers["etag"] == ETAG
        assert sum(exchange.sent for exchange in upstream.exchanges) == 0


@pytest.mark.parametrize("etag", [ETAG, ETAG.strip('"')])
def test_tag_without_its_quotes(
    upstream: Misbehaving, troubled: RunningService, etag: str
) -> None:
    """A store's tag goes out quoted, whether or not the store quotes it."""
    upstream.behaviour = Ceph(etag)
    answer = troubled.get("/tasks/1/image")
    assert answer.headers["etag"] == ETAG
    assert ask(troubled, if_none_match=ETAG)[0] == 304


def test_object_without_any_validator(upstream: Misbehaving, troubled: RunningService) -> None:
    """Without a tag, several ranges give the whole: nothing says they are of one version."""
    store = Ceph("")
    store.lines = []
    upstream.behaviour = store
    assert ask(troubled) == (200, BODY)
    assert ask(troubled, range="bytes=0-8") == (206, BODY[:9])
    assert ask(troubled, range="bytes=0-1,5-6") == (200, BODY)
    assert ask(troubled, if_none_match='"a"') == (200, BODY)
    assert ask(troubled, if_none_match="*")[0] == 304


def test_object_replaced_between_two_requests(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """What was decided by the metadata of one version is never sent of another."""
    old, new = Ceph('"old"'), Ceph('"new"', BODY[::-1])

    async def replaced_after_head(exchange: Exchange) -> None:
        await (old if len(upstream.exchanges) == 1 else new)(exchange)

    upstream.behaviour = replaced_after_head
    assert ask(troubled, range="bytes=0-1,5-9", if_none_match='"mine"')[0] == 206
    assert len(upstream.exchanges) == 5  # HEAD, a GET refused, HEAD, two parts
    assert upstream.exchanges[-1].headers["if-match"] == '"new"'


def test_object_replaced_all_the_time(upstream: Misbehaving, troubled: RunningService) -> None:
    """An object that is another at each look is a 503, not a guess."""

    async def another(exchange: Exchange) -> None:
        await Ceph(f'"{len(upstream.exchanges)}"')(exchange)

    upstream.behaviour = another
    assert ask(troubled, if_none_match='"mine"')[0] == 503


def test_object_replaced_between_two_parts(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """A body of several parts breaks visibly rather than to go on with another version."""
    old, new = Ceph('"old"'), Ceph('"new"', BODY[::-1])

    async def replaced_after_part(exchange: Exchange) -> None:
        await (old if len(upstream.exchanges) < 3 else new)(exchange)

    upstream.behaviour = replaced_after_part
    answer = fetch(troubled.port, "/tasks/1/image", headers={"range": "bytes=0-1,5-9"})
    assert answer.status == 206
    assert not answer.whole
    wait_until(lambda: troubled.acquired_connections() == 0)


@pytest.mark.parametrize(
    "content_range",
    ["bytes 1-9/1000", "bytes 0-8/*", "bytes 0-9/1000", "0-8/1000", "bytes 8-0/1000", None],
)
def test_part_that_is_not_the_one_asked_for(
    upstream: Misbehaving, troubled: RunningService, content_range: str | None
) -> None:
    """A 206 whose Content-Range is another's, or makes no sense, is a 502 (row 54)."""

    async def mislabelled(exchange: Exchange) -> None:
        lines = [f"content-range: {content_range}"] if content_range else []
        await exchange.answer(206, BODY[:9], f"etag: {ETAG}", *lines)

    upstream.behaviour = mislabelled
    assert ask(troubled, range="bytes=0-8")[0] == 502


def test_part_whose_length_is_not_its_range(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """A 206 of other bytes than its Content-Range says is a 502."""

    async def short(exchange: Exchange) -> None:
        await exchange.answer(206, BODY[:8], "content-range: bytes 0-8/1000")

    upstream.behaviour = short
    assert ask(troubled, range="bytes=0-8")[0] == 502


def test_store_that_ignores_ranges(upstream: Misbehaving, troubled: RunningService) -> None:
    """A 200 to a Range is the whole, and told as the whole."""

    async def whole(exchange: Exchange) -> None:
        await exchange.answer(200, BODY, f"etag: {ETAG}")

    upstream.behaviour = whole
    assert ask(troubled, range="bytes=0-8") == (200, BODY)
    assert ask(troubled, range="bytes=0-1,5-6") == (200, BODY)


def test_store_that_ignores_if_match(upstream: Misbehaving, troubled: RunningService) -> None:
    """A store that gives another version than was demanded is found out by its tag."""

    async def whatever(exchange: Exchange) -> None:
        stated = "content-range: bytes 0-8/1000"
        if "range" in exchange.headers:
            await exchange.answer(206, BODY[:9], stated, 'etag: "new"')
        else:
            await exchange.answer(200, BODY, 'etag: "new"')

    upstream.behaviour = whatever
    assert ask(troubled, range="bytes=0-8", if_range='"old"') == (200, BODY)
    assert ask(troubled, if_match='"old"')[0] == 412


@pytest.mark.parametrize(
    ("stored", "sent"),
    [("gzip", "gzip"), ("aws-chunked", None), ("gzip,aws-chunked", "gzip"), ("a b", "a b")],
)
def test_coding_of_the_upload_is_not_the_objects(
    upstream: Misbehaving, troubled: RunningService, stored: str, sent: str | None
) -> None:
    """What some stores keep of the signed upload is nothing that a client could decode."""
    store = Ceph()
    store.lines = [f"content-encoding: {stored}"]
    upstream.behaviour = store
    received = fetch(troubled.port, "/tasks/1/image")
    assert received.headers.get("content-encoding") == sent
    assert received.body == BODY
