"""Stores differ: what the service asks of one, and what it makes of odd answers.

The stand-in answers as a Ceph gateway was measured to (knowledge of 16.2.15): lists, weak tags and
`*` in If-Match are a 412, several ranges the first one, odd ranges anything, and If-Range nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import closing

import httpx
import pytest

from tests.support.client import ask as send
from tests.support.client import connect, fetch, read_answer
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, ServiceWith, wait_until

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
        ({"if-match": '"other"'}, 412, ["GET", "HEAD"]),
        ({"range": "bytes=0-8", "if-match": ETAG}, 206, ["GET"]),
        ({"range": "bytes=0-8", "if-range": ETAG}, 206, ["GET"]),
        ({"range": "bytes=0-8", "if-range": '"other"'}, 200, ["GET", "HEAD", "GET"]),
        ({"if-range": '"other"'}, 200, ["GET"]),
        ({"range": "bytes=0-8", "if-match": '"' + "a" * 9000 + '"'}, 412, ["HEAD"]),
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
    troubled_store: RunningService,
    headers: dict[str, str],
    status: int,
    requests: list[str],
) -> None:
    """Each request costs the store requests named, of one plain range and one strong tag."""
    upstream.behaviour = Ceph()
    answer = troubled_store.get("/tasks/1/image", headers=headers)
    assert answer.status_code == status
    assert [request.split(" ")[0] for request in upstream.requests] == requests
    if status == 304:
        assert answer.headers["etag"] == ETAG
        assert sum(exchange.sent for exchange in upstream.exchanges) == 0


@pytest.mark.parametrize("etag", [ETAG, ETAG.strip('"')])
def test_tag_without_its_quotes(
    upstream: Misbehaving, troubled_store: RunningService, etag: str
) -> None:
    """A store's tag goes out quoted, whether or not the store quotes it."""
    upstream.behaviour = Ceph(etag)
    answer = troubled_store.get("/tasks/1/image")
    assert answer.headers["etag"] == ETAG
    assert ask(troubled_store, if_none_match=ETAG)[0] == 304


