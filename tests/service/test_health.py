"""Health of the process and of the store."""

from __future__ import annotations

import pytest

from tests.support.components import Store, settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, ServiceWith, serving


def test_ready_before_a_real_store(service: RunningService) -> None:
    """A store that gives or denies objects in order is ready."""
    answer = service.get("/readyz")
    assert (answer.status_code, answer.text) == (200, "ready\n")
    assert service.request("HEAD", "/readyz").status_code == 200


def test_bucket_that_is_missing_is_not_ready(store: Store, service_with: ServiceWith) -> None:
    """A bucket that does not exist is found out by readiness, not by the first user."""
    service = service_with(store.url, s3_image_bucket="no-such-bucket")
    answer = service.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert "no-such-bucket" not in answer.text
    assert service.get("/healthz").text == "ok\n"


def test_health_never_asks_the_store(upstream: Misbehaving, troubled: RunningService) -> None:
    """Liveness is about this process alone."""
    assert troubled.get("/healthz").status_code == 200
    assert upstream.exchanges == []


@pytest.mark.parametrize(
    ("status", "code", "answered"),
    [
        (404, "NoSuchKey", 200),
        (403, "AccessDenied", 200),
        (404, "NoSuchBucket", 503),
        (403, "InvalidAccessKeyId", 503),
        (500, "InternalError", 503),
    ],
)
def test_readiness_is_what_a_download_would_meet(
    upstream: Misbehaving, status: int, code: str, answered: int
) -> None:
    """Denied or missing is in order for an object; a store that refuses our key is not."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.error(status, code)

    upstream.behaviour = refuse
    with serving(settings_for(upstream.url)) as service:
        assert service.get("/readyz").status_code == answered


def test_readiness_is_remembered_for_a_moment(upstream: Misbehaving) -> None:
    """A flood of probes is one request of the store's."""
    with serving(settings_for(upstream.url)) as service:
        for _ in range(20):
            assert service.get("/readyz").status_code == 200
    assert upstream.requests == ["HEAD /photos/test/0/image.jpg", "GET /photos/test/0/image.jpg"]


def test_ready_service_has_a_connection_to_the_store(upstream: Misbehaving) -> None:
    """The first download after readiness waits for no handshake."""

    async def giving(exchange: Exchange) -> None:
        await exchange.answer(200, b"picture", 'etag: "1"')

    upstream.behaviour = giving
    with serving(settings_for(upstream.url)) as service:
        assert service.get("/readyz").status_code == 200
        assert service.get("/tasks/1/image").content == b"picture"
    assert len({exchange.writer for exchange in upstream.exchanges}) == 1
