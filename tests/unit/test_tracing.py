"""The tracing middleware: the scope of a request, and a missing OpenTelemetry."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.telemetry.tracing import traced


async def never(*_: object) -> Any:
    raise AssertionError


async def test_scope_after_tracing_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracing middleware does not change the scope that a host's middleware sees."""

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["query_string"] == b"a=b"
        scope["route"] = "left here"
        raise ZeroDivisionError

    monkeypatch.setattr(trace, "get_tracer_provider", TracerProvider)
    scope = {"type": "http", "path": "/", "query_string": b"a=b", "headers": []}
    before = dict(scope)
    with pytest.raises(ZeroDivisionError):
        await traced(failing)(scope, never, never)
    assert scope == {**before, "route": "left here"}


async def test_process_without_tracer_provider_makes_no_spans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With opentelemetry-api alone requests skip the middleware; a provider may be set later."""
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append("starlette.opentelemetry" in scope)

    tracing = traced(app)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    await tracing(scope, never, never)
    monkeypatch.setattr(trace, "get_tracer_provider", TracerProvider)
    await tracing(scope, never, never)
    assert seen == [False, True]


def test_missing_opentelemetry_returns_the_app_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without opentelemetry-api, `traced` returns the application itself."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    monkeypatch.setitem(sys.modules, "starlette.middleware.opentelemetry", None)
    returned: ASGIApp = traced(app)
    assert returned is app
