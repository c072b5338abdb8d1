"""The S3 API through aiobotocore: every kind of bucket, endpoint and credentials that it knows.

With `_clients` the only module that knows botocore.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - its name there
    ConnectTimeoutError,
    HTTPClientError,
    ReadTimeoutError,
)

from ...body.upstream import READ_BUFFER
from ...errors import BadUpstream, UpstreamFailed, UpstreamTimeout
from ...rfc9110.dates import http_date
from ..idle import close_idle
from .errors import Answer, Owner, error_for_response, read_error

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

# Iterating the body itself gives 1 KiB at a time, which is where an S3 gateway in Python loses its
# speed. A slow client's download holds a few chunks: 0.8 MiB with these, 2.3 MiB with 512 KiB.
CHUNK_SIZE = 128 * 1024

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

# How GetObject names the headers of a request.
_PARAMETERS = {"range": "Range", "if-match": "IfMatch"}

_probe: ContextVar[list[tuple[str, str]] | None] = ContextVar("downspout_probe", default=None)
_owner: ContextVar[Owner | None] = ContextVar("downspout_s3_owner", default=None)


class OwnedSession(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """aiobotocore's transport, where every response has an owner from the moment it is open.

    get_object can fail after the response has arrived (at whatever header it can't parse, at a
    cancellation), and then nobody would hold what has to be closed: the connection is lost to the
    pool for ever.
    Redirects are not followed, as in botocore itself; aiohttp follows them by default.
    """

    async def _get_session(self, proxy_url: str | None) -> _OwnedRequests:
        return _OwnedRequests(await self.session(proxy_url))

    async def session(self, proxy_url: str | None = None) -> aiohttp.ClientSession:
        """Return aiohttp's session, with the pool, timeouts and TLS that botocore has set."""
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        return session

    def is_proxied(self, url: str) -> bool:
        """Return whether botocore would send a request through a proxy."""
        return self._proxy_config.proxy_url_for(url) is not None


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
            # aiobotocore would read any size; this is where read() keeps what it has read.
            try:
                response._body = await read_error(response.content.readany)  # noqa: SLF001
            except aiohttp.ClientError:
                response.close()
                raise
        # botocore's parser raises for values that it can't read, whether or not they are wanted.
        headers = response._raw_headers or ()  # noqa: SLF001 - the public name is a cached copy
        response._raw_headers = tuple(filter(_is_readable, headers))  # noqa: SLF001
        return response


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


def ask_for_region_once(context: dict[str, Any], **_: object) -> None:
    """Have botocore not redirect the request that it asks for a bucket's region with.

    Where a store answers that as it did the first, with a redirect that tells no region, it would
    ask again about that, a hundred times deep. A handler of botocore's `before-call`.
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


class _NotSentError(Exception):
    """A request that was only to be seen."""


@dataclass(frozen=True, slots=True)
class BotocoreBucket:
    """A bucket, through the whole of botocore."""

    client: S3Client
    bucket: str

    async def prepared_get(self, key: str) -> tuple[str, str] | None:
        """Return address and Authorization of what `get` would send; None where it can't."""
        seen: list[tuple[str, str]] = []

        def keep(request: AWSPreparedRequest, **_: object) -> None:
            if _probe.get() is not seen:  # another request, through the same client
                return
            signed: bytes | str = request.headers.get("Authorization", "")
            seen.append((request.url, signed if isinstance(signed, str) else signed.decode()))
            raise _NotSentError

        events = self.client.meta.events
        probe = _probe.set(seen)
        events.register_last("before-send.s3.GetObject", keep)
        try:
            # Whatever else goes wrong would in every request, which tell of it one by one.
            with suppress(Exception):
                await self.client.get_object(Bucket=self.bucket, Key=key)
        finally:
            events.unregister("before-send.s3.GetObject", keep)
            _probe.reset(probe)
        return seen[0] if seen else None

    async def get(self, owner: Owner, key: str, headers: Mapping[str, str]) -> Answer:
        """Open the object for reading; `owner` closes it. Raises DownloadError."""
        wanted: dict[str, Any] = {_PARAMETERS[name]: value for name, value in headers.items()}
        with _translated_errors(), _owned_by(owner):
            answer = await self.client.get_object(Bucket=self.bucket, Key=key, **wanted)
        body = answer["Body"]
        owner.callback(body.close)  # A client of our own has its transport see to that before.
        return _answer(answer, partial(body.read, CHUNK_SIZE), body.close)

    async def head(self, key: str) -> Answer:
        """Return what `get` would, without a body. Raises DownloadError."""
        with _translated_errors():
            answer = await self.client.head_object(Bucket=self.bucket, Key=key)
        return _answer(answer, _nothing, lambda: None)


def _answer(answer: Any, read: Any, close: Any) -> Answer:
    metadata = answer["ResponseMetadata"]
    status, headers = metadata["HTTPStatusCode"], metadata["HTTPHeaders"]
    return Answer(status, headers, read, close, _BODY_FAILURES)


async def _nothing() -> bytes:
    return b""


@contextmanager
def _owned_by(owner: Owner) -> Generator[None]:
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
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise error_for_response(status, "" if code == str(status) else code) from error
    except (ConnectTimeoutError, ReadTimeoutError, TimeoutError) as error:
        raise UpstreamTimeout(f"store: {error}") from error
    except (ConnectionError, HTTPClientError) as error:
        raise UpstreamFailed(f"store: {type(error).__name__}: {error}") from error
    # Not BotoCoreError alone: an answer that can't be parsed raises ValueError and others.
    except Exception as error:
        raise BadUpstream(f"store: {type(error).__name__}: {error}") from error
