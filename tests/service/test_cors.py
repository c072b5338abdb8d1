"""CORS by setting, on everything that is answered."""

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
def shared(store: Store, service_with: ServiceWith) -> RunningService:
    store.put("test/1/image.jpg", b"picture", ContentType="image/jpeg")
    return service_with(store.url, **CORS)


def test_page_may_send_a_token(shared: RunningService) -> None:
    """With access control, a page asks with the header that lets it in."""
    asking = {"access-control-request-method": "GET"}
    asking["access-control-request-headers"] = "authorization,range"
    answer = shared.request("OPTIONS", "/tasks/1/image", headers={**ORIGIN, **asking})
    assert answer.status_code == 200
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize("path", ["/tasks/1/image", "/tasks/404/image", "/nothing", "/healthz"])
def test_page_of_an_allowed_origin_may_read(shared: RunningService, path: str) -> None:
    """An allowed origin is named on every answer, errors included, with what it may see."""
    headers = shared.get(path, headers=ORIGIN).headers
    assert headers["access-control-allow-origin"] == "https://app.example"
    assert "Origin" in headers["vary"]
    exposed = headers["access-control-expose-headers"].split(", ")
    assert {"content-range", "etag", "content-length", "accept-ranges"} <= set(exposed)
    assert "x-amz-meta-owner" in exposed


def test_unforeseen_error_can_be_read_too(store: Store) -> None:
    """A 500 has the same headers: else the page sees a network error instead."""

    def mistake(task_id: int) -> str:
        raise ZeroDivisionError(task_id)

    app = create_app(settings_for(store.url, **CORS), locate=mistake)
    with serving_app(app) as port:
        answer = fetch(port, "/tasks/1/image", headers=ORIGIN)
    assert answer.status == 500
    assert answer.headers["access-control-allow-origin"] == "https://app.example"


def test_page_may_ask_for_ranges_and_conditions(shared: RunningService) -> None:
    """A preflight allows the methods and headers of a download."""
    asked = "range, if-match, if-range, if-none-match, x-request-id"
    preflight = {
        **ORIGIN,
        "access-control-request-method": "GET",
        "access-control-request-headers": asked,
    }
    answer = shared.request("OPTIONS", "/tasks/1/image", headers=preflight)
    assert answer.status_code == 200
    assert "x-request-id" in answer.headers
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert set(asked.split(", ")) <= set(allowed)


def test_other_origins_are_not_named(shared: RunningService) -> None:
    """A page of another origin gets nothing that lets it read."""
    headers = shared.get("/tasks/1/image", headers={"origin": "https://evil.example"}).headers
    assert "access-control-allow-origin" not in headers


def test_without_the_setting_there_is_no_cors(service: RunningService) -> None:
    """By default no page may read."""
    headers = service.get("/healthz", headers=ORIGIN).headers
    assert "access-control-allow-origin" not in headers
