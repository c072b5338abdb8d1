"""Spans, by Starlette's own middleware and OpenTelemetry's SDK."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.applications import Starlette
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.routing import Mount

from handlers import create_app, sign_url
from tests.support.behaviours import ends_short_of_its_length
from tests.support.client import fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import entering, serving, serving_app, wait_until

KEY = "a:0123456789abcdef"


class Spans:
    """A span exporter in memory, with its tracer provider."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def finished(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def wait_for_span(self) -> ReadableSpan:
        """Wait for the only span to end, and return it."""
        wait_until(self.finished)
        [span] = self.finished()
        return span


@pytest.fixture(scope="module")
def _spans() -> Generator[Spans]:
    """Make the process's tracer provider one that exports spans to memory."""
    spans = Spans()
    with pytest.MonkeyPatch.context() as patch:
        # set_tracer_provider works only once in a process, and cannot be undone.
        patch.setattr("opentelemetry.trace.get_tracer_provider", lambda: spans.provider)
        yield spans


@pytest.fixture
def spans(_spans: Spans) -> Spans:
    _spans.exporter.clear()
    return _spans


@pytest.fixture(scope="module")
def traced_port(_spans: Spans, _misbehaving: Misbehaving) -> Generator[int]:
    """Run the service with tracing and return its port."""
    with serving(settings_for(_misbehaving.url)) as service:
        yield service.port


async def five_bytes(exchange: Exchange) -> None:
    await exchange.answer(200, b"12345")


def span_attributes(span: ReadableSpan) -> Mapping[str, Any]:
    assert span.attributes is not None
    return span.attributes


def test_span_of_signed_url_has_route_and_no_signature(
    upstream: Misbehaving, spans: Spans
) -> None:
    """A span has the route and no query string."""
    upstream.behaviour = five_bytes
    with serving(settings_for(upstream.url, url_signing_keys=(KEY,))) as service:
        answer = fetch(service.port, sign_url("/tasks/1/bytes/5?download=five", KEY, lifetime=60))
    assert answer.body == b"12345"
    assert answer.headers["content-disposition"] == 'attachment; filename="five"'
    span = spans.wait_for_span()
    assert span.name == "GET /tasks/{task_id}/bytes/{size}"
    assert span_attributes(span)["http.response.status_code"] == 200
    assert "url.query" not in span_attributes(span)
    assert "signature" not in str(span_attributes(span))


def test_broken_transfer_marks_its_span_as_error(
    upstream: Misbehaving, traced_port: int, spans: Spans
) -> None:
    """A broken transfer gives its span an error type and the status ERROR."""
    upstream.behaviour = ends_short_of_its_length
    assert not fetch(traced_port, "/tasks/1/bytes/1024").whole
    span = spans.wait_for_span()
    assert span_attributes(span)["error.type"].endswith("BrokenTransfer")
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/metrics?x=1"])
def test_probe_request_has_no_span(traced_port: int, spans: Spans, path: str) -> None:
    """Requests to /healthz, /readyz and /metrics have no spans."""
    fetch(traced_port, path)
    fetch(traced_port, "/metrics-of-another-kind")
    assert spans.wait_for_span().name == "GET"


def test_host_with_tracing_has_one_span(upstream: Misbehaving, spans: Spans) -> None:
    """A host that traces has one span for a download, with the route in it."""
    upstream.behaviour = five_bytes
    downloads = create_app(settings_for(upstream.url))
    host = Starlette(routes=[Mount("/media", downloads)], lifespan=entering(downloads))
    with serving_app(OpenTelemetryMiddleware(host, tracer_provider=spans.provider)) as port:
        assert fetch(port, "/media/tasks/1/bytes/5").body == b"12345"
    assert (
        span_attributes(spans.wait_for_span())["http.route"]
        == "/media/tasks/{task_id}/bytes/{size}"
    )
