"""The last step of every answer with a body: its headers, and Starlette's StreamingResponse."""

from collections.abc import AsyncIterator, Collection
from http import HTTPStatus

from starlette.responses import StreamingResponse

from ..body.upstream import Chunk, Upstream
from ..download.handle import Download
from ..errors import BadUpstream
from .headers import download_headers

# A 304 must have these headers of its 200 (RFC 9110, 15.4.5).
_NOT_MODIFIED_HEADERS = ("etag", "last-modified", "cache-control", "expires")


def stream(
    download: Download,
    upstream: Upstream,
    body: AsyncIterator[Chunk],
    *,
    default_type: str,
    has_ranges: bool,
    filename: str | None,
    default_cache_control: str | None = None,
    metadata_names: Collection[str] = (),
) -> StreamingResponse:
    """Return the answer that streams `body`, with the status and the headers of `upstream`.

    Raises BadUpstream for a body of unknown length to an HTTP/1.0 client, which knows no chunks
    (RFC 9112, 7.1) and could not tell the whole body from a part.
    """
    part, total = upstream.part, upstream.total
    headers = download_headers(
        upstream.headers,
        default_type=default_type,
        length=upstream.length,
        content_range=part.content_range(total) if part and total is not None else None,
        ranges=has_ranges,
        download_name=filename,
        default_cache_control=default_cache_control,
        private=download.is_private,
        metadata_names=metadata_names,
    )
    if upstream.status == HTTPStatus.NOT_MODIFIED:
        headers = {name: headers[name] for name in _NOT_MODIFIED_HEADERS if name in headers}
    elif (
        upstream.length is None
        and download.record.method == "GET"
        and download.http_version == "1.0"
    ):
        raise BadUpstream("a body of unknown length, for an HTTP/1.0 client")
    return StreamingResponse(content=body, status_code=upstream.status, headers=headers)
