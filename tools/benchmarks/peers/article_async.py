"""The article's design: FastAPI, a client for each request, the body iterated as it is.

aiobotocore's body gives 1 KiB at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from aiobotocore.session import get_session
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from .store import BUCKET, key_of

app = FastAPI()


async def s3_client() -> AsyncIterator[Any]:
    """Make a client, and close it when the response is over."""
    async with get_session().create_client("s3") as client:
        yield client


@app.get("/tasks/{task_id}/image")
async def image(task_id: int, client: Annotated[Any, Depends(s3_client)]) -> StreamingResponse:
    """Stream the image of a task."""
    stored = await client.get_object(Bucket=BUCKET, Key=key_of(task_id))
    return StreamingResponse(stored["Body"], media_type="image/jpeg")
