"""Calls an application in memory, as uvicorn calls it; thousands of requests take seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message


@dataclass
class Answer:
    """The answer to one request."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def make_scope(target: str, *, method: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the scope that uvicorn makes of a request target; `target` is ASCII."""
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "root_path": "",
        "query_string": query.encode("ascii"),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "extensions": {},
        "state": {},
    }


async def call(
    app: ASGIApp, target: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> Answer:
    """Send one request to `app`, whose lifespan is entered; return its answer."""
    answer = Answer()

    async def receive() -> Message:
        await asyncio.Event().wait()  # The client sends no body, and stays.
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await app(make_scope(target, method=method, headers=headers or {}), receive, send)
    return answer
