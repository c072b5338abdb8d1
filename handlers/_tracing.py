"""Spans for OpenTelemetry, where its API is installed, by Starlette's own middleware."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

# Of what is asked every few seconds nobody wants a span.
UNTRACED = (r"/(?:healthz|readyz|metrics)/?$",)


def traced(app: ASGIApp) -> ASGIApp:
    """Return `app` with a span for each request; itself, where `opentelemetry-api` is not there.

    They go where the process has them go (its tracer provider). Under a host that traces by the
    same middleware, the span is the host's.
    """
    try:
        from starlette.middleware.opentelemetry import OpenTelemetryMiddleware  # noqa: PLC0415
    except ImportError:
        return app
    return _WithoutQuery(app, OpenTelemetryMiddleware)


class _WithoutQuery:
    """Hides the query from the middleware: a span would have it, and with it a signature."""

    def __init__(self, app: ASGIApp, middleware: type) -> None:
        self._app = app
        self._middleware: ASGIApp = middleware(self._with_query, excluded_urls=UNTRACED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Of its own, and one for both of them: the router leaves the route in it.
        hidden = {**scope, "query_string": b"", "downspout.query": scope["query_string"]}
        await self._middleware(hidden, receive, send)

    async def _with_query(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["query_string"] = scope.pop("downspout.query")
        await self._app(scope, receive, send)
