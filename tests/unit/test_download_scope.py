"""The download scope, around small ASGI applications."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from contextlib import suppress
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.answers.problems import refusal
from handlers.download.admission import Admission
from handlers.download.handle import Download
from handlers.download.scope import DownloadScope
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
    """A client that stays until `leave`, and keeps what it is sent."""

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
    scope = DownloadScope(application, source="s3", refuse=refusal)
    await scope(make_scope(app), client.receive, client.send)


async def sleep(scope: Scope, receive: Receive, send: Send) -> None:
    """Never answer."""
    await anyio.sleep_forever()


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without a body."""
    await send({**START, "status": 204})
    await send(EMPTY)


async def test_receive_when_the_client_leaves_returns_disconnect(app: Starlette) -> None:
    """An application that listens hears of it once, and is then cancelled."""
    heard: list[str] = []
    client = Client()

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        client.leave()
        heard.append((await receive())["type"])
        await anyio.sleep_forever()

    await download_from(listening, app, client)
    assert heard == ["http.disconnect"]


async def test_send_after_the_client_left_raises_oserror(app: Starlette) -> None:
    """ASGI 2.4 wants it so."""
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


async def test_owner_closes_after_the_response(app: Starlette) -> None:
    """The exit stack outlives the handler, and not the response."""
    seen: list[str] = []

    async def owning(scope: Scope, receive: Receive, send: Send) -> None:
        handle(scope).owner.callback(seen.append, "closed")
        await answer(scope, receive, send)
        seen.append("sent")

    await download_from(owning, app, Client())
    assert seen == ["sent", "closed"]


async def test_request_with_a_body_is_no_disconnect(app: Starlette) -> None:
    """The messages of a request's body are passed over."""
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
    """The time that passed before the slot is not left for the upstream."""
    limit = app.state.runtime.settings.first_byte_timeout
    client = Client()

    async def opening(scope: Scope, receive: Receive, send: Send) -> None:
        handle(scope).monitor.record.began -= limit - 0.05
        await handle(scope).in_time(anyio.sleep_forever())

    with anyio.fail_after(limit / 2):
        await download_from(opening, app, client)
    assert client.statuses == [504]


async def test_client_of_a_silent_upstream_is_not_stalled(app: Starlette) -> None:
    """A client is too slow only while a message waits for it."""
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
async def test_bulk_slot_of_a_download_without_a_slot_is_given_back(leaves: bool) -> None:
    """A download may get a bulk slot and then no slot, or its client may leave then."""
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
    admission.try_acquire_bulk(others[0])
    assert admission.counts() == (8, 0)
    assert client.statuses == ([] if leaves else [503])


@pytest.mark.parametrize("scope", [{}, {"extensions": None}, {"asgi": None}])
async def test_scope_without_optional_keys_is_served(app: Starlette, scope: Scope) -> None:
    """Test clients send scopes without the keys that ASGI lets them leave out."""
    client = Client()
    given = {**make_scope(app), **scope}
    if given["asgi"] is None:
        del given["asgi"]
    serve = DownloadScope(answer, source="s3", refuse=refusal)
    await serve(given, client.receive, client.send)
    assert client.statuses == [204]


@pytest.mark.parametrize("refused", [False, True])
async def test_client_that_stalls_at_the_head_is_given_up(app: Starlette, refused: bool) -> None:
    """The head may wait behind the answers to many requests on the connection, a problem's too."""
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


async def test_watch_ticks_a_download_that_waits_for_authorization() -> None:
    """A download is watched from its beginning, not only while it has a slot."""
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


async def test_receive_that_fails_counts_as_a_disconnect(app: Starlette) -> None:
    """A server that cannot tell of its client has lost it; that is no internal error."""

    class Failing(Client):
        async def receive(self) -> Message:
            raise OSError

    await download_from(sleep, app, Failing())


async def test_metrics_that_fail_cost_no_download(
    app: Starlette, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory of the metrics may be gone; the answer and its log line are not."""
    caplog.set_level(logging.INFO, "downspout")

    def failing(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(app.state.runtime.metrics, "downloads", failing)
    await download_from(answer, app, Client())
    assert "GET / 204 complete" in caplog.text


async def test_cancellation_by_the_server_is_passed_on(app: Starlette) -> None:
    """The scope takes back only its own cancellations."""
    serving = asyncio.create_task(download_from(sleep, app, Client()))
    await anyio.wait_all_tasks_blocked()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_task_that_was_cancelled_before_keeps_its_count(app: Starlette) -> None:
    """The timeouts of a host go on counting right, after a deadline and after a client left."""
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
async def test_client_that_leaves_at_the_deadline_is_gone(app: Starlette, first: str) -> None:
    """Of two reasons to cancel in one turn of the loop, the log names the client."""
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
async def test_stray_cancellation_is_a_failure(
    app: Starlette, begun: bool, failure: type[Exception]
) -> None:
    """A cancellation may leak out of a library; what was sent must not look whole."""

    async def leaking(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send(START)
        raise asyncio.CancelledError

    with pytest.raises(failure):
        await download_from(leaking, app, Client())


@pytest.mark.parametrize(
    ("error", "status"), [(NotFound(""), 404), (HTTPException(418, "tea"), 418)]
)
async def test_refusal_by_the_handler_is_a_problem(
    app: Starlette, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors of ours and Starlette's own are answered, logged and counted alike."""
    caplog.set_level(logging.INFO, "downspout")

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    client = Client()
    await download_from(refusing, app, client)
    assert client.statuses == [status]
    assert f"GET / {status} refused" in caplog.text


async def test_refusal_without_a_slot_has_the_same_headers_as_one_by_the_handler() -> None:
    """Whatever refuses a request, one function answers it."""

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


async def test_drain_before_the_answer_is_a_503(app: Starlette) -> None:
    """A download that has not begun to answer when the process ends is refused."""
    client = Client()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(download_from, sleep, app, client)
        await anyio.wait_all_tasks_blocked()
        await app.state.runtime.serving.admission.drain(0)
    assert client.statuses == [503]


async def test_error_after_the_start_of_an_answer_is_raised(app: Starlette) -> None:
    """A second answer cannot follow; the server has to cut the connection."""

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        raise NotFound

    client = Client()
    with pytest.raises(NotFound):
        await download_from(failing, app, client)
    assert client.statuses == [200]


async def test_broken_download_keeps_no_reference(app: Starlette) -> None:
    """Its frames, and the chunks in them, are freed with it, without the collector."""

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
