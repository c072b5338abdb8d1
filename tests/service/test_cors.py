"""CORS by setting, on everything that is answered."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from handlers import image
from settings import Settings
from tests.support.components import Store
from tests.support.serving import RunningService, serving

ORIGIN = {"origin": "https://app.example"}


@pytest.fixture(scope="module")
def shared(store: Store) -> Generator[RunningService]:
    store.put("test/1/image.jpg", b"picture", ContentType="image/jpeg")
    settings = Settings(
        **store.settings, cors_origins=("https://app.example",), s3_metadata_headers=("owner",)
    )
    with serving(settings) as running:
        yield running


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


def test_unforeseen_error_can_be_read_too(
    shared: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 500 has the same headers: else the page sees a network error instead."""

    def mistake(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(image, "parse_task_id", mistake)
    answer = shared.get("/tasks/1/image", headers=ORIGIN)
    assert answer.status_code == 500
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
