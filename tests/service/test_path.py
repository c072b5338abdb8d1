"""Numbers in paths: whatever is none is a 404, and nothing is a 500."""

from __future__ import annotations

import pytest

from tests.support.client import fetch
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService

NOT_NUMBERS = [
    "x",
    "-1",
    "+1",
    "1.0",
    "1_0",
    "0x1",
    "%D9%A3",  # an Arabic digit
    "%C2%B2",  # a superscript two, for which str.isdigit() is true
    "5%0A",
    "5%00",
    "%20",
    "..",
    "%2e%2e",
    "1%2F2",
    "%FF",
    "1;2",
]


@pytest.mark.parametrize("text", NOT_NUMBERS)
@pytest.mark.parametrize(
    "path", ["/tasks/{}/image", "/tasks/{}/bytes/5", "/tasks/1/bytes/{}", "/tasks/1/image{}"]
)
def test_what_is_no_number_is_not_found(
    upstream: Misbehaving, troubled: RunningService, path: str, text: str
) -> None:
    """Only ASCII digits are a number; anything else is a 404 that asks nothing of an upstream."""
    assert fetch(troubled.port, path.format(text)).status == 404
    assert upstream.exchanges == []


@pytest.mark.parametrize("digits", ["9" * 20, "9" * 4301, "9" * 60_000])
def test_number_too_long_is_not_found(
    upstream: Misbehaving, troubled: RunningService, digits: str
) -> None:
    """Thousands of digits are a 404, where int() would raise."""
    assert fetch(troubled.port, f"/tasks/{digits}/image").status == 404
    assert upstream.exchanges == []


@pytest.mark.parametrize("digits", ["0", "00", "7", "007", "9" * 19, "0" * 4301 + "7"])
def test_number_is_asked_for_as_it_is_written_plainly(
    upstream: Misbehaving, troubled: RunningService, digits: str
) -> None:
    """Leading zeros make no other task: one number is one object."""

    async def good(exchange: Exchange) -> None:
        await exchange.answer(200, b"x")

    upstream.behaviour = good
    assert fetch(troubled.port, f"/tasks/{digits}/image").status == 200
    plain = digits.lstrip("0") or "0"
    assert upstream.requests == [f"GET /photos/test/{plain}/image.jpg"]


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/1",
        "/tasks/1/image/",
        "/tasks/1/bytes",
        "/tasks/1/bytes/",
        "/tasks//image",
        "//tasks/1/image",
        "/healthz/",
        "/healthz%0A",
        "/nothing",
    ],
)
def test_unknown_path_is_a_problem(troubled: RunningService, path: str) -> None:
    """An unknown path is a 404 problem; no path is redirected to whatever Host was named."""
    received = fetch(troubled.port, path)
    assert received.status == 404
    assert received.headers["content-type"] == "application/problem+json"
    assert "location" not in received.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    "path", ["/tasks/1/image", "/tasks/1/bytes/5", "/healthz", "/readyz", "/"]
)
def test_other_methods_are_not_allowed(troubled: RunningService, path: str, method: str) -> None:
    """Downloads are got or headed: every other method is a 405 that names those two."""
    answer = troubled.request(method, path)
    assert answer.status_code == 405
    assert sorted(answer.headers["allow"].split(", ")) == ["GET", "HEAD"]
    assert answer.json()["status"] == 405
