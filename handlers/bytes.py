"""So many bytes, out of another HTTP service (``/tasks/{task_id}/bytes/{size}``)."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import StreamingResponse

from ._download import DownloadScope, first_byte_deadline, owner_of
from ._headers import download_headers
from ._http import open_url
from ._path import ExactRoute, size_of, task_id_of
from ._upstream import exact_body, no_body


async def stream_bytes(request: Request) -> StreamingResponse:
    """Stream the upstream's body, held open by the request's exit stack to its last byte."""
    state, settings = request.app.state, request.app.state.settings
    task_id = task_id_of(request)
    size = size_of(request, most=settings.bytes_max_size)
    with first_byte_deadline(settings.first_byte_timeout):
        upstream = await open_url(
            state.http,
            method=request.method,
            url=settings.bytes_url.format(task_id=task_id, size=size),
            length=size,
            owner=owner_of(request),
        )
    # An etag or a date of the upstream's would promise that a part can be had: not yet.
    stored = {"content-type": upstream.headers.get("content-type", "")}
    headers = download_headers(stored, length=size, default_type="application/octet-stream")
    body = no_body() if request.method == "HEAD" else exact_body(upstream)
    return StreamingResponse(content=body, headers=headers)


routes = [
    ExactRoute(
        "/tasks/{task_id}/bytes/{size}",
        stream_bytes,
        methods=["GET", "HEAD"],
        name="bytes",
        middleware=[Middleware(DownloadScope)],
    )
]
