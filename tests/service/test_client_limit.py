"""How many downloads one client may have at once."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from urllib.parse import urlsplit

import httpx
import pytest

from handlers.download.client_limit import ClientLimit, client_network
from handlers.errors import ClientLimitReached
from tests.support.client import asked
from tests.support.components import Store
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import ServiceProcess, ServiceWith, wait_until


def test_client_has_as_many_as_allowed() -> None:
    """One more is turned away until one has ended; other clients are not concerned."""
    clients = ClientLimit(2)
    clients.acquire("192.0.2.1")
    second = clients.acquire("192.0.2.1")
    with pytest.raises(ClientLimitReached) as raised:
        clients.acquire("192.0.2.1")
    assert raised.value.headers == {"retry-after": "5"}
    clients.acquire("192.0.2.2")
    clients.release(second)
    clients.acquire("192.0.2.1")


def test_who_has_left_is_forgotten() -> None:
    """Addresses that have no download any more are not kept."""
    clients = ClientLimit(1)
    for number in range(1000):
        clients.release(clients.acquire(f"192.0.2.{number}"))
    assert not clients.counts


@pytest.mark.parametrize(("most", "address"), [(None, "192.0.2.1"), (1, None)])
def test_without_bound_or_address_nothing_is_counted(
    most: int | None, address: str | None
) -> None:
    """No bound, or no address to go by, is no reason to turn anybody away."""
    clients = ClientLimit(most)
    assert [clients.acquire(address) for _ in range(5)] == [None] * 5
    clients.release(None)
    assert not clients.counts


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::c000:201", "192.0.2.1"),
        ("64:ff9b:1::c000:201", "64:ff9b:1::/64"),
        ("testclient", "testclient"),
        ("no:address", "no:address"),
    ],
)
def test_client_of_an_address(address: str, client: str) -> None:
    """Of IPv6 it is the network: one customer has all of it."""
    assert client_network(address) == client


async def never_answers(exchange: Exchange) -> None:
    await exchange.hang()


async def gives_five_bytes(exchange: Exchange) -> None:
    await exchange.answer(200, b"12345")


@contextlib.contextmanager
def held(port: int, number: int) -> Generator[None]:
    """Keep so many downloads of ours waiting for their upstream."""
    with contextlib.ExitStack() as connections:
        for _ in range(number):
            connections.enter_context(asked(port, "/tasks/1/bytes/5"))
        yield


FORWARDED = {"x-forwarded-for": "198.51.100.7"}


def test_client_is_turned_away_and_another_is_not(
    upstream: Misbehaving, service_with: ServiceWith
) -> None:
    """Over the bound it is 429 with Retry-After; who a trusted proxy names is the client."""
    upstream.behaviour = never_answers
    service = service_with(max_downloads_per_client=2)
    with held(service.port, 2):
        wait_until(lambda: len(upstream.requests) == 2)
        refused = service.get("/tasks/1/bytes/5")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "5"
        assert refused.json()["type"] == "urn:downspout:problem:too-many-downloads-of-client"
        assert refused.json()["retryable"] is True
        assert "127.0.0.1" not in refused.text
        assert service.get("/healthz").status_code == 200
        upstream.behaviour = gives_five_bytes
        assert service.get("/tasks/1/bytes/5", headers=FORWARDED).status_code == 200
        assert len(upstream.requests) == 3
    wait_until(lambda: not service.app.state.runtime.client_limit.counts)
    assert service.get("/tasks/1/bytes/5").status_code == 200


def test_forwarded_address_of_a_stranger_is_not_believed(upstream: Misbehaving) -> None:
    """Who is no trusted proxy can't be another client by saying so."""
    upstream.behaviour = never_answers
    environ = {
        "S3_IMAGE_BUCKET": "photos",
        "AWS_REGION": "us-east-1",
        "BYTES_URL": upstream.url,
        "MAX_DOWNLOADS_PER_CLIENT": "1",
        "FORWARDED_ALLOW_IPS": "192.0.2.1",
    }
    with ServiceProcess(environ) as process:
        url = process.url()
        with held(urlsplit(url).port or 0, 1):
            wait_until(lambda: len(upstream.requests) == 1)
            refused = httpx.get(f"{url}/tasks/1/bytes/5", headers=FORWARDED, trust_env=False)
            assert refused.status_code == 429
        assert wait_until(lambda: process.saw("(127.0.0.1 has 1 downloads)"))
        [line] = [line for line in process.lines if "(127.0.0.1 has 1 downloads)" in line]
        assert "INFO downspout: GET /tasks/1/bytes/5 429 refused" in line


@pytest.mark.parametrize(
    ("environ", "warned"),
    [
        ({"HOST": "0.0.0.0"}, True),
        ({"HOST": "0.0.0.0", "FORWARDED_ALLOW_IPS": "10.0.0.0/8"}, False),
        ({}, False),
    ],
)
def test_bound_without_a_trusted_proxy_is_warned_of(
    store: Store, environ: dict[str, str], warned: bool
) -> None:
    """Where others reach the port there is a router before it, whose address is everybody's."""
    environ = {**store.environ, "MAX_DOWNLOADS_PER_CLIENT": "2", **environ}
    with ServiceProcess(environ) as process:
        wait_until(lambda: process.saw("listening on"))
        wait_until(lambda: process.saw("startup complete"))
        process.process.terminate()
        process.end()
        assert process.saw("behind a router all clients count as one") == warned
