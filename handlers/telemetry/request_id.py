"""Request ids, and the headers that every answer of the application has."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# UUIDs, ULIDs and W3C trace ids match; a text that could forge a log line does not.
SANE_REQUEST_ID = "[A-Za-z0-9._:-]{1,128}"
_SANE = re.compile(SANE_REQUEST_ID.encode())
_KEY = "downspout.request_id"
_CALLER_KEY = "downspout.caller"


@dataclass(slots=True)
class RequestId:
    """Pure ASGI middleware that gives every request an id and every answer its X-Request-ID.

    The id is the client's X-Request-ID if that is valid, else a new one. While the application
    drains, every answer closes its connection, so that the client's next request goes to another
    process (RFC 9112, 9.6).
    """

    app: ASGIApp
    is_draining: Callable[[], bool]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, with its id in the scope and in the answer's headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = sent if _SANE.fullmatch(sent) else os.urandom(16).hex().encode()
        scope[_KEY] = request_id.decode()
        # Not `send` itself: uvicorn's `send` refers to the scope, so that would be a cycle.
        scope[_CALLER_KEY] = type(getattr(send, "__self__", None)).__module__

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [h for h in message.get("headers", ()) if h[0] != b"x-request-id"]
                headers.append((b"x-request-id", request_id))
                # HTTP/2 has no Connection header.
                if self.is_draining() and scope.get("http_version", "1.1").startswith("1"):
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_id)


def get_caller(scope: Scope) -> str:
    """Return the module of the class whose method is the `send` that the application got.

    A server's `send` is a method of the server's class. A middleware's or host's is a function.
    """
    return str(scope.get(_CALLER_KEY, ""))


def get_request_id(scope: Scope) -> str:
    """Return the id that `RequestId` gave to this request."""
    return str(scope[_KEY])
