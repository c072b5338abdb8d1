"""One request on a download route: what it owns, when it is over, and how it ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from typing import Literal
from urllib.parse import quote

import anyio
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._errors import Broken, BrokenTransfer, DownloadError, NoSlot, NotStarted, UpstreamTimeout
from ._healing import Healing
from ._request_id import request_id_of
from ._slots import Slots

logger = logging.getLogger("downspout")

Outcome = Broken | Literal["complete", "healed", "client_gone", "shed", "drained", "failed"]

_WHOLE = ("complete", "healed")

_KEY = "downspout.download"

MAX_LOGGED = 500  # characters of a path or of a reason: no line of the log is longer than a screen


class DownloadScope:
    """Pure ASGI middleware: owns what a download opens, from before its handler to its end.

    A `finally` in the body's generator is not run when the client leaves before the first byte
    (the generator was never started) nor while `send` waits (it is suspended at its `yield`);
    a background task is not run after an error. The exit stack here is unwound after the
    response's `__call__`, whatever happened in it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one download; raises what must break the connection."""
        download = _Download(scope, receive, send)
        try:
            async with download.owner:
                await download.run(self.app)
        finally:
            download.log()


def owner_of(request: Request) -> AsyncExitStack:
    """Return the exit stack that closes, after the last byte, what this request opens."""
    download: _Download = request.scope[_KEY]
    return download.owner


def healing_of(request: Request) -> Healing:
    """Return what makes the healers of this request's bodies, with its budget and its count."""
    download: _Download = request.scope[_KEY]
    most = request.app.state.settings.max_resumes
    return Healing(download.owner, most, download.count_resume)


def note_error(request: Request, error: DownloadError) -> None:
    """Let the line in the log say why this download was answered with a problem."""
    download: _Download | None = request.scope.get(_KEY)
    if download is not None:
        download.error = error


@contextmanager
def first_byte_deadline(seconds: float) -> Generator[None]:
    """Bound the opening of an upstream; raises UpstreamTimeout."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError as error:
        raise UpstreamTimeout(f"no answer within {seconds:g} s") from error


class _Download:
    """The messages of one download in both directions, watched and counted."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.owner = AsyncExitStack()
        self.error: Exception | None = None
        self.resumes = 0
        self._status = 0
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begun = time.monotonic()
        self._sent = 0
        self._expected = "?"
        # What it stays when the server cancels the request at the end of its grace.
        self._outcome: Outcome = "drained"
        self._over = anyio.Event()

    def count_resume(self) -> None:
        """Count that a body of this download was re-opened."""
        self.resumes += 1

    async def run(self, app: ASGIApp) -> None:
        """Run the application until its end or until the client has gone."""
        # 2.4 promises that send raises once the client has gone, which ours does; Starlette
        # then starts no listener and task group of its own for every response.
        asgi = {**self._scope["asgi"], "spec_version": "2.4"}
        scope = {**self._scope, "asgi": asgi, _KEY: self}
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, tasks.cancel_scope)
            try:
                await self._take_slot()
                await app(scope, self.receive, self.send)
            # Raised again outside of the task group, which would wrap it.
            except Exception as error:  # noqa: BLE001
                failure = error
            tasks.cancel_scope.cancel()
        self._conclude(failure)

    async def receive(self) -> Message:
        """Answer as a request without a body whose client has not gone."""
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass a message on; raises OSError once the client has gone."""
        # Cancellation alone may be late: when neither reading nor sending ever suspends, as on
        # uvloop with a fast upstream, 500 MB more were pulled for nobody.
        if self._over.is_set():
            raise ConnectionResetError("client gone")
        await self._send(message)
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._expected = _content_length(message)
        elif message["type"] == "http.response.body":
            self._sent += len(message.get("body", b""))
            if not message.get("more_body", False):
                self._outcome = "healed" if self.resumes else "complete"

    async def _take_slot(self) -> None:
        slots: Slots | None = getattr(self._scope["app"].state, "slots", None)
        if slots is None:
            raise NotStarted("enter the lifespan: " + NotStarted.detail)
        await slots.acquire()
        self.owner.callback(slots.release)

    async def _watch(self, running: anyio.CancelScope) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._outcome not in _WHOLE:
            self._outcome = "client_gone"
            self._over.set()
            running.cancel()

    def _conclude(self, failure: Exception | None) -> None:
        if self._outcome == "client_gone" or failure is None:
            return
        self.error = failure
        if isinstance(failure, BrokenTransfer):
            self._outcome = failure.outcome
        elif isinstance(failure, DownloadError):  # Turned away before its handler ran.
            self._status = failure.status
            self._outcome = "shed" if isinstance(failure, NoSlot) else "failed"
        else:
            self._outcome = "failed"
        raise failure

    def log(self) -> None:
        """Write the one line that says how the download ended; never the query string."""
        fine = self._outcome in _WHOLE or self._outcome == "client_gone"
        level = logging.INFO if fine else logging.WARNING
        level = max(level, getattr(self.error, "log_level", level))
        logger.log(
            level,
            "%s %s %s %s%s %d/%s bytes in %.3f s resumes=%d request_id=%s",
            self._scope["method"],
            quote(self._scope["path"])[:MAX_LOGGED],
            self._status or "-",
            self._outcome,
            f" ({_one_line(str(self.error))})" if self.error else "",
            self._sent,
            self._expected,
            time.monotonic() - self._begun,
            self.resumes,
            request_id_of(self._scope),
        )


def _one_line(text: str) -> str:
    """Return a text that can't be taken for another line of the log, nor fill it."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:MAX_LOGGED]


def _content_length(start: Message) -> str:
    for name, value in start.get("headers", ()):
        if name.lower() == b"content-length":
            return str(value, "latin-1")
    return "?"
