"""The article's design with boto3, whose body is iterated in a thread pool, 1 KiB at a time."""

from __future__ import annotations

import boto3
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from .store import BUCKET, key_of

app = FastAPI()


@app.get("/tasks/{task_id}/image")
def image(task_id: int) -> StreamingResponse:
    """Stream the image of a task."""
    client = boto3.session.Session().client("s3")
    stored = client.get_object(Bucket=BUCKET, Key=key_of(task_id))
    return StreamingResponse(stored["Body"], media_type="image/jpeg")
