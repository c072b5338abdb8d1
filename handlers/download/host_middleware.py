"""Workarounds for ASGI servers other than ours, and for a host's middleware."""

from contextlib import suppress
from http import HTTPStatus

import anyio
from starlette.types import Message, Scope, Send

from ..telemetry.request_id import get_caller

_IDENTITY = (b"content-encoding", b"identity")
_SERVERS = {"uvicorn", "hypercorn", "granian"}


def compatible_send(scope: Scope, send: Send) -> Send:
    """Return a `send` that sends bytes, not memoryviews, and keeps middleware from compressing.

    A compressed body would lose its Content-Length, keep the strong entity tag of the uncompressed
    bytes and, with some middleware, look complete after an error. Starlette's GZipMiddleware skips
    only answers with a Content-Encoding, so they get "identity" (RFC 9110, 8.4.1, disapproves),
    unless a server itself calls the application.
    """
    is_at_risk = not _is_called_by_server(scope) and any(
        name == b"accept-encoding" and value.strip() not in (b"", b"identity")
        for name, value in scope["headers"]
    )

    async def compatible(message: Message) -> None:
        if message["type"] == "http.response.start":
            if is_at_risk and _has_plain_body(message):
                message = {**message, "headers": [*message.get("headers", ()), _IDENTITY]}
        elif isinstance(message.get("body"), memoryview):
            message = {**message, "body": bytes(message["body"])}
        await send(message)

    return compatible


def _is_called_by_server(scope: Scope) -> bool:
    """Return whether a server itself calls the application, so nothing can compress answers.

    A middleware or host can change an answer only through a `send` of its own.
    """
    is_server = get_caller(scope).partition(".")[0] in _SERVERS
    return is_server and not scope["app"].user_middleware  # Added with `app.add_middleware`.


def _has_plain_body(start: Message) -> bool:
    if start["status"] not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return False
    return all(name.lower() != b"content-encoding" for name, _ in start.get("headers", ()))


async def break_visibly(send: Send, *, seconds: float = 1.0) -> None:
    """Make a host's BaseHTTPMiddleware (Starlette) raise, so that a broken body is cut.

    It would otherwise end the body as if complete. A second http.response.start makes it raise;
    without that middleware the server rejects the message. Waits at most `seconds`.
    """
    with suppress(Exception), anyio.move_on_after(seconds):
        await send({"type": "http.response.start", "status": 500, "headers": []})
