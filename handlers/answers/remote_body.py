"""The answer to a request for a body of another HTTP service: opened, with its headers."""

from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace

from starlette.responses import StreamingResponse

from ..body.exact import exact_body
from ..body.resume import BodyResumer
from ..body.retry import NO_RETRY
from ..body.upstream import Upstream
from ..download.handle import Download
from ..errors import PreconditionFailed
from ..rfc9110.conditions import (
    Validators,
    forwardable_conditions,
    if_range_holds,
    single_strong_tag,
)
from ..rfc9110.dates import http_date
from ..rfc9110.ranges import Part, Spec, resolve_ranges
from ..sources.http import RemoteBody
from .headers import download_headers
from .selectors import RequestSelectors
from .streaming import stream


async def answer_with_url(
    download: Download,
    url: str,
    selectors: RequestSelectors,
    *,
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
    filename: str | None = None,
) -> StreamingResponse:
    """Return the answer with the body at `url`, or with what the request selects of it.

    `length` is the number of bytes that the body must have, where it is known. The upstream gets
    `headers`, and the request id for its log. The download's owner closes what this opens. Raises
    DownloadError.
    """
    settings = download.runtime.settings
    remote = RemoteBody(
        session=download.serving.http,
        url=url,
        length=length,
        read_timeout=settings.upstream_read_timeout,
        connect_timeout=settings.upstream_connect_timeout,
        retry_policy=download.retry_policy(),
        headers={"x-request-id": download.record.request_id, **(headers or {})},
    )
    opening = _open(remote, download.record.method, selectors, download.owner)
    upstream = await download.in_time(opening)
    resume = _resume(remote, upstream, download) if upstream.read else None
    return stream(
        download,
        exact_body(upstream, resume),
        status=upstream.status,
        headers=_headers(upstream, filename, is_private=download.is_private),
        length=upstream.length,
    )


async def _open(
    remote: RemoteBody, method: str, selectors: RequestSelectors, owner: AsyncExitStack
) -> Upstream:
    spec = _upstream_range(selectors, remote.length)
    conditions = forwardable_conditions(selectors.conditions)
    if spec is None or selectors.if_range is None:
        return await remote.open(owner, method=method, conditions=conditions, spec=spec)
    if single_strong_tag(selectors.if_range) or http_date(selectors.if_range):
        asking = conditions | {"if-range": selectors.if_range}
        upstream = await remote.open(owner, method=method, conditions=asking, spec=spec)
        if upstream.part is None or _is_part_of(selectors.if_range, upstream):
            return upstream
        # An upstream without If-Range support sends a part of its present version.
        upstream.close()
    return await remote.open(owner, method=method, conditions=conditions)


def _is_part_of(if_range: str, upstream: Upstream) -> bool:
    """Return whether a 206 is of the version that `if_range` names, as far as it tells.

    A 206 has to repeat the entity tag, but no date (RFC 9110, 15.3.7).
    """
    stated = Validators.from_headers(upstream.headers)
    if single_strong_tag(if_range) is None and stated.last_modified is None:
        return True
    return if_range_holds(if_range, stated, now=None)


def _resume(remote: RemoteBody, upstream: Upstream, download: Download) -> BodyResumer | None:
    """Return how to resume this body, where the upstream supports versions and ranges."""
    stated = Validators.from_headers(upstream.headers)
    version = stated.strong_etag or stated.last_modified
    now = http_date(upstream.headers.get("date", ""))
    if version is None or upstream.length is None or not _supports_ranges(upstream):
        return None
    if not if_range_holds(version, stated, now=now):
        return None
    first = upstream.part.first if upstream.part else 0
    last = first + upstream.length - 1
    # The resume policy tries again by itself. The whole has as many bytes as at the beginning.
    total = upstream.total if upstream.part else upstream.length
    once = replace(remote, retry_policy=NO_RETRY, length=total)

    async def open_at(position: int, owner: ExitStack) -> Upstream:
        part = Part(first + position, last)
        rest = await once.open(
            owner, method="GET", conditions={"if-range": version}, spec=Spec(part.first, part.last)
        )
        found = Validators.from_headers(rest.headers)
        is_same = found.etag == stated.etag and found.last_modified in (None, stated.last_modified)
        if rest.part != part or not is_same:
            raise PreconditionFailed("the upstream no longer has this version")
        return rest

    return BodyResumer(download.resume_policy(), open_at)


def _supports_ranges(upstream: Upstream) -> bool:
    ranges = upstream.headers.get("accept-ranges", "")
    return upstream.part is not None or ranges.lower() == "bytes"


def _upstream_range(selectors: RequestSelectors, size: int | None) -> Spec | None:
    """Return the one range to request from the upstream; None for the whole.

    Its bounds are within the size, because not every upstream clamps them. If the request has
    several ranges, the client gets the whole, as RFC 9110 allows (14.2).
    """
    if size is None:
        return selectors.specs[0] if selectors.specs and len(selectors.specs) == 1 else None
    parts = resolve_ranges(selectors.specs, size) if selectors.specs else None
    if parts is None or len(parts) > 1:
        return None
    return Spec(parts[0].first, parts[0].last) if parts else Spec(size, None)


def _headers(upstream: Upstream, filename: str | None, *, is_private: bool) -> dict[str, str]:
    part, total = upstream.part, upstream.total
    return download_headers(
        upstream.headers,
        default_type="application/octet-stream",
        length=upstream.length,
        content_range=part.content_range(total) if part and total is not None else None,
        ranges=_supports_ranges(upstream),
        download_name=filename,
        private=is_private,
    )
