"""The ASGI lifespan: opens the S3 and HTTP clients at startup, closes them at shutdown."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp
from starlette.applications import Starlette

from .access.application import AuthApplication
from .body.checksums import find_awscrt
from .body.read_ahead import Budget
from .download.admission import Admission
from .download.client_rate import TICK_SECONDS
from .runtime import Runtime, Serving
from .sources.pools import open_clients
from .sources.readiness import Readiness
from .sources.s3.bucket import StoredObject
from .sources.s3.client import S3Client

logger = logging.getLogger("downspout")


@dataclass(kw_only=True, slots=True)
class SharedLifespan:
    """A lifespan that a host and a server may each enter; it ends when the last one leaves."""

    runtime: Runtime
    s3: S3Client | None
    http: aiohttp.ClientSession | None
    _entered: int = 0
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def __call__(self, app: Starlette) -> AsyncIterator[None]:
        """Open the clients at the first entry; close them when no entered context is left."""
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
        """Open the clients and put them on `app.state` until the lifespan ends."""
        settings = self.runtime.settings
        if settings.verify_checksums and find_awscrt() is None:
            logger.warning(
                "VERIFY_CHECKSUMS: the package awscrt is not installed; "
                "objects that have only CRC32C or CRC64NVME are sent unverified"
            )
        async with open_clients(settings, s3=self.s3, http=self.http) as clients:
            probe = StoredObject(clients.buckets.default, settings.s3_image_key.format(task_id=0))
            wait = min(settings.queue_timeout, settings.first_byte_timeout)
            auth_application: AuthApplication | None = None
            if clients.auth_endpoint:
                timeout = settings.first_byte_timeout / 2  # The other half is for the store.
                seconds = settings.auth_cache_seconds
                auth_application = AuthApplication(clients.auth_endpoint, timeout, seconds)
            serving = Serving(
                buckets=clients.buckets,
                http=clients.http,
                proxies=clients.proxies,
                auth_application=auth_application,
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
                # Stop all downloads before their clients close; DrainOnSignal has waited for them.
                await serving.admission.drain(0)
                watching.cancel()
                self.runtime.metrics.set_counts(0, 0)
                app.state.runtime = self.runtime
                del app.state.s3, app.state.http

    async def _watch(self, admission: Admission) -> None:
        """Check all clients and update the gauges, once a second as slots change too often."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.runtime.metrics.set_counts(*admission.counts())
            now = time.monotonic()
            for monitor in list(self.runtime.monitors):
                try:
                    monitor.tick(now)
                except Exception:  # Go on with the other downloads.
                    logger.exception("can't check whether a client is slow or gone")
