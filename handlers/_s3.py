"""The S3 source: objects through aiobotocore, and botocore's errors as ours.

Together with `_clients` the only module that knows botocore, and it knows nothing of Starlette.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager, suppress
from contextvars import ContextVar
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    ReadTimeoutError,
)

from ._errors import (
    BadUpstream,
    BrokenTransfer,
    DownloadError,
    Hidden,
    NotFound,
    UpstreamBusy,
    UpstreamTimeout,
)
from ._upstream import Upstream, read_nothing

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

# As much as aiohttp buffers before it pauses the store; iterating the body itself gives 1 KiB
# at a time, which is where an S3 gateway in Python loses its speed.
CHUNK_SIZE = 256 * 1024

# A bare number is the status, where the answer had no code (an answer to HEAD never has).
_MISSING = {"NoSuchKey", "404"}
# S3 says AccessDenied of an object that is missing to those who may not list the bucket, and
# InvalidObjectState of one in an archive. Every other 403 is about our key, clock or signature.
_HIDDEN = {"AccessDenied", "403", "InvalidObjectState"}
_BUSY = {"SlowDown", "ServiceUnavailable", "Throttling", "TooManyRequests", "503", "429"}
_SLOW = {"RequestTimeout"}

_owner: ContextVar[AsyncExitStack | None] = ContextVar("downspout_s3_owner", default=None)


class OwnedSession(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """aiobotocore's transport, where every response has an owner from the moment it is open.

    get_object can fail after the response has arrived (a malformed Last-Modified raises
    ValueError, a header that is not UTF-8 a UnicodeDecodeError, a cancellation at any await),
    and then nobody would hold what has to be closed: the connection is lost to the pool for ever.
    Redirects are not followed, as in botocore itself; aiohttp follows them by default.
    """

    async def _get_session(self, proxy_url: str | None) -> _OwnedRequests:
        return _OwnedRequests(await super()._get_session(proxy_url))


class _OwnedRequests:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, method: str, **options: Any) -> aiohttp.ClientResponse:
        response = await self._session.request(method, allow_redirects=False, **options)
        if owner := _owner.get():
            owner.callback(response.close)
        return response


async def open_object(
    client: S3Client, *, bucket: str, key: str, owner: AsyncExitStack
) -> Upstream:
    """Open an object for reading; `owner` closes it. Raises DownloadError."""
    with _translated_errors(), _owned_by(owner):
        answer = await client.get_object(Bucket=bucket, Key=key)
    body = answer["Body"]
    status, headers = _status_and_headers(answer)
    if status != HTTPStatus.OK:
        raise BadUpstream(f"store answered {status} to a plain GetObject")

    async def read() -> bytes:
        try:
            chunk: bytes = await body.read(CHUNK_SIZE)
        except TimeoutError as error:
            raise BrokenTransfer("upstream_timeout", "the store fell silent") from error
        # A body breaks in four ways, of three libraries: aiohttp's ClientPayloadError (not
        # wrapped by aiobotocore), ResponseStreamingError, IncompleteReadError, OSError.
        except (BotoCoreError, aiohttp.ClientError, OSError) as error:
            raise BrokenTransfer("truncated", f"store: {type(error).__name__}") from error
        return chunk

    if "content-length" not in headers and "chunked" not in headers.get("transfer-encoding", ""):
        raise BadUpstream("the store's answer has neither a length nor chunks")
    return Upstream(headers=headers, length=_length(headers), read=read)


async def head_object(client: S3Client, *, bucket: str, key: str) -> Upstream:
    """Return what `open_object` would, without a byte of the body. Raises DownloadError."""
    try:
        with _translated_errors():
            answer = await client.head_object(Bucket=bucket, Key=key)
    except NotFound:
        # An answer to HEAD has no error code: a missing bucket and a refused key look like a
        # missing object. GET tells, and its errors are the ones to give.
        async with AsyncExitStack() as owner:
            await open_object(client, bucket=bucket, key=key, owner=owner)
        raise
    _, headers = _status_and_headers(answer)
    return Upstream(headers=headers, length=_length(headers), read=read_nothing)


async def store_answers(client: S3Client, *, bucket: str, key: str) -> None:
    """Return when the store gives or denies an object in order; raises DownloadError if not."""
    with suppress(NotFound):
        await head_object(client, bucket=bucket, key=key)


def _status_and_headers(answer: Any) -> tuple[int, dict[str, str]]:
    metadata = answer["ResponseMetadata"]
    return metadata["HTTPStatusCode"], metadata["HTTPHeaders"]


def _length(headers: dict[str, str]) -> int | None:
    return int(headers["content-length"]) if "content-length" in headers else None


@contextmanager
def _owned_by(owner: AsyncExitStack) -> Generator[None]:
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
    # Not BotoCoreError alone: an answer that can't be parsed raises ValueError and others.
    except Exception as error:
        raise BadUpstream(f"store: {type(error).__name__}: {error}") from error


def _error_of_answer(error: ClientError) -> DownloadError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = f"store answered {status} {code}"
    if code in _MISSING:
        return NotFound(text)
    if code in _HIDDEN:
        return Hidden(text)
    if code in _BUSY or status in (429, 503):
        return UpstreamBusy(text, retry_after=1)
    if code in _SLOW:
        return UpstreamTimeout(text)
    return BadUpstream(text)
