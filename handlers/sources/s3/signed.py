"""Sign and send GetObject and HeadObject without botocore, to save most of their CPU time.

botocore still resolves the endpoint, the region and the credentials, and serves special buckets.
"""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from ...body.upstream import Owner
from ...errors import DownloadError
from ..errors import translate_error
from ..raw_client import RawClient
from ..response import FIXED_HEADERS, RawResponse
from .bucket import Bucket
from .errors import error_for_response, read_error_body
from .sigv4 import Credentials, sign_request

_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,100})</Code>")
_PLAIN_SIGV4 = re.compile("AWS4-HMAC-SHA256 Credential=[^/]+/[0-9]{8}/([^/]+)/s3/aws4_request,")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The URL parts and the region of a bucket's requests, as botocore resolves them."""

    origin: str
    host: str
    """The Host header, without a default port."""

    path: str
    """The path up to the key, percent-encoded, with a final slash."""

    region: str


def resolve_endpoint(url: str, authorization: str, key: str) -> Endpoint | None:
    """Return the endpoint of a GetObject that botocore signed; None if only botocore can sign.

    S3 Express, multi-Region access points and Outposts sign in other ways than SigV4 for "s3".
    """
    parts = urlsplit(url)
    signed = _PLAIN_SIGV4.match(authorization)
    if signed is None or parts.query or not parts.path.endswith("/" + key):
        return None
    return Endpoint(
        origin=f"{parts.scheme}://{parts.netloc}",
        host=parts.netloc.removesuffix(_DEFAULT_PORTS[parts.scheme]),
        path=parts.path.removesuffix(key),
        region=signed[1],
    )


@dataclass(frozen=True, slots=True)
class SignedBucket:
    """A bucket whose requests downspout signs; botocore repeats redirected requests."""

    raw_client: RawClient
    endpoint: Endpoint
    get_credentials: Callable[[], Awaitable[Credentials]]
    """Returns the current credentials; botocore refreshes them before they expire."""

    botocore_bucket: Bucket

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request; see `Bucket`."""
        return self.botocore_bucket.headers

    async def get(self, owner: Owner, key: str, headers: Mapping[str, str]) -> RawResponse:
        """Send a GetObject; see `Bucket`."""
        response = await self._request(owner, "GET", key, headers)
        return response or await self.botocore_bucket.get(owner, key, headers)

    async def head(self, key: str, headers: Mapping[str, str]) -> RawResponse:
        """Send a HeadObject; see `Bucket`."""
        with ExitStack() as owner:
            response = await self._request(owner, "HEAD", key, headers)
        return response or await self.botocore_bucket.head(key, headers)

    async def presign(self, key: str, lifetime: int, response_headers: Mapping[str, str]) -> str:
        """Return a presigned URL of a GetObject; see `Bucket`."""
        return await self.botocore_bucket.presign(key, lifetime, response_headers)

    async def _request(
        self, owner: Owner, method: str, key: str, headers: Mapping[str, str]
    ) -> RawResponse | None:
        """Send a request; return None if S3 redirects it. Raises DownloadError."""
        host, region = self.endpoint.host, self.endpoint.region
        target = self.endpoint.path + quote(key, safe="/~")
        try:
            credentials, now = await self.get_credentials(), time.time()
            signed = sign_request(
                method, host, target, headers, region=region, credentials=credentials, now=now
            )
            response = await self.raw_client.request(method, target, signed | FIXED_HEADERS)
            owner.callback(response.close)
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                return response
            try:
                is_400 = response.status == HTTPStatus.BAD_REQUEST
                names_region = "x-amz-bucket-region" in response.headers
                if response.status < HTTPStatus.BAD_REQUEST or (is_400 and names_region):
                    return None  # The bucket has another endpoint or region.
                code = _CODE.search(await read_error_body(response.read))
            finally:
                response.close()  # A retry needs the connection.
        except DownloadError:
            raise
        except Exception as error:
            text = f"store: {type(error).__name__}: {error}"
            session, origin = self.raw_client.session, self.endpoint.origin
            raise translate_error(error, session, origin, text) from error
        raise error_for_response(response.status, code[1].decode() if code else "")
