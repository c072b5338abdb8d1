"""GetObject and HeadObject, signed and sent by ourselves: most of botocore's time is not spent.

It resolves the endpoint, the region and the credentials all the same, and serves what is not an
ordinary bucket.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import SplitResult, quote, urlsplit

import aiohttp

from ...errors import BadUpstream, DownloadError, UpstreamFailed, UpstreamTimeout
from ..idle import close_idle
from ..raw_client import RawClient, RawResponse
from .botocore import BotocoreBucket
from .errors import Answer, Owner, error_for_response, read_error
from .sigv4 import Credentials, Signer

_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,100})</Code>")
_ORDINARY = re.compile("AWS4-HMAC-SHA256 Credential=[^/]+/[0-9]{8}/([^/]+)/s3/aws4_request,")
_FAILURES = (aiohttp.ClientError, OSError)
_UNSIGNED = {"accept-encoding": "identity", "user-agent": "downspout"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the objects of a bucket are, as botocore has resolved it.

    `host` is a Host header; that of a default port has none.
    """

    origin: str
    host: str
    path: str
    """Before the key, percent-encoded."""

    region: str


def resolve_endpoint(url: str, authorization: str, key: str) -> Place | None:
    """Return where a bucket is by a request for `key`; None where it is no ordinary one.

    What is not signed by plain SigV4 for "s3" is S3 Express, an access point of several regions,
    Outposts, or older than all stores.
    """
    parts = urlsplit(url)
    signed = _ORDINARY.match(authorization)
    if signed is None or parts.query or not parts.path.endswith("/" + key):
        return None
    return Place(
        origin=f"{parts.scheme}://{parts.netloc}",
        host=_host_of(parts),
        path=parts.path.removesuffix(key),
        region=signed[1],
    )


def _host_of(parts: SplitResult) -> str:
    default = {"http": ":80", "https": ":443"}[parts.scheme]
    return parts.netloc.removesuffix(default)


@dataclass(frozen=True, slots=True)
class SignedBucket:
    """An ordinary bucket, asked without botocore; what it redirects elsewhere goes through it."""

    wire: RawClient
    place: Place
    credentials: Callable[[], Awaitable[Credentials]]
    """Return those of this moment: botocore refreshes what expires."""

    full: BotocoreBucket
    _signer: Signer = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_signer", Signer(self.place.region))

    async def get(self, owner: Owner, key: str, headers: Mapping[str, str]) -> Answer:
        """Open the object for reading; `owner` closes it. Raises DownloadError."""
        try:
            response = await self._request("GET", key, headers)
            owner.callback(response.close)
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                return _answer(response)
            if not _is_elsewhere(response):
                code = _code_in(await read_error(response.read))
                raise error_for_response(response.status, code)  # noqa: TRY301
            response.close()
        except DownloadError:
            raise
        except Exception as error:
            raise self._translated(error) from error
        return await self.full.get(owner, key, headers)

    async def head(self, key: str) -> Answer:
        """Return what `get` would, without a body. Raises DownloadError."""
        try:
            response = await self._request("HEAD", key, {})
            response.close()
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                return _answer(response)
            if not _is_elsewhere(response):
                raise error_for_response(response.status, "")  # noqa: TRY301
        except DownloadError:
            raise
        except Exception as error:
            raise self._translated(error) from error
        return await self.full.head(key)

    async def _request(self, method: str, key: str, headers: Mapping[str, str]) -> RawResponse:
        target = self.place.path + quote(key, safe="/~")
        signed = self._signer.signed(
            method,
            self.place.host,
            target,
            {**headers, "x-amz-checksum-mode": "ENABLED"},
            credentials=await self.credentials(),
            now=datetime.now(UTC),
        )
        return await self.wire.request(method, target, {**signed, **_UNSIGNED})

    def _translated(self, error: Exception) -> DownloadError:
        """Return whatever goes wrong before the body as one of our errors."""
        if isinstance(error, TimeoutError):
            return UpstreamTimeout(f"store: {type(error).__name__}")
        text = f"store: {type(error).__name__}: {error}"
        if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError):
            close_idle(self.wire.session)
            return UpstreamFailed(text)
        # Not of ClientError alone: botocore finds no credentials, a header is none.
        return BadUpstream(text)


def _is_elsewhere(response: RawResponse) -> bool:
    return HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST or (
        "x-amz-bucket-region" in response.headers and response.status == HTTPStatus.BAD_REQUEST
    )


def _code_in(error: bytes) -> str:
    found = _CODE.search(error)
    return found[1].decode() if found else ""


def _answer(response: RawResponse) -> Answer:
    return Answer(
        response.status,
        response.headers,
        response.read,
        response.close,
        _FAILURES,
        keeps_time=True,
    )
