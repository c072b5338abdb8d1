"""The answer to a request for an object of a store: chosen, opened, with its headers."""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import StreamingResponse

from ..download.scope import (
    ahead_of,
    in_time,
    is_private,
    owner_of,
    resume_policy_of,
    retry_policy_of,
)
from ..errors import BadUpstream
from ..sources.s3.bucket import Store, StoredObject
from .headers import download_headers, not_modified_headers
from .selection import IMAGE_TYPE, Selection, select_get, select_head
from .selectors import parse_selectors


async def answer_with_object(
    request: Request, store: Store, key: str, *, download_name: str | None
) -> StreamingResponse:
    """Answer with an object, or with what was asked of it; raises DownloadError."""
    settings = request.app.state.settings
    stored = StoredObject(store, key, settings.upstream_read_timeout, retry_policy_of(request))
    asked = parse_selectors(request.method, request.headers)
    if request.method == "HEAD":
        selecting = select_head(stored, asked)
    else:
        selecting = select_get(
            stored,
            asked,
            owner_of(request),
            resume_policy_of(request),
            ahead=ahead_of(request),
            verified=settings.verify_checksums,
        )
    selection = await in_time(request, selecting)
    if selection.length is None and request.scope["http_version"] == "1.0":
        # Which knows no chunks (RFC 9112, 7.1): it could not tell the whole from a part.
        raise BadUpstream("an object of unknown length, for an HTTP/1.0 client")
    return StreamingResponse(
        content=selection.body,
        status_code=selection.status,
        headers=_headers_of(request, selection, download_name),
    )


def _headers_of(
    request: Request, selection: Selection, download_name: str | None
) -> dict[str, str]:
    settings = request.app.state.settings
    headers = download_headers(
        selection.stored,
        default_type=IMAGE_TYPE,
        length=selection.length,
        content_range=selection.content_range,
        ranges=selection.length is not None,
        download_name=download_name,
        default_cache_control=settings.image_cache_control,
        private=is_private(request),
        metadata_names=settings.s3_metadata_headers,
    )
    if selection.status == HTTPStatus.NOT_MODIFIED:
        return not_modified_headers(headers)
    if selection.content_type:
        headers["content-type"] = selection.content_type
    return headers
