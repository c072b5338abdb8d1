"""The clients of the two upstreams, opened once for a lifespan and shared by all requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession, get_session
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from ..errors import CannotStart
from .raw_client import RawClient
from .s3.botocore import BotocoreBucket, OwnedSession, ask_for_checksum, ask_for_region_once
from .s3.bucket import Store
from .s3.buckets import Buckets
from .s3.signed import SignedBucket, resolve_endpoint
from .s3.sigv4 import Credentials

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

    from settings import Settings

# Connections beyond those of downloads, so that a readiness probe never waits behind them.
SPARE_CONNECTIONS = 2

# Idle connections are dropped before the store does it (Ceph after 65 s, S3 after about 20 s),
# so that a request rarely meets one that is just being closed.
IDLE_SECONDS = 15.0

CLOSE_SECONDS = 2.0

# Any: only where it stands in an address is of interest.
_A_KEY = "key"


@dataclass(frozen=True, kw_only=True, slots=True)
class Clients:
    """What requests fetch with."""

    s3: S3Client
    buckets: Buckets
    http: aiohttp.ClientSession


def chain_problem() -> str | None:
    """Return what is wrong with botocore's own files and profile, or None.

    Its session would raise the same inside of the lifespan, where a server can only print it as
    a traceback.
    """
    try:
        Session().get_scoped_config()
    except BotoCoreError as error:
        return str(error)
    return None


@asynccontextmanager
async def open_clients(
    settings: Settings, *, s3: S3Client | None = None, http: aiohttp.ClientSession | None = None
) -> AsyncIterator[Clients]:
    """Open the clients that are not given; closes them, within `CLOSE_SECONDS`, at the end.

    Raises CannotStart.
    """
    stack = AsyncExitStack()
    try:
        open_store: Callable[[str], Awaitable[Store]]
        if s3 is None:
            transports: list[OwnedSession] = []
            session = get_session()
            s3 = await _entered_s3_client(settings, session, transports, stack)
            open_store = partial(_store, settings, session, s3, transports[0])
        else:
            # Whatever its host has had it do to a request is to be done to ours.
            open_store = partial(_full_store, s3)
        buckets = Buckets(await open_store(settings.s3_image_bucket), open_store)
        if http is None:
            http = await stack.enter_async_context(_http_session(settings))
        yield Clients(s3=s3, buckets=buckets, http=http)
    finally:
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await stack.aclose()


async def _full_store(client: S3Client, bucket: str) -> Store:
    return BotocoreBucket(client, bucket)


async def _entered_s3_client(
    settings: Settings, session: AioSession, transports: list[OwnedSession], stack: AsyncExitStack
) -> S3Client:
    """Make the S3 client; raises CannotStart for whatever botocore dislikes in its files."""
    try:
        client = await stack.enter_async_context(_s3_client(settings, session, transports))
    except Exception as error:
        text = " ".join(f"AWS configuration: {type(error).__name__}: {error}".split())
        raise CannotStart(text) from error
    for operation in ("GetObject", "HeadObject"):
        client.meta.events.register(f"before-call.s3.{operation}", ask_for_checksum)
    client.meta.events.register("before-call.s3.HeadBucket", ask_for_region_once)
    return client


async def _store(
    settings: Settings, session: AioSession, client: S3Client, transport: OwnedSession, bucket: str
) -> Store:
    """Return how a bucket is asked: by ourselves where it is an ordinary one."""
    full = BotocoreBucket(client, bucket)
    if not settings.s3_direct:
        return full
    request = await full.prepared_get(_A_KEY)
    if request is None:  # No credentials to be had, or none that fit: each request will tell.
        return full
    place = resolve_endpoint(*request, _A_KEY)
    credentials = await _credentials(settings, session)
    if place is None or credentials is None or transport.is_proxied(place.origin):
        return full
    wire = RawClient(
        await transport.session(), place.origin, silence=settings.upstream_read_timeout
    )
    return SignedBucket(wire, place, credentials, full)


async def _credentials(
    settings: Settings, session: AioSession
) -> Callable[[], Awaitable[Credentials]] | None:
    if settings.aws_access_key_id and settings.aws_secret_access_key:
        fixed = ReadOnlyCredentials(
            settings.aws_access_key_id, settings.aws_secret_access_key, settings.aws_session_token
        )
        return partial(_itself, fixed)
    found: AioCredentials | None = await session.get_credentials()
    return found.get_frozen_credentials if found else None


async def _itself(credentials: Credentials) -> Credentials:
    return credentials


def _s3_client(
    settings: Settings, session: AioSession, transports: list[OwnedSession]
) -> S3Client:
    def transport(*args: Any, **options: Any) -> OwnedSession:
        transports.append(OwnedSession(*args, **options))
        return transports[-1]

    style = settings.s3_addressing_style or ("path" if settings.s3_endpoint_url else "auto")
    config = AioConfig(
        # Other vendors' stores know no older signature, and no checksums of S3's own.
        signature_version="s3v4",
        response_checksum_validation="when_required",
        request_checksum_calculation="when_required",
        s3={"addressing_style": style},
        connect_timeout=settings.upstream_connect_timeout,
        read_timeout=settings.upstream_read_timeout,
        max_pool_connections=settings.store_connections + SPARE_CONNECTIONS,
        # What is tried again, and how often, is one rule for both upstreams: `_patience`.
        retries={"mode": "standard", "total_max_attempts": 1},
        connector_args={"keepalive_timeout": IDLE_SECONDS},
        http_session_cls=transport,
        # Reads botocore's data files in a thread, not on the event loop (aiobotocore#1023).
        warm_up_loader_caches=True,
    )
    client: S3Client = session.create_client(
        "s3",
        region_name=settings.s3_region,
        endpoint_url=settings.s3_endpoint_url,
        verify=settings.s3_tls_verify,
        aws_access_key_id=settings.aws_access_key_id,
        aws_secret_access_key=settings.aws_secret_access_key,
        aws_session_token=settings.aws_session_token,
        config=config,
    )
    return client


def _http_session(settings: Settings) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=settings.max_downloads + SPARE_CONNECTIONS, keepalive_timeout=IDLE_SECONDS
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
