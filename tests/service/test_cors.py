"""CORS headers, set by CORS_ORIGINS, on every response."""

from __future__ import annotations

from typing import Any

import pytest

from handlers import create_app
from tests.support.client import fetch
from tests.support.components import Store, settings_for
from tests.support.serving import RunningService, ServiceWith, serving_app

ORIGIN = {"origin": "https://app.example"}


CORS: dict[str, Any] = {
    "cors_origins": ("https://app.example",),
    "s3_metadata_headers": ("owner",),
}


@pytest.fixture
def cors_service(store: Store, service_with: ServiceWith) -> RunningService:
    store.put("test/1/image.jpg", b"picture", ContentType="image/jpeg")
    return service_with(store.url, **CORS)


def test_preflight_allows_authorization_header(cors_service: RunningService) -> None:
    """With access control, a page sends its token in the Authorization header."""
    preflight = {"access-control-request-method": "GET"}
    preflight["access-control-request-headers"] = "authorization,range"
    answer = cors_service.request("OPTIONS", "/tasks/1/image", headers={**ORIGIN, **preflight})
    assert answer.status_code == 200
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize("path", ["/tasks/1/image", "/tasks/404/image", "/nothing", "/healthz"])
def test_allowed_origin_gets_cors_headers(cors_service: RunningService, path: str) -> None:
    """Every response has the CORS headers, errors included."""
    headers = cors_service.get(path, headers=ORIGIN).headers
    assert headers["access-control-allow-origin"] == "https://app.example"
    assert "Origin" in headers["vary"]
    exposed = headers["access-control-expose-headers"].split(", ")
    assert {"content-range", "etag", "content-length", "accept-ranges"} <= set(exposed)
    assert "x-amz-meta-owner" in exposed


def test_internal_error_has_cors_headers(store: Store) -> None:
    """Without CORS headers on a 500, the page would see only a network error."""

    def mistake(task_id: int) -> str:
        raise ZeroDivisionError(task_id)

    app = create_app(settings_for(store.url, **CORS), locate=mistake)
    with serving_app(app) as port:
        answer = fetch(port, "/tasks/1/image", headers=ORIGIN)
    assert answer.status == 500
    assert answer.headers["access-control-allow-origin"] == "https://app.example"


def test_preflight_allows_range_and_conditional_headers(cors_service: RunningService) -> None:
    """A preflight allows the methods and headers of a download."""
    asked = "range, if-match, if-range, if-none-match, x-request-id"
    preflight = {
        **ORIGIN,
        "access-control-request-method": "GET",
        "access-control-request-headers": asked,
    }
    answer = cors_service.request("OPTIONS", "/tasks/1/image", headers=preflight)
    assert answer.status_code == 200
    assert "x-request-id" in answer.headers
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert set(asked.split(", ")) <= set(allowed)


def test_other_origin_gets_no_cors_headers(cors_service: RunningService) -> None:
    """A browser does not let a page of another origin read the response."""
    headers = cors_service.get(
        "/tasks/1/image", headers={"origin": "https://evil.example"}
    ).headers
    assert "access-control-allow-origin" not in headers


def test_missing_cors_origins_disables_cors(service: RunningService) -> None:
    """Without CORS_ORIGINS, no page of another origin may read the response."""
    headers = service.get("/healthz", headers=ORIGIN).headers
    assert "access-control-allow-origin" not in headers
