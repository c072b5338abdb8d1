"""Starlette with a shared aiobotocore client: what people write.

The client has as many connections as needed; with its default of ten, slow readers take all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from .store import BUCKET, key_of


def create_app(config: AioConfig, chunk_size: int | None = None) -> Starlette:
    """Return the application; it sends chunks of this size, or what has arrived."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with get_session().create_client("s3", config=config) as app.state.s3:
            yield

    async def image(request: Request) -> StreamingResponse:
        key = key_of(request.path_params["task_id"])
        stored = await request.app.state.s3.get_object(Bucket=BUCKET, Key=key)
        headers = {"content-length": str(stored["ContentLength"]), "etag": stored["ETag"]}
        body = stored["Body"]
        chunks = (
            body.iter_chunks(chunk_size) if chunk_size else body._raw_stream.content.iter_any()
        )
        return StreamingResponse(chunks, media_type="image/jpeg", headers=headers)

    return Starlette(routes=[Route("/tasks/{task_id}/image", image)], lifespan=lifespan)


app = create_app(AioConfig(max_pool_connections=1000))
