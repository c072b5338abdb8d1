"""The scope of one download: pure ASGI middleware around the download routes."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import BrokenTransfer, DownloadError, Draining, QueryTooLong
from ..runtime import Runtime
from ..telemetry.observer import DownloadObserver
from ..telemetry.record import Record
from ..telemetry.request_id import get_request_id
from .admission import NoBulkSlot, Slot
from .client_rate import KERNEL, SERVER_ONLY, ClientRateGuard
from .connection import CONNECTION, Connection
from .handle import SCOPE_KEY, Download
from .host_middleware import break_visibly, compatible_send
from .interrupt import StrayCancellation
from .monitor import Monitor

# To parse as many parameters as a request can have takes a tenth of a second.
MAX_PARAMETERS = 100

Refuse = Callable[[Scope, DownloadError | HTTPException], Response]
"""Make the answer to a request that is refused."""


class DownloadScope:
    """Owns what a download opens, from before its handler to its end.

    A `finally` in the body's generator does not run when the client leaves before the first byte
    (the generator never started), nor while `send` waits (it is suspended at its `yield`); a
    background task does not run after an error. The exit stack here unwinds after the response's
    `__call__`, whatever happened in it.
    """

    def __init__(
        self, app: ASGIApp, *, source: str, refuse: Refuse, is_guarded: bool = True
    ) -> None:
        self.app = app
        self.source = source
        self.refuse = refuse
        self.is_guarded = is_guarded
        """Whether a request must be authorized."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one download; raise an error that must break the connection."""
        download = self._start(scope, receive, send)
        try:
            failure = await self._run(scope, download)
            failure = await self._conclude(scope, download, failure, send)
            if failure is not None:
                raise failure
        finally:
            # A traceback refers to this frame; a reference back would keep the last chunks alive.
            failure = None
            download.monitor.finish()

    def _start(self, scope: Scope, receive: Receive, send: Send) -> Download:
        runtime: Runtime = scope["app"].state.runtime
        settings = runtime.settings
        connection = _connection(scope)
        record = Record(
            method=scope["method"],
            path=scope["path"],
            route=getattr(scope.get("route"), "path", self.source),
            source=self.source,
            request_id=get_request_id(scope),
        )
        guard = ClientRateGuard(
            stall=settings.client_stall_timeout,
            min_rate=settings.client_min_rate,
            visibility=SERVER_ONLY if connection is None else KERNEL,
        )
        if connection is None or not connection.is_standalone:
            send = compatible_send(scope, send)
        monitor = Monitor(
            record, runtime.metrics, receive, send, guard=guard, connection=connection
        )
        return Download(
            runtime=runtime,
            monitor=monitor,
            observer=DownloadObserver(record, runtime.metrics),
            http_version=scope.get("http_version", "1.1"),
            is_private=not (self.is_guarded and runtime.access.is_open),
        )

    async def _run(self, scope: Scope, download: Download) -> Exception | None:
        """Serve the request under its monitor; return what it raised."""
        monitor, serving = download.monitor, download.runtime.serving
        if serving is not None:
            serving.watch.add(monitor)
        try:
            with monitor:
                await monitor.interrupt.run(self._serve(scope, download))
        except Exception as error:  # noqa: BLE001 - `_conclude` decides about it
            return error
        finally:
            if serving is not None:
                serving.watch.remove(monitor)
        return None

    async def _serve(self, scope: Scope, download: Download) -> None:
        """Authorize, admit and serve the request; answer a refusal with a problem document."""
        try:
            if self.is_guarded:
                await self._authorize(scope, download)
            await self._admit(scope, download)
        except (DownloadError, HTTPException) as error:
            if download.monitor.record.status:  # The answer has begun.
                raise
            await self._refuse(scope, download, error, download.monitor.send)

    async def _authorize(self, scope: Scope, download: Download) -> None:
        if scope.get("query_string", b"").count(b"&") > MAX_PARAMETERS:
            raise QueryTooLong
        if not download.runtime.access.is_open:
            await download.in_time(download.runtime.access.check(scope))

    async def _admit(self, scope: Scope, download: Download) -> None:
        """Serve the request with a slot, with a bulk slot where the answer turns out large."""
        slot = Slot(download.serving.admission, arrived=download.monitor.record.began)
        limit, client = download.runtime.client_limit, scope.get("client")
        counted = limit.acquire(client[0] if client else None)
        download.monitor.slot = slot
        try:
            try:
                await self._serve_with(slot, scope, download)
            except NoBulkSlot:
                # Nothing was sent. The slot is free and the upstream closed while it waits.
                await slot.wait_for_bulk()
                await self._serve_with(slot, scope, download)
        finally:
            slot.release_bulk()
            limit.release(counted)

    async def _serve_with(self, slot: Slot, scope: Scope, download: Download) -> None:
        monitor = download.monitor
        served = {
            **scope,
            SCOPE_KEY: download,
            # 2.4 promises that send raises once the client has left, as the monitor's does.
            # Starlette then starts no listener and no task group for each response.
            "asgi": {**scope.get("asgi", {}), "spec_version": "2.4"},
            # Starlette would answer the refusals of a handler; here `_serve` answers all of them.
            "starlette.exception_handlers": ({}, {}),
        }
        await slot.acquire(download)
        monitor.record.slot_seconds = time.monotonic() - monitor.record.began
        try:
            async with AsyncExitStack() as download.owner:
                await self.app(served, monitor.receive, monitor.send)
        finally:
            slot.release(download)

    async def _refuse(
        self, scope: Scope, download: Download, error: DownloadError | HTTPException, send: Send
    ) -> None:
        download.monitor.record.refuse(error)
        await self.refuse(scope, error)(scope, download.monitor.receive, send)

    async def _conclude(
        self, scope: Scope, download: Download, failure: Exception | None, send: Send
    ) -> Exception | None:
        """Record how the download ended; return the error that must break the connection."""
        record, reason = download.monitor.record, download.monitor.interrupt.reason
        if reason == "client_gone":
            return None
        if reason == "client_stalled":
            failure = BrokenTransfer(reason, "the client took too little")
        elif reason == "drained" and not record.status:
            # The monitor passes on no message of a stopped download, and so sees no status.
            record.status = Draining.status
            await self._refuse(scope, download, Draining(), send)
            return None
        elif reason == "drained":
            failure = BrokenTransfer(reason, "the process ends")
        elif isinstance(failure, StrayCancellation) and record.status:
            failure = BrokenTransfer("truncated", str(failure))
        if failure is None:
            return None
        record.error = failure
        record.outcome = failure.outcome if isinstance(failure, BrokenTransfer) else "failed"
        connection = _connection(scope)
        is_standalone = connection is not None and connection.is_standalone
        is_visible = reason == "client_stalled" or is_standalone
        if isinstance(failure, BrokenTransfer) and not is_visible:
            await break_visibly(send)
        return failure


def _connection(scope: Scope) -> Connection | None:
    connection: Connection | None = (scope.get("extensions") or {}).get(CONNECTION)
    return connection
