"""The X-Request-ID header of an answer."""

from __future__ import annotations

from starlette.types import Message, Receive, Scope, Send

from handlers.telemetry.request_id import RequestId


async def test_request_id_of_mounted_app_is_replaced() -> None:
    """An answer has only one X-Request-ID header."""
    sent: list[Message] = []

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-request-id", b"theirs"), (b"etag", b'"1"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def keep(message: Message) -> None:
        sent.append(message)

    async def nothing() -> Message:
        raise AssertionError

    given = [(b"x-request-id", b"ours")]
    await RequestId(answering, lambda: False)({"type": "http", "headers": given}, nothing, keep)
    assert sent[0]["headers"] == [(b"etag", b'"1"'), (b"x-request-id", b"ours")]
