"""DownloadScope around small ASGI applications."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.answers.problems import refusal
from handlers.download.admission import Admission
from handlers.download.handle import Download
from handlers.download.scope import DownloadScope, Handler
from handlers.errors import BrokenTransfer, NoSlot, NotFound
from tests.support.runtime import app_with

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
EMPTY: Message = {"type": "http.response.body", "body": b""}


def make_scope(app: Starlette) -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "app": app,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "route": Route("/", lambda _: None),
        "downspout.request_id": "x",
    }


def handle(scope: Scope) -> Download:
    download: Download = scope["downspout.download"]
    return download


@pytest.fixture
def app() -> Starlette:
    return app_with(Admission(1, wait=0))


class Client:
    """A client that stays connected until `leave`, and records the messages it receives."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._left = anyio.Event()

    def leave(self) -> None:
        self._left.set()

    async def receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def statuses(self) -> list[int]:
        return [message["status"] for message in self.messages if "status" in message]


async def download_from(application: ASGIApp, app: Starlette, client: Client) -> None:
    scope = DownloadScope(handler_of(application), source="s3", refuse=refusal)
    await scope(make_scope(app), client.receive, client.send)


def handler_of(application: ASGIApp) -> Handler:
    """Return a handler whose response is `application`."""

    async def handler(_: Request) -> Any:
        return application

    return handler


async def sleep(scope: Scope, receive: Receive, send: Send) -> None:
    """Never answer."""
    await anyio.sleep_forever()


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without a body."""
    await send({**START, "status": 204})
    await send(EMPTY)


async def test_owner_holds_an_async_context_until_the_last_byte_is_sent(app: Starlette) -> None:
    """A handler may enter an async context on the download's AsyncExitStack."""
    client, messages_at_exit = Client(), []

    @asynccontextmanager
    async def upstream() -> AsyncIterator[None]:
        yield
        messages_at_exit.append(len(client.messages))

    async def entering(scope: Scope, receive: Receive, send: Send) -> None:
        await handle(scope).owner.enter_async_context(upstream())
        await answer(scope, receive, send)

    await download_from(entering, app, client)
    assert messages_at_exit == [2]


async def test_receive_after_client_disconnect_returns_disconnect(app: Starlette) -> None:
    """A waiting `receive` gets http.disconnect once, and then the application is cancelled."""
    heard: list[str] = []
    client = Client()

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        client.leave()
        heard.append((await receive())["type"])
        await anyio.sleep_forever()

    await download_from(listening, app, client)
    assert heard == ["http.disconnect"]


async def test_send_after_client_disconnect_raises_oserror(app: Starlette) -> None:
    """`send` after a disconnect raises OSError, as ASGI 2.4 requires."""
    raised: list[type[BaseException]] = []
    client = Client()
    client.leave()

    async def sending(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await send(START)
        except OSError as error:
            raised.append(type(error))
            raise

    await download_from(sending, app, client)
    assert raised == [ConnectionResetError]


async def test_owner_stack_closes_after_the_response(app: Starlette) -> None:
    """The download's exit stack closes after the response is sent."""
    seen: list[str] = []

    async def owning(scope: Scope, receive: Receive, send: Send) -> None:
        handle(scope).owner.callback(seen.append, "closed")
        await answer(scope, receive, send)
        seen.append("sent")

    await download_from(owning, app, Client())
    assert seen == ["sent", "closed"]


async def test_request_body_messages_are_skipped(app: Starlette) -> None:
    """The messages of a request body do not count as a disconnect."""
    messages: list[Message] = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.request", "body": b"", "more_body": False},
    ]

    class Uploading(Client):
        async def receive(self) -> Message:
            return messages.pop(0) if messages else await super().receive()

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.01)
        await answer(scope, receive, send)

    client = Uploading()
    await download_from(answering, app, client)
    assert client.statuses == [204]
    assert not messages


async def test_first_byte_timeout_includes_the_wait_for_a_slot(app: Starlette) -> None:
    """The time that a request waits for a slot counts toward FIRST_BYTE_TIMEOUT."""
    limit = app.state.runtime.settings.first_byte_timeout
    client = Client()

    async def opening(scope: Scope, receive: Receive, send: Send) -> None:
        handle(scope).monitor.record.began -= limit - 0.05
        await handle(scope).in_time(anyio.sleep_forever())

    with anyio.fail_after(limit / 2):
        await download_from(opening, app, client)
    assert client.statuses == [504]


