"""Request ids: the client's X-Request-ID if it is valid, else a new one."""

import os
import re
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# UUIDs, ULIDs and W3C trace ids match; a text that could forge a log line does not.
SANE_REQUEST_ID = "[A-Za-z0-9._:-]{1,128}"
_KEY = "downspout.request_id"


@dataclass(slots=True)
class RequestId:
    """Pure ASGI middleware that gives every request an id and every answer its X-Request-ID."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, with its id in the scope and in the answer's headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        is_sane = re.fullmatch(SANE_REQUEST_ID, sent)
        scope[_KEY] = request_id = sent if is_sane else os.urandom(16).hex()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


def get_request_id(scope: Scope) -> str:
    """Return the id that `RequestId` gave to this request."""
    return str(scope[_KEY])
