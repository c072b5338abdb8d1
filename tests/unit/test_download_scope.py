"""The scope of a download, as ASGI has it, around applications of a test's own."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from contextlib import AsyncExitStack, suppress
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from handlers.access.authorization import Access
from handlers.download.admission import Admission
from handlers.download.client_limit import ClientLimit
from handlers.download.scope import DownloadScope, in_time
from handlers.errors import BrokenTransfer, NoSlot, UpstreamTimeout
from handlers.telemetry.metrics import Metrics
from settings import Settings


def scope_of(app: Starlette) -> Scope:
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


@pytest.fixture
def app() -> Starlette:
    app = Starlette()
    app.state.admission = Admission(1, wait=0)
    app.state.metrics = Metrics()
    app.state.access = Access((), (), longest=0)
    app.state.client_limit = ClientLimit(None)
    app.state.settings = Settings(s3_image_bucket="photos")
    return app


async def ignore(message: Message) -> None:
    del message


async def nothing() -> Message:
    """Receive from a client that stays."""
    await anyio.sleep_forever()
    raise AssertionError


async def test_receive_tells_when_the_client_has_gone(app: Starlette) -> None:
    """An application that listens is told of the leaving once, and then ended."""
    told: list[str] = []
    gone = anyio.Event()

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        gone.set()
        told.append((await receive())["type"])
        await anyio.sleep_forever()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    await DownloadScope(listening, source="s3")(scope_of(app), receive, ignore)
    assert told == ["http.disconnect"]


async def test_send_raises_once_the_client_has_gone(app: Starlette) -> None:
    """As ASGI 2.4 has it, sending to a client that has gone is an OSError."""
    raised: list[type[BaseException]] = []

    async def sending(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        except OSError as error:
            raised.append(type(error))
            raise

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await DownloadScope(sending, source="s3")(scope_of(app), receive, ignore)
    assert raised == [ConnectionResetError]


async def test_what_is_owned_is_closed_after_the_response(app: Starlette) -> None:
    """What a handler gives to its owner outlives the handler, and not the response."""
    seen: list[str] = []

    async def owning(scope: Scope, receive: Receive, send: Send) -> None:
        owner: AsyncExitStack = scope["downspout.download"].owner
        owner.callback(seen.append, "closed")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        seen.append("sent")

    await DownloadScope(owning, source="s3")(scope_of(app), nothing, ignore)
    assert seen == ["sent", "closed"]


async def test_body_of_a_request_is_passed_over(app: Starlette) -> None:
    """A request with a body is no client that leaves."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.request", "body": b"", "more_body": False},
    ]
    sent: list[Message] = []

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.01)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await anyio.sleep_forever()
        raise AssertionError

    async def keep(message: Message) -> None:
        sent.append(message)

    await DownloadScope(answering, source="s3")(scope_of(app), receive, keep)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


async def test_budget_of_the_first_byte_is_one(app: Starlette) -> None:
    """What was waited for a place is not left for the upstream."""
    budget = app.state.settings.first_byte_timeout
    opened: list[str] = []

    async def opening(scope: Scope, receive: Receive, send: Send) -> None:
        scope["downspout.download"].record.begun -= budget - 0.05
        opened.append("in time")
        await in_time(Request(scope), anyio.sleep_forever())

    with pytest.raises(UpstreamTimeout), anyio.fail_after(budget / 2):
        await DownloadScope(opening, source="s3")(scope_of(app), nothing, ignore)
    assert opened == ["in time"]


