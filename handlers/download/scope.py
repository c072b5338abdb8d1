"""One request on a download route: what it owns, when it is over, and how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias, TypeVar

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..access.authorization import Access
from ..body.read_ahead import Ahead
from ..body.resume import ResumePolicy
from ..body.retry import RetryPolicy
from ..errors import (
    BrokenTransfer,
    DownloadError,
    Draining,
    NoSlot,
    NotStarted,
    QueryTooLong,
    UpstreamTimeout,
)
from ..telemetry.metrics import Metrics
from ..telemetry.record import Outcome, Record
from ..telemetry.request_id import get_request_id
from .admission import SMALL, Admission, NoBulkSlot
from .client_limit import ClientLimit
from .client_rate import KERNEL, SERVER_ONLY, ClientRateGuard

logger = logging.getLogger("downspout")

_KEY = "downspout.download"

BREAK_SECONDS = 1.0

# To take apart as many as a request can have takes a tenth of a second.
MAX_PARAMETERS = 100

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

T = TypeVar("T")


class Connection(Protocol):
    """What a server may show of a request's connection, as the ASGI extension of that name."""

    on_lost: Callable[[], None] | None
    """Called when the connection is lost; of the request that runs."""

    def buffered(self) -> int:
        """Return how many bytes its client has not acknowledged."""

    def is_gone(self) -> bool:
        """Return whether its client has left."""

    def abort(self) -> None:
        """Close it at once, and forget them."""


CONNECTION = "downspout.connection"


class DownloadScope:
    """Pure ASGI middleware: owns what a download opens, from before its handler to its end.

    A `finally` in the body's generator is not run when the client leaves before the first byte
    (the generator was never started) nor while `send` waits (it is suspended at its `yield`);
    a background task is not run after an error. The exit stack here is unwound after the
    response's `__call__`, whatever happened in it.
    """

    def __init__(self, app: ASGIApp, *, source: str, guarded: bool = True) -> None:
        self.app = app
        self.source = source
        self.guarded = guarded
        """Whether it is asked who may download."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one download; raises what must break the connection."""
        download = _Download(scope, receive, send, source=self.source, guarded=self.guarded)
        try:
            await download.run(self.app)
        finally:
            download.end()


def owner_of(request: Request) -> AsyncExitStack:
    """Return the exit stack that closes, after the last byte, what this request opens."""
    return _download_of(request).owner


def resume_policy_of(request: Request) -> ResumePolicy:
    """Return what makes the healers of this request's bodies, with its budget and its count."""
    download = _download_of(request)
    most = request.app.state.settings.max_resumes
    return ResumePolicy(download.owner, most, download.count_resume, download.count_failure)


def ahead_of(request: Request) -> Ahead:
    """Return how far the bodies of this request may be read ahead."""
    state = request.app.state
    width: int = state.settings.read_ahead_connections
    return Ahead(state.read_ahead, width, _download_of(request).lag)


def retry_policy_of(request: Request) -> RetryPolicy:
    """Return how an upstream is asked for the first answer to this request."""
    download = _download_of(request)
    until = download.record.begun + request.app.state.settings.first_byte_timeout
    return RetryPolicy(until=until, on_failure=download.count_failure)


def note_error(request: Request, error: DownloadError | HTTPException) -> None:
    """Let the line in the log say why this download was answered with a problem."""
    if _KEY in request.scope:
        _download_of(request).record.error = error


async def in_time(request: Request, opening: Awaitable[T]) -> T:
    """Return what opens an upstream, in what is left of the first byte's budget for it.

    Raises UpstreamTimeout.
    """
    download = _download_of(request)
    return await download.in_time(opening, on_late=download.count_failure)


def is_private(request: Request) -> bool:
    """Return whether not everybody may have the answer.

    So it is in a host's own handlers, where nothing is known of that: they can say otherwise.
    """
    return _download_of(request).is_private


def _download_of(request: Request) -> _Download:
    download: _Download = request.scope[_KEY]
    return download


