"""The image of a task, out of S3 (``/tasks/{task_id}/image``)."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import StreamingResponse

from ._download import DownloadScope, first_byte_deadline, owner_of
from ._headers import download_headers
from ._path import ExactRoute, task_id_of
from ._s3 import head_object, open_object
from ._upstream import exact_body, no_body


async def image(request: Request) -> StreamingResponse:
    """Stream the object at the key of this task; HEAD reads none of it."""
    state, settings = request.app.state, request.app.state.settings
    bucket = settings.s3_image_bucket
    key = settings.s3_image_key.format(task_id=task_id_of(request))
    with first_byte_deadline(settings.first_byte_timeout):
        if request.method == "HEAD":
            upstream = await head_object(state.s3, bucket=bucket, key=key)
            body = no_body()
        else:
            upstream = await open_object(state.s3, bucket=bucket, key=key, owner=owner_of(request))
            body = exact_body(upstream)
    headers = download_headers(upstream.headers, length=upstream.length, default_type="image/jpeg")
    return StreamingResponse(content=body, headers=headers)


routes = [
    ExactRoute(
        "/tasks/{task_id}/image",
        image,
        methods=["GET", "HEAD"],
        middleware=[Middleware(DownloadScope)],
    )
]
