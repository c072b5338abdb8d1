"""OpenTelemetry spans, where its API is installed, by Starlette's own middleware."""

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

# Health checks and scrapes come every few seconds.
UNTRACED = (r"/(?:healthz|readyz|metrics)/?$",)

_QUERY = "downspout.query"


def traced(app: ASGIApp, **options: Any) -> ASGIApp:
    """Return `app` with a span for each request, or `app` itself without `opentelemetry-api`.

    The spans go to the process's tracer provider, unless `options` of the middleware name another.
    Under a host that traces with the same middleware, the span is the host's. The middleware does
    not see the query, which may hold a signature.
    """
    try:
        from starlette.middleware.opentelemetry import OpenTelemetryMiddleware  # noqa: PLC0415
    except ImportError:
        return app

    async def with_query(scope: Scope, receive: Receive, send: Send) -> None:
        scope["query_string"] = scope.pop(_QUERY)
        await app(scope, receive, send)

    middleware = OpenTelemetryMiddleware(with_query, excluded_urls=UNTRACED, **options)

    async def without_query(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("starlette.opentelemetry"):
            await app(scope, receive, send)
            return
        # Not in a copy of the scope: a host would not see the route that the router notes.
        scope[_QUERY], scope["query_string"] = scope["query_string"], b""
        try:
            await middleware(scope, receive, send)
        finally:
            scope["query_string"] = scope.pop(_QUERY, scope["query_string"])

    return without_query
