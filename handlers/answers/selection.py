"""Which bytes of an S3 object answer a request, and with which status (RFC 9110, 13 and 14).

The store is only asked for the whole or for one plain range, with at most If-Match of one strong
entity tag, because all stores agree on these. Lists, weak tags, dates and all other ranges are
decided here after a HEAD, which costs a second request.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus

from ..body.checksums import start_verifier
from ..body.exact import exact_body
from ..body.read_ahead import read_ahead
from ..body.read_ahead_policy import ReadAheadPolicy
from ..body.resume import BodyResumer, ResumePolicy
from ..body.retry import NO_RETRY, RetryPolicy
from ..body.upstream import Chunk, Owner, Upstream
from ..errors import BadUpstream, PreconditionFailed, RangeNotSatisfiable, UpstreamBusy
from ..rfc9110.conditions import Validators, evaluate_conditions, if_range_holds, single_strong_tag
from ..rfc9110.dates import http_date
from ..rfc9110.ranges import Part, Spec, resolve_ranges
from ..sources.s3.bucket import StoredObject
from .headers import type_headers
from .multipart import Multipart
from .selectors import RequestSelectors

# The content type of an object that was stored without one.
IMAGE_TYPE = "image/jpeg"

# How often an object may be replaced between its HEAD and its GET before the answer is a 503.
ATTEMPTS = 3


@dataclass(kw_only=True, slots=True)
class Selection:
    """A chosen and opened answer; only its headers are missing."""

    status: int
    stored: Mapping[str, str]
    """The store's headers of the object, names in lower case."""

    body: AsyncIterator[Chunk]
    length: int | None = None
    content_range: str | None = None
    content_type: str | None = None
    """The content type of a multipart answer; None for the object's own."""


async def select_head(stored: StoredObject, selectors: RequestSelectors) -> Selection:
    """Return the answer to HEAD; raise DownloadError."""
    metadata = await stored.head()
    answer = _not_modified(selectors, metadata)
    return answer or _whole_or_part(metadata, exact_body(metadata))


async def select_get(
    stored: StoredObject,
    selectors: RequestSelectors,
    owner: AsyncExitStack,
    resume_policy: ResumePolicy,
    *,
    ahead: ReadAheadPolicy,
    verified: bool = False,
) -> Selection:
    """Return the answer to GET, opened; `owner` closes it. Raise DownloadError."""
    version_with = partial(_Version, stored, resume_policy, ahead, is_verified=verified)
    if _is_plain(selectors):
        spec = selectors.specs[0] if selectors.specs else None
        tag = selectors.lone_if_match or single_strong_tag(selectors.if_range)
        try:
            upstream = await stored.open(owner, spec=spec, if_match=tag)
            length = upstream.total or upstream.length
            version = version_with(Upstream(headers=upstream.headers, length=length))
            return _whole_or_part(upstream, version.body(upstream))
        except (PreconditionFailed, RangeNotSatisfiable):
            pass  # Stores mean different things by these: the metadata decides.
    refused: Validators | None = None
    for _ in range(ATTEMPTS):
        metadata = await stored.head()
        if answer := _not_modified(selectors, metadata):
            return answer
        parts = _parts(selectors, metadata)
        if parts == []:
            raise RangeNotSatisfiable("", length=metadata.length)
        current = Validators.from_headers(metadata.headers)
        # A store that refuses its own entity tag compares tags in a way of its own.
        version = version_with(metadata, uses_if_match=current != refused)
        try:
            return await _open_parts(version, owner, parts)
        except (PreconditionFailed, RangeNotSatisfiable):
            refused = current
    raise UpstreamBusy("the object is replaced faster than it can be read", retry_after=1)


def _is_plain(selectors: RequestSelectors) -> bool:
    """Return whether one store request answers it, in a way that all stores agree on."""
    if selectors.conditions and not selectors.lone_if_match:
        return False
    if selectors.specs is None:
        return True
    if len(selectors.specs) > 1 or selectors.specs[0].suffix == 0:
        return False
    return selectors.if_range is None or bool(
        single_strong_tag(selectors.if_range) and not selectors.conditions
    )


