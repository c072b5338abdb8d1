"""So many bytes, out of another HTTP service (``/tasks/{task_id}/bytes/{size}``)."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import StreamingResponse

from .answers.path import ExactRoute, parse_size, parse_task_id
from .answers.remote_body import answer_with_url
from .answers.selectors import requested_filename
from .download.scope import DownloadScope


async def stream_bytes(request: Request) -> StreamingResponse:
    """Stream the upstream's body, held open by the request's exit stack to its last byte."""
    settings = request.app.state.settings
    task_id = parse_task_id(request)
    size = parse_size(request, most=settings.bytes_max_size)
    url = settings.bytes_url.format(task_id=task_id, size=size)
    name = requested_filename(request)
    return await answer_with_url(request, url, length=size, download_name=name)


routes = [
    ExactRoute(
        "/tasks/{task_id}/bytes/{size}",
        stream_bytes,
        methods=["GET", "HEAD"],
        name="bytes",
        middleware=[Middleware(DownloadScope, source="http")],
    )
]
