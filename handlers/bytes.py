"""A number of bytes, from another HTTP service (``/tasks/{task_id}/bytes/{size}``)."""

from starlette.requests import Request
from starlette.responses import StreamingResponse

from .answers.path import parse_size, parse_task_id
from .answers.remote_body import answer_with_url
from .answers.selectors import download_name, parse_selectors
from .download.handle import get_download


async def stream_bytes(request: Request) -> StreamingResponse:
    """Stream the upstream's body; the download's exit stack closes it after the last byte."""
    download = get_download(request)
    settings = download.runtime.settings
    task_id = parse_task_id(request.path_params["task_id"])
    size = parse_size(request.path_params["size"], limit=settings.bytes_max_size)
    return await answer_with_url(
        download,
        settings.bytes_url.format(task_id=task_id, size=size),
        parse_selectors(request),
        length=size,
        filename=download_name(request),
    )
