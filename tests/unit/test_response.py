"""Checks of an upstream response, and errors of a body that aiohttp reads."""

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


def check(
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
        ({}, 5, 5),
        ({}, 0, 0),
    ],
)
def test_stated_or_expected_length_is_returned(
    headers: dict[str, str], expected: int | None, length: int | None
) -> None:
    """The length is the Content-Length or, where none is stated, the expected length."""
    assert check(200, headers, total=expected).length == length


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-length": "5"}, 6),
        ({"content-length": "5"}, 0),
        ({"content-length": "+5"}, None),
        ({"content-length": ""}, None),
        ({"transfer-encoding": "xchunked"}, 5),
        ({}, None),
    ],
)
def test_wrong_or_missing_length_raises_bad_upstream(
    headers: dict[str, str], expected: int | None
) -> None:
    """A wrong Content-Length, or a body whose end cannot be told, raises BadUpstream."""
    with pytest.raises(BadUpstream):
        check(200, headers, total=expected)


def test_head_answer_may_lack_a_length() -> None:
    """An answer to HEAD may lack Content-Length, but a stated length must be the expected one."""
    upstream = check(200, {}, has_body=False)
    assert (upstream.length, upstream.read) == (None, None)
    with pytest.raises(BadUpstream):
        check(200, {"content-length": "5"}, total=6, has_body=False)


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
def test_content_range_other_than_requested_raises_bad_upstream(
    spec: Spec, stated: str, total: int | None, part: Part | None
) -> None:
    """A Content-Range with another range, or with another or unknown length, raises."""
    headers = {"content-range": stated, **CHUNKED}
    if part:
        upstream = check(206, headers, spec, total=total)
        assert (upstream.part, upstream.total, upstream.length) == (part, 1000, part.length)
    else:
        with pytest.raises(BadUpstream):
            check(206, headers, spec, total=total)


def test_content_length_other_than_content_range_raises() -> None:
    """A 206 whose Content-Length differs from its Content-Range raises BadUpstream."""
    headers = {"content-range": "bytes 0-8/1000", "content-length": "9"}
    assert check(206, headers, Spec(0, 8)).length == 9
    with pytest.raises(BadUpstream):
        check(206, {**headers, "content-length": "8"}, Spec(0, 8))


@pytest.mark.parametrize(("status", "spec"), [(206, None), (204, None), (304, Spec(0, 8))])
def test_status_without_a_usable_body_raises(status: int, spec: Spec | None) -> None:
    """A status other than 200, or 206 to a range, raises BadUpstream."""
    headers = {"content-range": "bytes 0-8/1000", "content-length": "9"}
    with pytest.raises(BadUpstream):
        check(status, headers, spec)


def test_full_200_to_a_range_is_accepted() -> None:
    """A 200 to a range is accepted as the full object of the expected length."""
    upstream = check(200, {"content-length": "1000"}, Spec(0, 8), total=1000)
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
async def test_payload_error_or_silence_raises_broken_transfer(
    error: Exception | None, outcome: str
) -> None:
    """Payload errors of aiohttp and a read that hangs raise BrokenTransfer."""

    async def read() -> Any:
        if error:
            raise error
        await asyncio.sleep(60)

    with pytest.raises(BrokenTransfer) as caught:
        await payload_reader(read, 0.01, "upstream")()
    assert caught.value.outcome == outcome
    assert "upstream" in str(caught.value)


async def test_payload_with_unexpected_error_raises_it() -> None:
    """An error that is not a network error is raised unchanged."""

    async def read() -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await payload_reader(read, 1, "upstream")()
