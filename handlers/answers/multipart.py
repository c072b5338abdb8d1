"""multipart/byteranges: a body of several parts of an object (RFC 9110, section 14.6)."""

import secrets
from collections.abc import AsyncIterator

from ..body.upstream import Chunk, Upstream
from ..rfc9110.ranges import Part
from .version import Version


class Multipart:
    """Several parts of one version, framed in one body."""

    def __init__(self, parts: list[Part], total: int, content_type: str) -> None:
        # 128 random bits: no collision by chance, and not predictable.
        boundary = secrets.token_hex(16)
        self.media_type = f"multipart/byteranges; boundary={boundary}"
        """The Content-Type of the response."""
        begin = f"\r\n--{boundary}\r\ncontent-type: {content_type}\r\ncontent-range: "
        self._heads = {
            part: f"{begin}{part.content_range(total)}\r\n\r\n".encode("latin-1") for part in parts
        }
        self._end = f"\r\n--{boundary}--\r\n".encode("latin-1")
        framing = sum(map(len, self._heads.values())) + len(self._end)
        self.length = framing + sum(part.length for part in parts)
        """The number of bytes in the body, including the framing."""

    async def body(self, first: Upstream, version: Version) -> AsyncIterator[Chunk]:
        """Yield the framed parts: `first` is open already, `version` opens the others in turn."""
        for part, head in self._heads.items():
            yield head
            upstream = first if first.part == part else await version.open_later_part(part)
            async for chunk in version.body(upstream):
                yield chunk
        yield self._end
