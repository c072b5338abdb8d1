"""Allowances for servers other than ours, and for middleware of a host around the application."""

from contextlib import suppress
from http import HTTPStatus

import anyio
from starlette.types import Message, Scope, Send

_IDENTITY = (b"content-encoding", b"identity")


def compatible_send(scope: Scope, send: Send) -> Send:
    """Return a `send` whose bodies are bytes and whose answers no middleware compresses.

    A compressed body would have no length, the strong entity tag of other bytes and, in some
    middleware, a proper end where it broke. RFC 9110 (8.4.1) reserves "identity" for
    Accept-Encoding, but Starlette's GZipMiddleware only leaves alone what has a coding.
    """
    is_at_risk = any(
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


def _has_plain_body(start: Message) -> bool:
    if start["status"] not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return False
    return all(name.lower() != b"content-encoding" for name, _ in start.get("headers", ()))


async def break_visibly(send: Send, *, seconds: float = 1.0) -> None:
    """Make Starlette's BaseHTTPMiddleware fail, if a host has it around us.

    It would end a broken body properly. A second start makes it fail first; servers refuse that.
    """
    with suppress(Exception), anyio.move_on_after(seconds):
        await send({"type": "http.response.start", "status": 500, "headers": []})
