"""The maximum number of parallel downloads for each client."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from urllib.parse import urlsplit

import pytest

from tests.support.client import asked
from tests.support.components import Store
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import ServiceProcess, ServiceWith, http_get, wait_until


async def never_answers(exchange: Exchange) -> None:
    await exchange.hang()


async def sends_five_bytes(exchange: Exchange) -> None:
    await exchange.answer(200, b"12345")


@contextlib.contextmanager
def hold_downloads(port: int, number: int) -> Generator[None]:
    """Keep `number` downloads open that wait for the upstream."""
    with contextlib.ExitStack() as connections:
        for _ in range(number):
            connections.enter_context(asked(port, "/tasks/1/bytes/5"))
        yield


FORWARDED = {"x-forwarded-for": "198.51.100.7"}


def test_client_over_limit_returns_429_and_other_client_200(
    upstream: Misbehaving, service_with: ServiceWith
) -> None:
    """X-Forwarded-For of a trusted proxy names the other client."""
    upstream.behaviour = never_answers
    service = service_with(max_downloads_per_client=2)
    with hold_downloads(service.port, 2):
        wait_until(lambda: len(upstream.requests) == 2)
        refused = service.get("/tasks/1/bytes/5")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "5"
        assert refused.json()["type"] == "urn:downspout:problem:too-many-downloads-of-client"
        assert refused.json()["retryable"] is True
        assert "127.0.0.1" not in refused.text
        assert service.get("/healthz").status_code == 200
        upstream.behaviour = sends_five_bytes
        assert service.get("/tasks/1/bytes/5", headers=FORWARDED).status_code == 200
        assert len(upstream.requests) == 3
    wait_until(lambda: not service.app.state.runtime.client_limit.counts)
    assert service.get("/tasks/1/bytes/5").status_code == 200


def test_x_forwarded_for_of_untrusted_peer_is_ignored(upstream: Misbehaving) -> None:
    """A peer outside FORWARDED_ALLOW_IPS cannot pose as another client."""
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
        with hold_downloads(urlsplit(url).port or 0, 1):
            wait_until(lambda: len(upstream.requests) == 1)
            refused = http_get(f"{url}/tasks/1/bytes/5", headers=FORWARDED)
            assert refused.status_code == 429
        line = process.wait_for_line("(127.0.0.1 has 1 downloads)")
        assert "INFO downspout: GET /tasks/1/bytes/5 429 refused" in line


@pytest.mark.parametrize(
    ("environ", "warned"),
    [
        ({"HOST": "0.0.0.0"}, True),
        ({"HOST": "0.0.0.0", "FORWARDED_ALLOW_IPS": "10.0.0.0/8"}, False),
        ({}, False),
    ],
)
def test_client_limit_without_trusted_proxy_logs_warning(
    store: Store, environ: dict[str, str], warned: bool
) -> None:
    """Behind an untrusted router, all clients have the router's IP and count as one."""
    environ = {**store.environ, "MAX_DOWNLOADS_PER_CLIENT": "2", **environ}
    with ServiceProcess(environ) as process:
        process.wait_for_line("listening on")
        process.wait_for_line("startup complete")
        process.stop()
        assert process.saw("behind a router all clients count as one") == warned
