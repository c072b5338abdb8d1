"""Health of the process and of the store."""

from __future__ import annotations

import pytest

from tests.support.components import Store, settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, ServiceWith, serving


def test_readyz_with_real_store_returns_200(service: RunningService) -> None:
    """A store that returns or denies an object is ready."""
    answer = service.get("/readyz")
    assert (answer.status_code, answer.text) == (200, "ready\n")
    assert service.request("HEAD", "/readyz").status_code == 200


def test_readyz_with_missing_bucket_returns_503(store: Store, service_with: ServiceWith) -> None:
    """Readiness detects a missing bucket before the first user does."""
    service = service_with(store.url, s3_image_bucket="no-such-bucket")
    answer = service.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert "no-such-bucket" not in answer.text
    assert service.get("/healthz").text == "ok\n"


def test_healthz_sends_no_store_request(upstream: Misbehaving, troubled: RunningService) -> None:
    """Liveness depends on this process alone."""
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
def test_readyz_status_depends_on_store_error(
    upstream: Misbehaving, status: int, code: str, answered: int
) -> None:
    """A missing or denied object is ready; a missing bucket or an invalid key id is not."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.error(status, code)

    upstream.behaviour = refuse
    with serving(settings_for(upstream.url)) as service:
        assert service.get("/readyz").status_code == answered


def test_readyz_result_is_cached(upstream: Misbehaving) -> None:
    """Many probes in a row cost one check of the store."""
    with serving(settings_for(upstream.url)) as service:
        for _ in range(20):
            assert service.get("/readyz").status_code == 200
    assert upstream.requests == ["HEAD /photos/test/0/image.jpg", "GET /photos/test/0/image.jpg"]


def test_readyz_keeps_store_connection_for_first_download(upstream: Misbehaving) -> None:
    """The first download after readiness needs no handshake."""

    async def giving(exchange: Exchange) -> None:
        await exchange.answer(200, b"picture", 'etag: "1"')

    upstream.behaviour = giving
    with serving(settings_for(upstream.url)) as service:
        assert service.get("/readyz").status_code == 200
        assert service.get("/tasks/1/image").content == b"picture"
    assert len({exchange.writer for exchange in upstream.exchanges}) == 1