def test_object_without_any_validator(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """Without a tag, several ranges give the whole: nothing says they are of one version."""
    store = Ceph("")
    store.lines = []
    upstream.behaviour = store
    assert ask(troubled_store) == (200, BODY)
    assert ask(troubled_store, range="bytes=0-8") == (206, BODY[:9])
    assert ask(troubled_store, range="bytes=0-1,5-6") == (200, BODY)
    assert ask(troubled_store, if_none_match='"a"') == (200, BODY)
    assert ask(troubled_store, if_none_match="*")[0] == 304


def test_object_replaced_between_two_requests(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """What was decided by the metadata of one version is never sent of another."""
    old, new = Ceph('"old"'), Ceph('"new"', BODY[::-1])

    async def replaced_after_head(exchange: Exchange) -> None:
        await (old if len(upstream.exchanges) == 1 else new)(exchange)

    upstream.behaviour = replaced_after_head
    assert ask(troubled_store, range="bytes=0-1,5-9", if_none_match='"mine"')[0] == 206
    assert len(upstream.exchanges) == 5  # HEAD, a GET refused, HEAD, two parts
    assert upstream.exchanges[-1].headers["if-match"] == '"new"'


def test_object_replaced_all_the_time(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """An object that is another at each look is a 503, not a guess."""

    async def another(exchange: Exchange) -> None:
        await Ceph(f'"{len(upstream.exchanges)}"')(exchange)

    upstream.behaviour = another
    assert ask(troubled_store, if_none_match='"mine"')[0] == 503


def test_object_replaced_between_two_parts(
    upstream: Misbehaving, troubled_store: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    """A body of several parts breaks visibly rather than to go on with another version."""
    old, new = Ceph('"old"'), Ceph('"new"', BODY[::-1])

    async def replaced_after_part(exchange: Exchange) -> None:
        await (old if len(upstream.exchanges) < 3 else new)(exchange)

    upstream.behaviour = replaced_after_part
    answer = fetch(troubled_store.port, "/tasks/1/image", headers={"range": "bytes=0-1,5-9"})
    assert answer.status == 206
    assert not answer.whole
    wait_until(lambda: troubled_store.acquired_connections() == 0)
    wait_until(
        lambda: (
            "206 changed (upstream no longer has this version; resuming at byte 0: " in caplog.text
        )
    )


@pytest.mark.parametrize(
    "content_range",
    ["bytes 1-9/1000", "bytes 0-8/*", "bytes 0-9/1000", "0-8/1000", "bytes 8-0/1000", None],
)
def test_part_that_is_not_the_one_asked_for(
    upstream: Misbehaving, troubled_store: RunningService, content_range: str | None
) -> None:
    """A 206 whose Content-Range is another's, or makes no sense, is a 502 (row 54)."""

    async def mislabelled(exchange: Exchange) -> None:
        lines = [f"content-range: {content_range}"] if content_range else []
        await exchange.answer(206, BODY[:9], f"etag: {ETAG}", *lines)

    upstream.behaviour = mislabelled
    assert ask(troubled_store, range="bytes=0-8")[0] == 502


def test_part_whose_length_is_not_its_range(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A 206 of other bytes than its Content-Range says is a 502."""

    async def short(exchange: Exchange) -> None:
        await exchange.answer(206, BODY[:8], "content-range: bytes 0-8/1000")

    upstream.behaviour = short
    assert ask(troubled_store, range="bytes=0-8")[0] == 502


def test_store_that_ignores_ranges(upstream: Misbehaving, troubled_store: RunningService) -> None:
    """A 200 to a Range is the whole, and told as the whole."""

    async def whole(exchange: Exchange) -> None:
        await exchange.answer(200, BODY, f"etag: {ETAG}")

    upstream.behaviour = whole
    assert ask(troubled_store, range="bytes=0-8") == (200, BODY)
    assert ask(troubled_store, range="bytes=0-1,5-6") == (200, BODY)


def test_store_that_ignores_if_match(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A store that gives another version than was demanded is found out by its tag."""

    async def whatever(exchange: Exchange) -> None:
        stated = "content-range: bytes 0-8/1000"
        if "range" in exchange.headers:
            await exchange.answer(206, BODY[:9], stated, 'etag: "new"')
        else:
            await exchange.answer(200, BODY, 'etag: "new"')

    async def with_head(exchange: Exchange) -> None:
        if exchange.method == "HEAD":
            await exchange.answer(200, BODY, 'etag: "new"')
        else:
            await whatever(exchange)

    upstream.behaviour = with_head
    assert ask(troubled_store, range="bytes=0-8", if_range='"old"') == (200, BODY)
    assert ask(troubled_store, if_match='"old"')[0] == 412


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ("gzip", "gzip"),
        ("aws-chunked", None),
        ("gzip,aws-chunked", "gzip"),
        ("identity", None),
        ("a b", None),
    ],
)
def test_coding_of_the_upload_is_not_the_objects(
    upstream: Misbehaving, troubled_store: RunningService, stored: str, sent: str | None
) -> None:
    """What some stores keep of the signed upload is nothing that a client could decode."""
    store = Ceph()
    store.lines = [f"content-encoding: {stored}"]
    upstream.behaviour = store
    received = fetch(troubled_store.port, "/tasks/1/image")
    assert received.headers.get("content-encoding") == sent
    assert received.body == BODY


class CephOf(Ceph):
    """A Ceph whose parts have lines of their own, by the number of the request."""

    def __init__(self, odd: Callable[[int], list[str] | None], body: bytes = BODY) -> None:
        super().__init__(body=body)
        self.odd = odd
        self.asked = 0

    async def part(self, exchange: Exchange, a: str, b: str, headers: list[str]) -> None:
        self.asked += 1
        lines = self.odd(self.asked)
        if lines is None:
            await super().part(exchange, a, b, headers)
        else:
            await exchange.answer(206, self.body[int(a) : int(b) + 1], *lines)


@pytest.mark.parametrize(
    "lines",
    [
        ["content-range: bytes 5-9/1000"],  # of no version
        ["content-range: bytes 5-9/2000", f"etag: {ETAG}"],  # of a longer one
        ["content-range: bytes 5-9/1000", 'etag: "other"'],
        ["content-range: bytes 0-4/1000", f"etag: {ETAG}"],
    ],
)
def test_part_of_several_that_may_be_of_another_version(
    upstream: Misbehaving, troubled_store: RunningService, lines: list[str]
) -> None:
    """A later part that is not provably of the same version breaks the body."""
    upstream.behaviour = CephOf(lambda asked: lines if asked > 1 else None)
    answer = fetch(troubled_store.port, "/tasks/1/image", headers={"range": "bytes=0-1,5-9"})
    assert answer.status == 206
    assert not answer.whole


def test_whole_instead_of_a_later_part(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A store that suddenly gives the whole instead of a part breaks the body, not its bytes."""
    ceph = Ceph()

    async def whole_at_last(exchange: Exchange) -> None:
        if len(upstream.exchanges) < 3:
            await ceph(exchange)
        else:
            await exchange.answer(200, BODY, f"etag: {ETAG}")

    upstream.behaviour = whole_at_last
    answer = fetch(troubled_store.port, "/tasks/1/image", headers={"range": "bytes=0-1,5-9"})
    assert answer.status == 206
    assert not answer.whole


def test_store_without_tags_that_ignores_if_match(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """What states no tag is not the version of a tag: If-Range gives the whole, If-Match 412."""

    async def tagless(exchange: Exchange) -> None:
        if "range" in exchange.headers:
            await exchange.answer(206, BODY[5:10], "content-range: bytes 5-9/1000")
        else:
            await exchange.answer(200, BODY)

    upstream.behaviour = tagless
    assert ask(troubled_store, range="bytes=5-9", if_range='"old"') == (200, BODY)
    for method in ("GET", "HEAD"):
        assert ask(troubled_store, method, if_match='"old"')[0] == 412


def test_date_of_another_version(upstream: Misbehaving, troubled_store: RunningService) -> None:
    """Without tags, a body whose date is not that of the metadata is of another version."""
    later = "Mon, 23 Nov 2026 09:00:00 GMT"

    async def replaced(exchange: Exchange) -> None:
        if len(upstream.exchanges) == 1:
            await exchange.answer(200, BODY, f"last-modified: {DATE}")
        elif exchange.method == "HEAD":
            await exchange.answer(200, BODY[::-1], f"last-modified: {later}")
        elif "range" in exchange.headers:
            stated = "content-range: bytes 5-9/1000"
            await exchange.answer(206, BODY[::-1][5:10], stated, f"last-modified: {later}")
        else:
            await exchange.answer(200, BODY[::-1], f"last-modified: {later}")

    upstream.behaviour = replaced
    assert ask(troubled_store, range="bytes=5-9", if_range=DATE) == (200, BODY[::-1])
    upstream.forget()
    upstream.behaviour = replaced
    assert ask(troubled_store, if_unmodified_since=DATE)[0] == 412


def test_weak_tag_of_another_version(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A condition that the metadata meets holds for the body of that weak tag, and no other."""

    async def replaced(exchange: Exchange) -> None:
        tag = 'W/"1"' if len(upstream.exchanges) == 1 else 'W/"2"'
        await exchange.answer(200, BODY, f"last-modified: {DATE}", f"etag: {tag}")

    upstream.behaviour = replaced
    assert ask(troubled_store, if_none_match='"2"')[0] == 304


def test_store_that_compares_tags_in_a_way_of_its_own(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A store that leaves out the quotes, and compares without them, serves conditions too."""
    bare = ETAG.strip('"')
    upstream.behaviour = Ceph(bare)
    assert ask(troubled_store, if_none_match='"other"') == (200, BODY)
    assert ask(troubled_store, if_match=ETAG) == (200, BODY)
    assert ask(troubled_store, range="bytes=0-8", if_range=ETAG) == (206, BODY[:9])
    assert ask(troubled_store, range="bytes=0-1,5-6")[0] == 206


def test_several_if_range_hold_for_nothing(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """If-Range is no list: two of them are none, and the whole is safe."""
    upstream.behaviour = Ceph()
    headers = [("range", "bytes=0-8"), ("if-range", ETAG), ("if-range", '"other"')]
    with httpx.Client(trust_env=False) as client:
        answer = client.get(f"{troubled_store.url}/tasks/1/image", headers=headers)
    assert (answer.status_code, answer.content) == (200, BODY)


@pytest.mark.parametrize("name", ["range", "if-match", "if-none-match", "if-range"])
def test_header_of_megabytes_is_refused(
    upstream: Misbehaving, troubled_store: RunningService, name: str
) -> None:
    """No client has reason to send tags of megabytes: 431, and nothing is asked of the store."""
    answer = troubled_store.get("/tasks/1/image", headers={name: '"b",' * 500_000})
    assert answer.status_code == 431
    assert upstream.exchanges == []


@pytest.mark.parametrize("path", ["/tasks/1/image", "/tasks/1/bytes/1000"])
def test_rejected_answer_is_closed_before_the_next(
    upstream: Misbehaving, service_with: ServiceWith, path: str
) -> None:
    """A download holds one connection, also where a first answer could not be used."""

    async def ignores_conditions(exchange: Exchange) -> None:
        if exchange.method == "HEAD" or "range" not in exchange.headers:
            await exchange.head(200, "content-length: 1000", 'etag: "new"')
        else:
            await exchange.head(206, "content-length: 9", "content-range: bytes 0-8/1000", NEW)
        if exchange.method == "HEAD":
            exchange.keep = True
        else:
            await exchange.hang()

    upstream.behaviour = ignores_conditions
    service = service_with()
    with closing(connect(service.port)) as client:
        send(client, path, headers={"range": "bytes=0-8", "if-range": '"old"'})
        assert client.recv(12) == b"HTTP/1.1 200"
        assert service.acquired_connections() == 1


NEW = 'etag: "new"'


def test_client_of_http_1_0_gets_no_chunks(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """HTTP/1.0 knows no chunks: an object of unknown length is a 502 to it, not a guess."""

    async def chunked(exchange: Exchange) -> None:
        await exchange.head(200, "transfer-encoding: chunked")
        await exchange.raw(b"5\r\nhello\r\n0\r\n\r\n")

    upstream.behaviour = chunked
    with closing(connect(troubled_store.port)) as client:
        client.sendall(b"GET /tasks/1/image HTTP/1.0\r\n\r\n")
        assert read_answer(client).status == 502


def test_416_to_no_range_is_nonsense(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A store that calls no range unsatisfiable is a 502, after one request."""

    async def odd(exchange: Exchange) -> None:
        await exchange.error(416, "InvalidRange")

    upstream.behaviour = odd
    assert ask(troubled_store)[0] == 502
    assert len(upstream.exchanges) == 1
