"""Reasons that stop a download, with small ASGI applications."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers import create_app, drain
from handlers.download.scope import DownloadScope
from tests.support.components import settings_for


@pytest.fixture
async def app(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Starlette]:
    """Return an application within its lifespan."""
    caplog.set_level(logging.INFO, "downspout")
    app = create_app(settings_for("http://127.0.0.1:9"))
    async with app.router.lifespan_context(app):
        yield app


class Client:
    """A client that disconnects when `leaves` is set."""

    def __init__(self) -> None:
        self.leaves = anyio.Event()
        self.messages: list[Message] = []

    async def receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.messages.append(message)


async def serve(app: Starlette, application: ASGIApp, client: Client) -> None:
    """Serve one request to `application` as a download of `app`."""

    def refuse(scope: Scope, error: Exception) -> Response:
        raise AssertionError(error)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "app": app,
        "downspout.request_id": "x",
    }

    async def handler(_: Request) -> Any:
        return application

    download = DownloadScope(handler, source="s3", refuse=refuse)
    await download(scope, client.receive, client.send)


async def answer_all(send: Send) -> None:
    headers = [(b"content-length", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x", "more_body": False})


def disconnect(app: Starlette, client: Client, tasks: TaskGroup) -> None:
    client.leaves.set()


def start_drain(app: Starlette, client: Client, tasks: TaskGroup) -> None:
    tasks.start_soon(drain, app, 0)


@pytest.mark.parametrize("stop", [disconnect, start_drain])
async def test_stop_after_the_last_byte_cancels_nothing(
    app: Starlette,
    caplog: pytest.LogCaptureFixture,
    stop: Callable[[Starlette, Client, TaskGroup], None],
) -> None:
    """After the last byte, neither a disconnect nor a drain cancels the application."""
    client = Client()
    done: list[str] = []

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await answer_all(send)
        stop(app, client, tasks)
        await anyio.sleep(0.1)
        done.append("closed")

    async with anyio.create_task_group() as tasks:
        await serve(app, answering, client)
    assert done == ["closed"]
    assert "GET / 200 complete 1/1 bytes" in caplog.text


async def test_client_disconnect_before_the_last_byte_cancels(
    app: Starlette, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the last byte, a disconnect cancels the application."""
    client = Client()
    done: list[str] = []

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        client.leaves.set()
        await anyio.sleep(30)
        done.append("not cancelled")

    with anyio.fail_after(10):
        await serve(app, answering, client)
    assert not done
    assert "GET / 200 client_gone 1/? bytes" in caplog.text


async def test_application_that_swallows_cancellation_is_cancelled_again(
    app: Starlette, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that suppresses the cancellation is cancelled until it ends."""
    client = Client()
    cancelled: list[str] = []

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        client.leaves.set()
        for _ in range(2):
            try:
                await anyio.sleep(30)
            except anyio.get_cancelled_exc_class():
                cancelled.append("swallowed")
        await anyio.sleep(30)

    with anyio.fail_after(20):
        await serve(app, stubborn, client)
    assert cancelled == ["swallowed"] * 2
    assert "GET / - client_gone" in caplog.text
