"""The S3 source: objects of a store, there or not, and parts of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Protocol

from ...body.retry import NO_RETRY, RetryPolicy
from ...body.upstream import Upstream, body_reader, ends_visibly
from ...errors import BadUpstream, NotFound, PreconditionFailed, RangeNotSatisfiable
from ...rfc9110.conditions import entity_tag
from ...rfc9110.ranges import Part, Spec, parse_content_range
from .errors import Answer, Owner


class Store(Protocol):
    """A bucket, however it is asked."""

    async def get(self, owner: Owner, key: str, headers: Mapping[str, str]) -> Answer:
        """Open an object for reading, on the conditions given; `owner` closes it."""
        ...

    async def head(self, key: str) -> Answer:
        """Return what `get` would, without a body."""
        ...


@dataclass(slots=True)
class StoredObject:
    """An object of a bucket, there or not."""

    store: Store
    key: str
    silence: float
    """Seconds that a body may keep its reader waiting."""

    patience: RetryPolicy = NO_RETRY

    async def open(
        self,
        owner: AsyncExitStack | ExitStack,
        *,
        spec: Spec | None = None,
        if_match: str | None = None,
    ) -> Upstream:
        """Open the object, or the range `spec` of it, for reading; `owner` closes it.

        A store may give the whole all the same. Raises DownloadError; PreconditionFailed where
        the object's entity tag is not `if_match`, RangeNotSatisfiable where there is no such part.
        """
        return await self.patience.open(partial(self._open, owner, spec, if_match))

    async def _open(
        self, owner: AsyncExitStack | ExitStack, spec: Spec | None, if_match: str | None
    ) -> Upstream:
        wanted = {"range": f"bytes={spec}"} if spec else {}
        if if_match:
            wanted["if-match"] = if_match
        try:
            answer = await self.store.get(owner, self.key, wanted)
        except RangeNotSatisfiable as error:
            if spec is None:
                raise BadUpstream("store answered 416 to no range at all") from error
            raise
        if if_match and entity_tag(answer.headers.get("etag", "")) != if_match:
            answer.close()
            raise PreconditionFailed("the store gave another version than was demanded")
        if answer.status == HTTPStatus.OK:
            return self._opened(answer)
        if answer.status == HTTPStatus.PARTIAL_CONTENT and spec is not None:
            return self._opened(answer, *_checked_part(answer.headers, spec))
        asked = spec or "the whole"
        raise BadUpstream(f"store answered {answer.status} to a GetObject of {asked}")

    async def head(self) -> Upstream:
        """Return what `open` would, without a byte of the body. Raises DownloadError."""
        return await self.patience.open(self._head)

    async def _head(self) -> Upstream:
        try:
            answer = await self.store.head(self.key)
        except NotFound:
            # An answer to HEAD has no error code: a missing bucket and a refused key look like
            # a missing object. GET tells, and its errors are the ones to give.
            async with AsyncExitStack() as owner:
                with suppress(RangeNotSatisfiable):  # There by now, and empty.
                    await self._open(owner, Spec(0, 0), None)
            raise
        if answer.status != HTTPStatus.OK:
            raise BadUpstream(f"store answered {answer.status} to a HeadObject")
        return Upstream(headers=answer.headers, length=_length(answer.headers))

    def _opened(
        self, answer: Answer, part: Part | None = None, total: int | None = None
    ) -> Upstream:
        headers = answer.headers
        if not ends_visibly(headers):
            raise BadUpstream("the store's answer has neither a length nor chunks")
        return Upstream(
            status=HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK,
            headers=headers,
            length=part.length if part else _length(headers),
            part=part,
            total=total,
            close=answer.close,
            read=body_reader(
                answer.read,
                silence=None if answer.keeps_time else self.silence,
                failures=answer.failures,
                source="store",
            ),
        )

    async def probe(self, until: float) -> None:
        """Return when the store gives or denies the object in order, asked until then.

        Raises DownloadError.
        """
        with suppress(NotFound):
            await replace(self, patience=RetryPolicy(until=until)).head()


def _checked_part(headers: Mapping[str, str], spec: Spec) -> tuple[Part, int]:
    """Return the part that a 206 says to have and of how many bytes, where that was asked for."""
    stated = headers.get("content-range", "")
    part, total = parse_content_range(stated) or (None, None)
    length = _length(headers)
    if part is None or total is None or spec.within(total) != part:
        raise BadUpstream(f"store answered range {spec} with content-range {stated!r}")
    if length is not None and length != part.length:
        raise BadUpstream(f"store has {length} bytes for content-range {stated!r}")
    return part, total


def _length(headers: Mapping[str, str]) -> int | None:
    return int(headers["content-length"]) if "content-length" in headers else None
