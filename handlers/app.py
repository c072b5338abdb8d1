"""The application: its routes, its middleware, and how it answers errors."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import aiohttp
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from . import bytes as bytes_
from . import health, image, landing, metrics, openapi
from .access.authorization import Access
from .access.hooks import Authorize, Locate, run_hook
from .answers.problems import EXCEPTION_HANDLERS
from .download.client_limit import ClientLimit
from .lifespan import SharedLifespan
from .rfc9110.conditions import CONDITIONS
from .runtime import Runtime, get_runtime
from .settings import Settings
from .sources.s3.botocore import S3Client
from .telemetry.metrics import Metrics
from .telemetry.request_id import RequestId
from .telemetry.tracing import traced

PAGES = (image, bytes_, health, metrics, openapi, landing)

# Headers that a page's script may send and see, beyond those that browsers always allow.
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

# For `authorize` and `locate` where they are plain functions; a pool of our own, because hooks
# that never return would take the threads of the host's other handlers. Started on demand.
THREADS = 40


def create_app(
    settings: Settings,
    *,
    s3: S3Client | None = None,
    http: aiohttp.ClientSession | None = None,
    authorize: Authorize | None = None,
    locate: Locate | None = None,
) -> Starlette:
    """Return an application that serves by `settings`; several may live in one process.

    A server runs its lifespan, which opens and closes the clients; a host that mounts the
    application enters `app.router.lifespan_context(app)`.

    `s3`, an entered client of aiobotocore, and `http`, a session of aiohttp, replace these
    clients; the host closes them, after the lifespan. The settings for credentials, region,
    endpoint, TLS and pools then have no effect.

    `authorize` is called with each request of a download; true authorizes it, as a valid token or
    signed URL does. It may raise Starlette's HTTPException. `locate` is called with the number of
    a task and returns where its image is: a key in the settings' bucket, a bucket and a key, or
    None for a 404. Both hooks may be async; a plain function runs in a thread.
    """
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="downspout")
    runtime = Runtime(
        settings=settings,
        access=Access(settings, authorize, threads),
        metrics=Metrics(settings.metrics_directory),
        client_limit=ClientLimit(settings.max_downloads_per_client),
        locate=locate and partial(run_hook, locate, threads),
    )
    return _Application(runtime, SharedLifespan(runtime=runtime, s3=s3, http=http))


async def drain(app: Starlette, grace: float | None = None) -> None:
    """Start no more downloads; return when the running ones have ended.

    After `grace` seconds (`Settings.shutdown_grace` by default) the remaining downloads are broken
    off, visibly. Readiness and new downloads get 503. Call it before the lifespan is left.
    """
    runtime = get_runtime(app)
    if runtime.serving is not None:
        limit = runtime.settings.shutdown_grace if grace is None else grace
        await runtime.serving.admission.drain(limit)


class _Application(Starlette):
    """Starlette, with middleware outside of Starlette's own error handling."""

    def __init__(self, runtime: Runtime, lifespan: SharedLifespan) -> None:
        routes = [route for page in PAGES for route in page.routes]
        super().__init__(routes=routes, exception_handlers=EXCEPTION_HANDLERS, lifespan=lifespan)
        # A redirect would go to the host that the request's Host header names.
        self.router.redirect_slashes = False
        self.state.runtime = runtime

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        settings = get_runtime(self).settings
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
