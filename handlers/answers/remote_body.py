"""The answer to a request for a body of another HTTP service: opened, with its headers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import StreamingResponse

from ..body.retry import NO_RETRY
from ..body.upstream import Resume, Upstream, exact_body
from ..download.scope import in_time, is_private, owner_of, resume_policy_of, retry_policy_of
from ..errors import BadUpstream, PreconditionFailed
from ..rfc9110.conditions import (
    forwardable_conditions,
    http_date,
    if_range_holds,
    read_validators,
    single_strong_tag,
)
from ..rfc9110.ranges import Part, Spec, resolve_ranges
from ..sources.http import RemoteBody
from ..telemetry.request_id import get_request_id
from .headers import download_headers, not_modified_headers
from .selectors import RequestSelectors, parse_selectors


async def answer_with_url(
    request: Request,
    url: str,
    *,
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
    download_name: str | None = None,
) -> StreamingResponse:
    """Answer with the body at `url`, or with what was asked of it; raises DownloadError.

    `length` is how many bytes it must have, where that is known. It is asked for with `headers`,
    and with the request's id, so that it can be found in the upstream's log.
    """
    settings = request.app.state.settings
    remote = RemoteBody(
        session=request.app.state.http,
        url=url,
        length=length,
        silence=settings.upstream_read_timeout,
        connecting=settings.upstream_connect_timeout,
        patience=retry_policy_of(request),
        headers={"x-request-id": get_request_id(request.scope), **(headers or {})},
    )
    asked = parse_selectors(request.method, request.headers)
    upstream = await in_time(request, _open(remote, request.method, asked, owner_of(request)))
    if upstream.length is None and upstream.read and request.scope["http_version"] == "1.0":
        # Which knows no chunks (RFC 9112, 7.1): it could not tell the whole from a part.
        raise BadUpstream("a body of unknown length, for an HTTP/1.0 client")
    resume = _resume(remote, upstream, request) if upstream.read else None
    return StreamingResponse(
        content=exact_body(upstream, resume),
        status_code=upstream.status,
        headers=_headers_of(upstream, download_name, private=is_private(request)),
    )


async def _open(
    remote: RemoteBody, method: str, asked: RequestSelectors, owner: AsyncExitStack
) -> Upstream:
    spec = _spec(asked, remote.length)
    conditions = forwardable_conditions(asked.conditions)
    if spec is None or asked.if_range is None:
        return await remote.open(owner, method=method, conditions=conditions, spec=spec)
    if single_strong_tag(asked.if_range) or http_date(asked.if_range):
        asking = conditions | {"if-range": asked.if_range}
        upstream = await remote.open(owner, method=method, conditions=asking, spec=spec)
        if upstream.part is None or _is_part_of(asked.if_range, upstream):
            return upstream
        # An upstream that knows no If-Range gives a part of whatever it has now.
        upstream.close()
    return await remote.open(owner, method=method, conditions=conditions)


def _is_part_of(if_range: str, upstream: Upstream) -> bool:
    """Return whether a 206 to `if_range` is of that version, as far as it says so.

    It has to repeat an entity tag, but no date (RFC 9110, 15.3.7).
    """
    stated = read_validators(upstream.headers)
    if single_strong_tag(if_range) is None and stated.last_modified is None:
        return True
    return if_range_holds(if_range, stated, now=None)


def _resume(remote: RemoteBody, upstream: Upstream, request: Request) -> Resume | None:
    """Return how to continue this body, where the upstream knows versions and ranges."""
    stated = read_validators(upstream.headers)
    version = stated.strong_etag or stated.last_modified
    now = http_date(upstream.headers.get("date", ""))
    if version is None or upstream.length is None or not _knows_ranges(upstream):
        return None
    if not if_range_holds(version, stated, now=now):
        return None
    first = upstream.part.first if upstream.part else 0
    last = first + upstream.length - 1
    # The resume policy sets its own retries; and the rest is as long as the beginning was.
    total = upstream.total if upstream.part else upstream.length
    once = replace(remote, patience=NO_RETRY, length=total)

    async def open_at(position: int, owner: ExitStack) -> Upstream:
        part = Part(first + position, last)
        rest = await once.open(
            owner, method="GET", conditions={"if-range": version}, spec=Spec(part.first, part.last)
        )
        found = read_validators(rest.headers)
        same = found.etag == stated.etag and found.last_modified in (None, stated.last_modified)
        if rest.part != part or not same:
            raise PreconditionFailed("the upstream has no more of this version")
        return rest

    return resume_policy_of(request).resume(open_at)


def _knows_ranges(upstream: Upstream) -> bool:
    ranges = upstream.headers.get("accept-ranges", "")
    return upstream.part is not None or ranges.lower() == "bytes"


def _spec(asked: RequestSelectors, size: int | None) -> Spec | None:
    """Return the one range to ask the upstream for; None for the whole.

    Its bounds are within the size, since not every upstream clamps them as it should. Of several
    ranges the whole is given, as RFC 9110 allows (14.2).
    """
    if size is None:
        return asked.specs[0] if asked.specs and len(asked.specs) == 1 else None
    parts = resolve_ranges(asked.specs, size) if asked.specs else None
    if parts is None or len(parts) > 1:
        return None
    return Spec(parts[0].first, parts[0].last) if parts else Spec(size, None)


def _headers_of(upstream: Upstream, download_name: str | None, *, private: bool) -> dict[str, str]:
    part, total, stored = upstream.part, upstream.total, upstream.headers
    headers = download_headers(
        stored,
        default_type="application/octet-stream",
        length=upstream.length,
        content_range=part.content_range(total) if part and total is not None else None,
        ranges=_knows_ranges(upstream),
        download_name=download_name,
        private=private,
    )
    if upstream.status == HTTPStatus.NOT_MODIFIED:
        return not_modified_headers(headers)
    return headers
