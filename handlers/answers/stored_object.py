"""Answer a request for an S3 object: choose the bytes and the status.

All stores handle a GET of the whole object or of one plain range alike, with at most an If-Match
of one strong entity tag. The service sends no other GET. For tag lists, weak tags, dates and other
ranges it sends a HEAD first and decides itself (RFC 9110, 13 and 14).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Literal, TypeAlias

from starlette.responses import Response, StreamingResponse

from ..body.checksums import start_verifier
from ..body.resume import exact_body
from ..body.retry import NO_RETRY
from ..body.upstream import Chunk, Owner, Upstream
from ..download.handle import Download
from ..errors import PreconditionFailed, RangeNotSatisfiable, UpstreamBusy
from ..rfc9110.conditions import Validators, evaluate_conditions, if_range_holds
from ..rfc9110.dates import http_date
from ..rfc9110.ranges import Part, resolve_ranges
from ..sources.s3.bucket import Bucket, StoredObject
from .headers import attachment, download_headers, type_headers
from .multipart import Multipart
from .selectors import RequestSelectors
from .streaming import stream
from .version import Version

# If the object is replaced between HEAD and GET this many times, the client gets a 503.
ATTEMPTS = 3

# Headers that the store sends for a presigned URL as this service would.
PRESIGNED_HEADERS = ("content-type", "content-disposition")

Delivery: TypeAlias = Literal["proxy", "redirect"]


async def answer_with_object(
    download: Download,
    bucket: Bucket,
    key: str,
    selectors: RequestSelectors,
    *,
    default_type: str,
    filename: str | None,
    delivery: Delivery | None = None,
) -> Response:
    """Return the response with the object `key`, or with the ranges that the request selects.

    `default_type` is the Content-Type of an object that was stored without one. `delivery`
    overrides `Settings.delivery`; with "redirect", a GET gets a presigned URL of the store.
    `download.owner`, an exit stack, closes the connection to the store. Raises DownloadError.
    """
    stored = StoredObject(bucket, key, download.retry_policy())
    answer = _ObjectAnswer(download, stored, selectors, default_type, filename)
    if download.record.method == "HEAD":
        return await download.in_time(answer.head())
    is_redirect = (delivery or download.runtime.settings.delivery) == "redirect"
    return await download.in_time(answer.redirect() if is_redirect else answer.get())


@dataclass(slots=True)
class _ObjectAnswer:
    """Opens the object of one request, and makes the response."""

    download: Download
    stored: StoredObject
    selectors: RequestSelectors
    default_type: str
    filename: str | None

    async def head(self) -> StreamingResponse:
        """Return the response to a HEAD; raise DownloadError."""
        metadata = await self.stored.head()
        return self._not_modified(metadata) or self._stream(metadata, exact_body(metadata))

    async def get(self) -> StreamingResponse:
        """Open the object and return the response to a GET; raise DownloadError or NoBulkSlot."""
        if not self.download.try_acquire_bulk_slot():
            self.download.require_bulk_slot(await self._body_length())
        if single := self.selectors.single_get():
            spec, tag = single
            try:
                upstream = await self.stored.open(self.download.owner, spec=spec, if_match=tag)
                tag = upstream.validators.strong_etag
                version = self._version(upstream.validators, upstream.object_length, tag)
                return self._whole_or_part(upstream, version)
            except (PreconditionFailed, RangeNotSatisfiable):
                pass  # Stores differ in when they send 412 and 416: decide by a HEAD below.
        refused: Validators | None = None
        for _ in range(ATTEMPTS):
            metadata = await self.stored.head()
            if answer := self._not_modified(metadata):
                return answer
            current = metadata.validators
            parts = self._parts(metadata)
            if parts == []:
                raise RangeNotSatisfiable("no range is in the object", length=metadata.length)
            # The store has refused its own current entity tag: send the next GET without If-Match.
            tag = current.strong_etag if current != refused else None
            version = self._version(current, metadata.length, tag)
            try:
                return await self._open_parts(version, tag, parts)
            except (PreconditionFailed, RangeNotSatisfiable):
                refused = current
        raise UpstreamBusy(f"object replaced between HEAD and GET {ATTEMPTS} times", retry_after=1)

    async def redirect(self) -> Response:
        """Return a redirect to the object, or the 304; raise DownloadError.

        Clients repeat their Range at the store. If Range must be ignored, for example because of
        an If-Range of another version, the store might not do so: then stream the whole object.
        """
        metadata = await self.stored.head(needs_length=self.selectors.specs is not None)
        if answer := self._not_modified(metadata):
            return answer
        parts = self._parts(metadata)
        if parts == []:
            raise RangeNotSatisfiable("no range is in the object", length=metadata.length)
        if parts is None and self.selectors.specs:
            return await self.get()
        described = type_headers(metadata.headers, self.default_type)
        if self.filename is not None:
            described["content-disposition"] = attachment(self.filename)
        presigned = {name: described[name] for name in PRESIGNED_HEADERS if name in described}
        lifetime = self.download.runtime.settings.redirect_lifetime
        url = await self.stored.bucket.presign(self.stored.key, lifetime, presigned)
        headers = {"location": url, "cache-control": "private, no-store"}
        return Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers=headers)

    async def _body_length(self) -> int | None:
        """Return the length of the response's body, without opening it; None if unknown."""
        metadata = await self.stored.head()
        if evaluate_conditions(self.selectors.conditions, metadata.validators):
            return 0  # The answer is a 304 or a 412.
        parts = self._parts(metadata)
        return metadata.length if parts is None else sum(part.length for part in parts)

    def _version(self, current: Validators, total: int | None, tag: str | None) -> Version:
        async def request_part(part: Part, owner: Owner, is_conditional: bool) -> Upstream:
            once = replace(self.stored, retry_policy=NO_RETRY)
            if_match = tag if is_conditional else None
            return await once.open(owner, spec=part.spec, if_match=if_match)

        return Version(
            validators=current,
            total=total,
            request_part=request_part,
            is_resumable=current.strong_etag is not None,
            resumer=self.download.body_resumer(),
            ahead=self.download.read_ahead(),
        )

    async def _open_parts(
        self, version: Version, tag: str | None, parts: list[Part] | None
    ) -> StreamingResponse:
        """Open the first of `parts` and return the response; None sends the whole object."""
        spec = parts[0].spec if parts else None
        opened = await self.stored.open(self.download.owner, spec=spec, if_match=tag)
        first = version.check(opened)
        if parts is None or len(parts) == 1 or first.part is None or version.total is None:
            return self._whole_or_part(first, version)
        content_type = type_headers(first.headers, self.default_type)["content-type"]
        multipart = Multipart(parts, version.total, content_type)
        framed = replace(first, part=None, length=multipart.length)
        response = self._stream(framed, multipart.body(first, version))
        response.headers["content-type"] = multipart.media_type
        return response

    def _parts(self, metadata: Upstream) -> list[Part] | None:
        """Return the parts to send; an empty list means 416, None the whole object."""
        specs, if_range = self.selectors.specs, self.selectors.if_range
        if specs is None or metadata.length is None:
            return None
        current, now = metadata.validators, http_date(metadata.headers.get("date", ""))
        if if_range is not None and not if_range_holds(if_range, current, now=now):
            return None
        parts = resolve_ranges(specs, metadata.length)
        # Without a strong entity tag, two range requests could return two versions of the object.
        if parts and len(parts) > 1 and current.strong_etag is None:
            return None
        return parts

    def _not_modified(self, metadata: Upstream) -> StreamingResponse | None:
        """Return the 304 if the client has this version, else None; raise PreconditionFailed."""
        status = evaluate_conditions(self.selectors.conditions, metadata.validators)
        if status == HTTPStatus.PRECONDITION_FAILED:
            raise PreconditionFailed("If-Match or If-Unmodified-Since is false for this object")
        if status is None:
            return None
        metadata.status = HTTPStatus.NOT_MODIFIED
        return self._stream(metadata, exact_body(metadata))

    def _whole_or_part(self, upstream: Upstream, version: Version) -> StreamingResponse:
        is_verified = self.download.runtime.settings.verify_checksums and upstream.part is None
        verifier = start_verifier(upstream.headers) if is_verified else None
        return self._stream(upstream, version.body(upstream, verifier))

    def _stream(self, upstream: Upstream, body: AsyncIterator[Chunk]) -> StreamingResponse:
        settings = self.download.runtime.settings
        headers = download_headers(
            upstream,
            default_type=self.default_type,
            default_cache_control=settings.image_cache_control,
            metadata_names=settings.s3_metadata_headers,
        )
        has_ranges, filename = upstream.length is not None, self.filename
        return stream(
            self.download, upstream, body, headers, has_ranges=has_ranges, filename=filename
        )
