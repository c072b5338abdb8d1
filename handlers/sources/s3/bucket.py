"""The S3 source: objects of a bucket, and ranges of them."""

from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from ...body.retry import NO_RETRY, RetryPolicy
from ...body.upstream import Owner, Upstream
from ...errors import BadUpstream, NotFound, PreconditionFailed, RangeNotSatisfiable
from ...rfc9110.conditions import entity_tag
from ...rfc9110.ranges import Spec
from ..response import RawResponse, check_response


class Bucket(Protocol):
    """A bucket, whichever client sends its requests; both raise DownloadError for an error."""

    async def get(self, owner: Owner, key: str, headers: Mapping[str, str]) -> RawResponse:
        """Send a GetObject with a range, an if-match, or neither; `owner` closes the response."""
        ...

    async def head(self, key: str) -> RawResponse:
        """Send a HeadObject."""
        ...


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a bucket, which may not exist."""

    bucket: Bucket
    key: str
    retry_policy: RetryPolicy = NO_RETRY

    async def open(
        self, owner: Owner, *, spec: Spec | None = None, if_match: str | None = None
    ) -> Upstream:
        """Open the object, or its range `spec`; `owner` closes it.

        The store may answer a range with the whole. Raises DownloadError: PreconditionFailed if
        the entity tag is not `if_match`, RangeNotSatisfiable if the range has no byte.
        """
        return await self.retry_policy.open(partial(self._open, owner, spec, if_match))

    async def _open(self, owner: Owner, spec: Spec | None, if_match: str | None) -> Upstream:
        headers = {"range": f"bytes={spec}"} if spec else {}
        if if_match:
            headers["if-match"] = if_match
        try:
            response = await self.bucket.get(owner, self.key, headers)
        except RangeNotSatisfiable as error:
            if spec is None:
                raise BadUpstream("store answered 416 to a request without a range") from error
            raise
        if if_match and entity_tag(response.headers.get("etag", "")) != if_match:
            response.close()
            raise PreconditionFailed("store ignored If-Match and sent another version")
        return check_response(response, spec, "store")

    async def head(self) -> Upstream:
        """Return the object's headers without requesting its body; raises DownloadError."""
        return await self.retry_policy.open(self._head)

    async def _head(self) -> Upstream:
        try:
            response = await self.bucket.head(self.key)
        except NotFound:
            # The answer to a HEAD has no error code: a missing bucket and a rejected access key
            # look like a missing object. The answer to a GET tells them apart.
            async with AsyncExitStack() as owner:
                with suppress(RangeNotSatisfiable):  # The object exists by now and is empty.
                    await self._open(owner, Spec(0, 0), None)
            raise
        return check_response(response, None, "store", has_body=False)

    async def probe(self, deadline: float) -> None:
        """Return if the store gives the object or a 404 before `deadline`, by time.monotonic().

        Raises DownloadError.
        """
        with suppress(NotFound):
            await replace(self, retry_policy=RetryPolicy(until=deadline)).head()
