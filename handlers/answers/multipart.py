"""Several parts of an object in one body (multipart/byteranges; RFC 9110, section 14.6)."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from ..body.upstream import Chunk, Upstream
from ..rfc9110.ranges import Part
from .version import Version


@dataclass(frozen=True, kw_only=True, slots=True)
class Multipart:
    """The framing of `parts` of an object that has `total` bytes."""

    parts: list[Part]
    total: int
    content_type: str
    # 128 random bits: no collision by chance, and not predictable.
    boundary: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def media_type(self) -> str:
        """The Content-Type of the whole answer."""
        return f"multipart/byteranges; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """The number of bytes in the body, including the framing."""
        return sum(len(self._head(part)) + part.length for part in self.parts) + len(self._end())

    async def body(self, first: Upstream, version: Version) -> AsyncIterator[Chunk]:
        """Yield the framed parts: `first` is open, `version` opens each later part in turn."""
        for part in self.parts:
            yield self._head(part)
            upstream = first if part is self.parts[0] else await version.open_later_part(part)
            async for chunk in version.body(upstream):
                yield chunk
        yield self._end()

    def _head(self, part: Part) -> bytes:
        head = (
            f"\r\n--{self.boundary}\r\ncontent-type: {self.content_type}\r\n"
            f"content-range: {part.content_range(self.total)}\r\n\r\n"
        )
        return head.encode("latin-1")

    def _end(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode("latin-1")
