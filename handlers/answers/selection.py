"""From what a request asks to the bytes of an S3 object that answer it (RFC 9110, 13 and 14).

A store is asked in the one way that all stores understand alike: for the whole or for one plain
range, with at most If-Match of one strong entity tag. Lists, weak tags, dates, several ranges and
odd ones are decided here, after a HEAD; only they cost a second request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus

from ..body.checksums import start_verifier
from ..body.read_ahead import Ahead, read_ahead
from ..body.resume import ResumePolicy
from ..body.retry import NO_RETRY
from ..body.upstream import Chunk, Upstream, exact_body
from ..errors import BadUpstream, PreconditionFailed, RangeNotSatisfiable, UpstreamBusy
from ..rfc9110.conditions import (
    Validators,
    Verdict,
    evaluate_conditions,
    if_range_holds,
    single_strong_tag,
)
from ..rfc9110.dates import http_date
from ..rfc9110.ranges import Part, Spec, resolve_ranges
from ..sources.s3.bucket import StoredObject
from .headers import type_headers
from .multipart import Multipart
from .selectors import RequestSelectors

# What an object is that was stored without a type.
IMAGE_TYPE = "image/jpeg"

# How often an object may be replaced between two requests of ours before we give up.
ATTEMPTS = 3


@dataclass(kw_only=True, slots=True)
class Selection:
    """An answer chosen and opened: what is left is to write its headers."""

    status: int
    stored: Mapping[str, str]
    """The store's headers of the object, names in lower case."""

    body: AsyncIterator[Chunk]
    length: int | None = None
    content_range: str | None = None
    content_type: str | None = None
    """Where it is not the object's own: that of several parts."""


async def select_head(stored: StoredObject, asked: RequestSelectors) -> Selection:
    """Return the answer to HEAD. Raises DownloadError."""
    metadata = await stored.head()
    if _is_known(asked, metadata):
        return _not_modified(metadata)
    return _whole_or_part(metadata, None)


async def select_get(
    stored: StoredObject,
    asked: RequestSelectors,
    owner: AsyncExitStack,
    healing: ResumePolicy,
    *,
    ahead: Ahead,
    verified: bool = False,
) -> Selection:
    """Return the answer to GET, opened; `owner` closes it. Raises DownloadError."""
    a_version = partial(_Version, stored, owner, healing=healing, ahead=ahead, verified=verified)
    if _is_plain(asked):
        spec = asked.specs[0] if asked.specs else None
        tag = asked.lone_if_match or single_strong_tag(asked.if_range)
        try:
            upstream = await stored.open(owner, spec=spec, if_match=tag)
            metadata = Upstream(headers=upstream.headers, length=upstream.total or upstream.length)
            version = a_version(metadata=metadata, demanded=True)
            return _whole_or_part(upstream, version)
        except (PreconditionFailed, RangeNotSatisfiable):
            pass  # What that means for the request, only the metadata says alike.
    refused: Validators | None = None
    for _ in range(ATTEMPTS):
        metadata = await stored.head()
        if _is_known(asked, metadata):
            return _not_modified(metadata)
        parts = _parts(asked, metadata)
        if parts == []:
            raise RangeNotSatisfiable("", length=metadata.length)
        current = Validators.from_headers(metadata.headers)
        # A store that refuses the tag that it states itself compares tags in a way of its own.
        version = a_version(metadata=metadata, demanded=current != refused)
        try:
            return await _open_parts(version, parts) if parts else await _open_whole(version)
        except (PreconditionFailed, RangeNotSatisfiable):
            refused = current
    raise UpstreamBusy("the object is replaced faster than it can be read", retry_after=1)


def _is_plain(asked: RequestSelectors) -> bool:
    """Return whether one request that all stores understand alike can answer."""
    if asked.conditions and not asked.lone_if_match:
        return False
    if asked.specs is None:
        return True
    if len(asked.specs) > 1 or asked.specs[0].suffix == 0:
        return False
    return asked.if_range is None or bool(
        single_strong_tag(asked.if_range) and not asked.conditions
    )


