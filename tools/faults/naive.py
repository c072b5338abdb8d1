"""A naive service, as tutorials show it: the comparison in the table of faults."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiobotocore.session import get_session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with (
        get_session().create_client("s3", region_name=os.environ["AWS_REGION"]) as app.state.s3,
        aiohttp.ClientSession() as app.state.http,
    ):
        yield


async def image(request: Request) -> StreamingResponse:
    key = f"test/{request.path_params['task_id']}/image.jpg"
    stored = await request.app.state.s3.get_object(Bucket=os.environ["S3_IMAGE_BUCKET"], Key=key)
    headers = stored["ResponseMetadata"]["HTTPHeaders"]
    wanted = {name: headers[name] for name in ("content-length", "etag") if name in headers}
    return StreamingResponse(stored["Body"], headers=wanted)


async def stream_bytes(request: Request) -> StreamingResponse:
    url = os.environ["BYTES_URL"].format(**request.path_params)
    response = await request.app.state.http.get(url)
    body = response.content.iter_chunked(65536)
    return StreamingResponse(body, status_code=response.status)


routes = [
    Route("/tasks/{task_id}/image", image),
    Route("/tasks/{task_id}/bytes/{size}", stream_bytes),
]
app = Starlette(routes=routes, lifespan=lifespan)
