"""AUTH_CACHE_SECONDS: which answers of the application are cached, for whom and how long."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import NamedTuple

import pytest

from tests.support.application import (
    IMAGE,
    PICTURE,
    allow,
    answer_privately,
    auth_url,
    send_picture,
)
from tests.support.client import fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving
from tests.support.serving import RunningService, serving

ADA = {"authorization": "Bearer of-ada", "cookie": "session=of-ada"}


@pytest.fixture
def service(upstream: Misbehaving, application: Misbehaving) -> Generator[RunningService]:
    """Run a service that has not asked the application yet, with a store that has every object."""
    upstream.behaviour = send_picture
    url = auth_url(application)
    with serving(settings_for(upstream.url, auth_url=url, auth_cache_seconds=60)) as running:
        yield running


class Download(NamedTuple):
    """A request of a download."""

    method: str = "GET"
    path: str = IMAGE
    headers: dict[str, str] = ADA

    def status(self, service: RunningService) -> int:
        return fetch(service.port, self.path, method=self.method, headers=self.headers).status


def test_yes_is_cached_for_the_same_request(
    service: RunningService, application: Misbehaving
) -> None:
    """The second request of the same client does not ask, and gets the same answer."""
    for _ in range(5):
        answer = fetch(service.port, IMAGE, headers=ADA)
        assert (answer.status, answer.body) == (200, PICTURE)
        assert answer.headers["cache-control"] == "private, max-age=9"
    assert len(application.requests) == 1


@pytest.mark.parametrize("name", ["x-request-id", "if-none-match", "user-agent", "accept"])
def test_headers_that_application_does_not_get_do_not_matter(
    service: RunningService, application: Misbehaving, name: str
) -> None:
    """A request that differs only in such a header is the same for the application."""
    for value in ("a", "b", '"c"'):
        assert Download(headers={**ADA, name: value}).status(service) == 200
    assert len(application.requests) == 1


def test_ranges_of_one_object_ask_once(service: RunningService, application: Misbehaving) -> None:
    """A player that requests a hundred ranges of a video asks once."""
    for unit in ("bytes=0-2", "bytes=0-2,", "lines=1-2"):
        assert Download(headers={**ADA, "range": unit}).status(service) in (200, 206)
    assert len(application.requests) == 1


ASKED_AGAIN = {
    "cookie": Download(headers={**ADA, "cookie": "session=of-grace"}),
    "cookie in other case": Download(headers={**ADA, "cookie": "session=of-Ada"}),
    "no cookie": Download(headers={"authorization": ADA["authorization"]}),
    "empty cookie": Download(headers={**ADA, "cookie": ""}),
    "authorization": Download(headers={**ADA, "authorization": "Bearer of-grace"}),
    "no authorization": Download(headers={"cookie": ADA["cookie"]}),
    "exchanged": Download(headers=dict(zip(ADA, reversed(ADA.values()), strict=True))),
    "neither": Download(headers={}),
    "method": Download(method="HEAD"),
    "task": Download(path="/tasks/8/image"),
    "other encoding": Download(path="/tasks/%37/image"),
    "query": Download(path=IMAGE + "?download"),
    "client": Download(headers={**ADA, "x-forwarded-for": "203.0.113.9"}),
    "scheme": Download(headers={**ADA, "x-forwarded-proto": "https"}),
}


@pytest.mark.parametrize("other", ASKED_AGAIN.values(), ids=ASKED_AGAIN)
def test_yes_is_not_cached_for_another_request(
    service: RunningService, application: Misbehaving, upstream: Misbehaving, other: Download
) -> None:
    """A request that differs in anything that the application sees is asked about again."""
    assert Download().status(service) == 200
    application.behaviour = answer_privately(403)
    assert other.status(service) == 403
    assert (len(application.requests), len(upstream.requests)) == (2, 1)
    assert Download().status(service) == 200
    assert len(application.requests) == 2


def test_yes_is_not_cached_for_another_host(
    service: RunningService, application: Misbehaving
) -> None:
    """An application may decide by the host that the client has requested."""
    for number, host in enumerate(("a.test", "b.test", "a.test:81", "a.test"), start=1):
        assert service.get(IMAGE, headers={**ADA, "host": host}).status_code == 200
        assert len(application.requests) == min(number, 3)


def test_yes_is_not_cached_for_other_order_of_repeated_headers(
    service: RunningService, application: Misbehaving
) -> None:
    """Applications differ in which of two Authorization headers they read."""
    lines = [("authorization", "Bearer a"), ("authorization", "Bearer b")]
    for headers in (lines, lines[::-1], lines[:1], lines[1:]):
        service.get(IMAGE, headers=headers)
    assert len(application.requests) == 4


def test_values_that_join_to_the_same_text_are_different_requests(
    service: RunningService, application: Misbehaving
) -> None:
    """The border between two values cannot be moved by a client."""
    pairs = [("a", "bc"), ("ab", "c"), ("a\tb", "c"), ("a", "b\tc"), ("a, b", "c"), ("a", "b, c")]
    for authorization, cookie in pairs:
        headers = {"authorization": authorization, "cookie": cookie}
        assert Download(headers=headers).status(service) == 200
    assert len(application.requests) == len(pairs)


async def close(exchange: Exchange) -> None:
    """Close the connection without an answer."""


async def hang(exchange: Exchange) -> None:
    await exchange.hang()


@pytest.mark.parametrize(
    ("no", "status"),
    [
        (answer_privately(401), 401),
        (answer_privately(403), 403),
        (answer_privately(302), 502),
        (answer_privately(500), 502),
        (close, 502),
    ],
)
def test_no_is_not_cached(
    service: RunningService, application: Misbehaving, no: Behaviour, status: int
) -> None:
    """A client that has just logged in, or whose application is up again, is not kept out."""
    check_no_is_not_cached(service, application, no, status)


def test_timeout_is_not_cached(upstream: Misbehaving, application: Misbehaving) -> None:
    """The application is asked again after it did not answer in time."""
    upstream.behaviour = send_picture
    url = auth_url(application)
    settings = settings_for(
        upstream.url, auth_url=url, auth_cache_seconds=60, first_byte_timeout=4.0
    )
    with serving(settings) as service:
        check_no_is_not_cached(service, application, hang, 504)


def check_no_is_not_cached(
    service: RunningService, application: Misbehaving, no: Behaviour, status: int
) -> None:
    """Let the application answer no, yes and no: only the yes may be cached."""
    application.behaviour = no
    assert Download().status(service) == status
    application.behaviour = allow
    assert Download().status(service) == 200
    application.behaviour = no
    assert Download().status(service) == 200
    assert Download(path="/tasks/8/image").status(service) == status


def test_yes_is_cached_without_its_object(
    service: RunningService, application: Misbehaving, upstream: Misbehaving
) -> None:
    """The application authorizes a request, whatever the store has."""
    upstream.behaviour = answer_privately(404)
    for _ in range(2):
        assert Download().status(service) == 404
    assert len(application.requests) == 1


def test_yes_expires_after_auth_cache_seconds(
    upstream: Misbehaving, application: Misbehaving
) -> None:
    """A request does not make its yes last longer, so that a logout works."""
    upstream.behaviour = send_picture
    settings = settings_for(upstream.url, auth_url=auth_url(application), auth_cache_seconds=1)
    with serving(settings) as service:
        begun = time.monotonic()
        status = Download().status(service)
        latest_expiry = time.monotonic() + 1
        application.behaviour = answer_privately(403)
        while time.monotonic() < begun + 1:  # `status` was received before the yes expired
            assert (status, len(application.requests)) == (200, 1)
            status = Download().status(service)
            time.sleep(0.1)
        time.sleep(max(latest_expiry - time.monotonic(), 0))
        before = len(application.requests)
        assert Download().status(service) == 403
    assert len(application.requests) == before + 1


def test_zero_auth_cache_seconds_asks_each_time(
    upstream: Misbehaving, application: Misbehaving
) -> None:
    """By default each request asks, also if the same one has just been let in."""
    upstream.behaviour = send_picture
    with serving(settings_for(upstream.url, auth_url=auth_url(application))) as service:
        for _ in range(3):
            assert Download().status(service) == 200
        application.behaviour = answer_privately(403)
        assert Download().status(service) == 403
    assert len(application.requests) == 4


def test_cached_yes_needs_no_application(
    service: RunningService, application: Misbehaving
) -> None:
    """An application that is down for a moment does not stop a player within its video."""
    assert Download().status(service) == 200
    application.behaviour = close
    assert Download(headers={**ADA, "range": "bytes=0-2"}).status(service) == 206
    assert Download(headers={}).status(service) == 502


def test_no_for_one_client_while_another_is_cached(
    service: RunningService, application: Misbehaving
) -> None:
    """A cached yes opens nothing for a client without its credentials."""

    async def decide(exchange: Exchange) -> None:
        is_ada = exchange.headers.get("cookie") == ADA["cookie"]
        await (allow if is_ada else answer_privately(401))(exchange)

    application.behaviour = decide
    for _ in range(3):
        assert Download().status(service) == 200
        assert Download(headers={}).status(service) == 401
        assert Download(headers={"cookie": "session=of-eve"}).status(service) == 401
    assert len(application.requests) == 1 + 3 + 3
