"""The S3 source: opens objects of buckets, and ranges of objects."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from ...body.retry import NO_RETRY, RetryPolicy
from ...body.upstream import Owner, Upstream
from ...errors import BadUpstream, NotFound, PreconditionFailed, RangeNotSatisfiable
from ...rfc9110.ranges import Spec
from ..response import RawResponse, check_response
from .errors import RejectedHeader, Unexplained
from .names import check_bucket

CHECKSUM_MODE = "x-amz-checksum-mode"

logger = logging.getLogger("downspout")


class Bucket(Protocol):
    """A SignedBucket, BotocoreBucket or RenewingBucket; DownloadError for an error response."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request; x-amz-checksum-mode only until the store rejects it."""

    async def get(self, owner: Owner, key: str, headers: Mapping[str, str]) -> RawResponse:
        """Send a GetObject; `owner` closes the response.

        `headers` are those of the bucket, and range and if-match if needed.
        """

    async def head(self, key: str, headers: Mapping[str, str]) -> RawResponse:
        """Send a HeadObject and return its response, which has no body."""

    async def presign(self, key: str, lifetime: int, response_headers: Mapping[str, str]) -> str:
        """Return the URL of a GetObject, valid for `lifetime` seconds; raise DownloadError.

        The store will answer it with `response_headers`; S3 supports content-type,
        content-disposition and four others.
        """


@dataclass(slots=True)
class StoredObject:
    """An object of a bucket; it may not exist."""

    bucket: Bucket
    key: str
    retry_policy: RetryPolicy = NO_RETRY

    async def open(
        self, owner: Owner, *, spec: Spec | None = None, if_match: str | None = None
    ) -> Upstream:
        """Open the object, or its range `spec`; `owner` closes it.

        The status may be 200 for a range, too. Raises DownloadError: PreconditionFailed if the
        entity tag is not `if_match`, RangeNotSatisfiable if the object has no byte in the range.
        """
        return await self.retry_policy.open(partial(self._open, owner, spec, if_match))

    async def _open(self, owner: Owner, spec: Spec | None, if_match: str | None) -> Upstream:
        headers = {"range": f"bytes={spec}"} if spec else {}
        if if_match:
            headers["if-match"] = if_match
        try:
            response = await self._get(owner, headers)
        except RangeNotSatisfiable as error:
            if spec is None:
                raise BadUpstream("store answered 416 to a request without a range") from error
            raise
        upstream = check_response(response, spec, "store")
        if if_match not in (None, upstream.validators.etag):
            upstream.close()
            raise PreconditionFailed("store ignored If-Match and sent another version")
        return upstream

    async def head(self, *, needs_length: bool = True) -> Upstream:
        """Return the object's headers without requesting its body; raises DownloadError."""
        return await self.retry_policy.open(partial(self._head, needs_length))

    async def _head(self, needs_length: bool) -> Upstream:
        try:
            response = await self.bucket.head(self.key, self.bucket.headers)
        except (NotFound, Unexplained):
            # The response to a HEAD has no error code: a missing bucket or a rejected access key
            # looks like a missing object, an expired token (400) like a rejected header. The error
            # code of a GET tells them apart.
            with ExitStack() as owner, suppress(RangeNotSatisfiable):  # Empty, it exists by now.
                await self._open(owner, Spec(0, 0), None)
            # The object exists by now, or the GET renewed the access key or dropped a header.
            response = await self.bucket.head(self.key, self.bucket.headers)
        upstream = check_response(response, None, "store", has_body=False)
        # Some stores answer a HEAD without a length, or with 0.
        if needs_length and not upstream.length:
            upstream.length = await self._measure(upstream)
        return upstream

    async def _measure(self, metadata: Upstream) -> int | None:
        """Return the object's length from a GET for its first byte, if that is of this version."""
        with ExitStack() as owner, suppress(RangeNotSatisfiable):  # The object is empty.
            first = await self._open(owner, Spec(0, 0), None)
            if first.validators == metadata.validators:
                return first.object_length
        return metadata.length

    async def _get(self, owner: Owner, headers: Mapping[str, str]) -> RawResponse:
        """Send a GetObject; drop x-amz-checksum-mode for good if the store rejects that header.

        Backblaze B2 answers 400 InvalidArgument to every request with it.
        """
        fixed = self.bucket.headers
        try:
            return await self.bucket.get(owner, self.key, {**fixed, **headers})
        except RejectedHeader:
            if CHECKSUM_MODE not in fixed:
                raise
        without = {name: value for name, value in fixed.items() if name != CHECKSUM_MODE}
        response = await self.bucket.get(owner, self.key, {**without, **headers})
        if fixed.pop(CHECKSUM_MODE, None):
            logger.warning(
                "the store rejects x-amz-checksum-mode: downloads from this bucket have no "
                "Repr-Digest, and VERIFY_CHECKSUMS can't verify them"
            )
        return response

    async def probe(self, deadline: float) -> None:
        """Return if the store answers 200 or 404 before `deadline`, by time.monotonic().

        Raises DownloadError.
        """
        with suppress(NotFound):
            await replace(self, retry_policy=RetryPolicy(until=deadline)).head()


@dataclass(slots=True)
class Buckets:
    """Opens each bucket once and keeps it. A bucket has no connections, so nothing closes it."""

    default: Bucket
    """The bucket of S3_IMAGE_BUCKET."""

    open_bucket: Callable[[str], Awaitable[Bucket]]

    # At this number, all are forgotten. Few hosts have so many; each costs some hundred bytes.
    max_buckets: int = 1000

    _opened: dict[str, Bucket] = field(default_factory=dict, init=False)
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(
        default_factory=WeakValueDictionary, init=False
    )
    """A lock for each bucket that is being opened, so that a slow one delays no other."""

    async def get(self, name: str | None) -> Bucket:
        """Return the bucket `name`; None means S3_IMAGE_BUCKET. Raise ValueError if invalid."""
        if name is None:
            return self.default
        check_bucket(name)
        return self._opened.get(name) or await self._open(name)

    async def _open(self, name: str) -> Bucket:
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name not in self._opened:
                bucket = await self.open_bucket(name)
                if len(self._opened) >= self.max_buckets:
                    self._opened.clear()
                self._opened[name] = bucket
            return self._opened[name]
