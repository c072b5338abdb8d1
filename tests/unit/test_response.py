"""Checks of an upstream's response, and how a body of aiohttp's breaks."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from handlers.body.upstream import Upstream
from handlers.errors import BadUpstream, BrokenTransfer
from handlers.rfc9110.ranges import Part, Spec
from handlers.sources.response import RawResponse, check_response, payload_reader

CHUNKED = {"transfer-encoding": " Chunked"}


def checked(
    status: int, headers: dict[str, str], spec: Spec | None = None, **options: Any
) -> Upstream:
    async def read() -> bytes:
        return b""

    response = RawResponse(status, headers, read, lambda: None)
    return check_response(response, spec, "store", **options)


@pytest.mark.parametrize(
    ("headers", "expected", "length"),
    [
        ({"content-length": "5"}, None, 5),
        ({"content-length": "5"}, 5, 5),
        ({"content-length": "005"}, 5, 5),
        ({"content-length": "0"}, 0, 0),
        (CHUNKED, None, None),
        (CHUNKED, 5, 5),
    ],
)
def test_length_that_is_stated_or_expected_is_returned(
    headers: dict[str, str], expected: int | None, length: int | None
) -> None:
    """Without a content-length, chunks show where the body ends."""
    assert checked(200, headers, total=expected).length == length


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-length": "5"}, 6),
        ({"content-length": "5"}, 0),
        ({"content-length": "+5"}, None),
        ({"content-length": ""}, None),
        ({"transfer-encoding": "xchunked"}, 5),
        ({}, 5),
        ({}, None),
    ],
)
def test_length_that_is_wrong_or_invisible_is_refused(
    headers: dict[str, str], expected: int | None
) -> None:
    """A closed connection alone does not show that a body has ended."""
    with pytest.raises(BadUpstream):
        checked(200, headers, total=expected)


def test_length_of_no_body_may_be_invisible() -> None:
    """The answer to a HEAD needs no framing, but a length it states must be the expected one."""
    upstream = checked(200, {}, has_body=False)
    assert (upstream.length, upstream.read) == (None, None)
    with pytest.raises(BadUpstream):
        checked(200, {"content-length": "5"}, total=6, has_body=False)


@pytest.mark.parametrize(
    ("spec", "stated", "total", "part"),
    [
        (Spec(0, 8), "bytes 0-8/1000", None, Part(0, 8)),
        (Spec(990, None), "bytes 990-999/1000", None, Part(990, 999)),
        (Spec(None, None, 10), "bytes 990-999/1000", 1000, Part(990, 999)),
        (Spec(0, 8), "bytes 0-8/*", 1000, Part(0, 8)),
        (Spec(0, 8), "bytes 0-8/*", None, None),
        (Spec(0, 8), "bytes 0-8/1001", 1000, None),
        (Spec(0, 8), "bytes 1-9/1000", None, None),
        (Spec(0, 8), "0-8/1000", None, None),
        (Spec(0, 8), "", None, None),
        (Spec(1000, None), "bytes 990-999/1000", None, None),
    ],
)
def test_content_range_is_the_requested_range(
    spec: Spec, stated: str, total: int | None, part: Part | None
) -> None:
    """Any other range, or an unknown or other length of the whole, is refused."""
    headers = {"content-range": stated, **CHUNKED}
    if part:
        upstream = checked(206, headers, spec, total=total)
        assert (upstream.part, upstream.total, upstream.length) == (part, 1000, part.length)
    else:
        with pytest.raises(BadUpstream):
            checked(206, headers, spec, total=total)


def test_length_of_another_part_is_refused() -> None:
    """A 206 has the bytes of its Content-Range, and no more or fewer."""
    headers = {"content-range": "bytes 0-8/1000", "content-length": "9"}
    assert checked(206, headers, Spec(0, 8)).length == 9
    with pytest.raises(BadUpstream):
        checked(206, {**headers, "content-length": "8"}, Spec(0, 8))


@pytest.mark.parametrize(("status", "spec"), [(206, None), (204, None), (304, Spec(0, 8))])
def test_other_status_is_refused(status: int, spec: Spec | None) -> None:
    """A body is a 200, or a 206 to a range."""
    headers = {"content-range": "bytes 0-8/1000", "content-length": "9"}
    with pytest.raises(BadUpstream):
        checked(status, headers, spec)


def test_whole_instead_of_a_range_is_no_part() -> None:
    """A 200 to a range is the whole, of the expected length."""
    upstream = checked(200, {"content-length": "1000"}, Spec(0, 8), total=1000)
    assert (upstream.part, upstream.total, upstream.length) == (None, None, 1000)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (aiohttp.ClientPayloadError(), "truncated"),
        (ConnectionResetError(), "truncated"),
        (aiohttp.SocketTimeoutError(), "upstream_timeout"),
        (None, "upstream_timeout"),
    ],
)
async def test_payload_that_fails_or_hangs_is_broken(
    error: Exception | None, outcome: str
) -> None:
    """Errors of aiohttp become BrokenTransfer, and its read that waits for ever a timeout."""

    async def read() -> Any:
        if error:
            raise error
        await asyncio.sleep(60)

    with pytest.raises(BrokenTransfer) as caught:
        await payload_reader(read, 0.01, "upstream")()
    assert caught.value.outcome == outcome
    assert "upstream" in str(caught.value)


async def test_payload_with_a_bug_is_not_broken() -> None:
    """Other errors pass: they are not the upstream's."""

    async def read() -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await payload_reader(read, 1, "upstream")()
