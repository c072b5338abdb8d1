"""Reasons that stop a download, and their log lines, on a real server."""

from __future__ import annotations

import asyncio
import logging

import pytest

from handlers import create_app
from tests.support.client import abort, ask, connect
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, serving_app, wait_until


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_hook_that_swallows_cancellation_is_cancelled_again(
    upstream: Misbehaving, caplog: pytest.LogCaptureFixture, http: str
) -> None:
    """A `locate` that suppresses CancelledError is cancelled again and gives its slot back."""
    caplog.set_level(logging.INFO, "downspout")
    swallowed: list[int] = []

    async def stubborn(task_id: int) -> str:
        while len(swallowed) < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed.append(task_id)
        await asyncio.sleep(60)
        return "key"

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, b"12345")

    upstream.behaviour = answer
    settings = settings_for(upstream.url, max_downloads=1, first_byte_timeout=60)
    app = create_app(settings, locate=stubborn)
    with serving_app(app, http=http) as port:
        client = connect(port)
        ask(client, "/tasks/1/image")
        wait_until(
            lambda: "downloads_running 1.0" in RunningService(app, port).get("/metrics").text
        )
        abort(client)
        wait_until(lambda: "GET /tasks/1/image - client_gone" in caplog.text, seconds=10)
        assert swallowed == [1, 1]
        assert RunningService(app, port).get("/tasks/1/bytes/5").content == b"12345"
