"""The application: its lifespan, its routes, its errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.datastructures import State
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from . import bytes as bytes_
from . import health, image, landing, metrics, openapi
from .access.authorization import Access, Authorize, Tokens
from .access.hooks import run_hook
from .answers.location import Locate
from .answers.problems import EXCEPTION_HANDLERS
from .body.checksums import verifies_all
from .body.read_ahead import Budget
from .download.admission import Admission
from .download.client_limit import ClientLimit
from .rfc9110.conditions import CONDITIONS
from .sources.pools import open_clients
from .sources.readiness import Readiness
from .sources.s3.bucket import StoredObject
from .telemetry.metrics import Metrics
from .telemetry.request_id import RequestId
from .telemetry.tracing import traced

if TYPE_CHECKING:
    import aiohttp
    from types_aiobotocore_s3 import S3Client

    from settings import Settings

logger = logging.getLogger("downspout")

# What a page's script may send and see beyond what browsers allow by themselves.
CORS_REQUEST_HEADERS = ("authorization", "range", "if-range", *CONDITIONS, "x-request-id")
CORS_RESPONSE_HEADERS = (
    "accept-ranges",
    "content-disposition",
    "content-length",
    "content-range",
    "etag",
    "repr-digest",
    "retry-after",
    "x-request-id",
)


# For `authorize` and `locate` where they are plain functions; made when there is need of them.
THREADS = 40


def create_app(
    settings: Settings,
    *,
    s3: S3Client | None = None,
    http: aiohttp.ClientSession | None = None,
    authorize: Authorize | None = None,
    locate: Locate | None = None,
) -> Starlette:
    """Return the application that serves by `settings`; several may live in one process.

    Its clients are opened and closed by its lifespan, which a server runs by itself and the
    host of a mounted application has to enter: `app.router.lifespan_context(app)`.

    `s3`, an entered client of aiobotocore, and `http`, a session of aiohttp, are its host's: it
    opens none of its own instead, and the host closes them, after the lifespan. What settings say
    of credentials, region, endpoint, TLS and pools of these does not hold then.

    `authorize` is called with each request of a download before anything else, and lets it in by
    returning true; a plain function is called in a thread. It may raise Starlette's HTTPException.
    Tokens and signed addresses let in all the same, where they are set.

    `locate` is called with the number of a task, and says where its image is: a key in the
    settings' bucket, a bucket and a key, or None for a 404; a plain function is called in a
    thread.
    """
    app = _Application(
        routes=[
            *image.routes,
            *bytes_.routes,
            *health.routes,
            *metrics.routes,
            *openapi.routes,
            *landing.routes,
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=_lifespan,
    )
    # A redirect would be to the Host that the request names, whoever's that is.
    app.router.redirect_slashes = False
    app.state.given = {"s3": s3, "http": http}
    app.state.locate = locate
    _set_state(app.state, settings, authorize)
    return app


def _set_state(state: State, settings: Settings, authorize: Authorize | None) -> None:
    """Put on the state what needs no lifespan."""
    state.settings = settings
    state.entered = LifespanRefCount()
    # Of our own: a host's functions that never return would take those of its other handlers.
    state.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="downspout")
    state.metrics = Metrics(settings.metrics_directory)
    state.metrics_tokens = Tokens(settings.metrics_tokens)
    state.access = Access(
        settings.access_tokens,
        settings.url_signing_keys,
        longest=settings.url_max_lifetime,
        authorize=authorize and partial(run_hook, authorize, state.threads),
    )
    state.client_limit = ClientLimit(settings.max_downloads_per_client)


async def drain(app: Starlette, grace: float | None = None) -> None:
    """Begin no more downloads; return when the running ones are over.

    Those that still run after `grace` seconds (`Settings.shutdown_grace`) are broken off, visibly.
    Readiness and new downloads are answered with 503 from now on. For who ends the process, to be
    called before the lifespan is left; outside of the lifespan there is nothing to drain.
    """
    admission: Admission | None = getattr(app.state, "admission", None)
    if admission is not None:
        await admission.drain(app.state.settings.shutdown_grace if grace is None else grace)


class _Application(Starlette):
    """Starlette, with what has to be on every answer outside of its own error handling."""

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        settings: Settings = self.state.settings
        if settings.cors_origins:
            metadata = (f"x-amz-meta-{name}" for name in settings.s3_metadata_headers)
            stack = CORSMiddleware(
                stack,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "HEAD"),
                allow_headers=CORS_REQUEST_HEADERS,
                expose_headers=(*CORS_RESPONSE_HEADERS, *metadata),
            )
        return RequestId(traced(stack))


@dataclass(slots=True)
class LifespanRefCount:
    """How often a lifespan is entered now, and what it has opened."""

    times: int = 0
    opened: AsyncExitStack = field(default_factory=AsyncExitStack)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Serve from the first entering to the last leaving: a host and a server may each enter it."""
    entered: LifespanRefCount = app.state.entered
    async with entered.changing:
        if not entered.times:
            await entered.opened.enter_async_context(_serving(app))
        entered.times += 1
    try:
        yield
    finally:
        async with entered.changing:
            entered.times -= 1
            if not entered.times:
                await entered.opened.aclose()


@asynccontextmanager
async def _serving(app: Starlette) -> AsyncIterator[None]:
    """Put the clients on `app.state` for as long as the application serves."""
    settings: Settings = app.state.settings
    if settings.verify_checksums and not verifies_all():
        logger.warning(
            "VERIFY_CHECKSUMS: the package awscrt is not installed; "
            "objects with CRC32C or CRC64NVME alone go out unverified"
        )
    async with open_clients(settings, **app.state.given) as clients:
        probe = StoredObject(
            clients.stores.default,
            settings.s3_image_key.format(task_id=0),
            settings.upstream_read_timeout,
        )
        admission = Admission(
            settings.max_downloads, wait=min(settings.queue_timeout, settings.first_byte_timeout)
        )
        opened = {
            "s3": clients.s3,
            "stores": clients.stores,
            "http": clients.http,
            "read_ahead": Budget(settings.read_ahead_bytes),
            "admission": admission,
            "readiness": Readiness(probe.probe),
        }
        for name, value in opened.items():
            setattr(app.state, name, value)
        looking_after = asyncio.create_task(
            admission.look_after(partial(metrics.show_counts, app.state))
        )
        try:
            yield
        finally:
            # Nothing is left to fetch with in a moment; a server has waited for them long before.
            await admission.drain(0)
            looking_after.cancel()
            app.state.metrics.show(0, 0)
            for name in opened:
                delattr(app.state, name)
