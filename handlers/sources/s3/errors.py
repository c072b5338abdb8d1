"""Translate error responses of S3 into DownloadError."""

from http import HTTPStatus

from ... import errors
from ...body.upstream import Read
from ..errors import ERROR_BY_STATUS

# An S3 error is a few hundred bytes of XML; the error page of a proxy has a few thousand bytes.
MAX_ERROR_SIZE = 64 * 1024


class RejectedHeader(errors.BadUpstream):
    """The store does not accept a header of the request."""


class Unexplained(errors.BadUpstream):
    """The store refuses a request without an error code, as it refuses every HEAD."""


_BY_CODE: dict[str, type[errors.DownloadError]] = {
    "NoSuchKey": errors.NotFound,
    # S3 also denies access to a missing object if the credentials can't list the bucket. Other
    # 403s mean a wrong access key, clock or signature; InvalidObjectState an archived object.
    "AccessDenied": errors.AccessDenied,
    "InvalidObjectState": errors.AccessDenied,
    "ExpiredToken": errors.CredentialsRejected,
    "InvalidAccessKeyId": errors.CredentialsRejected,
    "InvalidToken": errors.CredentialsRejected,
    "SignatureDoesNotMatch": errors.CredentialsRejected,
    "TokenRefreshRequired": errors.CredentialsRejected,
    "InvalidArgument": RejectedHeader,
    "NotImplemented": RejectedHeader,
    "RequestTimeout": errors.UpstreamTimeout,
    "SlowDown": errors.UpstreamBusy,
}
_BY_STATUS: dict[int, type[errors.DownloadError]] = {
    **ERROR_BY_STATUS,
    HTTPStatus.PRECONDITION_FAILED: errors.PreconditionFailed,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: errors.RangeNotSatisfiable,
}
# For responses without an error code, as all responses to a HEAD are.
_BY_STATUS_WITHOUT_CODE: dict[int, type[errors.DownloadError]] = {
    HTTPStatus.BAD_REQUEST: Unexplained,
    HTTPStatus.NOT_IMPLEMENTED: Unexplained,
    HTTPStatus.NOT_FOUND: errors.NotFound,
    HTTPStatus.FORBIDDEN: errors.AccessDenied,
}


def error_for_response(status: int, code: str) -> errors.DownloadError:
    """Return the DownloadError for a status and an S3 error code, which may be empty."""
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is None and not code:
        kind = _BY_STATUS_WITHOUT_CODE.get(status)
    return (kind or errors.BadUpstream)(f"store answered {status} {code}".rstrip())


async def read_error_body(read: Read) -> bytes:
    """Return the body of an error response; raise UpstreamFailed above MAX_ERROR_SIZE."""
    body = bytearray()
    while chunk := await read():
        body += chunk
        if len(body) > MAX_ERROR_SIZE:
            raise errors.UpstreamFailed(
                f"store: error response longer than {MAX_ERROR_SIZE} bytes"
            )
    return bytes(body)
