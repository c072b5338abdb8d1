"""Starlette: two applications with a bucket each, and downloads in the host's handlers.

S3_IMAGE_BUCKET=photos ARCHIVE_BUCKET=archive uvicorn starlette_host:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from downspout import Settings, create_app, stream_object, stream_url

LOGO_URL = os.environ.get("LOGO_URL", "http://httpbin.org/image/jpeg")

settings = Settings.from_environ()
media = create_app(settings)
# For another store, replace s3_endpoint_url as well.
archive = create_app(
    replace(
        settings,
        s3_image_bucket=os.environ.get("ARCHIVE_BUCKET", settings.s3_image_bucket),
        s3_image_key="archive/{task_id}",
    )
)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Enter the lifespans of both applications; Starlette does not enter those of mounts."""
    async with media.router.lifespan_context(media), archive.router.lifespan_context(archive):
        yield


async def hello(_: Request) -> Response:
    """Answer a route of the host's own."""
    return PlainTextResponse("hello")


async def report(request: Request) -> Response:
    """Answer with the object at a key that the host chooses."""
    answer = stream_object(media, f"reports/{request.path_params['number']}.pdf")
    answer.headers["cache-control"] = "private"
    return answer


async def logo(_: Request) -> Response:
    """Answer with the body of another HTTP service."""
    return stream_url(media, LOGO_URL)


routes = [
    Route("/hello", hello),
    Route("/reports/{number:int}", report),
    Route("/logo", logo),
    Mount("/media", media, name="media"),
    Mount("/archive", archive, name="archive"),
]
app = Starlette(routes=routes, lifespan=lifespan)
