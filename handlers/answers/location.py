"""Where the image of a task is: by the settings, or by a hook of the host."""

from ..download.handle import Download
from ..errors import NotFound
from ..sources.s3.bucket import Bucket
from ..sources.s3.names import check_key


async def resolve_location(download: Download, task_id: int) -> tuple[Bucket, str]:
    """Return the bucket and the key of a task's image.

    Raises NotFound where the host's `locate` returns None, ValueError for a name that it returns
    and that is none, UpstreamTimeout.
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
