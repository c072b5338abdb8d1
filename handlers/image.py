"""The image of a task, from S3 (``/tasks/{task_id}/image``)."""

from starlette.requests import Request
from starlette.responses import Response

from .answers.path import parse_task_id
from .answers.selectors import download_name, parse_selectors
from .answers.stored_object import answer_with_object
from .download.handle import Download, get_download
from .errors import NotFound
from .sources.s3.bucket import Bucket
from .sources.s3.names import check_key


async def image(request: Request) -> Response:
    """Stream the image of a task, or the ranges that the request selects, or redirect to it."""
    download = get_download(request)
    task_id = parse_task_id(request.path_params["task_id"])
    bucket, key = await _resolve_location(download, task_id)
    selectors = parse_selectors(request)
    filename = download_name(request)
    return await answer_with_object(
        download, bucket, key, selectors, default_type="image/jpeg", filename=filename
    )


async def _resolve_location(download: Download, task_id: int) -> tuple[Bucket, str]:
    """Return the bucket and the key of a task's image.

    Raises NotFound if the host's `locate` returns None, ValueError if it returns an invalid
    bucket name or key, and UpstreamTimeout if it takes longer than FIRST_BYTE_TIMEOUT.
    """
    runtime, buckets = download.runtime, download.serving.buckets
    if runtime.locate is None:
        return buckets.default, runtime.settings.s3_image_key.format(task_id=task_id)
    location = await download.in_time(runtime.locate(task_id))
    if location is None:
        raise NotFound("the host's locate returned None")
    bucket, key = (None, location) if isinstance(location, str) else location
    check_key(key)
    return await download.in_time(buckets.get(bucket)), key
