"""The handle of one download: what routes and answers get to work with."""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request

from ..body.read_ahead import ReadAheadPolicy
from ..body.resume import ResumePolicy
from ..body.retry import RetryPolicy
from ..errors import NotStarted, UpstreamTimeout
from ..runtime import Runtime, Serving
from ..telemetry.record import Record
from .monitor import Monitor

SCOPE_KEY = "downspout.download"

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class Download:
    """One request on a download route: its means, its deadline, and what it owns."""

    runtime: Runtime
    record: Record
    monitor: Monitor
    http_version: str
    is_private: bool
    """Whether shared caches must not keep the answer."""

    owner: AsyncExitStack = field(init=False)
    """Closes, after the last byte, what the download opens."""

    @property
    def serving(self) -> Serving:
        """The clients and bounds of the entered lifespan. Raises NotStarted."""
        if self.runtime.serving is None:
            raise NotStarted("enter the lifespan: " + NotStarted.detail)
        return self.runtime.serving

    @property
    def deadline(self) -> float:
        """The end of FIRST_BYTE_TIMEOUT, as a time.monotonic()."""
        return self.record.began + self.runtime.settings.first_byte_timeout

    async def in_time(self, work: Awaitable[T], *, is_upstream: bool = True) -> T:
        """Return the result of `work` before the deadline, else raise UpstreamTimeout.

        `is_upstream` tells whether that counts as a failure of the upstream.
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
            raise UpstreamTimeout(f"no answer within {limit:g} s") from error

    def retry_policy(self) -> RetryPolicy:
        """Return how a request to an upstream is tried again before the answer begins."""
        return RetryPolicy(until=self.deadline, observer=self.record)

    def resume_policy(self) -> ResumePolicy:
        """Return how a broken body of this download is resumed."""
        return ResumePolicy(self.owner, self.runtime.settings.max_resumes, self.record)

    def read_ahead(self) -> ReadAheadPolicy:
        """Return how far a body of this download may be read ahead."""
        width = self.runtime.settings.read_ahead_connections
        return ReadAheadPolicy(self.serving.read_ahead, width, self.monitor.lag, self.record)


def get_download(request: Request) -> Download:
    """Return the handle that the download scope made for this request."""
    download: Download = request.scope[SCOPE_KEY]
    return download
