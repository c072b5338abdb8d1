"""The application: its lifespan, its routes, its errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware

from . import bytes as bytes_
from . import health, image, landing
from ._clients import open_clients
from ._problems import EXCEPTION_HANDLERS
from ._readiness import Readiness
from ._request_id import RequestId
from ._s3 import store_answers
from ._slots import Slots

if TYPE_CHECKING:
    from settings import Settings


def create_app(settings: Settings) -> Starlette:
    """Return the application that serves by `settings`; several may live in one process.

    Its clients are opened and closed by its lifespan, which a server runs by itself and the
    host of a mounted application has to enter: `app.router.lifespan_context(app)`.
    """
    app = Starlette(
        routes=[*image.routes, *bytes_.routes, *health.routes, *landing.routes],
        middleware=[Middleware(RequestId)],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=_lifespan,
    )
    # A redirect would be to the Host that the request names, whoever's that is.
    app.router.redirect_slashes = False
    app.state.settings = settings
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Put the clients on `app.state` for as long as the application serves."""
    if hasattr(app.state, "s3"):  # Entered within itself: the outer one owns the clients.
        yield
        return
    settings: Settings = app.state.settings
    async with open_clients(settings) as clients:
        opened = {
            "s3": clients.s3,
            "http": clients.http,
            "slots": Slots(settings.max_downloads, wait=settings.queue_timeout),
            "readiness": Readiness(
                partial(
                    store_answers,
                    clients.s3,
                    bucket=settings.s3_image_bucket,
                    key=settings.s3_image_key.format(task_id=0),
                )
            ),
        }
        for name, value in opened.items():
            setattr(app.state, name, value)
        try:
            yield
        finally:
            for name in opened:
                delattr(app.state, name)
