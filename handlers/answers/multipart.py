"""Several parts of an object in one body (multipart/byteranges; RFC 9110, section 14.6)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from ..body.upstream import Chunk, Upstream
from ..rfc9110.ranges import Part


@dataclass(frozen=True, kw_only=True, slots=True)
class Multipart:
    """The framing of `parts` of an object of `total` bytes and of one content type."""

    parts: list[Part]
    total: int
    content_type: str
    # Long enough that no object has it in its bytes, but by intent: and that can't know it.
    boundary: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def media_type(self) -> str:
        """The content type of the whole answer."""
        return f"multipart/byteranges; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """The bytes of the whole body, framing included."""
        framed = sum(len(self._head(part)) + part.length for part in self.parts)
        return framed + len(self._end())

    async def body(
        self,
        first: Upstream,
        open_part: Callable[[Part], Awaitable[Upstream]],
        body_of: Callable[[Upstream], AsyncIterator[Chunk]],
    ) -> AsyncIterator[Chunk]:
        """Yield the framed parts; `first` is open, the others are opened in their turn.

        `open_part` raises BrokenTransfer and nothing else.
        """
        for part in self.parts:
            yield self._head(part)
            upstream = first if part is self.parts[0] else await open_part(part)
            async for chunk in body_of(upstream):
                yield chunk
        yield self._end()

    def _head(self, part: Part) -> bytes:
        lines = (
            f"\r\n--{self.boundary}",
            f"content-type: {self.content_type}",
            f"content-range: {part.content_range(self.total)}",
            "\r\n",
        )
        return "\r\n".join(lines).encode("latin-1")

    def _end(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode("latin-1")
