"""From what a request asks to the bytes of an S3 object that answer it (RFC 9110, 13 and 14).

A store is asked in the one way that all stores understand alike: for the whole or for one plain
range, with at most If-Match of one strong entity tag. Lists, weak tags, dates, several ranges and
odd ones are decided here, after a HEAD; only they cost a second request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus

from ._asked import Asked
from ._conditions import (
    Validators,
    Verdict,
    if_range_holds,
    single_strong_tag,
    validators_of,
    verdict_on,
)
from ._errors import PreconditionFailed, RangeNotSatisfiable, UpstreamBusy
from ._headers import type_headers
from ._multipart import Multipart
from ._ranges import Part, Spec, parts_of
from ._s3 import StoredObject
from ._upstream import Upstream, exact_body

# What an object is that was stored without a type.
IMAGE_TYPE = "image/jpeg"

# How often an object may be replaced between two requests of ours before we give up.
ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """An answer chosen and opened: what is left is to write its headers."""

    status: int
    stored: Mapping[str, str]
    """The store's headers of the object, names in lower case."""

    body: AsyncIterator[bytes]
    length: int | None = None
    content_range: str | None = None
    content_type: str | None = None
    """Where it is not the object's own: that of several parts."""


async def select_head(stored: StoredObject, asked: Asked) -> Selection:
    """Return the answer to HEAD. Raises DownloadError."""
    metadata = await stored.head()
    if _is_known(asked, metadata):
        return _not_modified(metadata)
    return _whole_or_part(metadata)


async def select_get(stored: StoredObject, asked: Asked, owner: AsyncExitStack) -> Selection:
    """Return the answer to GET, opened; `owner` closes it. Raises DownloadError."""
    if _is_plain(asked):
        try:
            return await _plainly(stored, asked, owner)
        except RangeNotSatisfiable:
            pass  # Of how many bytes, and whether of any, only the metadata says alike.
    for _ in range(ATTEMPTS):
        metadata = await stored.head()
        if _is_known(asked, metadata):
            return _not_modified(metadata)
        try:
            return await _by_metadata(stored, asked, metadata, owner)
        except (PreconditionFailed, RangeNotSatisfiable) as refusal:
            if getattr(refusal, "length", None) is not None:
                raise
            # Replaced since the HEAD: its metadata is of another version.
    raise UpstreamBusy("the object is replaced faster than it can be read", retry_after=1)


def _is_plain(asked: Asked) -> bool:
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


async def _plainly(stored: StoredObject, asked: Asked, owner: AsyncExitStack) -> Selection:
    spec = asked.specs[0] if asked.specs else None
    tag = asked.lone_if_match or single_strong_tag(asked.if_range)
    try:
        upstream = await stored.open(owner, spec=spec, if_match=tag)
    except PreconditionFailed:
        if asked.if_range is None:
            raise
        # S3 knows no If-Range: as If-Match, it fails where If-Range would give the whole.
        upstream = await stored.open(owner)
    return _whole_or_part(upstream)


async def _by_metadata(
    stored: StoredObject, asked: Asked, metadata: Upstream, owner: AsyncExitStack
) -> Selection:
    current = validators_of(metadata.headers)
    parts = _parts(asked, metadata.length, current)
    if parts is None:
        whole = await stored.open(owner, if_match=current.strong_etag)
        return _whole_or_part(whole)
    if not parts:
        raise RangeNotSatisfiable("", length=metadata.length)

    async def open_part(part: Part) -> Upstream:
        spec = Spec(part.first, part.last)
        return await stored.open(owner, spec=spec, if_match=current.strong_etag)

    first = await open_part(parts[0])
    if len(parts) == 1 or first.part is None or metadata.length is None:
        return _whole_or_part(first)
    multipart = Multipart(
        parts=parts,
        total=metadata.length,
        content_type=type_headers(first.headers, IMAGE_TYPE)["content-type"],
    )
    return Selection(
        status=HTTPStatus.PARTIAL_CONTENT,
        stored=first.headers,
        length=multipart.length,
        content_type=multipart.media_type,
        body=multipart.body(first, open_part),
    )


def _parts(asked: Asked, length: int | None, current: Validators) -> list[Part] | None:
    """Return the parts to send, none for 416, or None for the whole."""
    if asked.specs is None or length is None:
        return None
    if asked.if_range is not None and not if_range_holds(asked.if_range, current):
        return None
    parts = parts_of(asked.specs, length)
    # Several are of one version only where the store can be held to that.
    if parts and len(parts) > 1 and current.strong_etag is None:
        return None
    return parts


def _is_known(asked: Asked, metadata: Upstream) -> bool:
    """Return whether the client has this version; raises PreconditionFailed."""
    verdict = verdict_on(asked.conditions, validators_of(metadata.headers))
    if verdict is Verdict.FAILED:
        raise PreconditionFailed("")
    return verdict is Verdict.NOT_MODIFIED


def _not_modified(metadata: Upstream) -> Selection:
    known = HTTPStatus.NOT_MODIFIED
    return Selection(status=known, stored=metadata.headers, body=exact_body(metadata))


def _whole_or_part(upstream: Upstream) -> Selection:
    return Selection(
        status=upstream.status,
        stored=upstream.headers,
        length=upstream.length,
        content_range=upstream.headers["content-range"] if upstream.part else None,
        body=exact_body(upstream),
    )
