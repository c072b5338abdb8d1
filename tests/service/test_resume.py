"""Resuming: a broken body continues with the same version, or the connection is cut."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import Received, abort, ask, connect, fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, serving, wait_until

SIZE = 3_000_000
BODY = hashlib.shake_256(b"resuming").digest(SIZE)
PATHS = {"s3": "/tasks/1/image", "full": "/tasks/1/image", "http": f"/tasks/1/bytes/{SIZE}"}
DATE = "Mon, 23 Nov 2026 08:00:00 GMT"


class Breaking:
    """A store that serves the object or a range of it, with each of `faults` in turn."""

    def __init__(self, *faults: str, etag: str = '"v1"', body: bytes = BODY) -> None:
        self.faults: Iterator[str] = iter(faults)
        self.etag = etag
        self.body = body
        self.lines = ["accept-ranges: bytes", f"last-modified: {DATE}"]

    async def __call__(self, exchange: Exchange) -> None:
        fault = next(self.faults, "none")
        if fault.isdigit():
            await exchange.error(int(fault), "InternalError")
            return
        if fault == "refuse":
            exchange.reset()
            return
        if fault == "replace":
            self.etag, self.body = '"v2"', self.body[::-1]
        await self.answer(exchange, fault)

    async def answer(self, exchange: Exchange, fault: str) -> None:
        if exchange.headers.get("if-match", self.etag) != self.etag:
            await exchange.error(412, "PreconditionFailed")
            return
        ranged = exchange.headers.get("range") if fault != "whole" else None
        if exchange.headers.get("if-range", self.etag) not in (self.etag, DATE):
            ranged = None
        first, last = 0, len(self.body) - 1
        if ranged:
            a, _, b = ranged.removeprefix("bytes=").partition("-")
            first, last = int(a), min(int(b or last), last)
        lines = [f"content-length: {last + 1 - first}", *self.lines]
        if self.etag:
            lines.append(f"etag: {self.etag}")
        shift = 1 if fault == "mislabel" else 0
        if ranged:
            lines.append(f"content-range: bytes {first + shift}-{last}/{len(self.body)}")
        await exchange.head(206 if ranged else 200, *lines)
        await self.send(exchange, self.body[first : last + 1], fault)

    async def send(self, exchange: Exchange, data: bytes, fault: str) -> None:
        if exchange.method == "HEAD" or fault in ("none", "whole", "mislabel", "replace"):
            if exchange.method != "HEAD":
                await exchange.body(data)
            exchange.keep = True
            return
        if fault == "empty":
            return
        if fault == "silent":
            await exchange.hang()
            return
        await exchange.body(data[: min(len(data) - 1, 700_000)])
        if fault == "reset":
            exchange.reset()
        elif fault == "stall":
            await exchange.hang()
        else:
            assert fault == "cut", fault


def download(
    upstream: Misbehaving, behaviour: Breaking, source: str, **settings: object
) -> Received:
    upstream.behaviour = behaviour
    changes = {"upstream_read_timeout": 0.5, "s3_direct": source != "full", **settings}
    with serving(settings_for(upstream.url, **changes)) as service:
        received = fetch(service.port, PATHS[source])
        wait_until(lambda: service.acquired_connections() == 0)
    return received


@pytest.mark.parametrize("source", ["s3", "full", "http"])
@pytest.mark.parametrize(
    "faults",
    [
        ["cut"],
        ["reset"],
        ["stall"],
        ["cut", "reset", "stall", "cut"],
        ["cut", "refuse"],
        ["cut", "500", "503"],
        ["cut", "mislabel"],
    ],
    ids=" ".join,
)
def test_broken_body_is_resumed(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, source: str, faults: list[str]
) -> None:
    """The client gets all bytes of a resumed body, and the log says `resumed`."""
    caplog.set_level(logging.INFO, "downspout")
    received = download(upstream, Breaking(*faults), source)
    assert received.whole
    assert received.body == BODY
    assert f" 200 resumed {SIZE}/{SIZE} bytes" in caplog.text


@pytest.mark.parametrize("source", ["s3", "http"])
@pytest.mark.parametrize("headers", ["bytes=1000-2900000", "bytes=-2500000"])
def test_broken_range_is_resumed_within_its_bounds(
    upstream: Misbehaving, source: str, headers: str
) -> None:
    """A broken 206 is resumed and ends at its own last byte."""
    store = Breaking(*(["cut"] * 3))
    if source == "s3" and headers.startswith("bytes=-"):
        headers = f"bytes={SIZE - 2_500_000}-"
    upstream.behaviour = store
    with serving(settings_for(upstream.url)) as service:
        received = fetch(service.port, PATHS[source], headers={"range": headers})
    first = 1000 if headers.startswith("bytes=1000") else SIZE - 2_500_000
    last = 2_900_000 if headers.startswith("bytes=1000") else SIZE - 1
    assert received.status == 206
    assert received.whole
    assert received.body == BODY[first : last + 1]


def test_broken_multipart_parts_are_resumed(upstream: Misbehaving) -> None:
    """Each part of a multipart body is resumed, and later parts are opened with retries."""
    upstream.behaviour = Breaking("none", "cut", "none", "500", "500", "500", "cut", "reset")
    with serving(settings_for(upstream.url)) as service:
        headers = {"range": "bytes=0-999999,1500000-2999999"}
        received = fetch(service.port, PATHS["s3"], headers=headers)
    assert received.whole
    assert BODY[:1_000_000] in received.body
    assert BODY[1_500_000:] in received.body


@pytest.mark.parametrize("source", ["s3", "full", "http"])
def test_replaced_object_aborts_the_body(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    """If the object is replaced, the connection is cut after bytes of the old version."""
    received = download(upstream, Breaking("cut", "replace"), source)
    assert not received.whole
    assert BODY.startswith(received.body)
    assert " 200 changed (upstream no longer has this version; resuming at byte " in caplog.text


@pytest.mark.parametrize("source", ["s3", "http"])
def test_full_200_instead_of_the_rest_aborts_the_body(upstream: Misbehaving, source: str) -> None:
    """A 200 to a request for the rest is not used, and the connection is cut."""
    received = download(upstream, Breaking("cut", *["whole"] * 20), source, max_resumes=3)
    assert not received.whole
    assert BODY.startswith(received.body)


@pytest.mark.parametrize("fault", ["500", "empty"])
@pytest.mark.parametrize("source", ["s3", "full", "http"])
def test_body_without_progress_is_aborted_after_max_resumes(
    upstream: Misbehaving, source: str, fault: str
) -> None:
    """After MAX_RESUMES attempts without a further byte, the connection is cut."""
    received = download(upstream, Breaking("cut", *[fault] * 99), source, max_resumes=2)
    assert not received.whole
    assert BODY.startswith(received.body)
    assert len(upstream.exchanges) == 1 + 2


@pytest.mark.parametrize("source", ["s3", "full", "http"])
def test_progress_resets_the_resume_count(upstream: Misbehaving, source: str) -> None:
    """Any received byte resets the count of resume attempts."""
    received = download(upstream, Breaking(*["cut"] * 4), source, max_resumes=1)
    assert received.body == BODY


@pytest.mark.parametrize("source", ["s3", "full", "http"])
def test_body_without_validator_is_not_resumed(upstream: Misbehaving, source: str) -> None:
    """Without an ETag or Last-Modified, a broken body is not resumed."""
    store = Breaking("cut", etag="")
    store.lines = ["accept-ranges: bytes"]
    received = download(upstream, store, source)
    assert not received.whole
    assert len(upstream.exchanges) == 1


def test_body_without_accept_ranges_is_not_resumed(upstream: Misbehaving) -> None:
    """An HTTP upstream without `Accept-Ranges: bytes` gets no request for the rest."""
    store = Breaking("cut")
    store.lines = []
    received = download(upstream, store, "http")
    assert not received.whole
    assert len(upstream.exchanges) == 1


def test_http_body_with_only_last_modified_is_resumed(upstream: Misbehaving) -> None:
    """Without an ETag, the request for the rest has Last-Modified in If-Range."""
    received = download(upstream, Breaking("cut", etag=""), "http")
    assert received.body == BODY
    assert upstream.exchanges[1].headers["if-range"] == DATE


def test_hundred_downloads_with_random_breaks_are_complete(upstream: Misbehaving) -> None:
    """If the upstream cuts every third answer, all downloads are complete."""
    rng = random.Random(7)

    class Random(Breaking):
        async def __call__(self, exchange: Exchange) -> None:
            fault = rng.choice(["cut", "none", "none"])
            await self.answer(exchange, fault)

        async def send(self, exchange: Exchange, data: bytes, fault: str) -> None:
            if fault == "none":
                await super().send(exchange, data, fault)
            else:
                await exchange.body(data[: rng.randrange(len(data))])

    upstream.behaviour = Random()
    with serving(settings_for(upstream.url)) as service, ThreadPoolExecutor(8) as pool:
        bodies = pool.map(lambda n: fetch(service.port, PATHS[("s3", "http")[n % 2]]), range(100))
        assert all(received.body == BODY for received in bodies)
    assert len(upstream.exchanges) > 110


def test_client_disconnect_while_resuming_ends_the_attempts(
    upstream: Misbehaving, troubled: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    """After the client disconnects, the upstream gets no further requests."""
    caplog.set_level(logging.INFO, "downspout")
    upstream.behaviour = Breaking("cut", *["500"] * 99)
    client = connect(troubled.port)
    ask(client, PATHS["http"])
    wait_until(lambda: len(upstream.exchanges) >= 2)
    abort(client)
    wait_until(lambda: troubled.acquired_connections() == 0)
    wait_until(lambda: "client_gone" in caplog.text)
    asked = len(upstream.exchanges)
    troubled.get("/healthz")
    assert len(upstream.exchanges) == asked


@pytest.mark.parametrize("source", ["s3", "http"])
def test_resumed_body_holds_one_connection(upstream: Misbehaving, source: str) -> None:
    """The broken answer is closed before the rest is requested."""
    upstream.behaviour = Breaking("stall", "stall", "stall")
    settings = settings_for(upstream.url, upstream_read_timeout=1.0)
    with serving(settings) as service:
        client = connect(service.port)
        ask(client, PATHS[source])
        for attempt in (2, 3):
            wait_until(lambda attempt=attempt: len(upstream.exchanges) == attempt)
            assert service.acquired_connections() == 1
        client.close()


class Replaced(Breaking):
    """An HTTP service that replaces its object after the first answer.

    `first` and `after` are the header lines of the two versions.
    """

    def __init__(self, first: list[str], after: list[str]) -> None:
        super().__init__("cut")
        self.first, self.after = first, after

    async def answer(self, exchange: Exchange, fault: str) -> None:
        if fault == "cut":
            lines = [f"content-length: {SIZE}", "accept-ranges: bytes", *self.first]
            await exchange.head(200, *lines)
            await self.send(exchange, BODY, fault)
            return
        first = int(exchange.headers["range"].removeprefix("bytes=").split("-")[0])
        stated = f"content-range: bytes {first}-{SIZE - 1}/{SIZE}"
        await exchange.head(206, f"content-length: {SIZE - first}", stated, *self.after)
        await self.send(exchange, BODY[::-1][first:], "none")


@pytest.mark.parametrize(
    ("first", "after"),
    [
        (['etag: W/"v1"', f"last-modified: {DATE}"], ['etag: W/"v2"', f"last-modified: {DATE}"]),
        (['etag: W/"v1"', f"last-modified: {DATE}"], ['etag: W/"v2"']),
        (['etag: W/"v1"', f"last-modified: {DATE}"], ['etag: "v2"']),
        ([f"last-modified: {DATE}", f"date: {DATE}"], [f"last-modified: {DATE}"]),
        (['etag: "v1"', f"last-modified: {DATE}"], [f"last-modified: {DATE}"]),
    ],
)
def test_rest_of_unproven_version_is_not_sent(
    upstream: Misbehaving, first: list[str], after: list[str]
) -> None:
    """A rest that may belong to another version is not sent."""
    received = download(upstream, Replaced(first, after), "http")
    assert not received.whole
    assert BODY.startswith(received.body)


@pytest.mark.parametrize("source", ["s3", "full", "http"])
@pytest.mark.parametrize("fault", ["mislabel", "large error"])
def test_refused_resume_attempt_frees_its_connection(
    upstream: Misbehaving, source: str, fault: str
) -> None:
    """After several refused attempts, a further attempt still gets a connection."""

    class Refused(Breaking):
        async def __call__(self, exchange: Exchange) -> None:
            if 1 < len(upstream.exchanges) < 8 and fault == "large error":
                await exchange.head(500, "content-length: 100000000000")
                await exchange.body(bytes(200_000))
                await exchange.hang()
            elif 1 < len(upstream.exchanges) < 8:
                stated = f"content-range: bytes 1-2/{SIZE}"
                await exchange.head(206, 'etag: "v1"', stated, "content-length: 2000000")
                await exchange.hang()
            else:
                await super().__call__(exchange)

    received = download(upstream, Refused("cut"), source, max_downloads=1)
    assert received.body == BODY
