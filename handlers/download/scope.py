"""ASGI middleware around the download routes: authorizes, admits, closes, records."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import KW_ONLY, dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import BrokenTransfer, DownloadError, Draining, QueryTooLong
from ..runtime import Runtime
from ..telemetry.record import Record
from ..telemetry.request_id import get_request_id
from .admission import NoBulkSlot
from .client_rate import KERNEL, SERVER_ONLY, ClientRateGuard
from .handle import SCOPE_KEY, Download
from .host_middleware import break_visibly, compatible_send
from .interrupt import StrayCancellation
from .monitor import CONNECTION, Monitor

# Parsing the longest query string that servers accept would take a tenth of a second.
MAX_PARAMETERS = 100

STOPPED = {"client_stalled": "the client reads too slowly", "drained": "the process shuts down"}

Handler = Callable[[Request], Awaitable[Response]]
Refusal = DownloadError | HTTPException
Refuse = Callable[[Scope, Refusal], Response]
"""A function that returns the answer to a refused request."""


@dataclass(slots=True)
class DownloadScope:
    """Runs one download and, whatever happens, closes its upstream and writes its log line.

    A `finally` in the body's generator does not run if the client leaves before the first byte
    (the generator has not started) or while `send` waits (it is suspended at its `yield`), and a
    background task does not run after an error. So the download's exit stack closes everything
    here, after the response's `__call__`.
    """

    handler: Handler
    _: KW_ONLY
    source: str
    refuse: Refuse
    is_guarded: bool = True
    """Whether the access rule is checked; if not, the host's handler authorizes requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one download; raises an error for which the server must cut the connection."""
        download = self._start(scope, receive, send)
        failure: Exception | None = None
        try:
            try:
                await download.monitor.run(self._serve(scope, download), download.runtime.monitors)
            except Exception as error:  # noqa: BLE001 - `_conclude` decides about it
                failure = error
            failure = await self._conclude(scope, download, failure, send)
            if failure is not None:
                raise failure
        finally:
            # The traceback references this frame: a cycle, which would keep the last chunks alive.
            failure = None
            download.record.finish()

    def _start(self, scope: Scope, receive: Receive, send: Send) -> Download:
        runtime: Runtime = scope["app"].state.runtime
        connection = (scope.get("extensions") or {}).get(CONNECTION)
        record = Record(
            metrics=runtime.metrics,
            method=scope["method"],
            path=scope["path"],
            route=getattr(scope.get("route"), "path", self.source),
            source=self.source,
            request_id=get_request_id(scope),
        )
        stall, min_rate = runtime.settings.client_stall_timeout, runtime.settings.client_min_rate
        visibility = SERVER_ONLY if connection is None else KERNEL
        guard = ClientRateGuard(stall=stall, min_rate=min_rate, visibility=visibility)
        if connection is None or not connection.is_standalone:
            send = compatible_send(scope, send)
        monitor = Monitor(
            record=record, connection=connection, guard=guard, from_client=receive, to_client=send
        )
        return Download(
            runtime=runtime,
            record=record,
            monitor=monitor,
            http_version=scope.get("http_version", "1.1"),
            is_private=not (self.is_guarded and runtime.access.is_open),
        )

    async def _serve(self, scope: Scope, download: Download) -> None:
        """Authorize, admit and serve the request; answer a refusal with a problem document."""
        try:
            if self.is_guarded:
                await self._authorize(scope, download)
            await self._admit(scope, download)
        except (DownloadError, HTTPException) as error:
            if download.record.status or download.monitor.interrupt.reason:
                raise  # The answer has begun, or the download is stopped.
            await self._refuse(scope, download, error, download.monitor.send)

    async def _authorize(self, scope: Scope, download: Download) -> None:
        if scope.get("query_string", b"").count(b"&") > MAX_PARAMETERS:
            raise QueryTooLong
        access = download.runtime.access
        if not access.is_open:
            checking = access.check(scope, download.ask_application)
            await download.in_time(checking, is_upstream=False)

    async def _admit(self, scope: Scope, download: Download) -> None:
        """Serve the request with a slot, and with a bulk slot if the answer is large."""
        monitor, admission = download.monitor, download.serving.admission
        limit, client = download.runtime.client_limit, scope.get("client")
        counted = limit.acquire(client[0] if client else None)
        monitor.admission = admission
        until = download.record.began + admission.wait
        try:
            try:
                await self._serve_with_slot(scope, download, until)
            except NoBulkSlot:
                # Nothing was sent, the slot is released and the upstream closed: wait, start over.
                await admission.acquire_bulk(monitor, until)
                await self._serve_with_slot(scope, download, until)
        finally:
            admission.release_bulk(monitor)
            limit.release(counted)

    async def _serve_with_slot(self, scope: Scope, download: Download, until: float) -> None:
        monitor, record = download.monitor, download.record
        served = {
            **scope,
            SCOPE_KEY: download,
            # ASGI 2.4 promises that send raises once the client has left, as Monitor.send does.
            # Starlette then starts no listener and no task group for each response.
            "asgi": {**scope.get("asgi", {}), "spec_version": "2.4"},
        }
        admission = download.serving.admission
        await admission.acquire(monitor, until)
        record.slot_seconds = time.monotonic() - record.began
        try:
            async with AsyncExitStack() as download.owner:
                response = await self.handler(Request(served, monitor.receive, monitor.send))
                await response(served, monitor.receive, monitor.send)
        finally:
            admission.release(monitor)

    async def _refuse(self, scope: Scope, download: Download, error: Refusal, send: Send) -> None:
        download.record.refuse(error)
        await self.refuse(scope, error)(scope, download.monitor.receive, send)

    async def _conclude(
        self, scope: Scope, download: Download, failure: Exception | None, send: Send
    ) -> Exception | None:
        """Record how the download ended; return the error that must cut the connection."""
        record, reason = download.record, download.monitor.interrupt.reason
        if reason == "client_gone":
            return None
        if reason == "drained" and not record.status:
            # Monitor.send, which records the status, raises for a stopped download.
            record.status = Draining.status
            await self._refuse(scope, download, Draining(), send)
            return None
        if reason is not None:
            failure = BrokenTransfer(reason, STOPPED[reason])
        elif isinstance(failure, StrayCancellation) and record.status:
            failure = BrokenTransfer("truncated", str(failure))
        if failure is None:
            return None
        record.error = failure
        record.outcome = failure.outcome if isinstance(failure, BrokenTransfer) else "failed"
        connection = download.monitor.connection
        is_visible = connection is not None and connection.is_standalone
        if isinstance(failure, BrokenTransfer) and not is_visible and reason != "client_stalled":
            await break_visibly(send)
        return failure
