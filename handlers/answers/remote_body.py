"""Answer a request with the body at a URL of another HTTP service."""

from collections.abc import Mapping
from dataclasses import replace

from starlette.responses import StreamingResponse

from ..body.resume import BodyResumer
from ..body.retry import NO_RETRY
from ..body.upstream import Owner, Upstream
from ..download.handle import Download
from ..errors import PreconditionFailed, RangeNotSatisfiable
from ..rfc9110.codings import content_codings
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

    `length` is the number of bytes that the body must have unless the upstream encodes it; None if
    unknown. The request to the upstream has `headers`, and x-request-id with the id of this
    download. The download's exit stack (`download.owner`) closes the connection to the upstream.
    Raises DownloadError, and NoBulkSlot before it asks the upstream.
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
        proxies=download.serving.proxies,
    )
    if download.record.method != "HEAD" and not selectors.conditions:  # They may give a 304.
        spec = _upstream_range(selectors, length)
        part = spec.within(length) if spec and length is not None else None
        download.require_bulk_slot(part.length if part else length)
    upstream = await download.in_time(_open(download, remote, selectors))
    body = _version(remote, upstream, download.body_resumer()).body(upstream)
    described = download_headers(upstream, default_type="application/octet-stream")
    has_ranges = _supports_ranges(upstream)
    return stream(download, upstream, body, described, has_ranges=has_ranges, filename=filename)


async def _open(download: Download, remote: RemoteBody, selectors: RequestSelectors) -> Upstream:
    spec, if_range = _upstream_range(selectors, remote.length), selectors.if_range
    if spec and (if_range is None or single_strong_tag(if_range) or http_date(if_range)):
        upstream = await _open_range(remote, spec, selectors, download.owner)
        if upstream is not None:
            return upstream
    conditions = forwardable_conditions(selectors.conditions)
    return await remote.open(download.owner, method=download.record.method, conditions=conditions)


async def _open_range(
    remote: RemoteBody, spec: Spec, selectors: RequestSelectors, owner: Owner
) -> Upstream | None:
    """Return the upstream's answer to a range; None if the client must get the whole body."""
    conditions, if_range = forwardable_conditions(selectors.conditions), selectors.if_range
    if if_range is not None:
        conditions["if-range"] = if_range
    try:
        upstream = await remote.open(owner, method="GET", conditions=conditions, spec=spec)
    except RangeNotSatisfiable as error:
        if remote.length in (None, error.length):
            raise
        return None
    if upstream.part is None or upstream.total is None:
        return upstream
    # `spec` is within `remote.length` bytes, but an encoded body has another length.
    is_requested = resolve_ranges(selectors.specs or [], upstream.total) == [upstream.part]
    if is_requested and (if_range is None or _is_same_version(if_range, upstream)):
        return upstream
    upstream.close()
    return None


def _is_same_version(if_range: str, upstream: Upstream) -> bool:
    """Return False for a 206 of another version, from an upstream that ignores If-Range."""
    stated = upstream.validators
    # A 206 must have the ETag, but may omit Last-Modified (RFC 9110, 15.3.7).
    if not single_strong_tag(if_range) and not stated.last_modified:
        return True
    return if_range_holds(if_range, stated, now=None)


def _version(remote: RemoteBody, upstream: Upstream, resumer: BodyResumer) -> Version:
    """Return the version of the body; resumable with range support and a strong validator."""
    stated = upstream.validators
    if_range = stated.strong_etag or stated.last_modified or ""
    now = http_date(upstream.headers.get("date", ""))
    total = upstream.object_length
    codings = content_codings(upstream.headers.get("content-encoding", ""))
    once = replace(remote, retry_policy=NO_RETRY, length=total, codings=codings)

    async def request_part(part: Part, owner: Owner, is_conditional: bool) -> Upstream:
        asking = {"if-range": if_range} if is_conditional else {}
        opened = await once.open(owner, method="GET", conditions=asking, spec=part.spec)
        # Only a 206 to If-Range may omit its Last-Modified (RFC 9110, 15.3.7).
        theirs = opened.validators
        if not is_conditional and if_range not in (theirs.etag, theirs.last_modified):
            opened.close()
            raise PreconditionFailed("the upstream's ETag or Last-Modified has changed")
        return opened

    return Version(
        validators=stated,
        total=total,
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