class _Download:
    """The messages of one download in both directions, watched and counted."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, source: str, guarded: bool
    ) -> None:
        self.owner: AsyncExitStack
        self.record = Record(
            method=scope["method"],
            path=scope["path"],
            route=getattr(scope.get("route"), "path", source),
            source=source,
            request_id=get_request_id(scope),
        )
        state = scope["app"].state
        self._admission: Admission | None = getattr(state, "admission", None)
        self._access: Access | None = state.access if guarded else None
        self._budget: float = state.settings.first_byte_timeout
        self.is_private = self._access is None or not self._access.is_open
        self._per_client: ClientLimit = state.client_limit
        self._metrics: Metrics = state.metrics
        self._connection: Connection | None = (scope.get("extensions") or {}).get(CONNECTION)
        self._pace = ClientRateGuard(
            stall=state.settings.client_stall_timeout,
            min_rate=state.settings.client_min_rate,
            sight=KERNEL if self._connection else SERVER_ONLY,
        )
        self._is_sending = False
        self._is_answered = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._counted = 0
        self._has_long_place = False
        self._stopped: Outcome | None = None
        self._loop = asyncio.get_running_loop()
        self._listeners: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[Any] | None = None
        """That of the application, as long as it runs."""

        self._cancels = self._cancels_before = 0
        self._is_late = False

    # What handlers tell...

    def count_resume(self) -> None:
        """Count that a body of this download was re-opened."""
        self.record.resumes += 1
        self._metrics.resumes.labels(self.record.route).inc()

    def count_failure(self, error: BaseException) -> None:
        """Count what went wrong with the upstream, mended or not; a missing object is no error."""
        kind = "upstream_timeout"  # of an attempt that was given no more time
        if isinstance(error, BrokenTransfer):
            kind = error.outcome
        elif isinstance(error, DownloadError):
            if error.log_level < logging.WARNING:
                return
            kind = error.kind.replace("-", "_")
        self._metrics.upstream_errors.labels(self.record.source, kind).inc()

    # Its life...

    async def run(self, app: ASGIApp) -> None:
        """Run the application until its end or until the download is stopped."""
        # No task group: it and its scopes would be a tenth of the time of a small download.
        task = self._task = asyncio.current_task()
        if task is None:
            raise RuntimeError("not in a task")
        self._cancels_before = task.cancelling()
        failure: Exception | None = None
        # Who sees the connection is told by it; others have to listen.
        listening = None if self._connection else self._loop.create_task(self._listen())
        if self._connection:
            self._connection.on_lost = self._lose_client
        try:
            await self._run_admitted(app)
        except Exception as error:  # noqa: BLE001 - raised again when all is closed
            failure = error
        except asyncio.CancelledError:
            if task.cancelling() > self._cancels_before + self._cancels:  # By the server, too.
                raise
            if not self._cancels:
                failure = self._stray_cancellation()
        finally:
            self._task = None
            for _ in range(self._cancels):
                task.uncancel()
            if listening:
                listening.cancel()
            elif self._connection and self._connection.on_lost == self._lose_client:
                self._connection.on_lost = None
        try:
            await self._conclude(failure)
        finally:
            del failure  # It has this frame in its traceback, and the last pieces in others.

    def _stray_cancellation(self) -> Exception:
        """Return the failure that a cancellation is which leaked out of something."""
        text = "cancelled by nobody"
        return BrokenTransfer("truncated", text) if self.record.status else RuntimeError(text)

    async def _run_admitted(self, app: ASGIApp) -> None:
        if self._access:
            if self._scope.get("query_string", b"").count(b"&") > MAX_PARAMETERS:
                raise QueryTooLong
            if not self._access.is_open:
                await self.in_time(self._access.check(Request(self._scope)))
        admission = self._admission
        if admission is None:
            raise self._not_started()
        client = self._scope.get("client")
        counted_as = self._per_client.enter(client[0] if client else None)
        try:
            await self._run_in_a_place(app, admission)
        finally:
            self._per_client.leave(counted_as)

    def _not_started(self) -> NotStarted:
        """Return the error of a host that forgets the lifespan, told of in full once."""
        state = self._scope["app"].state
        if getattr(state, "has_told_not_started", False):
            return NotStarted("its lifespan was not entered")
        state.has_told_not_started = True
        return NotStarted("enter the lifespan: " + NotStarted.detail)

    async def _run_in_a_place(self, app: ASGIApp, admission: Admission) -> None:
        until = self.record.begun + admission.wait
        try:
            await self._run_once(app, admission, until)
        except NoBulkSlot:
            # Its place is free again and its upstream closed while it waits; nothing was sent.
            await admission.acquire_bulk(until)
            self._has_long_place = True
            await self._run_once(app, admission, until)
        finally:
            if self._has_long_place:
                admission.release_bulk()

    async def _run_once(self, app: ASGIApp, admission: Admission, until: float) -> None:
        # 2.4 promises that send raises once the client has gone, which ours does; Starlette
        # then starts no listener and task group of its own for every response.
        asgi = {**self._scope.get("asgi", {}), "spec_version": "2.4"}
        scope = {**self._scope, "asgi": asgi, _KEY: self}
        await admission.enter(self, until)
        self.record.placed = time.monotonic() - self.record.begun
        try:
            async with AsyncExitStack() as self.owner:
                await app(scope, self.receive, self.send)
        finally:
            admission.leave(self)

    async def receive(self) -> Message:
        """Answer as a request without a body whose client has not gone."""
        if self._stopped is None:
            told = self._loop.create_future()
            self._listeners.append(told)
            await told
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass a message on; raises OSError once the client has gone."""
        # Cancellation alone may be late: when neither reading nor sending ever suspends, as on
        # uvloop with a fast upstream, 500 MB more were pulled for nobody.
        if self._stopped is not None:
            raise ConnectionResetError("client gone")
        record = self.record
        if message["type"] == "http.response.start":
            record.expected = _content_length(message)
            if not self._has_long_place and self._is_long(message["status"]):
                self._take_long_place()
            added = [record.timing(), *self._not_compressed(message)]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        elif self._connection is None and isinstance(message.get("body"), memoryview):
            # Only of our own server is it known to take what is not bytes.
            message = {**message, "body": bytes(message["body"])}
        self._is_sending = True
        await self._send(message)
        self._is_sending = False
        if message["type"] == "http.response.start":
            record.status = message["status"]
            record.first_byte = time.monotonic() - record.begun
            return
        record.sent += len(message.get("body", b""))
        if not message.get("more_body", False):
            self._is_answered = True
            record.outcome = self._outcome_of_all()

    def _outcome_of_all(self) -> Outcome:
        """Return how an answer ended of which all was handed over."""
        if isinstance(self.record.error, DownloadError | HTTPException):
            return _outcome_of_refusal(self.record.error)  # The answer is its problem document.
        return "resumed" if self.record.resumes else "complete"

    def _not_compressed(self, start: Message) -> RawHeaders:
        """Return what keeps a host's middleware from compressing a body; we have none ourselves.

        Compressed it would have no length, the strong entity tag of other bytes, and, within some
        middleware, a proper end where it broke. RFC 9110 would rather not see "identity" (8.4),
        but GZipMiddleware leaves alone nothing else than what has a coding.
        """
        if self._connection or start["status"] not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return []
        if not _takes_compressed(self._scope):
            return []
        if any(name.lower() == b"content-encoding" for name, _ in start.get("headers", ())):
            return []
        return [(b"content-encoding", b"identity")]

    def _is_long(self, status: int) -> bool:
        expected = self.record.expected
        if self.record.method == "HEAD":
            return False
        return status == HTTPStatus.OK if expected is None else expected > SMALL

    def _take_long_place(self) -> None:
        if self._admission is not None:
            self._admission.try_acquire_bulk()
            self._has_long_place = True

    # ...and its end.

    async def _listen(self) -> None:
        # A server that fails to say what its client does has lost it.
        with suppress(Exception):
            while (await self._receive())["type"] != "http.disconnect":
                pass
        self._lose_client()

    def _lose_client(self) -> None:
        self._stop("client_gone")

    def tick(self, now: float) -> None:
        """Count what has been sent, and give a client up that takes too little."""
        if self._stopped is not None:  # Something kept the cancellation for itself.
            self._cancel()
            return
        if self._connection and self._connection.is_gone():
            self._lose_client()
        self._count_sent()
        if not self._is_sending:
            self._pace.rest()
        elif self._pace.is_too_slow(self._taken(), now):
            self._stop("client_stalled")
            if self._connection:
                self._connection.abort()

    def _taken(self) -> int:
        """Return how much the client has taken, as well as that can be seen."""
        return self.record.sent - (self._connection.buffered() if self._connection else 0)

    def lag(self) -> int:
        """Return how many of the bytes sent the client may not have taken."""
        return self._connection.buffered() if self._connection else SERVER_ONLY.buffer

    def break_off(self) -> None:
        """End it visibly: the process ends."""
        self._stop("drained")

    def _stop(self, why: Outcome) -> None:
        if self._stopped is None and not self._is_answered and self._task is not None:
            self._stopped = self.record.outcome = why
            for listener in self._listeners:
                if not listener.done():
                    listener.set_result(None)
            # Not at once: who listens is told first.
            self._loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._cancels += 1
            self._task.cancel()

    async def in_time(
        self, waiting: Awaitable[T], *, on_late: Callable[[BaseException], None] = lambda _: None
    ) -> T:
        """Return what is waited for, in what is left of the first byte's budget.

        Raises UpstreamTimeout; before, `on_late` hears of it, since what was cancelled tells
        nothing.
        """
        timer = self.cancel_at(self.record.begun + self._budget)
        try:
            return await waiting
        except asyncio.CancelledError as error:
            if not self.is_late():
                raise
            on_late(error)
            raise UpstreamTimeout(f"no answer within {self._budget:g} s") from error
        finally:
            timer.cancel()

    def cancel_at(self, when: float) -> asyncio.TimerHandle:
        """Have the application cancelled then, by time.monotonic(), unless what is returned is."""
        # An asyncio.timeout would do, for three times the time; each download has one.
        return self._loop.call_later(max(when - time.monotonic(), 0), self._be_late)

    def _be_late(self) -> None:
        self._is_late = True
        self._cancel()

    def is_late(self) -> bool:
        """Return whether a cancellation is `cancel_at`'s alone; it is over then."""
        if not self._is_late or self._stopped or self._task is None:
            return False
        self._is_late = False
        self._cancels -= 1
        return self._task.uncancel() <= self._cancels_before

    async def _break_visibly(self) -> None:
        """Make Starlette's middleware of a base class fail, too, where a host has one.

        It ends the body properly before it raises what was raised here, and so would make a whole
        of a broken one; a message that can't follow has it fail before that. Other servers and
        middleware refuse it.
        """
        if self._connection is None and self.record.outcome != "client_stalled":
            with suppress(Exception), anyio.move_on_after(BREAK_SECONDS):
                await self._send({"type": "http.response.start", "status": 500, "headers": []})

    async def _conclude(self, failure: Exception | None) -> None:
        record = self.record
        if self._stopped == "client_gone":
            return
        if self._stopped == "client_stalled":
            failure = BrokenTransfer("client_stalled", "the client took too little")
        elif self._stopped == "drained":
            failure = (
                BrokenTransfer("drained", "the process ends") if record.status else Draining()
            )
        if failure is None:
            return
        record.error = failure
        if isinstance(failure, BrokenTransfer):
            record.outcome = failure.outcome
            await self._break_visibly()
        elif isinstance(failure, DownloadError | HTTPException):  # Before its handler ran.
            record.status = _status_of(failure)
            record.outcome = _outcome_of_refusal(failure)
        else:
            record.outcome = "failed"
        try:
            raise failure
        finally:
            del failure

    def end(self) -> None:
        """Tell how it ended."""
        self.record.log()
        self.record.error = None  # Nor does it keep the frames of what went wrong.
        try:
            self._count_sent()
            self._metrics.count(self.record)
        except OSError:  # The directory that workers share may fail; the answer must not.
            logger.exception("metrics")

    def _count_sent(self) -> None:
        sent, self._counted = self.record.sent - self._counted, self.record.sent
        if sent:
            self._metrics.count_sent(self.record.route, sent)


def _takes_compressed(scope: Scope) -> bool:
    return any(
        name == b"accept-encoding" and value.strip() not in (b"", b"identity")
        for name, value in scope["headers"]
    )


def _outcome_of_refusal(failure: DownloadError | HTTPException) -> Outcome:
    if isinstance(failure, NoSlot | Draining):
        return "shed"
    return "failed" if _status_of(failure) >= HTTPStatus.INTERNAL_SERVER_ERROR else "refused"


def _status_of(failure: DownloadError | HTTPException) -> int:
    return failure.status if isinstance(failure, DownloadError) else failure.status_code


def _content_length(start: Message) -> int | None:
    for name, value in start.get("headers", ()):
        if name.lower() == b"content-length":
            return int(value)
    return None