@dataclass(slots=True)
class _Version:
    """The version of an object that `metadata` is of, to be read and no other."""

    stored: StoredObject
    owner: AsyncExitStack | ExitStack
    metadata: Upstream
    healing: ResumePolicy
    ahead: Ahead
    demanded: bool
    """Whether the store is asked by If-Match to give no other version, too."""

    verified: bool
    """Whether whole bodies are compared with the checksum that the store has of them."""

    async def open(self, part: Part | None = None) -> Upstream:
        """Open the whole or a part; raises PreconditionFailed where it is another version now."""
        tag = Validators.from_headers(self.metadata.headers).strong_etag if self.demanded else None
        spec = Spec(part.first, part.last) if part else None
        upstream = await self.stored.open(self.owner, spec=spec, if_match=tag)
        if self._is_of_another(upstream):
            upstream.close()
            raise PreconditionFailed("replaced since its metadata was read")
        return upstream

    async def open_part(self, part: Part) -> Upstream:
        """Open just this part: where others went out before it, the whole is of no use."""
        upstream = await self.open(part)
        if upstream.part != part:
            upstream.close()
            raise BadUpstream("the store gave the whole instead of a part")
        return upstream

    def body(self, upstream: Upstream) -> AsyncIterator[Chunk]:
        """Yield the body of an opened upstream, resumed as long as this version is to be had."""
        is_verified = self.verified and upstream.part is None
        verifier = start_verifier(upstream.headers) if is_verified else None
        ours = Validators.from_headers(self.metadata.headers)
        if ours.strong_etag is None or upstream.length is None:
            return exact_body(upstream, verifier=verifier)
        first = upstream.part.first if upstream.part else 0
        last = first + upstream.length - 1

        async def open_at(position: int, owner: ExitStack) -> Upstream:
            rest = Part(first + position, last)
            return self._ahead_of(await self._once(owner).open_part(rest), rest, owner)

        upstream = self._ahead_of(upstream, Part(first, last), self.owner)
        return exact_body(upstream, self.healing.resume(open_at), verifier)

    def _ahead_of(
        self, opened: Upstream, part: Part, owner: AsyncExitStack | ExitStack
    ) -> Upstream:
        """Return an opened part, read ahead where that pays; `owner` closes that."""
        body = read_ahead(
            opened,
            last=part.last,
            position=part.first,
            open_part=lambda part, owner: self._once(owner).open_part(part),
            ahead=self.ahead,
            on_failure=self.healing.on_failure,
        )
        if body is not opened:
            owner.callback(body.close)
        return body

    async def open_later_part(self, part: Part) -> Upstream:
        """Open a part when those before it have been sent: it is waited for like a broken one."""
        return await self.healing.open(lambda _, owner: self._once(owner).open_part(part))

    def _once(self, owner: ExitStack) -> _Version:
        """Return this, owned anew, and tried once at a time: healing has a patience of its own."""
        return replace(self, owner=owner, stored=replace(self.stored, retry_policy=NO_RETRY))

    def _is_of_another(self, upstream: Upstream) -> bool:
        ours = Validators.from_headers(self.metadata.headers)
        theirs = Validators.from_headers(upstream.headers)
        total = upstream.total if upstream.part else upstream.length
        return (
            ours.etag != theirs.etag
            or (theirs.last_modified is not None and ours.last_modified != theirs.last_modified)
            or (total is not None and total != self.metadata.length)
        )


async def _open_whole(version: _Version) -> Selection:
    return _whole_or_part(await version.open(), version)


async def _open_parts(version: _Version, parts: list[Part]) -> Selection:
    first = await version.open(parts[0])
    total = version.metadata.length
    if len(parts) == 1 or first.part is None or total is None:
        return _whole_or_part(first, version)
    multipart = Multipart(
        parts=parts,
        total=total,
        content_type=type_headers(first.headers, IMAGE_TYPE)["content-type"],
    )
    return Selection(
        status=HTTPStatus.PARTIAL_CONTENT,
        stored=first.headers,
        length=multipart.length,
        content_type=multipart.media_type,
        body=multipart.body(first, version.open_later_part, version.body),
    )


def _parts(asked: RequestSelectors, metadata: Upstream) -> list[Part] | None:
    """Return the parts to send, none for 416, or None for the whole."""
    current = Validators.from_headers(metadata.headers)
    if asked.specs is None or metadata.length is None:
        return None
    if asked.if_range is not None:
        now = http_date(metadata.headers.get("date", ""))
        if not if_range_holds(asked.if_range, current, now=now):
            return None
    parts = resolve_ranges(asked.specs, metadata.length)
    # Several are of one version only where the store can be held to that.
    if parts and len(parts) > 1 and current.strong_etag is None:
        return None
    return parts


def _is_known(asked: RequestSelectors, metadata: Upstream) -> bool:
    """Return whether the client has this version; raises PreconditionFailed."""
    verdict = evaluate_conditions(asked.conditions, Validators.from_headers(metadata.headers))
    if verdict is Verdict.FAILED:
        raise PreconditionFailed("")
    return verdict is Verdict.NOT_MODIFIED


def _not_modified(metadata: Upstream) -> Selection:
    known = HTTPStatus.NOT_MODIFIED
    return Selection(status=known, stored=metadata.headers, body=exact_body(metadata))


def _whole_or_part(upstream: Upstream, version: _Version | None) -> Selection:
    return Selection(
        status=upstream.status,
        stored=upstream.headers,
        length=upstream.length,
        content_range=upstream.headers["content-range"] if upstream.part else None,
        body=version.body(upstream) if version else exact_body(upstream),
    )
