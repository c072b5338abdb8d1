"""The credentials that botocore's chain finds, renewed while the service runs."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiobotocore.credentials import AioCredentials
from botocore import exceptions
from botocore.credentials import ReadOnlyCredentials

from ...body.upstream import Owner
from ...errors import BadUpstream, CredentialsRejected
from ..response import RawResponse
from .bucket import Bucket
from .sigv4 import Credentials

logger = logging.getLogger("downspout")

# Pause after a fetch that has failed, between fetches in the last minute of the credentials, and
# between two runs of the chain because of a rejected key.
RETRY_SECONDS = 3.0

# Pause between fetches in the last 15 minutes of the credentials, but for the last minute. Without
# a pause, a session of 15 minutes is fetched for each download.
REFRESH_SECONDS = 60.0

# A provider that is not there yet, or is down, raises one of these. Other errors of the chain are
# mistakes in the configuration. KeyError: a container's agent answers 200 with an error.
_PROVIDER_DOWN = (
    exceptions.ConnectionError,
    exceptions.CredentialRetrievalError,
    exceptions.HTTPClientError,
    exceptions.MetadataRetrievalError,
    KeyError,
    OSError,
)

NO_CREDENTIALS = (
    "store: no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "S3_UNSIGNED=true for a public bucket"
)

# Signs requests that are not sent.
_PLACEHOLDER: Credentials = ReadOnlyCredentials("placeholder", "placeholder", None)


class RenewedCredentials(AioCredentials):  # type: ignore[misc] # aiobotocore has no types
    """The current credentials of botocore's chain; they are fetched in a task of their own.

    Requests use the credentials until they expire, and wait for a fetch only without valid ones.
    botocore's own object makes requests wait in the last 15 minutes, and never runs the chain
    again if the chain found nothing, or a key without an expiry time.
    """

    def __init__(self, load: Callable[[], Awaitable[Any]], is_unsent: Callable[[], bool]) -> None:
        super().__init__("", "", method="downspout")
        self._load = load
        self._is_unsent = is_unsent
        self._source: Any = None
        self.current: Credentials | None = None
        """The credentials that the next request is signed with; None if there are none yet."""
        self._error: Exception | None = None
        self._lock = asyncio.Lock()
        self._fetch_task: asyncio.Task[None] | None = None
        self._fetched_at = self._renewed_at = float("-inf")
        self._renew_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run the chain for the first time; raises botocore's errors of the configuration.

        It does not wait for credentials that need a further request, as those of STS do.
        """
        try:
            self._source = await self._load()
        except _PROVIDER_DOWN as error:
            self._error = error
        if self._source is not None:
            self._start_fetch()
        else:
            logger.warning(
                "AWS credentials: none found yet (%s); downspout looks again at each request, "
                "at most every %g s",
                _text(self._error or exceptions.NoCredentialsError()),
                RETRY_SECONDS,
            )

    async def load_credentials(self) -> "RenewedCredentials":
        """Return these credentials, as the session's provider of credentials."""
        return self

    async def get_frozen_credentials(self) -> Credentials:
        """Return the current credentials; raises BadUpstream if none are valid."""
        if self._is_unsent():
            return self.current or _PLACEHOLDER
        if self.current is None or self._expires_within(None):
            self._fetch_if_due()
            if not self._is_valid() and self._fetch_task:
                await asyncio.shield(self._fetch_task)
            if not self._is_valid():
                self._raise_error()
        return self.current  # type: ignore[return-value] # It is valid.

    async def renew(self, rejected: Credentials | None) -> bool:
        """Run the chain again after the store rejected a key; return whether there is another.

        Within `RETRY_SECONDS`, further calls do not run it again.
        """
        if self.current != rejected:
            return True
        if self._renew_task is None or time.monotonic() - self._renewed_at >= RETRY_SECONDS:
            self._renewed_at = time.monotonic()
            self._renew_task = asyncio.create_task(self._fetch(reload=True), context=Context())
        await asyncio.shield(self._renew_task)
        return self.current != rejected

    async def aclose(self) -> None:
        """Stop the running fetches."""
        tasks = [task for task in (self._fetch_task, self._renew_task) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _expires_within(self, seconds: float | None) -> bool:
        """Return whether the source expires within `seconds`; None means botocore's 15 minutes."""
        is_needed = getattr(self._source, "refresh_needed", None)
        return is_needed is not None and bool(is_needed(seconds))

    def _is_valid(self) -> bool:
        return self.current is not None and not self._expires_within(0)

    def _fetch_if_due(self) -> None:
        """Start a fetch, unless one is running or the last one has ended just now."""
        pause = REFRESH_SECONDS
        if self.current is None or self._expires_within(REFRESH_SECONDS):
            pause = RETRY_SECONDS if self._error or self._is_valid() else 0.0
        is_running = self._fetch_task is not None and not self._fetch_task.done()
        if not is_running and time.monotonic() - self._fetched_at >= pause:
            self._start_fetch()

    def _start_fetch(self) -> None:
        # An empty context: the fetch is not part of the request that starts it.
        self._fetch_task = asyncio.create_task(self._fetch(), context=Context())

    async def _fetch(self, *, reload: bool = False) -> None:
        """Refresh the credentials, or run the chain again; an error leaves them as they are."""
        async with self._lock:
            try:
                source = None if reload or self._error else self._source
                source = source or await self._load()
                if source is None:
                    raise exceptions.NoCredentialsError  # noqa: TRY301 # as the chain's own errors
                self.current, self._source = await source.get_frozen_credentials(), source
                self._error = None
            except Exception as error:  # noqa: BLE001 # Providers raise anything.
                self._error = error.with_traceback(None)
                if self._is_valid():
                    logger.warning(
                        "AWS credentials: can't be renewed (%s); downspout uses the current ones "
                        "and tries again, at most every %g s",
                        _text(error),
                        RETRY_SECONDS if reload else REFRESH_SECONDS,
                    )
            finally:
                self._fetched_at = time.monotonic()

    def _raise_error(self) -> None:
        if self._error is None or isinstance(self._error, exceptions.NoCredentialsError):
            raise BadUpstream(NO_CREDENTIALS)
        raise BadUpstream(f"store: no valid AWS credentials: {_text(self._error)}")


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


@dataclass(frozen=True, slots=True)
class RenewingBucket:
    """A bucket that repeats a request once with another key if the store rejects the first."""

    bucket: Bucket
    chain: RenewedCredentials

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request; see `Bucket`."""
        return self.bucket.headers

    async def get(self, owner: Owner, key: str, headers: Mapping[str, str]) -> RawResponse:
        """Send a GetObject; see `Bucket`."""
        return await self._send(partial(self.bucket.get, owner, key, headers))

    async def head(self, key: str, headers: Mapping[str, str]) -> RawResponse:
        """Send a HeadObject; see `Bucket`."""
        return await self._send(partial(self.bucket.head, key, headers))

    async def presign(self, key: str, lifetime: int, response_headers: Mapping[str, str]) -> str:
        """Return a presigned URL of a GetObject; see `Bucket`."""
        return await self.bucket.presign(key, lifetime, response_headers)

    async def _send(self, request: Callable[[], Awaitable[RawResponse]]) -> RawResponse:
        used = self.chain.current
        try:
            return await request()
        except CredentialsRejected:
            if not await self.chain.renew(used):
                raise
        return await request()
