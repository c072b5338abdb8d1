"""OpenTelemetry spans, where its API is installed, by Starlette's own middleware."""

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

# Health checks and scrapes come every few seconds.
UNTRACED = (r"/(?:healthz|readyz|metrics)/?$",)

_QUERY = "downspout.query"


def traced(app: ASGIApp, **options: Any) -> ASGIApp:
    """Return `app` with a span for each request, or `app` itself without `opentelemetry-api`.

    The spans go to the process's tracer provider, unless `options` of the middleware name another.
    Under a host that traces with the same middleware, the span is the host's.
    """
    try:
        from starlette.middleware.opentelemetry import OpenTelemetryMiddleware  # noqa: PLC0415
    except ImportError:
        return app
    hidden = _WithoutQuery(app)
    hidden.middleware = OpenTelemetryMiddleware(
        hidden.with_query, excluded_urls=UNTRACED, **options
    )
    return hidden


class _WithoutQuery:
    """Hides the query from the tracing middleware: it may hold a signature.

    It changes the scope itself: in a copy, a host would not see the route that the router notes.
    """

    middleware: ASGIApp

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("starlette.opentelemetry"):
            await self._app(scope, receive, send)
            return
        scope[_QUERY], scope["query_string"] = scope["query_string"], b""
        try:
            await self.middleware(scope, receive, send)
        finally:
            scope["query_string"] = scope.pop(_QUERY, scope["query_string"])

    async def with_query(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve inside the span, with the query back in the scope."""
        scope["query_string"] = scope.pop(_QUERY)
        await self._app(scope, receive, send)
