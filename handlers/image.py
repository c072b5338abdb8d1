"""The image of a task, out of S3 (``/tasks/{task_id}/image``)."""

from starlette.requests import Request
from starlette.responses import StreamingResponse

from .answers.location import resolve_location
from .answers.path import download_route, parse_task_id
from .answers.selectors import parse_selectors
from .answers.stored_object import answer_with_object
from .download.handle import get_download


async def image(request: Request) -> StreamingResponse:
    """Answer with the object of this task, or with what the request selects of it."""
    download = get_download(request)
    task_id = parse_task_id(request.path_params["task_id"])
    bucket, key = await resolve_location(download, task_id)
    selectors = parse_selectors(request.method, request.headers)
    filename = request.query_params.get("download")
    return await answer_with_object(download, bucket, key, selectors, filename=filename)


routes = [download_route("/tasks/{task_id}/image", image, name="image", source="s3")]
