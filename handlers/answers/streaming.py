"""The StreamingResponse of a download: which headers a 200, a 206 and a 304 have."""

from collections.abc import AsyncIterator
from http import HTTPStatus

from starlette.responses import StreamingResponse

from ..body.upstream import Chunk, Upstream
from ..download.handle import Download
from ..errors import BadUpstream
from ..rfc9110.digests import repr_digest
from .headers import attachment, private_cache_control

# A 304 must have these headers of the 200 it replaces, and gets no others (RFC 9110, 15.4.5).
_NOT_MODIFIED_HEADERS = ("etag", "last-modified", "cache-control", "expires")


def stream(
    download: Download,
    upstream: Upstream,
    body: AsyncIterator[Chunk],
    headers: dict[str, str],
    *,
    has_ranges: bool,
    filename: str | None,
) -> StreamingResponse:
    """Return the response that streams `body`; `headers` describe the object of `upstream`.

    Raises BadUpstream for a body of unknown length to an HTTP/1.0 client: without chunked framing
    (RFC 9112, 7.1), the client could not tell a complete body from a broken one.
    """
    if upstream.length is not None:
        headers["content-length"] = str(upstream.length)
    elif upstream.read and download.http_version == "1.0":
        raise BadUpstream("upstream sent no content-length, which an HTTP/1.0 client needs")
    if download.is_private:
        headers["cache-control"] = private_cache_control(headers.get("cache-control", ""))
    if has_ranges:
        headers["accept-ranges"] = "bytes"
    if upstream.part and upstream.total is not None:
        headers["content-range"] = upstream.part.content_range(upstream.total)
    elif digest := repr_digest(upstream.headers):
        headers["repr-digest"] = digest
    if filename is not None:
        headers["content-disposition"] = attachment(filename)
    if upstream.status == HTTPStatus.NOT_MODIFIED:
        headers = {name: headers[name] for name in _NOT_MODIFIED_HEADERS if name in headers}
    return StreamingResponse(content=body, status_code=upstream.status, headers=headers)
