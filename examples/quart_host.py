"""Quart: the host has an S3 client and an HTTP session, and downspout uses them.

S3_IMAGE_BUCKET=photos uvicorn quart_host:app

Quart can't mount an ASGI application, so a dispatcher stands before it. A Quart view can't return
the Starlette response of `stream_object`; pass `locate` to `create_app` instead.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
from aiobotocore.session import get_session
from quart import Quart

from downspout import Settings, create_app

Scope = MutableMapping[str, Any]
Asgi = Callable[[Any, Any, Any], Awaitable[None]]

settings = Settings.from_environ()
app = Quart(__name__)


class Mounts:
    """Calls one application for the paths below a prefix, and the host for all others."""

    def __init__(self, prefix: str, otherwise: Asgi) -> None:
        self.prefix = prefix
        self.otherwise = otherwise
        self.app = otherwise

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Pass a request on; as in ASGI, `path` stays whole and `root_path` has the prefix."""
        root_path = scope.get("root_path", "")
        path = scope.get("path", "").removeprefix(root_path)
        if scope["type"] != "http" or not f"{path}/".startswith(f"{self.prefix}/"):
            await self.otherwise(scope, receive, send)
            return
        below = {**scope, "root_path": root_path + self.prefix, "path": root_path + path}
        await self.app(below, receive, send)


mounts = Mounts("/media", app.asgi_app)
app.asgi_app = mounts  # type: ignore[method-assign, assignment]


@app.while_serving
async def lifespan() -> AsyncGenerator[None, None]:
    """Open the host's clients; downspout uses them, and does not close them."""
    s3 = get_session().create_client(
        "s3", region_name=settings.s3_region, endpoint_url=settings.s3_endpoint_url
    )
    async with s3 as client, aiohttp.ClientSession() as http:
        mounts.app = media = create_app(settings, s3=client, http=http)
        async with media.router.lifespan_context(media):
            yield


@app.get("/hello")
async def hello() -> str:
    """Answer a route of the host's own."""
    return "hello"
