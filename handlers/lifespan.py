"""The lifespan: opens the clients, puts them on the application's state, closes them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp
from starlette.applications import Starlette

from .body.checksums import verifies_all
from .body.read_ahead import Budget
from .download.admission import Admission
from .download.client_rate import TICK_SECONDS
from .runtime import Runtime, Serving
from .sources.pools import open_clients
from .sources.readiness import Readiness
from .sources.s3.botocore import S3Client
from .sources.s3.bucket import StoredObject

logger = logging.getLogger("downspout")


@dataclass(kw_only=True, slots=True)
class SharedLifespan:
    """Serves from the first entering to the last leaving: a host and a server may each enter."""

    runtime: Runtime
    s3: S3Client | None
    http: aiohttp.ClientSession | None
    _entered: int = 0
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def __call__(self, app: Starlette) -> AsyncIterator[None]:
        """Enter once more; Starlette calls this."""
        async with self._lock:
            if not self._entered:
                await self._stack.enter_async_context(self._serve(app))
            self._entered += 1
        try:
            yield
        finally:
            async with self._lock:
                self._entered -= 1
                if not self._entered:
                    await self._stack.aclose()

    @asynccontextmanager
    async def _serve(self, app: Starlette) -> AsyncIterator[None]:
        """Put the clients on `app.state` for as long as the application serves."""
        settings = self.runtime.settings
        if settings.verify_checksums and not verifies_all():
            logger.warning(
                "VERIFY_CHECKSUMS: the package awscrt is not installed; "
                "objects that have only CRC32C or CRC64NVME are sent unverified"
            )
        async with open_clients(settings, s3=self.s3, http=self.http) as clients:
            probe = StoredObject(clients.buckets.default, settings.s3_image_key.format(task_id=0))
            wait = min(settings.queue_timeout, settings.first_byte_timeout)
            serving = Serving(
                buckets=clients.buckets,
                http=clients.http,
                admission=Admission(settings.max_downloads, wait=wait),
                read_ahead=Budget(settings.read_ahead_bytes),
                readiness=Readiness(probe.probe),
            )
            app.state.s3, app.state.http = clients.s3, clients.http
            app.state.runtime = replace(self.runtime, serving=serving)
            watching = asyncio.create_task(self._watch(serving.admission))
            try:
                yield
            finally:
                # The clients close in a moment. A server has waited for the downloads before.
                await serving.admission.drain(0)
                watching.cancel()
                self.runtime.metrics.set_counts(0, 0)
                app.state.runtime = self.runtime
                del app.state.s3, app.state.http

    async def _watch(self, admission: Admission) -> None:
        """Look at the downloads once a second, and set the gauges that other workers add up.

        Not at every change, of which there may be thousands in a second.
        """
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.runtime.metrics.set_counts(*admission.counts())
            now = time.monotonic()
            for monitor in list(self.runtime.monitors):
                try:
                    monitor.tick(now)
                except Exception:  # The other downloads are looked at all the same.
                    logger.exception("watching a download")
