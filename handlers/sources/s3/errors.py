"""What a store answered to GetObject or HeadObject, and its errors as ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from aiohttp import ClientPayloadError

from ...body.upstream import Read
from ...errors import (
    AccessDenied,
    BadUpstream,
    DownloadError,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamTimeout,
)

# An S3 error is a few hundred bytes of XML; a proxy's page in its place a few thousand.
MAX_ERROR_SIZE = 64 * 1024

_ERROR_OF_CODE: dict[str, type[DownloadError]] = {
    "NoSuchKey": NotFound,
    # What S3 says of a missing object to those who may not list the bucket, and of one in an
    # archive. Every other 403 is about our key, clock or signature.
    "AccessDenied": AccessDenied,
    "InvalidObjectState": AccessDenied,
    "RequestTimeout": UpstreamTimeout,
    "SlowDown": UpstreamBusy,
}
# Of an answer without a code, as those to HEAD always are.
_ERROR_OF_BARE_STATUS: dict[int, type[DownloadError]] = {
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.FORBIDDEN: AccessDenied,
}
_ERROR_OF_STATUS: dict[int, type[DownloadError]] = {
    HTTPStatus.PRECONDITION_FAILED: PreconditionFailed,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: RangeNotSatisfiable,
    HTTPStatus.TOO_MANY_REQUESTS: UpstreamBusy,
    HTTPStatus.SERVICE_UNAVAILABLE: UpstreamBusy,
    HTTPStatus.INTERNAL_SERVER_ERROR: UpstreamFailed,
    HTTPStatus.BAD_GATEWAY: UpstreamFailed,
    HTTPStatus.GATEWAY_TIMEOUT: UpstreamTimeout,
}


@dataclass(slots=True)
class Answer:
    """A store's answer that is no error; its body has not been read."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""

    read: Read
    """Return the next bytes, b"" at the end; raises what `failures` says."""

    close: Callable[[], None]
    failures: tuple[type[Exception], ...]
    """What `read` raises."""

    keeps_time: bool = False
    """Whether that is a TimeoutError when nothing comes for too long."""


class Owner(Protocol):
    """What closes an answer: an exit stack."""

    def callback(self, callback: Callable[[], Any], /) -> Any:
        """Have `callback` called at the end."""


def error_for_response(status: int, code: str) -> DownloadError:
    """Return the error that a status and a code of S3's mean; the code is empty where none is."""
    kind = _ERROR_OF_CODE.get(code) or _ERROR_OF_STATUS.get(status)
    if kind is None and not code:
        kind = _ERROR_OF_BARE_STATUS.get(status)
    return (kind or BadUpstream)(f"store answered {status} {code}".rstrip())


async def read_error(read: Read) -> bytes:
    """Return the body of an error, where it is of a sane size; raises ClientPayloadError."""
    body = bytearray()
    while chunk := await read():
        body += chunk
        if len(body) > MAX_ERROR_SIZE:
            raise ClientPayloadError("an error longer than any error is")
    return bytes(body)
