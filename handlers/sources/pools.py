"""Opens and closes the clients of both upstreams, which all requests of a lifespan share."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp
import anyio

from ..settings import Settings
from .connectors import create_socket, protect
from .http import RemoteBody
from .proxies import Proxies
from .raw_client import RawClient, missing_parts
from .s3.botocore import BotocoreBucket, BotocoreClient, missing_transport_parts, open_s3_client
from .s3.bucket import CHECKSUM_MODE, Bucket, Buckets
from .s3.client import S3Client
from .s3.credentials import RenewedCredentials, RenewingBucket
from .s3.signed import SignedBucket, resolve_endpoint

logger = logging.getLogger("downspout")

# Connections in addition to the downloads', so that a readiness check never waits for one.
SPARE_CONNECTIONS = 2

# Shorter than the stores' own timeouts (Ceph 65 s, S3 about 20 s), so that a request rarely uses
# a connection that the store is closing.
IDLE_SECONDS = 15.0

CLOSE_SECONDS = 0.5

# Maximum connections to AUTH_URL; an answer takes milliseconds, so that few are needed.
# Each is used once: no stray answer can be taken for the answer to another client's request.
AUTH_CONNECTIONS = 100

# Any key will do: `resolve_endpoint` removes it from the URL.
_SAMPLE_KEY = "key"


@dataclass(frozen=True, slots=True)
class Clients:
    """The S3 client, the buckets and the HTTP session that serve requests.

    A host's own session decides by itself about proxies, so `proxies` is then empty.
    """

    s3: S3Client
    buckets: Buckets
    http: aiohttp.ClientSession
    proxies: Proxies
    auth_endpoint: RemoteBody | None
    """Sends requests to AUTH_URL, with a pool of its own; None if AUTH_URL is not set."""


@asynccontextmanager
async def open_clients(
    settings: Settings, *, s3: S3Client | None = None, http: aiohttp.ClientSession | None = None
) -> AsyncIterator[Clients]:
    """Open the clients that are None; close them at exit, within `CLOSE_SECONDS`.

    The host closes clients that it passes in. Raises CannotStart if botocore rejects the settings.
    """
    stack = AsyncExitStack()
    try:
        signing: BotocoreClient | None = None
        chain: RenewedCredentials | None = None
        headers = {"x-amz-request-payer": "requester"} if settings.s3_requester_pays else {}
        if s3 is None:
            headers[CHECKSUM_MODE] = "ENABLED"
            connections = settings.store_connections + SPARE_CONNECTIONS
            opening = open_s3_client(settings, connections, idle_seconds=IDLE_SECONDS)
            client = await stack.enter_async_context(opening)
            s3, signing = client.s3, client if _can_sign(settings) else None
            chain = client.chain
        # A host's S3 client may have event handlers that must see every request: use it for all.
        open_bucket = partial(_open_bucket, settings, s3, signing, headers)
        if chain is not None:
            open_bucket = partial(_open_renewing_bucket, open_bucket, chain)
        buckets = Buckets(await open_bucket(settings.s3_image_bucket), open_bucket)
        proxies = Proxies.from_environ() if http is None else Proxies()
        if http is None:
            session = _http_session(settings.max_downloads + SPARE_CONNECTIONS)
            http = await stack.enter_async_context(session)
        auth_endpoint = await _open_auth_endpoint(settings, stack)
        yield Clients(s3, buckets, http, proxies, auth_endpoint)
    finally:
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await stack.aclose()


def _can_sign(settings: Settings) -> bool:
    """Return whether S3_DIRECT is on and aiohttp and aiobotocore have the parts it needs."""
    if not settings.s3_direct:
        return False
    missing = missing_parts() + missing_transport_parts()
    if missing:
        logger.warning(
            "S3_DIRECT: this version of aiohttp or aiobotocore has no %s; "
            "requests to S3 go through botocore, which is slower",
            ", ".join(missing),
        )
    return not missing


async def _open_bucket(
    settings: Settings,
    s3: S3Client,
    signing: BotocoreClient | None,
    headers: Mapping[str, str],
    name: str,
) -> Bucket:
    """Return a SignedBucket if `signing` allows it for this bucket, else a BotocoreBucket."""
    timeout = settings.upstream_read_timeout
    head_timeout = settings.upstream_connect_timeout + timeout
    bucket = BotocoreBucket(s3, name, timeout, head_timeout, dict(headers))
    if signing is None or signing.get_credentials is None:
        return bucket
    request = await bucket.prepare_get(_SAMPLE_KEY)
    endpoint = resolve_endpoint(*request, _SAMPLE_KEY) if request else None
    session = await signing.raw_session(endpoint.origin) if endpoint else None
    if endpoint is None or session is None:
        return bucket
    raw_client = RawClient(session, endpoint.origin, read_timeout=timeout)
    return SignedBucket(raw_client, endpoint, signing.get_credentials, bucket)


async def _open_renewing_bucket(
    open_bucket: Callable[[str], Awaitable[Bucket]], chain: RenewedCredentials, name: str
) -> Bucket:
    return RenewingBucket(await open_bucket(name), chain)


async def _open_auth_endpoint(settings: Settings, stack: AsyncExitStack) -> RemoteBody | None:
    if settings.auth_url is None:
        return None
    return RemoteBody(
        session=await stack.enter_async_context(_http_session(AUTH_CONNECTIONS, reuses=False)),
        url=settings.auth_url,
        length=None,
        read_timeout=settings.upstream_read_timeout,
        connect_timeout=settings.upstream_connect_timeout,
        proxies=Proxies.from_environ(),
    )


def _http_session(connections: int, *, reuses: bool = True) -> aiohttp.ClientSession:
    idle = IDLE_SECONDS if reuses else None
    connector = aiohttp.TCPConnector(
        limit=connections,
        keepalive_timeout=idle,
        force_close=not reuses,
        socket_factory=create_socket,
    )
    return aiohttp.ClientSession(connector=protect(connector), cookie_jar=aiohttp.DummyCookieJar())
