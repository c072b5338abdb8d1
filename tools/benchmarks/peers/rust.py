"""Starlette with obstore, the object store client that is written in Rust."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from obstore.store import S3Store
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from .store import BUCKET, ENDPOINT, key_of

# Its own default is the first; the second is what a service for many clients would choose.
DEFAULT_CHUNK, SMALL_CHUNK = 10 * 1024 * 1024, 256 * 1024
CHUNK_SIZE = SMALL_CHUNK if os.environ.get("SMALL_CHUNKS") else DEFAULT_CHUNK

store = S3Store(
    BUCKET,
    endpoint=ENDPOINT,
    # It has 30 s for a whole body, which no slow reader is done in.
    client_options={"allow_http": True, "timeout": "3600s"},
)


async def image(request: Request) -> StreamingResponse:
    """Stream the image of a task."""
    stored = await store.get_async(key_of(request.path_params["task_id"]))
    headers = {"content-length": str(stored.meta["size"]), "etag": stored.meta["e_tag"] or ""}
    chunks = stored.stream(min_chunk_size=CHUNK_SIZE)
    return StreamingResponse(views(chunks), media_type="image/jpeg", headers=headers)


async def views(chunks: AsyncIterator[Any]) -> AsyncIterator[memoryview]:
    """Yield the chunks as Starlette takes them, without a copy."""
    async for chunk in chunks:
        yield memoryview(chunk)


app = Starlette(routes=[Route("/tasks/{task_id}/image", image)])
