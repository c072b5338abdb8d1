"""The Download object that routes use: settings, clients, deadline, exit stack, policies."""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request
from starlette.types import Scope

from ..body.read_ahead import ReadAheadPolicy
from ..body.resume import MAX_SILENCE, BodyResumer
from ..body.retry import RetryPolicy
from ..errors import NotStarted, UpstreamTimeout
from ..runtime import Runtime, Serving
from ..telemetry.record import Record
from .admission import SMALL, NoBulkSlot
from .monitor import Monitor

SCOPE_KEY = "downspout.download"

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class Download:
    """One request on a download route, with its deadline and exit stack."""

    runtime: Runtime
    record: Record
    monitor: Monitor
    http_version: str
    is_private: bool
    """Whether shared caches must not keep the answer."""

    owner: AsyncExitStack = field(init=False)
    """The download's exit stack: closes its upstream after the last byte, or after an error."""

    @property
    def serving(self) -> Serving:
        """The S3 and HTTP clients and the limits; raises NotStarted outside of the lifespan."""
        if self.runtime.serving is None:
            raise NotStarted("enter the lifespan: " + NotStarted.detail)
        return self.runtime.serving

    @property
    def deadline(self) -> float:
        """When FIRST_BYTE_TIMEOUT ends for this request, as a time.monotonic()."""
        return self.record.began + self.runtime.settings.first_byte_timeout

    def try_acquire_bulk_slot(self) -> bool:
        """Take a bulk slot, which a small answer gives back; return False if none is free."""
        return self.serving.admission.try_acquire_bulk(self.monitor)

    def require_bulk_slot(self, length: int | None) -> None:
        """Take a bulk slot for a large body (None: of unknown length); raise NoBulkSlot if none.

        Call it before the upstream opens the body: a client that is turned away costs nothing.
        """
        if (length is None or length > SMALL) and not self.try_acquire_bulk_slot():
            raise NoBulkSlot

    async def in_time(self, work: Awaitable[T], *, is_upstream: bool = True) -> T:
        """Return the result of `work`; raises UpstreamTimeout at the deadline.

        If `is_upstream`, the metrics count the timeout as a failure of the upstream.
        """
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()) as timeout:
                return await work
        except TimeoutError as error:
            if not timeout.expired():
                raise
            if is_upstream:
                self.record.upstream_failed(error)
            limit = self.runtime.settings.first_byte_timeout
            raise UpstreamTimeout(f"no answer within FIRST_BYTE_TIMEOUT ({limit:g} s)") from error

    async def ask_application(self, scope: Scope) -> None:
        """Ask the application at AUTH_URL, if there is one; see `AuthApplication.check`."""
        if self.serving.auth_application:
            await self.serving.auth_application.check(scope)

    def retry_policy(self) -> RetryPolicy:
        """Return the policy for retrying upstream requests until the deadline."""
        return RetryPolicy(until=self.deadline, observer=self.record)

    def body_resumer(self) -> BodyResumer:
        """Return what resumes broken bodies, up to MAX_RESUMES times in a row without progress."""
        settings = self.runtime.settings
        # A silence is noticed after the read timeout; then there must be time for an attempt.
        silence = max(MAX_SILENCE, 2 * settings.upstream_read_timeout)
        return BodyResumer(self.owner, settings.max_resumes, self.record, silence)

    def read_ahead(self) -> ReadAheadPolicy:
        """Return the policy for reading a body ahead with READ_AHEAD_CONNECTIONS."""
        width = self.runtime.settings.read_ahead_connections
        return ReadAheadPolicy(self.serving.read_ahead, width, self.monitor.lag, self.record)


def get_download(request: Request) -> Download:
    """Return the Download that DownloadScope created for this request."""
    download: Download = request.scope[SCOPE_KEY]
    return download