async def test_client_of_silent_upstream_is_not_stalled(app: Starlette) -> None:
    """A client can be too slow only while a message waits for it."""
    taken, has_more, taken_again = anyio.Event(), anyio.Event(), anyio.Event()
    takes = [taken, taken_again]
    downloads: list[Download] = []

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        downloads.append(handle(scope))
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await has_more.wait()
        await send({"type": "http.response.body", "body": b"y"})

    class Slow(Client):
        async def send(self, message: Message) -> None:
            if message["type"] == "http.response.body":
                await takes.pop(0).wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(download_from, answering, app, Slow())
        for now, event in ((0, taken), (1000, has_more), (2000, taken_again)):
            await anyio.wait_all_tasks_blocked()
            downloads[0].monitor.tick(now)
            event.set()
    assert downloads[0].monitor.record.outcome == "complete"


@pytest.mark.parametrize("leaves", [False, True])
async def test_bulk_slot_without_slot_is_released(leaves: bool) -> None:
    """A download that gets a bulk slot and then no slot releases the bulk slot."""
    admission = Admission(8, wait=0.3)
    others: list[Any] = [object() for _ in range(8)]
    for other in others[:7]:
        await admission.acquire(other, 0)
        admission.try_acquire_bulk(other)

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)

    client = Client()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(download_from, answering, app_with(admission), client)
        await anyio.wait_all_tasks_blocked()
        await admission.acquire(others[7], 0)
        admission.release_bulk(others[0])
        if leaves:
            await anyio.wait_all_tasks_blocked()
            client.leave()
    assert admission.try_acquire_bulk(others[0])
    assert admission.counts() == (8, 0)
    assert client.statuses == ([] if leaves else [503])


@pytest.mark.parametrize("scope", [{}, {"extensions": None}, {"asgi": None}])
async def test_scope_without_optional_keys_is_served(app: Starlette, scope: Scope) -> None:
    """A scope without the keys that ASGI declares optional is served."""
    client = Client()
    given = {**make_scope(app), **scope}
    if given["asgi"] is None:
        del given["asgi"]
    serve = DownloadScope(handler_of(answer), source="s3", refuse=refusal)
    await serve(given, client.receive, client.send)
    assert client.statuses == [204]


@pytest.mark.parametrize("refused", [False, True])
async def test_client_stalling_at_the_head_is_stopped(app: Starlette, refused: bool) -> None:
    """A client that does not take the response head is stopped as client_stalled."""
    downloads: list[Download] = []

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        downloads.append(handle(scope))
        if refused:
            raise NotFound
        await send(START)

    class Stalled(Client):
        async def send(self, message: Message) -> None:
            await anyio.sleep_forever()

    async def serve() -> None:
        with suppress(BrokenTransfer):
            await download_from(answering, app, Stalled())

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            for now in (0, 1000):
                await anyio.wait_all_tasks_blocked()
                downloads[0].monitor.tick(now)
    assert downloads[0].monitor.record.outcome == "client_stalled"


async def test_download_waiting_for_authorize_is_monitored() -> None:
    """A download is monitored from its beginning until its end, not only while it has a slot."""
    asked = anyio.Event()

    async def authorize(_: object) -> bool:
        asked.set()
        await anyio.sleep_forever()
        return True

    app = app_with(Admission(1, wait=0), authorize=authorize)
    client = Client()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(download_from, answer, app, client)
        await asked.wait()
        assert len(app.state.runtime.monitors) == 1
        client.leave()
    assert len(app.state.runtime.monitors) == 0


async def test_failing_receive_counts_as_disconnect(app: Starlette) -> None:
    """An OSError from the server's `receive` counts as a disconnect."""

    class Failing(Client):
        async def receive(self) -> Message:
            raise OSError

    await download_from(sleep, app, Failing())


