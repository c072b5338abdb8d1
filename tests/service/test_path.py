"""Numbers in paths: an invalid number is a 404, and no path is a 500."""

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
def test_invalid_number_in_path_returns_404(
    upstream: Misbehaving, troubled: RunningService, path: str, text: str
) -> None:
    """A number that has anything but ASCII digits is a 404 without an upstream request."""
    assert fetch(troubled.port, path.format(text)).status == 404
    assert upstream.exchanges == []


@pytest.mark.parametrize("digits", ["9" * 20, "9" * 4301, "9" * 60_000])
def test_number_with_too_many_digits_returns_404(
    upstream: Misbehaving, troubled: RunningService, digits: str
) -> None:
    """A number of 20 or more digits is a 404 without an upstream request."""
    assert fetch(troubled.port, f"/tasks/{digits}/image").status == 404
    assert upstream.exchanges == []


@pytest.mark.parametrize("digits", ["0", "00", "7", "007", "9" * 19, "0" * 4301 + "7"])
def test_leading_zeros_in_path_request_the_same_object(
    upstream: Misbehaving, troubled: RunningService, digits: str
) -> None:
    """Leading zeros in a task id do not change the object key."""

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
def test_unknown_path_returns_404_without_redirect(troubled: RunningService, path: str) -> None:
    """An unknown path is a 404 problem document, never a redirect."""
    received = fetch(troubled.port, path)
    assert received.status == 404
    assert received.headers["content-type"] == "application/problem+json"
    assert "location" not in received.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    "path", ["/tasks/1/image", "/tasks/1/bytes/5", "/healthz", "/readyz", "/"]
)
def test_method_other_than_get_and_head_returns_405(
    troubled: RunningService, path: str, method: str
) -> None:
    """Methods other than GET and HEAD get 405 with an Allow header."""
    answer = troubled.request(method, path)
    assert answer.status_code == 405
    assert sorted(answer.headers["allow"].split(", ")) == ["GET", "HEAD"]
    assert answer.json()["status"] == 405