@dataclass(slots=True)
class _Version:
    """One version of an object, from which all bytes of an answer come."""

    stored: StoredObject
    resume_policy: ResumePolicy
    ahead: ReadAheadPolicy
    metadata: Upstream
    """An answer with the headers and the length of this version."""

    is_verified: bool
    """Whether whole bodies are compared with the stored checksum."""

    uses_if_match: bool = True

    async def open(
        self, owner: Owner, part: Part | None = None, retry: RetryPolicy | None = None
    ) -> Upstream:
        """Open the whole or a part; raise PreconditionFailed if the object has been replaced."""
        stored = replace(self.stored, retry_policy=retry) if retry else self.stored
        tag = (
            Validators.from_headers(self.metadata.headers).strong_etag
            if self.uses_if_match
            else None
        )
        spec = Spec(part.first, part.last) if part else None
        upstream = await stored.open(owner, spec=spec, if_match=tag)
        if self._is_of_another(upstream):
            upstream.close()
            raise PreconditionFailed("replaced since its metadata was read")
        return upstream

    async def open_part(self, part: Part, owner: Owner) -> Upstream:
        """Open exactly a part of a body that has begun, without retries: the body has its own."""
        upstream = await self.open(owner, part, NO_RETRY)
        if upstream.part != part:
            upstream.close()
            raise BadUpstream("the store gave the whole instead of a part")
        return upstream

    async def open_later_part(self, part: Part) -> Upstream:
        """Open a part of a multipart body when the parts before it have been sent."""
        resumer = BodyResumer(self.resume_policy, lambda _, owner: self.open_part(part, owner))
        return await resumer.open()

    def body(self, upstream: Upstream) -> AsyncIterator[Chunk]:
        """Yield the body of an opened upstream, resumed while the store has this version."""
        is_verified = self.is_verified and upstream.part is None
        verifier = start_verifier(upstream.headers) if is_verified else None
        if (
            Validators.from_headers(self.metadata.headers).strong_etag is None
            or upstream.length is None
        ):
            return exact_body(upstream, verifier=verifier)
        part = upstream.part or Part(0, upstream.length - 1)

        async def open_at(position: int, owner: ExitStack) -> Upstream:
            rest = Part(part.first + position, part.last)
            return self._read_ahead(await self.open_part(rest, owner), rest, owner)

        body = self._read_ahead(upstream, part, self.resume_policy.owner)
        return exact_body(body, BodyResumer(self.resume_policy, open_at), verifier)

    def _read_ahead(self, opened: Upstream, part: Part, owner: Owner) -> Upstream:
        return read_ahead(opened, part, owner, self.open_part, self.ahead)

    def _is_of_another(self, upstream: Upstream) -> bool:
        ours, theirs = (
            Validators.from_headers(self.metadata.headers),
            Validators.from_headers(upstream.headers),
        )
        total = upstream.total if upstream.part else upstream.length
        return (
            ours.etag != theirs.etag
            or (theirs.last_modified is not None and ours.last_modified != theirs.last_modified)
            or (total is not None and total != self.metadata.length)
        )


async def _open_parts(
    version: _Version, owner: AsyncExitStack, parts: list[Part] | None
) -> Selection:
    """Open the first of the parts, or the whole if there are none."""
    first = await version.open(owner, parts[0] if parts else None)
    total = version.metadata.length
    if parts is None or len(parts) == 1 or first.part is None or total is None:
        return _whole_or_part(first, version.body(first))
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


def _parts(selectors: RequestSelectors, metadata: Upstream) -> list[Part] | None:
    """Return the parts to send, none for 416, or None for the whole."""
    current = Validators.from_headers(metadata.headers)
    if selectors.specs is None or metadata.length is None:
        return None
    if selectors.if_range is not None:
        now = http_date(metadata.headers.get("date", ""))
        if not if_range_holds(selectors.if_range, current, now=now):
            return None
    parts = resolve_ranges(selectors.specs, metadata.length)
    # Without a strong tag, the store can't be held to one version for several requests.
    if parts and len(parts) > 1 and current.strong_etag is None:
        return None
    return parts


def _not_modified(selectors: RequestSelectors, metadata: Upstream) -> Selection | None:
    """Return the 304 if the client has this version; raise PreconditionFailed."""
    status = evaluate_conditions(selectors.conditions, Validators.from_headers(metadata.headers))
    if status is None:
        return None
    if status == HTTPStatus.PRECONDITION_FAILED:
        raise PreconditionFailed("")
    return Selection(status=status, stored=metadata.headers, body=exact_body(metadata))


def _whole_or_part(upstream: Upstream, body: AsyncIterator[Chunk]) -> Selection:
    return Selection(
        status=upstream.status,
        stored=upstream.headers,
        length=upstream.length,
        content_range=upstream.headers["content-range"] if upstream.part else None,
        body=body,
    )
