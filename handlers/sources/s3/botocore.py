"""The S3 client and its buckets; only this file, `session` and `credentials` know botocore."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from botocore import exceptions
from botocore.awsrequest import AWSPreparedRequest
from botocore.utils import get_environ_proxies

from ...body.upstream import Owner, Read
from ...errors import BadUpstream, CannotStart, DownloadError, UpstreamFailed, UpstreamTimeout
from ...rfc9110.dates import http_date
from ...settings import Settings
from ..connectors import create_socket, protect
from ..errors import close_idle
from ..raw_head import join_raw_headers
from ..response import READ_BUFFER, RawResponse, payload_reader, take_connection
from .client import S3Client, presign_get
from .credentials import NO_CREDENTIALS, RenewedCredentials
from .errors import error_for_response, read_error_body
from .session import create_client, create_session
from .sigv4 import Credentials

# Bytes of a read; aiobotocore's default is 1 KiB. A slow client's download holds a few chunks:
# 0.8 MiB with this size, 2.3 MiB with 512 KiB.
CHUNK_SIZE = 128 * 1024

# aiobotocore raises aiohttp's errors, ResponseStreamingError and IncompleteReadError.
_BODY_ERRORS = (exceptions.BotoCoreError, aiohttp.ClientError, OSError)

_PARAMETERS = {"range": "Range", "if-match": "IfMatch", "x-amz-request-payer": "RequestPayer"}

# Headers that downspout does not use, and whose invalid values make botocore raise an error.
_UNUSED_HEADERS = {
    b"x-amz-mp-parts-count",
    b"x-amz-missing-meta",
    b"x-amz-tagging-count",
    b"x-amz-delete-marker",
    b"x-amz-object-lock-retain-until-date",
    b"x-amz-server-side-encryption-bucket-key-enabled",
}

_prepared: ContextVar[list[tuple[str, str]] | None] = ContextVar("prepared", default=None)
# In a call of `_request`: what closes the responses, and the headers that are no parameters.
_sending: ContextVar[tuple[ExitStack, Mapping[str, str]] | None] = ContextVar(
    "sending", default=None
)


def missing_transport_parts() -> list[str]:
    """Return the private methods that `_OwnedTransport` needs and aiobotocore no longer has."""
    names = ("_create_connector", "_get_session")
    return [f"AIOHTTPSession.{name}" for name in names if not hasattr(AIOHTTPSession, name)]


@dataclass(frozen=True, slots=True)
class BotocoreClient:
    """An S3 client opened by downspout, with the credentials and session for SignedBucket."""

    s3: S3Client
    get_credentials: Callable[[], Awaitable[Credentials]] | None
    """Returns the current credentials; None instead of a function for unsigned requests."""

    chain: RenewedCredentials | None
    """None if the settings have the access key."""

    _transport: "_OwnedTransport"

    async def raw_session(self, url: str) -> aiohttp.ClientSession | None:
        """Return the client's aiohttp session (pool, TLS); None if `url` goes through a proxy."""
        is_proxied = urlsplit(url).scheme in get_environ_proxies(url)
        return None if is_proxied else await self._transport.session()


@asynccontextmanager
async def open_s3_client(
    settings: Settings, max_connections: int, *, idle_seconds: float
) -> AsyncIterator[BotocoreClient]:
    """Open an S3 client, close it at exit; raise CannotStart if botocore rejects the settings."""
    session, chain = create_session(settings, is_unsent=lambda: _prepared.get() is not None)
    transports: list[_OwnedTransport] = []

    def make_transport(**options: Any) -> _OwnedTransport:
        transports.append(_OwnedTransport(**options))
        return transports[-1]

    pool = {
        "http_session_cls": make_transport,
        "max_pool_connections": max_connections,
        "connector_args": {"keepalive_timeout": idle_seconds, "socket_factory": create_socket},
    }
    async with AsyncExitStack() as stack:
        try:
            if chain:
                stack.push_async_callback(chain.aclose)
                await chain.start()
            s3 = await stack.enter_async_context(create_client(settings, session, **pool))
            credentials = None if settings.s3_unsigned else await session.get_credentials()
        except Exception as error:
            text = " ".join(f"AWS configuration: {type(error).__name__}: {error}".split())
            raise CannotStart(text) from error
        events = s3.meta.events
        events.register("before-call.s3.GetObject", _add_headers)
        events.register("before-call.s3.HeadObject", _add_headers)
        events.register("before-call.s3.HeadBucket", _disable_region_redirect)
        events.register_last("before-send.s3.GetObject", _keep_prepared)
        get_credentials = credentials and credentials.get_frozen_credentials
        yield BotocoreClient(s3, get_credentials, chain, transports[0])


def _add_headers(params: dict[str, Any], **_: object) -> None:
    """Add the headers of `_request` that are no parameters."""
    if sending := _sending.get():
        params["headers"].update(sending[1])


def _keep_prepared(request: AWSPreparedRequest, **_: object) -> None:
    """For `prepare_get`, keep the signed request and raise, so that botocore does not send it."""
    prepared = _prepared.get()
    if prepared is not None:
        signed: bytes | str = request.headers.get("Authorization", "")
        prepared.append((request.url, signed if isinstance(signed, str) else signed.decode()))
        raise RuntimeError("prepared, not sent")


def _disable_region_redirect(context: dict[str, Any], **_: object) -> None:
    """Keep botocore from following a redirected HeadBucket by another HeadBucket."""
    context.setdefault("s3_redirect", {})["redirected"] = True


