"""Spans, by a stand-in for Starlette's middleware, whose package is hidden (conftest.py)."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers import create_app, sign_url
from handlers._tracing import traced

from .support.client import fetch
from .support.components import settings_for
from .support.misbehaving import Exchange, Misbehaving
from .support.serving import serving_app

KEY = "a:0123456789abcdef"


class StandIn:
    """What a span would have of a request, as Starlette's middleware collects it."""

    spans: list[dict[str, Any]]

    def __init__(self, app: ASGIApp, *, excluded_urls: tuple[str, ...]) -> None:
        self.app = app
        self.excluded_urls = excluded_urls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        url = str(Request(scope).url)
        try:
            await self.app(scope, receive, send)
        finally:
            route = scope.get("route")
            self.spans.append({"url": url, "route": route and route.path_format})


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The spans of applications that are made from now on."""
    module = ModuleType("starlette.middleware.opentelemetry")
    monkeypatch.setattr(StandIn, "spans", [], raising=False)
    module.OpenTelemetryMiddleware = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return StandIn.spans


def test_span_has_the_route_and_no_signature(
    upstream: Misbehaving, spans: list[dict[str, Any]]
) -> None:
    """A trace is seen by many: the query stays out of it, and still reaches the download."""

    async def five_bytes(exchange: Exchange) -> None:
        await exchange.answer(200, b"12345")

    upstream.behaviour = five_bytes
    app = create_app(settings_for(upstream.url, url_signing_keys=(KEY,)))
    with serving_app(app) as port:
        address = sign_url("/tasks/1/bytes/5?download=five", KEY, lifetime=60)
        answer = fetch(port, address)
    assert answer.body == b"12345"
    assert answer.headers["content-disposition"] == 'attachment; filename="five"'
    assert spans == [
        {"url": "http://downspout.test/tasks/1/bytes/5", "route": "/tasks/{task_id}/bytes/{size}"}
    ]


def test_without_the_package_nothing_is_traced() -> None:
    """Where opentelemetry-api is not installed there is no layer more."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    assert traced(app) is app
