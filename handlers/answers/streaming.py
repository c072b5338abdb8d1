"""The last step of every answer with a body: Starlette's StreamingResponse."""

from collections.abc import AsyncIterator
from http import HTTPStatus

from starlette.responses import StreamingResponse

from ..body.upstream import Chunk
from ..download.handle import Download
from ..errors import BadUpstream
from .headers import not_modified_headers


def stream(
    download: Download,
    body: AsyncIterator[Chunk],
    *,
    status: int,
    headers: dict[str, str],
    length: int | None,
) -> StreamingResponse:
    """Return the answer that streams `body`, of `length` bytes where that is known.

    Raises BadUpstream for a body of unknown length to an HTTP/1.0 client, which knows no chunks
    (RFC 9112, 7.1) and could not tell the whole body from a part.
    """
    if status == HTTPStatus.NOT_MODIFIED:
        headers = not_modified_headers(headers)
    elif length is None and download.record.method == "GET" and download.http_version == "1.0":
        raise BadUpstream("a body of unknown length, for an HTTP/1.0 client")
    return StreamingResponse(content=body, status_code=status, headers=headers)