class _OwnedTransport(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """aiobotocore's transport, which registers each response for `_request` to close.

    get_object can fail after the response has arrived, by a header that it can't parse or by a
    cancellation. Without the registration, the connection would never return to the pool.
    """

    async def session(self, proxy_url: str | None = None) -> aiohttp.ClientSession:
        return await super()._get_session(proxy_url)  # type: ignore[no-any-return]

    async def _get_session(self, proxy_url: str | None) -> "_OwnedTransport":  # noqa: ARG002
        return self  # aiobotocore then calls `self.request` with the proxy.

    async def _create_connector(self, proxy_url: str | None) -> aiohttp.BaseConnector:
        connector: aiohttp.BaseConnector = await super()._create_connector(proxy_url)
        return protect(connector)

    async def request(self, method: str, **options: Any) -> SimpleNamespace:
        """Send a request; return the attributes of aiohttp's response that aiobotocore uses."""
        session = await self.session(options.get("proxy"))
        try:
            response = await session.request(
                method, allow_redirects=False, read_bufsize=READ_BUFFER, **options
            )
        except aiohttp.ClientConnectionError as error:
            close_idle(session, str(options["url"]), error)
            raise
        close = take_connection(response)
        if sending := _sending.get():
            sending[0].callback(close)
        error_body = None
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:  # aiobotocore has no size limit.
            error_body = await read_error_body(response.content.readany)

        async def read() -> bytes:
            return await response.read() if error_body is None else error_body

        return SimpleNamespace(
            url=response.url,
            status=response.status,
            raw_headers=join_raw_headers(filter(_is_readable, response.raw_headers)),
            content=response.content,
            read=read,
            close=close,
        )


def _is_readable(header: tuple[bytes, bytes]) -> bool:
    """Return False for a header on which botocore's parser would raise an error, else True."""
    name, value = header[0].lower(), header[1]
    if not value.isascii() or name in _UNUSED_HEADERS:
        return False
    return name != b"last-modified" or http_date(value.decode()) is not None


@dataclass(frozen=True, slots=True)
class BotocoreBucket:
    """A bucket whose requests go through botocore."""

    client: S3Client
    name: str
    read_timeout: float

    head_timeout: float
    """Seconds until a response begins, with the wait for a free connection."""

    headers: dict[str, str] = field(default_factory=dict)
    """Headers of every request; see `Bucket`."""

    async def get(self, owner: Owner, key: str, headers: Mapping[str, str]) -> RawResponse:
        """Send a GetObject; see `Bucket`."""
        async with _request(owner, headers, self.head_timeout) as options:
            output = await self.client.get_object(Bucket=self.name, Key=key, **options)
        body = output["Body"]
        close = take_connection(body)
        owner.callback(close)  # A host's client has no _OwnedTransport.
        read_chunk = partial(body.read, CHUNK_SIZE)
        read = payload_reader(read_chunk, self.read_timeout, "store", _BODY_ERRORS)
        return _response(output, read, close)

    async def head(self, key: str, headers: Mapping[str, str]) -> RawResponse:
        """Send a HeadObject; see `Bucket`."""
        with ExitStack() as owner:
            async with _request(owner, headers, self.head_timeout) as options:
                output = await self.client.head_object(Bucket=self.name, Key=key, **options)
        return _response(output, _read_nothing, lambda: None)

    async def presign(self, key: str, lifetime: int, response_headers: Mapping[str, str]) -> str:
        """Return a presigned URL of a GetObject; see `Bucket`."""
        parameters = {"Bucket": self.name, "Key": key}
        for name, value in response_headers.items():
            parameters["Response" + name.title().replace("-", "")] = value
        payer = self.headers.get("x-amz-request-payer")
        return await presign_get(self.client, parameters, lifetime, payer)

    async def prepare_get(self, key: str) -> tuple[str, str] | None:
        """Return the URL and Authorization of a GetObject, which is not sent; None on an error."""
        prepared: list[tuple[str, str]] = []
        token = _prepared.set(prepared)
        try:
            # `_keep_prepared` raises. Any other error recurs in real requests, which report it.
            with suppress(Exception):
                await self.client.get_object(Bucket=self.name, Key=key)
        finally:
            _prepared.reset(token)
        return prepared[0] if prepared else None


def _response(output: Any, read: Read, close: Callable[[], None]) -> RawResponse:
    metadata = output["ResponseMetadata"]
    return RawResponse(metadata["HTTPStatusCode"], metadata["HTTPHeaders"], read, close)


async def _read_nothing() -> bytes:
    return b""


@asynccontextmanager
async def _request(
    owner: Owner, headers: Mapping[str, str], timeout: float
) -> AsyncIterator[dict[str, Any]]:
    """Yield the parameters for a request with `headers`; let `owner` close the response.

    On an error, or if no response has begun after `timeout` seconds, close the response and raise
    a DownloadError.
    """
    responses = ExitStack()
    # As a parameter, x-amz-checksum-mode would make botocore verify the checksum, also of a range.
    others = {name: value for name, value in headers.items() if name not in _PARAMETERS}
    token = _sending.set((responses, others))
    try:
        async with asyncio.timeout(timeout):  # aiohttp waits forever for its pool.
            yield {_PARAMETERS[name]: headers[name] for name in headers.keys() - others.keys()}
        owner.callback(responses.pop_all().close)
    except DownloadError:
        raise
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise error_for_response(status, "" if code == str(status) else code) from error
    except (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError, TimeoutError) as error:
        raise UpstreamTimeout(f"store: {str(error) or 'no connection or answer'}") from error
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        raise UpstreamFailed(f"store: {type(error).__name__}: {error}") from error
    except exceptions.NoCredentialsError as error:
        raise BadUpstream(NO_CREDENTIALS) from error
    # botocore raises ValueError and others, too, for responses that it can't parse.
    except Exception as error:
        raise BadUpstream(f"store: {type(error).__name__}: {error}") from error
    finally:
        _sending.reset(token)
        responses.close()