async def test_silent_upstream_is_not_held_against_the_client(app: Starlette) -> None:
    """Only while something waits for the client is it too slow."""
    taken, has_more, taken_again = anyio.Event(), anyio.Event(), anyio.Event()
    takes = [taken, taken_again]
    downloads: list[Any] = []

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        downloads.append(scope["downspout.download"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await has_more.wait()
        await send({"type": "http.response.body", "body": b"y"})

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await takes.pop(0).wait()

    async with anyio.create_task_group() as tasks:
        scope = DownloadScope(answering, source="s3")
        tasks.start_soon(scope, scope_of(app), nothing, send)
        for now, event in ((0, taken), (1000, has_more), (2000, taken_again)):
            await anyio.wait_all_tasks_blocked()
            downloads[0].tick(now)
            event.set()
    assert downloads[0].record.outcome == "complete"


@pytest.mark.parametrize("leaves", [False, True])
async def test_place_for_long_downloads_is_given_back(app: Starlette, leaves: bool) -> None:
    """Also by one that gets it and then no place beside it, or whose client leaves then."""
    admission = app.state.admission = Admission(8, wait=0.3)
    others: list[Any] = [object() for _ in range(8)]
    for other in others[:7]:
        await admission.enter(other, 0)
        admission.try_acquire_bulk()

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Message:
        await anyio.sleep(0.1 if leaves else 60)
        return {"type": "http.disconnect"}

    async def download() -> None:
        with suppress(NoSlot):
            await DownloadScope(answering, source="s3")(scope_of(app), receive, ignore)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(download)
        await anyio.wait_all_tasks_blocked()
        await admission.enter(others[7], 0)
        admission.release_bulk()
    admission.try_acquire_bulk()
    assert not set(admission._living) - set(others)


@pytest.mark.parametrize("scope", [{}, {"extensions": None}, {"asgi": None}])
async def test_scope_may_have_less(app: Starlette, scope: dict[str, Any]) -> None:
    """Test clients send scopes without what ASGI lets them leave out."""
    sent: list[Message] = []

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def keep(message: Message) -> None:
        sent.append(message)

    given = {**scope_of(app), **scope}
    if given["asgi"] is None:
        del given["asgi"]
    await DownloadScope(answering, source="s3")(given, nothing, keep)
    assert len(sent) == 2


async def test_client_is_waited_for_at_the_head_of_an_answer_too(app: Starlette) -> None:
    """What waits may be a problem's head, behind the answers to many requests on a connection."""
    downloads: list[Any] = []

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        downloads.append(scope["downspout.download"])
        await send({"type": "http.response.start", "status": 404, "headers": []})

    async def send(message: Message) -> None:
        await anyio.sleep_forever()

    async def serve() -> None:
        with suppress(BrokenTransfer):
            await DownloadScope(answering, source="s3")(scope_of(app), nothing, send)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            for now in (0, 1000):
                await anyio.wait_all_tasks_blocked()
                downloads[0].tick(now)
    assert downloads[0].record.outcome == "client_stalled"


async def test_server_that_can_not_tell_of_its_client_has_lost_it(app: Starlette) -> None:
    """A receive that fails ends the download, and is no mistake of ours."""

    async def failing() -> Message:
        raise OSError

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    await DownloadScope(answering, source="s3")(scope_of(app), failing, ignore)


async def test_figures_that_can_not_be_written_cost_no_download(
    app: Starlette, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory of the metrics may be gone; the answer and its line in the log are not."""
    caplog.set_level(logging.INFO, "downspout")

    def failing(*_: object) -> None:
        raise OSError

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(app.state.metrics, "count", failing)
    await DownloadScope(answering, source="s3")(scope_of(app), nothing, ignore)
    assert "GET / 204 complete" in caplog.text


async def test_cancellation_by_the_server_is_passed_on(app: Starlette) -> None:
    """Only what we cancelled ourselves ends here; nothing of it is left on the task."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    serving = asyncio.create_task(
        DownloadScope(answering, source="s3")(scope_of(app), nothing, ignore)
    )
    await anyio.wait_all_tasks_blocked()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


@pytest.mark.parametrize("cancelled_before", [0, 1])
async def test_stopped_download_leaves_its_task_as_it_was(
    app: Starlette, cancelled_before: int
) -> None:
    """A host's own timeouts go on counting right, also in a task that has been cancelled once."""
    task = asyncio.current_task()
    assert task is not None
    for _ in range(cancelled_before):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        scope["downspout.download"].record.begun -= 1000
        await in_time(Request(scope), anyio.sleep_forever())

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(UpstreamTimeout):
        await DownloadScope(late, source="s3")(scope_of(app), nothing, ignore)
    await DownloadScope(listening, source="s3")(scope_of(app), receive, ignore)
    assert task.cancelling() == cancelled_before
    for _ in range(cancelled_before):
        task.uncancel()


async def test_client_that_leaves_when_the_time_is_up_has_left(app: Starlette) -> None:
    """Of two reasons to cancel in one turn of the loop, the client's is told."""
    records: list[Any] = []

    async def opening(scope: Scope, receive: Receive, send: Send) -> None:
        download = scope["downspout.download"]
        records.append(download.record)
        download.record.begun -= 1000
        asyncio.get_running_loop().call_soon(download._lose_client)
        await in_time(Request(scope), anyio.sleep_forever())

    await DownloadScope(opening, source="s3")(scope_of(app), nothing, ignore)
    assert records[0].outcome == "client_gone"


@pytest.mark.parametrize(("begun", "failure"), [(True, BrokenTransfer), (False, RuntimeError)])
async def test_cancellation_that_nobody_asked_for_is_a_failure(
    app: Starlette, begun: bool, failure: type[Exception]
) -> None:
    """It leaks out of something that was cancelled; what had been sent must not look whole."""

    async def leaking(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise asyncio.CancelledError

    with pytest.raises(failure):
        await DownloadScope(leaking, source="s3")(scope_of(app), nothing, ignore)


async def test_broken_download_keeps_nothing(app: Starlette) -> None:
    """Its frames, and the pieces in them, are gone with it, and wait for no collector."""

    class Piece:
        pass

    kept: list[weakref.ref[Piece]] = []

    async def breaking(scope: Scope, receive: Receive, send: Send) -> None:
        piece = Piece()
        kept.append(weakref.ref(piece))
        raise BrokenTransfer("truncated", "")

    gc.collect()
    gc.disable()
    try:
        with suppress(BrokenTransfer):
            await DownloadScope(breaking, source="s3")(scope_of(app), nothing, ignore)
        assert kept[0]() is None
    finally:
        gc.enable()
