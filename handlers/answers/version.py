"""One version of an object or of a remote body; all bytes of a response are of one version."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from ..body.checksums import Verifier
from ..body.read_ahead import ReadAheadPolicy, read_ahead
from ..body.resume import BodyResumer, exact_body
from ..body.upstream import Chunk, Owner, Upstream
from ..errors import PreconditionFailed, RangeIgnored
from ..rfc9110.conditions import Validators
from ..rfc9110.ranges import Part

RequestPart = Callable[[Part, Owner, bool], Awaitable[Upstream]]
"""Requests a part, for the owner to close; the bool says whether with the condition."""


@dataclass(kw_only=True, slots=True)
class Version:
    """Opens parts of one version of a body, and rejects parts of another version."""

    validators: Validators
    total: int | None
    """Bytes of the whole body; None if unknown."""

    request_part: RequestPart
    """Requests a part once, with a condition that excludes other versions or without."""

    is_resumable: bool
    """Whether `request_part` has such a condition."""

    resumer: BodyResumer
    ahead: ReadAheadPolicy | None = None
    """None disables read-ahead."""

    def check(self, upstream: Upstream) -> Upstream:
        """Return `upstream` if it has this version; else close it and raise PreconditionFailed."""
        ours, theirs = self.validators, upstream.validators
        is_same = (
            theirs.etag == ours.etag
            and theirs.last_modified in (None, ours.last_modified)
            and (self.total is None or upstream.object_length in (None, self.total))
        )
        if not is_same:
            upstream.close()
            raise PreconditionFailed("the upstream's ETag, Last-Modified or length has changed")
        return upstream

    async def open_part(self, part: Part, owner: Owner) -> Upstream:
        """Open exactly `part` of this version, for `owner` to close; raise DownloadError."""
        return self._check_part(part, await self.request_part(part, owner, True))

    async def open_rest(self, part: Part, owner: Owner) -> Upstream:
        """Open exactly `part`, as `open_part` does, also if the upstream refuses the condition.

        Some stores refuse their own entity tag. A part without the condition is of this version if
        its own entity tag, date and length are the same.
        """
        try:
            return await self.open_part(part, owner)
        except (PreconditionFailed, RangeIgnored):
            return self._check_part(part, await self.request_part(part, owner, False))

    def _check_part(self, part: Part, upstream: Upstream) -> Upstream:
        if self.check(upstream).part != part:
            upstream.close()
            raise RangeIgnored("the upstream sent the whole body instead of the requested range")
        return upstream

    async def open_later_part(self, part: Part) -> Upstream:
        """Open a part of a multipart body after the parts before it; raise BrokenTransfer."""
        return await self.resumer.open(lambda _, owner: self.open_part(part, owner))

    def body(self, upstream: Upstream, verifier: Verifier | None = None) -> AsyncIterator[Chunk]:
        """Yield the body of `upstream`, resumed after breaks as long as this version exists."""
        if upstream.length is None or not self.is_resumable:
            return exact_body(upstream, verifier=verifier)
        part = upstream.part or Part(0, upstream.length - 1)

        async def open_at(position: int, owner: Owner) -> Upstream:
            rest = Part(part.first + position, part.last)
            return self._read_ahead(await self.open_rest(rest, owner), rest, owner)

        body = self._read_ahead(upstream, part, self.resumer.owner)
        return exact_body(body, partial(self.resumer.resume, open_at), verifier)

    def _read_ahead(self, opened: Upstream, part: Part, owner: Owner) -> Upstream:
        ahead = self.ahead
        return read_ahead(opened, part, owner, self.open_part, ahead) if ahead else opened
