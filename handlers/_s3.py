"""The S3 source: objects through aiobotocore, and botocore's errors as ours.

Together with `_clients` the only module that knows botocore, and it knows nothing of Starlette.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - its name there
    ConnectTimeoutError,
    HTTPClientError,
    ReadTimeoutError,
)

from ._conditions import entity_tag, http_date
from ._errors import (
    BadUpstream,
    DownloadError,
    Hidden,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamTimeout,
)
from ._idle import close_idle
from ._patience import ONCE, Patience
from ._ranges import Part, Spec, parse_content_range
from ._upstream import READ_BUFFER, Upstream, body_reader, ends_visibly

if TYPE_CHECKING:
    from aiobotocore.response import AioStreamingBody
    from types_aiobotocore_s3 import S3Client

# Iterating the body itself gives 1 KiB at a time, which is where an S3 gateway in Python loses its
# speed. A slow client's download holds a few chunks: 0.8 MiB with these, 2.3 MiB with 512 KiB.
CHUNK_SIZE = 128 * 1024

# An S3 error is a few hundred bytes of XML; a proxy's page in its place a few thousand.
MAX_ERROR_SIZE = 64 * 1024

_ERROR_OF_CODE: dict[str, type[DownloadError]] = {
    "NoSuchKey": NotFound,
    # What S3 says of a missing object to those who may not list the bucket, and of one in an
    # archive. Every other 403 is about our key, clock or signature.
    "AccessDenied": Hidden,
    "InvalidObjectState": Hidden,
    "RequestTimeout": UpstreamTimeout,
    "SlowDown": UpstreamBusy,
}
# Of an answer without a code, as those to HEAD always are.
_ERROR_OF_BARE_STATUS: dict[int, type[DownloadError]] = {
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.FORBIDDEN: Hidden,
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

# A body breaks in four ways, of three libraries: aiohttp's ClientPayloadError (not wrapped by
# aiobotocore), ResponseStreamingError, IncompleteReadError, OSError.
_BODY_FAILURES = (BotoCoreError, aiohttp.ClientError, OSError)

# Numbers, dates and booleans among the headers of an object that nothing here reads.
_UNREAD = {
    b"x-amz-mp-parts-count",
    b"x-amz-missing-meta",
    b"x-amz-tagging-count",
    b"x-amz-delete-marker",
    b"x-amz-object-lock-retain-until-date",
    b"x-amz-server-side-encryption-bucket-key-enabled",
}

_owner: ContextVar[AsyncExitStack | ExitStack | None] = ContextVar(
    "downspout_s3_owner", default=None
)


class OwnedSession(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """aiobotocore's transport, where every response has an owner from the moment it is open.

    get_object can fail after the response has arrived (at whatever header it can't parse, at a
    cancellation), and then nobody would hold what has to be closed: the connection is lost to the
    pool for ever.
    Redirects are not followed, as in botocore itself; aiohttp follows them by default.
    """

    async def _get_session(self, proxy_url: str | None) -> _OwnedRequests:
        return _OwnedRequests(await super()._get_session(proxy_url))


class _OwnedRequests:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, method: str, **options: Any) -> aiohttp.ClientResponse:
        try:
            response = await self._session.request(
                method, allow_redirects=False, read_bufsize=READ_BUFFER, **options
            )
        except aiohttp.ClientConnectionError:
            close_idle(self._session)
            raise
        if owner := _owner.get():
            owner.callback(response.close)
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            await _read_error(response)
        # botocore's parser raises for values that it can't read, whether or not they are wanted.
        headers = response._raw_headers or ()  # noqa: SLF001 - the public name is a cached copy
        response._raw_headers = tuple(filter(_is_readable, headers))  # noqa: SLF001
        return response


async def _read_error(response: aiohttp.ClientResponse) -> None:
    """Read the body of an error where it is of a sane size: aiobotocore would read any size."""
    body = bytearray()
    while chunk := await response.content.read(MAX_ERROR_SIZE):
        body += chunk
        if len(body) > MAX_ERROR_SIZE:
            response.close()
            raise aiohttp.ClientPayloadError("an error longer than any error is")
    response._body = bytes(body)  # noqa: SLF001 - where read() keeps what it has read


def _is_readable(header: tuple[bytes, bytes]) -> bool:
    name, value = header[0].lower(), header[1]
    if not value.isascii() or name in _UNREAD:
        return False
    return name != b"last-modified" or http_date(value.decode()) is not None


def ask_for_checksum(params: dict[str, Any], **_: object) -> None:
    """Have a request ask for the checksum of the whole: a handler of botocore's `before-call`.

    Its own parameter for that would have botocore verify, which knows nothing of healing and
    fails with parts.
    """
    params["headers"]["x-amz-checksum-mode"] = "ENABLED"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a bucket, there or not."""

    client: S3Client
    bucket: str
    key: str
    silence: float
    """Seconds that a body may keep its reader waiting."""

    patience: Patience = ONCE

    async def open(
        self,
        owner: AsyncExitStack | ExitStack,
        *,
        spec: Spec | None = None,
        if_match: str | None = None,
    ) -> Upstream:
        """Open the object, or the range `spec` of it, for reading; `owner` closes it.

        A store may give the whole all the same. Raises DownloadError; PreconditionFailed where
        the object's entity tag is not `if_match`, RangeNotSatisfiable where there is no such part.
        """
        return await self.patience.open(partial(self._open, owner, spec, if_match))

    async def _open(
        self, owner: AsyncExitStack | ExitStack, spec: Spec | None, if_match: str | None
    ) -> Upstream:
        wanted: dict[str, Any] = {"Range": f"bytes={spec}"} if spec else {}
        if if_match:
            wanted["IfMatch"] = if_match
        try:
            with _translated_errors(), _owned_by(owner):
                answer = await self.client.get_object(Bucket=self.bucket, Key=self.key, **wanted)
        except RangeNotSatisfiable as error:
            if spec is None:
                raise BadUpstream("store answered 416 to no range at all") from error
            raise
        status, headers = _status_and_headers(answer)
        if if_match and entity_tag(headers.get("etag", "")) != if_match:
            answer["Body"].close()
            raise PreconditionFailed("the store gave another version than was demanded")
        if status == HTTPStatus.OK:
            return self._opened(answer["Body"], headers)
        if status == HTTPStatus.PARTIAL_CONTENT and spec is not None:
            part, total = _checked_part(headers, spec)
            return self._opened(answer["Body"], headers, part, total)
        raise BadUpstream(f"store answered {status} to a GetObject of {spec or 'the whole'}")

    async def head(self) -> Upstream:
        """Return what `open` would, without a byte of the body. Raises DownloadError."""
        return await self.patience.open(self._head)

    async def _head(self) -> Upstream:
        try:
            with _translated_errors():
                answer = await self.client.head_object(Bucket=self.bucket, Key=self.key)
        except NotFound:
            # An answer to HEAD has no error code: a missing bucket and a refused key look like
            # a missing object. GET tells, and its errors are the ones to give.
            async with AsyncExitStack() as owner:
                with suppress(RangeNotSatisfiable):  # There by now, and empty.
                    await self._open(owner, Spec(0, 0), None)
            raise
        status, headers = _status_and_headers(answer)
        if status != HTTPStatus.OK:
            raise BadUpstream(f"store answered {status} to a HeadObject")
        return Upstream(headers=headers, length=_length(headers))

    def _opened(
        self,
        body: AioStreamingBody,
        headers: dict[str, str],
        part: Part | None = None,
        total: int | None = None,
    ) -> Upstream:
        if not ends_visibly(headers):
            raise BadUpstream("the store's answer has neither a length nor chunks")
        return Upstream(
            status=HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK,
            headers=headers,
            length=part.length if part else _length(headers),
            part=part,
            total=total,
            close=body.close,
            read=body_reader(
                partial(body.read, CHUNK_SIZE),
                silence=self.silence,
                failures=_BODY_FAILURES,
                source="store",
            ),
        )

    async def is_answered_for(self) -> None:
        """Return when the store gives or denies the object in order; raises DownloadError."""
        with suppress(NotFound):
            await self.head()


