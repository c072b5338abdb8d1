"""So many bytes, out of another HTTP service (``/tasks/{task_id}/bytes/{size}``)."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import StreamingResponse

from .answers.path import ExactRoute, size_of, task_id_of
from .answers.remote_body import answer_from_url
from .answers.selectors import download_name_of
from .download.scope import DownloadScope


async def stream_bytes(request: Request) -> StreamingResponse:
    """Stream the upstream's body, held open by the request's exit stack to its last byte."""
    settings = request.app.state.settings
    task_id = task_id_of(request)
    size = size_of(request, most=settings.bytes_max_size)
    url = settings.bytes_url.format(task_id=task_id, size=size)
    name = download_name_of(request)
    return await answer_from_url(request, url, length=size, download_name=name)


routes = [
    ExactRoute(
        "/tasks/{task_id}/bytes/{size}",
        stream_bytes,
        methods=["GET", "HEAD"],
        name="bytes",
        middleware=[Middleware(DownloadScope, source="http")],
    )
]
