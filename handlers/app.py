"""The application: its routes, its middleware, and how it answers errors."""

from functools import partial

import aiohttp
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from .access.authorization import Access
from .access.daemon_threads import DaemonThreads
from .access.hooks import Authorize, Locate, run_hook
from .answers.path import ExactRoute
from .answers.problems import EXCEPTION_HANDLERS
from .bytes import stream_bytes
from .download.client_limit import ClientLimit
from .health import healthz, readyz
from .image import image
from .landing import landing
from .lifespan import SharedLifespan
from .metrics import metrics
from .objects import get_object
from .openapi import openapi
from .rfc9110.conditions import CONDITIONS
from .runtime import Runtime, get_runtime, is_draining
from .settings import Settings
from .sources.s3.client import S3Client
from .telemetry.metrics import Metrics
from .telemetry.request_id import RequestId
from .telemetry.tracing import traced

OBJECTS_ROUTE = ExactRoute("/objects/{key:path}", get_object, name="objects", source="s3")
ROUTES = (
    ExactRoute("/tasks/{task_id}/image", image, name="image", source="s3"),
    ExactRoute("/tasks/{task_id}/bytes/{size}", stream_bytes, name="bytes", source="http"),
    OBJECTS_ROUTE,
    ExactRoute("/healthz", healthz),
    ExactRoute("/readyz", readyz),
    ExactRoute("/metrics", metrics),
    ExactRoute("/openapi.json", openapi),
    ExactRoute("/", landing),
)

# Headers that another origin's script may send and read, beyond those that CORS always allows.
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

# Threads for `authorize` and `locate` if they are plain functions, started on demand. In the
# default pool, hooks that never return would take the threads of the host's other handlers.
THREADS = 40


def create_app(
    settings: Settings,
    *,
    s3: S3Client | None = None,
    http: aiohttp.ClientSession | None = None,
    authorize: Authorize | None = None,
    locate: Locate | None = None,
) -> Starlette:
    """Return an ASGI application with these settings; a process may have several.

    Its lifespan opens and closes the S3 and HTTP clients. A server runs the lifespan by itself; a
    host that mounts the application enters `app.router.lifespan_context(app)`.

    `s3`, an entered aiobotocore client, and `http`, an aiohttp session, replace the application's
    own clients; the host closes them after the lifespan. The settings for credentials, region,
    endpoint, TLS and pools then have no effect.

    `authorize` gets the request of a download without a valid token or signed URL, and returns
    whether it is authorized; if not, AUTH_URL may still authorize it. It may raise Starlette's
    HTTPException. `locate` gets the number of a task and returns where its image is: a key in the
    settings' bucket, a bucket and a key, or None for a 404. Both hooks may be async; a plain
    function runs in a thread.

    Raises SettingsError if this process does not write to `Settings.metrics_directory`.
    """
    run = partial(run_hook, DaemonThreads(THREADS))
    runtime = Runtime(
        settings=settings,
        access=Access(settings, authorize and partial(run, authorize)),
        metrics=Metrics(settings.metrics_directory),
        client_limit=ClientLimit(settings.max_downloads_per_client),
        locate=locate and partial(run, locate),
    )
    lifespan = SharedLifespan(runtime=runtime, s3=s3, http=http)
    routes = [route for route in ROUTES if route is not OBJECTS_ROUTE or settings.s3_objects]
    app = _Application(routes=routes, exception_handlers=EXCEPTION_HANDLERS, lifespan=lifespan)
    # Starlette would redirect to the host in the Host header, which a client can forge.
    app.router.redirect_slashes = False
    app.state.runtime = runtime
    return app


async def drain(app: Starlette, grace: float | None = None) -> None:
    """Reject new downloads with 503; return when the running ones have ended.

    After `grace` seconds (by default `Settings.shutdown_grace`) the connections of the remaining
    downloads are cut. /readyz answers 503. Call it before leaving the lifespan.
    """
    runtime = get_runtime(app)
    if runtime.serving is not None:
        limit = runtime.settings.shutdown_grace if grace is None else grace
        await runtime.serving.admission.drain(limit)
        for monitor in list(runtime.monitors):
            if monitor.admission is None:  # It still waits for AUTH_URL or `authorize`.
                monitor.stop("drained")


class _Application(Starlette):
    """A Starlette application with middleware outside Starlette's own error handling."""

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
        return RequestId(traced(stack), partial(is_draining, self))