def _checked_part(headers: dict[str, str], spec: Spec) -> tuple[Part, int]:
    """Return the part that a 206 says to have and of how many bytes, where that was asked for."""
    stated = headers.get("content-range", "")
    part, total = parse_content_range(stated) or (None, None)
    length = _length(headers)
    if part is None or total is None or spec.within(total) != part:
        raise BadUpstream(f"store answered range {spec} with content-range {stated!r}")
    if length is not None and length != part.length:
        raise BadUpstream(f"store has {length} bytes for content-range {stated!r}")
    return part, total


def _status_and_headers(answer: Any) -> tuple[int, dict[str, str]]:
    metadata = answer["ResponseMetadata"]
    return metadata["HTTPStatusCode"], metadata["HTTPHeaders"]


def _length(headers: dict[str, str]) -> int | None:
    return int(headers["content-length"]) if "content-length" in headers else None


@contextmanager
def _owned_by(owner: AsyncExitStack | ExitStack) -> Generator[None]:
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)


@contextmanager
def _translated_errors() -> Generator[None]:
    """Turn whatever botocore raises before the body into one of ours."""
    try:
        yield
    except ClientError as error:
        raise _error_of_answer(error) from error
    except (ConnectTimeoutError, ReadTimeoutError, TimeoutError) as error:
        raise UpstreamTimeout(f"store: {error}") from error
    except (ConnectionError, HTTPClientError) as error:
        raise UpstreamFailed(f"store: {type(error).__name__}: {error}") from error
    # Not BotoCoreError alone: an answer that can't be parsed raises ValueError and others.
    except Exception as error:
        raise BadUpstream(f"store: {type(error).__name__}: {error}") from error


def _error_of_answer(error: ClientError) -> DownloadError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = f"store answered {status} {code}"
    kind = _ERROR_OF_CODE.get(code) or _ERROR_OF_STATUS.get(status)
    if kind is None and code == str(status):
        kind = _ERROR_OF_BARE_STATUS.get(status)
    return (kind or BadUpstream)(text)
