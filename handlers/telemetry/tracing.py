"""OpenTelemetry spans by Starlette's middleware, if `opentelemetry-api` is installed."""

from starlette.types import ASGIApp, Receive, Scope, Send

# No spans for health checks and metrics scrapes, which come every few seconds.
UNTRACED = (r"/(?:healthz|readyz|metrics)/?$",)

_QUERY = "downspout.query"


def traced(app: ASGIApp) -> ASGIApp:
    """Return `app` with a span for each request, or `app` itself without `opentelemetry-api`.

    Spans go to the process's tracer provider. No span is made while the process has none, nor if a
    host traces the request with the same middleware. The spans don't contain the query string,
    which may hold a signature.
    """
    try:
        from opentelemetry import trace  # noqa: PLC0415
        from starlette.middleware.opentelemetry import OpenTelemetryMiddleware  # noqa: PLC0415
    except ImportError:
        return app

    async def with_query(scope: Scope, receive: Receive, send: Send) -> None:
        scope["query_string"] = scope.pop(_QUERY)
        await app(scope, receive, send)

    middleware = OpenTelemetryMiddleware(with_query, excluded_urls=UNTRACED)

    async def without_query(scope: Scope, receive: Receive, send: Send) -> None:
        # The API's own provider discards spans, and making them takes a tenth of the time of a
        # small download. A process may set its provider at any time.
        is_untraced = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        if is_untraced or scope["type"] != "http" or scope.get("starlette.opentelemetry"):
            await app(scope, receive, send)
            return
        # Change the scope itself: in a copy, a host would not see the router's `route`.
        scope[_QUERY], scope["query_string"] = scope["query_string"], b""
        try:
            await middleware(scope, receive, send)
        finally:
            scope["query_string"] = scope.pop(_QUERY, scope["query_string"])

    return without_query
