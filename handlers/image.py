"""The image of a task, out of S3 (``/tasks/{task_id}/image``)."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import StreamingResponse

from .answers.location import resolve_location
from .answers.path import ExactRoute, parse_task_id
from .answers.selectors import requested_filename
from .answers.stored_object import answer_with_object
from .download.scope import DownloadScope, in_time
from .sources.s3.buckets import Buckets


async def image(request: Request) -> StreamingResponse:
    """Answer with the object of this task, or with what was asked of it."""
    state, task_id = request.app.state, parse_task_id(request)
    stores: Buckets = state.stores
    if state.locate is None:
        store, key = stores.default, state.settings.s3_image_key.format(task_id=task_id)
    else:
        bucket, key = await in_time(
            request, resolve_location(state.locate, task_id, state.threads)
        )
        store = await in_time(request, stores.of(bucket))
    name = requested_filename(request)
    return await answer_with_object(request, store, key, download_name=name)


routes = [
    ExactRoute(
        "/tasks/{task_id}/image",
        image,
        methods=["GET", "HEAD"],
        middleware=[Middleware(DownloadScope, source="s3")],
    )
]
