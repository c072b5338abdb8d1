"""Checks of an upstream's response, and how a body of aiohttp's breaks."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from handlers.errors import BadUpstream, BrokenTransfer
from handlers.rfc9110.ranges import Part, Spec
from handlers.sources.response import check_content_range, check_length, payload_reader

CHUNKED = {"transfer-encoding": " Chunked"}


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
    assert check_length(headers, expected, source="store") == length


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
        check_length(headers, expected, source="store")


def test_length_of_no_body_may_be_invisible() -> None:
    """The answer to a HEAD needs no framing, but a length it states must be the expected one."""
    assert check_length({}, None, source="store", has_body=False) is None
    with pytest.raises(BadUpstream):
        check_length({"content-length": "5"}, 6, source="store", has_body=False)


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
    headers = {"content-range": stated}
    if part:
        expected = (part, 1000)
        assert check_content_range(headers, spec, source="store", total=total) == expected
    else:
        with pytest.raises(BadUpstream):
            check_content_range(headers, spec, source="store", total=total)


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