async def test_failing_metrics_do_not_fail_the_download(
    app: Starlette, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the metrics raise OSError, the answer and its log line are complete."""
    caplog.set_level(logging.INFO, "downspout")

    def failing(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(app.state.runtime.metrics, "downloads", failing)
    await download_from(answer, app, Client())
    assert "GET / 204 complete" in caplog.text


async def test_cancellation_by_the_server_is_raised(app: Starlette) -> None:
    """A cancellation by the server is raised, not suppressed."""
    serving = asyncio.create_task(download_from(sleep, app, Client()))
    await anyio.wait_all_tasks_blocked()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


@pytest.mark.skipif(
    sys.version_info < (3, 11, 4),
    reason="asyncio.timeout takes an earlier cancellation for one of its own (gh-102780)",
)
async def test_earlier_cancellation_of_the_task_keeps_its_count(app: Starlette) -> None:
    """`Task.cancelling()` is unchanged after a deadline and after a disconnect."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(1)

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        handle(scope).monitor.record.began -= 1000
        await handle(scope).in_time(anyio.sleep_forever())

    client = Client()
    await download_from(late, app, client)
    assert client.statuses == [504]
    client.leave()
    await download_from(sleep, app, client)
    assert task.cancelling() == 1
    task.uncancel()


@pytest.mark.parametrize("first", ["client", "deadline"])
async def test_client_disconnect_at_the_deadline_is_client_gone(
    app: Starlette, first: str
) -> None:
    """If a disconnect and a deadline come together, the outcome is client_gone."""
    records: list[Any] = []
    client = Client()

    async def opening(scope: Scope, receive: Receive, send: Send) -> None:
        monitor = handle(scope).monitor
        records.append(monitor.record)
        monitor.record.began -= 1000

        async def wait() -> None:
            if first == "deadline":
                asyncio.get_running_loop().call_soon(monitor.stop, "client_gone")
            await anyio.sleep_forever()

        if first == "client":
            asyncio.get_running_loop().call_soon(monitor.stop, "client_gone")
        await handle(scope).in_time(wait())

    await download_from(opening, app, client)
    assert records[0].outcome == "client_gone"
    assert client.statuses == []


@pytest.mark.parametrize(("begun", "failure"), [(True, BrokenTransfer), (False, RuntimeError)])
async def test_stray_cancellation_raises(
    app: Starlette, begun: bool, failure: type[Exception]
) -> None:
    """A CancelledError that a library raises becomes BrokenTransfer or RuntimeError."""

    async def leaking(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send(START)
        raise asyncio.CancelledError

    with pytest.raises(failure):
        await download_from(leaking, app, Client())


@pytest.mark.parametrize(
    ("error", "status"), [(NotFound(""), 404), (HTTPException(418, "tea"), 418)]
)
async def test_error_raised_by_the_handler_is_a_problem_response(
    app: Starlette, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors of this package and of Starlette are answered and logged in the same way."""
    caplog.set_level(logging.INFO, "downspout")

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    client = Client()
    await download_from(refusing, app, client)
    assert client.statuses == [status]
    assert f"GET / {status} refused" in caplog.text


async def test_503_without_slot_has_the_headers_of_a_handler_error() -> None:
    """A 503 without a slot has the headers and body of an error that the handler raises."""

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        raise NoSlot("full", retry_after=5)

    full, free = Client(), Client()
    admission = Admission(1, wait=0)
    await download_from(refusing, app_with(Admission(1, wait=0)), free)
    holder: Any = object()
    await admission.acquire(holder, 0)
    await download_from(answer, app_with(admission), full)
    names = [[name for name, _ in client.messages[0]["headers"]] for client in (full, free)]
    assert full.messages[1] == free.messages[1]
    assert names[0] == names[1]
    assert b"server-timing" in names[0]


async def test_drain_before_the_answer_returns_503(app: Starlette) -> None:
    """A download that has not started its answer when the grace ends gets a 503."""
    client = Client()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(download_from, sleep, app, client)
        await anyio.wait_all_tasks_blocked()
        await app.state.runtime.serving.admission.drain(0)
    assert client.statuses == [503]


async def test_error_after_response_start_is_raised(app: Starlette) -> None:
    """An error after http.response.start is raised to the server."""

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        raise NotFound

    client = Client()
    with pytest.raises(NotFound):
        await download_from(failing, app, client)
    assert client.statuses == [200]


async def test_broken_download_is_freed_without_garbage_collection(app: Starlette) -> None:
    """The frames of a broken download are freed without garbage collection."""

    class Chunk:
        pass

    kept: list[weakref.ref[Chunk]] = []

    async def breaking(scope: Scope, receive: Receive, send: Send) -> None:
        chunk = Chunk()
        kept.append(weakref.ref(chunk))
        raise BrokenTransfer("truncated", "")

    gc.collect()
    gc.disable()
    try:
        with suppress(BrokenTransfer):
            await download_from(breaking, app, Client())
        assert kept[0]() is None
    finally:
        gc.enable()
