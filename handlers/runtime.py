"""The objects that all requests of an application share: `app.state.runtime`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from starlette.applications import Starlette

from .access.application import AuthApplication
from .access.authorization import Access
from .access.hooks import Location
from .body.read_ahead import Budget
from .download.admission import Admission
from .download.client_limit import ClientLimit
from .download.monitor import Monitor
from .settings import Settings
from .sources.proxies import Proxies
from .sources.readiness import Readiness
from .sources.s3.bucket import Buckets
from .telemetry.metrics import Metrics


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """The clients and limits that exist only during the application's lifespan."""

    buckets: Buckets
    http: aiohttp.ClientSession
    proxies: Proxies = field(default_factory=Proxies)
    """The proxies that requests of `http` go through."""

    auth_application: AuthApplication | None = None
    """Authorizes downloads; None without AUTH_URL."""

    admission: Admission
    read_ahead: Budget
    readiness: Readiness


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """The settings, access rule, metrics and limits of one application."""

    settings: Settings
    access: Access
    metrics: Metrics
    client_limit: ClientLimit
    locate: Callable[[int], Awaitable[Location]] | None = None
    monitors: set[Monitor] = field(default_factory=set)
    """The monitors of the running downloads."""

    serving: Serving | None = None
    """None before and after the lifespan."""


def is_draining(app: Starlette) -> bool:
    """Return whether an application that `create_app` made accepts no more downloads."""
    serving = get_runtime(app).serving
    return serving is not None and serving.admission.is_draining


def get_runtime(app: Starlette) -> Runtime:
    """Return the runtime of an application that `create_app` made."""
    runtime: Runtime = app.state.runtime
    return runtime
