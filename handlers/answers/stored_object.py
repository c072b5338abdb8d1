"""The answer to a request for an object of a bucket: selected, opened, with its headers."""

from starlette.responses import StreamingResponse

from ..download.handle import Download
from ..sources.s3.bucket import Bucket, StoredObject
from .headers import download_headers
from .selection import IMAGE_TYPE, select_get, select_head
from .selectors import RequestSelectors
from .streaming import stream


async def answer_with_object(
    download: Download,
    bucket: Bucket,
    key: str,
    selectors: RequestSelectors,
    *,
    filename: str | None,
) -> StreamingResponse:
    """Return the answer with an object, or with what the request selects of it.

    The download's owner closes what this opens. Raises DownloadError.
    """
    settings = download.runtime.settings
    stored = StoredObject(bucket, key, download.retry_policy())
    if download.record.method == "HEAD":
        selecting = select_head(stored, selectors)
    else:
        selecting = select_get(
            stored,
            selectors,
            download.owner,
            download.resume_policy(),
            ahead=download.read_ahead(),
            verified=settings.verify_checksums,
        )
    selection = await download.in_time(selecting)
    headers = download_headers(
        selection.stored,
        default_type=IMAGE_TYPE,
        length=selection.length,
        content_range=selection.content_range,
        ranges=selection.length is not None,
        download_name=filename,
        default_cache_control=settings.image_cache_control,
        private=download.is_private,
        metadata_names=settings.s3_metadata_headers,
    )
    if selection.content_type:
        headers["content-type"] = selection.content_type
    return stream(
        download, selection.body, status=selection.status, headers=headers, length=selection.length
    )
