"""Answer a request with the body at a URL of another HTTP service."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

from starlette.responses import StreamingResponse

from ..body.resume import BodyResumer
from ..body.retry import NO_RETRY
from ..body.upstream import Owner, Upstream
from ..download.handle import Download
from ..rfc9110.conditions import forwardable_conditions, if_range_holds, single_strong_tag
from ..rfc9110.dates import http_date
from ..rfc9110.ranges import Part, Spec, resolve_ranges
from ..sources.http import RemoteBody
from .headers import download_headers
from .selectors import RequestSelectors
from .streaming import stream
from .version import Version


async def answer_with_url(
    download: Download,
    url: str,
    selectors: RequestSelectors,
    *,
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
    filename: str | None = None,
) -> StreamingResponse:
    """Return the response with the body at `url`, or with the range that the request selects.

    `length` is the number of bytes that the body must have; None if unknown. The request to the
    upstream has `headers`, and x-request-id with the id of this download. The download's exit
    stack (`download.owner`) closes the connection to the upstream. Raises DownloadError, and
    NoBulkSlot before it asks the upstream.
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
    if download.record.method != "HEAD":
        spec = _upstream_range(selectors, length)
        part = spec.within(length) if spec and length is not None else None
        download.require_bulk_slot(part.length if part else length)
    opening = _open(remote, download.record.method, selectors, download.owner)
    upstream = await download.in_time(opening)
    body = _version(remote, upstream, download.body_resumer()).body(upstream)
    described = download_headers(upstream, default_type="application/octet-stream")
    has_ranges = _supports_ranges(upstream)
    return stream(download, upstream, body, described, has_ranges=has_ranges, filename=filename)


async def _open(
    remote: RemoteBody, method: str, selectors: RequestSelectors, owner: AsyncExitStack
) -> Upstream:
    spec, if_range = _upstream_range(selectors, remote.length), selectors.if_range
    conditions = forwardable_conditions(selectors.conditions)
    if spec is None or if_range is None:
        return await remote.open(owner, method=method, conditions=conditions, spec=spec)
    if single_strong_tag(if_range) or http_date(if_range):
        asking = conditions | {"if-range": if_range}
        upstream = await remote.open(owner, method=method, conditions=asking, spec=spec)
        stated = upstream.validators
        # A 206 must have the ETag, but may omit Last-Modified (RFC 9110, 15.3.7).
        is_told = single_strong_tag(if_range) or stated.last_modified
        if upstream.part is None or not is_told or if_range_holds(if_range, stated, now=None):
            return upstream
        # The upstream ignored If-Range and sent a range of another version: request the whole.
        upstream.close()
    return await remote.open(owner, method=method, conditions=conditions)


def _version(remote: RemoteBody, upstream: Upstream, resumer: BodyResumer) -> Version:
    """Return the version of the body; resumable with range support and a strong validator."""
    stated = upstream.validators
    if_range = stated.strong_etag or stated.last_modified or ""
    now = http_date(upstream.headers.get("date", ""))

    async def request_part(part: Part, owner: Owner, is_conditional: bool) -> Upstream:
        once = replace(remote, retry_policy=NO_RETRY, length=upstream.object_length)
        asking = {"if-range": if_range} if is_conditional else {}
        return await once.open(owner, method="GET", conditions=asking, spec=part.spec)

    return Version(
        validators=stated,
        total=upstream.object_length,
        request_part=request_part,
        is_resumable=_supports_ranges(upstream) and if_range_holds(if_range, stated, now=now),
        resumer=resumer,
    )


def _supports_ranges(upstream: Upstream) -> bool:
    ranges = upstream.headers.get("accept-ranges", "")
    return upstream.part is not None or ranges.lower() == "bytes"


def _upstream_range(selectors: RequestSelectors, size: int | None) -> Spec | None:
    """Return the one range to request from the upstream; None for the whole body.

    The range ends within the `size` bytes of the body, because not every upstream clamps it. A
    request for several ranges gets the whole body, which RFC 9110 allows (14.2).
    """
    if size is None:
        return selectors.specs[0] if selectors.specs and len(selectors.specs) == 1 else None
    parts = resolve_ranges(selectors.specs, size) if selectors.specs else None
    if parts is None or len(parts) > 1:
        return None
    return parts[0].spec if parts else Spec(size, None)
